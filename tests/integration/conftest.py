from __future__ import annotations

import pathlib

import pytest
from toy import QUICKSTART, SMALL, Program, Toy


def pytest_collection_modifyitems(items):
  here = pathlib.Path(__file__).parent
  for item in items:
    if here in pathlib.Path(item.path).parents:
      item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def program(tmp_path_factory) -> Program:
  """The program, with a compilation cache of the session's own."""
  return Program(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="session")
def toy(program, tmp_path_factory) -> Toy:
  """One finished run of the shrunk quickstart, shared by all; never changed by a test."""
  workdir = tmp_path_factory.mktemp("toy") / "run"
  return Toy(workdir, program.ok(*QUICKSTART, f"--workdir={workdir}"))


@pytest.fixture(scope="session")
def small(program, tmp_path_factory) -> pathlib.Path:
  """The folder of one finished run of small.py; never changed by a test."""
  workdir = tmp_path_factory.mktemp("small") / "run"
  program.ok(SMALL, f"--workdir={workdir}")
  return workdir
