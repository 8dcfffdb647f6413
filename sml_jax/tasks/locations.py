"""Where rows lie: jsonl:PATH, tfds:NAME/SPLIT or hf:NAME/SPLIT, read as (place, number, row)."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from sml_jax.tasks.jsonl import DataError, check_manifest, check_row, read_rows, refuse

KINDS = ("jsonl", "tfds", "hf")
Rows = Iterator[tuple[str, int, dict[str, Any]]]
"""(file or data set, line or row number from 1, fields)"""


def read(
    location: str, schema: Mapping[str, type], data_dir: str = "", bad: Callable[[DataError], None] = refuse
) -> Rows:
  """The rows of a location.

  Args:
    location: "jsonl:PATH" (.jsonl, .json, each also .gz; a pattern with * or a folder means all its files, in order;
      a path that is not there is looked for under data_dir), "tfds:NAME/SPLIT" or "hf:NAME[:CONFIG]/SPLIT".
    schema, bad: as for `read_rows`.

  Raises:
    DataError: no such kind of location, no such file or data set, or a package that it needs is not installed.
  """
  kind, _, name = location.partition(":")
  if kind not in KINDS or not name:
    raise DataError(f"tasks.source: expected jsonl:PATH, tfds:NAME/SPLIT or hf:NAME/SPLIT, got {location!r}")
  if kind == "jsonl":
    yield from _read_files(files(name, data_dir), data_dir, schema, bad)
    return
  data_set, _, split = name.rpartition("/")
  if not data_set or not split:
    raise DataError(f"tasks.source: {location!r} names no split; expected {kind}:NAME/SPLIT")
  rows = (_tfds if kind == "tfds" else _hf)(location, data_set, split, data_dir)
  for number, row in enumerate(rows, 1):
    try:
      row = check_row(location, number, _plain(row), schema)
    except DataError as e:
      bad(e)
    else:
      yield location, number, row


def files(path: str, data_dir: str = "") -> list[epath.Path]:
  """The files that a path, a folder or a pattern names, sorted. Raises DataError if there are none."""
  tried = [epath.Path(path)]
  if data_dir and not tried[0].is_absolute():
    tried.append(epath.Path(data_dir) / path)
  for candidate in tried:
    if any(c in candidate.name for c in "*?["):
      found = [epath.Path(p) for p in sorted(glob.glob(str(candidate)))]
    elif candidate.is_dir():
      ends = (".jsonl", ".jsonl.gz", ".json", ".json.gz")
      found = sorted(p for p in candidate.iterdir() if p.name.endswith(ends) and p.name != "MANIFEST.json")
    else:
      found = [candidate] if candidate.exists() else []
    if found:
      return found
  raise DataError(f"there is no such file: {' nor '.join(map(str, tried))}")


def _read_files(paths: list[epath.Path], data_dir: str, schema, bad) -> Rows:
  root = epath.Path(data_dir) if data_dir else None
  for path in paths:
    if root is not None and path.is_relative_to(root):
      check_manifest(root, str(path.relative_to(root)))
    else:
      check_manifest(path.parent, path.name)
    for line, row in read_rows(path, schema, bad):
      yield str(path), line, row


def _tfds(location: str, name: str, split: str, data_dir: str) -> Iterator[Mapping[str, Any]]:
  """Read without TensorFlow where the data set was prepared as array_record; building one by name may need it."""
  try:
    import tensorflow_datasets as tfds

    yield from tfds.data_source(name, split=split, data_dir=data_dir or None)
  except Exception as e:  # whatever a builder raises: there is no common base class
    raise DataError(f"{location}: {type(e).__name__}: {_first_line(e)}") from None


def _hf(location: str, name: str, split: str, data_dir: str) -> Iterator[Mapping[str, Any]]:
  try:
    import datasets
  except ImportError:
    raise DataError(f'{location} needs the package datasets: pip install "sml_jax[hf]"') from None
  path, _, config = name.partition(":")
  if data_dir and (epath.Path(data_dir) / path).is_dir():
    path = str(epath.Path(data_dir) / path)
  try:
    yield from datasets.load_dataset(path, config or None, split=split)
  except Exception as e:
    raise DataError(f"{location}: {type(e).__name__}: {_first_line(e)}") from None


def _first_line(error: Exception) -> str:
  return (str(error).strip() or "no reason given").splitlines()[0]


def _plain(value: Any) -> Any:
  """TFDS gives bytes and numpy values; rows have strings, numbers, lists and dicts."""
  if isinstance(value, bytes):
    return value.decode("utf-8", "replace")
  if isinstance(value, np.ndarray):
    return [_plain(v) for v in value.tolist()]
  if isinstance(value, np.generic):
    return value.item()
  if isinstance(value, Mapping):
    return {str(k): _plain(v) for k, v in value.items()}
  return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
