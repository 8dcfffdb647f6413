"""What the checkers' commands share: an output file that is there whole or not at all, and one line for bad input."""

from __future__ import annotations

import os
import pathlib
import sys
import tempfile
from collections.abc import Callable

from sml_jax.errors import UserError


def run(work: Callable[[], None]) -> int:
  """Does the work of a command; returns its exit code, and says one line on stderr if that is not 0."""
  try:
    work()
    return 0
  except (UserError, OSError) as e:
    print(f"error: {e}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print("error: interrupted; nothing is written", file=sys.stderr)
    return 130


def check_out(path: str | pathlib.Path) -> None:
  """Raises UserError if `write_whole` could not write it, or would put a file in the place of a device or a pipe."""
  path = pathlib.Path(path)
  folder = path.absolute().parent
  if not folder.is_dir():
    raise UserError(f"--out={path}: its folder does not exist")
  if path.exists() and not path.is_file():
    raise UserError(f"--out={path}: expected a file, or nothing yet")
  if not os.access(folder, os.W_OK | os.X_OK):
    raise UserError(f"--out={path}: its folder can not be written")


def write_whole(path: str | pathlib.Path, text: str) -> None:
  """Writes a file so that it is there whole or not at all. Raises UserError."""
  path = pathlib.Path(path)
  try:
    with tempfile.NamedTemporaryFile("w", dir=path.absolute().parent, prefix=f".{path.name}.", delete=False,
                                     encoding="utf-8") as part:  # fmt: skip
      try:
        part.write(text)
        part.flush()
        os.chmod(part.name, 0o644)  # a temporary file is its owner's alone
        os.replace(part.name, path)
      except BaseException:
        os.unlink(part.name)
        raise
  except OSError as e:
    raise UserError(f"--out={path}: can not be written ({e.strerror})") from None
