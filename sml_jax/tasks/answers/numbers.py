"""The number checker: does a student's turn end in the right number? By exact arithmetic, never by a tolerance."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

# Anything that looks like a number is found whole and then read strictly, so that no part of "1,2,3" or "1e3" passes
# for a number. A minus sign counts unless something stands before it: "10-4" and "10 - 4" hold 10 and 4. A number that
# is glued to the end of a word ("x2") is a part of its name; a unit behind it ("12cm", "5th") is not.
_TOKEN = re.compile(
    r"(?P<sign>(?<![\w.)\]%-])-)?[$€£]?(?P<minus>(?<=[$€£])-)?(?<![A-Za-z_\d])(?<!\d[.,])"
    r"(?:(?P<whole>\d{1,9}) (?=\d{1,9}/\d))?"
    r"(?P<above>\.?\d(?:[\d.,]*\d)?(?:[eE][+-]?\d+)?)(?:/(?P<below>\d+))?", re.ASCII)
_NUMBER = re.compile(r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+", re.ASCII)
_MAX_DIGITS = 40  # no text of a student makes the arithmetic slow
_MARKER = re.compile(r"####|\\boxed\{|\banswer is", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\n|[.;!?](?=\s|$)|####|\\boxed\{|\banswer is", re.IGNORECASE)
_CALCULATION = re.compile(r"<<[^<>]*>>")
_NOT = re.compile(r"\bnot\b|n't\b|\bnever\b", re.IGNORECASE)
_DENIED = re.compile(r"(?:\b(?:not|never|cannot|neither|nor|than|except|at least|at most|either)|n't)"
                     r"(?:\s+(?:be|equal|to|the|an?|answer|actually|really|simply|just|exactly|is|as|was))*[\s:*$\\(]*$",
                     re.IGNORECASE)
_REFUSED = re.compile(r"[^.;!?\n]{0,40}?(?:\b(?:is|was|are|looks|seems)(?:\s+\w+)?\s+"
                      r"(?:wrong|incorrect|not|false|impossible)\b|\bisn't\b|\bwasn't\b)", re.IGNORECASE)
# What makes another number of the one before or behind it.
_BEFORE = re.compile(r"(?:\^\s*\{?|\*\*(?<=\d\*\*)|[±<>≤≥≠≈√]\s*|\d:|\\(?:pm|mp|l[et]q?|g[et]q?|neq?)\s*|"
                     r"(?:\bsqrt|\\(?:sqrt|log|ln))\s*[({]?|\bnot\s*=\s*)$")
_BEHIND = re.compile(r"\s*\^|\*\*\d|_|:\d|\s*[x×]\s*\d|[*_]*\s*\?|\s*(?:π|\\pi|\\sqrt|√)|[abeijnqruvwxyz](?![A-Za-z])|"
                     r"(?-i:[kKMB])\b|\s*(?:dozen|hundred|thousand|million|billion|trillion)s?\b", re.IGNORECASE)
_UNIT_POWER = re.compile(r"(?<=[A-Za-z}])\^(?:\{[23]\}|[23])(?!\d)")
_FRACTION = re.compile(r"\\[dtc]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}(?!\s*(?:\.?\d|\\[dtc]?frac))", re.ASCII)
# A remark in brackets with words or signs in it, "18 (9 eggs at $2)", but for one that offers something else.
_REMARK = re.compile(r"(?<=\d)([*$\\)]* ?[A-Za-z%]*[*$]*)\s+\((?=[^()\n]*[A-Za-z=×*/+])"
                     r"(?![^()\n]*(?:\?|\b(?:or|not|no|maybe|perhaps|possibly|alternatively|otherwise|if|unless|but|could|"
                     r"might)\b))[^()\n]*\)", re.IGNORECASE)
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,\\!|\\,)(?=\d{3}(?!\d))", re.ASCII)
_LONE_MINUS = re.compile(r"((?:[=(]|\bis|\bequals)\s*)-\s+(?=[\d.$])", re.IGNORECASE)


class Found(NamedTuple):
  """A number in a text: what it is worth, or None for one that can not be read, and where it stands."""

  value: Fraction | None
  text: str
  start: int
  end: int


def parse_number(text: str) -> Fraction | None:
  """The number that the whole text is ("1,080", "$14.50", "50%", "3/4", "72."), or None. A percent sign is dropped."""
  match = _TOKEN.fullmatch(_clean(text).strip().removesuffix(".").removesuffix("%").strip())
  return _value(match) if match else None


def extract_number(text: str) -> Fraction | None:
  r"""The number that a student's turn gives as its answer, or None if it gives none.

  Rule: after the last "####", "answer is" or "\boxed{", up to the end of that sentence or line (of what stands
  behind its last "=" if it has one), there must be one number, however often; two different numbers ("5 or 6") or
  a "not" before it are no answer. A text without these marks answers with its last number, unless that is denied
  ("not 5", "5 is wrong") or one of two ("5 or 6"). GSM8K's calculator notes `<<48/2=24>>` are not read.
  """
  marks = list(_MARKER.finditer(text))
  if not marks:
    last = last_number(text)
    return last and last.value
  one = one_number(text[marks[-1].end():])
  return one and one.value


def one_number(text: str) -> Found | None:
  """The one number of the sentence or line that a text begins with, however often it stands there; see above."""
  # "The answer is - 5" is negative; a dash at the start of the next line is a bullet.
  span = _clean(re.sub(r"^([ \t:*_$]*)-[ \t]+(?=[\d.$])", r"\1-", text)).lstrip(" \t\r\n:*_")
  if end := _SENTENCE_END.search(span):
    if end[0] == "?":
      return None
    span = span[:end.start()]
  span = _REMARK.sub(r"\1", span).rpartition("=")[2]
  numbers = [_found(span, match) for match in _TOKEN.finditer(span)]
  if not numbers or _NOT.search(span[:numbers[0].start]) or _denied(span, numbers[-1]):
    return None
  return numbers[0] if len({n.value for n in numbers}) == 1 and numbers[0].value is not None else None


def last_number(text: str) -> Found | None:
  """The last number of a text, unless the text takes it back or offers another beside it."""
  text = _clean(text)
  numbers = [_found(text, match) for match in list(_TOKEN.finditer(text))[-2:]]
  if not numbers or numbers[-1].value is None or _denied(text, numbers[-1]):
    return None
  before, last = numbers[0], numbers[-1]
  between = text[before.end:last.start]
  joined = re.search(r"\bor\b", between, re.IGNORECASE) or re.search(r"\bbetween\W*$", text[:before.start][-20:])
  other = joined and not _SENTENCE_END.search(between) and before.value != last.value
  return None if other else last


def has_answer_mark(text: str) -> bool:
  r"""Whether "####", "answer is" or "\boxed{" stands in the text."""
  return _MARKER.search(text) is not None


def denied(before: str, behind: str) -> bool:
  """Whether what stands before an answer, or in the same sentence behind it, takes it back ("not 5", "5 is wrong")."""
  return bool(_DENIED.search(before[-80:]) or _REFUSED.match(behind[:80]))


def _denied(text: str, number: Found) -> bool:
  return denied(text[:number.start], text[number.end:])


def _clean(text: str) -> str:
  text = _CALCULATION.sub(" ", text.replace("−", "-").replace("–", "-").replace("\\$", "$").replace("\\%", "%"))
  text = _FRACTION.sub(lambda m: f"{' ' * text[m.start() - 1:m.start()].isdigit()}{m[1]}/{m[2]}", text)
  return _LONE_MINUS.sub(r"\1-", _UNIT_POWER.sub(" ", _THOUSANDS.sub(",", text)))


def _found(text: str, match: re.Match) -> Found:
  before, behind = text[max(0, match.start() - 12):match.start()], text[match.end():match.end() + 12]
  other = _BEFORE.search(before) or _BEHIND.match(behind) or any(map(_hides, (before[-1:], behind[:1])))
  return Found(None if other else _value(match), match[0], match.start(), match.end())


def _hides(character: str) -> bool:
  """Whether a neighbour makes another number of a number, seen or not: 5\u00b2, 5\u00bd, a digit of another script."""
  return not character.isascii() and (character.isnumeric() or unicodedata.category(character) == "Cf")


def _value(match: re.Match) -> Fraction | None:
  """The number of a token; None if it is not one after all ("1,2,3", "1e3", "1/0", or too long)."""
  whole, above, below = match["whole"] or "0", match["above"], match["below"] or "1"
  if not _NUMBER.fullmatch(above) or len(above) + len(below) > _MAX_DIGITS or int(below) == 0:
    return None
  value = Fraction(above.replace(",", "")) / int(below)
  if match["whole"] and value >= 1:
    return None
  return (value + int(whole)) * (-1 if match["sign"] or match["minus"] else 1)
