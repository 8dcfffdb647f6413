"""Packing: every dialogue once, few tokens wasted, the same plan everywhere, segments that do not touch."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from sml_jax.data.packing import PackingPlan, best_fit, epoch_order, pack, pack_all, pad_rows

LENGTHS = np.random.default_rng(0).integers(1, 65, size=500)


def row(tokens: list[int], first_weight: float = 0.0) -> dict[str, np.ndarray]:
  n = len(tokens)
  return {
      "tokens": np.asarray(tokens, np.int32),
      "weights": np.asarray([first_weight] + [1.0] * (n - 1), np.float32),
      "advantages": np.asarray(tokens, np.float32) / 10,
      "logprobs": -np.asarray(tokens, np.float32) / 100,
  }


def test_best_fit_by_hand():
  # 6 opens row 0 (room 4), 5 opens row 1 (room 5); 4 fills row 0, the tighter; 5 fills row 1; 10 opens row 2.
  assert best_fit([6, 5, 4, 5, 10], 10) == [[0, 2], [1, 3], [4]]
  # 3 goes to the fullest row with room (room 3), not to the first (room 4).
  assert best_fit([6, 7, 3, 4], 10) == [[0, 3], [1, 2]]


def test_best_fit_against_a_search_over_all_rows():
  """The same rule written as slowly as it reads: the least room that is enough, else a new row."""
  rooms: list[int] = []
  for length in LENGTHS:
    room = min((r for r in rooms if r >= length), default=None)
    if room is None:
      rooms.append(100 - length)
    else:
      rooms[rooms.index(room)] -= length
  packed = best_fit(LENGTHS.tolist(), 100)
  assert sorted(100 - LENGTHS[r].sum() for r in packed) == sorted(rooms)


@pytest.mark.parametrize("packing", [True, False])
def test_an_epoch_has_every_dialogue_once_and_no_row_too_full(packing):
  plan = PackingPlan(LENGTHS, 64, seed=3, packing=packing)
  for epoch in range(3):
    rows = plan.rows(epoch)
    assert sorted(itertools.chain(*rows)) == list(range(500))
    assert all(LENGTHS[r].sum() <= 64 for r in rows)
    assert packing or all(len(r) == 1 for r in rows)


def test_few_tokens_are_wasted():
  lengths = np.random.default_rng(1).integers(50, 400, size=5000)
  rows = PackingPlan(lengths, 1024, seed=0).rows(0)
  assert lengths.sum() / (len(rows) * 1024) > 0.97


def test_plan_depends_on_seed_and_epoch_alone():
  plan = PackingPlan(LENGTHS, 64, seed=3)
  assert plan.rows(0) == PackingPlan(LENGTHS.tolist(), 64, seed=3).rows(0)
  orders = [plan.rows(0), plan.rows(1), PackingPlan(LENGTHS, 64, seed=4).rows(0)]
  assert all(a != b for a, b in itertools.combinations(orders, 2))
  # Rows come in a shuffled order: best fit leaves its emptiest rows for the end.
  fill = np.asarray([LENGTHS[r].sum() for r in plan.rows(0)])
  half = len(fill) // 2
  assert abs(fill[:half].mean() - fill[half:].mean()) < 2


def test_seeds_do_not_share_epochs():
  """A seed that is merely added to the epoch would make seed 0's second epoch seed 1's first."""
  assert sorted(epoch_order(50, 0, 1)) == list(range(50))
  assert list(epoch_order(50, 0, 1)) != list(epoch_order(50, 1, 0))


def test_stream_joins_epochs_in_any_order_of_asking():
  plan = PackingPlan(LENGTHS, 64, seed=3)
  stream = [*plan.rows(0), *plan.rows(1), *plan.rows(2), *plan.rows(3)]
  fresh = PackingPlan(LENGTHS, 64, seed=3)
  asked = [len(stream) - 1, 0, len(plan.rows(0)), len(plan.rows(0)) - 1, len(stream) - 1]
  assert [fresh.row(i) for i in asked] == [stream[i] for i in asked]
  assert [plan.row(i) for i in range(len(stream))] == stream


def test_too_long_dialogue_is_named_or_dropped():
  with pytest.raises(ValueError, match="dialogue 2 has 11 tokens, more than the row length 10"):
    PackingPlan([3, 10, 11, 20], 10, seed=0)
  plan = PackingPlan([3, 10, 11, 20], 10, seed=0, too_long="drop")
  assert plan.dropped == 2 and sorted(itertools.chain(*plan.rows(0))) == [0, 1]
  with pytest.raises(ValueError, match="no dialogue of 1 fits"):
    PackingPlan([11], 10, seed=0, too_long="drop")
  with pytest.raises(ValueError, match="dialogue 1 has 11 tokens"):
    pack_all([row([1]), row([1] * 11)], 10)


def test_hundred_thousand_dialogues_are_planned_at_once():
  lengths = np.clip(np.random.default_rng(0).gamma(4, 125, size=100_000), 10, 2048).astype(int)
  start = time.process_time()
  PackingPlan(lengths, 2048, seed=0).rows(0)
  assert time.process_time() - start < 2


def test_pack_by_hand():
  packed = pack([row([5, 6, 7]), row([8, 9], first_weight=1.0)], 7)
  np.testing.assert_array_equal(packed["tokens"], [5, 6, 7, 8, 9, 0, 0])
  np.testing.assert_array_equal(packed["segments"], [1, 1, 1, 2, 2, 0, 0])
  np.testing.assert_array_equal(packed["positions"], [0, 1, 2, 0, 1, 0, 0])
  # A first token has weight 0 even if asked for: it would be predicted from another dialogue's last token.
  np.testing.assert_array_equal(packed["weights"], [0, 1, 1, 0, 1, 0, 0])
  np.testing.assert_allclose(packed["advantages"], [.5, .6, .7, .8, .9, 0, 0])
  np.testing.assert_allclose(packed["logprobs"], [-.05, -.06, -.07, -.08, -.09, 0, 0])
  assert {n: a.dtype.name for n, a in packed.items()} == {
      "tokens": "int32", "weights": "float32", "advantages": "float32", "logprobs": "float32", "segments": "int32",
      "positions": "int32"}
  with pytest.raises(ValueError, match="5 tokens do not fit into the row length 4"):
    pack([row([5, 6, 7]), row([8, 9])], 4)


@pytest.mark.parametrize("packing", [True, False])
def test_pack_all_loses_nothing(packing):
  rows = [row(list(range(1, n + 1))) for n in LENGTHS[:60]]
  batch = pack_all(rows, 64, packing=packing)
  assert packing == (len(batch["tokens"]) < 60)
  found = []
  for r, s in itertools.product(range(len(batch["tokens"])), range(1, 65)):
    if (here := batch["segments"][r] == s).any():
      found.append(tuple(batch["tokens"][r, here]))
      assert list(batch["positions"][r, here]) == list(range(here.sum()))
  assert sorted(found) == sorted(tuple(r["tokens"]) for r in rows)
  assert batch["weights"].sum() == sum(r["weights"].sum() for r in rows)
  again = pack_all(rows, 64, packing=packing)
  assert all((again[name] == batch[name]).all() for name in batch)


def test_pad_rows_adds_rows_of_padding():
  batch = pack_all([row([1, 2, 3])] * 3, 4)
  assert batch["tokens"].shape == (3, 4) and pad_rows(batch, 3)["tokens"].shape == (3, 4)
  padded = pad_rows(batch, 4)
  for name, array in padded.items():
    assert array.shape == (4, 4) and array.dtype == batch[name].dtype and not array[3].any()
    np.testing.assert_array_equal(array[:3], batch[name])
