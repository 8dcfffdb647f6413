"""Runs programs against the tests of a problem: `python -m sml_jax.tasks.execute --help`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import keyword
import pathlib
import signal
import sys
from typing import Any

from sml_jax.errors import UserError
from sml_jax.tasks import commands
from sml_jax.tasks.program import Problem, Report, extract_code, grade
from sml_jax.tasks.sandbox import BACKENDS, Sandbox

HELP = """Runs programs that nobody trusts against the tests of one problem, each in a sandbox of its own.

--problem is a JSON file:
  {"prompt": "Write a function add(a, b).", "entry_point": "add",
   "tests": ["assert add(2, 3) == 5", "assert not add(0, 0)"],
   "io_tests": [{"args": [2, 3], "expected": 5}]}
One of tests and io_tests may be left out; also known are "setup" (Python that runs before the tests) and "test"
(HumanEval's check(candidate)). In asserts Python's == decides on plain values (1 == 1.0, (1,) != [1]); in io_tests a
tuple is a list, a bool is no number, and floats are equal within 1e-6, relative or absolute (absolute alone where an
int is expected). A function that returns something is taken to leave its arguments as they are. Objects that are not
plain data are equal to themselves alone; a test that uses a class of the program trusts that class.

--submissions has one JSON object a line, {"id": ..., "code": "..."}; code is a program, or a reply with a program in a
fenced block (the last one that defines the entry point, else the last with a function at its top level); ids may
repeat. Programs have the standard library, one process, no network, no input, and a scratch folder of 16 MB (none in
rlimits); a value of theirs has at most 4 MB as JSON, and is nested 150 deep at most.

--out gets one JSON object for each, in order:
  {"id": "a", "passed": false, "verdict": "wrong", "passed_tests": 2, "total_tests": 3, "seconds": 0.07,
   "first_failure": {"input": "2, 3", "expected": "5", "actual": "6", "error": ""}}
verdict: passed, wrong, error (raised or died), timeout, no_code, or failed (the executor did not work; not an answer).

example:
  python -m sml_jax.tasks.execute --problem=problem.json --submissions=in.jsonl --out=out.jsonl
"""
DIGITS = 20_000  # of an int in the tests; more would take long to write
MOST = 1_000_000
KEYS = {"prompt": str, "entry_point": str, "setup": str, "test": str, "tests": list, "io_tests": list}


def main(argv: list[str] | None = None) -> int:
  """The command. Returns the exit code: 1 for bad input or where no sandbox works, told in one line."""
  parser = argparse.ArgumentParser("python -m sml_jax.tasks.execute", description=HELP,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--problem", required=True, type=pathlib.Path, metavar="PROBLEM.json")
  parser.add_argument("--submissions", required=True, type=pathlib.Path, metavar="IN.jsonl")
  parser.add_argument("--out", required=True, type=pathlib.Path, metavar="OUT.jsonl")
  parser.add_argument("--backend", default="auto", metavar="NAME",
                      help=f"{', '.join(BACKENDS)}; rlimits is UNSAFE: programs see all files, these tests among them "
                      "(default: the first of the others that works)")
  parser.add_argument("--workers", type=int, help="programs at the same time (default: the cores)")
  parser.add_argument("--cpu_s", type=float, default=10.0, help="CPU seconds of a program (default: 10)")
  parser.add_argument("--memory_mb", type=int, default=1024, help="memory of a program in MiB (default: 1024)")
  flags = parser.parse_args(argv)

  def work() -> None:
    problem, rows = read_problem(flags.problem), read_submissions(flags.submissions)
    for name in ("workers", "cpu_s", "memory_mb"):
      if getattr(flags, name) is not None and not 0 < getattr(flags, name) <= MOST:
        raise UserError(f"--{name}: expected a number above 0 and up to {MOST:,}, got {getattr(flags, name)}")
    commands.check_out(flags.out)
    with Sandbox(flags.backend, flags.workers, flags.cpu_s, memory_mb=flags.memory_mb) as sandbox:
      reports = grade(sandbox, [(problem, extract_code(row["code"], problem.entry_point)) for row in rows])
    lines = [line(row["id"], report) for row, report in zip(rows, reports, strict=True)]
    commands.write_whole(flags.out, "".join(lines))

  return commands.run(work)


def interrupt(number: int, frame: Any) -> None:
  raise KeyboardInterrupt


def read_problem(path: pathlib.Path) -> Problem:
  """Raises UserError for a file that is no problem, or whose tests are no tests."""
  found = _object(path, _text(path))
  for key, value in found.items():
    if key not in KEYS:
      raise UserError(f"{path}: unknown key {key!r}: expected {', '.join(KEYS)}")
    if type(value) is not KEYS[key]:
      raise UserError(f"{path}: {key}: expected a {KEYS[key].__name__}, got {json.dumps(value)[:80]}")
  name = found.get("entry_point", "")
  if not name.isidentifier() or keyword.iskeyword(name):
    raise UserError(f"{path}: entry_point: expected the name of a function, got {found.get('entry_point')!r}")
  tests = found.get("tests", [])
  for number, test in enumerate(tests, 1):
    if type(test) is not str:
      raise UserError(f"{path}: tests {number}: expected a string, got {json.dumps(test)[:80]}")
  problem = Problem(found.get("prompt", ""), found["entry_point"], found.get("setup", ""), tuple(tests),
                    tuple(found.get("io_tests", [])), found.get("test", ""))
  try:
    problem.plan()
  except UserError as e:
    raise UserError(f"{path}: {e}") from None
  return problem


def read_submissions(path: pathlib.Path) -> list[dict]:
  """The rows, {"id", "code"}. Raises UserError with the line of one that is something else."""
  rows = []
  for number, text in enumerate(_text(path).split("\n"), 1):
    if not text.strip():
      continue
    row = _object(f"{path}:{number}", text)
    if "id" not in row or type(row.get("code")) is not str:
      raise UserError(f'{path}:{number}: expected {{"id": ..., "code": "..."}}, got {text[:80]}')
    rows.append(row)
  return rows


def line(name: Any, report: Report) -> str:
  """A row of the output."""
  out = {"id": name, "passed": report.verdict == "passed", **dataclasses.asdict(report)}
  return json.dumps(out) + "\n"


def _text(path: pathlib.Path) -> str:
  try:
    return path.read_text(encoding="utf-8-sig")
  except UnicodeDecodeError as e:
    raise UserError(f"{path}: expected UTF-8 text ({e.reason} at byte {e.start})") from None
  except OSError as e:
    raise UserError(f"{path}: {e.strerror}") from None


def _object(where: Any, text: str) -> dict:
  try:
    found = json.loads(text)
  except (ValueError, RecursionError) as e:
    raise UserError(f"{where}: expected JSON ({e})") from None
  if type(found) is not dict:
    raise UserError(f"{where}: expected a JSON object, got {text.strip()[:80]}")
  return found


if __name__ == "__main__":
  sys.set_int_max_str_digits(DIGITS)
  signal.signal(signal.SIGTERM, interrupt)
  sys.exit(main())
