"""The other configs at toy size: the experiments, real rows, and a task, verifier and reward of one's own."""

from __future__ import annotations

import collections
import gzip
import json
import pathlib

import pytest
from toy import ROOT, read_json, rows, shrunk

from examples.own_task import Sums, reward, verify_last
from sml_jax.data.store import read_dialogues

GSM8K = ROOT.parent / "shared" / "data"
WORDS = ("apples", "pens", "cats", "hats")


def made_up_gsm8k(folder: pathlib.Path) -> pathlib.Path:
  """Rows as OpenAI publishes them, so that the test does not need the real ones."""
  def row(i: int) -> dict[str, str]:
    a, b = 3 + i % 7, 2 + i // 7
    # No near copies of one another, which would all be in one part.
    question = f"Ann{i} has {a} {WORDS[i % 4]}{i} and buys{i} {b} more of{i} these. How many now{i}?"
    return {"question": question, "answer": f"Ann has {a} + {b} = <<{a}+{b}={a + b}>>{a + b}.\n#### {a + b}"}

  (folder / "gsm8k").mkdir(parents=True)
  text = "".join(json.dumps(row(i)) + "\n" for i in range(400))
  (folder / "gsm8k" / "train.jsonl.gz").write_bytes(gzip.compress(text.encode()))
  return folder


def test_gsm8k(program, tmp_path):
  """On the real rows where they are."""
  folder = GSM8K if (GSM8K / "gsm8k").exists() else made_up_gsm8k(tmp_path / "data")
  workdir = tmp_path / "run"
  arguments = [
      *shrunk("configs/gsm8k_smoke.py"), "--config.stages.mt_rl.steps=2", "--config.stages.mt_rl.tasks_per_step=2",
      f"--config.data_dir={folder}",
  ]  # fmt: skip
  program.ok(*arguments, f"--workdir={workdir}")
  answers = list(read_dialogues(workdir / "answers" / "dialogues"))
  ends = collections.Counter(d.end for d in answers)
  assert len(answers) == 256 and ends.keys() <= {"solved", "context_full"} and ends["solved"] >= 0.9 * 256
  for d in answers:
    if d.end == "solved":
      assert [t.verdict for t in d.student_turns] == ["solved"] and d.student_turns[0].text.startswith("The answer is ")
  summary = read_json(workdir / "summary.json")
  for arm in ("sft", "mt_rl"):
    e = summary["arms"][arm]["eval"]["gsm8k"]
    assert e["n_tasks"] == 16 and e["invalid_rate"] == 0 and len(e["success_by_turn"]) == 4
  trained = {d.task_id for d in read_dialogues(workdir / "mt_rl" / "dialogues")} | {d.task_id for d in answers}
  tested = {d.task_id for d in read_dialogues(workdir / "evaluation" / "sft" / "gsm8k" / "sampled")}
  assert not trained & tested
  assert "solve next to nothing" in (workdir / "report.html").read_text()
  # The teacher knows the gold number and says no more than which way.
  heard = {t.text for d in read_dialogues(workdir / "mt_rl" / "dialogues") for t in d.turns[2::2]}
  assert heard <= {
      f"{words} It is too {way}." for words in ("Not yet.", "Not quite.", "Look again.") for way in ("low", "high")
  } | {"Please answer with a number.", "I can not say."}


def test_own_task(program, tmp_path):
  """The source, the verifier and the reward that the config names by import path are those that are used."""
  workdir = tmp_path / "run"
  more = ["--config.stages.mt_rl.reward=examples.own_task:reward", "--config.stages.sft.steps=60",
          "--config.stages.sft.batch_rows=8", "--config.stages.sft.optimizer.learning_rate=1e-2"]  # fmt: skip
  program.ok(*shrunk("configs/own_task.py", *more), f"--workdir={workdir}")
  dialogues = list(read_dialogues(workdir / "mt_rl" / "dialogues"))
  assert {d.end for d in dialogues} >= {"solved", "turn_limit"}
  source = Sums()
  tasks = {(t := source.task("sums", "train", i)).id: t for i in range(source.size("sums", "train"))}
  lenient = 0
  for d in dialogues:
    assert d.reward == pytest.approx(1.25 - 0.25 * len(d.student_turns) if d.end == "solved" else 0.0)
    for turn in d.student_turns:
      if not turn.cut:
        assert [turn.verdict] == verify_last([tasks[d.task_id]], [turn.text])
        lenient += turn.verdict == "solved" != source.verify([tasks[d.task_id]], [turn.text])[0]
  assert {row["reward"] for row in rows(workdir / "mt_rl")} != {0.0}
  summary = read_json(workdir / "summary.json")
  assert set(summary["arms"]["mt_rl"]["eval"]) == {"sums", "sums_try_again"}


def test_own_task_by_hand():
  source = Sums()
  tasks = [source.task("sums", "train", i) for i in range(source.size("sums", "train"))]
  task = next(t for t in tasks if t.private["sum"] == 12)
  assert source.verify([task] * 4, ["12.", "It is 12.", "13.", "?"]) == ["solved", "wrong", "wrong", "no_attempt"]
  assert verify_last([task] * 4, ["12.", "It is 12.", "12 or 13", "?"]) == ["solved", "solved", "wrong", "no_attempt"]
  parts = [{source.task("sums", p, i).id for i in range(source.size("sums", p))} for p in ("train", "dev", "test")]
  assert sum(map(len, parts)) == 144 == len(set.union(*parts))
  assert reward.__doc__ and verify_last.__doc__


def test_experiments(program, toy, tmp_path):
  """All the other arms, on top of the finished toy run."""
  file = "configs/experiments.py"
  workdir = toy.copy_without("evaluation", to=tmp_path / "run")
  saved = read_json(workdir / "config.json")
  del saved["stages"]["evaluation"]  # What a config without it would have saved: stages may be added at the end.
  (workdir / "config.json").write_text(json.dumps(saved))
  few = ["--config.stages.evaluation.suites=math,code_sharded", "--config.stages.evaluation.greedy=false"]
  output = program.ok(*shrunk(file, *few), f"--workdir={workdir}")
  assert [s for s in toy.stages if f"{s}: done before" in output] == [s for s in toy.stages if s != "evaluation"]
  stages = read_json(workdir / "config.json")["stages"]
  arms = [name for name, s in stages.items() if s["kind"] in ("sft", "rl")]
  assert {"st_sft", "q_sft", "q_mt_rl", "mt_rl_try_again", "code_mt_sft", "code_mt_rl", "code_st_rl"} <= set(arms)
  assert list(read_json(workdir / "summary.json")["arms"]) == arms
  dialogues = {name: list(read_dialogues(workdir / name / "dialogues")) for name in stages if name != "evaluation"
               and (workdir / name / "dialogues").exists()}  # fmt: skip
  assert {d.feedback for d in dialogues["mt_rl_try_again"]} == {"try_again"}
  assert {d.domain for d in dialogues["code_mt_rl"]} == {"code"}
  assert all(len(d.student_turns) == 1 for d in dialogues["st_sft_data"] + dialogues["code_st_rl"])
