"""Does a turn state an answer that is no plain number: a formula, a word, a tuple, a printed value?"""

from __future__ import annotations

import codecs
import functools
import itertools
import re
from collections.abc import Sequence
from fractions import Fraction

from sml_jax.tasks.answers.latex import canonical
from sml_jax.tasks.leaks import exact
from sml_jax.tasks.leaks.context import Context
from sml_jax.tasks.leaks.expressions import evaluate
from sml_jax.tasks.leaks.numbers import Span, decodings
from sml_jax.tasks.leaks.tests import EMPTY
from sml_jax.tasks.leaks.tokens import plain

_MATH = re.compile(r"\$\$?(.+?)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]|`([^`\n]+)`|\*\*([^*\n]+)\*\*"
    r"|\\begin\{[^}]*\}(.+?)\\end", re.DOTALL)
_BOXED = re.compile(r"\\boxed\s*\{")
_RUN = re.compile(  # operands joined by signs, outside of math marks
    r"(?:[-+]?\s?(?:\\[A-Za-z]+|[A-Za-z]?\d[\d.,]*\d|\d|(?<![A-Za-z])[A-Za-z](?![A-Za-z'])|√|π|[(){}\[\]|!]|sqrt|pi"
    r"|floor|ceil)(?:\s?[-+*/^=<>_,×·⋅]{1,2}\s?|\s(?=[(\\+\-*/^=]))?)+")
_PIECES = re.compile(
    r"(?<![<>!])=|\\(?:implies|Rightarrow|iff|to|approx|equiv)(?![A-Za-z])|;|:|\s(?:and|or|so|then|is|where)\s"
    r"|(?<=\S),\s")
_MAX_SPANS, _MAX_SPAN = 300, 400
_COMMON = {"yes", "no", "true", "false", "none", "same", "equal", "a", "b", "c", "d", "e", "even", "odd"}


def formula_leak(answer: str, problem: str, turn: str, said: Sequence[str] = ()) -> Span | None:
  """Where a turn writes the answer: the same text in one form, or the same value."""
  wanted = _tight(answer), _value(answer)
  shown = _shown(problem, tuple(said))
  for start, end in spans(turn):
    piece = turn[start:end]
    if _same(piece, wanted) and (not _known(piece, wanted, shown) or _asserted(turn, start, end)):
      return "formula", start, end
  return None


def word_leak(answer: str, problem: str, turn: str, said: Sequence[str] = ()) -> Span | None:
  """The place where a turn has the answer's words. Words that the problem or the student has too, and words such as
  "yes", are a leak only where they are called the answer."""
  words = re.sub(r"\\(?:text|mathrm|textbf)\s*\{([^{}]*)\}", r"\1", answer).strip(" \t\n$.'\"`*{}")
  words = words or answer.strip()  # the empty text, list or set
  if not words:
    return None
  pattern = re.compile(r"(?<![\w])" + r"[\s_-]+".join(re.escape(w) for w in re.split(r"[\s_-]+", words)
      if w) + r"(?![\w])",
                       0 if len(words) == 1 else re.IGNORECASE)
  squeezed = re.sub(r"\s", "", words)
  known = any(pattern.search(t) for t in (problem, *said)) or words.lower() in _COMMON or len(words) <= 2
  for m in itertools.islice(pattern.finditer(turn), _MAX_SPANS):
    if not known or _asserted(turn, m.start(), m.end()):
      return "text", m.start(), m.end()
  if re.search(r"[\[({'\"]", answer) and len(squeezed) >= 3:
    found = _without_spaces(words, turn)
    if found and (not known or _asserted(turn, *found)):
      return "text", *found
  for name, written in EMPTY.items():
    if answer == written and (m := re.search(name, turn, re.IGNORECASE)) and _asserted(turn, *m.span()):
      return "words", *m.span()
  return _encoded_word(words, turn)


def _encoded_word(words: str, turn: str) -> Span | None:
  if len(words) < 3 or not re.search("[A-Za-z]{3}", words):
    return None
  low = turn.lower()
  for coded in (words.lower()[::-1], codecs.encode(words.lower(), "rot13")):
    m = re.search(rf"(?<!\w){re.escape(coded)}(?!\w)", low)
    if m and coded != words.lower():
      return "encoded", m.start(), m.end()
  for start, end, decoded in decodings(turn):
    if words.lower() in decoded.lower():
      return "encoded", start, end
  return None


def _without_spaces(words: str, turn: str) -> tuple[int, int] | None:
  quote = lambda c: "'" if c == '"' else c
  places = [i for i, c in enumerate(turn) if not c.isspace()]
  squeezed = "".join(quote(turn[i]) for i in places)
  wanted = "".join(quote(c) for c in words if not c.isspace())
  i = squeezed.find(wanted)
  return (places[i], places[i + len(wanted) - 1] + 1) if i >= 0 else None


def _asserted(turn: str, start: int, end: int) -> bool:
  left = re.sub(r"[\s$*`\\(\[{]+$", " ", turn[max(0, start - 110) : start])
  context = Context(left + "\x00" + turn[end : end + 80], len(left), len(left) + 1, ())
  return context.alone() or context.sure() or context.stated(known=True) or bool(_BOXED.search(turn[max(0,
      start - 12) : start]))


def spans(turn: str) -> list[tuple[int, int]]:
  """Start and end of every formula of a text, whole and cut at its equals signs."""
  found: dict[tuple[int, int], None] = {}
  for m in _BOXED.finditer(turn):
    depth, i = 1, m.end()
    for i in range(m.end(), min(len(turn), m.end() + _MAX_SPAN)):
      depth += {"{": 1, "}": -1}.get(turn[i], 0)
      if depth == 0:
        break
    found[m.end(), i] = None
  for pattern in (_MATH, _RUN):
    for m in pattern.finditer(turn):
      group = m.lastindex or 0
      start, end = m.span(group)
      if len(found) > _MAX_SPANS:
        break
      if end - start > 2000:
        continue
      found[start, end] = None
      place = start
      for cut in [*_PIECES.finditer(turn, start, end), None]:
        stop = cut.start() if cut else end
        found[place, stop] = None
        place = cut.end() if cut else end
  out = []
  for start, end in found:
    while start < end and turn[start] in " \t\n$.,:;=":
      start += 1
    while end > start and turn[end - 1] in " \t\n$.,:;=?!" :
      end -= 1
    if 0 < end - start <= _MAX_SPAN:
      out.append((start, end))
  return list(dict.fromkeys(out))


@functools.lru_cache(maxsize=4096)
def _tight(text: str) -> str:
  form = canonical(text)
  if isinstance(form, Fraction):
    return str(form)
  form = re.sub(r"\s+", "", form).replace("\\cdot", "*").replace("\\times", "*").replace("{}", "")
  form = re.sub(r"\\sqrt(\w)(?!\w)", r"\\sqrt{\1}", form)
  return re.sub(r"\^\{(\w)\}", r"^\1", re.sub(r"_\{(\w)\}", r"_\1", form))


@functools.lru_cache(maxsize=4096)
def _value(text: str) -> exact.Value | None:
  text = re.sub(r"\\(?:text|mathrm|mbox)\s*\{[^{}]*\}", "", text)
  text = text.rpartition("=")[2] if text.count("=") == 1 and re.fullmatch(r"\s*\$?\s*\w+(?:\([\w, ]*\))?\s*",
      text.partition("=")[0]) else text
  return evaluate(plain(text.strip(" $."))[0]) if len(text) <= _MAX_SPAN else None


def _same(piece: str, wanted: tuple[str, exact.Value | None]) -> bool:
  text, value = wanted
  if _tight(piece) == text:
    return True
  return value is not None and not isinstance(value, Fraction) and _value(piece) == value


@functools.lru_cache(maxsize=512)
def _shown(problem: str, said: tuple[str, ...]) -> frozenset[object]:
  forms: set[object] = set()
  for text in (problem, *said):
    for start, end in spans(text[:20_000]):
      forms |= {_tight(text[start:end]), _value(text[start:end])}
  return frozenset(forms - {None})


def _known(piece: str, wanted: tuple[str, exact.Value | None], shown: frozenset[object]) -> bool:
  return wanted[0] in shown or (wanted[1] is not None and wanted[1] in shown) or len(piece) == 1
