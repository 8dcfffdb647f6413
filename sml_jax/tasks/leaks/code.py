"""Does a turn hold the reference program? By syntax tree: names, order, constants' spelling and layout do not matter.

A program is the set of its telling expressions: what it returns, assigns, tests and loops over, names forgotten. What
anybody writes (`for i in range(n)`, `x = 0`, `return result`, a signature) tells nothing and weighs nothing.
"""

from __future__ import annotations

import ast
import collections
import functools
import itertools
import re
from collections.abc import Iterator, Sequence

from sml_jax.tasks.leaks import pieces as forms

_SHARE = 0.5  # of the reference's telling nodes that a turn must hold
_PLAIN = 12  # nodes; a program that tells less is compared by its statements too
_LEAST = 5  # nodes of a piece that tells something by itself
_FENCE = re.compile(r"(?:```|~~~)[^\n]*\n(.*?)(?:```|~~~|\Z)", re.DOTALL)
_INLINE = re.compile(r"(?<!`)(`+)(?!`)([^`\n]{1,400})\1(?!`)")
_LIST = re.compile(r"(?<![\w\])])\[(?=[^\n]{1,200}\bfor\b)")
_CALL = re.compile(r"(?<![\w.`])[A-Za-z_][\w.]*\(")
_SUM = re.compile(r"(?<![\w.`(])\(*[A-Za-z_][\w.]*(?:\[[^\]\n]{1,30}\])?\)*(?:\s?(?:\*\*|//|<<|>>|[-+*/%&|^]|[<>=!]="
    r"|[<>=])\s?\(*-?[\w.]+(?:\[[^\]\n]{1,30}\])?\)*)+")
_RETURN = re.compile(r"\b(return|lambda)\b[ (:]+([^\n]{1,300})")
_CODE_LINE = re.compile(r"[=()\[\]]|^\s*(?:return|for|while|if|elif|else|def|import|from|yield|lambda)\b")
_MODULES = {"math", "re", "collections", "itertools", "functools"}
_DIRECT = re.compile(r"\b(?:use|try|just|simply|write|should|could|can|must|need|enough|replace|change|make|would"
    r"|want)\b[^.!?\n]*$", re.IGNORECASE)
_OWN = re.compile(r"\b(?:your|you(?!(?:'ll)? (?:could|should|need|must|can|want))|instead of|not|why|current(?:ly)?"
    r"|wrote|student)\b[^.!?\n]*\n?[\s`]*(?:python)?[\s`]*$", re.IGNORECASE)


@functools.lru_cache(maxsize=1024)
def is_code(text: str) -> bool:
  """Whether an answer is a program and not a value."""
  tree = forms.parse(text)
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
  if len(blocks) > 1 and holds("\n".join(code for _, _, code in blocks[:200])[:forms.MOST]):
    return blocks[0][0], blocks[-1][1]
  return None


def _quoted(turn: str, start: int, end: int) -> bool:
  """Code of the student's that the turn speaks of: "you have `return a + b`", "`return a + b` gives the sum"."""
  left = turn[max(0, start - 60) : start]
  return bool(_OWN.search(left) or (re.match(r"[)`\s]*[a-z]", turn[end : end + 9]) and not _DIRECT.search(left)))


def _dictated(solution: str, code: str, shown: frozenset[str]) -> bool:
  """Whether code is a whole program of its own for the task: a definition with the reference's name, or what to return
  in terms of as many names as it has arguments."""
  functions = _functions(solution)
  for tree in forms.trees(code):
    for node in tree.body:
      if isinstance(node, ast.FunctionDef) and node.name in functions:
        told = sum(p.size for n in ast.walk(node) for p in forms.telling(n) if p.key not in shown)
        if told >= _LEAST and any(isinstance(n, ast.Return) and n.value for n in ast.walk(node)):
          return True
      elif isinstance(node, ast.Return) and node.value and len(tree.body) == 1:
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        names -= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        piece = forms.piece_of(node.value)
        if piece.size >= _LEAST and piece.key not in shown and not forms.idle(node.value, piece) and any(
            len(names - forms.BUILTINS - _MODULES) == count > 0 for count in functions.values()):
          return True
  return False


@functools.lru_cache(maxsize=512)
def _functions(solution: str) -> dict[str, int]:
  """The functions of a program, and how many arguments each takes that are not called like a builtin."""
  tree = forms.parse(solution)
  return {n.name: len({a.arg for a in n.args.args} - forms.BUILTINS) or 1 for n in tree.body if isinstance(
      n, ast.FunctionDef)} if tree else {}


def _repeats(plain: list[str], code: str) -> bool:
  """Whether code has most of a program of which no single expression tells anything, by length of statements."""
  both = collections.Counter(_statements(code)) & collections.Counter(plain)
  weight = lambda keys: sum(len(re.findall(r"[(,:]", key)) for key in keys)
  return weight(both.elements()) >= max(3, 0.75 * weight(plain))


@functools.lru_cache(maxsize=512)
def _statements(code: str) -> tuple[str, ...]:
  """Each statement of a program in one form with names forgotten, but for its signature and its strings."""
  out = []
  for tree in forms.trees(code):
    for node in ast.walk(tree):
      if isinstance(node, (ast.If, ast.While, ast.For, ast.Return, ast.Assign, ast.AugAssign)):
        head = [forms.piece_of(x).key for x in (getattr(node, f, None) for f in ("test", "iter", "target", "value"))
            if x is not None]
        out.append(f"{type(node).__name__}:{','.join(head)}")
  return tuple(out)


def _holds(told: list[forms.Piece], code: str, shown: frozenset[str]) -> bool:
  total = sum(p.size for p in told)
  if total < 3:
    return False
  pieces = [*forms.pieces_of(code), *forms.pieces_of(code, inline=True)]
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


def _covered(piece: forms.Piece, has: set[str]) -> int:
  if piece.key in has and piece.size >= 3:
    return piece.size
  return sum(_covered(p, has) for p in piece.parts if p.size >= 4)


@functools.lru_cache(maxsize=1024)
def _reference(solution: str, inline: bool) -> tuple[forms.Piece, ...]:
  found: dict[str, forms.Piece] = {}
  for piece in forms.pieces_of(solution, inline):
    found.setdefault(piece.key, piece)
  return tuple(found.values())


@functools.lru_cache(maxsize=1024)
def _shown(problem: str, said: tuple[str, ...]) -> frozenset[str]:
  keys: set[str] = set()
  for text in (problem, *said):
    for _, _, code in candidates(text):
      keys |= _keys(code)
    if forms.parse(text):
      keys |= _keys(text)
  return frozenset(keys)


def _keys(code: str) -> set[str]:
  return {p.key for piece in forms.pieces_of(code) for p in piece.walk()} | set(_statements(code))


def candidates(turn: str) -> Iterator[tuple[int, int, str]]:
  """(start, end, code) of fenced blocks, `inline code`, "return ..." in prose, and lines that look like code."""
  fenced = []
  for m in itertools.islice(_FENCE.finditer(turn), 100):
    fenced.append((m.start(), m.end()))
    yield m.start(1), m.end(1), m[1]
  outside = lambda pattern: (m for m in itertools.islice(pattern.finditer(turn), 200) if not any(
      a <= m.start() < b for a, b in fenced))
  for m in outside(_INLINE):
    yield m.start(2), m.end(2), m[2].strip()
  for m in outside(_RETURN):
    text = m[2].strip().strip("`")
    for _ in range(12):
      if forms.parse(text) is not None:
        if m[1] == "lambda":
          text = text.partition(":")[2] if ":" in text else text
        yield m.start(), m.start(2) + len(m[2]), f"return {text}" if m[1] == "return" else text
        break
      shorter = re.sub(r"(?:[^\w)\]}'\"]+|[\s.,;:!?)`]*\b[\w']+|\))$", "", text)
      if not shorter or shorter == text:
        break
      text = shorter
  yield from _lines(turn, fenced)
  for pattern, pair in ((_LIST, "[]"), (_CALL, "()")):
    for m in outside(pattern):
      end = _closed(turn, m.end(), pair)
      if end and forms.parse(turn[m.start() : end]) is not None:
        yield m.start(), end, turn[m.start() : end]
  for m in outside(_SUM):
    if len(m[0]) < 300 and forms.parse(m[0]) is not None:
      yield m.start(), m.end(), m[0]


def _closed(text: str, start: int, pair: str) -> int:
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
    bare = forms.LINE_MARK.sub("", line).strip().strip("`")
    looks = count < 2000 and len(bare) < 400 and bool(_CODE_LINE.search(bare)) and not any(
        a <= place < b for a, b in fenced) and forms.single_line(bare) is not None and not bare.isidentifier()
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
