"""Teachers: who replies to the student, and from what (the feedback arm)."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Protocol

from sml_jax.dialogue.record import Dialogue
from sml_jax.tasks import lost_in_conversation as lic
from sml_jax.tasks.task import Task

TRY_AGAIN = "Please try again."
"""The one sentence of the try_again arm; the base student has seen it in pre-training."""
USUAL_WORDS = ("Not yet.", "Not quite.", "Look again.")
"""How a scripted teacher says that an attempt is wrong; the binary arm says no more."""


@dataclasses.dataclass(frozen=True)
class Reply:
  """What a teacher says.

  Attributes:
    text: shown to the student.
    shard: number (from 1) of the shard that it states; 0 = none.
    leak: kind of the leak that the student is shown (see tasks/leaks.py); "" = none.
    stopped: replies that gave the answer away and were not shown.
    dropped: there is nothing to show: the dialogue is invalid.
  """

  text: str
  shard: int = 0
  leak: str = ""
  stopped: int = 0
  dropped: bool = False


ALL_SHARDS = -1
"""As a turn's `shard`: it says all of them again."""


class Teacher(Protocol):
  """Replies to a batch of open dialogues, each ending in a student turn that did not solve its task."""

  def reply(self, tasks: Sequence[Task], dialogues: Sequence[Dialogue]) -> list[Reply | str | None]:
    """One reply a dialogue, a text alone standing for a Reply; None where the teacher failed (the dialogue is then
    invalid). A teacher with an attribute `varies` says something else for another argument `again`, from 1."""
    ...


def as_reply(said: Reply | str | None) -> Reply | None:
  return Reply(said) if isinstance(said, str) else said


def choose(options: Sequence[str], *place: object) -> str:
  """Picks one option as a function of place (task, sample, turn ...): the same in any batch and after any restart."""
  return options[zlib.crc32("|".join(map(str, place)).encode()) % len(options)]


def place_of(task: Task, dialogue: Dialogue) -> tuple[str, int, int]:
  """(task, sample, turn): where in the run a teacher's reply stands."""
  return task.id, dialogue.sample, len(dialogue.turns)


def hidden_shards(task: Task, dialogue: Dialogue) -> dict[int, str]:
  """Shards that no teacher turn has stated yet, by number (from 1), in order."""
  said = [t for t in dialogue.turns if t.role == "teacher"]
  numbers = {t.shard for t in said}
  shards = list(enumerate(task.shards, 1))[1:]
  return {n: s for n, s in shards if n not in numbers and not any(s in t.text for t in said)}


def offered_shards(task: Task, dialogue: Dialogue, compat: lic.Compat) -> dict[int, str]:
  """Shards that a lazy user chooses from: the hidden ones.

  The reference's SNOWBALL user never learns what it has told (defect 5 of its program), and may tell it again.
  """
  if compat == "reference" and task.reveal == "snowball":
    return dict(list(enumerate(task.shards, 1))[1:])
  return hidden_shards(task, dialogue)


def tell_shard(task: Task, dialogue: Dialogue, shard: int, text: str) -> Reply:
  """The reply that states a shard, as the task's way of revealing has it."""
  if task.reveal == "snowball":
    text = lic.snowball(utterances(dialogue), text)
  return Reply(text, shard)


def recap(task: Task, dialogue: Dialogue, compat: lic.Compat) -> Reply:
  """The last turn of a talk that is told again as a whole."""
  return Reply(lic.recap(utterances(dialogue), lic.instruction_of(task), compat), ALL_SHARDS)


def utterances(dialogue: Dialogue) -> list[str]:
  """What a lazy user has said, each without the repetition of earlier turns."""
  return [t.text.rpartition(lic.ALSO)[2] for t in dialogue.turns if t.role == "teacher"]
