"""A model that writes for a teacher, a lazy user, a judge or a questioner: a second engine beside the students'.

What it writes is a function of (key, task, sample, turn) and of its messages alone. All of a transcript is read again
for each reply.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from sml_jax.dialogue.renderer import Renderer
from sml_jax.dialogue.seats import TokenBudget, by_row, padded, place_keys
from sml_jax.dialogue.tutor import Note, Writer
from sml_jax.errors import UserError
from sml_jax.models import lora
from sml_jax.models.transformer import Model, Params
from sml_jax.sampling.engine import Engine

ROLE = 0x7EAC
"""Folded into the keys, so that the two roles never share a random number."""
CHUNK = 64
"""Tokens of a transcript read at once."""


class ModelWriters:
  """Makes the writer of each rollout.

  Args:
    student: the engine of the students, whose rows and mesh this one has too.
    renderer, budget: of the students.
    replies: most replies of a dialogue.
    prompt: most tokens of what a transcript has before the student's first turn.
    max_turn: most tokens to sample for a reply, thinking included; 0 = as many as the budget's reply has room for.
    weights: gives the parameters; None = the student's own of each rollout. Not asked for where the student has
      adapters and no other model is given: its weights without them are those.
    model, own_renderer: of another checkpoint; None = the student's.

  Attributes:
    engine: of the writer.
    budget: of a transcript; its `turn` is a turn of the student, its `reply` one of the writer.
    words: most words of a reply: a word of a formula is often two pieces or more.

  Raises:
    UserError: the budget's reply has no room for a word.
  """

  def __init__(
      self, student: Engine, renderer: Renderer, budget: TokenBudget, *, replies: int, prompt: int, max_turn: int = 0,
      weights: Callable[[], Params] | None, model: Model | None = None, own_renderer: Renderer | None = None,
  ):
    self.renderer, self._weights = own_renderer or renderer, weights
    header, answer = len(renderer.teacher_turn("").tokens), len(renderer.student_prompt())
    room = budget.reply - header - answer
    if room < 1:
      raise UserError(f"dialogue.max_reply_tokens: {budget.reply} leave a model teacher no room for a word; its header "
                      f"and the student's take {header + answer}")
    self.words = max(1, room // 2)
    max_turn = max_turn or room + 1  # the end of its turn is no part of the text
    self.budget = TokenBudget(prompt, budget.turn + header, answer + max(max_turn, budget.reply))
    as_student = weights is None
    self._below_adapters = model is None and student.model.config.lora is not None and not as_student
    shape = student.model.config if as_student else dataclasses.replace((model or student.model).config, lora=None)
    self.engine = Engine(
        dataclasses.replace(model or student.model, config=shape, mesh=student.model.mesh),
        rows=student.rows,
        slots=self.length(max(1, replies)),
        max_turn=max_turn,
        stop_ids=self.renderer.stop_ids,
        mesh=student.mesh,
        home=student.home,
        chunk=CHUNK,
    )

  def length(self, turn: int) -> int:
    """Most tokens of a transcript after its reply to student turn `turn`."""
    return self.budget.problem + turn * (self.budget.turn + self.budget.reply)

  def writer(self, key: jax.Array, student: Params) -> Writer:
    """The writer of one rollout, given its key and the decode copy of its student's parameters."""
    if self._weights is None:
      params = student
    else:
      params = _without_adapters(student) if self._below_adapters else self._own
    return ModelWriter(self, params, jax.random.fold_in(key, ROLE))

  @functools.cached_property
  def _own(self) -> Params:
    """A second decode copy, made once."""
    return self.engine.decode_params(self._weights())


class ModelWriter:
  """See `tutor.Writer`."""

  def __init__(self, writers: ModelWriters, params: Params, key: jax.Array):
    self.writers, self.params, self.key, self.words = writers, params, key, writers.words

  def write(self, notes: Sequence[Note]) -> list[str | None]:
    """All notes stand at the same turn, as a table's do."""
    out, rows = [], self.writers.engine.rows
    for start in range(0, len(notes), rows):
      out += self._write(notes[start : start + rows])
    return out

  def _write(self, notes: Sequence[Note]) -> list[str | None]:
    engine, turn, b = self.writers.engine, notes[0].turn, self.writers.engine.rows
    most = self.writers.length(turn)
    transcripts = [self.transcript(note) for note in notes]
    feed = {i: tokens for i, tokens in enumerate(transcripts) if len(tokens) + engine.max_turn <= most}
    if not feed:
      return [None] * len(notes)
    view = engine.view(most)
    rows = engine.feed(self.params, engine.start(), by_row(b, feed), view)
    task_ids = padded([zlib.crc32(note.task.encode()) for note in notes], b)
    # What is written again is another sample: its number stands above any that a dialogue has.
    samples = padded([note.sample + (note.again << 24) for note in notes], b)
    keys = place_keys(self.key, task_ids, samples, turn)
    active = np.isin(np.arange(b), list(feed))
    budgets, warm = np.full(b, engine.max_turn, np.int32), np.ones(b, np.float32)
    _, said = engine.sample(self.params, rows, keys, active, budgets, warm, view)
    return [self.text(said.tokens[i, : said.counts[i]].tolist()) if i in feed else None for i in range(len(notes))]

  def transcript(self, note: Note) -> list[int]:
    """What the model reads before it writes."""
    renderer = self.writers.renderer
    (_, system), (_, first), *later = note.messages
    tokens = [*renderer.bos, *renderer.first_turn(first, system=system).tokens]
    for role, text in later:
      tokens += (renderer.student_turn if role == "assistant" else renderer.teacher_turn)(text).context
    return [*tokens, *renderer.student_prompt()]

  def text(self, tokens: list[int]) -> str | None:
    """What was written, without what was thought before it; None if that is nothing."""
    return self.writers.renderer.sampled_turn(tokens, []).text.strip() or None


def _without_adapters(decode: Params) -> Params:
  """The same arrays without the adapters, of a decode copy."""
  return decode | {"blocks": tuple(lora.split(layer)[0] for layer in decode["blocks"])}
