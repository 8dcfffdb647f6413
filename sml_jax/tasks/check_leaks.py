"""Checks teacher turns for leaks: python -m sml_jax.tasks.check_leaks --rows=IN.jsonl --out=OUT.jsonl"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from sml_jax.tasks import commands
from sml_jax.tasks.jsonl import bad_row, read_rows
from sml_jax.tasks.leaks import Guarded, Leak, find_leak

FORMATS = """\
A row of --rows (JSON lines, .jsonl or .jsonl.gz) is one teacher turn and the task that it is about:
  id       text or whole number, given back
  problem  text that the student sees
  answer   text: a number, LaTeX, words, or the source of the reference program
  tests    list of asserts as text; null, [] or left out where there are none
  turn     text that the teacher is about to say
Other fields are not read. A row of --out, one for each row of --rows and in their order:
  id       as given
  leaked   true or false
  kind     number, words, form, digits, expression, encoded, formula, text, code or test; null if not leaked
  span     what of the turn leaks, word for word; null if not leaked

example:
  in   {"id": 1, "problem": "Ann has 6 boxes of 7 pens. How many pens?", "answer": "42", "turn": "It is forty-two."}
  out  {"id": 1, "leaked": true, "kind": "words", "span": "forty-two"}

Exits with 1 and one line on stderr for a malformed row; then nothing is written."""
_TEXTS = {"problem": str, "answer": str, "turn": str}


def read(path: str) -> list[tuple[Any, Guarded, str]]:
  """(id, task, turn) of every row. Raises DataError that names file, line and field."""
  out = []
  for line, row in read_rows(path, _TEXTS):
    if "id" not in row or type(row["id"]) not in (str, int):
      raise bad_row(path, line, "id", "text or a whole number", row.get("id", "nothing"))
    tests = [] if row.get("tests") is None else row["tests"]
    if not isinstance(tests, list) or not all(isinstance(t, str) for t in tests):
      raise bad_row(path, line, "tests", "a list of texts, or null", row["tests"])
    out.append((row["id"], Guarded(row["problem"], row["answer"], tuple(tests)), row["turn"]))
  return out


def main(argv: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(prog="python -m sml_jax.tasks.check_leaks", epilog=FORMATS, allow_abbrev=False,
                                   description="Says of each teacher turn whether it states the answer.",
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--rows", required=True, metavar="IN.jsonl")
  parser.add_argument("--out", required=True, metavar="OUT.jsonl")
  args = parser.parse_args(argv)

  def work() -> None:
    commands.check_out(args.out)
    rows = read(args.rows)
    commands.write_whole(args.out, "".join(line(name, find_leak(task, turn)) for name, task, turn in rows))

  return commands.run(work)


def line(name: Any, leak: Leak | None) -> str:
  """A row of the output."""
  found = {"kind": leak and leak.kind, "span": leak and leak.span}
  return json.dumps({"id": name, "leaked": leak is not None, **found}) + "\n"


if __name__ == "__main__":
  sys.exit(main())
