"""What a server speaks: a student's turns in an evaluation, and what a teacher, a lazy user or a judge writes."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence

import jax

from sml_jax.dialogue.api import Client
from sml_jax.dialogue.api_wire import Completion, Request
from sml_jax.dialogue.conversation import Table
from sml_jax.dialogue.record import Dialogue, Turn
from sml_jax.dialogue.seats import Rules, TokenBudget
from sml_jax.dialogue.tutor import Note
from sml_jax.models.transformer import Params
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
  """A table whose students are a server's: nothing of theirs is computed here.

  Args:
    client: of the student.
    source: of the tasks.
    rows: dialogues that are played side by side.
    system: instructions for the student; "" = none.
  """

  def __init__(self, client: Client, source: Source, rows: int, seed: int = 0, system: str = ""):
    super().__init__(None, PlainText(), source, TokenBudget(1, 1, 1))
    self.client, self.seed, self.system, self._rows = client, seed, system, rows

  @property
  def rows(self) -> int:
    return self._rows

  def _student(self, params: Params, rules: Rules) -> Params:
    return params

  def seats(self, student: Params, tasks, dialogues: list[Dialogue], rules: Rules, key: jax.Array) -> ServedSeats:
    return ServedSeats(self, tasks, dialogues, rules)


@dataclasses.dataclass
class ServedSeats:
  """See `conversation.Seats`."""

  table: ServedTable
  tasks: Sequence[Task]
  dialogues: list[Dialogue]
  rules: Rules

  def speak(self, live: Sequence[int], turn: int) -> None:
    settings = self.table.client.settings
    asked = []
    for i in live:
      place = _place(self.table.seed, self.tasks[i].id, self.dialogues[i].sample, turn, 0)
      messages = self._messages(self.tasks[i].system or self.table.system, self.dialogues[i])
      asked.append(Request(messages, settings.max_tokens, self.rules.temperature, *place))
    for i, said in zip(live, self.table.client.complete(asked), strict=True):
      if isinstance(said, Completion):
        self.dialogues[i].turns.append(Turn("student", said.text, cut=said.finish_reason == "length"))
      else:
        self.dialogues[i].end = "student_failed"

  def settle(self, turns: Mapping[int, tuple[Turn, Turn]]) -> None:
    """The server has no memory: every request carries the whole dialogue."""

  def hear(self, index: int) -> None:
    """See `settle`."""

  @staticmethod
  def _messages(system: str, dialogue: Dialogue) -> tuple[tuple[str, str], ...]:
    said = (("user" if t.role == "teacher" else "assistant", t.text) for t in dialogue.turns)
    return (*(("system", system),) * bool(system), *said)


def _place(seed: int, task: str, sample: int, turn: int, again: int) -> tuple[int, str]:
  """(seed for the server, salt of the cache's key) of a place in the run."""
  salt = f"{seed}|{task}|{sample}|{turn}|{again}"
  return zlib.crc32(salt.encode()) & 0x7FFFFFFF, salt
