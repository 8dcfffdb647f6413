"""An answer as a tree: what formula_reader.py makes of a text, and what is compared."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from fractions import Fraction

_SCALAR = frozenset(("num", "sym", "const", "add", "mul", "div", "pow", "root", "fn", "pm"))


@dataclasses.dataclass(frozen=True)
class Node:
  """A part of an answer. Scalars: num, sym, const, add, mul, div, pow, root, fn, pm (a sign that is both, alone as a
  factor). Others: unit, tuple (value: its brackets), set, list, union, rel (value: its signs), matrix (value: columns),
  words."""

  op: str
  args: tuple[Node, ...] = ()
  value: Fraction | str | int | tuple[str, ...] | None = None

  @functools.cached_property
  def key(self) -> str:
    """The same for trees that differ in the order of terms or factors alone."""
    keys = [a.key for a in self.args]
    if self.op in ("add", "mul"):
      keys.sort()
    return f"{self.op}[{self.value};{','.join(keys)}]"

  @functools.cached_property
  def ops(self) -> frozenset[str]:
    """Every op of the tree, and the name of every function."""
    own = {self.op, self.value} if self.op in ("fn", "const") else {self.op}
    return frozenset(own).union(*(a.ops for a in self.args))

  @functools.cached_property
  def symbols(self) -> frozenset[str]:
    return frozenset({self.value} if self.op == "sym" else ()).union(*(a.symbols for a in self.args))

  @property
  def scalar(self) -> bool:
    return self.op in _SCALAR


def num(value: int | Fraction) -> Node:
  return Node("num", (), Fraction(value))


def negative(x: Node) -> Node:
  return num(-x.value) if x.op == "num" else product(num(-1), x)


def product(*factors: Node) -> Node:
  return _flat("mul", factors)


def total(*terms: Node) -> Node:
  return _flat("add", terms)


def _flat(op: str, args: tuple[Node, ...]) -> Node:
  out = [inner for a in args for inner in (a.args if a.op == op else (a,))]
  return out[0] if len(out) == 1 else Node(op, tuple(out))


def walk(node: Node) -> Iterator[Node]:
  """The node and all below it."""
  yield node
  for a in node.args:
    yield from walk(a)
