"""Short calls of the API's client, for its tests."""

from __future__ import annotations

import pathlib

from sml_jax.dialogue.api import ApiSettings, Client, Completion, Request

SCRIPT = """
import sys
from sml_jax.dialogue import api
api.BACKOFF_S = 0.01
url, folder = sys.argv[1:3]
client = api.Client(api.ApiSettings(url, "echo", cache_dir=folder, concurrency=4, timeout_s=600))
client.complete([api.Request([("user", f"q{n}")], 50, 1.0, 0) for n in range(30)])
"""
"""A program that asks for 30 replies: python -c SCRIPT URL FOLDER."""


def client_of(server, notify=lambda line: None, model="echo", **settings) -> Client:
  return Client(ApiSettings(server.url, model, **{"retries": 3, "concurrency": 4, **settings}), notify)


def ask(text: str, seed: int = 0, salt: str = "", max_tokens: int = 50) -> Request:
  return Request([("user", text)], max_tokens, 1.0, seed, salt)


def texts(replies) -> list[str]:
  """Without the hash that an echo begins with."""
  return [r.text.partition(" ")[2] if isinstance(r, Completion) else "FAILED" for r in replies]


def cached_files(folder) -> list[pathlib.Path]:
  return [f for f in pathlib.Path(folder).rglob("*") if f.is_file()]
