"""configs/real_tasks_smoke.py on made-up rows of every kind: all of it runs, and the report says what it must."""

from __future__ import annotations

import collections
import json
import pathlib

from toy import TINY, read_json, rows

from sml_jax.data.store import read_dialogues
from sml_jax.tasks import sandbox

NOUNS = "apples bears cups dogs eggs forks geese hats inks jars kites lamps".split()
MODES = ("full", "concat", "shuffle_concat", "sharded", "recap", "snowball")


def made_up(folder: pathlib.Path) -> pathlib.Path:
  def write(name, made):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in made))

  # No near copies: every word but the last belongs to one row.
  question = lambda i: " ".join(f"{n}{i}" for n in NOUNS[:6]) + f" {i} more?"
  prompt = lambda i: f'def plus{i}(x):\n    """{question(i)}\n    >>> plus{i}(1)\n    {1 + i}\n    """\n'
  shards = [f"how many {NOUNS[0]}?", f"ann has 3 {NOUNS[0]}", "bob has 4"]
  write("gsm8k/train.jsonl", [{"question": question(i), "answer": f"so\n#### {i + 100}"} for i in range(60)])
  write("mbpp/a.jsonl", [{
      "task_id": i, "text": question(i + 100), "code": f"def f{i}(x):\n  return x+{i}", "test_setup_code": "",
      "test_list": [f"assert f{i}(1) == {1 + i}", f"assert f{i}(5) == {5 + i}"],
  } for i in range(40)] + [{"task_id": 99, "text": "", "code": "", "test_list": []}])  # fmt: skip
  write("humaneval/a.jsonl", [{
      "task_id": f"HumanEval/{i}", "prompt": prompt(i), "entry_point": f"plus{i}",
      "canonical_solution": f"    return x + {i}\n",
      "test": f"def check(candidate):\n    assert candidate(7) == {7 + i}",
  } for i in range(200, 240)])  # fmt: skip
  write("lost_in_conversation/a_verbatim.jsonl", [{
      "task_id": f"sharded-GSM8K/{i}", "task": "math", "question": question(i + 300), "answer": "7\n#### 7",
      "shards": [{"shard_id": n + 1, "shard": f"{s} {i}"} for n, s in enumerate(shards)],
  } for i in range(40)])  # fmt: skip
  write("cruxeval/a.jsonl", [{"code": f"def f(x):\n  return (x, {i})", "input": "1", "output": f"(1, {i})",
                              "id": str(i)} for i in range(6)])  # fmt: skip
  write("svamp/a.jsonl", [{"id": str(i), "question": question(i + 500), "answer": str(i)} for i in range(9)])
  write("omni_math_rule/a.jsonl", [{"problem": question(i + 600), "answer": rf"\frac{{{i}}}{{7}}"} for i in range(9)])
  return folder


def test_every_reference_passes_and_the_next_row_fails(program, tmp_path):
  """benchmarks/verify_references.py, by its exit code and its counts."""
  data = made_up(tmp_path)
  backend = "auto" if any(not sandbox.works(b) for b in sandbox.SAFE) else "rlimits"
  call = ("benchmarks/verify_references.py",), f"--data_dir={data}", f"--backend={backend}"
  printed = program.ok(*call[1:], before=call[0])
  counts = {line.split()[0]: line.split()[1:4] for line in printed.splitlines() if not line.startswith((" ", "("))}
  assert {name: counts[name] for name in ("mbpp", "humaneval", "cruxeval", "gsm8k", "svamp", "omni_math")} == {
      "mbpp": ["40", "40", "0"], "humaneval": ["40", "40", "0"], "cruxeval": ["6", "6", "0"],
      "gsm8k": ["60", "60", "0"], "svamp": ["9", "9", "0"], "omni_math": ["9", "9", "0"],
  }  # fmt: skip
  (data / "cruxeval" / "a.jsonl").write_text('{"code": "def f(x): return x", "input": "1", "output": "2", "id": "7"}\n')
  done = program(*call[1:], before=call[0])
  assert done.returncode == 1 and "cruxeval/7: the reference FAILS" in done.stdout


def test_every_kind_of_real_task_goes_through(program, tmp_path):
  data, run = made_up(tmp_path / "data"), tmp_path / "run"
  # Where nothing isolates, the unsafe backend must be named: these programs are our own.
  backend = "auto" if any(not sandbox.works(b) for b in sandbox.SAFE) else "rlimits"
  keys = {**{f"model.{k}": v for k, v in TINY.items()}, "data_dir": data, "executor.backend": backend,
          "stages.answers.dialogues": 48, "stages.sft.steps": 10, "stages.mt_rl.steps": 1,
          "stages.evaluation.tasks_per_suite": 3}  # fmt: skip
  printed = program.ok("--config=configs/real_tasks_smoke.py", *(f"--config.{k}={v}" for k, v in keys.items()),
                       f"--workdir={run}")  # fmt: skip
  assert "mbpp: 40 tasks, 1 bad rows skipped" in printed and "near copies: 0 pairs" in printed
  told = list(read_dialogues(run / "answers" / "dialogues"))
  solved = collections.Counter(d.domain for d in told if d.end == "solved")
  ends = collections.Counter(d.end for d in told)
  assert set(ends) <= {"solved", "context_full"} and solved["gsm8k"] > 10 and solved["mbpp"] > 10
  reasons = {t.reason for d in told for t in d.student_turns}
  assert reasons == {"equal", "passed"}  # numbers, and programs that were run
  entry = read_json(run / "summary.json")["arms"]["mt_rl"]["eval"]
  assert set(entry) == {"gsm8k", "mbpp", "humaneval", "lost_in_conversation_sharded"}
  for name, suite in entry.items():
    assert suite["invalid_rate"] == 0 and suite["leak_rate"] == 0, name
    assert len(suite["success_leaked_failed_by_turn"]) == 6
  modes = entry["lost_in_conversation_sharded"]["lost_in_conversation"]
  assert set(MODES) <= set(modes["all"]["modes"] if "modes" in modes["all"] else modes["all"])
  played = {m: list(read_dialogues(run / f"evaluation/mt_rl/lost_in_conversation_sharded/mode_{m}")) for m in MODES}
  assert {m: len(d) for m, d in played.items()} == dict.fromkeys(MODES, 6)
  for mode, dialogues in played.items():
    turns = [len(d.student_turns) for d in dialogues if d.end in ("shards_done", "turn_limit")]
    assert all(n == {"sharded": 3, "snowball": 3, "recap": 4}.get(mode, 1) for n in turns), mode
  (logged,) = [r for r in rows(run / "mt_rl") if r["step"] == 1]
  assert logged["leak_rate"] == 0 and "verifier_timeout_rate" in logged
  report = (run / "report.html").read_text()
  assert "Lost in Conversation" in report and "shuffle concat" in report
