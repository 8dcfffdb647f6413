"""Runs the program and kills it (SIGKILL) where it comes to a point: killed.py STAGE POINT N MILLISECONDS ARGS...

It comes there for the n-th time in that stage in this process, and dies so many milliseconds later, from another
thread, while the program goes on.
"""

from __future__ import annotations

import functools
import os
import runpy
import signal
import sys
import threading
import time

from sml_jax import checkpoint
from sml_jax.data import store
from sml_jax.evaluate import progress, report
from sml_jax.learn import trainer
from sml_jax.sampling import session

POINTS = {
    "update": (trainer.Trainer, "_micro_batches"),  # inside an update
    "sample": (session.Session, "_begin"),  # inside a rollout, before turns are sampled
    "record": (store.gzip, "compress"),  # while a step's dialogues are written
    "save": (checkpoint.Checkpoints, "save"),  # before, or while, a checkpoint is written
    "score": (session.Session, "_score"),  # inside an evaluation
    "report": (report, "write_report"),
}


def main(stage: str, point: str, count: int, milliseconds: float, argv: list[str]) -> None:
  owner, name = POINTS[point]
  plain = getattr(owner, name)
  left, plain_stage, now = [count], progress.Progress.stage, [""]

  def noted(self, name, *args, **kwargs):
    now[0] = name
    return plain_stage(self, name, *args, **kwargs)

  @functools.wraps(plain)
  def counted(*args, **kwargs):
    left[0] -= now[0] == stage
    if left[0] == 0 and now[0] == stage:
      die = lambda: os.kill(os.getpid(), signal.SIGKILL)
      if not milliseconds:
        die()
      threading.Thread(target=lambda: (time.sleep(milliseconds / 1000), die()), daemon=True).start()
    return plain(*args, **kwargs)

  setattr(owner, name, counted)
  progress.Progress.stage = noted
  sys.argv = ["sml_jax.main", *argv]
  runpy.run_module("sml_jax.main", run_name="__main__")


if __name__ == "__main__":
  main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5:])
