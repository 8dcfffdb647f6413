"""The decode engine: what runs on the devices. Nothing is compiled again whatever the lengths.

B rows, each a cache of S slots that holds exactly the tokens of a dialogue so far. Tokens are fed in chunks to a few
rows at once, the lanes; all rows decode together, each at its own place with its own key, budget, temperature and stop
ids. What a row computes does not depend on the other rows. Who sits where, and how long the rows are, is the host's
(see session.py).

C chunk, M most tokens of a turn, N tokens of a burst, P parts in which the rows lie on the mesh, F lanes of each part,
V vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sml_jax import parallel
from sml_jax.models.attention import taken
from sml_jax.models.transformer import Cache, Model, Params

SMALLEST = 8
"""The first two segments of the caches are about this part of the slots; each next brings as many as all before it."""
SLOTS = 64
"""All but the first two, which share as many, are multiples of so many slots."""
BURST = 32
"""Most tokens of a row between two looks of the host."""
LANES, FEWEST_LANES = 8, 4
"""One row in so many is fed at once, but no fewer than these."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
  """What the devices remember of B rows.

  Attributes:
    cache: of all rows.
    last: their last hidden states [B, D].
    scored: those of the lanes whose tokens were scored last, [P F, D].
  """

  cache: Cache
  last: jax.Array
  scored: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Lanes:
  """What is fed at once; a lane whose row is beyond the part's last is empty.

  Attributes:
    rows: int [P, F], within each part.
    tokens: int [P, F, C], of which the first counts [P, F] are real.
    lengths: int [P, F], tokens of the row before them.
    adapted: bool [P, F], whether the adapters count.
    reach: int, the segment up to which the rows go.
  """

  rows: np.ndarray
  tokens: np.ndarray
  counts: np.ndarray
  lengths: np.ndarray
  adapted: np.ndarray
  reach: np.ndarray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Turns:
  """Where the turns of B rows stand.

  Attributes:
    lengths: int [B], tokens of the row.
    alive: bool [B], whether it is still speaking.
    counts, budgets: int [B], tokens of its turn so far, and at most.
    temperatures: f32 [B]; 0 is greedy (log-probabilities are then those at temperature 1).
    stops: int [B, n], the ids that end the turn (-1: none); the stop id is kept as its last token.
    keys, places: uint32 [B, k] and [B, 3]: data of a key, and the task, sample and turn folded into it; token i of the
      turn uses fold_in(that, i).
    adapted: bool [B], whether the adapters count.
    reach: int, the segment up to which the rows go.
    enough: int, how many turns must end for the burst to end early.
  """

  lengths: np.ndarray
  alive: np.ndarray
  counts: np.ndarray
  budgets: np.ndarray
  temperatures: np.ndarray
  stops: np.ndarray
  keys: np.ndarray
  places: np.ndarray
  adapted: np.ndarray
  reach: np.ndarray
  enough: np.ndarray


class Engine:
  """The compiled steps for a fixed number of rows.

  Args:
    model: the static half of the transformer.
    rows: B.
    slots: S at least, most tokens of a row.
    max_turn: M, most tokens of a turn.
    stop_ids: ids that end a turn unless a request has its own.
    mesh: where rows and parameters lie; None = the default device.
    home: the mesh of the parameters given to `decode_params`; None = `mesh`. Where `mesh` is a `parallel.local_mesh` of
      it, this process samples by itself, with what all made together.
    chunk: C. Chunk boundaries depend on the dialogue alone.
  """

  def __init__(
      self, model: Model, *, rows: int, slots: int, max_turn: int, stop_ids: Sequence[int], mesh: Mesh | None = None,
      home: Mesh | None = None, chunk: int = 16,
  ):
    self.model, self.rows, self.max_turn, self.chunk, self.stop_ids = model, rows, max_turn, chunk, tuple(stop_ids)
    self.segments = segments_of(slots)
    self._ends = np.cumsum(self.segments)
    self.slots = int(self._ends[-1])
    self.mesh, self.home = mesh, home or mesh
    devices = self.home.devices.ravel() if self.home is not None else jax.devices()[:1]
    self._one_cpu = len(devices) == 1 and devices[0].platform == "cpu"
    parts = parallel.row_shards(mesh) if mesh is not None else 1
    self.parts = parts if rows % parts == 0 else 1
    each = rows // self.parts
    self.lanes = min(each, max(FEWEST_LANES, each // LANES))
    self._unstack = jax.jit(self._unstacked)
    self._start = jax.jit(self._empty)
    self.feed = jax.jit(self._feed, donate_argnames="rows")
    self.fork = jax.jit(self._fork, donate_argnames="rows")
    self.score = jax.jit(self._score, donate_argnames="rows")
    self.decode = jax.jit(self._decode, donate_argnames="rows")

  def decode_params(self, params: Params) -> Params:
    """The copy of the parameters that decoding reads, made once a rollout: in the activations' dtype, layers apart, on
    one CPU turned."""
    params = self._unstack(params)
    return params if self.mesh == self.home else parallel.on_own_devices(self.mesh, params)

  def _unstacked(self, params: Params) -> Params:
    lie = lambda params: params
    if self.home is not None and not self._one_cpu:
      params = jax.lax.with_sharding_constraint(params, parallel.param_shardings(self.home, params, "decode"))
      lie = lambda made: jax.lax.with_sharding_constraint(made, self.decode_shardings(params))
    # Norms compute in f32 with their scale as stored; all else is cast at its use, so it may as well be cast here.
    cast = lambda path, a: a if path[-1].key == "scale" else a.astype(self.model.config.dtype)
    return lie(self.model.unstacked(jax.tree_util.tree_map_with_path(cast, params), self._one_cpu))

  def decode_shardings(self, params: Params) -> Any:
    """Where what `decode_params` makes of `params` lies, on a mesh."""
    if self._one_cpu:
      return parallel.replicated(self.home)
    shardings = parallel.param_shardings(self.home, params, "decode")
    layer = jax.tree.map(lambda s: NamedSharding(self.home, P(*s.spec[1:])), shardings["blocks"])
    return shardings | {"blocks": (layer,) * self.model.config.layers}

  def start(self) -> Rows:
    """All rows empty; they lie along data and fsdp."""
    return self._start()

  def _empty(self) -> Rows:
    cache = self.model.init_cache(self.rows, self.segments)
    hidden = lambda n: jnp.zeros((n, self.model.config.d_model), self.model.config.dtype)
    states = hidden(self.rows), hidden(self.parts * self.lanes)
    return Rows(self._lie(cache), *(parallel.constrain(self.mesh, a) for a in states))

  def _lie(self, cache: Cache) -> Cache:
    return jax.tree.map(lambda a: parallel.constrain(self.mesh, a, parallel.CACHE), cache)

  def no_lanes(self) -> Lanes:
    """Lanes of which all are empty, and all apart; the caller fills them."""
    shape, size = (self.parts, self.lanes), self.rows // self.parts
    ints = lambda *more: np.zeros((*shape, *more), np.int32)
    rows = np.broadcast_to(size + np.arange(self.lanes, dtype=np.int32), shape).copy()
    return Lanes(rows, ints(self.chunk), ints(), ints(), np.ones(shape, bool), np.int32(0))

  def no_turns(self) -> Turns:
    """Of rows none of which speaks; the caller fills them."""
    zeros = lambda dtype, *shape: np.zeros((self.rows, *shape), dtype)
    words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape[0]
    return Turns(
        lengths=zeros(np.int32), alive=zeros(bool), counts=zeros(np.int32), budgets=zeros(np.int32),
        temperatures=zeros(np.float32), stops=np.full((self.rows, max(1, len(self.stop_ids))), -1, np.int32),
        keys=zeros(np.uint32, words), places=zeros(np.uint32, 3), adapted=np.ones(self.rows, bool), reach=np.int32(0),
        enough=np.int32(0),
    )  # fmt: skip

  def reach(self, most: int) -> np.ndarray:
    """The segment up to which rows of `most` tokens go."""
    return np.int32(np.searchsorted(self._ends, min(most, self.slots)))

  def _extended(self, params: Params, rows: Rows, lanes: Lanes) -> tuple[jax.Array, Cache]:
    """The hidden states [P F, C, D] of the lanes, and the caches with them."""
    flat = lambda a: parallel.constrain(self.mesh, a.reshape(-1, *a.shape[2:]))
    adapted = flat(lanes.adapted) if self.model.config.lora else None
    hidden, cache = self.model.extend(
        params, rows.cache, flat(lanes.tokens), flat(lanes.lengths), reach=lanes.reach, rows=lanes.rows, adapted=adapted
    )
    return hidden, self._lie(cache)

  def _feed(self, params: Params, rows: Rows, lanes: Lanes) -> Rows:
    """Appends the lanes' tokens to their rows. `rows` are consumed, here and below."""
    hidden, cache = self._extended(params, rows, lanes)
    newest = jnp.take_along_axis(hidden, jnp.maximum(lanes.counts.reshape(-1) - 1, 0)[:, None, None], 1)[:, 0]
    return Rows(cache, self._put(rows.last, lanes.rows, newest), rows.scored)

  def _put(self, old: jax.Array, at: jax.Array, new: jax.Array) -> jax.Array:
    """`old` [B, ...] with the lanes' rows replaced."""
    apart = lambda a: a.reshape(self.parts, -1, *a.shape[1:])
    put = jax.vmap(lambda old, at, new: old.at[at].set(new, mode="drop", unique_indices=True))
    return put(apart(old), at, apart(new)).reshape(old.shape)

  def _fork(self, rows: Rows, sources: jax.Array, targets: jax.Array, reach: jax.Array) -> Rows:
    """Copies the caches of rows `sources` to rows `targets`, each int [P, F] within its part, as far as `reach`."""
    copy = lambda segment: self._put(segment, targets, taken(segment, sources))

    def one(n: int, cache: Cache) -> Cache:
      return jax.tree.map(lambda segments: (*map(copy, segments[:n]), *segments[n:]), cache, is_leaf=_is_segments)

    over = [functools.partial(one, n + 1) for n in range(len(self.segments))]
    return dataclasses.replace(rows, cache=self._lie(jax.lax.switch(reach, over, rows.cache)))

  def _score(self, params: Params, rows: Rows, lanes: Lanes, first: jax.Array) -> tuple[Rows, jax.Array]:
    """The log-probability [P, F, C] of each of the lanes' tokens at temperature 1; the rows stay as they are.

    first: bool, whether these are the first tokens to be scored; else they follow those that the lanes had before.
    """
    # What stands in a cache beyond its row's length never matters.
    hidden, cache = self._extended(params, rows, lanes)
    before = jnp.where(first, taken(rows.last, lanes.rows), rows.scored)
    logits = self.model.logits(params, jnp.concatenate([before[:, None], hidden[:, :-1]], 1))
    tokens = lanes.tokens.reshape(logits.shape[:2])
    logp = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], -1).reshape(lanes.tokens.shape)
    return Rows(cache, rows.last, hidden[:, -1]), parallel.constrain(self.mesh, logp, P())

  def _decode(self, params: Params, rows: Rows, turns: Turns) -> tuple[Rows, *tuple[jax.Array, ...]]:
    """A burst: up to N tokens of each row that is alive, which must have been fed or have decoded before.

    Returns:
      rows, tokens [B, N], log-probabilities [B, N], counts [B], alive [B]; each row's new tokens stand first.
    """
    greedy = turns.temperatures <= 0
    warmth = jnp.where(greedy, 1.0, turns.temperatures)[:, None]
    keys = jax.vmap(_key_of)(turns.keys, turns.places)
    adapted = turns.adapted if self.model.config.lora else None
    left = turns.alive.sum() - turns.enough

    def going(state):
      i, *_, alive = state
      return (i < BURST) & alive.any() & ((i == 0) | (alive.sum() > left))

    def step(state):
      i, rows, tokens, logprobs, lengths, counts, alive = state
      logits = self.model.logits(params, rows.last) / warmth  # [B, V]
      total = jax.nn.logsumexp(logits, -1)
      token = jnp.argmax(logits, -1).astype(jnp.int32)
      drawn = lambda: _draw(jax.vmap(jax.random.fold_in)(keys, counts), logits - total[:, None])
      token = jax.lax.cond((alive & ~greedy).any(), lambda: jnp.where(greedy, token, drawn()), lambda: token)
      logprob = jnp.take_along_axis(logits, token[:, None], 1)[:, 0] - total
      tokens = tokens.at[:, i].set(jnp.where(alive, token, 0))
      logprobs = logprobs.at[:, i].set(jnp.where(alive, logprob, 0.0))
      hidden, cache = self.model.extend(
          params, rows.cache, token[:, None], lengths, reach=turns.reach, adapted=adapted
      )
      rows = Rows(self._lie(cache), jnp.where(alive[:, None], hidden[:, 0], rows.last), rows.scored)
      lengths, counts = lengths + alive, counts + alive
      alive = alive & ~(token[:, None] == turns.stops).any(-1) & (counts < turns.budgets)
      return i + 1, rows, tokens, logprobs, lengths, counts, alive

    room = (self.rows, BURST)
    start = (0, rows, jnp.zeros(room, jnp.int32), jnp.zeros(room), turns.lengths, turns.counts, turns.alive)
    _, rows, tokens, logprobs, _, counts, alive = jax.lax.while_loop(going, step, start)
    # The host reads them, and in a mesh of several processes none has all rows.
    return rows, *(parallel.constrain(self.mesh, a, P()) for a in (tokens, logprobs, counts, alive))


def segments_of(slots: int) -> tuple[int, ...]:
  """Slots of each segment of the caches, two to five, which have room for `slots` in all."""
  step = -(-slots // SMALLEST // SLOTS) * SLOTS
  blocks = -(-slots // step)
  ends = sorted({min(2**i, blocks) for i in range(SMALLEST.bit_length())})
  first, *later = (step * (end - start) for start, end in itertools.pairwise([0, *ends]))
  return first // 2, first // 2, *later


def _is_segments(node: object) -> bool:
  return isinstance(node, tuple) and isinstance(node[0], jax.Array)


def place_key(key: jax.Array, task: jax.Array, sample: jax.Array, turn: jax.Array) -> jax.Array:
  """The key of a turn: what is sampled there is a function of the place alone."""
  for place in (task, sample, turn):
    key = jax.random.fold_in(key, jnp.asarray(place, jnp.uint32))
  return key


def _key_of(data: jax.Array, place: jax.Array) -> jax.Array:
  return place_key(jax.random.wrap_key_data(data), *place)


def _draw(keys: jax.Array, logp: jax.Array) -> jax.Array:
  """One id a row by inverse distribution function: one uniform number a row, not one a piece. [B], [B, V] -> [B]."""
  u = jax.vmap(jax.random.uniform)(keys)
  cumulative = jnp.cumsum(jnp.exp(logp), -1)
  below = (cumulative <= u[:, None] * cumulative[:, -1:]).sum(-1)
  return jnp.minimum(below, logp.shape[-1] - 1)
