"""A program as the set of its telling expressions in normal form: names, order, layout and spelling forgotten."""

from __future__ import annotations

import ast
import builtins
import collections
import copy
import functools
import re
import textwrap
import warnings
from collections.abc import Iterator

MOST = 20_000  # characters of a program
LINE_MARK = re.compile(r"^\s*(?:>>>|\.\.\.(?=\s)|[+>|](?=\s)|\d{1,3}[.:)|](?=\s)|-(?=\s)|[*•](?=\s))\s?")
BUILTINS = frozenset(dir(builtins))
_COMMUTE = (ast.Add, ast.Mult, ast.Div, ast.BitAnd, ast.BitOr, ast.BitXor)
_FLIP = {"Gt": "Lt", "GtE": "LtE"}
_IDIOM_CALLS = {"range", "len", "int", "str", "list", "set", "dict", "tuple", "float", "enumerate", "print", "input",
                "append", "sorted", "reversed", "zip", "bool", "iter", "isinstance", "split", "strip", "lower", "items"}


class Piece:
  """A normal form of an expression with its size in nodes and its parts."""

  __slots__ = ("key", "parts", "size")

  def __init__(self, key: str, size: int, parts: list[Piece]):
    self.key, self.size, self.parts = key, size, parts

  def walk(self) -> Iterator[Piece]:
    yield self
    for part in self.parts:
      yield from part.walk()


def parse(text: str) -> ast.Module | None:
  if len(text) > MOST:
    return None
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      return ast.parse(textwrap.dedent(text.replace("\r", "")).strip("\n"))
  except (SyntaxError, ValueError, MemoryError, RecursionError):
    return None


def single_line(line: str) -> ast.Module | None:
  """A single line of code without its block: `else: x`, `elif x:`, `for a in b:`."""
  line = line.strip()
  if len(line) > 2000:
    return None
  line = re.sub(r"^elif\b", "if", line)
  line = re.sub(r"^(?:else|try|finally)\s*:\s*|^except[^:]*:\s*", "", line)
  if not line or line.startswith("#"):
    return ast.parse("")
  for text in (line, f"{line} pass", f"{line}: pass"):
    tree = parse(text)
    if tree is not None:
      return tree
  return None


def trees(code: str) -> list[ast.Module]:
  """The syntax tree of a program; of a part whose lines do not fit together, of each line."""
  tree = parse(code)
  if tree is None:
    lines = [LINE_MARK.sub("", line) if not line.startswith((" ", "\t")) else line for line in code.splitlines()[:400]]
    whole = parse("\n".join(lines))
    return [whole] if whole is not None else [t for t in (single_line(LINE_MARK.sub("", line)) for line in lines)
        if t is not None]
  return [tree]


def _inlined(tree: ast.Module) -> ast.Module:
  """The program with each variable that is set once and read once replaced by its value."""
  names = [n for n in ast.walk(tree) if isinstance(n, ast.Name)]
  stored = collections.Counter(n.id for n in names if isinstance(n.ctx, ast.Store))
  read = collections.Counter(n.id for n in names if isinstance(n.ctx, ast.Load))
  values = {n.targets[0].id: n.value for n in ast.walk(tree) if isinstance(n, ast.Assign) and len(n.targets) == 1
            and isinstance(n.targets[0], ast.Name)}
  values = {k: v for k, v in values.items() if stored[k] == read[k] == 1}

  class Put(ast.NodeTransformer):
    depth = 0

    def visit_Name(self, node: ast.Name) -> ast.expr:
      if not isinstance(node.ctx, ast.Load) or node.id not in values or self.depth > 8:
        return node
      self.depth += 1
      out = self.visit(copy.deepcopy(values[node.id]))
      self.depth -= 1
      return out

  return Put().visit(copy.deepcopy(tree)) if values else tree


@functools.lru_cache(maxsize=512)
def pieces_of(code: str, inline: bool = False) -> tuple[Piece, ...]:
  """The telling expressions of a program or of a part of one; inline: variables used once replaced by their value."""
  out: list[Piece] = []
  for tree in trees(code):
    try:
      for node in ast.walk(_inlined(tree) if inline else tree):
        out.extend(telling(node))
    except RecursionError:
      continue
  return tuple(out)


def telling(node: ast.AST) -> Iterator[Piece]:
  values: list[ast.expr | None] = []
  if isinstance(node, (ast.Assign, ast.AnnAssign, ast.Return, ast.NamedExpr, ast.Expr)):
    values = [node.value]
    if isinstance(node, ast.Assign):
      values += [t for t in node.targets if not isinstance(t, ast.Name)]
  elif isinstance(node, ast.AugAssign):
    values = [ast.BinOp(left=node.target, op=node.op, right=node.value)]
  elif isinstance(node, (ast.If, ast.While)):
    values = [node.test]
  elif isinstance(node, ast.For):
    values = [node.iter]
  elif isinstance(node, ast.Lambda):
    values = [node.body]
  for value in values:
    if value is None or isinstance(value, ast.Constant):
      continue
    piece = piece_of(value)
    if not idle(value, piece):
      yield piece


def idle(node: ast.expr, piece: Piece) -> bool:
  """What anybody writes: a name, a constant, `range(n)`, `[]`, `i + 1`, `x.append(y)`."""
  if piece.size < 3:
    return True
  if isinstance(node, ast.Call):
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    return name in _IDIOM_CALLS and piece.size <= 7 and all(map(_plain, ast.walk(node)))
  return _by_one(node) or (isinstance(node, (ast.Tuple, ast.List)) and piece.size <= 4) or (
      isinstance(node, (ast.Compare, ast.Subscript)) and piece.size <= 3)


def _plain(node: ast.AST) -> bool:
  if isinstance(node, ast.Attribute):
    return node.attr in _IDIOM_CALLS
  if isinstance(node, ast.Constant) and isinstance(node.value, str):
    return len(node.value) < 2
  return not isinstance(node, (ast.BinOp, ast.Compare, ast.comprehension, ast.Lambda, ast.IfExp)) or _by_one(node)


def _by_one(node: ast.AST) -> bool:
  return isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)) and isinstance(
      node.right, ast.Constant) and node.right.value == 1 and isinstance(node.left, (ast.Name, ast.Call))


def _chain(node: ast.AST, ops: tuple[type, ...]) -> list[ast.AST]:
  """The operands of a + b + c, or a * b / c, whatever the brackets."""
  if isinstance(node, ast.BinOp) and isinstance(node.op, ops):
    right = node.right
    if isinstance(node.op, ast.Div) and isinstance(right, ast.Constant) and isinstance(right.value, (int, float)):
      return [*_chain(node.left, ops), ast.Constant(1 / right.value) if right.value else right]
    return [*_chain(node.left, ops), *_chain(right, ops)]
  return [node]


def _whole(node: ast.AST) -> int | None:
  return node.value if isinstance(node, ast.Constant) and type(node.value) is int else None


def _is_compile(node: ast.AST) -> bool:
  return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "compile"


def piece_of(node: ast.AST) -> Piece:
  if isinstance(node, ast.Name):
    return Piece("v", 1, [])  # `list` and `sum` too, which people call their arguments
  if isinstance(node, ast.Constant):
    value = node.value
    if isinstance(value, float) and value == value and abs(value) < 1e15 and value == int(value):
      value = int(value)
    return Piece(f"c:{value!r}", 3 if isinstance(value, str) and len(value) > 3 else 1, [])
  if isinstance(node, ast.Attribute):
    inner = piece_of(node.value)
    return Piece(f"{inner.key}.{node.attr}", inner.size + 1, [inner])
  if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_compile(node.func.value):
    inner = node.func.value  # re.compile(p).sub(...) is re.sub(p, ...)
    node = ast.Call(ast.Attribute(inner.func.value, node.func.attr), [*inner.args, *node.args], node.keywords)
  parts: list[Piece] = []
  name, extra = type(node).__name__, ""
  if isinstance(node, ast.BinOp):
    extra = type(node.op).__name__
    if isinstance(node.op, _COMMUTE):
      ops = (ast.Mult, ast.Div) if isinstance(node.op, (ast.Mult, ast.Div)) else (type(node.op),)
      operands = _chain(node, ops)
      parts = sorted(map(piece_of, operands), key=lambda p: p.key)
      extra = "Mult" if ast.Mult in ops else extra
    else:
      parts = [piece_of(node.left), piece_of(node.right)]
  elif isinstance(node, ast.Compare) and len(node.ops) == 1:
    left, right, extra = node.left, node.comparators[0], type(node.ops[0]).__name__
    if extra in _FLIP:
      left, right, extra = right, left, _FLIP[extra]
    if extra == "LtE" and (whole := _whole(right)) is not None:  # x <= 2 is x < 3
      right, extra = ast.Constant(whole + 1), "Lt"
    elif extra == "LtE" and (whole := _whole(left)) is not None:
      left, extra = ast.Constant(whole - 1), "Lt"
    parts = [piece_of(left), piece_of(right)]
    if extra in ("Eq", "NotEq"):
      parts.sort(key=lambda p: p.key)
      if parts[0].key == "BinOpMod(v,c:2)" and parts[1].key in ("c:0", "c:1"):
        return Piece("odd", 5, parts)  # or even
  else:
    for field, value in ast.iter_fields(node):
      if field in ("ctx", "kind", "type_comment", "type_ignores"):
        continue
      for item in value if isinstance(value, list) else [value]:
        if field == "func" and isinstance(item, ast.Name):
          parts.append(Piece(item.id if item.id in BUILTINS else "v", 1, []))
        elif isinstance(item, ast.AST):
          if not isinstance(item, (ast.operator, ast.boolop, ast.unaryop, ast.cmpop)):
            parts.append(piece_of(item))
          else:
            extra += type(item).__name__
        elif item is not None:
          extra += f"|{item if field != 'arg' else 'v'}"
    if isinstance(node, ast.BoolOp):
      parts.sort(key=lambda p: p.key)
  size = 1 + sum(p.size for p in parts)
  return Piece(f"{name}{extra}({','.join(p.key for p in parts)})", size, parts)
