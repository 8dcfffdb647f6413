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
  for key in ("model.d_model", "tasks.verifier", "gamma", "batch_rows", "author", "tasks_per_suite", "checkpoint_every"):
    assert re.search(rf"^  {re.escape(key)} \[", text, re.M), key
  for kind in ("sft", "rl", "synthesize", "evaluate"):
    assert f"Keys of a stage of kind {kind}" in text
  assert "--config=configs/quickstart.py --workdir=" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config.sed=3"], ["sed: no such key", "did you mean 'seed'"]),
        (["--config.stages.mt_rl.gama=0.5"], ["stages.mt_rl.gama", "did you mean 'stages.mt_rl.gamma'"]),
        (["--config.model.d_model=wide"], ["model.d_model: expected int, got 'wide'"]),
        (["--config.stages.mt_rl.gamma=1.5"], ["stages.mt_rl.gamma", "at most 1", "1.5"]),
        (["--config.model.heads=3", "--config.model.kv_heads=2"], ["model.heads: expected a multiple of kv_heads (2)"]),
        (["--config.seed"], ["has no value"]),
        (["--wrokdir=x"], ["unknown argument '--wrokdir=x'"]),
        (["--config.tokenizer=/nowhere/own.model"], ["tokenizer /nowhere/own.model: no such file"]),
        ([f"--config.tokenizer={__file__}"], ["not a SentencePiece model"]),
        (["--config.model.vocab_size=100"], ["model.vocab_size is 100, but the tokenizer has"]),
        (["--config.dialogue.max_turn_tokens=400"], ["model.max_length", "384"]),
        (["--config.tasks.source=nowhere:make"], ["tasks.source: cannot import 'nowhere:make'"]),
        (["--config.tasks.verifier=examples.own_task:nothing"], ["tasks.verifier: cannot import"]),
        (["--config.stages.mt_rl.reward=examples.own_task"], ["stages.mt_rl.reward: cannot import"]),
        (["--config.stages.base.optimizer.warmup_steps=9"], ["optimizer of a sft stage", "warmup_steps"]),
        (["--config.stages.base.row_length=8"], ["dialogue", "more than the row length 8"]),
        (["--config.stages.base.init=/nowhere/checkpoints"], ["no checkpoint in /nowhere/checkpoints"]),
        (["--config.stages.base.data=/nowhere/dialogues"], ["/nowhere/dialogues"]),
    ],
    ids=lambda x: re.sub(r"[^\w.=]+", "_", x[0])[-50:] if x[0].startswith("--") else "",
)
def test_bad_arguments(program, tmp_path, arguments, says):
  line = program.error(SMALL, f"--workdir={tmp_path / 'run'}", *arguments)
  assert all(text in line for text in says), line


def test_no_config_and_no_workdir(program, tmp_path):
  assert "nowhere.py: there is no such file" in program.error("--config=nowhere.py", f"--workdir={tmp_path}")
  assert "no config file" in program.error(f"--workdir={tmp_path}")
  assert "no --workdir=DIR" in program.error(SMALL)
  (tmp_path / "file").write_text("")
  assert "is a file" in program.error(SMALL, f"--workdir={tmp_path / 'file'}")
  broken = tmp_path / "broken.py"
  broken.write_text("def get_config():\n  return 1 / 0\n")
  assert f"{broken}:2: ZeroDivisionError" in program.error(f"--config={broken}", f"--workdir={tmp_path / 'run'}")


def test_bad_data(program, tmp_path):
  def error(folder):
    return program.error(GSM8K, f"--config.data_dir={folder}", f"--workdir={tmp_path / 'run'}")

  assert "add --config.data_dir=FOLDER" in program.error(GSM8K, f"--workdir={tmp_path / 'run'}")
  assert "there is no folder /nowhere" in error("/nowhere")
  good = {"question": "What is one and one?", "answer": "One and one is two.\n#### 2"}
  for bad, says in (
      ({"answer": "#### 2"}, "field 'question': expected str, got nothing"),
      ({**good, "question": 3}, "field 'question': expected str, got 3"),
      ({**good, "answer": "two"}, "field 'answer': expected text that ends in \"#### \" and a number, got 'two'"),
  ):
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n")
    line = error(tmp_path)
    assert f"{file}:2: {says}" in line, line


def test_source_without_what_is_asked_for(program, tmp_path):
  steps = ["--config.stages.sft.steps=6", "--config.stages.mt_rl.steps=1", "--config.stages.mt_rl.tasks_per_step=2"]
  workdir = tmp_path / "run"
  line = program.error(OWN, *steps, f"--workdir={workdir}", "--config.stages.mt_rl.feedback=binary")
  assert "no feedback arm 'binary'" in line
  finished = contents(workdir / "sft")
  line = program.error(OWN, *steps, f"--workdir={tmp_path / 'other'}", "--config.stages.evaluation.suites=math")
  assert "'math'" in line
  line = program.error(
      OWN, *steps, f"--workdir={tmp_path / 'other'}", "--config.stages.evaluation.suites=math",
      "--config.stages.evaluation.tasks_per_suite=500",
  )  # fmt: skip
  assert "holds another experiment" in line or "500" in line
  assert contents(workdir / "sft") == finished


def test_workdir_of_another_experiment(program, small):
  before = contents(small)
  for argument, says in (
      ("--config.seed=1", "seed was 0, now 1"),
      ("--config.model.layers=2", "model.layers was 1, now 2"),
      ("--config.stages.mt_rl.gamma=0.5", "stages.mt_rl.gamma was 0.7, now 0.5"),
      ("--config.stages.data.dialogues=64", "stages.data.dialogues was 128, now 64"),
      ("--config.stages.mt_rl.steps=9", "stages.mt_rl.steps was 3, now 9 (the stage is done)"),
  ):
    line = program.error(SMALL, f"--workdir={small}", argument)
    assert "holds another experiment" in line and says in line, line
  assert contents(small) == before


def test_what_may_change_is_logged(program, small, tmp_path):
  workdir = tmp_path / "run"
  shutil.copytree(small, workdir)
  (workdir / "mt_rl" / "done.json").unlink()
  output = program.ok(
      SMALL, f"--workdir={workdir}", "--config.stages.mt_rl.steps=4", "--config.stages.mt_rl.micro_batch_rows=2",
      "--config.log_every=2",
  )  # fmt: skip
  changes = {"stages.mt_rl.steps": [3, 4], "stages.mt_rl.micro_batch_rows": [0, 2], "log_every": [1, 2]}
  for key, (was, now) in changes.items():
    assert f"config.{key}: was {was}, now {now}" in output
  logged = read_json(workdir / "config_changes.json")[-1]["changes"]
  assert {c["key"]: [c["old"], c["new"]] for c in logged} == changes
  assert rows(workdir / "mt_rl")[:3] == rows(small / "mt_rl")
  assert [row["step"] for row in rows(workdir / "mt_rl")] == [1, 2, 3, 4]
  assert read_json(workdir / "config.json")["stages"]["mt_rl"]["steps"] == 4


def test_tokenizer_that_does_not_match(program, small, tmp_path):
  # A field that SentencePiece does not know: the same pieces, and yet another file.
  other = tmp_path / "other.model"
  other.write_bytes(SHIPPED.read_bytes() + b"\xc2\x3e\x00")
  line = program.error(
      SMALL, f"--workdir={tmp_path / 'run'}", f"--config.tokenizer={other}", f"--config.stages.base.init={small}/base/checkpoints"
  )
  assert f"was trained with another tokenizer than {other}" in line
  # And behind the back of a workdir, in the middle of a stage.
  own, workdir = tmp_path / "own.model", tmp_path / "second"
  own.write_bytes(SHIPPED.read_bytes())
  arguments = [SMALL, f"--workdir={workdir}", f"--config.tokenizer={own}"]
  driver = (str(HERE / "killed.py"), "base", "update", "4", "0")
  assert program(*arguments, before=driver).returncode == -signal.SIGKILL
  shutil.copy(other, own)
  assert f"was trained with another tokenizer than {own}" in program.error(*arguments)


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
