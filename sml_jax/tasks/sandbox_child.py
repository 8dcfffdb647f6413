"""What runs inside a sandbox: a submission's process, or the process of a test. Standard library only.

The parent sends the compiled modules (there are no project files in here), then JSON lines; each gets one JSON line
back. The submission shares this process and may do with it as it likes: no expected value ever comes here, and all
that a forged line can do is to stand for the value of the call that the parent waits for.
"""

from __future__ import annotations

import builtins
import json
import marshal
import os
import sys
import types

from sml_jax.tasks.sandbox_isolate import isolate
from sml_jax.tasks.sandbox_values import decode, encode

MAX_MESSAGE = {"submission": 4 << 20, "judge": 64 << 20}  # bytes
RECURSION = 10_000
FIRST = 16  # items of an iterator that are sent with it: it may have no end


class Channel:
  """JSON lines to and from the parent."""

  def __init__(self, read: int, write: int, most: int):
    self._read, self._write, self._most, self._nonce = os.fdopen(read, "rb"), write, most, None

  def receive(self) -> dict:
    line = self._read.readline()
    if not line:
      os._exit(0)  # the parent is done
    request = json.loads(line)
    self._nonce = request.pop("nonce")
    return request

  def send(self, answer: dict) -> None:
    line = memoryview(json.dumps({"nonce": self._nonce, **answer}, separators=(",", ":")).encode() + b"\n")
    if len(line) > self._most:
      raise ValueError(f"a value of more than {self._most >> 20} MB")
    while line:
      line = line[os.write(self._write, line):]

  def ask(self, question: dict) -> dict:
    self.send(question)
    return self.receive()


def main(spec: dict) -> None:
  """Isolates this process, says so, and serves. Never returns."""
  channel = None
  try:
    null = os.open(os.devnull, os.O_RDWR)
    isolate(spec)
    read, write = os.dup(0), os.dup(1)
    for fd in (0, 1, 2):
      os.dup2(null, fd)
    channel = Channel(read, write, MAX_MESSAGE[spec["role"]])
    os.close(null)
    os.closerange(max(read, write) + 1, 64)
  except Exception as e:
    os.write(1, json.dumps({"fault": str(e)}).encode() + b"\n")
    os._exit(1)
  channel._nonce = spec["nonce"]
  channel.send({"ready": True})
  sys.setrecursionlimit(RECURSION)
  sys.set_int_max_str_digits(0)  # it is the limit on CPU time that decides
  for name in ("exit", "quit"):  # programs may rely on what the site module would have added
    setattr(builtins, name, sys.exit)
  if spec["role"] == "judge":
    from sml_jax.tasks.sandbox_judge import judge
    judge(channel)
  else:
    serve(channel, Submission())
  os._exit(0)


def serve(channel: Channel, submission: Submission) -> None:
  while True:
    request = channel.receive()
    try:
      answer = submission.do(**request)
    except BaseException as e:
      answer = {"error": describe(e)}
    try:
      channel.send(answer)
    except BaseException as e:  # too long, or no memory left for the text of it
      channel.send({"error": describe(e)})


def describe(error: BaseException) -> list[str]:
  """Its class, its text, and the class of Python's own that it is or derives from."""
  try:
    kind = type(error)
    base = next(known.__name__ for known in kind.__mro__ if vars(builtins).get(known.__name__) is known)
    text = str(error.args[0] if base == "KeyError" and len(error.args) == 1 else error)
    return [str.__str__(kind.__name__)[:100], str.__str__(text)[:500], base]
  except BaseException:
    return ["Exception", "", "Exception"]


class Submission:
  """A program's module, and the objects of it that were handed out."""

  def __init__(self):
    self._module = types.ModuleType("submission")
    sys.modules["submission"] = self._module  # dataclasses and typing look up the module of a class
    self._handed_out: list[object] = []

  def do(self, op: str, **what) -> dict:
    """One request of the parent: load, get, call, attribute, set_attribute, special, or more."""
    value = getattr(self, op)(**what)
    return value if op == "call" else {"value": self._encode(value)}

  def _encode(self, value: object) -> object:
    return encode(value, self._hand_out, FIRST)

  def load(self, prelude: str, code: str) -> None:
    space = vars(self._module)
    if "random" in code:
      import random
      random.seed(0)
    for text in (prelude, code):
      exec(compile(text, "submission", "exec", dont_inherit=True), space)

  def get(self, name: str) -> object:
    space = vars(self._module)
    if name not in space:
      raise NameError(f"name {name!r} is not defined")
    return space[name]

  def attribute(self, target: int, name: str) -> object:
    return getattr(self._handed_out[target], name)

  def set_attribute(self, target: int, name: str, value: object) -> None:
    setattr(self._handed_out[target], name, self._rebuild(value))

  def special(self, target: int, name: str, args: list) -> object:
    found = self._handed_out[target]
    if name in ("__iter__", "__bool__"):
      return iter(found) if name == "__iter__" else bool(found)
    if not hasattr(type(found), name):
      raise TypeError(f"an object of type {type(found).__name__!r} has no {name}")
    return getattr(type(found), name)(found, *map(self._rebuild, args))

  def more(self, target: int, count: int) -> list:
    """The next items of an iterator that was handed out; fewer than `count` are the last."""
    items = []
    try:
      while len(items) < count:  # no iter(), which may start again
        items.append(next(self._handed_out[target]))
    except StopIteration:
      pass
    return items

  def call(self, target: str | int, args: list, kwargs: dict) -> dict:
    """Calls a global by its name, or a handle. A function that returns None may have changed its arguments in place,
    as list.sort does: then what they have become goes back as well."""
    function = self.get(target) if isinstance(target, str) else self._handed_out[target]
    rebuilt = [self._rebuild(arg) for arg in args]
    value = function(*rebuilt, **{key: self._rebuild(arg) for key, arg in kwargs.items()})
    # A test that makes an object of a class wants its methods, even if the class is a list too.
    made = isinstance(function, type) and type(value) is function and function.__module__ == self._module.__name__
    made = made and any(not name.startswith("_") for name in vars(function))
    answer = {"value": {"h": self._hand_out(value)} if made else self._encode(value)}
    if value is None:
      answer["in_place"] = [self._encode(arg) for arg in rebuilt]
    return answer

  def _rebuild(self, tree: object) -> object:
    return decode(tree, self._find)

  def _find(self, handle: int | dict) -> object:
    if isinstance(handle, int):
      return self._handed_out[handle]
    if "builtin" in handle:
      return getattr(builtins, handle["builtin"])
    function = types.FunctionType(marshal.loads(bytes.fromhex(handle["code"])), {"__builtins__": builtins})
    function.__defaults__ = self._rebuild(handle["defaults"])
    return function

  def _hand_out(self, value: object) -> int:
    for handle, known in enumerate(self._handed_out):
      if known is value:
        return handle
    self._handed_out.append(value)
    return len(self._handed_out) - 1
