"""Two processes of four devices each do what one process does on one device, and go on where it stopped.

Losses agree to the rounding of sums in another order; what is sampled agrees in every token.
"""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
import time
from unittest import mock

import pytest
from toy import HERE, Program, read_json, rows

from sml_jax.data.store import read_dialogues

PAIR = f"--config={HERE / 'pair.py'}"


def start_two(program: Program, *args: str) -> list[subprocess.Popen]:
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  started = []
  for process in ("0", "1"):
    job = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": process}
    # Programs that run beside each other on the threads of few cores would wait for each other's.
    with mock.patch.dict(os.environ, job | {"JAX_CPU_ENABLE_ASYNC_DISPATCH": "0"}):
      started.append(program.start(*args, before=(str(HERE / "in_step.py"),), devices=4))
  return started


def finish(processes: list[subprocess.Popen], code: int = 0, seconds: float = 600) -> tuple[str, str]:
  """(standard output of the first, standard error of both) when all have ended as they should, in so many seconds."""
  late = threading.Timer(seconds, lambda: [process.kill() for process in processes])
  late.start()
  with concurrent.futures.ThreadPoolExecutor() as pool:  # side by side: a full pipe would stop one, and so the other
    done = list(pool.map(subprocess.Popen.communicate, processes))
  late.cancel()
  assert [p.returncode for p in processes] == [code, code], "\n".join(text for both in done for text in both)
  return done[0][0], done[0][1] + done[1][1]


@pytest.fixture(scope="module")
def one(program, tmp_path_factory) -> pathlib.Path:
  """A finished run of one process on one device; never changed by a test."""
  workdir = tmp_path_factory.mktemp("one") / "run"
  program.ok(PAIR, f"--workdir={workdir}")
  return workdir


@pytest.fixture(scope="module")
def two(program, tmp_path_factory) -> pathlib.Path:
  """The same run of two processes, each of which plays its own tasks; never changed by a test."""
  workdir = tmp_path_factory.mktemp("two") / "run"
  output, _ = finish(start_two(program, PAIR, f"--workdir={workdir}", "--config.mesh.model=2"))
  assert "mesh data 1 x fsdp 4 x model 2" in output
  return workdir


def assert_close(a: pathlib.Path, b: pathlib.Path) -> None:
  for x, y in zip(rows(a), rows(b), strict=True):
    assert x.keys() == y.keys() and x["tokens"] == y["tokens"]
    for name in ("loss", "entropy", "grad_norm"):
      assert y[name] == pytest.approx(x[name], rel=2e-4, abs=2e-6), (x["step"], name)
    for name in x.keys() & {"reward", "success", "turns", "sampled_student_tokens", "dev_success_math"}:
      assert y[name] == pytest.approx(x[name]), (x["step"], name)


def played(folder: pathlib.Path) -> dict:
  return {(d.task_id, d.sample): d for d in read_dialogues(folder)}


def assert_same_dialogues(a: pathlib.Path, b: pathlib.Path) -> None:
  found, other = played(a), played(b)
  assert found.keys() == other.keys() and found
  for place, d in found.items():
    o = other[place]
    assert (d.end, [t.tokens for t in d.turns], [t.verdict for t in d.turns]) == (
        o.end, [t.tokens for t in o.turns], [t.verdict for t in o.turns]), place
    for t, u in zip(d.student_turns, o.student_turns, strict=True):
      assert u.logprobs == pytest.approx(t.logprobs, abs=1e-5)
    assert (d.reward, d.advantages) == (o.reward, pytest.approx(o.advantages, abs=1e-6))


def assert_same_run(one: pathlib.Path, other: pathlib.Path) -> None:
  assert_close(one / "base", other / "base")
  assert_close(one / "mt_rl", other / "mt_rl")
  for record in ("said/dialogues", "mt_rl/dialogues", "evaluation/mt_rl/math/sampled", "evaluation/mt_rl/math/tries"):
    assert_same_dialogues(one / record, other / record)
  curves = [read_json(w / "summary.json")["arms"]["mt_rl"]["eval"]["math"] for w in (one, other)]
  assert curves[0]["success_by_turn"] == curves[1]["success_by_turn"]
  assert curves[0]["resampling"] == curves[1]["resampling"]


def test_each_process_plays_its_own_tasks(one, two):
  assert_same_run(one, two)
  each = [list(read_dialogues(two / "mt_rl" / "dialogues", steps=[1]))[i] for i in (0, 8)]
  files = sorted(p.name for p in (two / "mt_rl" / "dialogues").iterdir())
  assert files == [f"step_0000000{s}.p{p}.jsonl.gz" for s in (1, 2) for p in (0, 1)]
  assert each[0].task_id != each[1].task_id  # two groups of four by the first process, one by the second


def test_all_play_together_from_a_checkpoint_of_one_process(program, one, tmp_path):
  """`model` spans both processes; a stage of one process on one device goes on in two on eight."""
  workdir = tmp_path / "run"
  shutil.copytree(one, workdir)
  for name in ("mt_rl", "evaluation"):
    shutil.rmtree(workdir / name)
  (workdir / "summary.json").unlink()
  (workdir / "base" / "done.json").unlink()
  shutil.rmtree(workdir / "base" / "checkpoints" / "3")
  output, _ = finish(start_two(program, PAIR, f"--workdir={workdir}", "--config.mesh.model=8"))
  assert "base: 3 steps, going on after step 2" in output and "mesh data 1 x fsdp 1 x model 8" in output
  assert_same_run(one, workdir)


def test_sigterm_to_one_of_two_saves_and_one_process_goes_on(program, tmp_path):
  workdir = tmp_path / "run"
  base, long = f"{PAIR}:base", "--config.stages.base.steps=100000"
  processes = start_two(program, base, f"--workdir={workdir}", "--config.mesh.model=2", long)
  saved = workdir / "base" / "checkpoints"
  while not (saved.exists() and any(p.name.isdecimal() for p in saved.iterdir())):
    assert processes[0].poll() is None and processes[1].poll() is None
    time.sleep(0.2)
  processes[1].send_signal(signal.SIGTERM)
  _, errors = finish(processes, code=143, seconds=120)
  step = max(int(p.name) for p in saved.iterdir() if p.name.isdecimal())
  assert errors.count(f"base: saved step {step} and left; run the same command again to go on") == 2
  output = program.ok(base, f"--workdir={workdir}", f"--config.stages.base.steps={step + 1}")
  assert f"base: {step + 1} steps, going on after step {step}" in output and f"{step + 1}/{step + 1}" in output
  assert [row["step"] for row in rows(workdir / "base")] == list(range(1, step + 2))
