"""The SLURM job, with two processes on this machine as its two nodes, and the notebook, cell by cell."""

from __future__ import annotations

import gzip
import os
import pathlib
import random
import re
import shutil
import socket
import subprocess
import sys

import nbformat
import pytest
import transformers
from test_examples import made_up_gsm8k
from toy import HERE, QUICKSTART, ROOT, rows

sys.path.append(str(ROOT / "tests" / "dialogue"))
import chat_folders

SRUN = """\
#!/usr/bin/env bash
# Two tasks on two nodes, with the variables that srun sets; exits with the largest exit code, as srun does.
while [[ $1 == --* ]]; do shift; done
export SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2 SLURM_STEP_NUM_NODES=2 SLURM_LOCALID=0
SLURM_PROCID=0 "$@" & first=$!
SLURM_PROCID=1 "$@" & second=$!
worst=0
for task in $first $second; do code=0; wait $task || code=$?; ((code > worst)) && worst=$code; done
exit $worst
"""
SCONTROL = """\
#!/usr/bin/env bash
if [[ "$1 $2" == "show hostnames" ]]; then echo localhost; else echo "$@" >> "$CALLS"; fi
"""
SQUEUE = """\
#!/usr/bin/env bash
echo "$JOB_STATE"
"""
CONFIG = """\
import small

def get_config():
  config = small.get_config()
  del config.stages["mt_rl"]
  return config
"""


def free_job_id() -> int:
  """A job whose port (61440 + id % 4096, the script's and JAX's rule) is free."""
  while True:
    number = random.randrange(4096)
    with socket.socket() as probe:
      if probe.connect_ex(("127.0.0.1", 61440 + number)):
        return 5 * 4096 + number


@pytest.fixture
def sbatch(tmp_path):
  """Runs launch/slurm.sbatch with stand-ins for SLURM's commands; returns (exit code, output, calls of scontrol)."""
  for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("squeue", SQUEUE)):
    (tmp_path / name).write_text(text)
    (tmp_path / name).chmod(0o755)

  def call(*args: str, python: str = sys.executable, state: str = "RUNNING", **variables: str):
    job = free_job_id()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")} | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": python, "CALLS": str(tmp_path / "calls"),
        "JOB_STATE": state, "SLURM_JOB_ID": str(job), "SLURM_JOB_NODELIST": "gpu[1-2]-ib",
        "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]), **variables,
    }  # fmt: skip
    done = subprocess.run(
        [shutil.which("bash"), "launch/slurm.sbatch", *args], cwd=ROOT, env=environment, text=True, timeout=300,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    calls = (tmp_path / "calls").read_text() if (tmp_path / "calls").exists() else ""
    return done.returncode, done.stdout, calls.replace(str(job), "JOB")

  return call


def test_two_processes_find_each_other_and_train_as_one_does(sbatch, small, program, tmp_path):
  (tmp_path / "config.py").write_text(CONFIG)
  workdir = tmp_path / "run"
  args = (f"--config={tmp_path / 'config.py'}", f"--workdir={workdir}")
  code, output, calls = sbatch(*args, JAX_COMPILATION_CACHE_DIR=str(program.cache))
  assert (code, calls) == (0, ""), output
  assert "mesh data 1 x fsdp 2 x model 1" in output
  for a, b in zip(rows(small / "base"), rows(workdir / "base"), strict=True):
    assert (b["step"], b["tokens"]) == (a["step"], a["tokens"])
    assert b["loss"] == pytest.approx(a["loss"], rel=2e-4)


@pytest.mark.parametrize("exit_code, state, asked", [
    (143, "RUNNING", "requeue JOB\n"),  # the time is nearly up
    (143, "COMPLETING", ""),  # scancel, or SLURM requeues by itself
    (1, "RUNNING", ""),  # bad input stays bad
])  # fmt: skip
def test_a_job_that_saved_and_left_asks_to_go_on(sbatch, tmp_path, exit_code, state, asked):
  python = tmp_path / "python"
  python.write_text(f'#!/usr/bin/env bash\necho "$JAX_COORDINATOR_ADDRESS $@"\nexit {exit_code}\n')
  python.chmod(0o755)
  code, output, calls = sbatch("--config=a.py", "--workdir=gs://b/c d", python=str(python), state=state)
  assert (code, calls) == (exit_code, asked)
  for line in output.splitlines():
    address, _, rest = line.partition(" ")
    assert address.startswith("localhost:6") and rest == "-m sml_jax.main --config=a.py --workdir=gs://b/c d"


NOTEBOOK = ROOT / "launch" / "colab_tpu.ipynb"
RUN_CELLS = """\
import json, os, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in json.load(open(sys.argv[1]))["cells"]:
  if cell["cell_type"] == "code":
    result = shell.run_cell("".join(cell["source"]))
    result.raise_error()
    if code := shell.user_ns.get("_exit_code"):
      sys.exit(f"exit code {code} of: {cell['source']}")
    if result.result is not None:
      assert result.result.data.startswith(b"\\x89PNG")
      print("a picture of", len(result.result.data), "bytes")
"""


def test_the_notebook_has_twelve_short_cells_and_no_outputs():
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  nbformat.validate(notebook)
  assert len(notebook.cells) <= 12
  for cell in notebook.cells:
    assert cell.get("outputs", []) == [] and cell.get("execution_count") is None
    for line in cell.source.splitlines() if cell.cell_type == "code" else ():
      assert not re.match(r"\s*(if|for|while|def|class|try|with) ", line), line


def test_the_notebook_runs_at_toy_size(program, toy, tmp_path):
  """Its cells as they are, in a clone of this tree, with a Gemma of a few thousand random weights.

  The quickstart has all but its last stage done already, which other tests run.
  """
  toy.copy_without("evaluation", to=tmp_path / "runs" / "quickstart")
  repository, checkpoint = tmp_path / "repository", tmp_path / "tiny_gemma"
  for name in ("sml_jax", "configs", "launch"):
    shutil.copytree(ROOT / name, repository / name, ignore=shutil.ignore_patterns("__pycache__"))
  shutil.copy(ROOT / "pyproject.toml", repository)
  git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(repository)]
  for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
    subprocess.run([*git, *command], check=True)
  tiny_gemma(checkpoint)
  data = made_up_gsm8k(tmp_path / "data")
  packed = data / "gsm8k" / "train.jsonl.gz"
  packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
  packed.unlink()
  (tmp_path / "cells.py").write_text(RUN_CELLS)
  small_lora = [
      "model.name=", "model.max_length=1024", "model.head_chunk=0", "model.remat=none", "engine_rows=8",
      "dialogue.max_problem_tokens=160", "dialogue.max_turn_tokens=16", "dialogue.max_reply_tokens=32",
      "dialogue.turns=2", "stages.data.dialogues=8", "stages.data.keep=all",
      "stages.mt_sft.steps=2", "stages.mt_sft.row_length=512", "stages.mt_sft.optimizer.warmup_steps=1",
      "stages.mt_rl.steps=2", "stages.mt_rl.row_length=512", "stages.mt_rl.optimizer.warmup_steps=1",
      "stages.mt_rl.tasks_per_step=1", "stages.evaluation.tasks_per_suite=2", "stages.evaluation.turns=2",
      "stages.evaluation.tries=2", "stages.evaluation.arms=mt_rl", "stages.evaluation.suites=gsm8k",
      "stages.evaluation.comparisons=()",
  ]  # fmt: skip
  environment = os.environ | {
      "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(program.cache), "IPYTHONDIR": str(tmp_path / "ipython"),
      "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(HERE),
      "SML_REPO": str(repository), "SML_WORKDIR": str(tmp_path / "runs"), "SML_CHECKPOINT": str(checkpoint),
      "SML_DATA": str(data), "SML_QUICKSTART": " ".join(QUICKSTART[1:]),
      "SML_LORA": " ".join(f"--config.{change}" for change in small_lora),
  }  # fmt: skip
  done = subprocess.run([sys.executable, str(tmp_path / "cells.py"), str(NOTEBOOK)], cwd=tmp_path, env=environment,
                        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900)  # fmt: skip
  assert done.returncode == 0, done.stdout
  assert "a picture of" in done.stdout and "kept: jax" in done.stdout
  for run in ("quickstart", "gemma3_1b"):
    assert (tmp_path / "runs" / run / "report.html").exists()


def tiny_gemma(folder: pathlib.Path) -> None:
  """A random Gemma 3 of one layer, with a tokenizer, as transformers saves it."""
  chat_folders.FAMILIES["gemma3"](folder)
  config = transformers.Gemma3TextConfig(
      vocab_size=704, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
      num_key_value_heads=1, head_dim=16, sliding_window=64, layer_types=["sliding_attention", "full_attention"],
      pad_token_id=0, eos_token_id=1, bos_token_id=2,
  )  # fmt: skip
  transformers.Gemma3ForCausalLM(config).save_pretrained(folder)
