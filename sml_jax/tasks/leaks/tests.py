"""Does a turn state what a test expects: `f(3) should return 7`, "for [1, 2] the result is 3"?"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from sml_jax.tasks.leaks.pieces import parse
from sml_jax.tasks.leaks.tokens import plain, tokens

_CUE = re.compile(r"\b(?:returns?|returning|outputs?|expect\w*|results?|equals?|give|gives|produces?|yields?|should"
    r"|must|evaluates?|answer|gets?|got|comes?|becomes?|is|are|be|want\w*|looking for|value)\b|==|->|→|=>"
    r"|=", re.IGNORECASE)
_STRONG_CUE = re.compile(r"\b(?:expect\w*|should|must|supposed|correct|right|return|test)\b|==|->|→|=>", re.IGNORECASE)
EMPTY = {"empty list": "[]", "empty string": "''", "empty tuple": "()", "empty dictionary": "{}", "empty dict": "{}",
          "empty array": "[]", "empty set": "set()"}
# "not 7", "your code returned 7": said of another value, or of what the student's program does.
_DENIED = re.compile(r"\b(?:not|n't|never|instead of|rather than)\s+(?:\w+\s+){0,2}[`'\"]*$", re.IGNORECASE)
_OWN = re.compile(r"\b(?:your|you)\b[^.]{0,60}\b(?:returns?|returned|gives?|gave|outputs?|produces?|got|returning"
    r"|printed)\s+[`'\"]*$",
                  re.IGNORECASE)
_MODAL = re.compile(r"\b(?:should|must|need\w*|ought|has to|have to|supposed|want|expected|correctly|make|let|so that"
    r"|until|will|would)\b", re.IGNORECASE)


class Case(NamedTuple):
  """One assert: how the call and its arguments are written, and what it must return, without spaces."""

  arguments: tuple[str, ...]
  values: tuple[Any, ...]
  expected: Any
  written: str


def expected_leak(tests: Sequence[str], problem: str, turn: str) -> tuple[int, int] | None:
  """Start and end of an expected value that the turn states for a test's input, and that the problem does not show."""
  shown, text = squeezed(problem)[0], plain(turn)[0]
  if len(text) != len(turn):
    text = turn
  squeeze, places = squeezed(text)
  for case in _cases(tuple(tests)):
    call = squeezed(", ".join(case.arguments))[0]
    if _shows(shown, case, call):
      continue
    found = _distinct(case, call, text, squeeze, places, shown) or _by_call(case, call, text, squeeze, places)
    if found:
      return found
  return None


def squeezed(text: str) -> tuple[str, list[int]]:
  """The text without spaces, double quotes as single ones, capitals kept; and the place of every character."""
  out, places = [], []
  for i, c in enumerate(text):
    if not c.isspace() and c != "`":
      out.append("'" if c == '"' else c)
      places.append(i)
  return "".join(out), places


def _shows(shown: str, case: Case, call: str) -> bool:
  """The problem has the case: its call, or its arguments and the value close together."""
  written = squeezed(case.written)[0]
  start = shown.find(f"({call})")
  while start >= 0:
    if written in shown[start : start + len(call) + len(written) + 60]:
      return True
    start = shown.find(f"({call})", start + 1)
  return len(written) > 3 and len(call) > 3 and call in shown and written in shown


def _distinct(case: Case, call: str, text: str, squeeze: str, places: list[int], shown: str) -> tuple[int, int] | None:
  """A value that nobody writes by chance: a list, a tuple, a long text."""
  written, value = squeezed(case.written)[0], case.expected
  container = isinstance(value, (list, tuple, dict, set)) and len(value) >= 2
  if not (container or (isinstance(value, str) and len(value) >= 4)) or written in shown or written in call:
    return None
  forms = [written]
  if container:
    forms.append(written[1:-1].rstrip(",")) if len(value) >= 3 and not isinstance(value, dict) else None
    if isinstance(value, (list, tuple)):
      forms += ["[" + written[1:-1].rstrip(",") + "]", "(" + written[1:-1].rstrip(",") + ")"]
  elif " " in value or (len(value) >= 8 and value not in shown):
    forms.append(squeezed(value)[0])
  for form in forms:
    i = squeeze.find(form) if form not in call else -1
    while i >= 0:
      before, behind = squeeze[max(0, i - 1) : i], squeeze[i + len(form) : i + len(form) + 1]
      loose = _apart(text, places[i], places[i + len(form) - 1] + 1) and (form == written or not form[:1].isdigit() or (
          before not in tuple("([{,-.") and behind not in tuple(")]},")))
      # What a call gets is no result: f([1, 2]).
      argument = re.search(r"\w\((?:[^()]*,)?$", squeeze[max(0, i - 60) : i])
      if loose and not argument and not _denied(text[max(0, places[i] - 80) : places[i]]):
        return places[i], places[i + len(form) - 1] + 1
      i = squeeze.find(form, i + 1)
  return None


def _denied(before: str) -> bool:
  own = _OWN.search(before)
  return bool(_DENIED.search(before) or (own and not _MODAL.search(own[0])))


def _apart(text: str, start: int, end: int) -> bool:
  """Whether no letter or digit is glued to text[start:end]."""
  return not ((text[start].isalnum() and text[start - 1 : start].isalnum()) or (text[end - 1].isalnum()
      and text[end : end + 1].isalnum()))


def _by_call(case: Case, call: str, text: str, squeeze: str, places: list[int]) -> tuple[int, int] | None:
  """Input and expected value in one or two sentences, with a word between them that says which is which."""
  for start, end in _inputs(case, call, text, squeeze, places)[:20]:
    stop = re.search(r"\n\s*\n|(?<=[.!?])\s+(?=[A-Z])", text[end : end + 300])
    limit = end + (stop.start() if stop else 300)
    if stop and re.match(r"(?:The|It|That|Its|This|You|Expected|Your)\b", text[end + stop.end() :]):
      limit = end + 300 if len(text) < end + 300 else limit + 120
    behind = text[end:limit]
    for a, b in _values(case, behind):
      compared = re.match(r"[)\s`'\"]*(?:with|to"
          r"|against)\s*[`'\"]*$", behind[:a]) and "compar" in text[max(0, start - 80) : start]
      wanted = re.match(r"[`'\"\s]*(?:is|was) (?:expected|wanted|right|correct)\b", behind[b:])
      if (compared or wanted or _CUE.search(behind[:a])) and not _denied(behind[:a]):
        return end + a, end + b
    ahead = text[max(0, start - 120) : start]
    ahead = ahead[max(ahead.rfind(c) for c in (". ", "! ", "? ", "\n")) + 1 :]
    for a, b in _values(case, ahead):
      if _STRONG_CUE.search(ahead[:a]) and not _denied(ahead[:a]) and re.match(
          r"[`'\"\s,]*\b(?:for|when|with|on|if|given|from|as|is)\b", ahead[b:]):
        return start - len(ahead) + a, start - len(ahead) + b
  return None


def _inputs(case: Case, call: str, text: str, squeeze: str, places: list[int]) -> list[tuple[int, int]]:
  found = []
  if call:
    i = squeeze.find(call)
    while i >= 0 and len(found) < 20:
      behind, end = squeeze[i + len(call) : i + len(call) + 1], places[i + len(call) - 1] + 1
      if _apart(text, places[i], end):
        found.append((places[i], end + 1 if behind == ")" and text[end : end + 1] == ")" else end))
      i = squeeze.find(call, i + 1)
  for words, written in EMPTY.items():
    if call == written and (m := re.search(rf"\b{words}\b", text, re.IGNORECASE)):
      found.append((m.start(), m.end()))
  numbers = [_number(v) for v in case.values]
  if numbers and None not in numbers and not found:
    toks = [t for t in tokens(text) if t.kind == "n"]
    for i in range(len(toks) - len(numbers) + 1):
      run = toks[i : i + len(numbers)]
      if [t.value for t in run] == numbers and run[-1].end - run[0].start < 40 * len(numbers):
        found.append((run[0].start, run[-1].end))
  texts = [v for v in case.values if isinstance(v, str) and v]
  if texts and len(texts) == len(case.values) and not found and all(re.search(rf"(?<!\w){re.escape(v)}(?!\w)", text)
      for v in texts) and (
      min(map(len, texts)) > 2):
    spots = [re.search(rf"(?<!\w){re.escape(v)}(?!\w)", text) for v in texts]
    found.append((min(m.start() for m in spots), max(m.end() for m in spots)))
  return found or _scattered(case, text, squeeze, places)


def _scattered(case: Case, text: str, squeeze: str, places: list[int]) -> list[tuple[int, int]]:
  """All arguments in their order, with words between them."""
  forms = [squeezed(a)[0] for a in case.arguments]
  if len(forms) < 2 or max(map(len, forms)) < 3:
    return []
  first = i = squeeze.find(forms[0])
  for form in forms[1:]:
    i = squeeze.find(form, i + 1, i + 80) if i >= 0 else -1
  return [(places[first], places[i + len(forms[-1]) - 1] + 1)] if i >= 0 else []


def _values(case: Case, text: str) -> list[tuple[int, int]]:
  """Where the expected value stands in a text, in any form."""
  value, found = case.expected, []
  number = _number(value)
  if number is not None:
    toks = tokens(plain(text)[0]) if text.isascii() else tokens(text)
    for i, t in enumerate(toks):
      negative = i > 0 and toks[i - 1].text in ("-", "minus", "negative")
      if t.kind == "n" and t.value is not None and (-t.value if negative else t.value) == number:
        found.append((toks[i - 1].start if negative else t.start, t.end))
    return found
  squeeze, places = squeezed(text)
  for form in {squeezed(case.written)[0], squeezed(repr(value))[0], *(["'" + value + "'"] if isinstance(value, str)
      else [])}:
    i = squeeze.find(form) if form else -1
    while i >= 0 and not _apart(text, places[i], places[i + len(form) - 1] + 1):
      i = squeeze.find(form, i + 1)
    if i >= 0:
      found.append((places[i], places[i + len(form) - 1] + 1))
  words = {True: "true", False: "false", None: "(?:none|nothing)"}[value] if value is None or isinstance(value,
      bool) else ""
  if isinstance(value, str) and value.strip():
    words = re.escape(value.strip())
  for name, written in EMPTY.items():
    if repr(value) == written:
      words = name
  if words and (m := re.search(rf"(?<!\w){words}(?!\w)", text, 0 if isinstance(value, str) and len(value) < 3
      else re.IGNORECASE)):
    found.append((m.start(), m.end()))
  return found


def _number(value: Any) -> Fraction | None:
  if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or abs(value) > 1e30:
    return None
  return Fraction(str(value)) if isinstance(value, float) else Fraction(value)


@functools.lru_cache(maxsize=1024)
def _cases(tests: tuple[str, ...]) -> tuple[Case, ...]:
  out = []
  for test in tests:
    tree = parse(test)
    for node in ast.walk(tree) if tree else ():
      if isinstance(node, ast.Assert) and len(out) < 200 and (case := _case(node.test)):
        out.append(case)
  return tuple(out)


def _case(test: ast.expr) -> Case | None:
  expected: ast.expr | None = None
  truth = True
  if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
    test, truth = test.operand, False
  if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], (ast.Eq, ast.Is)):
    call, expected = test.left, test.comparators[0]
    if _call(call) is None:
      call, expected = expected, call
  elif isinstance(test, ast.Compare) and isinstance(test.ops[0], (ast.Lt, ast.LtE)) and isinstance(test.left, ast.Call):
    inner = test.left.args[0] if test.left.args else None  # abs(f(x) - e) < 1e-6
    if not isinstance(inner, ast.BinOp) or not isinstance(inner.op, ast.Sub):
      return None
    call, expected = inner.left, inner.right
  elif isinstance(test, ast.Call) and getattr(test.func, "attr", "") == "isclose" and len(test.args) >= 2:
    call, expected = test.args[:2]
  else:
    call = test
  call = _call(call)
  if call is None or not isinstance(call.func, (ast.Name, ast.Attribute)):
    return None
  try:
    value = truth if expected is None else ast.literal_eval(_unwrapped(expected))
  except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
    return None
  values = []
  for argument in call.args:
    try:
      values.append(ast.literal_eval(argument))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
      values.append(object())
  written = repr(value) if expected is None else ast.unparse(_unwrapped(expected))
  return Case(tuple(ast.unparse(a) for a in call.args), tuple(values), value, written)


def _call(node: ast.expr) -> ast.Call | None:
  """The call that is tested: f(x), also in set(f(x)), sorted(f(x)) or f(x)[0]."""
  while isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in (
      "set", "sorted", "list", "tuple", "round", "abs", "str", "dict") and len(node.args) >= 1 and isinstance(
          node.args[0], (ast.Call, ast.BinOp)):
    node = node.args[0]
  return node if isinstance(node, ast.Call) else None


def _unwrapped(node: ast.expr) -> ast.expr:
  while isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in (
      "set", "sorted", "list", "tuple") and len(node.args) == 1:
    node = node.args[0]
  return node
