"""P41: killed anywhere, the same command gives the same numbers, bit for bit, as a run that was never stopped."""

from __future__ import annotations

import gzip
import pathlib
import random
import shutil
import signal
import time

import jax
import numpy as np
import pytest
from toy import HERE, QUICKSTART, Toy, read_json, rows

from sml_jax.checkpoint import restore_params

RNG = random.Random(41)
"""The moments are drawn once and for all."""

# (stage, point, at which count of it, milliseconds later): each run of the program dies at the next one.
KILLS = [
    ("base", "update", RNG.randint(2, 4), 0),
    ("base", "save", RNG.randint(1, 2), RNG.uniform(1, 30)),
    ("mt_sft_data", "sample", RNG.randint(1, 3), 0),
    ("mt_sft", "update", RNG.randint(2, 5), RNG.uniform(1, 10)),
    ("mt_rl", "sample", RNG.randint(2, 4), RNG.uniform(1, 20)),
    ("mt_rl", "update", RNG.randint(2, 4), 0),
    ("mt_rl", "record", RNG.randint(1, 2), 0),
    ("mt_rl", "save", 1, RNG.uniform(1, 30)),
    ("st_rl", "sample", RNG.randint(2, 5), 0),
    ("evaluation", "score", RNG.randint(5, 14), 0),
    ("evaluation", "report", 1, 0),
]


def assert_same_run(workdir: pathlib.Path, toy: Toy) -> None:
  """Metrics, dialogues, final parameters and summary, all to the bit; clock times excepted."""
  trained = [s for s in toy.stages if (toy.workdir / s / "checkpoints").exists()]
  for stage in trained:
    assert rows(workdir / stage) == toy.rows(stage), stage
    step, params, meta = restore_params(toy.workdir / stage / "checkpoints")
    again = restore_params(workdir / stage / "checkpoints")
    assert again[0] == step == 6 and again[2]["counters"] == meta["counters"]
    for (path, a), b in zip(jax.tree.leaves_with_path(params), jax.tree.leaves(again[1]), strict=True):
      assert a.dtype == b.dtype and np.array_equal(a, b), (stage, jax.tree_util.keystr(path))
  record = lambda folder: {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.jsonl.gz")}
  assert record(workdir) == record(toy.workdir)
  left = [p for p in workdir.rglob("*") if p.name.endswith(".part")]
  assert not left, "half-written files"
  summary, wanted = read_json(workdir / "summary.json"), toy.summary
  assert summary["paired"] == wanted["paired"]
  for arm in wanted["arms"]:
    assert summary["arms"][arm] | {"checkpoint": ""} == wanted["arms"][arm] | {"checkpoint": ""}


def test_killed_at_every_kind_of_moment(program, toy, tmp_path):
  workdir = tmp_path / "run"
  for moment in KILLS:
    driver = (str(HERE / "killed.py"), *map(str, moment))
    done = program(*QUICKSTART, f"--workdir={workdir}", before=driver)
    assert done.returncode == -signal.SIGKILL, (moment, done.stdout, done.stderr)
    stage = toy.stages.index(moment[0])
    assert [(workdir / s / "done.json").exists() for s in toy.stages].index(False) == stage, moment
  output = program.ok(*QUICKSTART, f"--workdir={workdir}")
  assert "evaluation: done before" not in output
  assert_same_run(workdir, toy)


def test_killed_by_the_clock(program, toy, tmp_path):
  """Wherever that is on this machine."""
  workdir = toy.copy_without("mt_rl", "evaluation", to=tmp_path / "run")
  process = program.start(*QUICKSTART, f"--workdir={workdir}")
  time.sleep(RNG.uniform(3, 9))
  process.kill()
  process.communicate()
  program.ok(*QUICKSTART, f"--workdir={workdir}")
  assert_same_run(workdir, toy)


def wait_for(path: pathlib.Path, process, pattern: str) -> None:
  until = time.monotonic() + 120
  while not list(path.glob(pattern)):
    assert process.poll() is None and time.monotonic() < until, (path, pattern)
    time.sleep(0.002)


def test_sigterm_saves_and_leaves(program, toy, tmp_path):
  workdir = toy.copy_without("mt_rl", "evaluation", to=tmp_path / "run")
  # No checkpoints but those that a SIGTERM asks for, and the last.
  arguments = [*QUICKSTART, "--config.stages.mt_rl.checkpoint_every=0", f"--workdir={workdir}"]
  process = program.start(*arguments)
  wait_for(workdir, process, "mt_rl/dialogues/step_00000002.*")
  process.terminate()
  since = time.monotonic()
  _, err = process.communicate(timeout=60)
  assert process.returncode == 143 and time.monotonic() - since < 15
  saved = sorted(int(p.name) for p in (workdir / "mt_rl" / "checkpoints").iterdir())
  assert len(saved) == 1 and f"mt_rl: saved step {saved[0]} and left" in err and len(err.splitlines()) == 1
  # And where there is nothing to save: in the evaluation.
  process = program.start(*arguments)
  wait_for(workdir, process, "evaluation/base/math/sampled/step_*")
  process.terminate()
  _, err = process.communicate(timeout=60)
  assert process.returncode == 143 and len(err.splitlines()) == 1 and "run the same command again" in err
  program.ok(*arguments)
  assert_same_run(workdir, toy)


def test_corrupt_newest_checkpoint_falls_back(program, toy, tmp_path):
  workdir = toy.copy_without(to=tmp_path / "run")
  (workdir / "mt_rl" / "done.json").unlink()
  newest = workdir / "mt_rl" / "checkpoints" / "6"
  largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
  largest.write_bytes(largest.read_bytes()[:100])
  output = program.ok(*QUICKSTART, f"--workdir={workdir}")
  assert "the checkpoint of step 6 in" in output and "using step 4" in output
  assert "mt_rl: 6 steps, going on after step 4" in output
  assert (newest.parent / "corrupt-6").exists()
  shutil.rmtree(newest.parent / "corrupt-6")
  assert_same_run(workdir, toy)


def test_the_comparison_would_see_a_difference(toy, tmp_path):
  """`assert_same_run` fails on one changed token, one changed metric, one changed bit of a parameter."""
  workdir = tmp_path / "run"
  shutil.copytree(toy.workdir, workdir)
  assert_same_run(workdir, toy)
  file = next((workdir / "mt_rl" / "dialogues").glob("step_00000003.*"))
  kept = file.read_bytes()
  file.write_bytes(gzip.compress(gzip.decompress(kept).replace(b'"tokens":[', b'"tokens":[1,', 1), mtime=0))
  with pytest.raises(AssertionError):
    assert_same_run(workdir, toy)
  file.write_bytes(kept)
  metrics = workdir / "base" / "metrics.jsonl"
  metrics.write_text(metrics.read_text().replace('"step": 4', '"step": 5'))
  with pytest.raises(AssertionError):
    assert_same_run(workdir, toy)
