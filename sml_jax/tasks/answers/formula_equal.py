"""Whether two answers are the same: first their form (set, pair, interval, relation), then their parts."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from fractions import Fraction

from sml_jax.tasks.answers.formula import Node, negative, num, product, total, walk
from sml_jax.tasks.answers.formula_reader import read
from sml_jax.tasks.answers.formula_value import DIGITS, Inexact, TooLong, Undefined, Unsure, Value, same_values, value

Same = Callable[[Node, Node], bool]
"""Whether two scalars are equal. Raises Unsure."""

_MAX_ITEMS = 40
_POINTS, _TRIES = 8, 40
_MIRRORED = {"=": "=", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
_INFINITY = Node("const", (), "inf")


class NeedsSymbols(Unsure):
  """Exact arithmetic does not decide it."""


def equal(gold: Node, given: Node, same: Same) -> bool:
  r"""Whether a given answer is the gold one, both as `formula.read` gives them.

  The conventions: a list without braces is a set of at least two, in any order, and each as often; with braces the
  same; (1, 2) is ordered, and a bare "1, 2" may stand for it in that order; 5 is not {5}; x = 5 is 5 if one of them has
  no name; so is (x, y) = (1, 2) the pair, and |S| = 5 or AB = 5 the number; a unit may be left out but not be another;
  12 degrees are 12; 60% is 60 and never 0.6; \pm stands for two values; 0 < x <= 1 is the interval (0, 1]; the gold
  (0, 1) is a point.

  Raises:
    Unsure: it can not be decided.
  """
  gold, given = _gathered(_spread(gold)), _gathered(_spread(given))
  if "rel" not in gold.ops:
    given = _unnamed(given)
  elif "rel" not in given.ops:
    gold = _unnamed(gold)
  if gold.key == given.key:
    return all(defined(x) for x in (gold, given))
  if _assigns(given) and not _assigns(gold) and gold.op != "rel":
    # x = 2^3 = 8 says 8 twice; every member has to be right.
    return all(equal(gold, member, same) for member in given.args[1:])
  if _assigns(gold) and not _relates(given):
    return all(equal(member, given, same) for member in gold.args[1:])
  if given.op == "rel" and gold.op != "rel" and set(given.value) == {"="}:
    named = not gold.symbols and _quantity(given.args[0])
    if named or gold.scalar:  # |S| = 8, 2^3 = 8
      return all(equal(gold, member, same) for member in given.args[named:])
  if "rel" in (gold.op, given.op):
    return _same_relation(gold, given, same)
  if "unit" in (gold.op, given.op):
    return _same_measure(gold, given, same)
  if gold.scalar and given.scalar:
    return _same_scalar(gold, given, same)
  return _same_collection(gold, given, same)


def exactly(a: Node, b: Node) -> bool:
  """Whether two scalars are equal, by arithmetic with fractions alone: of numbers; of formulas with letters only that
  they differ. Raises NeedsSymbols where that does not tell."""
  if a.symbols != b.symbols:
    return False
  if not a.symbols:
    try:
      return same_values(value(a, {}), value(b, {}))
    except Undefined:
      raise Unsure("undefined") from None
    except Inexact:
      raise NeedsSymbols from None
  source = random.Random(f"{a.key} {b.key}")
  counts = counting(a, b)
  for _ in range(_POINTS):
    letters = {name: draw(source, counts) for name in sorted(a.symbols)}
    try:
      if not same_values(value(a, letters), value(b, letters)):
        return False
    except (Undefined, Unsure):
      pass
  raise NeedsSymbols


def numerically(a: Node, b: Node, salt: str) -> bool:
  """Whether two scalars have the same values: of 100 digits or more, and at random points where they have letters.

  The points are a function of the salt and so can not be known before the answers are. Where a formula counts
  (factorials, binomials, floors, powers of -1) its letters are natural numbers. Points where both have no real value
  are left out, unless they have i.
  """
  if a.symbols != b.symbols:
    return False
  for digits in DIGITS:
    try:
      return _same_at_points(a, b, salt, digits)
    except TooLong:
      pass
  raise Unsure("fractions of too many digits")


def _same_at_points(a: Node, b: Node, salt: str, digits: int) -> bool:
  names = sorted(a.symbols)
  counts = counting(a, b)
  logs = "log" in a.ops | b.ops
  imaginary = "i" in a.ops | b.ops
  source, met = random.Random(salt), 0
  for attempt in range(_TRIES):
    letters = {name: draw(source, counts) for name in names}
    if attempt == 0 and not counts:
      letters = {name: -abs(x) for name, x in letters.items()}  # |x| is not x
    letters["\\log"] = draw(source, False)
    try:
      found = [_value(x, letters, digits) for x in (a, b)]
    except Unsure as e:
      if not names or isinstance(e, TooLong):
        raise
      continue
    if None in found:
      if not names:
        raise Unsure("undefined")
      # That a binomial is 0 where n < k is a convention that not all keep.
      if found != [None, None] and not counts:
        return False
      continue
    real = [imaginary or isinstance(v, Fraction) or not hasattr(v, "imag") or v.imag == 0 for v in found]
    if names and not any(real):
      continue
    if not same_values(*found, digits):
      return False
    met += 1
    if met == _POINTS or not (names or logs):
      return True
  raise Unsure("too few points where it has a value")


def _value(x: Node, letters: dict[str, Fraction], digits: int) -> Value | None:
  try:
    return value(x, letters, digits)
  except Undefined:
    return None


def draw(source: random.Random, natural: bool) -> Fraction:
  """A value for a letter."""
  if natural:
    return Fraction(source.randint(1, 60))
  return Fraction(source.choice((1, 1, -1)) * source.randint(10**5, 5 * 10**6), 10**6)


def counting(*nodes: Node) -> bool:
  """Whether the letters of formulas have to be natural numbers. Where all that says so are floors, and those in each of
  them, the letters must have such names: n, not x."""
  whole = all(name.lstrip("\\")[0] in "ijklmnpqKLMNPQ" for node in nodes for name in node.symbols)
  return any(_counts(part) for node in nodes for part in walk(node)) or (
      whole and all(node.ops & {"floor", "ceil"} for node in nodes))


def _counts(x: Node) -> bool:
  if x.op == "fn":
    return x.value in ("factorial", "binom")
  return x.op == "pow" and bool(x.args[1].symbols) and x.args[0].op == "num" and x.args[0].value < 0


def defined(x: Node) -> bool:
  """Same texts are the same, unless they say 1/0."""
  for part in walk(x):
    if part.op in ("div", "pow") and not part.symbols:
      try:
        value(part, {})
      except Undefined:
        raise Unsure("undefined") from None
      except Unsure:
        pass
  return True


def _spread(x: Node) -> Node:
  """With every plus-minus written as its two values, in a list."""
  if "pm" not in x.ops:
    return x
  if x.op == "list":
    items = [_spread(a) for a in x.args]
    return Node("list", tuple(i for item in items for i in (item.args if item.op == "list" else (item,))))
  if x.op == "rel" and set(x.value) == {"="} and len(x.args) == 2 and "pm" not in x.args[0].ops:
    return Node("rel", (x.args[0], _spread(x.args[1])), x.value)
  if x.scalar or (x.op == "unit" and x.args[0].scalar):
    return Node("list", (_signed(x, 1), _signed(x, -1)))
  raise Unsure("a plus-minus inside a collection")


def _signed(x: Node, sign: int) -> Node:
  if x.op == "pm":
    return num(sign * x.value)
  return Node(x.op, tuple(_signed(a, sign) for a in x.args), x.value)


def _assigns(x: Node) -> bool:
  return x.op == "rel" and x.args[0].op == "sym" and set(x.value) == {"="}


def _quantity(x: Node) -> bool:
  """Whether letters are all that a scalar is of, as in |S|, AB and a + b."""
  return bool(x.symbols) and x.ops <= {"sym", "add", "mul", "fn", "abs"}


def _unnamed(x: Node) -> Node:
  """(x, y) = (1, 2), (2, 1) without the names, which must be in the order of the alphabet."""
  items = []
  for a in x.args if x.op == "list" else (x,):
    if a.op == "rel" and a.value == ("=",) and a.args[0].op == a.args[1].op == "tuple":
      names = [b.value for b in a.args[0].args if b.op == "sym"]
      if not len(names) == len(a.args[0].args) == len(a.args[1].args) or names != sorted(set(names)):
        return x
      a = a.args[1]
    items.append(a)
  return items[0] if x.op != "list" else Node("list", tuple(items))


def _relates(x: Node) -> bool:
  return x.op == "rel" or (x.op == "list" and any(a.op == "rel" for a in x.args))


def _same_scalar(gold: Node, given: Node, same: Same) -> bool:
  for a, b in ((gold, given), (given, gold)):
    if a == _INFINITY or a == negative(_INFINITY):
      return a == b
  return gold.key == given.key or same(gold, given)


def _same_measure(gold: Node, given: Node, same: Same) -> bool:
  values = [x.args[0] if x.op == "unit" else x for x in (gold, given)]
  units = [x.value if x.op == "unit" else "" for x in (gold, given)]
  if all(units) and units[0] != units[1]:
    return False
  return all(x.scalar for x in values) and _same_scalar(*values, same)


def _same_collection(gold: Node, given: Node, same: Same) -> bool:
  kinds = gold.op, given.op
  if any(map(_assigns, gold.args)) != any(map(_assigns, given.args)):
    return False  # "x = 1, y = 2" says which is which, and "1, 2" does not
  if kinds in (("tuple", "tuple"), ("matrix", "matrix")):
    return gold.value == given.value and _in_order(gold.args, given.args, same)
  if kinds in (("tuple", "list"), ("list", "tuple")):
    brackets = gold.value or given.value
    return brackets == "()" and _in_order(gold.args, given.args, same)
  if kinds in (("list", "list"), ("set", "set"), ("list", "set"), ("set", "list"), ("union", "union")):
    return _in_any_order(gold.args, given.args, same)
  relations = all(a.op == "rel" for x in (gold, given) if x.op == "list" for a in x.args)
  # A union may be said as x < 1 or x > 3.
  return {*kinds} == {"union", "list"} and relations and _in_any_order(gold.args, given.args, same)


def _gathered(x: Node) -> Node:
  """x = 1 or x = 2 as x = (1, 2)."""
  if x.op != "list" or not all(_assigns(a) and len(a.args) == 2 and a.args[0] == x.args[0].args[0] for a in x.args):
    return x
  return Node("rel", (x.args[0].args[0], _spread(Node("list", tuple(a.args[1] for a in x.args)))), ("=",))


def _in_order(a: Sequence[Node], b: Sequence[Node], same: Same) -> bool:
  return len(a) == len(b) and all(equal(x, y, same) for x, y in zip(a, b, strict=True))


def _in_any_order(a: Sequence[Node], b: Sequence[Node], same: Same) -> bool:
  if len(a) != len(b):
    return False
  if len(a) > _MAX_ITEMS:
    raise Unsure(f"more than {_MAX_ITEMS} items")
  left, unsure = list(b), False
  for x in a:
    for i, y in enumerate(left):
      try:
        found = equal(x, y, same)
      except NeedsSymbols:
        found, unsure = False, True
      if found:
        del left[i]
        break
    else:
      if unsure:
        raise NeedsSymbols
      return False
  return True


def _same_relation(gold: Node, given: Node, same: Same) -> bool:
  gold, given = _member(gold, given), _member(given, gold)
  a, b = _as_interval(gold), _as_interval(given, sure=gold.op == "rel")
  if a and b and (gold.op, given.op) != ("rel", "rel"):
    return a.value == b.value and _in_order(a.args, b.args, same)
  if (gold.op, given.op) != ("rel", "rel") or len(gold.args) != len(given.args):
    return False
  for members, signs in ((given.args, given.value), (given.args[::-1], tuple(_MIRRORED[s] for s in given.value[::-1]))):
    if signs == gold.value and _in_order(gold.args, members, same):
      return True
  if len(gold.value) != 1 or any(not x.scalar for x in (*gold.args, *given.args)):
    return False
  # a < b is a - b < 0 and b > a; a = b is b = a.
  difference = _minus(*gold.args)
  ways = [(given.args, given.value[0]), (given.args[::-1], _MIRRORED[given.value[0]])]
  return any(sign == gold.value[0] and same(difference, _minus(*members)) for members, sign in ways)


def _minus(a: Node, b: Node) -> Node:
  return total(a, product(num(-1), b))


def _member(x: Node, other: Node) -> Node:
  """The interval of "x \\in (0, 1)", beside what else is said of x."""
  named = _assigns(x) and x.args[1].op == "tuple" and other.op == "rel" and not _assigns(other)
  return x.args[1] if named and x.args[0].symbols == other.symbols else x


def _as_interval(x: Node, sure: bool = False) -> Node | None:
  """An interval, or what a letter between two bounds says, as a tuple; (0, 1) could be a point and is not taken for one
  unless that is sure or a bound is infinite."""
  if x.op == "tuple" and len(x.args) == 2:
    return x if sure or x.value != "()" or any("inf" in a.ops for a in x.args) else None
  if x.op != "rel" or set(x.value) & {"=", "!="}:
    return None
  members, signs = x.args, x.value
  if signs[0] in (">", ">="):
    members, signs = members[::-1], tuple(_MIRRORED[s] for s in signs[::-1])
  if any(s not in ("<", "<=") for s in signs):
    return None
  if len(members) == 2:
    if members[0].op == "sym":
      members, signs = (negative(_INFINITY), *members), ("<", *signs)
    else:
      members, signs = (*members, _INFINITY), (*signs, "<")
  if len(members) != 3 or members[1].op != "sym" or members[1].value in members[0].symbols | members[2].symbols:
    return None
  brackets = ("[" if signs[0] == "<=" else "(") + ("]" if signs[1] == "<=" else ")")
  return Node("tuple", (members[0], members[2]), brackets)


def texts_equal(gold: str, given: str, same: Same) -> bool:
  """`equal` of two texts.

  Raises:
    Unreadable: of one of them, by formula.read.
    Unsure: it can not be decided.
  """
  wanted, found = read(gold), read(given)
  if wanted.op in ("list", "set", "tuple") and found.op not in ("list", "set", "tuple"):
    found = read(given, thousands=False)  # "100,200" where two numbers are asked for
  return equal(wanted, found, same)
