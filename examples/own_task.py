"""A task source, a verifier and a reward of one's own, plugged in by import path: see configs/own_task.py.

The task: add two numbers. The teacher says whether the student's sum is too low or too high.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Any

from sml_jax.dialogue.record import Dialogue, Feedback, Kind
from sml_jax.dialogue.teacher import TRY_AGAIN
from sml_jax.errors import UserError
from sml_jax.tasks.source import Source
from sml_jax.tasks.task import Reveal, Task, Verdict

PARTS = {"train": range(0, 60), "dev": range(60, 80), "test": range(80, 100)}
"""Part -> which hundredths of all problems are its own."""


class Sums(Source):
  """What is 7 plus 5? Pairs of numbers from 1 to 12, in three disjoint parts: a `Source` of sml_jax.tasks.source."""

  def __init__(self):
    pairs = [(a, b) for a in range(1, 13) for b in range(1, 13)]
    # A hash, so that a pair's part depends on nothing but the pair.
    place = lambda pair: zlib.crc32(repr(pair).encode()) % 100
    self._pairs = {part: [p for p in pairs if place(p) in share] for part, share in PARTS.items()}

  def size(self, domain: str, part: str) -> int:
    return len(self._pairs[part])

  def task(self, domain: str, part: str, index: int, reveal: Reveal = "") -> Task:
    if domain != "sums" or reveal:
      raise UserError(f"there are whole tasks of the domain sums alone, not {domain!r} with reveal {reveal!r}")
    a, b = self._pairs[part][index]
    return Task(f"sums/{a}+{b}", domain, f"What is {a} plus {b}?", f"{a + b}.", private={"sum": a + b})

  def verify(self, tasks: Sequence[Task], texts: Sequence[str]) -> list[Verdict]:
    """Strict: the number and nothing else. `verify_last` below is more lenient."""
    judged = zip(tasks, texts, strict=True)
    return ["solved" if text.strip() == task.answer else _unsolved(text) for task, text in judged]

  def kind(self, task: Task, text: str) -> Kind:
    if not text.strip():
      return "missing"
    return "discussion" if last_number(text) is None else "answer_attempt"

  def teacher(self, feedback: Feedback) -> SumsTeacher:
    if feedback not in ("full", "try_again", "none"):
      raise UserError(f"the teacher of sums has no feedback arm {feedback!r}: full, try_again or none")
    return SumsTeacher(feedback)

  def question(self, task: Task, dialogue: Dialogue) -> str:
    return "Is it too low?"


class SumsTeacher:
  def __init__(self, feedback: Feedback):
    self._feedback = feedback

  def reply(self, tasks: Sequence[Task], dialogues: Sequence[Dialogue]) -> list[str | None]:
    return [self._reply(task, dialogue.turns[-1].text) for task, dialogue in zip(tasks, dialogues, strict=True)]

  def _reply(self, task: Task, text: str) -> str:
    value = last_number(text)
    if self._feedback == "none":
      return ""
    if self._feedback == "try_again" or value is None:
      return TRY_AGAIN
    return f"{value} is too {'low' if value < task.private['sum'] else 'high'}."


def make_source(config: Any) -> Sums:
  """tasks.source = "examples.own_task:make_source"; gets the whole config."""
  return Sums()


def verify_last(tasks: Sequence[Task], texts: Sequence[str]) -> list[Verdict]:
  """tasks.verifier = "examples.own_task:verify_last": the last number counts, whatever stands around it.

  Judges a batch at once, so that slow checks can run side by side. What it raises, or a turn for which it gives
  "verifier_failed", makes the dialogue invalid and never wrong.
  """
  judged = zip(tasks, texts, strict=True)
  return ["solved" if last_number(text) == task.private["sum"] else _unsolved(text) for task, text in judged]


def reward(dialogue: Dialogue) -> float:
  """stages.NAME.reward = "examples.own_task:reward": 1 if solved, less a quarter for every turn needed before."""
  return max(0.0, 1.25 - 0.25 * dialogue.solved_at) if dialogue.solved_at else 0.0


def last_number(text: str) -> int | None:
  numbers = re.findall(r"\d+", text)
  return int(numbers[-1][:9]) if numbers else None


def _unsolved(text: str) -> Verdict:
  return "no_attempt" if last_number(text) is None else "wrong"
