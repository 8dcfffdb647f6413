"""Rollouts of several processes: each plays its own tasks on its own devices, or all play the same ones together.

Both return what one process would return: all dialogues, in the order asked for, on every process.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax

from sml_jax import parallel
from sml_jax.dialogue.conversation import Rules, Table
from sml_jax.dialogue.play import Play
from sml_jax.dialogue.record import Dialogue
from sml_jax.errors import UserError
from sml_jax.models.transformer import Params
from sml_jax.sampling.engine import Engine
from sml_jax.sampling.session import Session, Sessions
from sml_jax.tasks.task import Task


class OwnTables(Table):
  """A table in each process, whose engine has the process's devices alone: they meet when all have played."""

  def play(
      self, params: Params, tasks: Sequence[Task], samples: Sequence[int], rules: Rules, key: jax.Array
  ) -> list[Dialogue]:
    mine = share(tasks, jax.process_index(), jax.process_count())
    play = super().play
    # Inside, the decode copy of the parameters is made by all together, before anything that could fail on one alone.
    parts = parallel.gather(lambda: play(params, [tasks[i] for i in mine], [samples[i] for i in mine], rules, key))
    out: dict[int, Dialogue] = {}
    for process, dialogues in enumerate(parts):
      out |= dict(zip(share(tasks, process, len(parts)), dialogues, strict=True))
    return [out[i] for i in range(len(tasks))]


def share(tasks: Sequence[Task], index: int, count: int) -> list[int]:
  """Which of the tasks process `index` of `count` plays: every count-th, with all the dialogues of it."""
  number = {name: n for n, name in enumerate(dict.fromkeys(t.id for t in tasks))}
  return [i for i, t in enumerate(tasks) if number[t.id] % count == index]


class OneTable(Table):
  """One table of all processes, whose engine has all devices.

  The first process plays, and asks the world outside; the others run the steps of the engines that it runs.
  """

  def _sessions(self, params: Params, rules: Rules) -> Sessions:
    number, line = itertools.count(), _Line()
    sessions = Sessions(lambda engine, params: _ToldSession(engine, params, next(number), line))
    sessions.of(self.engine, lambda: self.engine.decode_params(params))
    return sessions

  def _run(self, play: Play, sessions: Sessions) -> list[Dialogue]:
    if jax.process_index():
      return _follow(list(sessions))
    line = sessions.of(self.engine).line
    try:
      dialogues = super()._run(play, sessions)
    except BaseException as e:
      if not line.cut:
        line.tell(UserError(f"process 0: {e if isinstance(e, UserError) else f'{type(e).__name__}: {e}'}"))
      raise
    line.tell(dialogues)
    return dialogues


class _Line:
  """From the first process to the others; cut where one of them has failed."""

  cut = False

  def tell(self, what: Any) -> None:
    try:
      parallel.by_first(lambda: what)
    except BaseException:
      self.cut = True
      raise


class _ToldSession(Session):
  """A session whose steps the first process tells the others."""

  def __init__(self, engine: Engine, params: Params, number: int, line: _Line):
    super().__init__(engine, params)
    self.number, self.line = number, line

  def _call(self, step: str, *args: Any) -> tuple:
    if not jax.process_index():
      self.line.tell((self.number, step, args))
    return super()._call(step, *args)


def _follow(sessions: list[_ToldSession]) -> list[Dialogue]:
  """Does what the first process tells until it tells the dialogues. Raises the UserError that it tells instead."""
  failed: Exception | None = None

  def ready() -> None:
    if failed is not None:
      raise failed

  while True:
    told = parallel.gather(ready)[0]
    if isinstance(told, UserError):
      raise told
    if isinstance(told, list):
      return told
    number, step, args = told
    try:
      sessions[number]._call(step, *args)
    except Exception as e:
      failed = e  # told when all meet next
