"""A server of the chat protocol for the tests of its client, which does not wait between tries."""

from __future__ import annotations

import os

import pytest
from api_server import start_server

from sml_jax.dialogue import api


@pytest.fixture
def no_waiting(monkeypatch):
  monkeypatch.setattr(api, "BACKOFF_S", 0.01)
  for name in list(os.environ):
    if name.lower().endswith("_proxy"):
      monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def shared():
  with start_server() as s:
    yield s


@pytest.fixture
def server(shared, no_waiting):
  shared.reset()
  return shared


@pytest.fixture
def mortal(no_waiting):
  """A server of one test alone."""
  with start_server() as s:
    yield s
