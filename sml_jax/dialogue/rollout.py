"""Rollouts of several processes: each plays its own tasks on its own devices, or all play the same ones together.

Both return what one process would return: all dialogues, in the order asked for, on every process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from sml_jax import parallel
from sml_jax.dialogue.conversation import Rules, Table, TokenBudget
from sml_jax.dialogue.record import Dialogue, Feedback, Kind
from sml_jax.dialogue.renderer import Renderer
from sml_jax.dialogue.teacher import Reply, Teacher
from sml_jax.dialogue.tutor import Note, Writer
from sml_jax.models.transformer import Params
from sml_jax.sampling.engine import Engine
from sml_jax.tasks.source import Source
from sml_jax.tasks.task import Task, Verdict


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
  """One table of all processes, whose engine has all devices: every process runs the same program, in step.

  What the world outside says (verdicts, kinds, replies, questions) is asked for by the first process and told to all.
  """

  def __init__(self, engine: Engine, renderer: Renderer, source: Source, budget: TokenBudget):
    super().__init__(engine, renderer, _Told(source), budget)
    self._alone = Table(engine, renderer, source, budget)

  def recite(self, tasks: Sequence[Task]) -> list[Dialogue]:
    return self._alone.recite(tasks)  # a process recites its own tasks, and others do not wait for it


class _Told:
  """A source that the first process asks for all."""

  def __init__(self, source: Source):
    self._source = source
    self._known: dict[tuple[str, str], tuple[Kind, str]] = {}

  def __getattr__(self, name: str) -> Any:
    return getattr(self._source, name)

  def verify(self, tasks: Sequence[Task], texts: Sequence[str]) -> list[Verdict]:
    if not tasks:
      return []
    of = self._source
    ask = lambda: [of.verify(tasks, texts), *(list(map(what, tasks, texts)) for what in (of.kind, of.reason))]
    verdicts, *more = parallel.by_first(ask)
    # The turns' kinds and reasons are asked for next, one by one: told here, they cost no further meeting.
    turns = ((task.id, text) for task, text in zip(tasks, texts, strict=True))
    self._known = dict(zip(turns, zip(*more, strict=True), strict=True))
    return verdicts

  def kind(self, task: Task, text: str) -> Kind:
    known = self._known.get((task.id, text))
    return known[0] if known else parallel.by_first(lambda: self._source.kind(task, text))

  def reason(self, task: Task, text: str) -> str:
    known = self._known.get((task.id, text))
    return known[1] if known else parallel.by_first(lambda: self._source.reason(task, text))

  def knowledge(self, task: Task, dialogue: Dialogue) -> Mapping[str, Any]:
    return parallel.by_first(lambda: self._source.knowledge(task, dialogue))

  def question(self, task: Task, dialogue: Dialogue) -> str:
    return parallel.by_first(lambda: self._source.question(task, dialogue))

  def teacher(self, feedback: Feedback) -> Teacher:
    return _ToldTeacher(self._source.teacher(feedback))


class _ToldTeacher:
  def __init__(self, teacher: Teacher):
    self._teacher = teacher

  def reply(self, tasks: Sequence[Task], dialogues: Sequence[Dialogue]) -> list[Reply | str | None]:
    return parallel.by_first(lambda: self._teacher.reply(tasks, dialogues)) if tasks else []


class ToldWriter:
  """A writer outside this program, that the first process asks for all."""

  def __init__(self, writer: Writer):
    self._writer, self.words = writer, writer.words

  def write(self, notes: Sequence[Note]) -> list[str | None]:
    return parallel.by_first(lambda: self._writer.write(notes)) if notes else []
