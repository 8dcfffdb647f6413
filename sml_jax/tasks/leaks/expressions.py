r"""The values that a turn spells out: `6 * 7`, `\frac{84}{2}`, "six times seven", "add 40 and 2", "half of 84".

A recursive descent over tokens with exact values. Units and other words between a number and its operator are skipped
("6 boxes times the 7 pens"). Depth, chains and gaps have limits, so the time grows with the length of the turn alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

from sml_jax.tasks.leaks import exact, operations
from sml_jax.tasks.leaks.exact import Value
from sml_jax.tasks.leaks.tokens import Token, tokens

_DEPTH, _CHAIN, _MOST = 16, 40, 60


class Reading(NamedTuple):
  """A value, and which tokens spell it; ops is 0 for a bare number; numbers are those in it, sorted."""

  value: Value
  first: int
  last: int
  ops: int
  numbers: tuple[Fraction, ...]


class Part(NamedTuple):
  """A value up to token `end`, of so many operations; share: 1/5 if it is a bare "20%"."""

  value: Value
  end: int
  ops: int
  share: Fraction | None = None


def evaluate(text: str) -> Value | None:
  """The exact value of a whole formula ("2n+1", r"\\frac{3}{4}"), or None: not read, or too big."""
  toks = tokens(text)
  if len(toks) > 200:
    return None
  reader = Reader(toks, None, letters=True)
  part = reader.expression(0, 0)
  return part.value if part and part.end == len(reader.toks) else None


def applied(op: str, left: Part, right: Part) -> Value | None:
  """left op right; 50 - 20% is 40."""
  if right.share and left.share is None and op in "+-":
    return exact.multiply(left.value, 1 + right.share if op == "+" else 1 - right.share)
  return operations.apply(op, left.value, right.value)


class Reader:
  """Reads expressions from tokens. `wanted(value)` says which values are kept; letters: x and n are values too."""

  def __init__(self, toks: Sequence[Token], wanted: Callable[[Value], bool] | None, letters: bool = False):
    self.toks: list[Token] = []
    for t in toks:
      if t.text == ")" and not letters and (start := self._aside()):
        del self.toks[start:]  # "30 (April) + 12 (May)"
      elif t.text not in operations.DROPPED:
        self.toks.append(t)
    self.wanted, self.letters = wanted, letters
    self.found: list[Reading] = []

  def expression(self, i: int, depth: int, level: int = 1) -> Part | None:
    """From token i: the longest chain of operators of this level or a tighter one."""
    if depth > _DEPTH:
      return None
    left = self.expression(i, depth + 1, level + 1) if level < 3 else self._factor(i, depth + 1)
    for _ in range(_CHAIN):
      if left is None:
        return None
      op, k = self._operator(left.end, left)
      if (op and operations.LEVEL[op] != level) or not op:
        k = left.end if level == 2 and self._glued(left.end) else 0
        op = "*" if k else ""
      if not op:
        break
      k = self.skip(k, 4)
      right = self.expression(k, depth + 1, level + 1) if level < 3 else self._factor(k, depth + 1, behind=True)
      value = applied(op, left, right) if right else None
      if value is None:
        break
      left = self.reduced(Part(value, right.end, left.ops + right.ops + 1), i)
    return left

  def reduced(self, part: Part, first: int) -> Part:
    if self.wanted and len(self.found) < _MOST and self.wanted(part.value):
      numbers = sorted(t.value for t in self.toks[first : min(part.end, first + 60)] if t.kind == "n"
          and t.value is not None)
      self.found.append(Reading(part.value, first, part.end - 1, part.ops, tuple(numbers)))
    return part

  def _factor(self, i: int, depth: int, behind: bool = False) -> Part | None:
    part = self._primary(i, depth, behind)
    while part and part.end < len(self.toks):
      t = self.toks[part.end]
      value = None
      if t.kind == "w" and t.text in operations.BEHIND:
        value = exact.multiply(part.value, Fraction(operations.BEHIND[t.text]))
      elif t.text == "times" and self.text(part.end + 1) == "itself":
        part, value = part._replace(end=part.end + 1), exact.multiply(part.value, part.value)
      elif t.text in ("squared", "cubed"):
        value = exact.power(part.value, Fraction(2 if t.text == "squared" else 3))
      elif t.text == "!" and t.start == self.toks[part.end - 1].end:
        value = exact.factorial(part.value)
        if not self.letters and value is not None:  # "It is 5!" may be just loud
          self.reduced(Part(value, part.end + 1, part.ops + 1), i)
          return part
      elif t.text in ("^", "**") and self.text(part.end + 1) in ("\\circ", "{") and "\\circ" in (
          self.text(part.end + 1), self.text(part.end + 2)):
        return Part(part.value, part.end + (2 if self.text(part.end + 1) == "\\circ" else 4), part.ops)
      if value is None:
        break
      part = self.reduced(Part(value, part.end + 1, part.ops + 1), i)
    return part

  def _primary(self, i: int, depth: int, behind: bool) -> Part | None:
    if i >= len(self.toks) or depth > _DEPTH:
      return None
    t = self.toks[i]
    if t.kind == "n":
      return self._number(i, behind)
    if t.text in ("-", "negative", "minus"):
      if i + 1 < len(self.toks) and not self.letters and (
          self.toks[i + 1].start != t.end if t.text == "-" else self.toks[i + 1].kind != "n"):
        return None
      part = self.expression(i + 1, depth + 1, 3)
      return part and self.reduced(Part(exact.multiply(part.value, Fraction(-1)), part.end, part.ops), i)
    if t.text in ("(", "{"):
      part = self.expression(i + 1, depth + 1)
      closed = part and self.text(part.end) == {"(": ")", "{": "}"}[t.text]
      whole = Part(part.value, part.end + 1, part.ops) if closed else None
      return self.reduced(whole, i) if whole and whole.ops else whole
    if t.text in operations.FRACTIONS or t.text in ("\\binom", "\\dbinom"):
      digits = self.text(i + 1)
      if len(digits) == 2 and digits.isdigit():  # \frac12
        above, below = Part(Fraction(digits[0]), i + 2, 0), Part(Fraction(digits[1]), i + 2, 0)
      else:
        above = self._group(i + 1, depth)
        below = self._group(above.end, depth) if above else None
      value = operations.apply("c" if "binom" in t.text else "/", above.value, below.value) if above and below else None
      return None if value is None else self.reduced(Part(value, below.end, above.ops + below.ops + 1), i)
    if t.text in ("\\sqrt", "√", "sqrt", "root") or (t.text == "square" and self.text(i + 1) in ("root", "roots")):
      return self._root(i, depth)
    if t.text in ("pi", "\\pi"):
      return Part(exact.letter("pi"), i + 1, 0)
    if t.text in ("\\boxed", "\\fbox"):
      return self._group(i + 1, depth)
    if t.text in operations.TIMES or (t.text == "square" and self.text(i + 1) == "of"):
      part = self.expression(self.skip(i + 1, 4, also=("of",)), depth + 1, 3)
      if part is None:
        return None
      value = exact.multiply(part.value, part.value if t.text == "square" else Fraction(operations.TIMES[t.text]))
      return None if value is None else self.reduced(Part(value, part.end, part.ops + 1), i)
    if t.text in operations.NOUNS and self.text(i + 1) in ("of", "between", "from"):
      return self._listed(operations.NOUNS[t.text], i, self.skip(i + 2, 4), depth)
    if self.letters and t.kind == "w" and len(t.text) <= 3 and t.text not in operations.FUNCTIONS:
      value: Value | None = Fraction(1)
      for name in t.text:
        value = exact.multiply(value, exact.letter(name))
      return Part(value, i + 1, len(t.text) - 1)
    return None

  def _number(self, i: int, behind: bool) -> Part | None:
    t = self.toks[i]
    if t.value is None:
      return None
    j, value, share = i + 1, t.value, None
    if self.text(j) in ("%", "\\%", "percent") or (self.text(j) == "per" and self.text(j + 1) == "cent"):
      j += 2 if self.text(j) == "per" else 1
      k = self.skip(j + 1, 4) if self.text(j) == "of" else 0
      if k and k < len(self.toks) and self.toks[k].kind == "n" and self.toks[k].value is not None:
        return self.reduced(Part(value * self.toks[k].value / 100, k + 1, 1), i)
      share = value / 100
      if behind or self._operator(j, None)[0]:
        value = share
    elif value.denominator != 1 and t.form == "words":
      k = self.skip(j, 5, also=("of", "than"))  # half of 84, half as many as 84, half the 84
      if k < len(self.toks) and k > j and self.toks[k].kind == "n" and self.toks[k].value is not None:
        return self.reduced(Part(value * self.toks[k].value, k + 1, 1), i)
    return Part(value, j, 0, share)

  def _root(self, i: int, depth: int) -> Part | None:
    n, j = Fraction(2), i + 1
    if self.toks[i].text == "square":
      j = i + 2
    if self.text(j) == "of":
      j += 1
    elif self.text(j) == "[" and j + 2 < len(self.toks) and self.text(j + 2) == "]":
      n, j = self.toks[j + 1].value or Fraction(0), j + 3
    part = self._primary(self.skip(j, 2), depth + 1, True)
    value = exact.root(part.value, int(n)) if part else None
    return None if value is None else self.reduced(Part(value, part.end, part.ops + 1), i)

  def _group(self, i: int, depth: int) -> Part | None:
    if self.text(i) == "{":
      return self._primary(i, depth + 1, True)
    single = i < len(self.toks) and self.toks[i].kind == "n" and len(self.toks[i].text) == 1
    return Part(self.toks[i].value, i + 1, 0) if single else None

  def _operator(self, i: int, left: Part | None) -> tuple[str, int]:
    """The operator at or a few words behind token i, and the token behind it; ("", 0) if there is none."""
    toks = self.toks
    for k in range(i, min(i + 6, len(toks))):
      t = toks[k]
      if t.text == "," and self.text(k + 1) in operations.INFIX and self.text(k + 1) not in ("more", "to", "out"):
        continue
      if t.text == "in" and k == i and k + 1 < len(toks) and toks[k + 1].kind == toks[k - 1].kind == "n":
        return "/", k + 1  # one in six
      if t.text == "x" and k + 1 < len(toks) and toks[k + 1].kind == "n" and not self.letters:
        return "*", k + 1
      if t.kind == "w":
        for rest, op in operations.INFIX.get(t.text, ()):
          end = k + 1 + len(rest)
          if tuple(x.text for x in toks[k + 1 : end]) == rest and end < len(toks) and (
              t.text != "less" or rest or toks[end].kind == "n" or toks[end].text == "the"):
            return op, end
        if t.text == "of" and k == i and left and isinstance(left.value, Fraction) and left.value.denominator != 1:
          return "*", k + 1
        aside = t.text in ("from", "with") and k + 1 < len(toks) and toks[
            k + 1].kind == "w"  # the 60 from before plus 37
        if (t.text in operations.STOP and not aside) or self.letters:
          return "", 0
        continue
      op = operations.SYMBOLS.get(t.text, "")
      if not op or k + 1 >= len(toks):
        return "", 0
      nxt = toks[k + 1]
      if op == "-" and (t.start == toks[k - 1].end) != (nxt.start == t.end) and not self.letters:
        return "", 0  # a dash
      if op == "-" and nxt.kind == "w" and nxt.start == t.end and not self.letters:
        return "", 0  # 25-dollar
      return op, k + 1
    return "", 0

  def _glued(self, i: int) -> bool:
    """Whether a factor follows without a sign: 2n, 2(n+1), 2\\sqrt{3}."""
    if i >= len(self.toks):
      return False
    t, near = self.toks[i], self.toks[i].start - self.toks[i - 1].end in (0, len("\\left"))
    if t.text in ("\\sqrt", "\\pi", "√") or (t.text in operations.FRACTIONS and self.letters):
      return True
    return (near and (t.text == "(" or t.text in ("pi", "sqrt"))) or (self.letters and (
        t.kind == "w" or t.text == "(" or (t.kind == "n" and self.toks[i - 1].kind == "w")))

  def _listed(self, op: str, first: int, i: int, depth: int) -> Part | None:
    """op over "12, 30 and 5" from token i on."""
    part = self.expression(i, depth + 1)
    values, ops = [], 0
    while part and len(values) < 12:
      values.append(part.value)
      ops, end = ops + part.ops, part.end
      k = self.skip(end, 4)
      comma = self.text(k) == ","
      k += comma
      if self.text(k) in ("and", "with", "by", "&", "from", "to"):
        k += 1
      elif not comma:
        break
      part = self.expression(self.skip(k, 4), depth + 1)
    if len(values) < 2:
      return None
    value = operations.fold(op, values)
    return None if value is None else self.reduced(Part(value, end, ops + len(values) - 1), first)

  def skip(self, i: int, most: int, also: tuple[str, ...] = ()) -> int:
    """The first token from i on that is no plain word, `most` words at most."""
    toks = self.toks
    if self.letters:
      return i
    for k in range(i, min(i + most, len(toks))):
      t = toks[k]
      hyphen = t.text == "-" and 0 < k < len(toks) - 1 and toks[k - 1].end == t.start and toks[k + 1].kind == "w"
      word = t.kind == "w" and t.text not in operations.NOUNS and t.text not in operations.TIMES and t.text not in (
          "square", "root", "sqrt", "pi", "negative", "minus", "add", "subtract", "multiply", "divide", "adding",
          "subtracting", "multiplying", "dividing")
      if not hyphen and (not word or (t.text in operations.STOP and t.text not in also) or (t.text in operations.INFIX
          and t.text not in also and t.text not in (
          "more", "groups", "sets", "rows", "together", "over"))):
        return k
    return min(i + most, len(toks))

  def _aside(self) -> int:
    """Where the bracket opens behind which there are words alone; 0 if there is none."""
    i = len(self.toks) - 1
    while i > max(0, len(self.toks) - 8) and self.toks[i].kind == "w":
      i -= 1
    return i if 0 < i < len(self.toks) - 1 and self.toks[i].text == "(" else 0

  def text(self, i: int) -> str:
    return self.toks[i].text if i < len(self.toks) else ""
