"""Runs the short functions that students write, in a warm, killable process of their own."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import time
import weakref
from typing import Any, Literal

Status = Literal["ok", "error", "timeout", "failed"]

_WORKER = pathlib.Path(__file__).with_name("executor_worker.py")
_MEMO_SIZE = 100_000


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What became of a submission.

  Attributes:
    status: "ok" all calls returned; "error" it raised, died, or returned something that is not plain JSON;
      "timeout"; "failed" the executor itself did not work (a verifier failure, and never a wrong answer).
    values: one output a call, in order; after an error those of the calls before it.
    error: what went wrong, such as the exception's type.
  """

  status: Status
  values: list[Any]
  error: str = ""


def same(value: Any, expected: Any) -> bool:
  """Equality of plain JSON values with their types: True is not 1, and 1.0 is not 1."""
  if type(value) is not type(expected):
    return False
  if type(value) is list:
    return len(value) == len(expected) and all(map(same, value, expected))
  if type(value) is dict:
    return value.keys() == expected.keys() and all(same(value[key], expected[key]) for key in value)
  return value == expected


@dataclasses.dataclass(frozen=True)
class Submission:
  """Code that defines `entry`, and the argument lists (plain JSON) to call it with."""

  code: str
  calls: list[list]
  entry: str = "f"


class Executor:
  """A worker process that runs submissions; used from one thread, closed by `close`, `with`, or garbage collection.

  It protects training against what a student stumbles into: endless loops and recursion, memory, exits, crashes,
  prints, files, processes. The expected values stay in this process and are compared here, so no output, exit or
  odd `==` can make a wrong function right. It is no sandbox against an adversary: the code can read files, make
  empty ones and reach the network; without root it can signal processes of the same user; one that tampers with
  the interpreter can harm those behind it in the same `outputs_batch` (not in later ones); a process that leaves
  the group could outlive a kill. Do not give it the code of a strong model.

  Args:
    timeout_s: CPU seconds of a submission. CPU time, so that a busy machine does not make right code wrong.
    wall_s: clock seconds of a submission, for one that sleeps; default ten times timeout_s and a second.
    chunk: submissions that share a forked child.
  """

  def __init__(self, timeout_s: float = 1.0, wall_s: float | None = None, chunk: int = 64):
    self._cpu_s = timeout_s
    self._wall_s = 10 * timeout_s + 1 if wall_s is None else wall_s
    self._chunk = chunk
    self._memo: collections.OrderedDict[tuple[str, str, str], Outcome] = collections.OrderedDict()
    self._worker: subprocess.Popen | None = None
    self._finalizer = None
    self._buffer = b""

  def outputs(self, code: str, calls: list[list], entry: str = "f") -> Outcome:
    """Calls the function `entry` that the code defines with each argument list."""
    return self.outputs_batch([Submission(code, calls, entry)])[0]

  def outputs_batch(self, submissions: list[Submission]) -> list[Outcome]:
    """`outputs` of many, in order; about 0.1 ms each. Equal ones, and those seen before, run once."""
    keys = [(s.code, json.dumps(s.calls), s.entry) for s in submissions]
    known = {key: self._memo[key] for key in keys if key in self._memo}
    new = list(dict.fromkeys(key for key in keys if key not in known))
    for start in range(0, len(new), self._chunk):
      chunk = new[start:start + self._chunk]
      known.update(zip(chunk, self._run(chunk), strict=True))
    for key in new:
      if known[key].status != "failed":
        self._memo[key] = known[key]
    while len(self._memo) > _MEMO_SIZE:
      self._memo.popitem(last=False)
    return [known[key] for key in keys]

  def close(self) -> None:
    """Kills the worker and whatever it started; a later call starts a new one."""
    if self._finalizer is not None:
      self._finalizer()
    self._worker = self._finalizer = None

  def __enter__(self) -> Executor:
    return self

  def __exit__(self, *unused) -> None:
    self.close()

  def _run(self, chunk: list[tuple[str, str, str]]) -> list[Outcome]:
    out: list[Outcome] = []
    deaths = 0  # of the worker, at the same submission
    while len(out) < len(chunk):
      before = len(out)
      try:
        self._send(chunk[before:])
        while len(out) < len(chunk):
          out.append(self._receive(len(json.loads(chunk[len(out)][1]))))
      except TimeoutError:
        self.close()
        out.append(Outcome("timeout", [], "out of time"))
      except (OSError, EOFError) as e:
        self.close()
        deaths = deaths + 1 if len(out) == before else 1
        if deaths == 2:
          out.append(Outcome("failed", [], f"the worker died twice: {type(e).__name__}"))
          deaths = 0
    return out

  def _send(self, chunk: list[tuple[str, str, str]]) -> None:
    if self._worker is None:
      self._start()
    batch = [{"code": code, "calls": json.loads(calls), "entry": entry} for code, calls, entry in chunk]
    line = json.dumps({"cpu_s": self._cpu_s, "wall_s": self._wall_s, "batch": batch}) + "\n"
    self._worker.stdin.write(line.encode())
    self._worker.stdin.flush()

  def _receive(self, n_calls: int) -> Outcome:
    """The next answer. Raises TimeoutError, or EOFError if the worker is gone."""
    # Longer than the child's own alarm, which is the usual way out and spares a restart.
    deadline = time.monotonic() + 1.5 * self._wall_s + 1
    pipe = self._worker.stdout.fileno()
    while b"\n" not in self._buffer:
      if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
        raise TimeoutError
      data = os.read(pipe, 1 << 16)
      if not data:
        raise EOFError
      self._buffer += data
    line, self._buffer = self._buffer.split(b"\n", 1)
    try:
      answer = Outcome(**json.loads(line))
      if answer.status in ("error", "timeout") or (answer.status == "ok" and len(answer.values) == n_calls):
        return answer
    except (ValueError, TypeError):
      pass
    return Outcome("error", [], "forged output")

  def _start(self) -> None:
    # A fresh interpreter, never a fork of the JAX process. No site, no user's site, no script's folder on the path;
    # not -I, which would ignore the hash seed that makes the order of a set the same in every run.
    self._buffer = b""
    self._worker = subprocess.Popen(
        [sys.executable, "-s", "-P", "-S", str(_WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, start_new_session=True, cwd="/", env={"PYTHONHASHSEED": "0"})
    self._finalizer = weakref.finalize(self, _kill, self._worker)


def _kill(worker: subprocess.Popen) -> None:
  try:
    os.killpg(worker.pid, signal.SIGKILL)
  except ProcessLookupError:
    pass
  worker.stdout.close()
  try:
    worker.stdin.close()
  except OSError:
    pass
  worker.wait()
