"""The same run on one device and on a mesh of eight."""

from __future__ import annotations

import json
import shutil

import pytest
from toy import SMALL, rows

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


def test_mesh_of_other_size_than_the_machine(program, tmp_path):
  assert "does not make the 1 devices" in program.error(SMALL, *MESH, f"--workdir={tmp_path / 'run'}")
