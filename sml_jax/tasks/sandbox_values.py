"""Plain Python values as JSON and back: the only thing that crosses a sandbox's wall. Standard library only.

`None`, bools, strings, floats and small ints are themselves; a list is a JSON list; all else is an object of one key:
tuple t, dict d (pairs), set s, frozenset z, bytes b, bytearray y, big int i (hex), not finite float f, complex c,
Counter C, deque D, Fraction F, Decimal M, date and time T, a short range r, an iterator or view it (a list of its first
items, read when it is sent, and a handle if there may be more), and h for anything else: a handle that means something
only to the side that gave it out.
Nothing is ever unpickled, and a rebuilt value has exactly one of these types, whatever class was sent.
"""

from __future__ import annotations

import collections
import itertools
import math
import sys
from collections.abc import Callable, Iterator

MAX_DEPTH = 150
MAX_DRAIN = 100_000  # items of an iterator
PART = 4096  # items of an iterator that are asked for at a time, at most
_SMALL = 1 << 53
_VIEWS = (type({}.keys()), type({}.values()), type({}.items()))


class Elsewhere:
  """An object of the other side, which `other` of encode() has a handle for."""


class Iterated:
  """What was an iterator or a view on the other side: its items, to be read once or counted. Equal to itself alone.

  Args:
    known: its first items.
    more: gives up to so many of the next, fewer at the end; None if there are none.
  """

  def __init__(self, known: list, more: Callable[[int], list] | None = None):
    self.known, self._more = known, more
    self._reader = self._read()

  def _read(self) -> Iterator:
    yield from self.known
    count = len(self.known)
    while self._more:
      count = min(8 * count + 8, PART)  # few at first: the items of one without an end may grow fast
      items = self._more(count)
      yield from items
      if len(items) < count:
        return

  def __iter__(self) -> object:
    return self._reader

  def __next__(self) -> object:
    return next(self._reader)

  def __len__(self) -> int:
    if self._more:
      raise TypeError("an iterator has no len()")
    return len(self.known)


def encode(value: object, other: Callable, first: int = MAX_DRAIN, depth: int = 0) -> object:
  """The JSON form; `other(value)` gives the handle of what has none, and of an iterator that has not ended after its
  `first` items. Raises ValueError for one nested too deeply."""
  if value is None or value is True or value is False:
    return value
  if depth > MAX_DEPTH:
    raise ValueError(f"a value nested deeper than {MAX_DEPTH}")
  many = lambda items: [encode(item, other, first, depth + 1) for item in items]
  # A subclass is sent as its base, read by the base's own methods: what is rebuilt has lost the subclass.
  if isinstance(value, str):
    return str.__str__(value) if type(value) is not str else value
  if isinstance(value, int):
    number = int.__add__(value, 0)
    return number if -_SMALL < number < _SMALL else {"i": hex(number)}
  if isinstance(value, float):
    number = float.__add__(value, 0.0) if type(value) is not float else value
    return number if math.isfinite(number) else {"f": repr(number)}
  if isinstance(value, list):
    return many(list.__iter__(value))
  if isinstance(value, tuple):
    return {"t": many(tuple.__iter__(value))}
  if isinstance(value, dict):
    tag = "C" if isinstance(value, collections.Counter) else "d"
    return {tag: [many(pair) for pair in dict.items(value)]}
  if isinstance(value, set):
    return {"s": many(set.__iter__(value))}
  if isinstance(value, frozenset):
    return {"z": many(frozenset.__iter__(value))}
  if isinstance(value, bytes):
    return {"b": bytes.hex(value)}
  if isinstance(value, bytearray):
    return {"y": bytearray.hex(value)}
  if isinstance(value, complex):
    return {"c": many([value.real, value.imag])}
  if isinstance(value, collections.deque):
    return {"D": many(value)}
  if isinstance(value, range) and len(value) <= MAX_DRAIN:
    return {"r": many([value.start, value.stop, value.step])}
  if isinstance(value, _VIEWS):
    return {"it": [many(value)]}
  if isinstance(value, Elsewhere):
    return {"h": other(value)}
  if hasattr(type(value), "__next__") and hasattr(type(value), "__iter__"):
    items = list(itertools.islice(value, first))
    return {"it": [many(items), other(value)] if len(items) == first else [many(items)]}
  rare = _encode_rare(value)
  return {"h": other(value)} if rare is None else rare


def _encode_rare(value: object) -> dict | None:
  """Types whose modules are looked up, not imported: a value of theirs exists only where they are loaded."""
  loaded = lambda module, name: getattr(sys.modules.get(module), name, ())
  if isinstance(value, loaded("fractions", "Fraction")):
    return {"F": [hex(value.numerator), hex(value.denominator)]}
  if isinstance(value, loaded("decimal", "Decimal")):
    return {"M": format(value)}
  for name in ("datetime", "date", "time"):
    if isinstance(value, loaded("datetime", name)):
      return {"T": [name, value.isoformat()]}
  if isinstance(value, loaded("datetime", "timedelta")):
    return {"T": ["timedelta", [value.days, value.seconds, value.microseconds]]}
  return None


def decode(tree: object, other: Callable) -> object:
  """The value of a JSON form; `other(handle)` stands for what had none. Raises ValueError for anything malformed."""
  try:
    return _decode(tree, other, 0)
  except (TypeError, KeyError, OverflowError, ArithmeticError, RecursionError) as e:
    raise ValueError(f"a malformed value: {type(e).__name__}") from None


def _decode(tree: object, other: Callable, depth: int) -> object:
  if tree is None or type(tree) in (bool, int, float, str):
    return tree
  if depth > MAX_DEPTH + 1:
    raise ValueError("a malformed value: nested too deeply")
  many = lambda items: [_decode(item, other, depth + 1) for item in _listed(items)]
  if type(tree) is list:
    return many(tree)
  (tag, body), = tree.items()
  if tag == "i":
    return int(body, 16)
  if tag == "f":
    return {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}[body]
  if tag == "t":
    return tuple(many(body))
  if tag in ("d", "C"):
    pairs = [(key, item) for key, item in map(many, _listed(body))]
    guard_hashes([key for key, _ in pairs])
    return collections.Counter(dict(pairs)) if tag == "C" else dict(pairs)
  if tag in ("s", "z"):
    items = many(body)
    guard_hashes(items)
    return set(items) if tag == "s" else frozenset(items)
  if tag in ("b", "y"):
    return (bytes if tag == "b" else bytearray).fromhex(body)
  if tag == "c":
    real, imag = many(body)
    return complex(real, imag)
  if tag == "D":
    return collections.deque(many(body))
  if tag == "r":
    start, stop, step = many(body)
    found = range(start, stop, step)
    if len(found) > MAX_DRAIN:
      raise ValueError("a malformed value: a long range")
    return found
  if tag == "it":
    known, *more = _listed(body)
    return Iterated(many(known), other(more[0])._more if more else None)
  if tag == "h":
    return other(body)
  return _decode_rare(tag, body)


def _decode_rare(tag: str, body: object) -> object:
  # Arithmetic on these can be slow out of all proportion to their length in text, hence the limits.
  if tag == "F" and max(map(len, body)) <= 2000:
    from fractions import Fraction
    return Fraction(*(int(part, 16) for part in body))
  if tag == "M" and len(body) <= 2000:
    from decimal import Decimal
    found = Decimal(body)
    if not found.is_finite() or abs(found.adjusted()) <= 5000:
      return found
  if tag == "T":
    import datetime
    name, text = body
    if name == "timedelta":
      return datetime.timedelta(*text)
    if name in ("datetime", "date", "time"):
      return getattr(datetime, name).fromisoformat(text)
  raise ValueError("a malformed value")


def _listed(items: object) -> list:
  if type(items) is not list:
    raise ValueError("a malformed value: no list")
  return items


def guard_hashes(items: list) -> None:
  """Raises ValueError for keys chosen to share a hash, with which a dict or a set takes quadratic time to build."""
  if len(items) > 2000 and len(items) - len({hash(item) for item in items}) > 1000:
    distinct = {repr(item): hash(item) for item in items}
    if sum(count ** 2 for count in collections.Counter(distinct.values()).values()) > 2000 ** 2:
      raise ValueError("keys of one hash")
