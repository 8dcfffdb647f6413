"""The teacher that is a model, in this process or behind an API; as the lazy user of an underspecified task, too.

It has a transcript of its own, with the roles turned round: its instructions, what it alone knows and the problem stand
before the student's first turn, which it hears as its user's; its earlier replies are its own turns. What it thinks
stays with it: the student reads what stands between <feedback> and </feedback>.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sml_jax.dialogue import prompts
from sml_jax.dialogue.prompts import Prompt, numbered
from sml_jax.dialogue.record import QUESTION_KINDS, Dialogue, Feedback, Kind
from sml_jax.dialogue.reply_parsing import feedback_of, kind_of, question_of, user_reply_of
from sml_jax.dialogue.teacher import (
    USUAL_WORDS,
    Reply,
    choose,
    hidden_shards,
    offered_shards,
    place_of,
    tell_shard,
)
from sml_jax.tasks.lost_in_conversation import Compat
from sml_jax.tasks.source import Source
from sml_jax.tasks.task import Task

WRITTEN: tuple[Feedback, ...] = ("full", "no_private", "shuffled")
"""Arms whose replies the model writes; the others' words are the source's own teacher's."""
Message = tuple[str, str]
"""(role, text); role: "system", "user" or "assistant"."""


@dataclasses.dataclass(frozen=True)
class Note:
  """Something to be written.

  Attributes:
    messages: the first is the system's, which may be empty; then user and assistant in turn, the user last.
    task, sample, turn: the place: id of the task, number of the try, student turn (from 1).
    again: how often something else was written here before.
  """

  messages: tuple[Message, ...]
  task: str
  sample: int
  turn: int
  again: int = 0


class Writer(Protocol):
  """Something that continues messages.

  Attributes:
    words: most words that a reply has room for.
  """

  words: int

  def write(self, notes: Sequence[Note]) -> list[str | None]:
    """What it writes for each; None where it failed."""
    ...


@dataclasses.dataclass(frozen=True)
class Prompts:
  """The prompt files of a run. Hashes of those that teachers and users are given are kept in every dialogue."""

  teacher: Prompt
  teacher_no_private: Prompt
  teacher_code: Prompt
  user: Prompt
  question: Prompt
  judge_kind: Prompt

  @staticmethod
  def load(own: Mapping[str, str] | None = None) -> Prompts:
    """The project's, or files of one's own by name of the field. Raises UserError for one that does not fit."""
    own = own or {}
    return Prompts(**{f.name: prompts.load(own.get(f.name) or f.name, f.name) for f in dataclasses.fields(Prompts)})

  @property
  def hashes(self) -> str:
    found = (self.teacher, self.teacher_no_private, self.teacher_code, self.user)
    return " ".join(p.hash for p in found)


class Tutor:
  """The teacher of one rollout.

  Args:
    feedback: the arm.
    source: of the tasks, with what a teacher knows, and the words of arms that no model writes.
    writer: the model.
    fit: cuts a reply to what a student's context has room for.
    compat: "reference" = a lazy user with the defects of Lost in Conversation's.
  """

  varies = True

  def __init__(
      self, feedback: Feedback, source: Source, writer: Writer, files: Prompts, fit: Callable[[str], str],
      compat: Compat = "fixed",
  ):
    self.feedback, self.source, self.writer, self.prompts, self.fit = feedback, source, writer, files, fit
    self.compat = compat
    self.hashes = files.hashes
    self._scripted = source.teacher(feedback) if feedback not in WRITTEN else None
    self._earlier: list[tuple[str, str]] = []

  @property
  def in_step(self) -> bool:
    """Whether what a dialogue hears depends on the others of its batch."""
    return self.feedback == "shuffled"

  def reply(
      self, tasks: Sequence[Task], dialogues: Sequence[Dialogue], again: int = 0
  ) -> list[Reply | str | None]:
    out: list[Reply | str | None] = [None] * len(tasks)
    reveals = [self._reveals(t, d) for t, d in zip(tasks, dialogues, strict=True)]
    users = [i for i, r in enumerate(reveals) if r]
    others = [i for i, r in enumerate(reveals) if not r]
    if users:
      said = self.writer.write([self._note(tasks[i], dialogues[i], again, self._as_user) for i in users])
      for i, text in zip(users, said, strict=True):
        out[i] = self._user_reply(tasks[i], dialogues[i], text)
    if others and self._scripted:
      replies = self._scripted.reply([tasks[i] for i in others], [dialogues[i] for i in others])
      for i, reply in zip(others, replies, strict=True):
        out[i] = reply
    elif others:
      said = self.writer.write([self._note(tasks[i], dialogues[i], again, self._as_teacher) for i in others])
      texts = [self._shown(text) for text in said]
      if self.feedback == "shuffled":
        texts = self._of_others([(tasks[i], dialogues[i]) for i in others], texts)
      for i, text in zip(others, texts, strict=True):
        out[i] = text
    return out

  def _reveals(self, task: Task, dialogue: Dialogue) -> bool:
    if not hidden_shards(task, dialogue):
      return False
    return task.reveal != "on_question" or dialogue.turns[-1].kind in QUESTION_KINDS

  def _note(self, task: Task, dialogue: Dialogue, again: int, opening: Callable[[Task, Dialogue], str]) -> Note:
    heard = [("user" if t.role == "student" else "assistant", t.text) for t in dialogue.turns[1:]]
    messages = (("system", opening(task, dialogue)), *heard)
    return Note(messages, task.id, dialogue.sample, len(dialogue.student_turns), again)

  def _as_teacher(self, task: Task, dialogue: Dialogue) -> str:
    fields = {"problem": task.whole or task.text, "words": str(self.writer.words)}
    if self.feedback == "no_private":
      return self.prompts.teacher_no_private.fill(**fields)
    prompt = self.prompts.teacher_code if task.form == "code" else self.prompts.teacher
    return prompt.fill(**fields, private=told(self.source.knowledge(task, dialogue)))

  def _as_user(self, task: Task, dialogue: Dialogue) -> str:
    hidden = offered_shards(task, dialogue, self.compat)
    revealed = {n: s for n, s in enumerate(task.shards, 1) if n not in hidden}
    return self.prompts.user.fill(revealed=numbered(revealed), hidden=numbered(hidden))

  def _user_reply(self, task: Task, dialogue: Dialogue, text: str | None) -> Reply | None:
    said = user_reply_of(text, tuple(offered_shards(task, dialogue, self.compat))) if text else None
    if said is None or not (words := self.fit(said[0])):
      return None
    return tell_shard(task, dialogue, said[1], words) if said[1] > 0 else Reply(words)

  def _shown(self, text: str | None) -> str | None:
    said = feedback_of(text) if text else None
    return self.fit(said.strip()) or None if said else None

  def _of_others(self, places: list[tuple[Task, Dialogue]], texts: list[str | None]) -> list[str | None]:
    """Each dialogue hears what was written to one about another task: at this turn, else earlier; else only that it is
    wrong."""
    written = [(task.id, text) for (task, _), text in zip(places, texts, strict=True) if text]
    out = []
    for n, (task, dialogue) in enumerate(places):
      near = [*written[n:], *written[:n], *self._earlier]
      text = next((text for other, text in near if other != task.id), None)
      out.append(text or choose(USUAL_WORDS, *place_of(task, dialogue)))
    self._earlier = [*written, *self._earlier][:64]
    return out


class Questioner:
  """Q-priming: the student, shown its own wrong attempt and what the teacher knows, writes a question."""

  def __init__(self, source: Source, writer: Writer, files: Prompts, fit: Callable[[str], str]):
    self.source, self.writer, self.prompt, self.fit = source, writer, files.question, fit

  def ask(self, tasks: Sequence[Task], dialogues: Sequence[Dialogue], again: int = 0) -> list[str | None]:
    """A question in place of each dialogue's last turn; None where none could be read."""
    notes = []
    for task, dialogue in zip(tasks, dialogues, strict=True):
      known = told(self.source.knowledge(task, dialogue))
      ask = self.prompt.fill(attempt=dialogue.turns[-1].text, private=known)
      said = [("user" if t.role == "teacher" else "assistant", t.text) for t in dialogue.turns]
      messages = (("system", task.system), *said, ("user", ask))
      notes.append(Note(messages, task.id, dialogue.sample, len(dialogue.student_turns), 1 + again))
    said = self.writer.write(notes) if notes else []
    found = [question_of(text) if text else None for text in said]
    return [self.fit(text.strip()) or None if text else None for text in found]


class KindJudge:
  """A model that says of which of the seven kinds a student turn is; where it cannot be read, the source's rules do."""

  def __init__(self, source: Source, writer: Writer, files: Prompts):
    self.source, self.writer, self.prompt = source, writer, files.judge_kind

  def kinds(self, tasks: Sequence[Task], dialogues: Sequence[Dialogue]) -> list[Kind]:
    notes = []
    for task, dialogue in zip(tasks, dialogues, strict=True):
      system = self.prompt.fill(problem=task.text, turn=dialogue.turns[-1].text)
      place = task.id, dialogue.sample, len(dialogue.student_turns)
      notes.append(Note((("system", system), ("user", "The kind:")), *place, again=128))
    said = self.writer.write(notes) if notes else []
    found = [kind_of(text) if text else None for text in said]
    return [kind or self.source.kind(t, d.turns[-1].text) for kind, t, d in zip(found, tasks, dialogues, strict=True)]


def told(known: Mapping[str, Any]) -> str:
  """What a teacher knows, a line a thing."""
  return "\n".join(f"{k}: {v if isinstance(v, str) else json.dumps(v)}" for k, v in known.items()) or "nothing yet"
