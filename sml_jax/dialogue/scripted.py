"""The micro-world's teacher: graded feedback in plain words from what it alone knows, never the answer itself."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence

import numpy as np

from sml_jax.dialogue.record import Dialogue, Feedback
from sml_jax.dialogue.teacher import TRY_AGAIN, USUAL_WORDS, Reply, choose, hidden_shards, place_of
from sml_jax.tasks.microworld import LARGEST, Slot, World, slots_of
from sml_jax.tasks.task import Task

GRADED = (
    "{usual} {v} is {much} {way} for {s}.",
    "{usual} {v} for {s} is {much} {way}.",
)
UNSURE = ("{usual} Are you sure of {v} for {s}?",)
QUESTIONS = ("What about {s}?", "Tell me about {s}.")
NO_ANSWER = "Please answer with both."
CAN_NOT_SAY = "I can not say."
FAR = 3
"""From this distance on the teacher says that a value is far off."""

Observe = Callable[[Task, str], tuple[int, int] | None]
"""The two values that a student turn stands for, or None if it states none (code is run to find out)."""


def is_question(text: str) -> bool:
  return text.rstrip().endswith("?") or text.startswith("Tell me")


def graded(slot: Slot, value: int, place: tuple) -> str:
  """Quotes the student's value for a wrong slot and says which way it is off: local, so a small model can use it."""
  much = "far too" if abs(value - slot.value) >= FAR else "too"
  way = "low" if value < slot.value else "high"
  usual = choose(USUAL_WORDS, *place)
  return choose(GRADED, "graded", *place).format(usual=usual, v=value, much=much, way=way, s=slot.article)


@dataclasses.dataclass
class ScriptedTeacher:
  """Knows the slots (maths) or the tests' outputs (code).

  Attributes:
    feedback: what the replies are made from, as in the design's list of feedback arms.
    observe: reads the values off a student turn.
    world: where `shuffled` finds another task.
  """

  feedback: Feedback
  observe: Observe
  world: World

  def reply(self, tasks: Sequence[Task], dialogues: Sequence[Dialogue]) -> list[Reply | str | None]:
    return [self._reply(t, d) for t, d in zip(tasks, dialogues, strict=True)]

  def _reply(self, task: Task, dialogue: Dialogue) -> Reply | str:
    place = place_of(task, dialogue)
    if task.shards:
      revealed = self._reveal(task, dialogue)
      if revealed is not None:
        return revealed
    if self.feedback == "none":
      return ""
    if self.feedback == "try_again":
      return TRY_AGAIN
    if self.feedback == "shuffled":
      return self._of_another_task(task, place)
    text = dialogue.turns[-1].text
    if is_question(text):
      return self._answer_question(task, text)
    values = self.observe(task, text)
    if values is None:
      return NO_ANSWER
    if self.feedback == "binary" or (task.shards and hidden_shards(task, dialogue)):
      return choose(USUAL_WORDS, *place)
    slots = slots_of(task)
    if self.feedback == "no_private":
      return self._from_public(slots, values, place)
    slot, value = next((s, v) for s, v in zip(slots, values, strict=True) if v != s.value)
    return graded(slot, value, place)

  def _reveal(self, task: Task, dialogue: Dialogue) -> Reply | None:
    """The lazy user: a shard if the rule of `task.reveal` gives one now, else None."""
    hidden = hidden_shards(task, dialogue)
    if not hidden:
      return None
    first = next(iter(hidden))
    if task.reveal == "every_turn":
      return Reply(hidden[first], first)
    text = dialogue.turns[-1].text
    if not is_question(text):
      return None
    asked = [s.text(exact=True) for s in slots_of(task) if _mentions(text, s)]
    shard = next((n for n, s in hidden.items() if s in asked), first)
    return Reply(hidden[shard], shard)

  def _answer_question(self, task: Task, text: str) -> str:
    """Restates the asked clause: with the number under `full`, as it stands under `no_private`."""
    if self.feedback == "binary":
      return CAN_NOT_SAY
    slots = slots_of(task)
    slot = next((s for s in slots if _mentions(text, s)), slots[0])
    return slot.text(exact=self.feedback == "full")

  def _from_public(self, slots: list[Slot], values: tuple[int, int], place: tuple) -> str:
    """What a reader of the public history can say: plain sums are checked, conventions only doubted."""
    for slot, value in zip(slots, values, strict=True):
      if not slot.word and value != slot.value:
        return graded(slot, value, place)
    slot, value = next((s, v) for s, v in zip(slots, values, strict=True) if s.word)
    return choose(UNSURE, *place).format(usual=choose(USUAL_WORDS, *place), v=value, s=slot.article)

  def _of_another_task(self, task: Task, place: tuple) -> str:
    """Graded feedback that another task's student would get at this turn: real words about the wrong problem."""
    donor = self.world.task(task.domain, "train", int(choose(tuple(map(str, range(10_000))), "donor", *place)), seed=1)
    slot = slots_of(donor)[int(choose("01", "slot", *place))]
    off = int(choose(("-4", "-2", "-1", "1", "2", "4"), "off", *place))
    value = slot.value + off if 0 <= slot.value + off <= LARGEST else slot.value - off
    return graded(slot, value, place)


def _mentions(text: str, slot: Slot) -> bool:
  return re.search(rf"\b{re.escape(slot.noun)}\b", text) is not None


def question_about(slot: Slot, place: tuple) -> str:
  return choose(QUESTIONS, "question", *place).format(s=slot.article)


def scripted_question(task: Task, text: str, observe: Observe, place: tuple) -> str:
  """Q-priming's questioner: sees the student's attempt and the private knowledge, asks about the first wrong slot."""
  slots = slots_of(task)
  values = observe(task, text) or (None, None)
  wrong = [s for s, v in zip(slots, values, strict=True) if v != s.value]
  return question_about(wrong[0] if wrong else slots[0], place)


@dataclasses.dataclass(frozen=True)
class Authors:
  """Who writes the base student's dialogues.

  Attributes:
    attentive: share of authors who use feedback at every chance with probability `use`; the rest do so rarely.
    use, rare_use: probability that an attentive / inattentive author uses a piece of feedback.
    repeat: an author who does not use it repeats the answer with this probability, else draws a new one.
    ask: probability that a turn is a question.
    ask_sharded: the same while a shard is hidden.
  """

  attentive: float = 0.4
  use: float = 0.9
  rare_use: float = 0.04
  repeat: float = 0.6
  ask: float = 0.05
  ask_sharded: float = 0.12


class ScriptedStudent:
  """One author writing one dialogue's student turns."""

  def __init__(self, authors: Authors, world: World, rng: np.random.Generator):
    self.authors, self.world, self.rng = authors, world, rng
    self.use = authors.use if rng.random() < authors.attentive else authors.rare_use
    self.values: list[int] | None = None

  def speak(self, task: Task, dialogue: Dialogue) -> str | list[int]:
    """A question (text), or the two values of the next answer."""
    rng, slots = self.rng, slots_of(task)
    ask = self.authors.ask_sharded if task.shards and hidden_shards(task, dialogue) else self.authors.ask
    if rng.random() < ask:
      return question_about(slots[int(rng.integers(2))], (int(rng.integers(1000)),))
    if self.values is None:
      self.values = [self._guess(task, dialogue, s) for s in slots]
      return self.values
    if not self._use_feedback(task, dialogue, slots) and rng.random() >= self.authors.repeat:
      self.values = [self._guess(task, dialogue, s) for s in slots]
    return self.values

  def _guess(self, task: Task, dialogue: Dialogue, slot: Slot) -> int:
    said = any(slot.text(exact=True) in t.text for t in dialogue.turns if t.role == "teacher")
    if said or not (slot.word or task.shards):
      return slot.value
    if task.shards:  # not stated at all: a guess about a number never seen
      return int(self.rng.integers(1, 20))
    return slot.base + slot.sign * self.world.draw_value(self.rng, slot.word)

  def _use_feedback(self, task: Task, dialogue: Dialogue, slots: list[Slot]) -> bool:
    """Moves a flagged value the way the teacher says, or takes a restated clause; False if nothing was used."""
    text = dialogue.turns[-1].text
    if self.rng.random() >= self.use:
      return False
    for i, slot in enumerate(slots):
      if slot.text(exact=True) in text:
        self.values = [*self.values[:i], slot.value, *self.values[i + 1 :]]
        return True
      if _mentions(text, slot) and ("low" in text or "high" in text):
        step = FAR if "far too" in text else 1
        moved = self.values[i] + (step if "low" in text else -step)
        self.values = [*self.values[:i], max(0, moved), *self.values[i + 1 :]]
        return True
    return False
