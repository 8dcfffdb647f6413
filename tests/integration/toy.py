"""Running the program as a user would, at toy size."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

from sml_jax import command_line

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
MAIN = ("-m", "sml_jax.main")
TINY = {"layers": 1, "d_model": 32, "heads": 2, "kv_heads": 1, "head_dim": 16, "mlp_dim": 64}


@dataclasses.dataclass
class Program:
  """`python -m sml_jax.main` with a compilation cache of the test session's own."""

  cache: pathlib.Path

  def start(self, *args: str, before: tuple[str, ...] = MAIN, devices: int = 1, **popen) -> subprocess.Popen:
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_COMPILATION_CACHE_DIR": str(self.cache),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]),
    }
    return subprocess.Popen(
        [sys.executable, *before, *args], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, **popen,
    )

  def __call__(self, *args: str, text: str | None = None, **options) -> subprocess.CompletedProcess:
    process = self.start(*args, stdin=subprocess.PIPE, **options)
    try:
      out, err = process.communicate(text, timeout=900)
    finally:
      process.kill()
    return subprocess.CompletedProcess(args, process.returncode, out, err)

  def ok(self, *args: str, **options) -> str:
    """Standard output of a run that ends well."""
    done = self(*args, **options)
    assert done.returncode == 0, f"{args}\n{done.stdout}\n{done.stderr}"
    return done.stdout

  def error(self, *args: str, **options) -> str:
    """The one line that a run which ends badly says of it."""
    done = self(*args, **options)
    return one_error(done.returncode, done.stderr)

  def errors(self, *calls: list[str], devices: int = 1) -> list[str]:
    """That of each of several runs."""
    out = self.ok(before=(str(HERE / "calls.py"),), text=json.dumps(calls), devices=devices)
    return [one_error(code, text) for code, text in json.loads(out.splitlines()[-1])]


def one_error(code: int, text: str) -> str:
  lines = text.splitlines()
  assert code == 1 and len(lines) == 1 and lines[0].startswith("error: "), (code, text)
  return lines[0]


def shrunk(file: str, *more: str) -> list[str]:
  """Arguments that make a config file's run small enough for a test, whatever its stages."""
  config = command_line.load(file, [])
  values: dict[str, Any] = {f"model.{k}": v for k, v in TINY.items()}
  values |= {"engine_rows": 32, "eval_tasks": 8}
  values["eval_suites"] = next(s.suites[0] for s in config.stages.values() if s.kind == "evaluate")
  train = {"steps": 6, "optimizer.warmup_steps": 1, "checkpoint_every": 2, "eval_every": 3}
  for name, s in config.stages.items():
    small = {
        "synthesize": {"dialogues": 256 if s.get("author") != "student" else 64, "keep": "all"},
        "sft": {**train, "batch_rows": 4},
        # A student of this size solves nothing: its own reward gives RL something to learn.
        "rl": {**train, "tasks_per_step": 8, "reward": "toy_reward:reward"},
        "evaluate": {"tasks_per_suite": 16},
    }[s.kind]
    values |= {f"stages.{name}.{key}": value for key, value in small.items()}
  return [f"--config={file}", *(f"--config.{key}={value}" for key, value in values.items()), *more]


SMALL = f"--config={HERE / 'small.py'}"
QUICKSTART = shrunk("configs/quickstart.py")


@dataclasses.dataclass(frozen=True)
class Toy:
  """A finished run of the shrunk quickstart; never changed by a test."""

  workdir: pathlib.Path
  output: str

  @property
  def summary(self) -> dict[str, Any]:
    return read_json(self.workdir / "summary.json")

  def rows(self, stage: str) -> list[dict[str, Any]]:
    return rows(self.workdir / stage)

  @property
  def stages(self) -> list[str]:
    return list(read_json(self.workdir / "config.json")["stages"])

  def copy_without(self, *stages: str, to: pathlib.Path) -> pathlib.Path:
    """A copy in which these stages have not been run; the others stay done."""
    shutil.copytree(self.workdir, to)
    for name in stages:
      shutil.rmtree(to / name)
    if "evaluation" in stages:
      for file in ("summary.json", "report.html", "success.png"):
        (to / file).unlink()
    return to


def read_json(path: pathlib.Path) -> Any:
  return json.loads(path.read_text())


def rows(folder: pathlib.Path) -> list[dict[str, Any]]:
  """The rows of metrics.jsonl without what a clock made."""
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  return [{k: v for k, v in json.loads(line).items() if k != "clock"} for line in lines]
