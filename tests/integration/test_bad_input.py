"""What a user gets wrong, and what goes wrong on a machine: one clear line, exit code 1, and earlier work intact."""

from __future__ import annotations

import json
import pathlib
import re
import resource
import shutil
import signal

import pytest
from toy import HERE, SMALL, read_json, rows

from sml_jax.dialogue.renderer import SHIPPED

GSM8K = "--config=configs/gsm8k_smoke.py"
OWN = "--config=configs/own_task.py"


def contents(folder: pathlib.Path) -> dict[pathlib.Path, bytes]:
  return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_help_lists_every_key(program):
  text = program.ok("--help")
  for key in ("model.d_model", "tasks.verifier", "gamma", "batch_rows", "author", "tasks_per_suite", "log_every"):
    assert re.search(rf"^  {re.escape(key)} \[", text, re.M), key
  for kind in ("sft", "rl", "synthesize", "evaluate"):
    assert f"Keys of a stage of kind {kind}" in text
  assert "--config=configs/quickstart.py --workdir=" in text


BAD_ARGUMENTS = {
    "--config.sed=3": "sed: no such key; did you mean 'seed'?",
    "--config.stages.mt_rl.gama=0.5": "stages.mt_rl.gama: no such key; did you mean 'stages.mt_rl.gamma'?",
    "--config.model.d_model=wide": "model.d_model: expected int, got 'wide'",
    "--config.stages.mt_rl.gamma=1.5": "stages.mt_rl.gamma: expected above 0 and at most 1, got 1.5",
    "--config.model.kv_heads=3": "model.heads: expected a multiple of kv_heads (3), got 2",
    "--config.seed": "--config.seed: has no value",
    "--wrokdir=x": "unknown argument '--wrokdir=x'",
    "--config.tokenizer=/nowhere/own.model": "tokenizer /nowhere/own.model: no such file",
    f"--config.tokenizer={__file__}": f"tokenizer {__file__}: not a SentencePiece model",
    "--config.model.vocab_size=100": "more than the 100 rows of the embedding (model.vocab_size)",
    "--config.dialogue.max_turn_tokens=400": "more than model.max_length (384)",
    "--config.mesh.data=3": "does not make the 1 devices there are",
    "--config.tasks.source=nowhere:make": "tasks.source: cannot import 'nowhere:make'",
    "--config.tasks.verifier=examples.own_task:nothing": "tasks.verifier: cannot import 'examples.own_task:nothing'",
    "--config.stages.mt_rl.reward=examples.own_task": "stages.mt_rl.reward: cannot import 'examples.own_task'",
    "--config.stages.base.optimizer.warmup_steps=9": "optimizer of a sft stage: warmup_steps 9",
    "--config.stages.base.row_length=8": "more than the row length 8",
    "--config.stages.base.init=/nowhere/checkpoints": "no checkpoint in /nowhere/checkpoints",
    "--config.stages.base.data=/nowhere/dialogues": "/nowhere/dialogues",
}


def test_bad_arguments(program, tmp_path):
  calls = [[SMALL, f"--workdir={tmp_path / str(i)}", argument] for i, argument in enumerate(BAD_ARGUMENTS)]
  for (argument, says), line in zip(BAD_ARGUMENTS.items(), program.errors(*calls), strict=True):
    assert says in line, (argument, line)


def test_bad_key_as_a_user_sees_it(program, tmp_path):
  line = program.error(SMALL, f"--workdir={tmp_path / 'run'}", "--config.sed=3")
  assert line == "error: sed: no such key; did you mean 'seed'?"
  assert not (tmp_path / "run").exists()


def test_no_config_and_no_workdir(program, tmp_path):
  (tmp_path / "file").write_text("")
  broken = tmp_path / "broken.py"
  broken.write_text("def get_config():\n  return 1 / 0\n")
  workdir = f"--workdir={tmp_path / 'run'}"
  says = (
      ([workdir, "--config=nowhere.py"], "--config=nowhere.py: there is no such file"),
      ([workdir], "no config file; write --config=configs/NAME.py"),
      ([SMALL], "no --workdir=DIR"),
      ([SMALL, f"--workdir={tmp_path / 'file'}"], "is a file"),
      ([workdir, f"--config={broken}"], f"{broken}:2: ZeroDivisionError"),
  )
  for line, (_, text) in zip(program.errors(*(call for call, _ in says)), says, strict=True):
    assert text in line, line
  assert not (tmp_path / "run").exists()


def test_bad_data(program, tmp_path):
  good = {"question": "What is one and one?", "answer": "One and one is two.\n#### 2"}
  bad = {
      "missing": ({"answer": "#### 2"}, "field 'question': expected str, got nothing"),
      "mistyped": ({**good, "question": 3}, "field 'question': expected str, got 3"),
      "gold": ({**good, "answer": "two"}, "field 'answer': expected text that ends in"),
  }
  workdir = f"--workdir={tmp_path / 'run'}"
  calls = [[GSM8K, workdir], [GSM8K, workdir, "--config.data_dir=/nowhere"]]
  wanted = ["add --config.data_dir=FOLDER", "data_dir: there is no folder /nowhere"]
  for name, (row, says) in bad.items():
    file = tmp_path / name / "train.jsonl"
    file.parent.mkdir()
    file.write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n")
    calls.append([GSM8K, workdir, f"--config.data_dir={file.parent}"])
    wanted.append(f"{file}:2: {says}")
  for line, says in zip(program.errors(*calls), wanted, strict=True):
    assert says in line, line
  assert not (tmp_path / "run").exists()  # So that the same command with the right folder goes.


def test_source_without_what_is_asked_for(program, tmp_path):
  at_once = [OWN, "--config.eval_every=1", "--config.eval_suites=sums", "--config.stages.sft.steps=6"]
  feedback, many, domain = program.errors(
      [*at_once, f"--workdir={tmp_path / '1'}", "--config.eval_suites=sums_binary", "--config.eval_tasks=8"],
      [*at_once, f"--workdir={tmp_path / '2'}", "--config.eval_tasks=500"],
      [*at_once, f"--workdir={tmp_path / '3'}", "--config.eval_suites=math", "--config.eval_tasks=8"],
  )
  assert "the teacher of sums has no feedback arm 'binary'" in feedback
  assert "an evaluation wants 500 dev tasks of sums, but there are 21" in many
  assert "tasks of the domain sums alone, not 'math'" in domain


def test_workdir_of_another_experiment(program, small):
  before = contents(small)
  changes = {
      "--config.seed=1": "seed was 0, now 1",
      "--config.model.layers=2": "model.layers was 1, now 2",
      "--config.stages.mt_rl.gamma=0.5": "stages.mt_rl.gamma was 0.7, now 0.5",
      "--config.stages.data.dialogues=64": "stages.data.dialogues was 128, now 64",
      "--config.stages.mt_rl.steps=9": "stages.mt_rl.steps was 3, now 9 (the stage is done)",
  }
  lines = program.errors(*([SMALL, f"--workdir={small}", argument] for argument in changes))
  for line, says in zip(lines, changes.values(), strict=True):
    assert f"{small} holds another experiment" in line and says in line, line
  assert contents(small) == before


def test_what_may_change_is_logged(program, small, tmp_path):
  workdir = tmp_path / "run"
  shutil.copytree(small, workdir)
  (workdir / "mt_rl" / "done.json").unlink()
  output = program.ok(
      SMALL, f"--workdir={workdir}", "--config.stages.mt_rl.steps=4", "--config.stages.mt_rl.micro_batch_rows=2",
      "--config.log_every=2",
  )  # fmt: skip
  changes = {"stages.mt_rl.steps": 4, "stages.mt_rl.micro_batch_rows": 2, "log_every": 2}
  logged = read_json(workdir / "config_changes.json")[-1]["changes"]
  assert {c["key"]: c["new"] for c in logged} == changes
  for c in logged:
    assert f"config.{c['key']}: was {c['old']}, now {c['new']}" in output
  assert rows(workdir / "mt_rl")[:3] == rows(small / "mt_rl")
  assert [row["step"] for row in rows(workdir / "mt_rl")] == [1, 2, 3, 4]
  assert read_json(workdir / "config.json")["stages"]["mt_rl"]["steps"] == 4


def test_tokenizer_that_does_not_match(program, small, tmp_path):
  # A field that SentencePiece does not know: the same pieces, and yet another file.
  other = tmp_path / "other.model"
  other.write_bytes(SHIPPED.read_bytes() + b"\xc2\x3e\x00")
  init = f"--config.stages.base.init={small}/base/checkpoints"
  line = program.error(SMALL, f"--workdir={tmp_path / 'run'}", f"--config.tokenizer={other}", init)
  assert f"was trained with another tokenizer than {other}" in line
  # And behind the back of a workdir, in the middle of a stage.
  own, workdir = tmp_path / "own.model", tmp_path / "second"
  own.write_bytes(SHIPPED.read_bytes())
  arguments = [SMALL, f"--workdir={workdir}", f"--config.tokenizer={own}"]
  driver = (str(HERE / "killed.py"), "base", "update", "4", "0")
  assert program(*arguments, before=driver).returncode == -signal.SIGKILL
  shutil.copy(other, own)
  assert f"{workdir}: was begun with another tokenizer than {own}" in program.error(*arguments)


def test_checkpoint_of_another_model(program, small, tmp_path):
  init = f"--config.stages.base.init={small}/base/checkpoints"
  line = program.error(SMALL, f"--workdir={tmp_path / 'run'}", init, "--config.model.mlp_dim=32")
  assert "mlp_dim" in line or "blocks.down is [1, 64, 32], but config.model makes it [1, 32, 32]" in line


def test_damaged_record(program, small, tmp_path):
  workdir = tmp_path / "run"
  shutil.copytree(small, workdir)
  (workdir / "mt_rl" / "done.json").unlink()
  metrics = workdir / "mt_rl" / "metrics.jsonl"
  metrics.write_text("{\n")
  assert f"{metrics}, line 1: not a row of metrics" in program.error(SMALL, f"--workdir={workdir}")
  (workdir / "config.json").write_text("{")
  assert "config.json: cannot be read" in program.error(SMALL, f"--workdir={workdir}")


@pytest.mark.parametrize(("limit", "says"), [(100_000, "could not save checkpoint"), (2_000, "cannot write")])
def test_disk_full_while_saving(program, small, tmp_path, limit, says):
  """A limit on the size of a file does what a full disk does: the write fails half way."""
  workdir = tmp_path / "run"
  shutil.copytree(small, workdir)
  shutil.rmtree(workdir / "mt_rl")
  before = contents(workdir)
  full = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
  line = program.error(SMALL, f"--workdir={workdir}", preexec_fn=full)
  assert says in line and str(workdir / "mt_rl") in line and "File too large" in line, line
  assert {p: b for p, b in contents(workdir).items() if p in before} == before
  program.ok(SMALL, f"--workdir={workdir}")  # And with room again it goes on, to the same end.
  assert rows(workdir / "mt_rl") == rows(small / "mt_rl")
