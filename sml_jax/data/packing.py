"""Several dialogues in one row of fixed length: which go together, and the arrays that keep them apart."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Literal

import numpy as np

from sml_jax.data.rows import TokenRow
from sml_jax.errors import UserError

PackedBatch = dict[str, np.ndarray]
"""A TokenRow's arrays padded with 0, and `segments` int32, which dialogue of the row a token belongs to (from 1; 0 is
padding), and `positions` int32, which restart at 0 in each segment. All [T] for one row, [R, T] for a batch."""

_KEPT_EPOCHS = 2


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
  """A permutation of 0..n-1 that depends on (n, seed, epoch) alone, whatever the NumPy version.

  The seed is hashed with the epoch: seed 0's second epoch is not seed 1's first.
  """
  raw = np.random.Philox(np.random.SeedSequence([seed, epoch])).random_raw(n)
  return np.argsort(raw, kind="stable")


def best_fit(lengths: Sequence[int], row_length: int) -> list[list[int]]:
  """Puts each length, in the order given, into the fullest open row that still has room, or into a new one.

  All rows stay open, so few tokens are wasted whatever the order: 1-2% on dialogues a quarter of a row long. Grain's
  packs a stream, whose rows depend on how it was cut among processes and are not found by number; here row i of an
  epoch is the same for any number of processes, which a resumed run needs.

  Args:
    lengths: each from 1 to row_length.
    row_length: tokens a row holds.

  Returns:
    Indices into `lengths`, row by row, in the order in which rows were opened.
  """
  rows, open_rows = [], [[] for _ in range(row_length + 1)]  # open_rows[c]: the rows with room for exactly c more.
  rooms = 0  # Bit c is set where open_rows[c] is not empty, so that "the least room >= n" is one look at an integer.
  for index, length in enumerate(lengths):
    fitting = rooms >> length
    if fitting:
      room = length + (fitting & -fitting).bit_length() - 1
      row = open_rows[room].pop()
      if not open_rows[room]:
        rooms ^= 1 << room
      rows[row].append(index)
    else:
      room, row = row_length, len(rows)
      rows.append([index])
    if room > length:
      open_rows[room - length].append(row)
      rooms |= 1 << (room - length)
  return rows


class PackingPlan:
  """Which dialogues share a row, for every epoch of an endless stream of rows.

  An epoch visits every dialogue once: a permutation by (seed, epoch), best fit into rows, and the rows in an order by
  (seed, epoch) again, since best fit leaves the emptiest for the end. Nothing depends on the number of processes.

  Args:
    lengths: of the dialogues, in tokens; [N].
    row_length: tokens a row holds.
    seed: of the order; not negative.
    packing: False gives every dialogue a row of its own.
    too_long: what to do with a dialogue longer than a row: refuse it, or leave it out and count it in `dropped`.

  Raises:
    UserError: a dialogue is longer than a row (names it) or empty, or none is left.
  """

  def __init__(
      self,
      lengths: Sequence[int] | np.ndarray,
      row_length: int,
      seed: int,
      *,
      packing: bool = True,
      too_long: Literal["error", "drop"] = "error",
  ):
    lengths = np.asarray(lengths, np.int64)
    long = np.flatnonzero(lengths > row_length)
    if long.size and too_long == "error":
      raise UserError(f"dialogue {long[0]} has {lengths[long[0]]} tokens, more than the row length {row_length}")
    if (empty := np.flatnonzero(lengths < 1)).size:
      raise UserError(f"dialogue {empty[0]} has no tokens")
    self.dropped = int(long.size)
    self._kept = np.flatnonzero(lengths <= row_length)
    if not self._kept.size:
      raise UserError(f"no dialogue of {lengths.size} fits into the row length {row_length}")
    self._lengths, self._row_length, self._seed, self._packing = lengths, row_length, seed, packing
    self._epochs: dict[int, list[list[int]]] = {}
    self._starts = [0]  # Row at which each epoch starts; one more than epochs planned so far.
    self._lock = threading.Lock()  # Grain's reading threads share the plan.

  def rows(self, epoch: int) -> list[list[int]]:
    """The dialogue indices of each row of an epoch, as the stream has them."""
    if epoch not in self._epochs:
      order = self._kept[epoch_order(self._kept.size, self._seed, 2 * epoch)]
      lengths, order = self._lengths[order].tolist(), order.tolist()
      rows = best_fit(lengths, self._row_length) if self._packing else [[i] for i in range(len(order))]
      shuffled = epoch_order(len(rows), self._seed, 2 * epoch + 1).tolist()
      while len(self._epochs) >= _KEPT_EPOCHS:
        self._epochs.pop(min(self._epochs))
      self._epochs[epoch] = [[order[i] for i in rows[r]] for r in shuffled]
    return self._epochs[epoch]

  def row(self, index: int) -> list[int]:
    """The dialogue indices of row `index` of the endless stream, in which the epochs follow each other."""
    with self._lock:
      while index >= self._starts[-1]:
        self._starts.append(self._starts[-1] + len(self.rows(len(self._starts) - 1)))
      epoch = int(np.searchsorted(self._starts, index, side="right")) - 1
      return self.rows(epoch)[index - self._starts[epoch]]


def pack(rows: Sequence[TokenRow], row_length: int) -> PackedBatch:
  """Lays token rows one after the other into one row of `row_length` tokens; no rows give a row of padding.

  The first token of a segment gets weight 0: there is nothing to predict it from, packed or not.

  Raises:
    UserError: they do not fit.
  """
  total = sum(len(row["tokens"]) for row in rows)
  if total > row_length:
    raise UserError(f"{len(rows)} dialogues of {total} tokens do not fit into the row length {row_length}")
  out = {
      "tokens": np.zeros(row_length, np.int32),
      "weights": np.zeros(row_length, np.float32),
      "advantages": np.zeros(row_length, np.float32),
      "logprobs": np.zeros(row_length, np.float32),
      "segments": np.zeros(row_length, np.int32),
      "positions": np.zeros(row_length, np.int32),
  }
  start = 0
  for segment, row in enumerate(rows, 1):
    end = start + len(row["tokens"])
    for name in ("tokens", "weights", "advantages", "logprobs"):
      out[name][start:end] = row[name]
    out["weights"][start:start + 1] = 0.0
    out["segments"][start:end] = segment
    out["positions"][start:end] = np.arange(end - start)
    start = end
  return out


def pack_all(rows: Sequence[TokenRow], row_length: int, *, packing: bool = True) -> PackedBatch:
  """Packs the dialogues of one update, in the order given, by best fit: arrays [R, T].

  The same dialogues in the same order give the same arrays; sort by (task, sample) first.

  Raises:
    UserError: there are none, or one is longer than a row (names it).
  """
  lengths = [len(row["tokens"]) for row in rows]
  if not lengths:
    raise UserError("there are no dialogues to pack")
  for index, length in enumerate(lengths):
    if length > row_length:
      raise UserError(f"dialogue {index} has {length} tokens, more than the row length {row_length}")
  plan = best_fit(lengths, row_length) if packing else [[i] for i in range(len(rows))]
  return stack([pack([rows[i] for i in row], row_length) for row in plan])


def stack(packed: Sequence[PackedBatch]) -> PackedBatch:
  """Rows [T] -> a batch [R, T]."""
  return {name: np.stack([row[name] for row in packed]) for name in packed[0]}


def pad_rows(batch: PackedBatch, multiple: int) -> PackedBatch:
  """Adds rows of padding until the number of rows is a multiple of `multiple`: [R, T] -> [R', T]."""
  extra = -len(batch["tokens"]) % multiple
  return {name: np.pad(array, ((0, extra), (0, 0))) for name, array in batch.items()}
