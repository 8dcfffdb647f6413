"""Calls the program several times in one process, since starting it takes longer than refusing what is wrong.

Reads a JSON list of lists of arguments from standard input, and prints [exit code, standard error] of each.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys

from sml_jax.main import main


def call(arguments: list[str]) -> tuple[int, str]:
  errors = io.StringIO()
  with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
    code = main(arguments)
  return code, errors.getvalue()


if __name__ == "__main__":
  print(json.dumps([call(arguments) for arguments in json.load(sys.stdin)]))
