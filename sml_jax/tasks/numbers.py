"""The number checker: does a student's turn end in the right number? By exact arithmetic, never by a tolerance."""

from __future__ import annotations

import re
from fractions import Fraction

from sml_jax.tasks.task import Verdict

# Anything that looks like a number is found whole and then read strictly, so that no part of "1,2,3" or "1e3" passes
# for a number. A minus sign counts unless something stands before it: "10-4" and "10 - 4" hold 10 and 4. A number that
# is glued to the end of a word ("x2") is a part of its name; a unit behind it ("12cm", "5th") is not.
_TOKEN = re.compile(
    r"(?P<sign>(?<![\w.)\]%-])-)?[$€£]?(?P<minus>(?<=[$€£])-)?(?<![A-Za-z_\d])(?<!\d[.,])"
    r"(?P<above>\.?\d(?:[\d.,]*\d)?(?:[eE][+-]?\d+)?)(?:/(?P<below>\d+))?", re.ASCII)
_NUMBER = re.compile(r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+", re.ASCII)
_MAX_DIGITS = 40  # no text of a student makes the arithmetic slow
_MARKER = re.compile(r"####|\\boxed\{|\banswer is", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\n|[.;!?](?=\s|$)|####|\\boxed\{|\banswer is", re.IGNORECASE)
_CALCULATION = re.compile(r"<<[^<>]*>>")
_NOT = re.compile(r"\bnot\b|n't\b|\bnever\b", re.IGNORECASE)


def parse_number(text: str) -> Fraction | None:
  """The number that the whole text is ("1,080", "$14.50", "50%", "3/4", "72."), or None. A percent sign is dropped."""
  match = _TOKEN.fullmatch(_clean(text).strip().removesuffix(".").removesuffix("%").strip())
  return _value(match) if match else None


def extract_number(text: str) -> Fraction | None:
  r"""The number that a student's turn gives as its answer, or None if it gives none.

  Rule: after the last "####", "answer is" or "\boxed{", up to the end of that sentence or line (of what stands
  behind its last "=" if it has one), there must be one number, however often; two different numbers ("5 or 6") or
  a "not" before it are no answer. A text without these marks answers with its last number. GSM8K's calculator
  notes `<<48/2=24>>` are not read.
  """
  text = _clean(text)
  marks = list(_MARKER.finditer(text))
  if not marks:
    numbers = [_value(m) for m in _TOKEN.finditer(text)]
    return numbers[-1] if numbers else None
  span = text[marks[-1].end():].lstrip(" \t\r\n:*_")
  if end := _SENTENCE_END.search(span):
    span = span[:end.start()]
  span = span.rpartition("=")[2]
  first = _TOKEN.search(span)
  if not first or _NOT.search(span[:first.start()]):
    return None
  numbers = {_value(m) for m in _TOKEN.finditer(span)}
  return numbers.pop() if len(numbers) == 1 else None


def has_answer_mark(text: str) -> bool:
  r"""Whether "####", "answer is" or "\boxed{" stands in the text."""
  return _MARKER.search(text) is not None


def check_number(text: str, gold: str) -> Verdict:
  """solved, wrong or no_attempt; verifier_failed if the gold is no number, which is nobody's wrong answer."""
  right = parse_number(gold)
  if right is None:
    return "verifier_failed"
  given = extract_number(text)
  if given is None:
    return "no_attempt"
  return "solved" if given == right else "wrong"


def _clean(text: str) -> str:
  return _CALCULATION.sub(" ", text.replace("−", "-").replace("\\$", "$").replace("\\%", "%"))


def _value(match: re.Match) -> Fraction | None:
  """The number of a token; None if it is not one after all ("1,2,3", "1e3", "1/0", or too long)."""
  above, below = match["above"], match["below"] or "1"
  if not _NUMBER.fullmatch(above) or len(above) + len(below) > _MAX_DIGITS or int(below) == 0:
    return None
  value = Fraction(above.replace(",", "")) / int(below)
  return -value if match["sign"] or match["minus"] else value
