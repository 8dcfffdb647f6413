"""The main job, shrunk: every stage, what it writes, and what the second run of the same command does."""

from __future__ import annotations

import re
import shutil

import pytest
from toy import QUICKSTART, read_json

from sml_jax.data.store import read_dialogues

ARMS = ("base", "mt_sft", "st_rl", "mt_rl")
SUITES = ("math", "code", "math_sharded", "code_sharded", "math_try_again")
N = 16


def is_rate(x) -> bool:
  return isinstance(x, (int, float)) and 0 <= x <= 1


def is_curve(values, interval=False) -> bool:
  if interval:
    return len(values) == 10 and all(len(v) == 2 and -1 <= v[0] <= v[1] <= 1 for v in values)
  return len(values) == 10 and all(isinstance(v, (int, float)) for v in values)


def test_every_stage_ran(toy):
  assert [s for s in toy.stages if not (toy.workdir / s / "done.json").exists()] == []
  for stage in ("base", "mt_sft", "mt_rl", "st_rl"):
    assert [row["step"] for row in toy.rows(stage)] == list(range(1, 7))
    assert all(row["stage"] == stage for row in toy.rows(stage))
    assert list((toy.workdir / stage / "tensorboard").glob("events.out.tfevents.*"))
    assert sorted(int(p.name) for p in (toy.workdir / stage / "checkpoints").iterdir()) == [4, 6]
  for stage in ("mt_rl", "st_rl"):
    assert any(row["grad_norm"] > 0 for row in toy.rows(stage)), "RL had nothing to learn from"
    assert all(0 <= row["logp_gap"] < 1e-5 for row in toy.rows(stage))  # The sampled is the trained log-probability.
  assert [row["step"] for row in toy.rows("mt_rl") if "dev_success_math" in row] == [3, 6]


def test_summary_has_the_schema(toy):
  summary = toy.summary
  assert {"config", "seconds", "arms", "paired"} <= summary.keys()
  assert summary["config"] == read_json(toy.workdir / "config.json")
  assert summary["seconds"].keys() == set(toy.stages) and all(s > 0 for s in summary["seconds"].values())
  assert tuple(summary["arms"]) == ARMS
  for arm, entry in summary["arms"].items():
    assert entry["checkpoint"].endswith(f"/{arm}/checkpoints")
    assert tuple(entry["eval"]) == SUITES
    assert isinstance(entry["sampled_student_tokens"], int)
    for suite, e in entry["eval"].items():
      sharded = suite.endswith("_sharded")
      assert e["feedback"] == ("try_again" if suite == "math_try_again" else "full")
      assert e["n_tasks"] == N
      assert is_curve(e["success_by_turn"]) and e["success_by_turn"] == sorted(e["success_by_turn"])
      assert is_curve(e["ci95"], interval=True)
      assert e["resampling"] is None if sharded else is_curve(e["resampling"])
      assert is_rate(e["premature_attempt_rate"]) if sharded else e["premature_attempt_rate"] is None
      for rate in ("clarification_rate", "repeat_rate", "truncated_rate", "invalid_rate"):
        assert is_rate(e[rate]), (arm, suite, rate)
      assert e["questions_per_dialogue"] >= 0
      assert len(e["answer_nll_by_turn"]) == 10 and e["answer_nll_by_turn"][0] > 0
      assert sum(e["end_reasons"].values()) == N
  paired = summary["paired"]
  for key in ("mt_rl-st_rl", "mt_rl-mt_sft", "st_rl-mt_sft"):
    assert tuple(paired[key]) == SUITES
  for key in ("mt_rl-resampling", "mt_rl-base_resampling", "mt_rl-mt_sft_resampling"):
    assert {"math", "code"} <= paired[key].keys()
  for arm in ARMS:
    assert list(paired[f"{arm}:full-try_again"]) == ["math"]
  for suites in paired.values():
    for found in suites.values():
      assert is_curve(found["difference_by_turn"]) and is_curve(found["ci95"], interval=True)


def test_summary_says_what_the_dialogues_say(toy):
  for arm in ARMS:
    for suite in SUITES:
      e = toy.summary["arms"][arm]["eval"][suite]
      dialogues = list(read_dialogues(toy.workdir / "evaluation" / arm / suite / "sampled"))
      assert len({d.task_id for d in dialogues}) == N
      valid = [d for d in dialogues if d.end not in ("verifier_failed", "teacher_failed")]
      solved = [len(d.turns) // 2 if d.end == "solved" else 99 for d in valid]  # teacher, student, ..., student
      assert e["success_by_turn"] == pytest.approx([sum(s <= t for s in solved) / len(valid) for t in range(1, 11)])
      assert e["end_reasons"] == {end: [d.end for d in dialogues].count(end) for end in {d.end for d in dialogues}}
      turns = [t for d in dialogues for t in d.turns if t.role == "student"]
      asked = sum(t.kind in ("clarification", "interrogation") for t in turns)
      assert e["clarification_rate"] == pytest.approx(asked / len(turns), abs=1e-6)
      assert e["questions_per_dialogue"] == pytest.approx(asked / N, abs=1e-6)
      cut = sum(d.end == "context_full" or any(t.cut for t in d.turns) for d in dialogues)
      assert e["truncated_rate"] == pytest.approx(cut / N)
      first = [d.turns[1].answer_nll for d in dialogues]
      assert e["answer_nll_by_turn"][0] == pytest.approx(sum(first) / N, abs=1e-5)


def test_all_arms_answer_the_same_tasks(toy):
  for suite in SUITES:
    tasks = [[d.task_id for d in read_dialogues(toy.workdir / "evaluation" / a / suite / "sampled")] for a in ARMS]
    assert tasks.count(tasks[0]) == len(ARMS)
  math, again = (
      [d.task_id for d in read_dialogues(toy.workdir / "evaluation" / "mt_rl" / s / "sampled")]
      for s in ("math", "math_try_again")
  )
  assert math == again


def test_rl_arms_sample_equally_many_tokens(toy):
  mt, st = (toy.summary["arms"][arm]["sampled_student_tokens"] for arm in ("mt_rl", "st_rl"))
  assert abs(st - mt) <= 0.02 * mt
  for stage, total in (("mt_rl", mt), ("st_rl", st)):
    assert total == sum(d.sampled_tokens for d in read_dialogues(toy.workdir / stage / "dialogues"))
    assert total == toy.rows(stage)[-1]["sampled_student_tokens"]
  assert all(len(d.student_turns) == 1 for d in read_dialogues(toy.workdir / "st_rl" / "dialogues"))


def test_report_is_there(toy):
  page = (toy.workdir / "report.html").read_text()
  assert page.startswith("<!doctype html>") and "http-equiv" in page
  for arm in ARMS:
    assert page.count(f'data-arm="{arm}"') == 20, f"20 dialogues of {arm} to read"
  assert (toy.workdir / "success.png").read_bytes().startswith(b"\x89PNG")


def test_terminal_shows_the_run(toy):
  text = toy.output
  for stage in toy.stages:
    assert re.search(rf"^{stage}: \d+ steps$", text, re.M)
  assert re.search(r"^mt_rl  6/6  success \d+\.\d%  loss .* tok/s  MFU", text, re.M)
  assert "tokens are trained" in text and "«" in text  # One rendered dialogue with its trained tokens marked.
  assert "tasks solved by student turn" in text and "report.html" in text


def test_second_run_does_nothing(program, toy):
  before = {p: p.stat().st_mtime_ns for p in toy.workdir.rglob("*")}
  student, *stages = program.ok(*QUICKSTART, f"--workdir={toy.workdir}").splitlines()
  assert student.startswith("student: 21,600 parameters; ")
  assert [f"{stage}: done before" for stage in toy.stages] == stages
  assert before == {p: p.stat().st_mtime_ns for p in toy.workdir.rglob("*")}


def test_report_is_made_again_from_the_record_alone(program, toy, tmp_path):
  """P41: a kill between the last dialogue and the report. No checkpoint is left, so no model can have been asked."""
  workdir = tmp_path / "run"
  shutil.copytree(toy.workdir, workdir)
  for path in [*workdir.glob("*/checkpoints"), *workdir.glob("*/dataset")]:
    shutil.rmtree(path)
  for name in ("summary.json", "report.html", "success.png", "evaluation/done.json"):
    (workdir / name).unlink()
  program.ok(*QUICKSTART, f"--workdir={workdir}")
  again = read_json(workdir / "summary.json")
  assert again["paired"] == toy.summary["paired"]
  for arm, entry in toy.summary["arms"].items():
    assert again["arms"][arm] == entry | {"checkpoint": str(workdir / arm / "checkpoints")}
  assert (workdir / "report.html").exists() and (workdir / "success.png").exists()
