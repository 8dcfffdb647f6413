import itertools
import time

import numpy as np
import pytest

from sml_jax.evaluate import statistics as st


def test_pass_at_k_is_unbiased_P44():
  assert st.pass_at_k(8, 2, 4) == pytest.approx(11 / 14)
  assert st.pass_at_k(8, 2, 4) != pytest.approx(1 - (1 - 2 / 8) ** 4)  # the plug-in estimate, .683594


def test_pass_at_k_equals_the_enumeration_of_subsets():
  for n, c, k in itertools.product([1, 3, 6], range(7), range(1, 7)):
    if c <= n and k <= n:
      right = [any(i < c for i in subset) for subset in itertools.combinations(range(n), k)]
      assert st.pass_at_k(n, c, k) == pytest.approx(np.mean(right)), (n, c, k)


def test_pass_at_k_is_vectorised_and_keeps_nan():
  out = st.pass_at_k(4, np.array([0.0, 2.0, 4.0, np.nan])[:, None], np.array([1, 2])[None])
  np.testing.assert_allclose(out, [[0, 0], [1 / 2, 5 / 6], [1, 1], [np.nan, np.nan]])


@pytest.mark.parametrize(("n", "c", "k"), [(4, 2, 5), (4, 5, 2), (4, -1, 2), (4, 2, 0)])
def test_pass_at_k_refuses_what_it_cannot_estimate(n, c, k):
  with pytest.raises(ValueError, match="pass@k"):
    st.pass_at_k(n, c, k)


def test_bootstrap_of_two_tasks_is_the_known_distribution():
  # means 0, 1/2, 1 with chances 1/4, 1/2, 1/4; for (0, 1, 2 x 8 zeros) below the .975 quantile is also exact
  lo, hi = st.bootstrap_ci(np.array([0.0, 1.0]))
  assert (lo, hi) == (0.0, 1.0)
  # eight tasks, one right: Binomial(8, 1/8) has P(<=2) = .924, P(<=3) = .989, so the .975 quantile is 3/8
  lo, hi = st.bootstrap_ci(np.eye(8)[0])
  assert (lo, hi) == (0.0, 3 / 8)


def test_bootstrap_interval_has_the_width_of_normal_theory():
  values = np.tile([0.0, 1.0], 256)[:, None] * [1.0, 2.0]
  lo, hi = st.bootstrap_ci(values)
  half = 1.96 * np.sqrt(0.25 / 512)
  np.testing.assert_allclose(hi - lo, [2 * half, 4 * half], rtol=0.05)
  np.testing.assert_allclose((hi + lo) / 2, [0.5, 1.0], atol=0.004)


def test_bootstrap_leaves_nan_out_and_gives_nan_for_nothing():
  lo, hi = st.bootstrap_ci(np.array([[3.0, np.nan], [np.nan, np.nan], [3.0, np.nan]]))
  assert lo[0] == hi[0] == 3.0
  assert np.isnan(lo[1]) and np.isnan(hi[1])


def test_ratio_is_pooled_and_not_a_mean_of_ratios():
  # the two tasks have ratios 1/1 and 0/9; samples: both first 1, both second 0, one of each 1/10 (half of all)
  lo, hi = st.bootstrap_ratio_ci(np.array([1.0, 0.0]), np.array([1.0, 9.0]))
  assert (lo, hi) == (0.0, 1.0)
  numer, denom = np.tile([1.0, 0.0], 500), np.tile([1.0, 9.0], 500)
  lo, hi = st.bootstrap_ratio_ci(numer, denom)
  assert lo < 0.1 < hi and hi < 0.12  # a mean of ratios would be 1/2


def test_bootstrap_of_ten_turns_of_512_tasks_is_quick():
  values = np.random.default_rng(0).random((512, 10))
  st._draw_counts.cache_clear()
  began = time.process_time()
  st.bootstrap_ci(values)
  assert time.process_time() - began < 3  # about 0.3 s


def test_paired_difference_needs_both_valid():
  a = np.array([[0, 0], [1, 1], [0, 0], [1, 1]])
  b = np.array([[1, 1], [1, 1], [0, 1], [0, 0]])
  out = st.paired_difference(a, b, np.array([1, 1, 1, 0], bool), np.array([1, 1, 1, 1], bool))
  assert out["difference_by_turn"] == pytest.approx([1 / 3, 2 / 3])
  assert out["n_tasks"] == 3
  assert out["discordant_by_turn"] == pytest.approx([1 / 3, 2 / 3])
  assert st.paired_difference(a, b)["difference_by_turn"] == pytest.approx([0, 1 / 4])


def test_pairing_removes_the_spread_between_tasks():
  a = np.tile([[0.0], [1.0]], (100, 1))
  out = st.paired_difference(a, a + 0.25)
  assert out["ci95"] == [[0.25, 0.25]]  # unpaired, the interval would be 0.2 wide


def test_paired_difference_refuses_other_shapes():
  with pytest.raises(ValueError, match="same tasks"):
    st.paired_difference(np.zeros((3, 2)), np.zeros((4, 2)))


def test_detectable_difference_golden():
  found = [round(100 * st.minimum_detectable_difference(500, d), 1) for d in (0.1, 0.2, 0.3)]
  assert found == [4.0, 5.6, 6.9]
  assert "4.0 / 5.6 / 6.9 points" in st.detectable_line(500)
