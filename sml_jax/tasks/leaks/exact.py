r"""Exact values: fractions, and sums of terms with square roots, pi or letters, such as 2\sqrt{3} or n^2 + 1.

Two expressions are the same value exactly if they are equal as polynomials over the roots and letters; so 1+n equals
n+1, and \sqrt{12} equals 2\sqrt{3}. Nothing is ever rounded, and nothing is big: what would be, is None.
"""

from __future__ import annotations

import math
from fractions import Fraction

_BITS = 4096
_TERMS = 40
Term = tuple[int, tuple[tuple[str, int], ...]]  # the number under the root, and the letters with their powers
Value = "Fraction | Sum"


class Sum(dict[Term, Fraction]):
  """Terms with their factors; at least one is no plain number, and no factor is 0."""

  def __hash__(self) -> int:  # type: ignore[override]
    return hash(frozenset(self.items()))


def letter(name: str) -> Value:
  return Sum({(1, ((name, 1),)): Fraction(1)})


def add(a: Value, b: Value) -> Value | None:
  if isinstance(a, Fraction) and isinstance(b, Fraction):
    return _small(a + b)
  out = dict(_terms(a))
  for term, factor in _terms(b).items():
    out[term] = out.get(term, Fraction(0)) + factor
  return _value(out)


def multiply(a: Value, b: Value) -> Value | None:
  if isinstance(a, Fraction) and isinstance(b, Fraction):
    return _small(a * b)
  out: dict[Term, Fraction] = {}
  for (root, letters), x in _terms(a).items():
    for (root2, letters2), y in _terms(b).items():
      common = math.gcd(root, root2)
      powers = dict(letters)
      for name, power in letters2:
        powers[name] = powers.get(name, 0) + power
      term = (root * root2 // common**2, tuple(sorted((n, p) for n, p in powers.items() if p)))
      out[term] = out.get(term, Fraction(0)) + x * y * common
  return _value(out)


def divide(a: Value, b: Value) -> Value | None:
  """None where b is 0. The inverse of a sum like n + 1 is a letter of its own."""
  if isinstance(b, Fraction):
    return multiply(a, 1 / b) if b else None
  if len(b) == 1:
    ((root, letters), x), = b.items()
    inverse = _value({(root, tuple((n, -p) for n, p in letters)): 1 / (x * root)})
    return inverse if inverse is None else multiply(a, inverse)
  if len(b) == 2 and not any(letters for _, letters in b):
    (s, x), (t, y) = b.items()
    conjugate = Sum({s: x, t: -y}) if s[0] != 1 or t[0] != 1 else None
    norm = multiply(b, conjugate) if conjugate else None
    top = multiply(a, conjugate) if isinstance(norm, Fraction) else None
    return divide(top, norm) if top is not None else None
  term = min(b)
  quotient = _terms(a).get(term, Fraction(0)) / b[term]
  if quotient and multiply(b, quotient) == a:
    return quotient
  inverse = letter(f"1/({show(_value({t: x / b[term] for t, x in b.items()}))})")
  return multiply(multiply(a, 1 / b[term]), inverse)


def power(a: Value, n: Value) -> Value | None:
  if isinstance(n, Sum):
    return Sum({(1, ((f"({show(a)})^({show(n)})", 1),)): Fraction(1)})
  if n == Fraction(1, 2):
    return root(a)
  if n.denominator != 1 or abs(n) > _BITS:
    return None
  if isinstance(a, Fraction):
    bits = max(a.numerator.bit_length(), a.denominator.bit_length())
    return None if bits * abs(n) > _BITS or (a == 0 and n < 0) else Fraction(a ** int(n))
  out: Value | None = Fraction(1)
  if abs(n) > 12:
    return None
  for _ in range(abs(int(n))):
    out = multiply(out, a)
    if out is None:
      return None
  return out if n >= 0 else divide(Fraction(1), out)


def root(a: Value, n: int = 2) -> Value | None:
  """The n-th root: of a square any number's, of higher powers where it is a fraction."""
  if not isinstance(a, Fraction) or (a < 0 and n % 2 == 0) or n < 2 or n > 64:
    return None
  if n != 2:
    top, below = _whole_root(abs(a.numerator), n), _whole_root(a.denominator, n)
    return None if top is None or below is None else Fraction(top if a > 0 else -top, below)
  inside = a.numerator * a.denominator  # sqrt(p/q) = sqrt(pq)/q
  if inside == 0:
    return a
  whole = _whole_root(inside, 2)
  if whole is not None:
    return Fraction(whole, a.denominator)
  if inside > 10**10:
    return None
  outside, k = 1, 2
  while k * k <= inside and k < 2000:
    while inside % (k * k) == 0:
      inside //= k * k
      outside *= k
    k += 1
  return Sum({(inside, ()): Fraction(outside, a.denominator)})


def factorial(a: Value) -> Value | None:
  plain = isinstance(a, Fraction) and a.denominator == 1 and 0 <= a <= 170
  return Fraction(math.factorial(int(a))) if plain else None


def choose(n: Value, k: Value) -> Value | None:
  if isinstance(n, Fraction) and isinstance(k, Fraction) and n.denominator == k.denominator == 1 and 0 <= k <= n <= 500:
    return _small(Fraction(math.comb(int(n), int(k))))
  return None


def decimal(a: Value) -> float | None:
  """Near the value; None if it has letters other than pi, or is too big for a float."""
  total = 0.0
  for (inside, letters), factor in _terms(a).items():
    if any(name != "pi" for name, _ in letters):
      return None
    try:
      total += float(factor) * math.sqrt(inside) * math.prod(math.pi**p for _, p in letters)
    except OverflowError:
      return None
  return total


def show(a: Value) -> str:
  if isinstance(a, Fraction):
    return str(a)
  return "+".join(f"{x}*sqrt{r}*{s}" for (r, s), x in sorted(a.items()))


def _terms(a: Value) -> dict[Term, Fraction]:
  return a if isinstance(a, Sum) else {(1, ()): a}


def _value(terms: dict[Term, Fraction]) -> Value | None:
  terms = {t: x for t, x in terms.items() if x}
  if len(terms) > _TERMS or any(_small(x) is None or t[0] > 10**18 for t, x in terms.items()):
    return None
  if not terms:
    return Fraction(0)
  return terms[1, ()] if set(terms) == {(1, ())} else Sum(terms)


def _small(a: Fraction) -> Fraction | None:
  return a if max(a.numerator.bit_length(), a.denominator.bit_length()) <= _BITS else None


def _whole_root(a: int, n: int) -> int | None:
  if n == 2:
    whole = math.isqrt(a)
  else:
    whole = round(a ** (1 / n)) if a < 10**15 else 0
  return whole if whole**n == a else None
