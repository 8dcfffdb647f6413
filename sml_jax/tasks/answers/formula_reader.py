r"""Reads an answer in LaTeX or plain text into a tree, strictly: all of the text is understood, or none of it.

What the reader knows: numbers, letters (with index), + - * / ^, \frac, roots, factorials, binomials, |x|, floor and
ceiling, elementary functions, \pi, e, i, degrees, \pm, units behind a number, tuples and intervals, sets, lists, unions
of intervals, equations and chains of inequalities, matrices, and words alone. Anything else is refused: sums, limits,
integrals, remainders, \phantom, colours, set builders, prose around a formula. So an answer can not restate its problem
and nothing in it is dropped.
"""

from __future__ import annotations

import functools

from sml_jax.tasks.answers.formula import Node
from sml_jax.tasks.answers.formula_terms import FUNCTION_NAMES, Terms
from sml_jax.tasks.answers.formula_tokens import RELATIONS, Unreadable, tokenize

MAX_CHARACTERS = 2_000
_SEPARATORS = ((",", ","), (";", ";"), ("word", "and"), ("word", "or"))


@functools.lru_cache(maxsize=20_000)
def read(text: str, thousands: bool = True) -> Node:
  """The tree of an answer.

  Args:
    text: the answer alone, dollar signs or not.
    thousands: whether "1,080" outside brackets is a number; else it is a list of two.

  Raises:
    Unreadable: some of it is not understood; one line.
  """
  if len(text) > MAX_CHARACTERS:
    raise Unreadable(f"longer than {MAX_CHARACTERS} characters")
  return _Answers(list(tokenize(text, thousands))).answer()


class _Answers(Terms):
  """Lists, unions and relations of terms."""

  def answer(self) -> Node:
    while self._braced():
      del self.tokens[0], self.tokens[-2]
    if self.tokens[0].kind == "end":
      raise Unreadable("empty")
    if all(t.kind == "word" for t in self.tokens[:-1]):
      return Node("words", (), " ".join(t.text for t in self.tokens[:-1]))
    name = self._name()
    items, union = [self._relation()], False
    while self._peek("\\cup"):
      union = True
      self._next()
      items.append(self._relation())
    while not union and self._separator():
      items.append(self._relation())
    self._expect("end")
    if union:
      return self._named(name, Node("union", tuple(items)))
    return self._named(name, items[0] if len(items) == 1 else Node("list", tuple(items)))

  def _braced(self) -> bool:
    """Whether one pair of braces is around all."""
    depth = 0
    for i, token in enumerate(self.tokens):
      depth += {"{": 1, "}": -1}.get(token.kind, 0)
      if depth == 0:
        return i > 0 and i == len(self.tokens) - 2
    return False

  def _name(self) -> Node | None:
    r"""The x of "x = 1, 2" or "x \in [0, 1]", where no other relation follows. Also f(x) and f(3)."""
    kinds = [t.kind for t in self.tokens]
    for length in (1, 4):
      call = length == 1 or kinds[1:4] == ["(", "letter", ")"] or (
          kinds[1:4] == ["(", "number", ")"] and self.tokens[0].text in FUNCTION_NAMES)
      if kinds[0] == "letter" and call and len(kinds) > length + 1 and kinds[length] in ("=", "\\in"):
        if sum(kind in RELATIONS or kind == "\\in" for kind in kinds) == 1:
          name = "".join(t.text for t in self.tokens[:length])
          self.at = length + 1
          return Node("sym", (), name)
    return None

  @staticmethod
  def _named(name: Node | None, what: Node) -> Node:
    return Node("rel", (name, what), ("=",)) if name else what

  def _separator(self) -> bool:
    """Takes one separator: a comma, "and", or both."""
    found = False
    while (self._here().kind, self._here().text) in _SEPARATORS and not (found and self._here().kind != "word"):
      found = True
      self._next()
    return found

  def _relation(self) -> Node:
    members, signs = [self._measured()], []
    while self._here().kind in RELATIONS:
      signs.append(RELATIONS[self._next().kind])
      members.append(self._measured())
    return Node("rel", tuple(members), tuple(signs)) if signs else members[0]
