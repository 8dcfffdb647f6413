"""A model that writes for a teacher, a lazy user, a judge or a questioner.

Where it has the student's weights (the student itself, or the base below its adapters) it writes in rows of the
students' engine, in one batch with them; else in an engine of its own. What it writes is a function of (key, task,
sample, turn) and of its messages alone: what its row holds already of a transcript is not read again, but all that it
wrote is, in the chunks that the transcript alone decides.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import zlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from sml_jax.dialogue.renderer import Renderer
from sml_jax.dialogue.rules import TokenBudget
from sml_jax.dialogue.tutor import Note, Writer
from sml_jax.errors import UserError
from sml_jax.models.transformer import Model, Params
from sml_jax.sampling.engine import Engine
from sml_jax.sampling.session import Request, Said, Session, Sessions

ROLE = 0x7EAC
"""Folded into the keys, so that the two roles never share a random number."""
CHUNK = 64
"""Tokens of a transcript read at once, by an engine of its own."""


@dataclasses.dataclass(frozen=True)
class Room:
  """What a writer has room for.

  Attributes:
    budget: of a transcript; its `turn` is a turn of the student, its `reply` one of the writer.
    max_turn: most tokens to sample for a reply, thinking included.
    words: most words of a reply: a word of a formula is often two pieces or more.
  """

  budget: TokenBudget
  max_turn: int
  words: int

  @staticmethod
  def beside(renderer: Renderer, budget: TokenBudget, *, prompt: int, max_turn: int = 0) -> Room:
    """That of a writer for students with this renderer and budget.

    Args:
      prompt: most tokens of what a transcript has before the student's first turn.
      max_turn: 0 = as many as the budget's reply has room for.

    Raises:
      UserError: the budget's reply has no room for a word.
    """
    header, answer = len(renderer.teacher_turn("").tokens), len(renderer.student_prompt())
    room = budget.reply - header - answer
    if room < 1:
      raise UserError(f"dialogue.max_reply_tokens: {budget.reply} leave a model teacher no room for a word; its header "
                      f"and the student's take {header + answer}")
    max_turn = max_turn or room + 1  # the end of its turn is no part of the text
    transcript = TokenBudget(prompt, budget.turn + header, answer + max(max_turn, budget.reply))
    return Room(transcript, max_turn, max(1, room // 2))

  def slots(self, turn: int) -> int:
    """Most tokens of a transcript after its reply to student turn `turn`."""
    return self.budget.problem + max(1, turn) * (self.budget.turn + self.budget.reply)


class ModelWriters:
  """Makes the writer of each rollout.

  Args:
    engine: in whose rows it writes.
    rows: those of the engine that are its own, one for each dialogue that is played at a time.
    room: of a transcript.
    renderer: of the model.
    weights: gives the parameters; None = those of the engine's session, which is the students'.
    adapted: whether the model's adapters count.
  """

  def __init__(
      self, engine: Engine, rows: Sequence[int], room: Room, renderer: Renderer,
      weights: Callable[[], Params] | None = None, adapted: bool = True,
  ):
    self.engine, self.rows, self.room, self.renderer, self.adapted = engine, rows, room, renderer, adapted
    self._weights = weights

  @classmethod
  def apart(
      cls, student: Engine, rows: int, room: Room, renderer: Renderer, weights: Callable[[], Params], *, replies: int,
      model: Model | None = None,
  ) -> ModelWriters:
    """With an engine of its own, on the mesh of the students'.

    Args:
      rows: of its engine.
      weights: gives the parameters, which are without adapters.
      replies: most replies of a dialogue.
      model: of another checkpoint; None = the student's.
    """
    shape = dataclasses.replace((model or student.model).config, lora=None)
    engine = Engine(
        dataclasses.replace(model or student.model, config=shape, mesh=student.model.mesh),
        rows=rows,
        slots=room.slots(replies),
        max_turn=room.max_turn,
        stop_ids=renderer.stop_ids,
        mesh=student.mesh,
        home=student.home,
        chunk=CHUNK,
    )
    return cls(engine, range(rows), room, renderer, weights)

  def writer(self, key: jax.Array, sessions: Sessions) -> Writer:
    """The writer of one rollout."""
    session = sessions.of(self.engine, (lambda: self._own) if self._weights else None)
    return ModelWriter(self, session, jax.random.fold_in(key, ROLE))

  @functools.cached_property
  def _own(self) -> Params:
    """A decode copy, made once."""
    return self.engine.decode_params(self._weights())


class ModelWriter:
  """See `tutor.Writer`; used from any thread."""

  def __init__(self, writers: ModelWriters, session: Session, key: jax.Array):
    self.writers, self.session, self.words = writers, session, writers.room.words
    self._key = np.asarray(jax.random.key_data(key))
    self._rows: collections.OrderedDict[tuple[str, int], int] = collections.OrderedDict()

  def write(self, notes: Sequence[Note]) -> list[str | None]:
    """Waits for them. Raises CancelledError where the rollout ends before."""
    said = [self._post(note) for note in notes]
    while self.session.wake is None and self.session.busy:
      self.session.tick()
    return [each and self.text(each.result().tokens) for each in said]

  def _post(self, note: Note) -> concurrent.futures.Future[Said] | None:
    """None: the transcript is longer than there is room for."""
    tokens, room = self.transcript(note), self.writers.room
    if len(tokens) + room.max_turn > room.slots(note.turn):
      return None
    future: concurrent.futures.Future[Said] = concurrent.futures.Future()
    done = lambda said: future.cancel() if said is None else future.set_result(said)
    # What is written again is another sample: its number stands above any that a dialogue has.
    place = zlib.crc32(note.task.encode()), note.sample + (note.again << 24), note.turn
    self.session.post(lambda: Request(
        self._row(note.task, note.sample), tokens, None, self._key, place, room.max_turn, 1.0, done,
        adapted=self.writers.adapted,
    ))  # fmt: skip
    return future

  def _row(self, task: str, sample: int) -> int:
    """The dialogue's row, which it may have had before; else the one that was used the longest ago."""
    place = task, sample
    if place not in self._rows:
      free = len(self._rows) < len(self.writers.rows)
      self._rows[place] = self.writers.rows[len(self._rows)] if free else self._rows.popitem(last=False)[1]
    self._rows.move_to_end(place)
    return self._rows[place]

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
