"""A model as the teacher: the student as it was before any training, told to tutor.

It has a transcript of its own, with the roles turned round: its instructions, what it alone knows and the problem stand
before the student's first turn, which it hears as its user's; its earlier replies are its own turns. What it thinks
stays with it: the student reads the text of the reply, written anew by the renderer.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import zlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from sml_jax.dialogue.conversation import TokenBudget, by_row, padded, place_key
from sml_jax.dialogue.record import Dialogue, Feedback
from sml_jax.dialogue.renderer import Renderer
from sml_jax.dialogue.teacher import Teacher
from sml_jax.errors import UserError
from sml_jax.models import lora
from sml_jax.models.transformer import Params
from sml_jax.sampling.engine import Engine
from sml_jax.tasks.task import Task

ROLE = 0x7EAC
"""Folded into the teacher's keys, so that the two roles never share a random number."""
CHUNK = 64
"""Tokens of a transcript read at once: all of it is read again for each reply."""
INSTRUCTIONS = """You are a careful tutor. A student is working on the problem below and has not solved it yet. \
Find the most important mistake in what the student said last, and reply to the student: say what is wrong there, and \
what to think over again. If the student asks something, answer that. Never state the final answer, nor a step that \
gives it away. Write at most {words} words.
{private}
The problem:
{problem}

What the student says:"""
PRIVATE = """
Only you know this; keep it to yourself:
{known}
"""


class FrozenTeachers:
  """Makes the teacher of each rollout (`Table.teachers`).

  Args:
    student: the engine of the students, whose rows, mesh and model the teacher's has too.
    renderer, budget: of the students.
    replies: most replies of a dialogue.
    prompt: most tokens of what a transcript has before the student's first turn.
    max_turn: most tokens to sample for a reply, thinking included; 0 = as many as the budget's reply has room for.
    weights: gives the parameters before any training; not asked for where the student has adapters, since its weights
      without them are those.

  Attributes:
    arms: the feedback arms whose replies the model writes.
    engine: of the teacher.
    budget: of a transcript; its `turn` is a turn of the student, its `reply` one of the teacher.

  Raises:
    UserError: the budget's reply has no room for a word.
  """

  arms: tuple[Feedback, ...] = ("full", "no_private", "shuffled")

  def __init__(
      self, student: Engine, renderer: Renderer, budget: TokenBudget, *, replies: int, prompt: int, max_turn: int = 0,
      weights: Callable[[], Params],
  ):
    self.renderer, self.reply, self._weights = renderer, budget.reply, weights
    header, answer = len(renderer.teacher_turn("").tokens), len(renderer.student_prompt())
    self.room = budget.reply - header - answer
    if self.room < 1:
      raise UserError(f"dialogue.max_reply_tokens: {budget.reply} leave a model teacher no room for a word; its header "
                      f"and the student's take {header + answer}")
    max_turn = max_turn or self.room + 1  # the end of its turn is no part of the text
    self.budget = TokenBudget(prompt, budget.turn + header, answer + max(max_turn, budget.reply))
    model = student.model
    self._adapted = model.config.lora is not None
    self.engine = Engine(
        dataclasses.replace(model, config=dataclasses.replace(model.config, lora=None)),
        rows=student.rows,
        slots=self.length(max(1, replies)),
        max_turn=max_turn,
        stop_ids=renderer.stop_ids,
        mesh=student.mesh,
        home=student.home,
        chunk=CHUNK,
    )
    self.keys = jax.jit(jax.vmap(place_key, (None, 0, 0, None)))

  def length(self, turn: int) -> int:
    """Most tokens of a transcript after its reply to student turn `turn`."""
    return self.budget.problem + turn * (self.budget.turn + self.budget.reply)

  def teacher(self, feedback: Feedback, key: jax.Array, student: Params) -> Teacher:
    """See `conversation.Teachers`. Raises UserError for an arm that the model has not."""
    if feedback == "shuffled":
      raise UserError('a model teacher has no feedback arm "shuffled"; use another, or dialogue.teacher=scripted')
    params = _without_adapters(student) if self._adapted else self._own
    return ModelTeacher(self, params, jax.random.fold_in(key, ROLE), knows=feedback == "full")

  @functools.cached_property
  def _own(self) -> Params:
    """A second decode copy, made once."""
    return self.engine.decode_params(self._weights())


class ModelTeacher:
  """The teacher of one rollout; what it says is a function of (key, task, sample, turn) and of the dialogue alone."""

  def __init__(self, teachers: FrozenTeachers, params: Params, key: jax.Array, knows: bool):
    self.teachers, self.params, self.key, self.knows = teachers, params, key, knows

  def reply(self, tasks: Sequence[Task], dialogues: Sequence[Dialogue]) -> list[str | None]:
    """See `teacher.Teacher`; all dialogues stand at the same turn, as a table's do."""
    out, rows = [], self.teachers.engine.rows
    for start in range(0, len(tasks), rows):
      out += self._replies(tasks[start : start + rows], dialogues[start : start + rows])
    return out

  def _replies(self, tasks: Sequence[Task], dialogues: Sequence[Dialogue]) -> list[str | None]:
    engine, turn = self.teachers.engine, len(dialogues[0].student_turns)
    most, b = self.teachers.length(turn), engine.rows
    transcripts = map(self.transcript, tasks, dialogues)
    feed = {i: tokens for i, tokens in enumerate(transcripts) if len(tokens) + engine.max_turn <= most}
    if not feed:
      return [None] * len(tasks)
    view = engine.view(most)
    rows = engine.feed(self.params, engine.start(), by_row(b, feed), view)
    task_ids = padded([zlib.crc32(t.id.encode()) for t in tasks], b)
    keys = self.teachers.keys(self.key, task_ids, padded([d.sample for d in dialogues], b), turn)
    active = np.isin(np.arange(b), list(feed))
    budgets, warm = np.full(b, engine.max_turn, np.int32), np.ones(b, np.float32)
    _, said = engine.sample(self.params, rows, keys, active, budgets, warm, view)
    return [self._text(said.tokens[i, : said.counts[i]].tolist()) if i in feed else None for i in range(len(tasks))]

  def transcript(self, task: Task, dialogue: Dialogue) -> list[int]:
    """What the teacher reads before it replies."""
    renderer = self.teachers.renderer
    known = "\n".join(f"{k}: {v if isinstance(v, str) else json.dumps(v)}" for k, v in task.private.items())
    opening = INSTRUCTIONS.format(
        words=max(1, self.teachers.room // 2),  # a word of a formula is often two pieces or more
        private=PRIVATE.format(known=known) if self.knows else "",
        problem=task.text,
    )
    _, first, *later = dialogue.turns
    tokens = [*renderer.bos, *renderer.first_turn(first.text, system=opening).tokens]
    for turn in later:
      said = renderer.student_turn if turn.role == "teacher" else renderer.teacher_turn
      tokens += said(turn.text).context
    return [*tokens, *renderer.student_prompt()]

  def _text(self, tokens: list[int]) -> str | None:
    """The reply that the student is shown: what fits its context of what was said; None if that is nothing."""
    renderer = self.teachers.renderer
    text = renderer.sampled_turn(tokens, []).text.strip()
    most = self.teachers.reply - len(renderer.student_prompt())
    while len(renderer.teacher_turn(text).tokens) > most:
      text = text[:-1]
    return text.strip() or None


def _without_adapters(decode: Params) -> Params:
  """The same arrays without the adapters, of a decode copy."""
  return decode | {"blocks": tuple(lora.split(layer)[0] for layer in decode["blocks"])}
