"""What a server speaks: a student's turns in an evaluation, and what a teacher, a lazy user or a judge writes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import jax

from sml_jax.dialogue.api import Client
from sml_jax.dialogue.api_wire import Completion, Request
from sml_jax.dialogue.conversation import Table
from sml_jax.dialogue.record import Dialogue, Turn
from sml_jax.dialogue.rules import Rules, TokenBudget
from sml_jax.dialogue.tutor import Note
from sml_jax.models.transformer import Params
from sml_jax.sampling.session import Sessions
from sml_jax.tasks.source import Source
from sml_jax.tasks.task import Task


class ApiWriter:
  """See `tutor.Writer`."""

  def __init__(self, client: Client, words: int, seed: int = 0):
    self.client, self.words, self.seed = client, words, seed

  def write(self, notes: Sequence[Note]) -> list[str | None]:
    settings = self.client.settings
    asked = [settings.request(n.messages, *_place(self.seed, n.task, n.sample, n.turn, n.again)) for n in notes]
    said = self.client.complete(asked) if asked else []
    return [s.text.strip() or None if isinstance(s, Completion) else None for s in said]


class PlainText:
  """A renderer without tokens: what is said travels as text."""

  bos: tuple[int, ...] = ()
  file, fingerprint = "the server's own tokenizer", "served"

  def first_turn(self, text: str, system: str | None = None) -> Turn:
    return Turn("teacher", text)

  def teacher_turn(self, text: str) -> Turn:
    return Turn("teacher", text)

  def student_turn(self, text: str) -> Turn:
    return Turn("student", text)

  def student_prompt(self) -> list[int]:
    return []

  def pieces(self, tokens: list[int]) -> list[str]:
    return [str(t) for t in tokens]


class ServedTable(Table):
  """A table whose students are a server's: nothing of theirs is computed here. All take their turns at the same time.

  Args:
    client: of the student.
    source: of the tasks.
    rows: dialogues that are played side by side.
    system: instructions for the student; "" = none.
  """

  def __init__(self, client: Client, source: Source, rows: int, seed: int = 0, system: str = ""):
    super().__init__(None, PlainText(), source, TokenBudget(1, 1, 1), rows)
    self.client, self.seed, self.system = client, seed, system

  def play(
      self, params: Params, tasks: Sequence[Task], samples: Sequence[int], rules: Rules, key: jax.Array
  ) -> list[Dialogue]:
    others = self.others(rules, key, Sessions())
    dialogues, chances = self.open(tasks, samples, rules, others), self.chances(tasks, samples, rules, key)
    for start in range(0, len(tasks), self.rows):
      batch = range(start, min(start + self.rows, len(tasks)))
      while live := [i for i in batch if dialogues[i].end is None]:
        self._speak([tasks[i] for i in live], [dialogues[i] for i in live], rules)
        live = [i for i in live if dialogues[i].end is None]
        of = lambda values, live=live: [values[i] for i in live]
        self.respond(others, of(tasks), of(dialogues), rules, chances and of(chances))
    return dialogues

  def _speak(self, tasks: Sequence[Task], dialogues: Sequence[Dialogue], rules: Rules) -> None:
    """Appends a student turn to each dialogue, or ends it as student_failed."""
    settings, asked = self.client.settings, []
    for task, d in zip(tasks, dialogues, strict=True):
      place = _place(self.seed, task.id, d.sample, len(d.student_turns) + 1, 0)
      messages = _messages(task.system or self.system, d)
      asked.append(Request(messages, settings.max_tokens, rules.temperature, *place))
    for d, said in zip(dialogues, self.client.complete(asked), strict=True):
      if isinstance(said, Completion):
        d.turns.append(Turn("student", said.text, cut=said.finish_reason == "length"))
      else:
        d.end = "student_failed"


def _messages(system: str, dialogue: Dialogue) -> tuple[tuple[str, str], ...]:
  """All of it, since the server has no memory."""
  said = (("user" if t.role == "teacher" else "assistant", t.text) for t in dialogue.turns)
  return (*(("system", system),) * bool(system), *said)


def _place(seed: int, task: str, sample: int, turn: int, again: int) -> tuple[int, str]:
  """(seed for the server, salt of the cache's key) of a place in the run."""
  salt = f"{seed}|{task}|{sample}|{turn}|{again}"
  return zlib.crc32(salt.encode()) & 0x7FFFFFFF, salt
