"""The process that runs submissions for executor.py. Standard library only: it is started without site-packages.

One JSON line in, {"cpu_s", "wall_s", "batch": [{"code", "entry", "calls"}, ...]}; for each member of the batch one
JSON line out, {"status": "ok" | "error" | "timeout", "values": [...], "error": str}. A forked child runs the
members in order and sends a line for each; when one takes the child down, the next child goes on behind it. So
this process never runs a submission itself, and knows which one it was.
"""

from __future__ import annotations

import builtins
import collections
import functools
import gc
import itertools
import json
import math
import os
import random
import re
import resource
import secrets
import signal
import string
import sys

MEMORY_BYTES = 256 << 20
OUTPUT_BYTES = 1 << 16
NOBODY = 65534

# Imported here because a child may hardly open files: what is loaded can be imported by a submission.
PRELOADED = (collections, functools, itertools, math, random, re, string)
BUILTINS = dict(vars(builtins))


def main() -> None:
  gc.freeze()  # a child then writes to fewer pages that it shares
  for line in sys.stdin.buffer:
    request = json.loads(line)
    batch, done = request["batch"], 0
    while done < len(batch):
      done += run_child(batch[done:], request["cpu_s"], request["wall_s"])


def run_child(batch: list[dict], cpu_s: float, wall_s: float) -> int:
  """Runs as many members as one child survives, prints a line for each of them, returns how many."""
  nonce = secrets.token_hex(8)  # what a submission writes to a pipe that it finds open is not taken for an answer
  read, write = os.pipe()
  pid = os.fork()
  if pid == 0:
    os.close(read)
    child(batch, cpu_s, wall_s, write, nonce.encode())
  os.close(write)
  done, fault = 0, ""
  with os.fdopen(read, "rb") as pipe:
    while done < len(batch) and not fault:
      answer = pipe.readline(OUTPUT_BYTES)
      if answer.startswith(nonce.encode()) and answer.endswith(b"\n"):
        sys.stdout.buffer.write(answer[len(nonce):])
        sys.stdout.buffer.flush()
        done += 1
      else:
        fault = "forged output" if answer else "died"
  os.kill(pid, signal.SIGKILL)
  _, status = os.waitpid(pid, 0)
  if fault:
    # A child that died by itself keeps its own status: the kill came too late to change it.
    late = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGXCPU, signal.SIGALRM)
    fault = "out of time" if late else fault
    emit(sys.stdout.buffer, {"status": "timeout" if late else "error", "values": [], "error": fault})
    done += 1
  return done


def child(batch: list[dict], cpu_s: float, wall_s: float, out: int, nonce: bytes) -> None:
  """Runs the members under limits; never returns."""
  try:
    limit(int(cpu_s * len(batch)) + 1, out)
    with os.fdopen(out, "wb") as pipe:
      for request in batch:
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        signal.setitimer(signal.ITIMER_REAL, wall_s)
        random.seed(0)
        answer = run(request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.write(nonce)
        emit(pipe, answer)
  finally:
    os._exit(0)


def limit(cpu_s: int, keep: int) -> None:
  """Takes away what a short function does not need: files, processes, memory, the pipes to the trainer, root."""
  null = os.open(os.devnull, os.O_RDWR)
  for fd in (0, 1, 2):
    os.dup2(null, fd)
  os.closerange(3, keep)
  os.closerange(keep + 1, 64)
  for what, most in ((resource.RLIMIT_CPU, cpu_s), (resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_FSIZE, 0),
                     (resource.RLIMIT_NOFILE, 16), (resource.RLIMIT_NPROC, 0), (resource.RLIMIT_CORE, 0)):
    resource.setrlimit(what, (most, most))
  if os.getuid() == 0:
    try:
      # Root has no process limit, and may write everywhere.
      os.setgroups([])
      os.setgid(NOBODY)
      os.setuid(NOBODY)
    except OSError:
      pass  # a container may forbid it


def run(request: dict) -> dict:
  """Defines the submission in a fresh namespace and calls it; outputs before a failure are kept."""
  values: list = []
  error = ""
  try:
    namespace = {"__name__": "submission", "__builtins__": dict(BUILTINS)}
    exec(compile(request["code"], "submission", "exec"), namespace)
    function = namespace[request["entry"]]
    for arguments in request["calls"]:
      value = function(*arguments)
      check(value)
      values.append(value)
  except BaseException as e:
    error = type(e).__name__
  try:
    too_long = len(json.dumps(values)) > OUTPUT_BYTES // 2
  except ValueError:  # an int of more digits than Python writes
    too_long = True
  if too_long:
    values, error = [], "output too long"
  return {"status": "error" if error else "ok", "values": values, "error": error}


def check(value: object) -> None:
  """Only plain JSON types, exactly: a subclass could bring its own idea of equality."""
  kind = type(value)
  if kind is list:
    for item in value:
      check(item)
  elif kind is dict:
    for key, item in value.items():
      if type(key) is not str:
        raise TypeError
      check(item)
  elif kind not in (int, float, str, bool, type(None)):
    raise TypeError


def emit(pipe, answer: dict) -> None:
  pipe.write(json.dumps(answer).encode() + b"\n")
  pipe.flush()


if __name__ == "__main__":
  main()
