"""The words and signs for what is done with numbers, and doing it."""

from __future__ import annotations

from fractions import Fraction

from sml_jax.tasks.leaks import exact
from sml_jax.tasks.leaks.exact import Sum, Value

INFIX: dict[str, list[tuple[tuple[str, ...], str]]] = {}
"""First word of an operator in words: (words behind it, operator), the longest first."""
for _op, _phrases in {
    "+": "increased by|more than|added to|combined with|together with|plus", "-": "decreased by|reduced by|take away|"
    "minus|without|less", "r": "less than|fewer than|taken away from|taken from|subtracted from|removed from|"
    "deducted from", "*": "multiplied by|groups of|sets of|rows of|lots of|times", "/": "divided by|divided among|"
    "divided between|divided into|split among|split between|split into|shared among|shared between|out of|over",
    "d": "goes into|go into|fits into|fit into", "^": "raised to the power of|raised to the power|raised to the|"
    "to the power of|to the power", "c": "choose", "m": "mod|modulo"}.items():
  for _phrase in _phrases.split("|"):
    _first, *_rest = _phrase.split()
    INFIX.setdefault(_first, []).append((tuple(_rest), _op))
    INFIX[_first].sort(key=lambda p: -len(p[0]))
SYMBOLS = {"+": "+", "-": "-", "*": "*", "/": "/", "^": "^", "**": "^", "\\times": "*", "\\cdot": "*", "\\div": "/",
            "\\ast": "*", "\\pm": ""}
LEVEL = {"+": 1, "-": 1, "r": 1, "*": 2, "/": 2, "m": 2, "d": 2, "c": 3, "^": 3}
TIMES = {"twice": 2, "double": 2, "doubling": 2, "triple": 3, "tripling": 3, "thrice": 3, "quadruple": 4,
          "halve": Fraction(1, 2), "halving": Fraction(1, 2)}
BEHIND = {"doubled": 2, "tripled": 3, "quadrupled": 4, "halved": Fraction(1, 2)}
NOUNS = {"sum": "+", "total": "+", "product": "*", "difference": "-", "quotient": "/", "ratio": "/", "average": "a",
          "mean": "a"}
VERBS = {w: op for op, words in {
    "+": "add adding sum summing combine combining total increase raise", "*": "multiply multiplying",
    "-": "subtract subtracting take taking deduct deducting remove removing knock discount reduce decrease lower",
    "/": "divide dividing split splitting share sharing"}.items() for w in words.split()}
THEM = {"them", "these", "those", "both", "two", "together", "all", "everything"}
OPERATIONS = frozenset({*INFIX, *TIMES, *BEHIND, *NOUNS, *VERBS, "half", "squared", "cubed", "root",
    "percent"} - {"to", "out"})
"""Words that name what is done with numbers."""
IT = {"it", "that", "this", "result", "sum", "product", "total", "difference", "quotient", "number", "answer"}
STOP = set(
    "off and or to from by with then so is are equals equal which but if into among between because since when was "
    "were gives makes get gets than have has you not while where plus minus times remember check".split())
DROPPED = {
    "\\ ", *r"\left \right \displaystyle \quad \, \; \! \: \( \) \[ \] \$ \{ \} \big \Big | \mathrm".split()}
FRACTIONS = {"\\frac", "\\dfrac", "\\tfrac", "\\cfrac"}
FUNCTIONS = {"sin", "cos", "tan", "log", "ln", "max", "min", "gcd", "lcm", "mod", "exp", "det", "and", "or", "if"}


def apply(op: str, a: Value, b: Value) -> Value | None:
  if op == "+":
    return exact.add(a, b)
  if op in "-r":
    negative = exact.multiply(b if op == "-" else a, Fraction(-1))
    return None if negative is None else exact.add(a if op == "-" else b, negative)
  if op == "*":
    return exact.multiply(a, b)
  if op == "/":
    return exact.divide(a, b)
  if op == "d":
    return exact.divide(b, a)
  if op == "c":
    return exact.choose(a, b)
  if op == "m":
    return a % b if isinstance(a, Fraction) and isinstance(b, Fraction) and b else None
  return exact.power(a, b)


def fold(op: str, values: list[Value]) -> Value | None:
  out: Value | None = values[0]
  for value in values[1:]:
    out = None if out is None else apply("+" if op == "a" else op, out, value)
  if out is None or isinstance(out, Sum):
    return out
  return out / len(values) if op == "a" else abs(out) if op == "-" else out
