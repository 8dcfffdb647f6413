"""Tests of programs, taken apart: those that this process can decide on plain values, and those that must be run.

`assert f(2, [3]) == 5` becomes one call, f(2, [3]), and a check of its value; so do `not f(x)`, `f(x) is None`,
`abs(f(x) - 2.5) < 1e-6`, `math.isclose(f(x), y)`, `set(f(x)) == {1, 2}`, `sorted(f(x)) == [...]` and the like, and the
asserts of a HumanEval `check(candidate)` that holds nothing else. Python's own rules apply to the rebuilt value:
1 == 1.0, (1,) != [1], floats exactly. All else, loops and helpers and objects, is left to a test process.
"""

from __future__ import annotations

import ast
import builtins
import copy
import dataclasses
import math
import sys
from typing import Any

from sml_jax.errors import UserError
from sml_jax.tasks.sandbox_values import Iterated, encode, guard_hashes

TOLERANCE = 1e-6  # of floats in io_tests, relative and absolute


@dataclasses.dataclass(frozen=True)
class Case:
  """One test as calls with plain arguments, and what must hold of their values.

  Attributes:
    calls: (args, kwargs) of each call of the entry point, in order.
    check: a compiled expression of _0, _1, ..., the values; None compares the only value with `value`, as io_tests do.
    expected: the same in words, to be shown.
  """

  calls: list[tuple[list, dict]]
  check: Any
  expected: str
  value: Any = None

  def holds(self, values: list) -> bool:
    """Whether the test passes. Raises what the check raises, such as a TypeError for None - 2.5."""
    if self.check is None:
      return near(values[0], self.value)
    names = {f"_{i}": value for i, value in enumerate(values)}
    return bool(eval(self.check, {"__builtins__": {}, "math": math, **FUNCTIONS, **names}))

  @property
  def shown_input(self) -> str:
    """The arguments of the call, or of all of them."""
    texts = [", ".join([*map(shown, args), *(f"{key}={shown(value)}" for key, value in kwargs.items())])
             for args, kwargs in self.calls]
    return "; ".join(texts)


@dataclasses.dataclass(frozen=True)
class Plan:
  """The tests of a problem, ready to run.

  Attributes:
    prelude: imports and helpers of the prompt, and imports of the setup: run before the submission.
    tests: in order, a Case, or the text of a test for the test process.
    setup: what the test process runs first.
    names: what setup and tests use and do not define: the submission's, or a module.
  """

  prelude: str
  tests: list[Case | str]
  setup: str
  names: list[str]


def near(value: Any, expected: Any) -> bool:
  """Equality of a value and plain JSON: a tuple is a list, a bool is no number, numbers within TOLERANCE where a float
  is expected, a float for an int by the absolute TOLERANCE alone, int keys as JSON writes them; NaN equals nothing."""
  if isinstance(expected, bool) or isinstance(value, bool):
    return value is expected
  if isinstance(expected, int) and isinstance(value, int):
    return value == expected
  if isinstance(expected, int) and isinstance(value, float):
    return value == expected or (abs(expected) < 1 << 53 and abs(value - expected) <= TOLERANCE)
  if isinstance(expected, float) and isinstance(value, int | float):
    try:
      return math.isclose(value, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    except OverflowError:
      return False
  if isinstance(expected, list):
    return isinstance(value, list | tuple) and len(value) == len(expected) and all(map(near, value, expected))
  if isinstance(expected, dict):
    if not isinstance(value, dict) or len(value) != len(expected):
      return False
    written = {str(key) if type(key) is int else key: item for key, item in value.items()}
    return written.keys() == expected.keys() and all(near(written[key], expected[key]) for key in expected)
  return type(value) is type(expected) and value == expected


def _guarded(kind: type) -> Any:
  def build(items=()):
    items = list(items)
    guard_hashes(items)
    return kind(items)
  return build


# All take time in proportion to the length of a value; a submission cannot make this process hang.
FUNCTIONS = {"abs": abs, "len": len, "sorted": sorted, "list": list, "tuple": tuple, "round": round, "bool": bool,
             "float": float, "int": int, "str": str, "min": min, "max": max, "any": any, "all": all,
             "set": _guarded(set), "frozenset": _guarded(frozenset)}
_COMPARES = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn)
_PLAIN = (ast.Expression, ast.Constant, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.BoolOp, ast.And, ast.Or,
          ast.UnaryOp, ast.Not, ast.USub, ast.Load, ast.Add, ast.Sub, ast.Is, ast.IsNot, *_COMPARES)


class _Calls(ast.NodeTransformer):
  """Replaces calls of the entry point that have literal arguments by names of their values."""

  def __init__(self, entry: str):
    self.entry, self.found = entry, []

  def visit_Call(self, node: ast.Call) -> ast.AST:
    if isinstance(node.func, ast.Name) and node.func.id == self.entry:
      try:
        args = [ast.literal_eval(arg) for arg in node.args]
        kwargs = {key.arg: ast.literal_eval(key.value) for key in node.keywords}
        for arg in (*args, *kwargs.values()):
          encode(arg, no_handle)
      except (ValueError, TypeError):
        return node
      if None not in kwargs:
        self.found.append((args, kwargs))
        return ast.copy_location(ast.Name(f"_{len(self.found) - 1}", ast.Load()), node)
    return self.generic_visit(node)


def case_of(node: ast.stmt, entry: str, taken: set[str]) -> Case | None:
  """The case of an assert statement; None if its form is another. `taken`: names that have a meaning of their own."""
  if not isinstance(node, ast.Assert):
    return None
  source = _written(node.test)
  calls = _Calls(entry)
  test = calls.visit(ast.Expression(copy.deepcopy(node.test)))
  names = [f"_{i}" for i in range(len(calls.found))]
  if not names or not _decidable(test.body, names, taken):
    return None
  body = test.body
  expected = source
  if isinstance(body, ast.Compare) and len(body.ops) == 1 and isinstance(body.ops[0], ast.Eq | ast.Is):
    sides = [body.left, body.comparators[0]]
    plain = [side for side in sides if not _uses(side)]
    if len(plain) == 1 and any(isinstance(side, ast.Name) for side in sides):
      expected = _written(plain[0])
  elif isinstance(body, ast.Name):
    expected = "a true value"
  elif isinstance(body, ast.UnaryOp) and isinstance(body.operand, ast.Name):
    expected = "a false value"
  return Case(calls.found, compile(ast.fix_missing_locations(test), "test", "eval"), expected)


def _written(node: ast.AST) -> str:
  try:
    return ast.unparse(node)
  except ValueError:  # an int of more digits than Python writes
    return "a long number"


def _uses(node: ast.AST) -> bool:
  return any(isinstance(part, ast.Name) and part.id.startswith("_") for part in ast.walk(node))


def _decidable(node: ast.AST, names: list[str], taken: set[str]) -> bool:
  inner = lambda: all(_decidable(child, names, taken) for child in ast.iter_child_nodes(node))
  if isinstance(node, ast.Name):
    return node.id in names
  if isinstance(node, ast.BinOp) and not isinstance(node.op, ast.Add | ast.Sub):
    parts = [part for part in ast.walk(node) if not isinstance(part, ast.operator | ast.unaryop)]
    return all(isinstance(part, ast.BinOp | ast.UnaryOp) or type(getattr(part, "value", "")) in (int, float)
               for part in parts)
  if isinstance(node, ast.Compare) and any(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
    singletons = [isinstance(side, ast.Constant) and side.value in (None, True, False)
                  and type(side.value) in (bool, type(None)) for side in node.comparators]
    return all(singletons) and inner()
  if isinstance(node, ast.Call):
    of_math = ast.unparse(node.func) in ("math.isclose", "math.fabs") and "math" not in taken
    simple = isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS and node.func.id not in taken
    if not of_math and not (simple and not node.keywords and len(node.args) <= 1 + (node.func.id == "round")):
      return False
    if any(isinstance(arg, ast.Starred) for arg in node.args) or any(key.arg is None for key in node.keywords):
      return False
    return all(_decidable(arg, names, taken) for arg in [*node.args, *(key.value for key in node.keywords)])
  return isinstance(node, (*_PLAIN, ast.BinOp, ast.Compare)) and inner()


def plan_of(prompt: str, entry: str, setup: str, asserts: tuple[str, ...], io_tests: tuple[dict, ...],
            test: str) -> Plan:
  """The plan of a problem's tests. Raises UserError for one that is not Python or that cannot fail, and if none calls
  the entry point."""
  try:
    return _plan_of(prompt, entry, setup, asserts, io_tests, test)
  except (RecursionError, MemoryError):
    raise UserError(f"the problem of {entry!r} has tests that are nested too deeply") from None


def _plan_of(prompt: str, entry: str, setup: str, asserts: tuple[str, ...], io_tests: tuple[dict, ...],
             test: str) -> Plan:
  setup_tree = _parse("setup", setup)
  helpers = _helpers(prompt, entry)
  imports = [node for node in setup_tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
  only_math = all(isinstance(node, ast.Import) and [name.name for name in node.names] == ["math"]
                  for node in setup_tree.body)
  taken = {entry} | _bound([*helpers, *([] if only_math else setup_tree.body)])
  tests: list[Case | str] = []
  for number, text in enumerate(asserts, 1):
    body = _parse(f"assert {number}", text).body
    if all(map(_idle, body)):
      raise UserError(f"assert {number}: nothing in it can fail: {text.strip()[:80]!r}")
    case = case_of(body[0], entry, taken) if len(body) == 1 else None
    tests.append(case or text)
  if test:
    tree = _parse("test", test)
    check = [node for node in tree.body if getattr(node, "name", "") == "check"]
    if all(map(_idle, (check[-1].body if check else tree.body))):
      raise UserError("test: nothing in it can fail: expected asserts, or a function check(candidate) with asserts")
    tests += _check_cases(tree, entry, taken) or [_call_check(test, entry)]
  for number, row in enumerate(io_tests, 1):
    if not isinstance(row, dict) or not isinstance(row.get("args"), list) or row.keys() != {"args", "expected"}:
      raise UserError(f"io_tests {number}: expected {{\"args\": [...], \"expected\": ...}}, got {shown(row)[:80]}")
    try:
      for value in (*row["args"], row["expected"]):
        encode(value, no_handle)
    except ValueError as e:
      raise UserError(f"io_tests {number}: {e}") from None
    tests.append(Case([(row["args"], {})], None, shown(row["expected"]), row["expected"]))
  if not tests:
    raise UserError(f"the problem of {entry!r} has no tests: everything would pass")
  first = "\n".join(ast.unparse(node) for node in [*imports, *helpers])
  before = "\n".join([*map(ast.unparse, helpers), setup])
  trees = [ast.parse(text) for text in [before, *(text for text in tests if isinstance(text, str))]]
  used = {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}
  names = sorted(used - _bound(trees) - vars(builtins).keys() | {entry} & used)
  of_program = {entry} & used | set(names) - sys.stdlib_module_names
  if not of_program and not any(isinstance(test, Case) for test in tests):
    raise UserError(f"no test calls {entry!r}: everything would pass")
  return Plan(first, tests, before, names)


def _parse(where: str, text: str) -> ast.Module:
  try:
    return ast.parse(text)
  except (SyntaxError, ValueError) as e:
    raise UserError(f"{where}: expected Python, got {text.strip()[:80]!r} ({e})") from None


def _idle(node: ast.stmt) -> bool:
  """Whether a statement holds for every program: one that does nothing, a definition, an assert of a constant or of a
  tuple, as in `assert (f(1) == 2, "message")`."""
  if isinstance(node, ast.Assert):
    return isinstance(node.test, ast.Constant | ast.Tuple) and bool(getattr(node.test, "elts", 0) or
                                                                    getattr(node.test, "value", 0))
  kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Pass)
  return isinstance(node, kinds) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant | ast.Compare))


def _helpers(prompt: str, entry: str) -> list[ast.stmt]:
  """Top-level statements of a prompt that is Python, but the function that is asked for; none if it is prose."""
  for text in (prompt, prompt + "\n    pass\n"):
    try:
      body = ast.parse(text).body
    except (SyntaxError, ValueError):
      continue
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    return [node for node in body if isinstance(node, kinds) and getattr(node, "name", None) != entry]
  return []


def _bound(nodes: list[ast.AST]) -> set[str]:
  """All names that the code gives a meaning."""
  out: set[str] = set()
  for node in (part for top in nodes for part in ast.walk(top)):
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
      out.add(node.id)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler):
      out.add(node.name or "")
    elif isinstance(node, ast.arg):
      out.add(node.arg)
    elif isinstance(node, ast.alias):
      out.add((node.asname or node.name).split(".")[0])
  return out


def _check_cases(tree: ast.Module, entry: str, taken: set[str]) -> list[Case]:
  """The cases of `def check(candidate)` if all of its statements are asserts with calls that have a case; else []."""
  check = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
  if len(check) != 1 or len(check[0].args.args) != 1:
    return []
  others = [node for node in tree.body if node is not check[0]]
  candidate = check[0].args.args[0].arg
  cases: list[Case] = []
  for node in check[0].body:
    constant = node.test if isinstance(node, ast.Assert) else node.value if isinstance(node, ast.Expr) else None
    if isinstance(constant, ast.Constant) and (isinstance(node, ast.Expr) or constant.value):
      continue  # `assert True, "..."`, a docstring
    case = case_of(node, candidate, taken | _bound(others))
    if case is None:
      return []
    cases.append(dataclasses.replace(case, expected=case.expected.replace(candidate, entry)))
  return cases


def _call_check(test: str, entry: str) -> str:
  defines = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in ast.parse(test).body)
  return f"{test}\ncheck({entry})\n" if defines else test


def no_handle(value: Any) -> int:
  """For encode(), where all must be plain data. Raises TypeError."""
  raise TypeError(f"a test's argument that is not plain data: {type(value).__name__}")


def shown(value: Any) -> str:
  """A value in a report."""
  try:
    return f"<iterator> {value.known!r}" if isinstance(value, Iterated) else repr(value)
  except Exception as e:  # an int of more digits than Python writes
    return f"<{type(value).__name__}: {type(e).__name__}>"
