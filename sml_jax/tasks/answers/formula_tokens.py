r"""Cuts an answer into tokens: numbers, letters, words, commands, signs. What only changes the look goes; what is
unknown is refused."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple


class Unreadable(ValueError):
  """An answer that is not wholly understood; says what is not, in one line."""


class Token(NamedTuple):
  kind: str
  """number, letter, word, command, end-matrix, end; or the sign or command itself where the grammar names it."""
  text: str
  spaced: bool = False
  """Whether a space stands before it."""


RELATIONS = {"=": "=", "<": "<", ">": ">", "\\le": "<=", "\\ge": ">=", "\\ne": "!="}

_UNITS = ("in inch inches|ft foot feet|mi mile miles|m meter meters metre metres|cm centimeter centimeters|"
          "mm millimeter millimeters|km kilometer kilometers|g gram grams|kg kilogram kilograms|"
          "L liter liters litre litres|s second seconds sec|min minute minutes|h hour hours hr|day days|week weeks|"
          "month months|year years|dollars dollar|cents cent|euros euro|pounds pound|deg degree degrees|% percent|"
          " unit units|mph|per|ways way|integer|integers|digit|digits|points point|edge|edges|time|people|person|"
          "children|men|women|C|F|K|rad radian radians|yard yards")
UNITS: dict[str, str] = {name: group.split(" ")[0] for group in _UNITS.split("|") for name in group.split()}
"""Word behind a number -> its one name; "" says nothing."""

_CHARACTERS = {
    "\u2212": "-", "\u00b7": "\\cdot ", "\u22c5": "\\cdot ", "\u00d7": "\\cdot ", "\u00f7": "/", "\u03c0": "\\pi ",
    "\u2264": "\\le ", "\u2265": "\\ge ", "\u2260": "\\ne ", "\u221e": "\\infty ", "\u00b0": "^\\circ ",
    "\u2208": "\\in ", "\u222a": "\\cup ", "\u00b1": "\\pm ", "\u00a0": " ", "\u2009": "\\,", "\u202f": "\\,",
    "\x0c": "\\f",  # of a \frac that somebody read as JSON
    "\t": " ", "\n": " ", "\r": " ", "\u2019": "'", "\u221a": "\\sqrt ",
}  # fmt: skip
_SPACING = re.compile(r"(?<!\\)\\(?:[,;:! ]|quad(?![A-Za-z])|qquad(?![A-Za-z])|(?:displaystyle|textstyle)(?![A-Za-z])|"
                      r"(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])(?!\s*\.))|~|\\?\$|(?<!\\)\\[()\[\]]")
_GROUP = r"(?:\{,\}|,\\!|\\,|\\ (?=\d))\d{3}"
_THOUSANDS = re.compile(rf"(?<![\d.,])\d{{1,3}}(?:{_GROUP})+(?![\d])", re.ASCII)
_COMMAS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\S)", re.ASCII)
_SAME = {
    "\\dfrac": "\\frac", "\\tfrac": "\\frac", "\\cfrac": "\\frac", "\\dbinom": "\\binom", "\\tbinom": "\\binom",
    "\\leq": "\\le", "\\leqslant": "\\le", "\\geq": "\\ge", "\\geqslant": "\\ge", "\\neq": "\\ne", "\\lt": "<",
    "\\gt": ">", "\\times": "*", "\\cdot": "*", "\\div": "/", "\\lbrace": "\\{", "\\rbrace": "\\}", "\\lbrack": "[",
    "\\rbrack": "]", "\\lparen": "(", "\\rparen": ")", "\\%": "%",
}  # fmt: skip
_SIGNS = frozenset("+ - * / ^ ! _ = < > ( ) [ ] { } , ; % & \\{ \\} \\\\ \\le \\ge \\ne \\in \\cup \\pm \\mp "
                   "\\lfloor \\rfloor \\lceil \\rceil \\lvert \\rvert".split())
_ENDS = frozenset("number letter word ) ] } \\} ! % \\rvert \\rfloor \\rceil end-matrix".split())
"""Kinds of tokens behind which an operand is complete."""
_PLAIN = {"sqrt": "\\sqrt", "pi": "\\pi", "sin": "\\sin", "cos": "\\cos", "tan": "\\tan", "ln": "\\ln", "log": "\\log",
          "infinity": "\\infty"}
_SHORT_WORDS = frozenset("or is no in to at if an as be by do go he it me my of on so up us we ok".split())
_TEXT = re.compile(r"\\(?:text|textbf|textrm|textit|textnormal|mathrm|mbox|mathit|mathsf|operatorname)\s*\{([^{}]*)\}")
_STYLE = re.compile(r"\\(?:mathbf|boldsymbol|bm|mathnormal)(?![A-Za-z])")
_TOKEN = re.compile(r"(?P<number>(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,3}(?![\d.A-Za-z]))?)|"
                    r"(?P<matrix>\\(begin|end)\{(\w+)\})|"
                    r"(?P<command>\\[A-Za-z]+|\\[{}%\\])|(?P<letters>[A-Za-z]+)|(?P<space>\s+)|(?P<sign>.)",
                    re.ASCII | re.DOTALL)


def tokenize(text: str, thousands: bool = True) -> Iterator[Token]:
  """The tokens of an answer. Raises Unreadable at the first character or command that is none."""
  text = "".join(_CHARACTERS.get(c, c) for c in text)
  text = text.replace("<=", "\\le ").replace(">=", "\\ge ").replace("\\degree", "^\\circ ")
  for c in text:
    if not c.isascii() or unicodedata.category(c) == "Cc":
      raise Unreadable(f"the character {c!r}")
  text = _THOUSANDS.sub(lambda m: re.sub(r"\D", "", m[0]), text)
  if thousands:
    text = _COMMAS.sub(lambda m: m[0] if _depth(text[:m.start()]) else m[0].replace(",", ""), text)
  text = _SPACING.sub(" ", _STYLE.sub(" ", text)).strip()
  text = text.removesuffix(".").strip()
  at = 0
  for match in _TEXT.finditer(text):
    before = list(_math(text[at:match.start()]))
    yield from before
    yield from _words(match[1], bool(before) and before[-1].kind in _ENDS)
    at = match.end()
  yield from _math(text[at:])


def _depth(text: str) -> int:
  return sum(text.count(c) for c in "([{") - sum(text.count(c) for c in ")]}")


def _words(text: str, operand: bool) -> Iterator[Token]:
  """The inside of \\text{}: its letters are words, but one alone that is no unit is a letter of the formula."""
  for match in re.finditer(r"[A-Za-z]+|[^A-Za-z]+", text.strip(), re.ASCII):
    word = match[0]
    if not word[0].isalpha():
      yield from _math(word)
    elif len(word) == 1 and not (operand and word in UNITS):
      yield Token("letter", word)
    else:
      yield Token("word", word if word in UNITS else word.lower())


def _math(text: str) -> Iterator[Token]:
  open_bars, operand, spaced, number_end = 0, False, False, -1
  for match in _TOKEN.finditer(text):
    kind, word = match.lastgroup, match[0]
    if kind == "space":
      spaced = True
      continue
    if kind == "number":
      if match.start() == number_end:
        raise Unreadable("a number with two points")
      number_end = match.end()
      tokens = [Token("number", word, spaced)]
    elif kind == "matrix":
      tokens = [Token("command", "\\begin"), Token("word", match[4])] if match[3] == "begin" else [
          Token("end-matrix", match[4])]
    elif kind == "letters":
      tokens = _letters(word, operand)
    elif word in ("|", "\\vert"):
      closes = operand and open_bars > 0
      open_bars += -1 if closes else 1
      tokens = [Token("\\rvert" if closes else "\\lvert", word)]
    else:
      word = _SAME.get(word, word)
      if word not in _SIGNS and not word.startswith("\\"):
        raise Unreadable(f"the character {word!r}")
      tokens = [Token(word if word in _SIGNS else "command", word, spaced)]
    yield from tokens
    spaced, operand = False, tokens[-1].kind in _ENDS or tokens[-1].text in ("\\pi", "\\infty", "\\circ")


def _letters(run: str, operand: bool) -> list[Token]:
  """A run of letters in mathematics: a name, a unit behind a number, letters to multiply, or a word."""
  if run in _PLAIN:
    return [Token("command", _PLAIN[run])]
  if len(run) > 1 and operand and run in UNITS:
    return [Token("word", run)]
  if len(run) > 2 or run.lower() in _SHORT_WORDS:
    return [Token("word", run.lower())]
  return [Token("letter", letter) for letter in run]
