"""What sources read from files have in common: three parts, answers that are mostly numbers, and a teacher who knows
the answer alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from fractions import Fraction

from sml_jax.dialogue.record import Dialogue, Feedback, Kind
from sml_jax.dialogue.teacher import TRY_AGAIN, USUAL_WORDS, choose, place_of
from sml_jax.tasks.jsonl import DataError
from sml_jax.tasks.task import Reveal, Task, Verdict

PARTS = ("train", "dev", "test")
Answer = Fraction | str
"""A number, or where an answer is none its text in one form; equal only if the answers are the same."""


def part_of(text: str, salt: str, dev: float = 0.1, test: float = 0.1) -> str:
  """train, dev or test as a function of the problem and the salt, so that no part shares one; shares of the two."""
  digest = hashlib.sha256(f"{salt}|{normalise(text)}".encode()).digest()
  u = int.from_bytes(digest[:8], "big") / 2**64
  return "dev" if u < dev else "test" if u < dev + test else "train"


def normalise(text: str) -> str:
  """Words and numbers alone, in small letters: what two copies of a problem share."""
  return " ".join(re.findall(r"\w+", text.lower()))


class FileSource:
  """A finite number of tasks of one domain (see source.py). A subclass says what answers a turn and a task have."""

  domain = ""
  please = ""
  """What the teacher says to a turn without an answer."""
  shares = (0.1, 0.1)
  """Of the problems in dev and in test."""

  def __init__(self, tasks: Sequence[Task], salt: str = "0"):
    self._parts: dict[str, list[Task]] = {part: [] for part in PARTS}
    for task in tasks:
      self._parts[part_of(task.text, salt, *self.shares)].append(task)

  def gold(self, task: Task) -> Answer | None:
    """The right answer; None if it can not be read, which is nobody's wrong answer."""
    raise NotImplementedError

  def given(self, text: str) -> Answer | None:
    """The answer that a student's turn gives, if it gives one."""
    raise NotImplementedError

  def is_question(self, text: str) -> bool:
    raise NotImplementedError

  def size(self, part: str) -> int:
    return len(self._parts[part])

  def task(self, domain: str, part: str, index: int, reveal: Reveal = "") -> Task:
    if domain != self.domain or reveal:
      name = self.domain
      raise DataError(f"{name} has whole tasks of the domain {name} alone, not {domain!r} with reveal {reveal!r}")
    return self._parts[part][index]

  def verify(self, tasks: Sequence[Task], texts: Sequence[str]) -> list[Verdict]:
    return [self._verdict(task, text) for task, text in zip(tasks, texts, strict=True)]

  def _verdict(self, task: Task, text: str) -> Verdict:
    gold, given = self.gold(task), self.given(text)
    if gold is None:
      return "verifier_failed"
    if given is None or self.is_question(text):
      return "no_attempt"
    return "solved" if given == gold else "wrong"

  def kind(self, task: Task, text: str) -> Kind:
    if not text.strip():
      return "missing"
    if self.is_question(text):
      return "clarification"
    return "discussion" if self.given(text) is None else "answer_attempt"

  def teacher(self, feedback: Feedback) -> AnswerTeacher:
    donors = self._parts["train"] if feedback == "shuffled" else []
    return AnswerTeacher(self, feedback, [t for t in donors if isinstance(self.gold(t), Fraction)])

  def question(self, task: Task, dialogue: Dialogue) -> str:
    return "Is it too low or too high?" if isinstance(self.gold(task), Fraction) else "Where is my first mistake?"


class AnswerTeacher:
  """Generic feedback from the right answer: whether the student's number is too low or too high, and never the answer.
  Where one of them is no number, that it is wrong."""

  def __init__(self, source: FileSource, feedback: Feedback, donors: Sequence[Task]):
    self.source, self.feedback, self.donors = source, feedback, donors

  def reply(self, tasks: Sequence[Task], dialogues: Sequence[Dialogue]) -> list[str | None]:
    return [self._reply(task, dialogue) for task, dialogue in zip(tasks, dialogues, strict=True)]

  def _reply(self, task: Task, dialogue: Dialogue) -> str:
    if self.feedback == "none":
      return ""
    if self.feedback == "try_again":
      return TRY_AGAIN
    place, text = place_of(task, dialogue), dialogue.turns[-1].text
    usual, asks = choose(USUAL_WORDS, *place), self.source.is_question(text)
    value = None if asks else self.source.given(text)
    if self.feedback == "shuffled" and self.donors:
      # Real words about another problem: right for that one, whatever this student said.
      donor = self.source.gold(choose(self.donors, "donor", *place))
      value = value if isinstance(value, Fraction) else Fraction(0)
      return _graded(usual, value, donor) if value != donor else f"{usual} It is too low."
    if value is None:
      return "I can not say." if asks else self.source.please
    if self.feedback == "no_private":
      return f"{usual} Are you sure?"
    gold = self.source.gold(task)
    if self.feedback == "full" and isinstance(value, Fraction) and isinstance(gold, Fraction):
      return _graded(usual, value, gold)
    return usual


def _graded(usual: str, value: Fraction, gold: Fraction) -> str:
  return f"{usual} It is too {'low' if value < gold else 'high'}."
