"""The scripted teacher of real tasks: generic feedback from what it alone knows, and never the answer; and the lazy
user of an underspecified task, by rule."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from sml_jax.dialogue.record import QUESTION_KINDS, Dialogue, Feedback
from sml_jax.dialogue.teacher import (
  TRY_AGAIN,
  USUAL_WORDS,
  Reply,
  choose,
  hidden_shards,
  offered_shards,
  place_of,
  tell_shard,
)
from sml_jax.tasks.answers import extract, is_number
from sml_jax.tasks.answers.numbers import parse_number
from sml_jax.tasks.lost_in_conversation import choose_shard, utterance
from sml_jax.tasks.source import Source
from sml_jax.tasks.task import Task

PLEASE = {
    "number": "Please answer with a number.",
    "latex": r"Please put your answer in \boxed{}.",
    "code": "Please write the whole function in one ```python block.",
    "value": 'Please end with a line "Answer: VALUE".',
}


class AnswerTeacher:
  """Says whether the student's number is too low or too high; of a program how many tests passed and what the first
  failing case was called with; and where neither can be said, that the turn is wrong.

  Args:
    source: of the tasks.
    feedback: the arm.
    donors: tasks whose answers `shuffled` speaks about.
    compat: "reference" says a shard as it is written, "fixed" as a sentence.
  """

  def __init__(self, source: Source, feedback: Feedback, donors: Sequence[Task], compat: str = "fixed"):
    self.source, self.feedback, self.compat = source, feedback, compat
    self.donors = [t for t in donors if t.form in ("number", "latex") and is_number(t.private["answer"])]

  def reply(self, tasks: Sequence[Task], dialogues: Sequence[Dialogue]) -> list[Reply | str | None]:
    return [self._reply(task, dialogue) for task, dialogue in zip(tasks, dialogues, strict=True)]

  def _reply(self, task: Task, dialogue: Dialogue) -> Reply | str:
    hidden, last = hidden_shards(task, dialogue), dialogue.turns[-1]
    asks = (last.kind or self.source.kind(task, last.text)) in QUESTION_KINDS
    if hidden and (task.reveal != "on_question" or asks):
      offered = offered_shards(task, dialogue, self.compat)
      shard = choose_shard(offered, last.text)
      return tell_shard(task, dialogue, shard, utterance(offered[shard], self.compat))
    if self.feedback == "none":
      return ""
    if self.feedback == "try_again":
      return TRY_AGAIN
    return self._about(task, dialogue, last.text, asks)

  def _about(self, task: Task, dialogue: Dialogue, text: str, asks: bool) -> str:
    place = place_of(task, dialogue)
    usual, value = choose(USUAL_WORDS, *place), None if asks else _number(task, text)
    if self.feedback == "shuffled" and self.donors:
      # Real words about another problem: right for that one, whatever this student said.
      donor, value = parse_number(choose(self.donors, "donor", *place).private["answer"]), value or Fraction(0)
      return _graded(usual, value, donor) if value != donor else f"{usual} It is too low."
    if last_without_answer(task, text, value) or asks:
      return "I can not say." if asks else PLEASE[task.form]
    if self.feedback == "no_private":
      return f"{usual} Are you sure?"
    if self.feedback != "full":
      return usual
    if task.form == "code":
      return _of_tests(usual, self.source.knowledge(task, dialogue))
    gold = parse_number(task.private["answer"]) if task.form in ("number", "latex") else None
    return _graded(usual, value, gold) if value is not None and gold is not None and value != gold else usual


def last_without_answer(task: Task, text: str, value: Fraction | None) -> bool:
  if task.form == "code":
    return "def " not in text
  return value is None and (task.form == "value" or extract(text, task.private["answer"]) is None)


def _number(task: Task, text: str) -> Fraction | None:
  if task.form not in ("number", "latex"):
    return None
  given = extract(text, task.private["answer"])
  return parse_number(given) if given is not None else None


def _of_tests(usual: str, known: dict[str, str]) -> str:
  """Without the expected value, which is the answer of a test."""
  words = [usual, f"{known['result'][0].upper()}{known['result'][1:]}."]
  case = {name.rpartition(", ")[2]: value for name, value in known.items() if ", " in name}
  if "input" in case:
    happened = f"fails: {case['error']}" if "error" in case else f"returns {case.get('actual', 'nothing')}"
    words.append(f"Called with {case['input']}, your function {happened}.")
  return " ".join(words)


def _graded(usual: str, value: Fraction, gold: Fraction) -> str:
  return f"{usual} It is too {'low' if value < gold else 'high'}."
