"""The decode engine: rows in lock-step, caches kept across turns, nothing compiled again whatever the lengths.

A row's cache holds exactly the tokens of its dialogue so far. A turn is `feed` (what the other side said, in chunks at
an offset) and `sample` (until a stop id or the row's budget). Lengths, budgets, temperatures, keys and the rows that
take part are arrays. B rows, C chunk, M most tokens of a turn, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sml_jax import parallel
from sml_jax.errors import UserError
from sml_jax.models.transformer import Cache, Model, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
  """What the engine remembers of B dialogues: caches, their lengths [B], and the last hidden state of each [B, D]."""

  cache: Cache
  lengths: jax.Array
  last: jax.Array


@dataclasses.dataclass(frozen=True)
class Sampled:
  """One turn of B rows: tokens and log-probabilities [B, M] (host arrays), of which the first counts[b] are real."""

  tokens: np.ndarray
  logprobs: np.ndarray
  counts: np.ndarray


class Engine:
  """Samples turns for a fixed number of rows.

  Args:
    model: the static half of the transformer.
    rows: B; fewer dialogues leave rows idle, more are the caller's to split.
    slots: most tokens of a dialogue.
    max_turn: M, most tokens of a turn.
    stop_ids: ids that end a turn unless `sample` is told others; the stop id is kept as the turn's last token.
    mesh: where rows and parameters lie; None = the default device.
    home: the mesh of the parameters given to `decode_params`; None = `mesh`. Where `mesh` is a `parallel.local_mesh` of
      it, this process samples by itself, with what all made together.
    chunk: C, tokens fed at once. Chunk boundaries depend on the dialogue alone.
    view_step: attention sees a multiple of so many slots, chosen by the turn's place, not by the neighbours' lengths.
  """

  def __init__(
      self, model: Model, *, rows: int, slots: int, max_turn: int, stop_ids: Sequence[int], mesh: Mesh | None = None,
      home: Mesh | None = None, chunk: int = 16, view_step: int = 64,
  ):
    self.model, self.rows, self.max_turn, self.chunk, self.view_step = model, rows, max_turn, chunk, view_step
    self.slots = -(-slots // view_step) * view_step
    self._stops = np.tile(np.asarray(stop_ids, np.int32), (rows, 1))
    self.mesh, self.home = mesh, home or mesh
    self._unstack = jax.jit(self._unstacked)
    self._start = jax.jit(self._empty)
    self._feed = jax.jit(self._feed_chunk, static_argnames="view", donate_argnames="rows")
    self._sample = jax.jit(self._sample_turn, static_argnames="view", donate_argnames="rows")
    self._score = jax.jit(self._score_chunk, static_argnames="view", donate_argnames="rows")

  def decode_params(self, params: Params) -> Params:
    """The copy of the parameters that decoding reads, made once a rollout: in the activations' dtype, layers apart."""
    params = self._unstack(params)
    return params if self.mesh == self.home else parallel.on_own_devices(self.mesh, params)

  def _unstacked(self, params: Params) -> Params:
    lie = lambda params: params
    if self.home is not None:
      shardings = parallel.param_shardings(self.home, params, "decode")
      layer = jax.tree.map(lambda s: NamedSharding(self.home, P(*s.spec[1:])), shardings["blocks"])
      params = jax.lax.with_sharding_constraint(params, shardings)
      each = shardings | {"blocks": (layer,) * self.model.config.layers}
      lie = lambda params: jax.lax.with_sharding_constraint(params, each)
    # Norms compute in f32 with their scale as stored; all else is cast at its use, so it may as well be cast here.
    cast = lambda path, a: a if path[-1].key == "scale" else a.astype(self.model.config.dtype)
    return lie(self.model.unstacked(jax.tree_util.tree_map_with_path(cast, params)))

  def start(self) -> Rows:
    """All rows empty; they lie along data and fsdp."""
    return self._start()

  def _empty(self) -> Rows:
    last = jnp.zeros((self.rows, self.model.config.d_model), self.model.config.dtype)
    cache = self.model.init_cache(self.rows, self.slots)
    cache = jax.tree.map(lambda a: parallel.constrain(self.mesh, a, parallel.CACHE), cache)
    lengths = jnp.zeros(self.rows, jnp.int32)
    return Rows(cache, *(parallel.constrain(self.mesh, a) for a in (lengths, last)))

  def view(self, most: int) -> int:
    """Slots to attend over for dialogues of at most `most` tokens, bounded by the turn, not by the batch."""
    return min(self.slots, -(-most // self.view_step) * self.view_step)

  def feed(self, params: Params, rows: Rows, tokens: Sequence[Sequence[int]], view: int) -> Rows:
    """Appends tokens[b] to row b (none: the row is left alone).

    Args:
      params: of `decode_params`.
      rows: consumed (donated).
      tokens: B lists of ids.
      view: slots to attend over, at least the length of any fed row afterwards.
    """
    most = max(len(t) for t in tokens)
    padded = np.zeros((self.rows, -(-most // self.chunk) * self.chunk), np.int32)
    counts = np.array([len(t) for t in tokens], np.int32)
    for b, t in enumerate(tokens):
      padded[b, : len(t)] = t
    for start in range(0, padded.shape[1], self.chunk):
      n = np.clip(counts - start, 0, self.chunk)
      rows = self._feed(params, rows, padded[:, start : start + self.chunk], n, view=view)
    return rows

  def _feed_chunk(self, params: Params, rows: Rows, tokens: jax.Array, counts: jax.Array, *, view: int) -> Rows:
    return self._extended(params, rows, tokens, counts, view)[1]

  def _extended(self, params, rows, tokens, counts, view) -> tuple[jax.Array, Rows]:
    """The hidden states [B, C, D] of a chunk, and the rows with its first counts[b] tokens."""
    hidden, cache = self.model.extend(params, rows.cache, tokens, rows.lengths, view)
    newest = jnp.take_along_axis(hidden, jnp.maximum(counts - 1, 0)[:, None, None], 1)[:, 0]  # [B, D]
    return hidden, Rows(cache, rows.lengths + counts, jnp.where((counts > 0)[:, None], newest, rows.last))

  def sample(
      self, params: Params, rows: Rows, keys: jax.Array, active: np.ndarray, budgets: np.ndarray,
      temperatures: np.ndarray, view: int, stops: np.ndarray | None = None,
  ) -> tuple[Rows, Sampled]:
    """One turn for the active rows.

    Args:
      params: of `decode_params`.
      rows: consumed (donated); those that take part must end in the student's header.
      keys: [B] typed keys; token i of a turn uses fold_in(key, i).
      active: bool [B].
      budgets: int [B], most tokens of this turn (at most M).
      temperatures: f32 [B]; 0 is greedy (log-probabilities are then those at temperature 1).
      view: slots to attend over, at least the length of any active row plus its budget.
      stops: int [B, n], the ids that end each row's turn (-1: none); by default those of the engine.
    """
    budgets = np.minimum(budgets, self.max_turn)
    stops = self._stops if stops is None else stops
    rows, tokens, logprobs, counts = self._sample(params, rows, keys, active, budgets, temperatures, stops, view=view)
    return rows, Sampled(*jax.device_get((tokens, logprobs, counts)))

  def _sample_turn(self, params, rows, keys, active, budgets, temperatures, stops, *, view):
    b, m = self.rows, self.max_turn
    greedy = temperatures <= 0
    scale = jnp.where(greedy, 1.0, temperatures)[:, None]

    def going(state):
      i, _, _, _, alive, *_ = state
      return (i < m) & alive.any()

    def step(state):
      i, rows, tokens, logprobs, alive, counts = state
      logp = jax.nn.log_softmax(self.model.logits(params, rows.last) / scale)  # [B, V]
      token = jnp.where(greedy, jnp.argmax(logp, -1), _draw(jax.vmap(jax.random.fold_in, (0, None))(keys, i), logp))
      token = token.astype(jnp.int32)
      chosen = jnp.take_along_axis(logp, token[:, None], 1)[:, 0]
      tokens = tokens.at[:, i].set(jnp.where(alive, token, 0))
      logprobs = logprobs.at[:, i].set(jnp.where(alive, chosen, 0.0))
      counts = counts + alive
      rows = self._feed_chunk(params, rows, token[:, None], alive.astype(jnp.int32), view=view)
      alive = alive & ~(token[:, None] == stops).any(-1) & (counts < budgets)
      return i + 1, rows, tokens, logprobs, alive, counts

    start = (0, rows, jnp.zeros((b, m), jnp.int32), jnp.zeros((b, m)), active & (budgets > 0), jnp.zeros(b, jnp.int32))
    _, rows, tokens, logprobs, _, counts = jax.lax.while_loop(going, step, start)
    # The host reads them, and in a mesh of several processes none has all rows.
    return rows, *(parallel.constrain(self.mesh, a, P()) for a in (tokens, logprobs, counts))

  def rewind(self, rows: Rows, counts: np.ndarray) -> Rows:
    """Forgets the last counts[b] tokens of each row; feed before sampling again."""
    return dataclasses.replace(rows, lengths=rows.lengths - jnp.asarray(counts, jnp.int32))

  def score(
      self, params: Params, rows: Rows, tokens: Sequence[Sequence[int]], view: int
  ) -> tuple[Rows, np.ndarray]:
    """Nats f64 [B] of tokens[b] (at most M of them) after row b, at temperature 1, and the rows as they were.

    In chunks, so that never more than [B, C, V] logits exist, nor a second cache: `rows` are consumed (donated).

    Raises:
      UserError: more than M tokens.
    """
    width, counts = min(self.chunk, self.max_turn), np.array([len(t) for t in tokens], np.int32)
    if (most := counts.max(initial=0)) > self.max_turn:
      raise UserError(f"a turn of {most} tokens cannot be scored: dialogue.max_turn_tokens is {self.max_turn}")
    padded = np.zeros((self.rows, -(-most // width) * width), np.int32)
    for b, t in enumerate(tokens):
      padded[b, : len(t)] = t
    nats, last = np.zeros(self.rows), jnp.copy(rows.last)
    for start in range(0, padded.shape[1], width):
      n = np.clip(counts - start, 0, width)
      rows, logp = self._score(params, rows, padded[:, start : start + width], n, view=view)
      nats -= np.where(np.arange(width) < n[:, None], np.asarray(logp, np.float64), 0.0).sum(1)
    # What stands in the cache beyond a row's length never matters.
    return dataclasses.replace(rows, lengths=rows.lengths - counts, last=last), nats

  def _score_chunk(self, params, rows, tokens, counts, *, view):
    hidden, after = self._extended(params, rows, tokens, counts, view)
    before = jnp.concatenate([rows.last[:, None], hidden[:, :-1]], 1)
    logp = jax.nn.log_softmax(self.model.logits(params, before))
    return after, parallel.constrain(self.mesh, jnp.take_along_axis(logp, tokens[..., None], -1)[..., 0], P())


def _draw(keys: jax.Array, logp: jax.Array) -> jax.Array:
  """One id a row by inverse distribution function: one uniform number a row, not one a piece. [B], [B, V] -> [B]."""
  u = jax.vmap(jax.random.uniform)(keys)
  cumulative = jnp.cumsum(jnp.exp(logp), -1)
  below = (cumulative <= u[:, None] * cumulative[:, -1:]).sum(-1)
  return jnp.minimum(below, logp.shape[-1] - 1)
