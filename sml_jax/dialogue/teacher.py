"""Teachers: who replies to the student, and from what (the feedback arm)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Protocol

from sml_jax.dialogue.record import Dialogue
from sml_jax.tasks.task import Task

TRY_AGAIN = "Please try again."
"""The one sentence of the try_again arm; the base student has seen it in pre-training."""
USUAL_WORDS = ("Not yet.", "Not quite.", "Look again.")
"""How a scripted teacher says that an attempt is wrong; the binary arm says no more."""


class Teacher(Protocol):
  """Replies to a batch of open dialogues, each ending in a student turn that did not solve its task."""

  def reply(self, tasks: Sequence[Task], dialogues: Sequence[Dialogue]) -> list[str | None]:
    """One reply a dialogue; None where the teacher failed (the dialogue is then invalid)."""
    ...


def choose(options: Sequence[str], *place: object) -> str:
  """Picks one option as a function of place (task, sample, turn ...): the same in any batch and after any restart."""
  return options[zlib.crc32("|".join(map(str, place)).encode()) % len(options)]


def place_of(task: Task, dialogue: Dialogue) -> tuple[str, int, int]:
  """(task, sample, turn): where in the run a teacher's reply stands."""
  return task.id, dialogue.sample, len(dialogue.turns)


def hidden_shards(task: Task, dialogue: Dialogue) -> list[str]:
  """Shards that no teacher turn has stated yet, in order."""
  said = [t.text for t in dialogue.turns if t.role == "teacher"]
  return [s for s in task.shards[1:] if not any(s in text for text in said)]
