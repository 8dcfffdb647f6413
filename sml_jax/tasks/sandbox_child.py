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

MAX_MESSAGE = 4 << 20  # bytes
RECURSION = 10_000


class Channel:
  """JSON lines to and from the parent."""

  def __init__(self, read: int, write: int):
    self._read, self._write, self._buffer, self._nonce = os.fdopen(read, "rb"), write, b"", None

  def receive(self) -> dict:
    line = self._read.readline()
    if not line:
      os._exit(0)  # the parent is done
    request = json.loads(line)
    self._nonce = request.pop("nonce")
    return request

  def send(self, answer: dict) -> None:
    line = json.dumps({"nonce": self._nonce, **answer}).encode() + b"\n"
    if len(line) > MAX_MESSAGE:
      line = json.dumps({"nonce": self._nonce, "error": ["ValueError", "the value is too long"]}).encode() + b"\n"
    while line:
      line = line[os.write(self._write, line):]

  def ask(self, question: dict) -> dict:
    self.send(question)
    return self.receive()


def main(spec: dict) -> None:
  """Isolates this process, says so, and serves. Never returns."""
  channel = None
  try:
    isolate(spec)
    read, write = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
      os.dup2(null, fd)
    channel = Channel(read, write)
    os.closerange(max(read, write) + 1, 64)
  except Exception as e:
    os.write(1, json.dumps({"fault": str(e)}).encode() + b"\n")
    os._exit(1)
  channel._nonce = spec["nonce"]
  channel.send({"ready": True})
  sys.setrecursionlimit(RECURSION)
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
    except BaseException as e:  # no memory left for the text of it, or strings that JSON cannot write
      channel.send({"error": describe(e)})


def describe(error: BaseException) -> list[str]:
  kind = type(error).__name__
  try:
    return [str.__str__(kind)[:100], str.__str__(str(error))[:500]]
  except BaseException:
    return ["Exception", ""]


class Submission:
  """A program's module, and the objects of it that were handed out."""

  def __init__(self):
    self._module = types.ModuleType("submission")
    sys.modules["submission"] = self._module  # dataclasses and typing look up the module of a class
    self._handed_out: list[object] = []

  def do(self, op: str, **what) -> dict:
    """One request of the parent: load, get, call, attribute, set_attribute, or special."""
    value = getattr(self, op)(**what)
    return value if op == "call" else {"value": encode(value, self._hand_out)}

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
    return iter(found) if name == "__iter__" else getattr(type(found), name)(found, *map(self._rebuild, args))

  def call(self, target: str | int, args: list, kwargs: dict) -> dict:
    """Calls a global by its name, or a handle. A function that returns None may have changed its arguments in place,
    as list.sort does: then what they have become goes back as well."""
    function = self.get(target) if isinstance(target, str) else self._handed_out[target]
    rebuilt = [self._rebuild(arg) for arg in args]
    value = function(*rebuilt, **{key: self._rebuild(arg) for key, arg in kwargs.items()})
    answer = {"value": encode(value, self._hand_out)}
    if value is None:
      answer["in_place"] = [encode(arg, self._hand_out) for arg in rebuilt]
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
