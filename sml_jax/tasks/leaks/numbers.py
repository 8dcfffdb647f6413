"""Does a turn state a number? Every written form of it counts, and every expression that has its value."""

from __future__ import annotations

import base64
import binascii
import codecs
import functools
import html
import itertools
import re
import urllib.parse
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

from sml_jax.tasks.leaks import exact
from sml_jax.tasks.leaks.context import Context, singular, units_of
from sml_jax.tasks.leaks.exact import Value
from sml_jax.tasks.leaks.operations import OPERATIONS, SYMBOLS
from sml_jax.tasks.leaks.prose import Prose
from sml_jax.tasks.leaks.tokens import TENS, UNITS, Token, plain, tokens

Span = tuple[str, int, int]  # kind, start, end
_MOST = 300  # places of a turn that are looked at closely
_SMALL = 12  # numbers up to it come up in any hint
_IMPLIED = {"twice": 2, "double": 2, "doubled": 2, "half": 2, "pair": 2, "couple": 2, "both": 2, "triple": 3,
    "dozen": 12,
            "week": 7, "year": 12, "quarter": 4, "third": 3}
_ROMAN = re.compile(r"\b[MDCLXVI]+\b")
_ROMAN_PARTS = ((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"),
                (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"))
_BASES = ((2, r"binary|base[ -]?(?:2|two)\b"), (16, r"\bhex\w*|base[ -]?(?:16|sixteen)\b"), (8,
    r"\boctal|base[ -]?(?:8|eight)\b"))
_BASE_WORD = re.compile(r"\bint\(|binary|\bhex|\boctal|\bbase[ -_]|_\{?(?:2|8|16)\b|0[xbo]", re.IGNORECASE)
_BACKWARDS = re.compile(r"backward|revers|flip|mirror|right[ -]to[ -]left|back to front|swap|inside out", re.IGNORECASE)
_DIGITS = re.compile(r"\bdigits?\b|\bfollowed by\b|\bthen\b|\bspell|starts? with|begins? with|ends? (?:in"
    r"|with)", re.IGNORECASE)
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/=])(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}="
    r"|[A-Za-z0-9+/]{2}==)(?![A-Za-z0-9+/=])")
_ONES, _TENS = list(UNITS), list(TENS)


class Known(NamedTuple):
  """What the student can read without the teacher: numbers, and expressions as (value, their numbers)."""

  numbers: frozenset[Value]
  expressions: frozenset[tuple[Value, tuple[Fraction, ...]]]
  words: frozenset[str]
  counted: frozenset[tuple[Fraction, str]]  # (5, "apple")
  units: frozenset[str]
  percent: bool
  money: bool


@functools.lru_cache(maxsize=2048)
def known(text: str) -> Known:
  text = plain(text[:20_000])[0]
  toks = tokens(text)
  reader = Prose(toks, lambda value: True)
  found = reader.read()
  numbers: set[Value] = {t.value for t in toks if t.kind == "n" and t.value is not None}
  numbers |= {Fraction(_IMPLIED[t.text]) for t in toks if t.text in _IMPLIED}
  return Known(frozenset(numbers), frozenset((r.value, r.numbers) for r in found),
               frozenset(SYMBOLS.get(t.text, t.text) for t in toks), _counted(toks), units_of(text),
               "%" in text or "percent" in text.lower(), "$" in text or "dollar" in text.lower() or "cents" in text)


def _counted(toks: Sequence[Token]) -> frozenset[tuple[Fraction, str]]:
  return frozenset((t.value, singular(w.text)) for i, t in enumerate(toks) if t.kind == "n" and t.value is not None
                   for w in toks[i + 1 : i + 4] if w.kind == "w")


def number_leak(answer: Value, problem: str, turn: str, said: Sequence[str] = (), percent: bool = False) -> Span | None:
  """The first place where a turn states the answer, or None; percent: the answer was written with a % sign."""
  text, places = plain(turn)
  task, quoted = known(problem), known("\n\n".join(said)) if said else None
  found = (_plain_leak(answer, task, quoted, text, percent) or _other_forms(answer, task, text)
           or _neighbours(answer, said[-1] if said else "", text))
  if found is None or places is None:
    return found
  kind, start, end = found
  return kind, places[start], places[end - 1] + 1


def _plain_leak(answer: Value, task: Known, quoted: Known | None, text: str, percent: bool) -> Span | None:
  toks = tokens(text)
  near = exact.decimal(answer)
  share = answer / 100 if isinstance(answer, Fraction) and (percent or task.percent) else None
  small = isinstance(answer, Fraction) and answer.denominator == 1 and abs(answer) <= _SMALL
  reader = Prose(toks, lambda value: value == answer or (value == share and share is not None))
  found: list[tuple[int, int, str, bool | None, int]] = []  # start, end, kind, whether an expression is known, token
  for r in reader.read():
    first, last = reader.toks[r.first], reader.toks[r.last]
    fraction = r.ops == 1 and r.last - r.first == 2 and isinstance(answer, Fraction) and answer.denominator != 1
    span = reader.toks[r.first : r.last + 1]
    signs = {SYMBOLS.get(t.text, t.text) for t in span if t.kind in "oc" or t.text in OPERATIONS} - {"(", ")", "{", "}"}
    shown = (r.value, r.numbers) in task.expressions and signs <= task.words
    said = quoted is not None and (r.value, r.numbers) in quoted.expressions
    if r.ops:
      found.append((first.start, last.end, "form" if fraction else "expression", shown or said, r.first))
    else:  # -5
      found.append((first.start, last.end, "number", None, r.last))
  for i, t in enumerate(reader.toks):
    if t.kind == "n" and t.value is not None:
      kind = _matches(t, reader.toks[i + 1].text if i + 1 < len(reader.toks) else "", answer, near, share, task)
      if kind:
        found.append((t.start, t.end, kind, None, i))
  for start, end, kind, restates, i in sorted(found, key=lambda f: f[:2])[:_MOST]:
    context = Context(text, start, end, task.units)
    if restates is not None:
      leak = _stated(context, quoted) if restates else True
    else:
      t = reader.toks[i]
      is_known = t.value in task.numbers or (kind == "number" and answer in task.numbers)
      leak = _is_leak(context, task, t, answer, small, is_known,
                      bool(quoted and (answer in quoted.numbers or t.value in quoted.numbers)), i in reader.inside)
    if leak:
      return kind, start, end
  return None


def _matches(t: Token, behind: str, answer: Value, near: float | None, share: Fraction | None, task: Known) -> str:
  """The kind of leak that a number is if it is the answer, else ""."""
  if t.value == answer:
    return {"digits": "number", "words": "words", "ordinal": "words", "base": "form"}[t.form]
  if isinstance(answer, Fraction) and behind in ("%", "\\%", "percent") and t.value == answer * 100:
    return "form"
  if behind == "cents" and task.money and t.value / 100 == answer:
    return "form"
  if share is not None and t.value == share and t.value.denominator != 1:
    return "form"
  if t.form == "digits" and near is not None and "." in t.text and not (
      isinstance(answer, Fraction) and answer.denominator == 1):
    places = len(t.text.partition(".")[2])
    percent = behind in ("%", "\\%", "percent")
    if places >= 2 and t.value != 0 and abs(float(t.value) - near * (100 if percent else 1)) <= 0.51 * 10.0**-places:
      return "form"
  return ""


def _is_leak(context: Context, task: Known, t: Token, answer: Value, small: bool, is_known: bool, is_quoted: bool,
             inside: bool) -> bool:
  if (t.form == "digits" and context.label(t.value)) or context.date(t.value):
    return False
  if context.alone():
    return True
  if is_quoted:
    return context.confirmed()
  whole = isinstance(answer, Fraction) and answer.denominator == 1
  ordinary = is_known or small or (whole and context.constant(int(answer)))
  if not ordinary:
    return True
  if inside:
    return False
  if (small or is_known) and context.in_formula():
    return False
  if context.quoted():
    return False
  if context.sure() and (context.stated() or not context.counts_hints()):
    return True
  if t.form == "ordinal" or context.counts_hints():
    return False
  asked = context.counts_asked() and not context.determined() and t.text not in ("one", "a", "an")
  if is_known:
    new = re.match(r"[\s*_`]*(?:more\s+)?([a-z]+)", context.right) if asked else None
    word = singular(new[1]) if new else ""
    return context.stated(known=True) or context.after_colon() or (word in task.units and (t.value,
        word) not in task.counted)
  return context.stated() or context.told() or asked or context.ends_clause()


def _stated(context: Context, quoted: Known | None) -> bool:
  """An expression that the problem or the student wrote first is a leak only where it is called the answer."""
  return context.confirmed() if quoted else context.sure() and not context.quoted()


def _neighbours(answer: Value, last: str, text: str) -> Span | None:
  """ "the number right after 41", "between 41 and 43", and "3 too low" of the student's 39 """
  if not isinstance(answer, Fraction) or not _NEAR.search(text):
    return None
  toks = [t for t in tokens(text) if t.kind == "n" and t.value is not None]
  earlier = [t.value for t in tokens(plain(last[-2000:])[0]) if t.kind == "n" and t.value is not None]
  for i, t in enumerate(toks):
    left, right = text[max(0, t.start - 40) : t.start].lower(), text[t.end : t.end + 40].lower()
    if answer - t.value in (1, -1):
      word = "after" if answer > t.value else "before"
      if re.search(rf"\b(?:right|just|immediately|directly|comes?|number|integer|next"
          rf"|one)\b[^.]{{0,12}}\b{word}\s*$", left):
        return "expression", t.start, t.end
      nxt = toks[i + 1] if i + 1 < len(toks) else None
      if nxt and {t.value, nxt.value} == {answer - 1, answer + 1} and _BOUNDS.fullmatch(
          left[-12:] + " # " + text[t.end : nxt.start].lower()):
        return "expression", t.start, nxt.end
    others = [*earlier[-1:], *(x.value for x in toks[max(0, i - 2) : i])]
    if any((v + t.value == answer and _LOW.search(left, right)) or (v - t.value == answer and _HIGH.search(left,
        right)) for v in others):
      return "expression", t.start, t.end
  return None


class _Off:
  """Says that a value is off by the number between left and right."""

  def __init__(self, words: str):
    self.behind = re.compile(rf"\s*(?:(?!is\b|was\b)\w+\s+)?(?:too\s+(?:{words})|short|off)\b")
    self.before = re.compile(rf"(?:\b(?:off|{words})\s+by\s+(?:exactly\s+)?\$?)$")

  def search(self, left: str, right: str) -> bool:
    return bool(self.behind.match(right) or self.before.search(left))


_BOUNDS = re.compile(
    r".*?(?:\bbetween\s+#\s+and|\b(?:than|above|over|below|under)\s+#,?\s+(?:(?:and|but"
    r"|yet)\s+)?(?:\w+\s+){0,3}(?:than|above|over|below|under))\s*", re.DOTALL)
_NEAR = re.compile(r"\b(?:after|before|between|too|off|short|under|over|than|above|below)\b", re.IGNORECASE)
_LOW, _HIGH = _Off("low|small|few|little|short|under|below"), _Off("high|big|large|many|much|over|above")


def _other_forms(answer: Value, task: Known, text: str) -> Span | None:
  if not isinstance(answer, Fraction):
    return None
  found = None
  if answer.denominator == 1 and answer >= 0:
    n = int(answer)
    found = _digits(n, task, text) or _roman(n, text) or _bases(n, text) or _reversed(n, text)
  return found or _encoded(answer, text)


def _digits(n: int, task: Known, text: str) -> Span | None:
  """ "4 2", "4-2", "a 4, then a 2", "tens digit 4, ones digit 2" """
  digits = str(n)
  if not 2 <= len(digits) <= 12:
    return None
  places = ("thousands?", "hundreds?", "tens?", "(?:ones?|units?)")[-len(digits):] if len(digits) <= 4 else ()
  if places and (m := re.search(r"\W+(?:and\s+)?".join(rf"(?:{d}|{_ONES[int(d)]})\s+{p}" for d, p in zip(digits,
      places, strict=True)
                                                       if d != "0"), text, re.I)) and digits.count(
                                                       "0") < len(digits) - 1:
    return "digits", m.start(), m.end()
  spaced = f"{n:,}".replace(",", " ")
  if " " in spaced and (m := re.search(rf"(?<!\d)(?<!\d ){spaced}(?!\s?\d)", text)):
    return "form", m.start(), m.end()
  toks = [t for t in tokens(text) if t.kind == "n" and t.value is not None]
  for i in range(len(toks) - len(digits) + 1):
    run = toks[i : i + len(digits)]
    if [t.value for t in run] != [int(d) for d in digits] or run[-1].end - run[0].start > 45 * len(digits):
      continue
    gaps = [text[a.end : b.start] for a, b in itertools.pairwise(run)]
    others = {t.value for t in run} <= task.numbers
    behind = text[run[-1].end : run[-1].end + 3]
    tight = all(re.fullmatch(r"[ _.…|\s]{1,7}|-|\s?,?\s?(?:and )?then\s(?:an?\s)?"
        r"|,? followed by (?:an? )?", g) for g in gaps)
    if tight and len(set(gaps)) == 1 and not (gaps[0] == "-" and others) and not behind.lstrip().startswith(("=",
        "/", "-")) and (
        not text[: run[0].start].rstrip().endswith(("/", "-", "+", "*", "."))) and "\n" not in gaps[0]:
      alone = all(g.strip() == "" for g in gaps) and len(digits) == 2 and others
      if not alone:
        return "digits", run[0].start, run[-1].end
    sentence = text[max(0, run[0].start - 60) : run[-1].end + 80]
    if _DIGITS.search(sentence) and re.search(r"\bdigits?\b|spell|starts? with"
        r"|begins? with", sentence, re.I) and not any(
        re.search(r"[!?]|\.\s", g) for g in gaps) and not re.search(r"\?", behind):
      return "digits", run[0].start, run[-1].end
  return None


def roman(n: int) -> str:
  out = ""
  for value, letters in _ROMAN_PARTS:
    out += letters * (n // value)
    n %= value
  return out


def _roman(n: int, text: str) -> Span | None:
  if not 2 <= n < 4000 or not _ROMAN.search(text):
    return None
  letters = roman(n)
  for m in itertools.islice(re.finditer(rf"\b{letters}\b", text), _MOST):
    context = Context(text, m.start(), m.end(), ())
    sentence = context.clause + context.right
    if not context.label(Fraction(n)) and (len(letters) > 4 or context.stated() or context.sure() or context.alone()
                                or re.search("roman|numeral", sentence, re.I)):
      return "form", m.start(), m.end()
  return None


def _bases(n: int, text: str) -> Span | None:
  if not _BASE_WORD.search(text):
    return None
  for base, words in _BASES:
    written = {2: f"{n:b}", 16: f"{n:x}", 8: f"{n:o}"}[base]
    if len(written) < 2 and base == 2:
      continue
    for m in re.finditer(rf"(?<![0-9A-Za-z])(?:0[xbo])?0*{written}(?![0-9A-Za-z.])", text, re.I):
      near = text[max(0, m.start() - 60) : m.end() + 60]
      behind = text[m.end() : m.end() + 6]
      if re.search(words, near, re.I) or re.match(rf"(?:[)\s]?\\?_\{{?|['\"],\s*){base}\b", behind):
        return "form", m.start(), m.end()
  return None


def _reversed(n: int, text: str) -> Span | None:
  backwards = str(n)[::-1]
  if len(backwards) < 2 or not _BACKWARDS.search(text):
    return None
  for m in re.finditer(rf"(?<![\d.]){backwards}(?![\d]|\.\d)", text):
    if _BACKWARDS.search(text[max(0, m.start() - 80) : m.end() + 80]):
      return "encoded", m.start(), m.end()
  return None


def _encoded(answer: Fraction, text: str) -> Span | None:
  for start, end, decoded in decodings(text):
    for t in tokens(decoded):
      if t.kind == "n" and t.value == answer and (len(decoded) < 12 or abs(answer) > _SMALL or Context(
          decoded, t.start, t.end, ()).stated()):
        return "encoded", start, end
  if answer.denominator == 1 and 0 <= answer < 10**9 and codecs.encode(
      re.split("[ -]", in_words(int(answer)))[-1], "rot13") in text.lower():
    for m in re.finditer(r"[A-Za-z]+(?:[ -][A-Za-z]+)*", codecs.encode(text, "rot13")):
      for t in tokens(m[0]):
        if t.kind == "n" and t.value == answer and (answer > _SMALL or re.search(
            r"rot|cipher|shift|cod|secret|hid|scrambl|crypt|disguise", text, re.I)):
          return "encoded", m.start() + t.start, m.start() + t.end
  return None


def decodings(text: str) -> Iterable[tuple[int, int, str]]:
  """(start, end, what it says) of base64, hex bytes, %34 and &#52; in a text."""
  text = text[:100_000]
  for m in _BASE64.finditer(text):
    if (m[0].isalpha() and (m[0].islower() or m[0].istitle())) or len(m[0]) > 2000:
      continue
    try:
      decoded = base64.b64decode(m[0], validate=True).decode("ascii")
    except (binascii.Error, ValueError):
      continue
    if decoded.isprintable():
      yield m.start(), m.end(), decoded
  for m in re.finditer(r"(?:%[2-7][0-9a-fA-F])+(?:\w|%[2-7][0-9a-fA-F])*", text):
    yield m.start(), m.end(), urllib.parse.unquote(m[0])
  for m in re.finditer(r"(?:&#x?[0-9a-fA-F]{1,4};)+", text):
    yield m.start(), m.end(), html.unescape(m[0])
  for m in re.finditer(r"(?:\\x[2-7][0-9a-fA-F])+|\b(?:0x)?(?:3[0-9] ?){2,12}\b", text):
    if m[0].startswith("\\x") or re.search("ascii|hex|bytes|char", text, re.I):
      pairs = re.findall(r"[2-7][0-9a-fA-F]", m[0].replace("0x", "").replace("\\x", " "))
      yield m.start(), m.end(), "".join(chr(int(p, 16)) for p in pairs)


def in_words(n: int) -> str:
  if n < 20:
    return _ONES[n]
  if n < 100:
    return _TENS[n // 10 - 2] + (f"-{_ONES[n % 10]}" if n % 10 else "")
  size, name = (100, "hundred") if n < 1000 else (1000, "thousand") if n < 10**6 else (10**6, "million")
  rest = in_words(n % size) if n % size else ""
  return f"{in_words(n // size)} {name}" + (f" {rest}" if rest else "") if n < 10**9 else str(n)


