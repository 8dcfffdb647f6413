"""The process that runs the code of a test, in a sandbox of its own: the submission's names are proxies in it.

A test is trusted, what comes back from the submission is not: it arrives rebuilt as plain values, or as a `Remote`
that can be called but is equal to itself alone. A test may take it apart only if it names a class of the submission
(as LRUCache(2).get(1) does): else an object with methods of its own could stand in for a str or a list and give the
verdict, say by a `startswith` that is always true; only its truth and, once for all, its items can be asked for.
Standard library only.
"""

from __future__ import annotations

import ast
import builtins
import dis
import marshal
import types
from collections.abc import Iterator

from sml_jax.tasks.sandbox_values import Elsewhere, decode, encode

# What a test may ask of an object of the submission. Nothing that is given the expected value, such as == or -.
SPECIAL = ("__len__", "__getitem__", "__setitem__", "__delitem__", "__next__", "__str__", "__repr__")


class RemoteError(Exception):
  """An exception that the submission raised and that is not one of Python's own."""


class Remote(Elsewhere):
  """An object on the submission's side."""

  def __init__(self, link: Link, target: int):
    object.__setattr__(self, "_link", link)
    object.__setattr__(self, "_target", target)
    object.__setattr__(self, "_items", None)

  def __call__(self, *args, **kwargs) -> object:
    return self._link.call(self._target, args, kwargs)

  def __getattr__(self, name: str) -> object:
    if name.startswith("__") or not self._link.open:
      raise AttributeError(f"{name}: the program returned an object that is not plain data")
    return self._link.ask({"op": "attribute", "target": self._target, "name": name})

  def __setattr__(self, name: str, value: object) -> None:
    self._link.ask({"op": "set_attribute", "target": self._target, "name": name, "value": self._link.encode(value)})

  def __bool__(self) -> bool:
    return self._link.special(self, "__bool__") is True

  def __iter__(self) -> Iterator:
    if self._link.open:
      return iter(self._link.special(self, "__iter__"))
    if self._items is None:  # the same for every part of the test
      object.__setattr__(self, "_items", list(self._link.special(self, "__iter__")))
    return iter(self._items)

  def _more(self, count: int) -> list:
    items = self._link.ask({"op": "more", "target": self._target, "count": count})
    return items if type(items) is list else []


def _special(name: str) -> object:
  def method(self, *args):
    if not self._link.open:
      raise TypeError(f"{name}: the program returned an object that is not plain data")
    return self._link.special(self, name, *map(self._link.encode, args))
  return method


for _name in SPECIAL:
  setattr(Remote, _name, _special(_name))


class Link:
  """Questions to the submission, which the parent passes on, and what is to be shown of the last call."""

  def __init__(self, channel: object, open: bool):
    self._channel = channel
    self.open = open
    self._known: dict[int, Remote] = {}
    self.last: dict[str, str] = {}
    self.unsendable = ""

  def encode(self, value: object) -> object:
    try:
      return encode(value, self._handle)
    except ValueError as e:
      self.unsendable = f"the test passes to the program {e}"
      raise

  def special(self, remote: Remote, name: str, *args) -> object:
    return self.ask({"op": "special", "target": remote._target, "name": name, "args": list(args)})

  def _handle(self, value: object) -> int | dict:
    if type(value) is Remote:
      return value._target
    name = getattr(value, "__name__", "")
    if vars(builtins).get(name) is value:  # such as `int`, or `max`
      return {"builtin": name}
    if type(value) is types.FunctionType and value.__closure__ is None and self_contained(value.__code__):
      return {"code": marshal.dumps(value.__code__).hex(), "defaults": self.encode(value.__defaults__ or ())}
    self.unsendable = f"the test passes a {type(value).__name__} to the program, which is not plain data"
    raise TypeError(self.unsendable)

  def _decode(self, tree: object) -> object:
    return decode(tree, lambda handle: self._known.setdefault(int(handle), Remote(self, int(handle))))

  def ask(self, question: dict) -> object:
    """The submission's answer as a value; raises the exception that it raised there."""
    return self._value(self._channel.ask(question))

  def _value(self, answer: dict) -> object:
    if "error" in answer:
      name, text, base = answer["error"]
      kind = getattr(builtins, base, None)
      ours = isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError)
      ours = ours and (kind is not Exception or name == base)
      raise kind(text) if ours else RemoteError(f"{name}: {text}")
    return self._decode(answer["value"])

  def call(self, target: int, args: tuple, kwargs: dict) -> object:
    shown = [*map(short, args), *(f"{key}={short(arg)}" for key, arg in kwargs.items())]
    self.last = {"input": ", ".join(shown)}
    question = {"op": "call", "target": target, "args": [self.encode(arg) for arg in args],
                "kwargs": {key: self.encode(arg) for key, arg in kwargs.items()}}
    answer = self._channel.ask(question)
    value = self._value(answer)
    self.last["actual"] = short(value)
    if value is None:
      for arg, tree in zip(args, answer.get("in_place", ()), strict=False):
        become(arg, self._decode(tree))
    return value


def self_contained(code: types.CodeType) -> bool:
  """Whether a function uses nothing global but Python's builtins."""
  used = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
  inner = [part for part in code.co_consts if isinstance(part, types.CodeType)]
  return used <= vars(builtins).keys() and all(map(self_contained, inner))


def become(old: object, new: object) -> None:
  """Changes a list, dict, set or bytearray into another."""
  if type(old) is type(new) and old != new:
    if type(old) in (list, bytearray):
      old[:] = new
    elif type(old) in (dict, set):
      old.clear()
      old.update(new)


def short(value: object) -> str:
  if type(value) is Remote:
    return "<an object of the program>"
  try:
    return repr(value)[:500]
  except Exception as e:
    return f"<{type(e).__name__}>"


def judge(channel: object) -> None:
  """Runs the tests of one request and reports on each; the last report has no index."""
  request = channel.receive()
  link = Link(channel, any(name[0].isupper() for name in request["names"]))  # a class, by the way it is written
  space: dict[str, object] = {"__name__": "test"}
  for name in request["names"]:
    try:
      space[name] = link.ask({"op": "get", "name": name})
    except Exception:
      pass  # the test meets a NameError where it needs it
  blame = run(request["setup"], space, link)
  for index, text in enumerate(request["tests"]):
    link.last = {}
    found = blame or run(text, space, link)
    channel.ask({"report": index, **link.last, **(found or {})})
  channel.send({"report": None})


def run(text: str, space: dict, link: Link) -> dict | None:
  """What went wrong, or None: the assertion or the error, and whether the executor is to blame."""
  try:
    exec(compile(text, "test", "exec", dont_inherit=True), space)
    return None
  except BaseException as e:
    failed = isinstance(e, AssertionError)
    line, step = 0, e.__traceback__
    while step:
      line = step.tb_lineno if step.tb_frame.f_code.co_filename == "test" else line
      step = step.tb_next
    return {"expected": statement(text, line), "error": "" if failed else f"{type(e).__name__}: {e}"[:500],
            "unsendable": link.unsendable}


def statement(text: str, line: int) -> str:
  """The statement at a line, without what is inside of it."""
  try:
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt)]
  except SyntaxError:
    return text[:500]
  around = [node for node in nodes if node.lineno <= line <= node.end_lineno]
  return ast.unparse(min(around, key=lambda node: node.end_lineno - node.lineno))[:500] if around else ""
