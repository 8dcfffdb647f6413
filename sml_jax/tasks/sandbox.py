"""Sandboxes for code that nobody trusts: one process for each program, started fresh, killed whole.

Backends: "bubblewrap" (the tool bwrap), "namespaces" (the same by system calls, nothing to install), and "rlimits",
which limits resources and refuses system calls, also those that change files, but hides nothing: UNSAFE, for the tests
can be read, so that it must be asked for by its name.
"auto" takes the first of the two safe ones that works here. Linux only, x86_64 or aarch64.
"""

from __future__ import annotations

import concurrent.futures
import functools
import json
import marshal
import math
import os
import pathlib
import secrets
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar

from sml_jax.errors import UserError
from sml_jax.tasks.sandbox_child import MAX_MESSAGE

Role = Literal["submission", "judge"]
Item, Result = TypeVar("Item"), TypeVar("Result")

SAFE = ("bubblewrap", "namespaces")
BACKENDS = (*SAFE, "rlimits")
MODULES = {"submission": ("sandbox_values", "sandbox_isolate", "sandbox_child"),
           "judge": ("sandbox_values", "sandbox_isolate", "sandbox_judge", "sandbox_child")}
READY_S = 60.0  # to start; a machine that takes longer does not work
IDLE_S = 1.0  # of CPU: a program that used less slept, or the machine did
STOP_S = 0.2  # between looks at whether to stop
SCRATCH_MB = 16
# No -I, which would ignore the hash seed; the environment is ENVIRONMENT alone.
PYTHON = (os.path.realpath(sys.executable), "-s", "-P", "-S", "-B", "-c", """
import marshal, os, sys, types
def read(n):
  data = b""
  while len(data) < n:
    data += os.read(0, n - len(data)) or os._exit(1)
  return data
modules, spec = marshal.loads(read(int.from_bytes(read(4), "big")))
for name, code in modules:
  module = sys.modules[name] = types.ModuleType(name)
  exec(code, vars(module))
module.main(spec)
""")
ENVIRONMENT = {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp",
               "MALLOC_ARENA_MAX": "1"}  # else each thread takes 64 MB of the address space, which is limited


class Ended(Exception):
  """A sandboxed process is no more. `kind`: "timeout", "died", or "failed" (it never ran); `wall`: by the clock, and
  `idle`: without having used the CPU."""

  def __init__(self, kind: Literal["timeout", "died", "failed"], why: str, wall: bool = False, idle: bool = False):
    super().__init__(why)
    self.kind, self.wall, self.idle = kind, wall, idle


class Sandbox:
  """A pool of sandboxes; a context manager. Threads of this process only wait for the processes.

  Args:
    backend: see the module's text.
    workers: programs at the same time; default the cores that this process may use.
    cpu_s: CPU seconds of a program for all its tests, rounded up: what decides, for a busy machine changes it little.
    wall_s: clock seconds of the same, for one that sleeps; default three times cpu_s and five seconds.
    memory_mb: address space of a program, in MiB.

  Raises:
    UserError: the backend does not work on this machine.
  """

  def __init__(self, backend: str = "auto", workers: int | None = None, cpu_s: float = 10.0,
               wall_s: float | None = None, memory_mb: int = 1024):
    self.cpu_s = math.ceil(cpu_s)
    self.wall_s = 3 * self.cpu_s + 5.0 if wall_s is None else wall_s
    self.memory_mb = memory_mb
    self.backend = choose(backend, memory_mb)
    self.workers = workers or len(os.sched_getaffinity(0))
    self._pool = concurrent.futures.ThreadPoolExecutor(self.workers, "sandbox")
    self._stop = threading.Event()

  def open(self, role: Role = "submission") -> Process:
    """A fresh sandboxed process. Raises Ended("failed") where none can be had."""
    return Process(self.backend, role, self.cpu_s, self.wall_s, self.memory_mb, self._stop)

  def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """[work(item), ...], as many at the same time as there are workers."""
    return list(self._pool.map(work, items))

  def close(self) -> None:
    """Ends what still runs, which is something only after an exception such as KeyboardInterrupt."""
    self._stop.set()
    self._pool.shutdown(cancel_futures=True)

  def __enter__(self) -> Sandbox:
    return self

  def __exit__(self, *unused) -> None:
    self.close()


class Process:
  """One sandboxed interpreter: ask it, then close it. Used by the thread that made it."""

  def __init__(self, backend: str, role: Role, cpu_s: int, wall_s: float, memory_mb: int,
               stop: threading.Event | None = None):
    self._cpu_s, self._backend = cpu_s, backend
    self._buffer, self._most, self._stop = b"", MAX_MESSAGE[role], stop
    self._nonce = secrets.token_hex(8)
    self._deadline = time.monotonic() + READY_S
    spec = {"backend": backend, "role": role, "cpu_s": cpu_s, "memory_mb": memory_mb, "scratch_mb": SCRATCH_MB,
            "nonce": self._nonce, "binds": visible(), "hides": hidden(),
            # A user of its own for each, since the limit on threads counts a user's.
            "uid": 1_000_000_000 + secrets.randbelow(1_000_000_000)}
    try:
      self._process = subprocess.Popen(
          [*command(backend), *PYTHON], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
          bufsize=0, start_new_session=True, cwd="/", env=ENVIRONMENT)
    except OSError as e:
      raise Ended("failed", f"{e.strerror}: {e.filename}") from None
    self._pid = self._process.pid
    for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
      os.set_blocking(pipe.fileno(), False)
    body = marshal.dumps((modules(role), spec))
    try:
      self._write(len(body).to_bytes(4, "big") + body)
      first = self._read()
    except Ended as e:
      said = self._said.decode(errors="replace").strip().split("\n")[-1]
      raise Ended("failed", said or str(e)) from None
    if not first.get("ready"):
      self.close()
      raise Ended("failed", str(first.get("fault", "it does not start")))
    self._deadline = time.monotonic() + wall_s

  def ask(self, question: dict) -> dict:
    """The answer to one question, as JSON. Raises Ended, after which the process is gone."""
    self._nonce = secrets.token_hex(8)
    self._write(json.dumps({**question, "nonce": self._nonce}).encode() + b"\n")
    return self._read()

  def _write(self, data: bytes) -> None:
    view = memoryview(data)
    while view:
      self._wait(self._process.stdin, select.POLLOUT)
      try:
        view = view[os.write(self._process.stdin.fileno(), view):]
      except BlockingIOError:
        pass
      except OSError:
        self._end()

  def _read(self) -> dict:
    """One line. What is not an answer to the pending question is the program's doing, and the end of it."""
    while b"\n" not in self._buffer:
      self._wait(self._process.stdout, select.POLLIN)
      data = os.read(self._process.stdout.fileno(), 1 << 18)
      if not data:
        self._end()
      self._buffer += data
      if len(self._buffer) > self._most:
        self._end("it wrote too much")
    line, self._buffer = self._buffer.split(b"\n", 1)
    try:
      answer = json.loads(line)
      if type(answer) is dict and (answer.pop("nonce", None) == self._nonce or "fault" in answer) and not self._buffer:
        return answer
    except (ValueError, RecursionError):
      pass
    self._end("it wrote to the pipe that it is asked by")

  def _wait(self, pipe: Any, event: int) -> None:
    poll = select.poll()
    poll.register(pipe.fileno(), event)
    while (left := self._deadline - time.monotonic()) > 0 and not (self._stop and self._stop.is_set()):
      if poll.poll(1000 * min(left, STOP_S)):
        return
    used_s = self.close()[0]
    raise Ended("timeout", "out of clock time", wall=True, idle=used_s < IDLE_S)

  def _end(self, why: str = "") -> None:
    """Raises Ended with what is known of the end."""
    if why:
      self.close()
      raise Ended("died", why)
    cpu_s, code = self.close(grace_s=1.0)
    number = -code if code < 0 else code - 128
    # The limit counts whole clock ticks, the usage does not: on a busy machine they differ.
    if number == signal.SIGKILL and cpu_s >= self._cpu_s / 2:
      raise Ended("timeout", "out of CPU time")
    known = {s.value for s in signal.Signals}
    raise Ended("died", f"it died of {signal.Signals(number).name}" if number in known else "it left")

  def close(self, grace_s: float = 0.0) -> tuple[float, int]:
    """Kills whatever is left, at the latest after `grace_s`. Returns CPU seconds and the exit code."""
    if self._process.returncode is None:
      end = time.monotonic() + grace_s
      done, status, usage = os.wait4(self._pid, os.WNOHANG)
      while not done and time.monotonic() < end:
        time.sleep(0.005)
        done, status, usage = os.wait4(self._pid, os.WNOHANG)
      if not done:
        self._kill_inner()
        done, status, usage = os.wait4(self._pid, 0)
      self._process.returncode = os.waitstatus_to_exitcode(status)
      self._usage_s = usage.ru_utime + usage.ru_stime
      self._said = self._process.stderr.read(2000) or b""
    for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
      pipe.close()
    return self._usage_s, self._process.returncode

  def _kill_inner(self) -> None:
    """Kills process 1 of the sandbox first, so that the process that waits for it reaps it and tells its CPU time; an
    orphan would be left to an init process that a container may not have."""
    children = pathlib.Path(f"/proc/{self._pid}/task/{self._pid}/children")
    try:
      for child in map(int, children.read_text().split()):
        handle = os.pidfd_open(child)
        try:
          if str(child) in children.read_text().split():  # still that process
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
          os.close(handle)
      poll = select.poll()
      handle = os.pidfd_open(self._pid)
      poll.register(handle, select.POLLIN)
      poll.poll(1000 if children.exists() and self._backend != "rlimits" else 0)
      os.close(handle)
    except OSError:
      pass  # an old kernel, or a process that has just ended
    os.killpg(self._pid, signal.SIGKILL)

  def __enter__(self) -> Process:
    return self

  def __exit__(self, *unused) -> None:
    self.close()


@functools.cache
def modules(role: Role) -> list[tuple[str, Any]]:
  """The code that runs in the sandbox, compiled once."""
  out = []
  for name in MODULES[role]:
    path = pathlib.Path(__file__).with_name(f"{name}.py")
    out.append((f"sml_jax.tasks.{name}", compile(path.read_text(), f"{name}.py", "exec", dont_inherit=True)))
  return out


@functools.cache
def visible() -> list[str]:
  """What the interpreter needs of the file system, parents before children."""
  version = f"python{sys.version_info.major}.{sys.version_info.minor}"
  base = os.path.realpath(sys.base_prefix)
  wanted = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo", PYTHON[0]]
  if base not in ("/usr", "/"):
    for lib in (pathlib.Path(base, "lib"), pathlib.Path(base, "lib64")):
      wanted += [str(lib / version), *map(str, lib.glob("lib*.so*"))]
  wanted += [f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom")]
  return [path for path in wanted if os.path.exists(path)]


@functools.cache
def hidden() -> list[str]:
  """Packages that are installed beside the standard library; what runs has no use for them."""
  version = f"python{sys.version_info.major}.{sys.version_info.minor}"
  found = {os.path.realpath(f"{base}/{lib}/{python}/{name}")
           for base in ("/usr", os.path.realpath(sys.base_prefix)) for lib in ("lib", "lib64")
           for python in (version, "python3") for name in ("site-packages", "dist-packages")}
  shown = tuple(f"{path}/" for path in visible())
  return sorted(path for path in found if os.path.isdir(path) and path.startswith(shown))


def command(backend: str) -> list[str]:
  """What stands before the interpreter on the command line."""
  if backend != "bubblewrap":
    return []
  out = ["bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--die-with-parent", "--as-pid-1",
         "--hostname", "sandbox", "--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN"]
  out += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if os.getuid() == 0 else []
  for folder in sorted({str(parent) for path in visible() for parent in pathlib.Path(path).parents} - {"/"}):
    if folder not in visible():  # bwrap would make it for root alone
      out += ["--dir", folder]
  for path in visible():
    if os.path.islink(path):
      out += ["--symlink", os.readlink(path), path]
    else:
      out += ["--dev-bind" if path.startswith("/dev/") else "--ro-bind", path, path]
  for path in hidden():
    out += ["--tmpfs", path, "--remount-ro", path]
  return [*out, "--dir", "/tmp", "--remount-ro", "/"]


def choose(backend: str, memory_mb: int) -> str:
  """The backend to use, which has run once here. Raises UserError with what is missing."""
  if backend not in ("auto", *BACKENDS):
    raise UserError(f"unknown backend {backend!r}: expected one of auto, {', '.join(BACKENDS)}")
  wanted = SAFE if backend == "auto" else (backend,)
  missing = {}
  for name in wanted:
    missing[name] = works(name, memory_mb)
    if not missing[name]:
      return name
  reasons = "; ".join(f"{name}: {why}" for name, why in missing.items())
  raise UserError(f"no sandbox works here ({reasons}); only backend=rlimits, by name, runs without isolation")


@functools.cache
def works(backend: str, memory_mb: int = 1024) -> str:
  """Runs a small program with a thread in that backend, once. Returns what is missing, "" if nothing."""
  if not sys.platform.startswith("linux"):
    return "needs Linux"
  if backend == "bubblewrap" and not shutil.which("bwrap", path=ENVIRONMENT["PATH"]):
    return "bwrap is not installed"
  code = """
import threading
def f(x):
  out = []
  thread = threading.Thread(target=lambda: out.append(x + 1))
  thread.start()
  thread.join()
  return out[0]
"""
  try:
    with Process(backend, "submission", 5, 30.0, memory_mb) as process:
      process.ask({"op": "load", "prelude": "", "code": code})
      answer = process.ask({"op": "call", "target": "f", "args": [41], "kwargs": {}})
  except Ended as e:
    return str(e) or "does not start"
  return "" if answer.get("value") == 42 else f"answers {answer}"[:200]
