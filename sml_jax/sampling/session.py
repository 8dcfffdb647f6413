"""The rows of an engine through one rollout: who speaks where, what is fed, shared and taken back.

Requests come in any order and wait until their row is free. Each tick feeds what is asked for and lets all rows that
speak go on together for a while; a turn that ends is told at once, so that another can take its place.
"""

from __future__ import annotations

import collections
import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from sml_jax.errors import UserError
from sml_jax.models.transformer import Params
from sml_jax.sampling.engine import BURST, Engine, Lanes


@dataclasses.dataclass(frozen=True)
class Said:
  """A turn: its tokens with their log-probabilities, and the nats of what was to be scored before it (else None)."""

  tokens: list[int]
  logprobs: list[float]
  nats: float | None = None


@dataclasses.dataclass
class Request:
  """A turn to be spoken.

  Attributes:
    row: of the engine.
    tokens: what the row reads first.
    keep: so many tokens of the row stay before them; None = `tokens` are all that it shall hold, of which it computes
      what neither it nor a neighbour holds already, in chunks that depend on `tokens` alone.
    key: data of a key, uint32 [k]; place: the task, sample and turn folded into it.
    budget: most tokens of the turn (at most M; 0 = none, the row only reads).
    temperature: 0 is greedy.
    stops: ids that end the turn; None = the engine's.
    adapted: whether the model's adapters count for this row.
    score: tokens whose nats are measured behind what the row has read, at temperature 1 (at most M of them).
    done: is called with the turn; with None where the session was closed before it.
  """

  row: int
  tokens: Sequence[int]
  keep: int | None
  key: np.ndarray
  place: tuple[int, int, int]
  budget: int
  temperature: float
  done: Callable[[Said | None], None]
  stops: Sequence[int] | None = None
  adapted: bool = True
  score: Sequence[int] = ()


class Session:
  """The rows of one rollout; used from one thread, but for `post`.

  Args:
    params: of `engine.decode_params`.

  Attributes:
    lengths: int [B], tokens that each row holds.
    wake: is called when something was posted; None = nobody else calls `tick`.
    fed, shared: tokens that were fed, and those that a neighbour held already.
    seconds: spent in "prefill" and "decode".
  """

  def __init__(self, engine: Engine, params: Params):
    self.engine, self.params = engine, params
    b = engine.rows
    self._size = engine.rows // engine.parts  # rows of a part
    self._rows = engine.start()
    # A row's first tokens that were computed in whole chunks from its begin on, with or without adapters (-1: none).
    self._held = np.full((b, engine.slots), -1, np.int32)
    self._held_adapted = np.ones(b, bool)
    self._turns = engine.no_turns()
    self.lengths = self._turns.lengths
    self._speaking: dict[int, Request] = {}
    self._so_far: dict[int, tuple[list[int], list[float]]] = {}
    self._nats: dict[int, float] = {}
    self._waiting: collections.deque[Request] = collections.deque()
    self._inbox: queue.SimpleQueue[Callable[[], Request]] = queue.SimpleQueue()
    self.wake: Callable[[], None] | None = None
    self._closed, self._giving_up = False, threading.Lock()
    self.fed = self.shared = 0
    self.seconds = {"prefill": 0.0, "decode": 0.0}

  def submit(self, request: Request) -> None:
    """Raises UserError for a turn that is too long to be scored, ValueError for more tokens than a row has slots."""
    if (n := (request.keep or 0) + len(request.tokens)) > self.engine.slots:
      raise ValueError(f"row {request.row} would hold {n} tokens, and has {self.engine.slots} slots")
    if len(request.score) > self.engine.max_turn:
      raise UserError(f"a turn of {len(request.score)} tokens cannot be scored: dialogue.max_turn_tokens is "
                      f"{self.engine.max_turn}")
    self._waiting.append(request)

  def post(self, make: Callable[[], Request]) -> None:
    """From any thread: a request that is made and submitted in the session's own. Where nobody else calls `tick`, call
    it until the turn is done."""
    self._inbox.put(make)
    if self.wake is not None:
      self.wake()
    if self._closed:
      self._give_up()

  def close(self) -> None:
    """Gives up what is not done yet."""
    self._closed = True
    self._give_up()

  def _give_up(self) -> None:
    with self._giving_up:
      while not self._inbox.empty():
        self._waiting.append(self._inbox.get()())
      left = [*self._speaking.values(), *self._waiting]
      self._speaking, self._waiting = {}, collections.deque()
    for request in left:
      request.done(None)

  @property
  def busy(self) -> bool:
    """Whether a tick has something to do."""
    return bool(self._speaking or self._waiting or not self._inbox.empty())

  def tick(self) -> None:
    """Takes up what waits for free rows, and decodes a burst."""
    while not self._inbox.empty():
      self.submit(self._inbox.get()())
    since = time.monotonic()
    new: dict[int, Request] = {}
    for _ in range(len(self._waiting)):
      request = self._waiting.popleft()
      if request.row in self._speaking or request.row in new:
        self._waiting.append(request)
      else:
        new[request.row] = request
    if new:
      self._read(new)
      if asked := {row: r.score for row, r in new.items() if r.score}:
        self._nats |= self._score(asked)
      self._begin(new)
      jax.block_until_ready(self._rows.last)
    read = time.monotonic()
    self.seconds["prefill"] += read - since
    silent = [row for row in self._speaking if not self._turns.alive[row]]
    if len(silent) < len(self._speaking):
      silent += self._burst()
      self.seconds["decode"] += time.monotonic() - read
    for row in silent:
      request = self._speaking.pop(row)
      request.done(Said(*self._so_far.pop(row), self._nats.pop(row, None)))

  def _call(self, step: str, *args) -> tuple:
    """Runs a step of the engine on the rows. All that is on the devices changes here alone."""
    params = () if step == "fork" else (self.params,)
    out = getattr(self.engine, step)(*params, self._rows, *args)
    self._rows, *more = out if isinstance(out, tuple) else (out,)
    return tuple(more)

  # What a row reads.

  def _read(self, new: dict[int, Request]) -> None:
    feed, whole = {}, {}
    for row, r in new.items():
      self._turns.adapted[row] = r.adapted
      if r.keep is None:
        whole[row] = np.asarray(r.tokens, np.int32)
      else:
        self._cut(row, r.keep)
        feed[row] = r.tokens
    leaders, followers = self._find_shares(whole)
    self._feed(feed | self._share(whole, leaders))
    if followers:
      self._feed(self._share(whole, followers))

  def _cut(self, row: int, keep: int) -> None:
    self.lengths[row] = keep
    self._held[row, keep:] = -1

  def _find_shares(self, whole: dict[int, np.ndarray]) -> tuple[dict, dict]:
    """For each row (the row that holds the most of its tokens, how many): those that may be fed at once, and those that
    wait for one of them."""
    held, adapted = self._held.copy(), self._held_adapted.copy()
    held[list(whole)] = -1  # about to be overwritten
    leaders, followers = {}, {}
    for row, tokens in whole.items():
      first = row // self._size * self._size
      part, own = slice(first, first + self._size), row - first
      held[row] = self._held[row]
      same = (held[part, : len(tokens)] == tokens) & (adapted[part] == self._turns.adapted[row])[:, None]
      # The last chunk is fed in any case, for its hidden state.
      common = np.minimum(np.cumprod(same, 1).sum(1), len(tokens) - 1) // self.engine.chunk * self.engine.chunk
      best = own if common[own] == common.max() else int(common.argmax())
      share = first + best, int(common[best])
      held[row], adapted[row] = -1, self._turns.adapted[row]
      if best != own and share[0] in leaders:
        followers[row] = share
      else:
        leaders[row] = share
        held[row, : len(tokens)] = tokens
    return leaders, followers

  def _share(self, whole: dict[int, np.ndarray], shares: dict[int, tuple[int, int]]) -> dict[int, np.ndarray]:
    """Copies what neighbours hold; returns what is still to be fed."""
    copies = {row: at for row, (at, n) in shares.items() if at != row and n}
    for rows in self._lanes_of(list(copies)):
      targets, sources = self.engine.no_lanes().rows, self.engine.no_lanes().rows
      for row, at in rows.items():
        targets[at], sources[at] = row % self._size, copies[row] % self._size
      reach = self.engine.reach(max(shares[row][1] for row in rows))
      self._call("fork", sources, targets, reach)
    feed = {}
    for row, (at, n) in shares.items():
      if at != row:
        self.shared += n
      self._held[row, :n] = whole[row][:n]
      self._cut(row, n)
      self._held_adapted[row] = self._turns.adapted[row]
      feed[row] = whole[row][n:]
    return feed

  def _lanes_of(self, rows: Sequence[int]) -> Iterator[dict[int, tuple[int, int]]]:
    """Rows that go together: row -> (part, lane)."""
    by_part = [[r for r in rows if r // self._size == part] for part in range(self.engine.parts)]
    for start in range(0, max(map(len, by_part), default=0), self.engine.lanes):
      chosen = [part[start : start + self.engine.lanes] for part in by_part]
      yield {row: (p, lane) for p, part in enumerate(chosen) for lane, row in enumerate(part)}

  def _chunks(self, feed: dict[int, Sequence[int]]) -> Iterator[tuple[dict[int, tuple[int, int]], Lanes, int]]:
    """(rows, their next chunk, its number): the first chunks of all before the second of any; those with the most to
    read go together."""
    c = self.engine.chunk
    order = sorted((row for row, tokens in feed.items() if len(tokens)), key=lambda row: -len(feed[row]))
    for start in range(0, max((len(t) for t in feed.values()), default=0), c):
      for rows in self._lanes_of([row for row in order if len(feed[row]) > start]):
        lanes = self.engine.no_lanes()
        for row, at in rows.items():
          piece = feed[row][start : start + c]
          lanes.rows[at], lanes.counts[at], lanes.lengths[at] = row % self._size, len(piece), self.lengths[row] + start
          lanes.tokens[at][: len(piece)], lanes.adapted[at] = piece, self._turns.adapted[row]
        reach = self.engine.reach(int((lanes.lengths + lanes.counts).max()))
        yield rows, dataclasses.replace(lanes, reach=reach), start // c

  def _feed(self, feed: dict[int, Sequence[int]]) -> None:
    for _, lanes, _ in self._chunks(feed):
      self._call("feed", lanes)
    for row, tokens in feed.items():
      n = int(self.lengths[row])
      if n % self.engine.chunk == 0 and (n == 0 or self._held[row, n - 1] >= 0):
        self._held[row, n : n + len(tokens)] = tokens
      self.lengths[row] += len(tokens)
      self.fed += len(tokens)

  def _score(self, asked: dict[int, Sequence[int]]) -> dict[int, float]:
    nats = dict.fromkeys(asked, 0.0)
    # All chunks of the same rows follow each other: the engine remembers their last hidden states.
    for together in self._lanes_of(sorted(asked, key=lambda row: -len(asked[row]))):
      for rows, lanes, number in self._chunks({row: asked[row] for row in together}):
        (logp,) = self._call("score", lanes, np.bool_(number == 0))
        logp = np.asarray(logp, np.float64)
        for row, at in rows.items():
          nats[row] -= logp[at][: lanes.counts[at]].sum()
    return nats

  # What it says.

  def _begin(self, new: dict[int, Request]) -> None:
    t = self._turns
    for row, r in new.items():
      t.alive[row], t.counts[row], t.budgets[row] = r.budget > 0, 0, min(r.budget, self.engine.max_turn)
      t.temperatures[row], t.keys[row], t.places[row] = r.temperature, r.key, r.place
      stops = self.engine.stop_ids if r.stops is None else r.stops
      t.stops[row] = [*stops, *[-1] * (t.stops.shape[1] - len(stops))]
      self._speaking[row], self._so_far[row] = r, ([], [])

  def _burst(self) -> list[int]:
    """Returns the rows whose turn has ended."""
    t, spoke = self._turns, np.flatnonzero(self._turns.alive)
    reach = self.engine.reach(int(self.lengths[spoke].max()) + BURST)
    enough = np.int32(min(self.engine.lanes * self.engine.parts, len(spoke)))
    told = self._call("decode", dataclasses.replace(t, reach=reach, enough=enough))
    tokens, logprobs, counts, alive = jax.device_get(told)
    for row in spoke:
      n = int(counts[row] - t.counts[row])
      self._so_far[row][0].extend(tokens[row, :n].tolist())
      self._so_far[row][1].extend(logprobs[row, :n].tolist())
      self.lengths[row] += n
    t.counts[:], t.alive[:] = counts, alive
    return [int(row) for row in spoke if not alive[row]]


class Sessions:
  """The sessions of one rollout, one for each engine.

  Args:
    make: (engine, decode parameters) -> a session.
  """

  def __init__(self, make: Callable[[Engine, Params], Session] = Session):
    self._make, self._made = make, []

  def of(self, engine: Engine, params: Callable[[], Params] | None = None) -> Session:
    """The engine's session; the first time it is made, with what `params` gives."""
    for session in self._made:
      if session.engine is engine:
        return session
    self._made.append(self._make(engine, params()))
    return self._made[-1]

  def __iter__(self) -> Iterator[Session]:
    return iter(self._made)
