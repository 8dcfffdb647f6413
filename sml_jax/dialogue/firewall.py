"""Between teacher and student: what of a reply gives the answer away, and what is done about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from sml_jax.dialogue.record import Dialogue
from sml_jax.dialogue.teacher import Reply, Teacher, as_reply
from sml_jax.tasks.leaks import Leak, find_leak
from sml_jax.tasks.source import Source
from sml_jax.tasks.task import Task

Policy = Literal["off", "mark", "redact", "resample", "drop"]
REDACTED = "[...]"
MOST_CUTS = 16
"""Of a reply that leaks in more places than these nothing is shown."""


class Firewall:
  """A teacher whose replies are checked before the student sees them.

  Args:
    policy: "mark" shows a leaking reply and records it; "redact" cuts what leaks out of it; "resample" asks the teacher
      again, up to `resamples` times; "drop" has the dialogue fail as teacher_failed, which is also what becomes of a
      reply that still leaks after that.
  """

  def __init__(self, teacher: Teacher, source: Source, policy: Policy, resamples: int = 2):
    self.teacher, self.source, self.policy, self.resamples = teacher, source, policy, resamples
    self.hashes = getattr(teacher, "hashes", "")

  def reply(self, tasks: Sequence[Task], dialogues: Sequence[Dialogue]) -> list[Reply | None]:
    out = list(map(as_reply, self.teacher.reply(tasks, dialogues)))
    found = {i: leak for i, reply in enumerate(out) if (leak := self._leak(tasks[i], dialogues[i], reply))}
    if self.policy == "resample":
      return self._resampled(tasks, dialogues, out, found)
    for i, leak in found.items():
      if self.policy == "mark":
        out[i] = dataclasses.replace(out[i], leak=leak.kind)
      elif self.policy == "redact":
        out[i] = self._redacted(tasks[i], dialogues[i], out[i], leak)
      else:
        out[i] = dropped(1)
    return out

  def _leak(self, task: Task, dialogue: Dialogue, reply: Reply | None) -> Leak | None:
    # A shard is the task itself, and a user's to say.
    return None if reply is None or reply.shard else leak_of(self.source, task, dialogue, reply.text)

  def _redacted(self, task: Task, dialogue: Dialogue, reply: Reply, leak: Leak | None) -> Reply:
    text = reply.text
    for _ in range(MOST_CUTS):
      if leak is None:
        return dataclasses.replace(reply, text=text, stopped=1)
      text = text[: leak.start] + REDACTED + text[leak.end :]
      leak = leak_of(self.source, task, dialogue, text)
    return dropped(1)

  def _resampled(self, tasks, dialogues, out: list[Reply | None], found: dict[int, Leak]) -> list[Reply | None]:
    left = list(found)
    # A scripted teacher has nothing else to say.
    for again in range(1, (self.resamples if getattr(self.teacher, "varies", False) else 0) + 1):
      if not left:
        break
      replies = self.teacher.reply([tasks[i] for i in left], [dialogues[i] for i in left], again=again)
      for i, reply in zip(left, map(as_reply, replies), strict=True):
        out[i] = reply and dataclasses.replace(reply, stopped=again)
      left = [i for i in left if self._leak(tasks[i], dialogues[i], out[i])]
    for i in left:
      out[i] = dropped(1 + out[i].stopped)
    return out


def dropped(replies: int) -> Reply:
  """In place of a reply that nobody may see, after so many that leaked."""
  return Reply("", stopped=replies, dropped=True)


def leak_of(source: Source, task: Task, dialogue: Dialogue, text: str) -> Leak | None:
  guarded = source.guarded(task)
  return find_leak(guarded, text, [t.text for t in dialogue.student_turns]) if guarded else None
