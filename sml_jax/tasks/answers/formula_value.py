"""The value of a formula: a Fraction where arithmetic is exact, else 100 digits with guards against loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from sml_jax.tasks.answers.formula import Node

DIGITS = (100, 1_000, 20_000)
"""Of a number; the next is for formulas with longer fractions in them."""
_GUARD = 20  # digits that may be lost on the way
_MAX_BITS = 100_000
_MAX_POWER = 10**12
_MAX_ARGUMENT = 10**9
_SMALL = 10**30  # of a fraction that an inexact value may be equal to

Value = Any
"""Fraction, or mpmath's mpf or mpc."""


class Undefined(ArithmeticError):
  """No value: division by zero, a logarithm of zero, 0^0."""


class Unsure(ArithmeticError):
  """The value can not be had to enough digits at a bounded cost."""


class TooLong(Unsure):
  """A fraction has more digits than the numbers do; more digits may help."""


class Inexact(Unsure):
  """The value is no Fraction, and nothing else was allowed."""


def value(x: Node, letters: Mapping[str, Fraction], digits: int = 0) -> Value:
  """The value of a scalar where its letters have these values.

  Args:
    digits: of inexact numbers, for which mpmath is needed. 0: raise Inexact where the value, or one on the way, is no
      Fraction of a moderate size.

  Raises:
    Undefined, Unsure.
  """
  return _Evaluator(letters, digits).of(x)


def same_values(a: Value, b: Value, digits: int = 0) -> bool:
  """Whether two values are equal: Fractions exactly, others to their digits less 20.

  An inexact value never equals a fraction of more than 30 digits, whose digits could have been copied from it.
  """
  if isinstance(a, Fraction) and isinstance(b, Fraction):
    return a == b
  for x in (a, b):
    if isinstance(x, Fraction) and max(abs(x.numerator), x.denominator) > _SMALL:
      return False
  mp = _mp(digits)
  a, b = (_float(x, mp) for x in (a, b))
  return abs(a - b) <= max(abs(a), abs(b)) * mp.mpf(10) ** (_GUARD - digits)


class _Evaluator:

  def __init__(self, letters: Mapping[str, Fraction], digits: int):
    self.letters, self.digits = letters, digits

  def of(self, x: Node) -> Value:
    if x.op == "num":
      return x.value
    if x.op == "sym":
      return self.letters[x.value]
    if x.op == "const":
      return self._constant(x.value)
    values = [self.of(a) for a in x.args]
    if x.op == "fn":
      return self._function(x.value, values)
    if x.op == "root":
      return self._root(values[0], x.value)
    return {"add": self._add, "mul": self._mul, "div": self._div, "pow": self._pow}[x.op](*values)

  def _need_floats(self) -> Any:
    if not self.digits:
      raise Inexact("not a fraction")
    return _mp(self.digits)

  def _float(self, x: Value) -> Value:
    mp = self._need_floats()
    if isinstance(x, Fraction) and _bits(x) * 0.302 > self.digits - 2 * _GUARD:
      raise TooLong("a fraction of too many digits")  # its last ones would not be seen
    return _float(x, mp)

  def _constant(self, name: str) -> Value:
    mp = self._need_floats()
    if name == "inf":
      raise Unsure("infinity")
    return {"pi": +mp.pi, "e": +mp.e, "i": mp.mpc(0, 1), "deg": mp.pi / 180}[name]

  def _add(self, *terms: Value) -> Value:
    fractions = [t for t in terms if isinstance(t, Fraction)]
    rest = [t for t in terms if not isinstance(t, Fraction)]
    whole = sum(fractions, Fraction(0))
    if not rest:
      return _bounded(whole)
    mp = self._need_floats()
    numbers = [*rest, *([self._float(whole)] if whole else [])]
    out = mp.fsum(numbers)
    sizes = [abs(n) for n in numbers if n != 0]
    # What a sum swallows, or what is left of terms that cancel, is not known to enough digits.
    most = max(sizes, default=mp.mpf(0))
    if sizes and (min(sizes) < most * mp.mpf(10) ** -15 or abs(out) < most * mp.mpf(10) ** -15):
      raise Unsure("terms of very different size, or that cancel")
    return out

  def _mul(self, *factors: Value) -> Value:
    fractions = [f for f in factors if isinstance(f, Fraction)]
    whole = _bounded(math.prod(fractions, start=Fraction(1)))
    rest = [f for f in factors if not isinstance(f, Fraction)]
    if not rest or whole == 0:
      return whole
    out = self._float(whole)
    for factor in rest:
      out *= factor
    return out

  def _div(self, a: Value, b: Value) -> Value:
    if b == 0:
      raise Undefined("division by zero")
    if isinstance(a, Fraction) and isinstance(b, Fraction):
      return _bounded(a / b)
    return self._float(a) / self._float(b)

  def _pow(self, a: Value, b: Value) -> Value:
    if a == 0:
      if not isinstance(b, Fraction) or b <= 0:
        raise Undefined("a power of zero")
      return Fraction(0)
    if isinstance(b, Fraction) and b.denominator == 1:
      if abs(b) > _MAX_POWER:
        raise Unsure("a huge power")
      if isinstance(a, Fraction):
        if a in (1, -1):
          return a ** (int(b) % 2)
        if _bits(a) * abs(b) <= _MAX_BITS:
          return a ** int(b)
      self._need_floats()
      return self._float(a) ** int(b)
    if isinstance(a, Fraction) and isinstance(b, Fraction) and a < 0 and b.denominator % 2:
      raise Unsure("an odd root of a negative number, written as a power")
    if isinstance(a, Fraction) and isinstance(b, Fraction) and a > 0 and b.denominator <= 1000:
      base = self._pow(a, Fraction(b.numerator))
      return self._root(base, b.denominator)
    mp = self._need_floats()
    a, b = self._float(a), self._float(b)
    if not mp.mpf(10) ** -15 < abs(b * mp.log(abs(a))) < _MAX_POWER:
      raise Unsure("a huge or tiny power")
    return mp.power(a, b)

  def _root(self, a: Value, degree: int) -> Value:
    if isinstance(a, Fraction):
      roots = _integer_root(abs(a.numerator), degree), _integer_root(a.denominator, degree)
      negative = a < 0 and degree % 2 == 1
      if None not in roots and (a >= 0 or negative):
        return Fraction(*roots) * (-1 if negative else 1)
    mp = self._need_floats()
    a = self._float(a)
    if isinstance(a, mp.mpf) and a < 0 and degree % 2:
      return -mp.root(-a, degree)
    return mp.root(a, degree)

  def _function(self, name: str, values: list[Value]) -> Value:
    if name in ("factorial", "binom", "floor", "ceil", "abs"):
      return getattr(self, "_" + name)(*values)
    mp, x = self._need_floats(), self._float(values[0])
    if name in ("ln", "log"):
      if x == 0:
        raise Undefined("the logarithm of zero")
      # Of what base \log is depends on who writes it: it is a multiple of the natural one that nobody knows.
      return mp.log(x) * (1 if name == "ln" else self._float(self.letters["\\log"]))
    # cos of nearly 0 and tanh of 1000 are so near 1 that no digits tell.
    if abs(x) > (50 if name in ("sinh", "cosh", "tanh") else _MAX_ARGUMENT) or 0 < abs(x) < mp.mpf(10) ** -15:
      raise Unsure("a function of a huge or tiny number")
    names = {"arcsin": "asin", "arccos": "acos", "arctan": "atan"}
    try:
      out = getattr(mp, names.get(name, name))(x)
    except (ZeroDivisionError, ValueError):
      raise Undefined(name) from None
    if abs(out) < min(1, abs(x)) * mp.mpf(10) ** -15 and x != 0:
      raise Unsure("a zero of a function")
    if name in ("tan", "cot", "sec", "csc") and abs(out) > mp.mpf(10) ** 15:
      raise Undefined(name)
    return out

  def _factorial(self, x: Value) -> Value:
    if not isinstance(x, Fraction) or x.denominator != 1 or x < 0:
      raise Undefined("the factorial of what is no natural number")
    if x <= 5_000:
      return _bounded(Fraction(math.factorial(int(x))))
    if x > _MAX_ARGUMENT:
      raise Unsure("a huge factorial")
    return self._need_floats().factorial(self._float(x))

  def _binom(self, n: Value, k: Value) -> Value:
    if not all(isinstance(x, Fraction) and x.denominator == 1 and x >= 0 for x in (n, k)):
      raise Undefined("a binomial of what are no natural numbers")
    if n > 50_000:
      raise Unsure("a huge binomial")
    return _bounded(Fraction(math.comb(int(n), int(k))))

  def _floor(self, x: Value) -> Value:
    if isinstance(x, Fraction):
      return Fraction(math.floor(x))
    mp = self._need_floats()
    if isinstance(x, mp.mpc) or abs(x) > _SMALL or abs(x - mp.nint(x)) < mp.mpf(10) ** -20:
      raise Unsure("the floor of what is nearly whole")
    return Fraction(int(mp.floor(x)))

  def _ceil(self, x: Value) -> Value:
    return -self._floor(-x)

  def _abs(self, x: Value) -> Value:
    return abs(x)


def _mp(digits: int) -> Any:
  import mpmath  # comes with math-verify

  mpmath.mp.dps = digits
  return mpmath.mp


def _float(x: Value, mp: Any) -> Value:
  return mp.mpf(x.numerator) / x.denominator if isinstance(x, Fraction) else x


def _bits(x: Fraction) -> int:
  return max(x.numerator.bit_length(), x.denominator.bit_length())


def _bounded(x: Fraction) -> Fraction:
  if _bits(x) > 2 * _MAX_BITS:
    raise Unsure("a fraction of too many digits")
  return x


def _integer_root(n: int, degree: int) -> int | None:
  """The whole root of n, if it has one."""
  if n < 2:
    return n
  if degree == 2:
    root = math.isqrt(n)
  else:
    low, high = 1, 1 << (n.bit_length() // degree + 1)
    while low < high:
      middle = (low + high + 1) // 2
      low, high = (middle, high) if middle**degree <= n else (low, middle - 1)
    root = low
  return root if root**degree == n else None
