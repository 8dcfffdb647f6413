"""Does a teacher's turn state the answer? Checked before the student sees the turn.

A leak is the answer in any written form, an expression that has its value, the reference program, or what a test
expects. No leak is what the student can read without the teacher: numbers, formulas and cases of the problem, and what
the student said itself, unless the turn calls them the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sml_jax.tasks.answers.latex import boxed
from sml_jax.tasks.answers.numbers import parse_number
from sml_jax.tasks.leaks.code import code_leak, is_code
from sml_jax.tasks.leaks.exact import Sum
from sml_jax.tasks.leaks.expressions import evaluate
from sml_jax.tasks.leaks.formulas import formula_leak, word_leak
from sml_jax.tasks.leaks.numbers import number_leak
from sml_jax.tasks.leaks.tests import expected_leak
from sml_jax.tasks.leaks.tokens import plain

_MOST = 20_000  # characters; of a longer turn the first and the last 10,000 are read
_UNIT = re.compile(r"\\(?:text|mathrm|mbox)\s*\{[^{}]*\}|\^\s*\{?\\circ\}?")
_VARIABLE = re.compile(r"\s*[A-Za-z]\w*(?:\([\w, ]*\))?\s*=(?!=)")


@dataclass(frozen=True)
class Guarded:
  """What a turn must not give away.

  Attributes:
    problem: the text that the student sees.
    answer: a number ("1,080", "3/4"), LaTeX, words, or the source of the reference program.
    tests: asserts as source; with them, or if the answer is a program, the task is one of code.
    solution: the reference program where the answer is not.
  """

  problem: str
  answer: str
  tests: tuple[str, ...] = ()
  solution: str = ""


@dataclass(frozen=True)
class Leak:
  """kind: number, words, form, digits, expression, encoded, formula, text, code or test; span = turn[start:end]."""

  kind: str
  span: str
  start: int
  end: int


def find_leak(task: Guarded, turn: str, said: Sequence[str] = ()) -> Leak | None:
  """The first leak of a turn, or None. Of a turn of more than 20,000 characters only both ends are read.

  Args:
    task: what is guarded.
    turn: what the teacher is about to say.
    said: the student's turns so far: a number of theirs is a leak only if the teacher calls it right.
  """
  half = _MOST // 2
  for first, text in ((0, turn),) if len(turn) <= _MOST else ((0, turn[:half]), (len(turn) - half, turn[-half:])):
    found = _code(task, text, said) if task.tests or is_code(task.answer) else _value(task, text, said)
    if found:
      kind, start, end = found[0], first + found[1], first + found[2]
      return Leak(kind, turn[start:end], start, end)
  return None


def _code(task: Guarded, turn: str, said: Sequence[str]) -> tuple[str, int, int] | None:
  for source in (task.answer, task.solution):
    if source.strip() and (span := code_leak(source, task.problem, turn, said)):
      return "code", *span
  span = expected_leak(task.tests, task.problem, turn) if task.tests else None
  return ("test", *span) if span else None


def _value(task: Guarded, turn: str, said: Sequence[str]) -> tuple[str, int, int] | None:
  boxes = boxed(task.answer)
  answer = (boxes[0] if boxes and len(boxes) == 1 else task.answer).strip()
  for opening, closing in (("\\[", "\\]"), ("\\(", "\\)"), ("$$", "$$"), ("$", "$")):
    if answer.startswith(opening) and answer.endswith(closing) and len(answer) > len(opening) + len(closing):
      answer = answer[len(opening) : -len(closing)].strip()
  if not answer:
    return None
  value = parse_number(answer)
  if value is None and len(answer) <= 400:
    bare = _VARIABLE.sub("", _UNIT.sub("", answer), count=1).replace("\\%", "").replace("\\$", "").strip(" $.")
    value = evaluate(plain(bare)[0])
  letters = isinstance(value, Sum) and any(name != "pi" for _, names in value for name, _ in names)
  found = None
  if value is not None and not letters:
    found = number_leak(value, task.problem, turn, said, "%" in answer)
  if found is None and (value is None or isinstance(value, Sum) or "\\" in answer):
    found = formula_leak(answer, task.problem, turn, said)
  if found is None and (value is None or letters):
    found = word_leak(answer, task.problem, turn, said)
  return found
