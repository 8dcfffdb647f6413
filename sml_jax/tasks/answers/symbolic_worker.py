"""The process that compares formulas for symbolic.py.

A JSON line in, [gold, given]; a JSON line out: "equal", "differs" or "unparsable". The first line out is "ready". Two
readers that know nothing of each other have to agree: formula_reader.py, whose values of the two have to be the same,
and Math-Verify, which has to find them equal or, where it can not prove that, has to read both with our values. Where
it does not agree nothing is said ("unparsable").
"""

from __future__ import annotations

import functools
import json
import logging
import os
import random
import re
import resource
import signal
import sys

import sympy
from math_verify import LatexExtractionConfig, parse, verify

from sml_jax.tasks.answers.formula import Node
from sml_jax.tasks.answers.formula_equal import counting, draw, numerically, texts_equal
from sml_jax.tasks.answers.formula_reader import read
from sml_jax.tasks.answers.formula_tokens import UNITS, Unreadable
from sml_jax.tasks.answers.formula_value import DIGITS, Unsure, same_values, value

MEMORY_BYTES = 2 << 30
_LAST_LETTERS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{1,2}$")


def main() -> None:
  cpu_s = float(sys.argv[1])
  logging.disable(logging.CRITICAL)
  # What a formula makes the libraries print must not look like an answer.
  answers = os.fdopen(os.dup(1), "wb", buffering=0)
  os.dup2(2, 1)
  resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  _agrees("2\\sqrt{3}", "\\sqrt{12}")  # builds the grammar's tables
  answers.write(b'"ready"\n')
  for line in sys.stdin.buffer:
    gold, given = json.loads(line)
    # CPU time, so that a busy machine does not make a right answer wrong; the default action ends the process.
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    answer = compare(gold, given)
    signal.setitimer(signal.ITIMER_PROF, 0)
    answers.write(json.dumps(answer).encode() + b"\n")


def compare(gold: str, given: str) -> str:
  salt = f"{gold}\0{given}"

  def same(a: Node, b: Node) -> bool:
    return numerically(a, b, salt)

  try:
    if not texts_equal(gold, given, same):
      return "differs"
    agreed = _agrees(gold, given) or all(_reads_alike(text, salt) for text in (gold, given))
    return "equal" if agreed else "unparsable"
  except (Unreadable, Unsure, MemoryError, RecursionError, OverflowError):
    return "unparsable"
  except Exception:  # of the libraries: whatever it is, it does not say that the answers are equal
    return "unparsable"


def _agrees(gold: str, given: str) -> bool:
  """Whether Math-Verify takes them for equal. Its own time limits are off: they need signals of the main thread."""
  a, b = _parsed(gold), _parsed(given)
  return bool(a) and bool(b) and verify(list(a), list(b), timeout_seconds=None, allow_set_relation_comp=True)


def _reads_alike(text: str, salt: str) -> bool:
  """Whether Math-Verify's formula has the values of ours, to 25 digits, at four points; of scalars alone."""
  ours, theirs = read(text), _parsed(text)
  if not ours.scalar or len(theirs) != 1 or not isinstance(theirs[0], sympy.Expr):
    return False
  letters = {str(s): s for s in theirs[0].free_symbols}
  names = {name.lstrip("\\"): name for name in ours.symbols}
  if letters.keys() != names.keys():
    return False
  source, natural = random.Random(salt), counting(ours)
  for _ in range(4):
    point = {name: abs(draw(source, natural)) for name in sorted(names)}
    a = value(ours, {names[name]: x for name, x in point.items()}, DIGITS[0])
    b = theirs[0].subs({letters[name]: sympy.Rational(x.numerator, x.denominator) for name, x in point.items()})
    b = b.evalf(60)
    if not isinstance(b, sympy.Float) or not same_values(a, b._to_mpmath(200), digits=45):  # less 20
      return False
  return True


@functools.lru_cache(maxsize=1000)
def _parsed(text: str) -> tuple:
  # LaTeX alone: Math-Verify's reader of plain expressions is sympy's parse_expr, which evaluates Python.
  plain = text.replace("\\$", "").replace("$", "")
  # Of the letters at the end of 2ab it makes a unit, unless they have braces.
  plain = _LAST_LETTERS.sub(lambda m: m[0] if m[0] in UNITS else "".join(f"{{{c}}}" for c in m[0]), plain)
  return tuple(parse(f"${plain}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None))


if __name__ == "__main__":
  main()
