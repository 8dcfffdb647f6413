"""Grain pipelines: token rows into packed batches, and task indices into the steps of the online stages.

Both are endless, since runs are counted in steps, and both have one global order: step s takes the rows (or tasks)
s*B to (s+1)*B, and process p of n every n-th of them. So the state of an iterator is a number of steps and nothing
else, and goes on with any number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import grain
import numpy as np

from sml_jax.data.packing import PackedBatch, PackingPlan, epoch_order, pack, stack
from sml_jax.data.rows import TokenRow
from sml_jax.errors import UserError

# Grain wants a length. No run takes this many steps, and a multiple of any batch size is still below 2^63.
_ENDLESS = 2**60


def training_batches(
    token_rows: Sequence[TokenRow],
    *,
    batch_rows: int,
    row_length: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    packing: bool = True,
    too_long: Literal["error", "drop"] = "error",
) -> grain.DatasetIterator:
  """Batches of packed rows without end, each dialogue once an epoch.

  Args:
    token_rows: random access to the dialogues' token rows, each read once here for its length. A list, or
      `grain.MapDataset.source(open_dataset(folder)).map(token_row)` where memory is short.
    batch_rows: B, rows of the global batch; a multiple of process_count.
    row_length: T, tokens a row.
    seed: of the order; not negative.
    process_index, process_count: which part of each batch this process gets.
    packing: False puts one dialogue into a row.
    too_long: "error" or "drop", see PackingPlan.

  Returns:
    An iterator over PackedBatch arrays [B / process_count, T], with get_state and set_state.

  Raises:
    UserError: B does not divide, or a dialogue is longer than a row.
  """
  lengths = [len(token_rows[i]["tokens"]) for i in range(len(token_rows))]
  plan = PackingPlan(lengths, row_length, seed, packing=packing, too_long=too_long)
  rows = grain.MapDataset.source(_PackedRows(token_rows, plan, row_length))
  return _steps(rows, batch_rows, process_index, process_count, batch_fn=stack, read_threads=1)


def task_batches(
    n_tasks: int, *, tasks_per_step: int, seed: int, process_index: int = 0, process_count: int = 1
) -> grain.DatasetIterator:
  """Task indices for each step without end, in a new order each epoch.

  The tasks of one step are all different, because randomness is keyed by (step, task, sample): where the number of
  tasks is not a multiple of tasks_per_step, each epoch leaves another few of them out.

  Returns:
    An iterator over int64 arrays [tasks_per_step / process_count], with get_state and set_state.

  Raises:
    UserError: fewer tasks than a step takes, or tasks_per_step is not a multiple of process_count.
  """
  if n_tasks < tasks_per_step:
    raise UserError(f"a step takes {tasks_per_step} different tasks, but there are only {n_tasks}")
  tasks = grain.MapDataset.source(_TaskOrder(n_tasks, n_tasks - n_tasks % tasks_per_step, seed))
  return _steps(tasks, tasks_per_step, process_index, process_count, batch_fn=np.asarray, read_threads=0)


def _steps(elements, batch, process_index, process_count, batch_fn, read_threads) -> grain.DatasetIterator:
  if batch % process_count:
    raise UserError(f"a batch of {batch} does not divide among {process_count} processes")
  local = elements[process_index::process_count].batch(batch // process_count, batch_fn=batch_fn)
  # One thread that keeps a few batches ready is enough: rows are in memory or a cheap read away.
  options = grain.ReadOptions(num_threads=read_threads, prefetch_buffer_size=4 * read_threads)
  return iter(local.to_iter_dataset(options))


class _PackedRows:
  """Random access to the endless stream of packed rows."""

  def __init__(self, token_rows: Sequence[TokenRow], plan: PackingPlan, row_length: int):
    self._token_rows, self._plan, self._row_length = token_rows, plan, row_length

  def __len__(self) -> int:
    return _ENDLESS

  def __getitem__(self, index: int) -> PackedBatch:
    return pack([self._token_rows[i] for i in self._plan.row(index)], self._row_length)


class _TaskOrder:
  """Random access to an endless stream of task indices: the first `used` of a permutation by (seed, epoch)."""

  def __init__(self, n_tasks: int, used: int, seed: int):
    self._n, self._used, self._seed = n_tasks, used, seed
    self._current = (-1, np.zeros(0, np.int64))  # Epoch and its order, replaced together.

  def __len__(self) -> int:
    return _ENDLESS

  def __getitem__(self, index: int) -> int:
    epoch, place = divmod(index, self._used)
    current, order = self._current
    if epoch != current:
      order = epoch_order(self._n, self._seed, epoch)
      self._current = (epoch, order)
    return int(order[place])
