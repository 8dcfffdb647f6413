"""The same run on one device and on a mesh of eight."""

from __future__ import annotations

import json
import shutil

import pytest
from toy import HERE, SMALL, rows

MESH = ("--config.mesh.data=2", "--config.mesh.fsdp=2", "--config.mesh.model=2")


def assert_close(a, b, *, steps=None):
  """Losses of the first `steps` steps agree. The order of a sum differs by mesh, and nothing else may."""
  for x, y in list(zip(rows(a), rows(b), strict=True))[:steps]:
    assert x["tokens"] == y["tokens"]
    for name in ("loss", "entropy", "grad_norm"):
      assert y[name] == pytest.approx(x[name], rel=2e-4, abs=2e-6), (x["step"], name)


def test_sft_and_rl_on_eight_devices(program, small, tmp_path):
  workdir = tmp_path / "run"
  program.ok(SMALL, *MESH, f"--workdir={workdir}", devices=8)
  assert_close(small / "base", workdir / "base")
  assert_close(small / "mt_rl", workdir / "mt_rl")
  assert all(row["logp_gap"] < 1e-5 for row in rows(workdir / "mt_rl"))
  assert any(row["grad_norm"] > 0 for row in rows(workdir / "mt_rl"))


def test_mesh_may_change_in_the_middle_of_a_stage(program, small, tmp_path):
  workdir = tmp_path / "run"
  shutil.copytree(small, workdir)
  shutil.rmtree(workdir / "mt_rl")
  (workdir / "base" / "done.json").unlink()
  shutil.rmtree(workdir / "base" / "checkpoints" / "4")
  output = program.ok(SMALL, *MESH, f"--workdir={workdir}", devices=8)
  assert "base: 4 steps, going on after step 2" in output
  for key, was, now in (("data", 1, 2), ("fsdp", -1, 2), ("model", 1, 2)):
    assert f"config.mesh.{key}: was {was}, now {now}" in output
  logged = json.loads((workdir / "config_changes.json").read_text())
  assert {c["key"] for c in logged[-1]["changes"]} == {"mesh.data", "mesh.fsdp", "mesh.model"}
  assert_close(small / "base", workdir / "base")
  assert_close(small / "mt_rl", workdir / "mt_rl", steps=1)


def test_every_shape_of_mesh_trains_and_samples_the_same(program):
  """SFT on all weights, RL on an adapter; one mesh has fewer key-value heads than `model`."""
  cases = [json.loads(line) for line in program.ok(before=(str(HERE / "meshes.py"),), devices=8).splitlines()]
  alone = {c["lora"]: c for c in cases if c["mesh"] == [1, 1, 1]}
  assert [c["mesh"] for c in cases if not c["lora"]] == [[1, 1, 1], [8, 1, 1], [1, 8, 1], [1, 2, 4]]
  assert [c["mesh"] for c in cases if c["lora"]] == [[1, 1, 1], [2, 2, 2]]
  for c in cases:
    one = alone[c["lora"]]
    assert one["steps"][0]["loss"] != one["steps"][-1]["loss"] and one["steps"][-1]["grad_norm"] > 0
    for was, now in zip(one["steps"], c["steps"], strict=True):
      assert was.keys() == now.keys()
      for name in was:
        assert now[name] == pytest.approx(was[name], rel=1e-4, abs=2e-6), (c["mesh"], name)
    assert c["parameters"] < 1e-4  # AdamW makes rounding larger where a gradient is near 0
  sampled = [c for c in cases if "tokens" in c]
  assert [c["mesh"] for c in sampled] == [[1, 1, 1], [1, 2, 4]] and sampled[0]["tokens"] == sampled[1]["tokens"]
  for was, now in zip(*(c["logprobs"] for c in sampled), strict=True):
    assert now == pytest.approx(was, abs=1e-5)


def test_what_does_not_divide_is_one_line(program, tmp_path):
  workdir = f"--workdir={tmp_path / 'run'}"
  lines = program.errors(
      [SMALL, "--config.mesh.data=3", workdir],
      [SMALL, *MESH, "--config.engine_rows=6", workdir],
      devices=8,
  )  # fmt: skip
  assert lines == [
      "error: mesh: data x fsdp x model = 3 x -1 x 1 does not make the 8 devices there are",
      "error: engine_rows is 6: it must be a multiple of the 4 devices along data and fsdp of the mesh",
  ]
  assert not (tmp_path / "run").exists()
