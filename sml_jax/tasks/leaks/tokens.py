"""A teacher's turn as tokens: numbers in every written form, words, operators; and where they stand in the turn."""

from __future__ import annotations

import functools
import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

_MAX_DIGITS = 60  # no text makes the arithmetic slow
_TOKEN = re.compile(
    r"(?P<h>0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+)\b|(?P<n>(?:\d{1,3}(?:(?:,|\{,\}|,\\!|\\,|')\d{3})+(?!\d)"
    r"|\d+)(?:\.\d+)?(?:[eE][+-]?\d{1,3}(?!\w))?|\.\d+)|(?P<w>[A-Za-z]+(?:'[a-z]+)?)|(?P<c>\\[A-Za-z]+|\\.)"
    r"|(?P<p>\n\s*\n|[.;?!](?=[\s\"'*)\]]|$)|[,:])|(?P<o>\*\*|->|[-+*/^=<>!%√{}()\[\]|_&.\n])", re.ASCII)
UNITS = {w: Fraction(i) for i, w in enumerate(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen".split())}
TENS = {w: Fraction(10 * i) for i, w in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(),
    2)} | {
    "fourty": Fraction(40)}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "dozen": 12, "dozens": 12, "k": 1000}
_NAMES = ("third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth").split()
_ORDINALS = {"first": 1, "second": 2} | {w: i for i, w in enumerate(_NAMES, 3)} | {
    w[:-1] + "ieth": int(v) for w, v in TENS.items()} | {"hundredth": 100, "thousandth": 1000}
_PARTS = {"half": 2, "halves": 2, "quarter": 4, "quarters": 4} | {
    w + s: v for w, v in _ORDINALS.items() if v > 2 for s in ("", "s")}
_NUMBER_WORDS = {*UNITS, *TENS, "a", "an", "half"}
_GAP = re.compile("(?<=\\d)[\u2009\u202f\u00a0](?=\\d{3}(?!\\d))")
_SIGNS = {"×": "*", "÷": "/", "·": "*", "⋅": "*", "∙": "*", "−": "-", "–": "-", "⁄": "/", "’": "'", "‘": "'", "“": '"',
          "”": '"', "—": " ; ", "√": "√", "π": " pi ", "→": "->", "≈": "=", "⇒": "->", "∗": "*"}


class Token(NamedTuple):
  """kind: n number, w word (small letters), c LaTeX command, o operator or bracket, p end of a clause."""

  kind: str
  text: str
  start: int
  end: int
  value: Fraction | None = None
  form: str = ""
  """Of a number: digits, words, ordinal or base."""


def plain(text: str) -> tuple[str, list[int] | None]:
  """The text in ASCII, and for each of its characters the place in `text` it came from (None: the same places).

  Full-width, superscript, circled and foreign digits become 0-9, an exponent gets its "^", signs one form each;
  invisible characters go.
  """
  if text.isascii():
    return text, None
  text = _GAP.sub(",", text)
  out: list[str] = []
  places: list[int] = []
  before = ""
  for i, c in enumerate(text):
    if c < "\x80":
      new = c
    else:
      new = _ascii(c, out[-1] if out else "", before)
    before = c
    out.extend(new)
    places.extend([i] * len(new))
  return "".join(out), [*places, len(text)]


def _ascii(c: str, last: str, before: str) -> str:
  if c in _SIGNS:
    return _SIGNS[c]
  category = unicodedata.category(c)
  if category in ("Cf", "Mn", "Me"):
    return ""
  shape = unicodedata.decomposition(c).partition(">")[0]
  if category == "Nd":
    return str(unicodedata.decimal(c))
  new = unicodedata.normalize("NFKC", c).replace("⁄", "/").replace("−", "-")
  if shape in ("<super", "<sub") and new.isdigit():
    same = bool(before) and unicodedata.decomposition(before).startswith(shape)
    return new if same or not (last.isalnum() or last == ")") else ("^" if shape == "<super" else "_") + new
  if shape == "<fraction":
    return f" {new}"
  return "".join(x if x < "\x80" else " " for x in new)


@functools.lru_cache(maxsize=16)
def tokens(text: str) -> tuple[Token, ...]:
  """The tokens of a plain text, its number words and units of money already put together."""
  raw = []
  for m in _TOKEN.finditer(text):
    kind, start, end = m.lastgroup, m.start(), m.end()
    word = m[0]
    if kind == "w":
      raw.append(Token("w", word.lower(), start, end))
    elif kind == "n":
      raw.append(Token("n", word, start, end, _decimal(word), "digits"))
    elif kind == "h":
      raw.append(Token("n", word, start, end, Fraction(int(word[:_MAX_DIGITS], 0)), "base"))
    elif kind == "p":
      raw.append(Token("p", word[0], start, end))
    elif word in ("_", "\n") or (word == "*" and not _times(text, start, end)):
      continue  # markup
    elif word == "**" and not (text[start - 1 : start].isalnum() and text[end : end + 1].isalnum()):
      continue
    else:
      raw.append(Token(kind, word, start, end))
  return tuple(_merged(raw))


def _times(text: str, start: int, end: int) -> bool:
  left, right = text[start - 1 : start], text[end : end + 1]
  return (left == " ") == (right == " ") and bool(left and right) and left not in "\n" and right not in "\n"


def _decimal(text: str) -> Fraction | None:
  text = re.sub(r"[^\d.eE+-]", "", text)
  return Fraction(text) if len(text) <= _MAX_DIGITS else None


def _merged(raw: list[Token]) -> list[Token]:
  out, i = [], 0
  while i < len(raw):
    t = raw[i]
    if (t.kind == "n" and t.value is not None) or (t.kind == "w" and (t.text in _NUMBER_WORDS or t.text in _ORDINALS)):
      value, j, form = _number(raw, i)
      if value is not None:
        last = raw[j - 1]
        out.append(Token("n", t.text, t.start, last.end, value, form))
        i = j
        continue
    out.append(t)
    i += 1
  return _money(out)


def _number(raw: list[Token], i: int) -> tuple[Fraction | None, int, str]:
  """The longest number that starts at token i: value, the token behind it, form."""
  total, current, last, scale, j = Fraction(0), None, "", 10**30, i
  form = raw[i].form or "words"
  first = raw[i].text
  if raw[i].kind == "w" and first in ("a", "an"):
    nxt = _word(raw, i + 1)
    if nxt not in _SCALES and not (nxt in _PARTS and not nxt.endswith("s")):
      return None, i, ""
    current, last, j = Fraction(1), "one", i + 1
  elif first == "half":
    if [_word(raw, i + 1), _word(raw, i + 2)] == ["a", "dozen"]:
      return Fraction(6), i + 3, "words"
    return Fraction(1, 2), i + 1, "words"
  while j < len(raw):
    k = j
    if last and raw[k].text == "-" and raw[k].start == raw[k - 1].end and k + 1 < len(raw) and (
        raw[k + 1].start == raw[k].end and raw[k + 1].kind == "w"):
      k += 1
    if last == "scale" and raw[k].text == "and" and k + 1 < len(raw) and (
        raw[k + 1].text in UNITS or raw[k + 1].text in TENS or raw[k + 1].kind == "n"):
      k += 1
    t = raw[k]
    w = t.text
    if t.kind == "n" and t.form == "digits":
      if last not in ("", "scale") or (last and (t.value is None or t.value >= scale)):
        break
      current, last = (current or 0) + t.value, "digits"
      glued = _glued(raw, k)
      if glued in ("st", "nd", "rd", "th"):
        return total + current, k + 2, "ordinal"
    elif t.kind != "w":
      if t.kind == "n" and not last:
        return t.value, k + 1, t.form
      break
    elif (w in UNITS and last in ("", "scale")) or (last == "tens" and 0 < UNITS.get(w, 0) < 10):
      current, last = (current or 0) + UNITS[w], "unit"
    elif w in TENS and last in ("", "scale"):
      current, last = (current or 0) + TENS[w], "tens"
    elif w in _SCALES and (w != "k" or t.start == raw[k - 1].end) and current is not None and (
        last != "scale" or w not in ("hundred",)):
      if w == "hundred":
        current, scale = current * 100, 100
      else:
        total, current, scale = total + current * _SCALES[w], None, _SCALES[w]
      last = "scale"
      if w.startswith("dozen"):
        j = k + 1
        break
    elif w in _PARTS and last in ("unit", "digits", "one") and (w.endswith("s")
        or current == 1) and current is not None:
      return total + current / _PARTS[w], k + 1, "words"
    elif w in _ORDINALS and (last in ("", "scale") or (last == "tens" and _ORDINALS[w] < 10)):
      return total + (current or 0) + _ORDINALS[w], k + 1, "ordinal"
    else:
      break
    j = k + 1
  if not last:
    return None, i, ""
  if last != "digits" or total:
    form = "words"
  value = total + (current or 0)
  value, j = _fraction_behind(raw, j, value)
  if value.denominator != 1 and _word(raw, j) == "dozen":
    return value * 12, j + 1, form
  return value, j, form


def _fraction_behind(raw: list[Token], j: int, value: Fraction) -> tuple[Fraction, int]:
  """Adds "and a half", " 3/4" or "point five" that stand behind a whole number."""
  if value.denominator != 1 or j >= len(raw):
    return value, j
  last = min(j + 7, len(raw))
  words = [_word(raw, k) for k in range(j, last) if raw[k].text != "-" or raw[k].end != raw[min(k + 1, last - 1)].start]
  skip = sum(raw[k].text == "-" for k in range(j, min(j + 5, len(raw))) if raw[k].kind == "o")
  if words[:1] == ["and"] and len(words) > 1:
    if words[1] in ("a", "an", "one") and len(words) > 2 and words[2] in _PARTS:
      return value + Fraction(1, _PARTS[words[2]]), j + 3 + (skip if raw[j].text == "-" else 0)
    if words[1] == "half":
      return value + Fraction(1, 2), j + 2
    if len(words) > 2 and words[1] in UNITS and words[2] in _PARTS and words[2].endswith("s"):
      return value + Fraction(UNITS[words[1]], _PARTS[words[2]]), j + 3
  if words[:1] == ["point"]:
    digits = []
    for w in words[1:]:
      if w not in UNITS or UNITS[w] > 9:
        break
      digits.append(str(UNITS[w]))
    if digits:
      return Fraction(f"{value}.{''.join(digits)}"), j + 1 + len(digits)
  if j + 2 < len(raw) and raw[j].kind == raw[j + 2].kind == "n" and raw[j + 1].text == "/":
    above, below = raw[j].value, raw[j + 2].value
    if above and below and above.denominator == below.denominator == 1 and above < below and (
        raw[j].end == raw[j + 1].start and raw[j + 1].end == raw[j + 2].start and raw[j].start == raw[j - 1].end + 1):
      return value + above / below, j + 3
  return value, j


def _money(toks: list[Token]) -> list[Token]:
  """42 dollars and 50 cents is one number."""
  out: list[Token] = []
  for t in toks:
    if t.text in ("cents", "cent") and len(out) >= 3 and out[-1].kind == "n" and out[-1].value is not None:
      k = -3 if out[-2].text == "and" else -2
      if len(out) >= 1 - k and out[k].text in ("dollars", "dollar") and out[k - 1].kind == "n" and out[k - 1].value:
        whole, cents = out[k - 1], out[-1]
        del out[k - 1 :]
        out.append(Token("n", whole.text, whole.start, t.end, whole.value + cents.value / 100, "words"))
        continue
    out.append(t)
  return out


def _word(raw: list[Token], i: int) -> str:
  return raw[i].text if i < len(raw) and raw[i].kind == "w" else ""


def _glued(raw: list[Token], i: int) -> str:
  return raw[i + 1].text if i + 1 < len(raw) and raw[i + 1].start == raw[i].end else ""
