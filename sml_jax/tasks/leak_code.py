"""Does a turn hold the reference program? By syntax tree: names, order, constants' spelling and layout do not matter.

A program is the set of its telling expressions: what it returns, assigns, tests and loops over, names forgotten. What
anybody writes (`for i in range(n)`, `x = 0`, `return result`, a signature) tells nothing and weighs nothing.
"""

from __future__ import annotations

import ast
import builtins
import collections
import copy
import functools
import itertools
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence

_MOST = 20_000  # characters of a block, lines of a turn are limited too
_SHARE = 0.5  # of the reference's telling nodes that a turn must hold
_PLAIN = 12  # nodes; a program that tells less is compared by its statements too
_LEAST = 5  # nodes of a piece that tells something by itself
_FENCE = re.compile(r"(?:```|~~~)[^\n]*\n(.*?)(?:```|~~~|\Z)", re.DOTALL)
_INLINE = re.compile(r"(?<!`)(`+)(?!`)([^`\n]{1,400})\1(?!`)")
_LIST = re.compile(r"(?<![\w\])])\[(?=[^\n]{1,200}\bfor\b)")
_CALL = re.compile(r"(?<![\w.`])[A-Za-z_][\w.]*\(")
_SUM = re.compile(r"(?<![\w.`(])\(*[A-Za-z_][\w.]*(?:\[[^\]\n]{1,30}\])?\)*(?:\s?(?:\*\*|//|<<|>>|[-+*/%&|^]"
    r"|[<>=!]=|[<>=])\s?\(*-?[\w.]+(?:\[[^\]\n]{1,30}\])?\)*)+")
_RETURN = re.compile(r"\b(return|lambda)\b[ (:]+([^\n]{1,300})")
_LINE_MARK = re.compile(r"^\s*(?:>>>|\.\.\.(?=\s)|[+>|](?=\s)|\d{1,3}[.:)|](?=\s)|-(?=\s)|[*•](?=\s))\s?")
_CODE_LINE = re.compile(r"[=()\[\]]|^\s*(?:return|for|while|if|elif|else|def|import|from|yield|lambda)\b")
_DIRECT = re.compile(r"\b(?:use|try|just|simply|write|should|could|can|must|need|enough|replace|change|make|would|want)\b"
    r"[^.!?\n]*$", re.IGNORECASE)
_OWN = re.compile(r"\b(?:your|you(?!(?:'ll)? (?:could|should|need|must|can|want))|instead of|not|why|current(?:ly)?|wrote"
    r"|student)\b[^.!?\n]*\n?[\s`]*(?:python)?[\s`]*$", re.IGNORECASE)
_BUILTINS = frozenset(dir(builtins))
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


@functools.lru_cache(maxsize=1024)
def is_code(text: str) -> bool:
  """Whether an answer is a program and not a value."""
  tree = parse(text)
  return tree is not None and any(isinstance(n, (ast.FunctionDef, ast.Return, ast.For, ast.While, ast.Import,
                                                 ast.ImportFrom, ast.ClassDef)) for n in ast.walk(tree))


def code_leak(solution: str, problem: str, turn: str, said: Sequence[str] = ()) -> tuple[int, int] | None:
  """Start and end of the code in a turn that holds the essential lines of the solution; None if there is none."""
  shown = _shown(problem, tuple(said))
  references = [[p for p in _reference(solution, inline) if p.key not in shown] for inline in (False, True)]
  few = sum(p.size for p in references[0]) < _PLAIN
  plain = [s for s in _statements(solution) if s not in shown] if few else []
  blocks = list(candidates(turn))
  holds = lambda code: any(_holds(told, code, shown) for told in references) or (bool(plain) and _repeats(plain, code))
  for start, end, code in blocks:
    if holds(code):
      return start, end
  for start, end, code in blocks:
    if _dictated(solution, code, shown) and not _quoted(turn, start, end):
      return start, end
  if len(blocks) > 1 and holds("\n".join(code for _, _, code in blocks[:200])[:_MOST]):
    return blocks[0][0], blocks[-1][1]
  return None


def _quoted(turn: str, start: int, end: int) -> bool:
  """Code of the student's that the turn speaks of: "you have `return a + b`", "`return a + b` gives the sum"."""
  left = turn[max(0, start - 60) : start]
  return bool(_OWN.search(left) or (re.match(r"[)`\s]*[a-z]", turn[end:]) and not _DIRECT.search(left)))


def _dictated(solution: str, code: str, shown: frozenset[str]) -> bool:
  """Whether code is a whole program of its own for the task: a definition with the reference's name, or what to return
  in terms of its arguments alone."""
  functions = _functions(solution)
  for tree in _trees(code):
    for node in tree.body:
      if isinstance(node, ast.FunctionDef) and node.name in functions:
        told = sum(p.size for n in ast.walk(node) for p in _telling(n) if p.key not in shown)
        if told >= _LEAST and any(isinstance(n, ast.Return) and n.value for n in ast.walk(node)):
          return True
      elif isinstance(node, ast.Return) and node.value and len(tree.body) == 1:
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        bound = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        bound |= {a.arg for n in ast.walk(node) if isinstance(n, ast.arguments) for a in n.args}
        free = names - bound - _BUILTINS
        piece = _piece(node.value)
        if piece.size >= _LEAST and piece.key not in shown and not _idle(node.value, piece) and any(
            arguments == free for arguments in functions.values()):
          return True
  return False


@functools.lru_cache(maxsize=512)
def _functions(solution: str) -> dict[str, set[str]]:
  tree = parse(solution)
  return {n.name: {a.arg for a in n.args.args} for n in tree.body if isinstance(n, ast.FunctionDef)} if tree else {}


def _repeats(plain: list[str], code: str) -> bool:
  """Whether code has most of a program of which no single expression tells anything, by length of statements."""
  both = collections.Counter(_statements(code)) & collections.Counter(plain)
  weight = lambda keys: sum(len(re.findall(r"[(,:]", key)) for key in keys)
  return weight(both.elements()) >= max(3, 0.75 * weight(plain))


@functools.lru_cache(maxsize=512)
def _statements(code: str) -> tuple[str, ...]:
  """Each statement of a program in one form with names forgotten, but for its signature and its strings."""
  out = []
  for tree in _trees(code):
    for node in ast.walk(tree):
      if isinstance(node, (ast.If, ast.While, ast.For, ast.Return, ast.Assign, ast.AugAssign)):
        head = [_piece(x).key for x in (getattr(node, f, None) for f in ("test", "iter", "target", "value"))
            if x is not None]
        out.append(f"{type(node).__name__}:{','.join(head)}")
  return tuple(out)


def _holds(told: list[Piece], code: str, shown: frozenset[str]) -> bool:
  total = sum(p.size for p in told)
  if total < 3:
    return False
  pieces = [*_pieces(code), *_pieces(code, inline=True)]
  if not pieces:
    return False
  has: set[str] = set()
  for piece in pieces:
    try:
      has |= {p.key for p in piece.walk()}
    except RecursionError:
      continue
  has -= shown
  # All of a tiny program must be there as a whole line, not somewhere inside another one.
  if total < _LEAST:
    return {p.key for p in told} <= {p.key for p in pieces}
  covered = [_covered(p, has) for p in told]
  whole = max((p.size for p, c in zip(told, covered, strict=True) if c == p.size), default=0)
  if whole >= max(_LEAST, 0.4 * total):
    return True
  return sum(covered) >= max(_LEAST, _SHARE * total) and (whole >= _LEAST or sum(covered) >= 0.7 * total)


def _covered(piece: Piece, has: set[str]) -> int:
  if piece.key in has and piece.size >= 3:
    return piece.size
  return sum(_covered(p, has) for p in piece.parts if p.size >= 4)


@functools.lru_cache(maxsize=1024)
def _reference(solution: str, inline: bool) -> tuple[Piece, ...]:
  found: dict[str, Piece] = {}
  for piece in _pieces(solution, inline):
    found.setdefault(piece.key, piece)
  return tuple(found.values())


@functools.lru_cache(maxsize=1024)
def _shown(problem: str, said: tuple[str, ...]) -> frozenset[str]:
  keys: set[str] = set()
  for text in (problem, *said):
    for _, _, code in candidates(text):
      keys |= _keys(code)
    if parse(text):
      keys |= _keys(text)
  return frozenset(keys)


def _keys(code: str) -> set[str]:
  return {p.key for piece in _pieces(code) for p in piece.walk()} | set(_statements(code))


def candidates(turn: str) -> Iterator[tuple[int, int, str]]:
  """(start, end, code) of fenced blocks, `inline code`, "return ..." in prose, and lines that look like code."""
  fenced = []
  for m in itertools.islice(_FENCE.finditer(turn), 100):
    fenced.append((m.start(), m.end()))
    yield m.start(1), m.end(1), m[1]
  inside = lambda i: any(a <= i < b for a, b in fenced)
  for count, m in enumerate(_INLINE.finditer(turn)):
    if count < 300 and not inside(m.start()):
      yield m.start(2), m.end(2), m[2].strip()
  for count, m in enumerate(_RETURN.finditer(turn)):
    if count >= 100 or inside(m.start()):
      continue
    text = m[2].strip().strip("`")
    for _ in range(12):
      if parse(text) is not None:
        if m[1] == "lambda":
          text = text.partition(":")[2] if ":" in text else text
        yield m.start(), m.start(2) + len(m[2]), f"return {text}" if m[1] == "return" else text
        break
      shorter = re.sub(r"(?:[^\w)\]}'\"]+|[\s.,;:!?)`]*\b[\w']+|\))$", "", text)
      if not shorter or shorter == text:
        break
      text = shorter
  yield from _lines(turn, fenced)
  for m in itertools.islice(_LIST.finditer(turn), 100):
    end = _closed(turn, m.start() + 1, "[]")
    if end and not inside(m.start()) and parse(turn[m.start() : end]) is not None:
      yield m.start(), end, turn[m.start() : end]
  for count, m in enumerate(_CALL.finditer(turn)):
    if count < 100 and not inside(m.start()):
      end = _closed(turn, m.end())
      if end and parse(turn[m.start() : end]) is not None:
        yield m.start(), end, turn[m.start() : end]
  for count, m in enumerate(_SUM.finditer(turn)):
    if count < 100 and not inside(m.start()) and len(m[0]) < 300 and parse(m[0]) is not None:
      yield m.start(), m.end(), m[0]


def _closed(text: str, start: int, pair: str = "()") -> int:
  """The place behind the bracket that closes one opened before `start`; 0 if it is far."""
  depth = 1
  for i in range(start, min(len(text), start + 300)):
    depth += {pair[0]: 1, pair[1]: -1}.get(text[i], 0)
    if depth == 0:
      return i + 1
  return 0


def _lines(turn: str, fenced: list[tuple[int, int]]) -> Iterator[tuple[int, int, str]]:
  """Runs of lines outside fences that read as Python."""
  run: list[str] = []
  start = place = 0
  for count, line in enumerate(turn.splitlines(keepends=True)):
    bare = _LINE_MARK.sub("", line).strip().strip("`")
    looks = count < 2000 and len(bare) < 400 and bool(_CODE_LINE.search(bare)) and not any(
        a <= place < b for a, b in fenced) and _line(bare) is not None and not bare.isidentifier()
    if looks:
      if not run:
        start = place
      run.append(line)
    elif run and line.strip():
      yield start, place, "".join(run)
      run = []
    place += len(line)
  if run:
    yield start, len(turn), "".join(run)


def parse(text: str) -> ast.Module | None:
  if len(text) > _MOST:
    return None
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      return ast.parse(textwrap.dedent(text.replace("\r", "")).strip("\n"))
  except (SyntaxError, ValueError, MemoryError, RecursionError):
    return None


def _line(line: str) -> ast.Module | None:
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


def _trees(code: str) -> list[ast.Module]:
  """The syntax tree of a program; of a part whose lines do not fit together, of each line."""
  tree = parse(code)
  if tree is None:
    lines = [_LINE_MARK.sub("", line) if not line.startswith((" ", "\t")) else line for line in code.splitlines()[:400]]
    whole = parse("\n".join(lines))
    return [whole] if whole is not None else [t for t in (_line(_LINE_MARK.sub("", line)) for line in lines)
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
def _pieces(code: str, inline: bool = False) -> tuple[Piece, ...]:
  """The telling expressions of a program or of a part of one; inline: variables used once replaced by their value."""
  out: list[Piece] = []
  for tree in _trees(code):
    try:
      for node in ast.walk(_inlined(tree) if inline else tree):
        out.extend(_telling(node))
    except RecursionError:
      continue
  return tuple(out)


def _telling(node: ast.AST) -> Iterator[Piece]:
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
    piece = _piece(value)
    if not _idle(value, piece):
      yield piece


def _idle(node: ast.expr, piece: Piece) -> bool:
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
    return [*_chain(node.left, ops), *_chain(node.right, ops)]
  return [node]


def _whole(node: ast.AST) -> int | None:
  return node.value if isinstance(node, ast.Constant) and type(node.value) is int else None


def _is_compile(node: ast.AST) -> bool:
  return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "compile"


def _piece(node: ast.AST) -> Piece:
  if isinstance(node, ast.Name):
    return Piece("v", 1, [])  # `list` and `sum` too, which people call their arguments
  if isinstance(node, ast.Constant):
    value = node.value
    if isinstance(value, float) and value == value and abs(value) < 1e15 and value == int(value):
      value = int(value)
    return Piece(f"c:{value!r}", 3 if isinstance(value, str) and len(value) > 3 else 1, [])
  if isinstance(node, ast.Attribute):
    inner = _piece(node.value)
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
      parts = sorted(map(_piece, operands), key=lambda p: p.key)
      extra = "Mult" if ast.Mult in ops else extra
    else:
      parts = [_piece(node.left), _piece(node.right)]
  elif isinstance(node, ast.Compare) and len(node.ops) == 1:
    left, right, extra = node.left, node.comparators[0], type(node.ops[0]).__name__
    if extra in _FLIP:
      left, right, extra = right, left, _FLIP[extra]
    if extra == "LtE" and (whole := _whole(right)) is not None:  # x <= 2 is x < 3
      right, extra = ast.Constant(whole + 1), "Lt"
    elif extra == "LtE" and (whole := _whole(left)) is not None:
      left, extra = ast.Constant(whole - 1), "Lt"
    parts = [_piece(left), _piece(right)]
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
          parts.append(Piece(item.id if item.id in _BUILTINS else "v", 1, []))
        elif isinstance(item, ast.AST):
          if not isinstance(item, (ast.operator, ast.boolop, ast.unaryop, ast.cmpop)):
            parts.append(_piece(item))
          else:
            extra += type(item).__name__
        elif item is not None:
          extra += f"|{item if field != 'arg' else 'v'}"
    if isinstance(node, ast.BoolOp):
      parts.sort(key=lambda p: p.key)
  size = 1 + sum(p.size for p in parts)
  return Piece(f"{name}{extra}({','.join(p.key for p in parts)})", size, parts)
