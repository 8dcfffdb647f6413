"""Installing beside a jax that is to stay."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import pathlib
import subprocess
import sys
import types

import pytest

FILE = pathlib.Path(__file__).parents[2] / "launch" / "install_beside_jax.py"


@pytest.fixture
def install(monkeypatch):
  """Runs it on a machine with these packages; returns (exit code, pip's pins, pip's other arguments)."""
  spec = importlib.util.spec_from_file_location("install_beside_jax", FILE)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)

  def call(**packages: str):
    seen = []

    def pip(command):
      pins = next(a for a in command if a.startswith("--constraint="))
      seen.append((pathlib.Path(pins.removeprefix("--constraint=")).read_text().split(), command))
      return types.SimpleNamespace(returncode=0)

    there = [types.SimpleNamespace(metadata={"Name": n.replace("_", "-")}, version=v) for n, v in packages.items()]
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: there)
    monkeypatch.setattr(subprocess, "run", pip)
    code = module.main()
    return code, *(seen[0] if seen else (None, None))

  return call


def test_jax_and_what_belongs_to_it_is_pinned_and_nothing_else(install):
  code, pins, command = install(
      jax="0.11.1", jaxlib="0.11.1", libtpu="0.0.50", jax_cuda12_plugin="0.11.1", numpy="2.0", jaxtyping="0.3"
  )
  assert code == 0
  assert sorted(pins) == ["jax-cuda12-plugin==0.11.1", "jax==0.11.1", "jaxlib==0.11.1", "libtpu==0.0.50"]
  assert command[:4] == [sys.executable, "-m", "pip", "install"] and any(a.startswith("flax>=") for a in command)


def test_a_jax_that_is_too_old_is_said_in_one_line(install, capsys):
  code, pins, _ = install(jax="0.9.12", jaxlib="0.9.12")
  error = capsys.readouterr().err
  assert code == 1 and pins is None and error.count("\n") == 1
  assert error.startswith("error: the jax of this machine is 0.9.12, and sml_jax needs 0.10.1 or newer;")


def test_without_a_jax_pip_may_choose(install):
  assert install(numpy="2.0")[:2] == (0, [])


def test_what_is_installed_stays_as_it_is():
  before = importlib.metadata.version("jax")
  done = subprocess.run([sys.executable, str(FILE)], text=True, capture_output=True, timeout=300)
  assert done.returncode == 0, done.stderr
  assert f"jax {before}" in done.stdout and done.stdout.startswith("kept: ")
  assert importlib.metadata.version("jax") == before
