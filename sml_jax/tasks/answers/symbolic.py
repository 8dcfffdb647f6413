"""Compares formulas in warm, killable processes of their own: sympy can take for ever, or all memory."""

from __future__ import annotations

import collections
import importlib.util
import json
import os
import pathlib
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Literal

from sml_jax.errors import UserError

Verdict = Literal["equal", "differs", "unparsable", "timeout"]

MAX_CHARACTERS, MAX_DEPTH = 2_000, 40
_START_S = 120
_MEMO_SIZE = 100_000


def available() -> bool:
  """Whether Math-Verify is installed, without importing it."""
  return importlib.util.find_spec("math_verify") is not None


class SymbolicComparer:
  """A pool of worker processes, started when first needed; used from any thread, closed by `close`, `with`, or garbage
  collection. A pair seen before is not compared again.

  Args:
    cpu_s: CPU seconds of a comparison; the worker is killed and the verdict is "timeout".
    wall_s: clock seconds of one, for a worker that hangs; default ten times cpu_s and a second.
    workers: how many; default one a core.
  """

  def __init__(self, cpu_s: float = 5.0, wall_s: float | None = None, workers: int | None = None):
    wall_s = 10 * cpu_s + 1 if wall_s is None else wall_s
    count = workers or len(os.sched_getaffinity(0))
    self._workers = [_Worker(cpu_s, wall_s) for _ in range(count)]
    # The last one given back is taken first, so that few comparisons start few workers.
    self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
    for worker in self._workers:
      self._idle.put(worker)
    self._memo: collections.OrderedDict[tuple[str, str], Verdict] = collections.OrderedDict()
    self._lock = threading.Lock()
    self._finalizer = weakref.finalize(self, _stop, self._workers)

  def compare(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
    """The verdict on each (gold, given) pair of answers, in order.

    Raises:
      UserError: Math-Verify is not installed, or does not start.
    """
    pairs = [tuple(pair) for pair in pairs]
    with self._lock:
      known = {}
      for pair in pairs:
        if pair in self._memo:
          self._memo.move_to_end(pair)
          known[pair] = self._memo[pair]
    new = []
    for pair in dict.fromkeys(p for p in pairs if p not in known):
      if any(too_big(text) for text in pair):
        known[pair] = "unparsable"
      else:
        new.append(pair)
    if new:
      if not available():
        raise UserError(f"comparing {new[0][1][:40]!r} with {new[0][0][:40]!r} needs Math-Verify: "
                        "pip install 'math-verify[antlr4_13_2]==0.9.0'")
      known.update(self._run(new))
      with self._lock:
        self._memo.update((pair, known[pair]) for pair in new)
        while len(self._memo) > _MEMO_SIZE:
          self._memo.popitem(last=False)
    return [known[pair] for pair in pairs]

  def close(self) -> None:
    """Waits for comparisons that run in other threads, then ends the workers; a later call starts new ones."""
    workers = [self._idle.get() for _ in self._workers]
    _stop(workers)
    for worker in workers:
      self._idle.put(worker)

  def __enter__(self) -> SymbolicComparer:
    return self

  def __exit__(self, *unused) -> None:
    self.close()

  def _run(self, pairs: list[tuple[str, str]]) -> dict[tuple[str, str], Verdict]:
    out: dict[tuple[str, str], Verdict] = {}
    waiting = collections.deque(pairs)
    # One worker for so few pairs that starting another costs more.
    wanted = min(len(self._workers), 1 + len(pairs) // 8)
    workers = [self._idle.get()]
    try:
      while len(workers) < wanted:
        try:
          workers.append(self._idle.get_nowait())
        except queue.Empty:
          break
      with selectors.DefaultSelector() as selector:
        for worker in workers:
          worker.begin(waiting, selector)
        while selector.get_map():
          left = min(key.data.deadline for key in selector.get_map().values()) - time.monotonic()
          for key, _ in selector.select(max(left, 0)):
            key.data.read(out, waiting, selector)
          for key in list(selector.get_map().values()):
            if time.monotonic() > key.data.deadline:
              key.data.give_up(out, waiting, selector)
    except BaseException:
      _stop(workers)  # an interrupted comparison must not answer the next question
      raise
    finally:
      for worker in workers:
        self._idle.put(worker)
    return out


class _Worker:
  """One process, and the pair that it works on."""

  def __init__(self, cpu_s: float, wall_s: float):
    self.cpu_s, self.wall_s = cpu_s, wall_s
    self.process: subprocess.Popen | None = None
    self.deadline = 0.0
    self._pair: tuple[str, str] | None = None
    self._buffer = b""
    self._deaths = 0  # at this pair, without having run out of time
    self._ready = False

  def begin(self, waiting: collections.deque, selector: selectors.BaseSelector) -> None:
    """Takes the next pair, if there is one."""
    self._pair = waiting.popleft() if waiting else None
    self._deaths = 0
    if self._pair:
      self._send(selector)

  def read(self, out: dict, waiting: collections.deque, selector: selectors.BaseSelector) -> None:
    data = os.read(self.process.stdout.fileno(), 1 << 12)
    self._buffer += data
    if data and not self._buffer.endswith(b"\n"):
      return
    line, self._buffer = self._buffer, b""
    selector.unregister(self.process.stdout)
    if line == b'"ready"\n':
      self._ready = True
      self._ask(selector)
    elif data:
      self._settle(json.loads(line), out, waiting, selector)
    else:
      self._died(out, waiting, selector)

  def give_up(self, out: dict, waiting: collections.deque, selector: selectors.BaseSelector) -> None:
    """The clock ran out."""
    selector.unregister(self.process.stdout)
    self.stop()
    self._need_ready()
    self._settle("timeout", out, waiting, selector)

  def stop(self) -> None:
    if self.process is None:
      return
    try:
      os.killpg(self.process.pid, signal.SIGKILL)
    except ProcessLookupError:
      pass
    self.process.stdout.close()
    try:
      self.process.stdin.close()
    except OSError:
      pass
    self.process.wait()
    self.process = None

  def _send(self, selector: selectors.BaseSelector) -> None:
    if self.process is None:
      self._start()
      self.deadline = time.monotonic() + _START_S
      selector.register(self.process.stdout, selectors.EVENT_READ, self)
    else:
      self._ask(selector)

  def _ask(self, selector: selectors.BaseSelector) -> None:
    self.deadline = time.monotonic() + self.wall_s
    selector.register(self.process.stdout, selectors.EVENT_READ, self)
    try:
      self.process.stdin.write(json.dumps(self._pair).encode() + b"\n")
      self.process.stdin.flush()
    except OSError:
      pass  # it is gone, which reading shows

  def _settle(self, verdict: Verdict, out: dict, waiting: collections.deque, selector: selectors.BaseSelector) -> None:
    out[self._pair] = verdict
    self.begin(waiting, selector)

  def _died(self, out: dict, waiting: collections.deque, selector: selectors.BaseSelector) -> None:
    code = self.process.wait()
    self.stop()
    self._deaths += 1
    if code in (-signal.SIGPROF, -signal.SIGXCPU):
      self._settle("timeout", out, waiting, selector)
    elif self._deaths == 1:
      self._send(selector)  # somebody else may have killed it
    else:
      self._need_ready()
      self._settle("unparsable", out, waiting, selector)

  def _need_ready(self) -> None:
    if not self._ready:
      raise UserError("Math-Verify does not start; python -m sml_jax.tasks.answers.symbolic_worker 5 shows why")

  def _start(self) -> None:
    # A fresh interpreter, never a fork of the JAX process. -P: this folder's numbers.py is not the standard library's.
    root = str(pathlib.Path(__file__).parents[3])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    self._buffer, self._ready = b"", False
    self.process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sml_jax.tasks.answers.symbolic_worker", str(self.cpu_s)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, cwd="/",
        env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "0"})


def _stop(workers: Sequence[_Worker]) -> None:
  for worker in workers:
    worker.stop()


def too_big(text: str) -> bool:
  """Longer or nested deeper than any answer."""
  if len(text) > MAX_CHARACTERS:
    return True
  depth = 0
  for character in text:
    depth += (character in "([{") - (character in ")]}")
    if depth > MAX_DEPTH:
      return True
  return False
