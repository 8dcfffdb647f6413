"""The folder of a run: its resolved config, a folder for each stage, and which stages are done."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from sml_jax import config as c
from sml_jax.config_check import flatten, kinds, plain
from sml_jax.errors import UserError

_MISSING = object()


class WorkdirError(UserError):
  """The folder belongs to another experiment, or cannot be read or written; one line."""


class Workdir:
  """Opens or makes the folder of a run.

  Attributes:
    path: the folder.
    changes: [(key, old value, new value)] of the keys that differ from the last run and may; also appended to
      config_changes.json.

  Args:
    path: any path epath knows, so gs:// too.
    config: the validated config; saved as config.json.
    write: False on all processes but one: they look and do not touch.

  Raises:
    WorkdirError: the folder was made by a config whose model, data, objective or seed keys differ; or it is no
      folder, or its config.json is damaged.
  """

  def __init__(self, path: epath.PathLike, config: ConfigDict, write: bool = True):
    self.path = epath.Path(path)
    self.changes: list[tuple[str, Any, Any]] = []
    self._write = write
    if not write:
      return
    if self.path.exists() and not self.path.is_dir():
      raise WorkdirError(f"{self.path}: is a file; give --workdir a folder")
    new = json.loads(json.dumps(plain(config)))
    saved = self.path / "config.json"
    if saved.exists():
      self._compare(read_json(saved), new)
    try:
      self.path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
      raise WorkdirError(f"{self.path}: cannot make this folder: {e.strerror or e}") from e
    if self.changes:
      log = self.path / "config_changes.json"
      record = {"time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "changes": [{"key": key, "old": old, "new": now} for key, old, now in self.changes]}
      write_json(log, [*(read_json(log) if log.exists() else []), record])
    # Last, so that a kill in between logs a change twice rather than never.
    if self.changes or not saved.exists():
      write_json(saved, new)

  def keep(self, name: str, value: str, otherwise: str) -> None:
    """Notes in kept.json what a file that the config names held, and refuses the folder where it is another one now.

    Args:
      name, value: what it is of, and its fingerprint.
      otherwise: end of the error's sentence.

    Raises:
      WorkdirError: the folder has another value.
    """
    file = self.path / "kept.json"
    kept = read_json(file) if file.exists() else {}
    if kept.get(name, value) != value:
      raise WorkdirError(f"{self.path}: {otherwise}; choose another --workdir, or go back to the old file")
    if self._write and name not in kept:
      write_json(file, kept | {name: value})

  def stage_dir(self, name: str) -> epath.Path:
    """The folder of a stage; made if it is not there."""
    path = self.path / name
    path.mkdir(parents=True, exist_ok=True)
    return path

  def is_done(self, name: str) -> bool:
    return (self.path / name / "done.json").exists()

  def mark_done(self, name: str, info: Mapping[str, Any]) -> None:
    """Records that a stage is complete, with what later stages and the report want to know of it (JSON)."""
    write_json(self.stage_dir(name) / "done.json", dict(info))

  def done_info(self, name: str) -> dict[str, Any]:
    """What `mark_done` recorded."""
    return read_json(self.path / name / "done.json")

  def _compare(self, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Fills `changes`; raises WorkdirError if a key differs that makes another experiment."""
    old_order, new_order = list(old.get("stages", {})), list(new["stages"])
    before, after = flatten(old), flatten(new)
    if new_order[:len(old_order)] == old_order:
      # Stages added at the end touch nothing that was made before.
      for name in new_order[len(old_order):]:
        self.changes.append((f"stages.{name}", None, new["stages"][name]["kind"]))
        after = {path: value for path, value in after.items() if not path.startswith(f"stages.{name}.")}
    else:
      before["stages"], after["stages"] = old_order, new_order
    refused = []
    for path in sorted(before.keys() | after.keys()):
      key = c.find_key(path, kinds(new))
      # A key that is newer than the folder had the effect of its default.
      was = before.get(path, self._default(key, new))
      now = after.get(path, _MISSING)
      inherited = key and key.inherit and (before.get(key.inherit), after.get(key.inherit)) == (was, now)
      if was == now or inherited:  # an inherited change is named once, where it was made
        continue
      stage = path.split(".")[1] if path.startswith("stages.") else ""
      if key and (key.resume == "free" or (key.resume == "unfinished" and not self.is_done(stage))):
        self.changes.append((path, was, now))
      else:
        done = " (the stage is done)" if key and key.resume == "unfinished" else ""
        refused.append(f"{path} was {_show(was)}, now {_show(now)}{done}")
    if refused:
      more = f" and {len(refused) - 4} more" if len(refused) > 4 else ""
      raise WorkdirError(f"{self.path} holds another experiment: {'; '.join(refused[:4])}{more}; "
                         "choose another --workdir, or go back to the old values")

  @staticmethod
  def _default(key: c.Key | None, new: dict[str, Any]) -> Any:
    if key is None:
      return _MISSING
    value = flatten(new)[key.inherit] if key.inherit else key.default
    return list(value) if isinstance(value, tuple) else value


def write_json(path: epath.PathLike, value: Any) -> None:
  """Writes JSON so that a reader, or a kill at any moment, sees the old file or the new one whole.

  Raises:
    WorkdirError: the disk is full, or the folder cannot be written; the old file is untouched.
  """
  path = epath.Path(path)
  part = path.parent / f"{path.name}.part"
  try:
    part.write_text(json.dumps(value, indent=1) + "\n")
    part.replace(path)
  except OSError as e:
    raise WorkdirError(f"cannot write {path}: {e.strerror or e}") from e


def read_json(path: epath.PathLike) -> Any:
  """Raises WorkdirError if the file is missing or damaged."""
  try:
    return json.loads(epath.Path(path).read_text())
  except (OSError, ValueError) as e:
    raise WorkdirError(f"{path}: cannot be read ({str(e).splitlines()[0]}); mend it or delete it") from e


def _show(value: Any) -> str:
  return "absent" if value is _MISSING else repr(value)
