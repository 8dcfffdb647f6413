"""The Grain pipelines: one global order whatever the number of processes, and a state that goes on anywhere."""

from __future__ import annotations

import collections
import json

import grain
import numpy as np
import pytest

from sml_jax.data.packing import PackingPlan, pack
from sml_jax.data.pipeline import task_batches, training_batches
from sml_jax.data.rows import token_row
from sml_jax.data.store import DialogueWriter, build_dataset, open_dataset
from sml_jax.dialogue.record import Dialogue, Turn


def make_rows(n: int) -> list[dict[str, np.ndarray]]:
  """Dialogue i is made of the token i + 1 alone, so that a batch tells which dialogues are in it."""
  lengths = np.random.default_rng(5).integers(3, 30, size=n)
  return [{
      "tokens": np.full(length, i + 1, np.int32),
      "weights": np.asarray([0] + [1] * (length - 1), np.float32),
      "advantages": np.full(length, i, np.float32),
      "logprobs": np.full(length, -i, np.float32),
  } for i, length in enumerate(lengths)]


ROWS = make_rows(40)
SIZES = {"batch_rows": 4, "row_length": 64}


def together(iterators) -> dict[str, np.ndarray]:
  """The global batch: process p has the rows p, p + n, p + 2n, ..."""
  local = [next(it) for it in iterators]
  return {n: np.stack([batch[n] for batch in local], axis=1).reshape(-1, SIZES["row_length"]) for n in local[0]}


def assert_same(a, b):
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_batches_are_the_plan_in_order():
  plan = PackingPlan([len(r["tokens"]) for r in ROWS], 64, seed=1)
  it = training_batches(ROWS, **SIZES, seed=1)
  for step in range(20):
    batch = next(it)
    for i in range(4):
      want = pack([ROWS[d] for d in plan.row(4 * step + i)], 64)
      assert_same({name: batch[name][i] for name in batch}, want)


@pytest.mark.parametrize("packing", [True, False])
def test_restores_onto_another_number_of_processes(packing):
  """Three steps with one process; then one, two and four go on alike, over several epochs."""
  make = lambda p, n: training_batches(
      ROWS, **SIZES, seed=1, process_index=p, process_count=n, packing=packing)
  one = make(0, 1)
  for _ in range(3):
    next(one)
  state = json.loads(json.dumps(one.get_state()))
  two, four = [make(p, 2) for p in range(2)], [make(p, 4) for p in range(4)]
  fresh = make(0, 1)
  for it in (*two, *four, fresh):
    it.set_state(state)
  seen = collections.Counter()
  for _ in range(40):
    batch = next(one)
    for others in (two, four, [fresh]):
      assert_same(together(others), batch)
    seen.update(np.unique(batch["tokens"][batch["segments"] > 0]).tolist())
  assert min(seen[i + 1] for i in range(40)) >= 2  # It did cross epochs.
  assert two[0].get_state() == one.get_state()  # And back: what two processes save, one can go on from.


def test_state_is_of_the_batches_taken_and_not_of_those_read_ahead():
  it = training_batches(ROWS, **SIZES, seed=1)
  next(it)
  state = it.get_state()
  after = [next(it) for _ in range(3)]
  it.set_state(state)
  for batch in after:
    assert_same(next(it), batch)


def test_packed_and_unpacked_train_the_same_dialogues():
  def trained(packing: bool, rows: int) -> collections.Counter:
    it = training_batches(ROWS, batch_rows=rows, row_length=64, seed=1, packing=packing)
    batch = next(it)
    return collections.Counter(batch["tokens"][batch["weights"] > 0].tolist())

  n_packed = len(PackingPlan([len(r["tokens"]) for r in ROWS], 64, seed=1).rows(0))
  assert n_packed < 20
  assert trained(True, n_packed) == trained(False, 40)
  assert trained(False, 40) == {i + 1: len(r["tokens"]) - 1 for i, r in enumerate(ROWS)}


def test_reads_from_a_built_dataset_through_grain(tmp_path):
  def dialogue(i: int) -> Dialogue:
    turns = [Turn("teacher", "t", tokens=[2, i + 10, 4]), Turn("student", "s", tokens=[i + 10, 4], prompt=[3])]
    return Dialogue(str(i), "math", 0, "full", turns, bos=[1])

  dialogues = [dialogue(i) for i in range(10)]
  DialogueWriter(tmp_path / "record").write(1, 0, dialogues)
  source = open_dataset(build_dataset(tmp_path / "record", tmp_path / "dataset"))
  lazy = training_batches(grain.MapDataset.source(source).map(token_row), **SIZES, seed=2)
  eager = training_batches([token_row(d) for d in dialogues], **SIZES, seed=2)
  for _ in range(5):
    assert_same(next(lazy), next(eager))


def test_refuses_what_cannot_be():
  with pytest.raises(ValueError, match="4 does not divide among 3 processes"):
    training_batches(ROWS, **SIZES, seed=0, process_count=3)
  with pytest.raises(ValueError, match="more than the row length 16"):
    training_batches(ROWS, batch_rows=4, row_length=16, seed=0)
  next(training_batches(ROWS, batch_rows=4, row_length=16, seed=0, too_long="drop"))
  with pytest.raises(ValueError, match="takes 8 different tasks, but there are only 7"):
    task_batches(7, tasks_per_step=8, seed=0)


def test_tasks_of_a_step_differ_and_epochs_are_shuffled():
  it = task_batches(23, tasks_per_step=5, seed=0)
  epochs = [[next(it).tolist() for _ in range(4)] for _ in range(50)]  # 4 steps an epoch; 3 tasks are left out.
  for steps in epochs:
    tasks = np.concatenate(steps).tolist()
    assert len(set(tasks)) == 20 and set(tasks) <= set(range(23))
  assert epochs[0] != epochs[1]
  counts = np.bincount(np.asarray(epochs).ravel(), minlength=23)
  assert counts.min() > 30  # Never the same tasks left out.
  assert next(task_batches(23, tasks_per_step=5, seed=1)).tolist() != epochs[0][0]


def test_tasks_restore_onto_another_number_of_processes():
  make = lambda p, n: task_batches(23, tasks_per_step=4, seed=9, process_index=p, process_count=n)
  one = make(0, 1)
  for _ in range(3):
    next(one)
  state = json.loads(json.dumps(one.get_state()))
  two, four = [make(p, 2) for p in range(2)], [make(p, 4) for p in range(4)]
  for it in (*two, *four):
    it.set_state(state)
  for _ in range(20):
    want = next(one)
    for others in (two, four):
      np.testing.assert_array_equal(np.stack([next(it) for it in others], axis=1).ravel(), want)
