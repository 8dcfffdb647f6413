"""The students at a table: rows of the decode engine, which keep their caches across turns."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sml_jax.dialogue.record import Dialogue, Feedback, Turn
from sml_jax.dialogue.renderer import Renderer
from sml_jax.models.transformer import Params
from sml_jax.sampling.engine import Engine
from sml_jax.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Rules:
  """What one rollout plays by.

  Attributes:
    turns: most student turns (an underspecified task's own cap may be lower).
    feedback: the feedback arm.
    temperature: of sampling; 0 is greedy.
    q_priming: base of P_Q(t) = base^t, the probability that a wrong student turn t (from 1) is replaced by a question;
      0 = never.
    answer_nll: measure the nats of the canonical answer before every student turn.
  """

  turns: int
  feedback: Feedback = "full"
  temperature: float = 1.0
  q_priming: float = 0.0
  answer_nll: bool = False


@dataclasses.dataclass(frozen=True)
class TokenBudget:
  """Most tokens of a problem, a student turn and a teacher's reply, each with its role and end pieces.

  They bound a dialogue by its turn alone, so neither the cache's size nor what attention looks at depends on the
  neighbours.
  """

  problem: int
  turn: int
  reply: int

  def length(self, turns: int) -> int:
    """Most tokens of a dialogue that ends with student turn `turns`."""
    return self.problem + turns * self.turn + (turns - 1) * self.reply


class EngineSeats:
  """See `conversation.Seats`. What a row has read is its dialogue so far; what it is fed next is kept in between."""

  def __init__(
      self, engine: Engine, renderer: Renderer, budget: TokenBudget, params: Params, tasks: Sequence[Task],
      dialogues: list[Dialogue], rules: Rules, key: jax.Array,
  ):
    self.engine, self.renderer, self.budget, self.params = engine, renderer, budget, params
    self.dialogues, self.rules, self.key = dialogues, rules, key
    self._feed = [[*d.bos, *d.turns[0].tokens, *renderer.student_prompt()] for d in dialogues]
    self._tasks = padded([zlib.crc32(t.id.encode()) for t in tasks], engine.rows)
    self._samples = padded([d.sample for d in dialogues], engine.rows)
    spoken = lambda text: list(renderer.student_turn(text).tokens) if text and rules.answer_nll else []
    answers = [spoken(t.answer) for t in tasks]
    # One that is longer than a turn may be is not the student's to say, and is not measured.
    self._answers = {i: tokens for i, tokens in enumerate(answers) if 0 < len(tokens) <= budget.turn}
    self._rows = engine.start()
    self._reread: dict[int, list[int]] = {}

  def speak(self, live: Sequence[int], turn: int) -> None:
    engine, b = self.engine, self.engine.rows
    view = engine.view(self.budget.length(turn))
    self._rows = engine.feed(self.params, self._rows, by_row(b, {i: self._feed[i] for i in live}), view)
    nll = None
    if asked := {i: self._answers[i] for i in live if i in self._answers}:
      self._rows, nll = engine.score(self.params, self._rows, by_row(b, asked), view)
    keys = place_keys(self.key, self._tasks, self._samples, turn)
    active = np.zeros(b, bool)
    active[list(live)] = True
    budgets, warmth = np.full(b, self.budget.turn, np.int32), np.full(b, self.rules.temperature, np.float32)
    self._rows, said = engine.sample(self.params, self._rows, keys, active, budgets, warmth, view)
    for i in live:
      n = int(said.counts[i])
      turn_ = self.renderer.sampled_turn(said.tokens[i, :n].tolist(), said.logprobs[i, :n].tolist())
      turn_.answer_nll = float(nll[i]) if i in asked else None
      self.dialogues[i].turns.append(turn_)

  def settle(self, turns: Mapping[int, tuple[Turn, Turn]]) -> None:
    """Forgets what later turns are not to see: a turn that a question replaced, and stripped thinking."""
    forget = np.zeros(self.engine.rows, np.int32)
    for i, (cached, turn) in turns.items():
      whole = len(cached.prompt) + len(cached.tokens)
      keep = turn.stripped[0] if turn.stripped else whole if turn is cached else len(turn.prompt)
      forget[i], self._reread[i] = whole - keep, turn.context[keep:]
    if forget.any():
      self._rows = self.engine.rewind(self._rows, forget)

  def hear(self, index: int) -> None:
    heard = self.dialogues[index].turns[-1]
    self._feed[index] = [*self._reread[index], *heard.tokens, *self.renderer.student_prompt()]


def place_key(key: jax.Array, task: jax.Array, sample: jax.Array, turn: jax.Array) -> jax.Array:
  """The key of a turn: what is sampled there is a function of the place alone."""
  for place in (task, sample, turn):
    key = jax.random.fold_in(key, jnp.asarray(place, jnp.uint32))
  return key


def padded(values: Sequence[int], rows: int) -> np.ndarray:
  """One number for each of the engine's rows, uint32."""
  return np.asarray([*values, *[0] * (rows - len(values))], np.uint32)


def by_row(rows: int, tokens: dict[int, Sequence[int]]) -> list[Sequence[int]]:
  return [tokens.get(i, ()) for i in range(rows)]


place_keys = jax.jit(jax.vmap(place_key, (None, 0, 0, None)))
"""`place_key` of many tasks and samples, [B] each, at one turn."""
