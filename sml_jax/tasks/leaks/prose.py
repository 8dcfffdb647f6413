"""The values that prose spells out: expressions, and what verbs do with them: "add 40 and 2", "take 8 away from 50"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from sml_jax.tasks.leaks import exact
from sml_jax.tasks.leaks.exact import Value
from sml_jax.tasks.leaks.expressions import Part, Reader, Reading, applied
from sml_jax.tasks.leaks.operations import IT, NOUNS, THEM, TIMES, VERBS, fold
from sml_jax.tasks.leaks.tokens import Token

_REACH = 28  # tokens back to the number that "then add 2" or "add them" speaks of


class Prose(Reader):
  """Finds what a text spells out; `inside`: tokens of numbers that are only part of an expression."""

  def __init__(self, toks: Sequence[Token], wanted: Callable[[Value], bool]):
    super().__init__(toks, wanted)
    self.inside: set[int] = set()

  def read(self) -> list[Reading]:
    i, before = 0, None
    while i < len(self.toks):
      t, j = self.toks[i], i
      part = None
      if t.text in NOUNS and (self.text(i - 1) == "their" or {self.text(i + 2), self.text(i + 3)} & THEM) and i:
        self._them(NOUNS[t.text], i, THEM)
      if t.text == "put" and self.text(i + 2) == "together":
        self._them("+", i, THEM)
      if t.text in TIMES and self.text(i + 1) in IT and before:
        part = self._continued("*", before, Part(Fraction(TIMES[t.text]), i + 2, 0), i)
        j = i + 2
      elif t.kind == "w" and t.text in VERBS:
        part = self._verb(i, before)
        j = part.end if part else i
      if part is None and (t.kind == "n" or t.kind in "co" or t.text in TIMES or t.text in NOUNS or t.text in (
          "square", "negative", "minus", "root", "sqrt", "pi")):
        part = self.expression(i, 0)
        j = part.end if part else i
      if part is not None:
        if part.ops:
          self.inside.update(range(i, j))
        elif t.kind == "n":
          self._together(i, part)
        before = (part, i, j)
      i = max(j, i + 1)
    return self.found

  def _verb(self, i: int, before: tuple[Part, int, int] | None) -> Part | None:
    """Add 3 to 4; subtract 3 from 4; (6 ...) multiply it by 7; (12 ... 30 ...) add them."""
    op = VERBS[self.toks[i].text]
    k = self.skip(i + 1, 6, also=("up", "away", "together"))
    colon = k + 1 if self.text(k) == "two" and self.text(k + 1) == ":" else k
    if self.text(colon) == ":":
      k = self.skip(colon + 1, 3)
    words = {t.text for t in self.toks[i + 1 : k]}
    if (self.text(k) in ("by", "into", "among", "between", "with", "from", "to") and before and words & IT) or (
        self.text(k) == "by" and before and op in "*/" and not words):
      k2 = self.skip(k + 1, 4)
      part = self.expression(k2, 0)
      return self._continued("r" if self.text(k) == "from" and op == "-" else op, before, part, i)
    first = self.expression(k, 0) if k < len(self.toks) else None
    if first is None or (words & THEM and not first.ops and self.toks[k].text == "two"):
      self._them(op, i, words)
      return None
    parts, end, prep, shared = [first], first.end, "", first
    while shared and len(parts) < 12:
      j = self.skip(end, 5, also=("away", "is", "are", "was", "were", "you", "have", "has"))
      comma = self.text(j) == ","
      j += comma
      if self.text(j) in ("and", "to", "from", "off", "by", "with", "into", "among", "between", "&"):
        prep = self.text(j)
        j += 1
      elif not comma:
        break
      if self.text(j) in VERBS or self.text(j) == "then":
        break
      shared = self.expression(self.skip(j, 4), 0)
      if shared:
        parts.append(shared)
        end = shared.end
        if prep in ("to", "from", "off", "by", "into", "among", "between"):
          break
    if len(parts) < 2:
      start = self.toks[i].text in ("take", "taking") and self.text(end - 1) and self.text(self.skip(end,
          5)) in ("and", ",")
      return first if start else self._continued(op, before, first, i)
    if op == "-" and prep in ("from", "off"):
      parts = [parts[-1], *parts[:-1]]
    value = applied(op, *parts) if len(parts) == 2 and parts[1].share else fold(op, [p.value for p in parts])
    return None if value is None else self.reduced(Part(value, end, sum(p.ops + 1 for p in parts) - 1), i)

  def _continued(self, op: str, before: tuple[Part, int, int] | None, part: Part | None, i: int) -> Part | None:
    if not part or not before or i - before[2] > _REACH:
      return None
    value = applied(op, before[0], part)
    return None if value is None else self.reduced(Part(value, part.end, part.ops + 1), before[1])

  def _together(self, i: int, part: Part) -> None:
    """ "48 and 24 together" """
    k = self.skip(part.end, 4)
    if self.text(k) in ("and", "&"):
      other = self.expression(self.skip(k + 1, 4), 0)
      if other and {self.text(other.end + n) for n in range(5)} & {"together", "combined", "altogether"}:
        value = exact.add(part.value, other.value)
        if value is not None:
          self.reduced(Part(value, other.end, other.ops + 1), i)

  def _them(self, op: str, i: int, words: set[str]) -> None:
    """12 ... 30 ... add them: the last two, three or four numbers."""
    if not words & THEM:
      return
    places = [k for k in range(max(0, i - _REACH), i) if self.toks[k].kind == "n" and self.toks[k].value is not None]
    for count in range(2, min(4, len(places)) + 1):
      values = [self.toks[k].value for k in places[-count:]]
      for ordered in (values, values[::-1]) if op in "-/" and count == 2 else (values,):
        value = fold(op, ordered)
        if value is not None:
          self.reduced(Part(value, i + 1, count - 1), places[-count])
