"""Reads JSON lines and checks each row, so that a bad row is named by file, line and field before training starts."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from sml_jax.errors import UserError


class DataError(UserError):
  """A data file that is missing, damaged, or has a malformed row; one line."""


def refuse(error: DataError) -> None:
  """What becomes of a bad row, unless a reader is told otherwise."""
  raise error


def read_rows(
    path: epath.PathLike, schema: Mapping[str, type], bad: Callable[[DataError], None] = refuse
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields (line number from 1, row) of a .jsonl or .jsonl.gz file; empty lines are skipped.

  Args:
    path: the file; any path epath knows. A .json file is one list of rows, whose "lines" are its rows.
    schema: field -> exact type (a bool is not an int). Other fields are passed through unchecked.
    bad: is given the error of a row that is no JSON object or has a missing or mistyped field; the row is left out if
      it returns.

  Raises:
    DataError: the file is missing or damaged.
  """
  path = epath.Path(path)
  line = 0
  try:
    with path.open("rb") as raw, gzip.open(raw) if path.suffix == ".gz" else raw as stream:
      text = io.TextIOWrapper(stream, encoding="utf-8")
      for line, row in enumerate(_list(path, text) if path.name.endswith((".json", ".json.gz")) else text, 1):
        if not isinstance(row, str) or row.strip():
          try:
            checked = check_row(path, line, _parsed(path, line, row) if isinstance(row, str) else row, schema)
          except DataError as e:
            bad(e)
          else:
            yield line, checked
  except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
    raise DataError(f"{path}: there is no such file") from None
  except (OSError, EOFError, zlib.error, UnicodeDecodeError) as e:
    raise DataError(f"{path}: damaged after line {line} ({e})") from e


def check_manifest(folder: epath.PathLike, name: str) -> None:
  """Compares a file with its SHA-256 in the folder's MANIFEST.json ({name: {"sha256": ...}}), if it is listed there.

  Raises:
    DataError: the file is not the one that the manifest describes.
  """
  folder = epath.Path(folder)
  manifest = folder / "MANIFEST.json"
  if not manifest.exists():
    return
  try:
    expected = json.loads(manifest.read_text()).get(name, {}).get("sha256")
  except (ValueError, AttributeError) as e:
    raise DataError(f"{manifest}: damaged ({e})") from None
  if expected and hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
    raise DataError(f"{folder / name}: is not the file that {manifest.name} lists (SHA-256 differs); fetch it again")


def bad_row(path: epath.PathLike, line: int, field: str, expected: str, got: Any) -> DataError:
  """The error for a field of a row; `got` is cut to 60 characters."""
  text = got if isinstance(got, str) and got == "nothing" else repr(got)
  return DataError(f"{path}:{line}: field {field!r}: expected {expected}, "
                   f"got {text if len(text) <= 60 else text[:57] + '...'}")


def check_row(path: Any, line: int, row: Any, schema: Mapping[str, type]) -> dict[str, Any]:
  """The row, if it is an object with the schema's fields. Raises DataError."""
  if not isinstance(row, dict):
    raise DataError(f"{path}:{line}: expected an object with fields {', '.join(schema)}, got {type(row).__name__}")
  for field, kind in schema.items():
    if field not in row:
      raise bad_row(path, line, field, kind.__name__, "nothing")
    if type(row[field]) is not kind:
      raise bad_row(path, line, field, kind.__name__, row[field])
  return row


def _parsed(path: epath.Path, line: int, text: str) -> Any:
  try:
    return json.loads(text)
  except (ValueError, RecursionError) as e:
    raise DataError(f"{path}:{line}: not JSON ({e})") from None


def _list(path: epath.Path, text: io.TextIOWrapper) -> list[Any]:
  rows = _parsed(path, 1, text.read())
  if not isinstance(rows, list):
    raise DataError(f"{path}: expected a list of rows, got {type(rows).__name__}")
  # A string would be taken for a line.
  return [[row] if isinstance(row, str) else row for row in rows]
