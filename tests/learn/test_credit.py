"""Credit: P-numbers are traps known from other code bases; golden numbers are computed by hand or by enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from sml_jax.learn.credit import ADV_NORMS, CREDITS, group_advantages, is_degenerate, rewards, too_small

G = 8
NEVER_AFTER = 4  # turns of an unsolved dialogue, as in training


def advantages(solved_at, *, n_turns=None, valid=None, gamma=0.7, **how):
  """One advantage a turn; unsolved dialogues last 4 turns unless told otherwise."""
  n_turns = n_turns or [n or NEVER_AFTER for n in solved_at]
  return group_advantages(solved_at, n_turns, valid or [True] * len(solved_at), gamma=gamma, **how)


def first_turn(solved_at, **how):
  return np.array([a[0] for a in advantages(solved_at, **how)])


def test_rewards_are_gamma_to_the_turns_before_the_solution():
  np.testing.assert_allclose(rewards([1, 2, 3, 4, None], 0.7), [1, 0.7, 0.49, 0.343, 0], rtol=1e-15)
  assert rewards([1, 2], 0.7).dtype == np.float64


@pytest.mark.parametrize("gamma", [0.0, -0.5, 1.01])
def test_gamma_out_of_range_is_refused(gamma):
  with pytest.raises(ValueError, match="gamma"):
    rewards([1], gamma)


@pytest.mark.parametrize(
    ("k", "std", "none", "rloo"),
    [
        (0, 0, 0, 0),
        (1, 0.330719, 0.109375, 0.125),
        (2, 0.433013, 0.1875, 0.214286),
        (3, 0.484123, 0.234375, 0.267857),
        (4, 0.5, 0.25, 0.285714),
        (5, 0.484123, 0.234375, 0.267857),
        (6, 0.433013, 0.1875, 0.214286),
        (7, 0.330719, 0.109375, 0.125),
        (8, 0, 0, 0),
    ],
)
def test_P1_std_is_of_the_population_table_34a(k, std, none, rloo):
  solved = [1] * k + [None] * (G - k)
  for adv_norm, golden in (("std", std), ("none", none), ("rloo", rloo)):
    contribution = first_turn(solved, adv_norm=adv_norm)[:k].sum() / G
    assert contribution == pytest.approx(golden, abs=5e-7)
  # ddof 1 would be 0.935414 of this.
  assert first_turn(solved)[:k].sum() / G == pytest.approx(math.sqrt(k / G * (1 - k / G)), abs=1e-12)


@pytest.mark.parametrize(
    ("p", "none", "std", "degenerate"),
    [
        (1 / 2, 0.21875, 0.463914, 0.007812),
        (1 / 4, 0.164062, 0.379897, 0.100128),
        (1 / 8, 0.095703, 0.247652, 0.343609),
        (1 / 16, 0.051270, 0.142634, 0.596719),
        (1 / 32, 0.026489, 0.076726, 0.775700),
    ],
)
def test_P2_P3_expected_gradient_over_all_256_groups_table_34b(p, none, std, degenerate):
  expected = dict.fromkeys(ADV_NORMS, 0.0)
  share = 0.0
  for group in itertools.product([1, None], repeat=G):
    chance = math.prod(p if n else 1 - p for n in group)
    share += chance * is_degenerate(group, [True] * G)
    score = np.array([1 - p if n else -p for n in group])  # d log p / d logit
    for adv_norm in ADV_NORMS:
      expected[adv_norm] += chance * np.mean(first_turn(list(group), adv_norm=adv_norm) * score)
  true = p * (1 - p)
  assert expected["std"] == pytest.approx(std, abs=1e-6)
  assert expected["none"] == pytest.approx(none, abs=1e-6)
  # P3: the sample's own reward in its baseline costs exactly 1/G; leaving it out costs nothing.
  assert expected["none"] == pytest.approx(7 / 8 * true, abs=1e-12)
  assert expected["rloo"] == pytest.approx(true, abs=1e-12)
  assert share == pytest.approx(degenerate, abs=1e-6)


@pytest.mark.parametrize("credit", CREDITS)
@pytest.mark.parametrize("adv_norm", ADV_NORMS)
def test_P4_equal_rewards_give_exactly_zero(adv_norm, credit):
  for size, n in itertools.product(range(2, 33), [None, 1, 2, 3, 4]):
    group = [n] * size
    assert is_degenerate(group, [True] * size)
    for a in advantages(group, adv_norm=adv_norm, credit=credit):
      assert a.shape == (n or NEVER_AFTER,)
      assert (a == 0.0).all()


def test_P4_equal_returns_of_survivors_give_exactly_zero():
  # Not a degenerate group, but the seven that reached turn 2 were all solved at turn 3, and 7 * .7 / 7 is not .7.
  solved = [1] + [3] * 7
  for adv_norm in ADV_NORMS:
    for a in advantages(solved, adv_norm=adv_norm, credit="turn_return")[1:]:
      assert a[0] < 0 and a[1] == 0.0 and a[2] == 0.0


@pytest.mark.parametrize("credit", CREDITS)
@pytest.mark.parametrize("adv_norm", ADV_NORMS)
def test_P4_with_gamma_1_every_solved_turn_is_the_same_reward(adv_norm, credit):
  assert is_degenerate([1, 2, 4], [True] * 3, gamma=1.0) and not is_degenerate([1, 2, 4], [True] * 3)
  for a in advantages([1, 2, 4], gamma=1.0, adv_norm=adv_norm, credit=credit):
    assert (a == 0.0).all()


def test_P5_gamma_counts_the_turns_before_the_solution():
  solved = [1, 1, 2, 3, 4, None, None, None]
  golden = [0.558375, 0.558375, 0.258375, 0.048375, -0.098625, -0.441625, -0.441625, -0.441625]
  np.testing.assert_allclose(first_turn(solved, adv_norm="none"), golden, atol=1e-12)


@pytest.mark.parametrize(
    ("solved", "odd", "none", "rloo", "std"),
    [
        ([1] * 7 + [2], -1, -0.2625, -0.3, -2.645751),
        ([1] * 7 + [None], -1, -0.875, -1.0, -2.645751),
        ([2] + [None] * 7, 0, 0.6125, 0.7, 2.645751),
        ([1] + [None] * 7, 0, 0.875, 1.0, 2.645751),
    ],
)
def test_P6_two_levels_are_scale_free_under_std_table_32(solved, odd, none, rloo, std):
  for adv_norm, golden in (("none", none), ("rloo", rloo), ("std", std)):
    assert first_turn(solved, adv_norm=adv_norm)[odd] == pytest.approx(golden, abs=5e-7)


# A student that ends the dialogue at turn 1 without a reward (malformed) or goes on, and then solves the task or does
# not, each with probability 1/2. (probability, solved at, turns, score of the logit to go on, score of the logit to
# solve.) The gradient of the probability to solve is 1/8 for both logits.
OUTCOMES = [(1 / 2, None, 1, -1 / 2, 0.0), (1 / 4, 2, 2, 1 / 2, 1 / 2), (1 / 4, None, 2, 1 / 2, -1 / 2)]


def expected_gradient(size, rule):
  """d/d(logit to go on), d/d(logit to solve), exactly, by enumeration of all groups."""
  total = np.zeros(2)
  for group in itertools.product(OUTCOMES, repeat=size):
    chance = math.prod(o[0] for o in group)
    a = rule([o[1] for o in group], [o[2] for o in group])
    go_on = sum(x[0] * o[3] for x, o in zip(a, group, strict=True))
    solve = sum(x[1] * o[4] for x, o in zip(a, group, strict=True) if o[2] == 2)
    total += chance * np.array([go_on, solve]) / size
  return total


def ours(gamma=1.0, **how):
  return lambda solved, turns: advantages(solved, n_turns=turns, gamma=gamma, **how)


def by_turn_index(solved, turns):
  """The trap: rewards of the own turns, each less the mean reward at that turn."""
  reward = [[0.0] * (t - 1) + [float(n is not None)] for n, t in zip(solved, turns, strict=True)]
  mean = [np.mean([r[t] for r in reward if len(r) > t]) if max(turns) > t else 0.0 for t in (0, 1)]
  return [[sum(x - m for x, m in zip(r, mean, strict=False))] * len(r) for r in reward]


@pytest.mark.parametrize(("size", "shrunk"), [(2, 0.25), (4, 0.53125), (6, 0.671875)])
def test_P7_expected_gradient_when_the_student_controls_the_end(size, shrunk):
  own = 1 - 1 / size
  none, rloo = {"adv_norm": "none"}, {"adv_norm": "rloo"}
  turn = {"credit": "turn_return"}
  for rule, golden in (
      (ours(**none), [own, own]),
      (ours(**rloo), [1, 1]),
      (ours(**none, **turn), [own, shrunk]),  # shrunk late, no error of direction
      (ours(**rloo, **turn), [1, 1]),  # survivors left one out, and the fallback of the last survivor
  ):
    np.testing.assert_allclose(8 * expected_gradient(size, rule), golden, atol=1e-12)
  assert expected_gradient(size, by_turn_index)[0] == pytest.approx(0.0, abs=1e-12)
  # A return of gamma^(n-t) at turn t: the choice at turn 1 is worth gamma of the choice at turn 2.
  np.testing.assert_allclose(8 * expected_gradient(size, ours(0.7, **rloo, **turn)), [0.7, 1], atol=1e-12)
  # std errs in size only.
  for credit in CREDITS:
    assert (expected_gradient(size, ours(credit=credit)) > 0.05).all()


def test_P8_a_long_dialogue_is_one_sample():
  short, long = advantages([1, None], n_turns=[1, 4], adv_norm="none")
  np.testing.assert_array_equal(short, [0.5])  # baseline 1/2, not 1/5
  np.testing.assert_array_equal(long, [-0.5] * 4)


def test_P9_groups_of_unequal_size_stay_apart():
  assert all((a == 0).all() for a in advantages([1, 1, 1], adv_norm="none"))
  assert all((a == 0).all() for a in advantages([None, None], adv_norm="none"))
  one_group = first_turn([1, 1, 1, None, None], adv_norm="none")
  np.testing.assert_allclose(one_group, [0.4, 0.4, 0.4, -0.6, -0.6], atol=1e-12)


@pytest.mark.parametrize("credit", CREDITS)
@pytest.mark.parametrize("adv_norm", ADV_NORMS)
def test_P32_a_failed_verifier_is_not_a_wrong_answer(adv_norm, credit):
  solved, turns = [1, None, 2, None, 4], [1, 4, 2, 3, 4]
  how = {"adv_norm": adv_norm, "credit": credit}
  with_failed = advantages(solved, n_turns=turns, valid=[True, True, True, False, True], **how)
  without = advantages([1, None, 2, 4], n_turns=[1, 4, 2, 4], **how)
  failed = with_failed.pop(3)
  np.testing.assert_array_equal(failed, [0.0] * 3)
  for a, b in zip(with_failed, without, strict=True):
    np.testing.assert_array_equal(a, b)


def test_P31_P32_golden_vectors_with_and_without_the_invalid_dialogue():
  kept = first_turn([1, 2, None, None], adv_norm="none")
  np.testing.assert_allclose(kept, [0.575, 0.275, -0.425, -0.425], atol=1e-12)
  dropped = first_turn([1, 2, None, None], adv_norm="none", valid=[True, True, True, False])
  np.testing.assert_allclose(dropped, [1 - 1.7 / 3, 0.7 - 1.7 / 3, -1.7 / 3, 0], atol=1e-12)


def test_a_group_with_fewer_than_two_valid_dialogues_has_no_signal():
  for valid in ([True, False, False], [False] * 3):
    assert too_small(valid) and is_degenerate([1, None, 2], valid)
    for adv_norm, credit in itertools.product(ADV_NORMS, CREDITS):
      for a in advantages([1, None, 2], valid=valid, adv_norm=adv_norm, credit=credit):
        assert (a == 0.0).all()
  assert not too_small([True, False, True])
  assert is_degenerate([2, 1, 2], [True, False, True]) and not is_degenerate([2, 1, 2], [True, True, True])


@pytest.mark.parametrize(("n", "golden"), [(2, [0.7, 1]), (3, [0.49, 0.7, 1]), (4, [0.343, 0.49, 0.7, 1])])
def test_turn_returns_table_34e(n, golden):
  # Against one that is never solved the leave-one-out advantage is the return itself.
  solved, never = advantages([n, None], credit="turn_return", adv_norm="rloo")
  np.testing.assert_allclose(solved, golden, atol=1e-12)
  np.testing.assert_allclose(never[:n], -np.array(golden), atol=1e-12)


def test_turn_return_by_hand():
  # Returns [1], [.7, 1], [0, 0, 0]; survivors 3, 2, 1.
  solved, turns = [1, 2, None], [1, 2, 3]
  none = advantages(solved, n_turns=turns, credit="turn_return", adv_norm="none")
  mean = 1.7 / 3
  golden = [[1 - mean], [0.7 - mean, 0.5], [-mean, -0.5, 0.0]]
  for a, b in zip(none, golden, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-12)
  rloo = advantages(solved, n_turns=turns, credit="turn_return", adv_norm="rloo")
  # The last survivor at turn 3 is compared with the rewards of the other two, 1 and .7.
  for a, b in zip(rloo, [[1 - 0.35], [0.7 - 0.5, 1.0], [-0.85, -1.0, -0.85]], strict=True):
    np.testing.assert_allclose(a, b, atol=1e-12)
  std = advantages(solved, n_turns=turns, credit="turn_return", adv_norm="std")
  scale = math.sqrt(np.mean(np.concatenate(golden) ** 2))
  np.testing.assert_allclose(np.concatenate(std), np.concatenate(golden) / scale, atol=1e-12)
  assert np.mean(np.concatenate(std) ** 2) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("adv_norm", ADV_NORMS)
def test_a_dialogue_may_end_before_the_first_student_turn(adv_norm):
  for credit in CREDITS:
    late, never = advantages([1, None], n_turns=[1, 0], adv_norm=adv_norm, credit=credit)
    assert np.isfinite(late).all() and late.shape == (1,) and never.shape == (0,)


def test_bad_arguments_are_named():
  with pytest.raises(ValueError, match="adv_norm 'batch'"):
    advantages([1, None], adv_norm="batch")
  with pytest.raises(ValueError, match="credit 'step'"):
    advantages([1, None], credit="step")
  with pytest.raises(ValueError, match="one entry a dialogue"):
    advantages([1, None], n_turns=[1])
  with pytest.raises(ValueError, match="solved at student turn 1, but it has 2"):
    advantages([1, None], n_turns=[2, 4])
  with pytest.raises(ValueError, match="counted from 1"):
    advantages([0, None], n_turns=[0, 4])
