"""Replies of a server that are kept on disk: one small JSON file each, in 256 subfolders."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

from etils import epath

from sml_jax.dialogue.api_wire import Completion
from sml_jax.errors import UserError

KEPT = {"text": str, "finish_reason": str, "prompt_tokens": int, "completion_tokens": int, "reasoning": str}
"""The fields of an entry, beside its key."""


def request_key(url: str, body: Mapping[str, Any], salt: str) -> str:
  """SHA-256, in hex, of all that makes a request this one."""
  canonical = json.dumps([url, body, salt], sort_keys=True, separators=(",", ":"))
  return hashlib.sha256(canonical.encode()).hexdigest()


class Cache:
  """Safe under threads and processes: an entry appears whole under its name, and an equal one may take its place.

  Raises:
    UserError: the folder can not be made, or an entry can not be written.
  """

  def __init__(self, folder: epath.PathLike):
    self.folder = epath.Path(folder)
    try:
      self.folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
      raise UserError(f"api cache_dir {self.folder}: {e.strerror or e}") from None

  def get(self, key: str) -> Completion | None:
    """None for an entry that is missing, or damaged: the next `put` replaces it."""
    try:
      fields = json.loads(self._file(key).read_text())
      if fields["key"] == key and all(type(fields[name]) is kind for name, kind in KEPT.items()):
        return Completion(**{name: fields[name] for name in KEPT}, cached=True)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
      pass
    return None

  def put(self, key: str, reply: Completion) -> None:
    file, fields = self._file(key), dataclasses.asdict(reply)
    part = file.with_name(f".{uuid.uuid4().hex}")
    try:
      file.parent.mkdir(exist_ok=True)
      part.write_text(json.dumps({"key": key} | {name: fields[name] for name in KEPT}))
      part.replace(file)
    except OSError as e:
      raise UserError(f"api cache_dir {self.folder}: a reply can not be kept ({e.strerror or e})") from None

  def _file(self, key: str) -> epath.Path:
    return self.folder / key[:2] / f"{key}.json"
