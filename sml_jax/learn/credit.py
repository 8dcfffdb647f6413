"""Rewards -> advantages, on the host in float64: which turns of which dialogue of a group get the credit.

Trajectory credit (the default) treats a whole dialogue as one sample (SML, arXiv:2602.16488, Eq. 3): reward
gamma^(n-1) if solved at student turn n, else 0, and every turn gets the dialogue's advantage. Three baselines, by
the expectation of (1/G) sum_i A_i grad log p_i relative to the true gradient, exactly, whatever the policy:

  none   r - mean(r)                    (1 - 1/G) of it: the sample's own reward is in its baseline
  rloo   r - mean(r of the others)      all of it
  std    (r - mean(r)) / std(r), ddof 0 biased: rare successes and rare failures are enlarged. A group with two reward
                                        levels becomes scale-free, so solving at turn 2 among seven that solved at
                                        turn 1 costs as much (-2.645751) as never solving.

Everything that asks "are these the same?" is decided on the turns at which dialogues were solved, integers, and never
on a float std: seven float32 rewards of .7 have a std of 6e-8, which would become an advantage of .8.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ADV_NORMS = ("std", "none", "rloo")
CREDITS = ("trajectory", "turn_return")


def rewards(solved_at: Sequence[int | None], gamma: float) -> np.ndarray:
  """The reward of each dialogue: gamma^(n-1) if solved at student turn n (counted from 1), else 0.

  `rewards([1, 2, None], 0.7)` is `[1.0, 0.7, 0.0]`.

  Args:
    solved_at: the student turn that solved each dialogue, or None.
    gamma: discount a student turn, above 0 and at most 1.

  Returns:
    float64 [G].

  Raises:
    ValueError: a gamma outside (0, 1], or a turn below 1.
  """
  if not 0.0 < gamma <= 1.0:
    raise ValueError(f"gamma must be above 0 and at most 1, not {gamma}")
  if any(n is not None and n < 1 for n in solved_at):
    raise ValueError(f"student turns are counted from 1: {list(solved_at)}")
  return np.array([0.0 if n is None else gamma ** (n - 1) for n in solved_at], np.float64)


def too_small(valid: Sequence[bool]) -> bool:
  """Whether a group has fewer than two valid dialogues, so that there is nothing to compare."""
  return sum(map(bool, valid)) < 2


def is_degenerate(solved_at: Sequence[int | None], valid: Sequence[bool], *, gamma: float | None = None) -> bool:
  """Whether all valid dialogues of a group were solved at the same turn, or none was, or fewer than two are valid.

  Args:
    solved_at: the student turn that solved each dialogue, or None; [G].
    valid: False where the verifier or the teacher failed; [G].
    gamma: matters only if it is 1, where every solved turn is worth the same. None: anything below 1.
  """
  return too_small(valid) or _all_equal([n for n, ok in zip(solved_at, valid, strict=True) if ok], gamma)


def group_advantages(
    solved_at: Sequence[int | None],
    n_turns: Sequence[int],
    valid: Sequence[bool],
    *,
    gamma: float,
    adv_norm: str = "std",
    credit: str = "trajectory",
) -> list[np.ndarray]:
  """The advantage of every student turn of one group: all dialogues of one task.

  With `credit="turn_return"` turn t of a dialogue solved at turn n has the return gamma^(n-t), other turns 0, and its
  baseline comes from the members that reached turn t ("survivors"):

    none   the survivors' mean, own return included; a last survivor gets 0. Shrinks late turns, keeps their sign.
    rloo   the mean of the other survivors. A last survivor falls back on the trajectory baseline, the mean reward of
           the other members. Either depends on the others alone, so late turns are unbiased as well.
    std    `none`, divided by one number for the group: the root mean square of those differences over all its turns.
           Advantages then have mean 0 within each turn and mean square 1 over the group, as the trajectory form has.
           A std a turn would be scale-free at each turn, so that gamma vanishes and two late survivors always get +1
           and -1; the std of the trajectory rewards is too small for late returns (7.7 instead of 3.9 for the last of
           four turns of the only solved dialogue of eight).

  (The return gamma^(n-t) leaves out the factor gamma^(t-1) of the gradient of the discounted reward, as is usual: the
  expectations above are of the trajectory's gradient only if gamma is 1.)

  Args:
    solved_at: the student turn that solved each dialogue, or None; [G], any G.
    n_turns: student turns of each dialogue; [G]. A solved dialogue ends with the turn that solved it.
    valid: False where the verifier or the teacher failed: advantages 0, and not in any mean or std; [G].
    gamma: discount a student turn, above 0 and at most 1.
    adv_norm: "std", "none" or "rloo".
    credit: "trajectory" or "turn_return".

  Returns:
    G arrays, float64 [n_turns[i]]. Exactly 0 everywhere in a degenerate group.

  Raises:
    ValueError: an unknown adv_norm or credit, unequal lengths, gamma out of range, or a solved dialogue with turns
      after its solution.
  """
  if adv_norm not in ADV_NORMS:
    raise ValueError(f"unknown adv_norm {adv_norm!r}: one of {', '.join(ADV_NORMS)}")
  if credit not in CREDITS:
    raise ValueError(f"unknown credit {credit!r}: one of {', '.join(CREDITS)}")
  if not len(solved_at) == len(n_turns) == len(valid):
    raise ValueError(f"a group needs one entry a dialogue: {len(solved_at)}, {len(n_turns)}, {len(valid)}")
  for n, turns in zip(solved_at, n_turns, strict=True):
    if n is not None and n != turns:
      raise ValueError(f"solved at student turn {n}, but it has {turns} student turns")
  reward = rewards(solved_at, gamma)  # [G]
  out = [np.zeros(turns, np.float64) for turns in n_turns]
  if is_degenerate(solved_at, valid, gamma=gamma):
    return out
  members = [i for i, ok in enumerate(valid) if ok]
  if credit == "trajectory":
    for i, advantage in zip(members, _normalise(reward[members], adv_norm), strict=True):
      out[i][:] = advantage
  else:
    _turn_returns(out, members, solved_at, reward, gamma, adv_norm)
  return out


def reward_advantages(
    rewards: Sequence[float], n_turns: Sequence[int], valid: Sequence[bool], *, adv_norm: str
) -> list[np.ndarray]:
  """Trajectory credit for rewards of one's own; equal rewards of a group must be equal floats to count as such.

  Arguments, result and errors as `group_advantages`.
  """
  if adv_norm not in ADV_NORMS:
    raise ValueError(f"unknown adv_norm {adv_norm!r}: one of {', '.join(ADV_NORMS)}")
  out = [np.zeros(turns, np.float64) for turns in n_turns]
  members = [i for i, ok in enumerate(valid) if ok]
  r = np.asarray(rewards, np.float64)[members]
  if len(members) > 1 and np.any(r != r[0]):
    for i, advantage in zip(members, _normalise(r, adv_norm), strict=True):
      out[i][:] = advantage
  return out


def _normalise(r: np.ndarray, adv_norm: str) -> np.ndarray:
  """Advantages [G] of rewards [G] that are not all equal (no epsilon is needed: the std is not 0)."""
  centred = r - r.mean()
  if adv_norm == "rloo":
    return centred * (len(r) / (len(r) - 1))
  return centred / r.std() if adv_norm == "std" else centred


def _turn_returns(
    out: list[np.ndarray],
    members: list[int],
    solved_at: Sequence[int | None],
    reward: np.ndarray,
    gamma: float,
    adv_norm: str,
) -> None:
  """Fills `out` for the valid `members` of a group, turn by turn."""
  for t in range(1, max(len(out[i]) for i in members) + 1):
    survivors = [i for i in members if len(out[i]) >= t]
    returns = np.array([0.0 if solved_at[i] is None else gamma ** (solved_at[i] - t) for i in survivors])
    if len(survivors) == 1 and adv_norm == "rloo":
      last = survivors[0]
      out[last][t - 1] = returns[0] - np.mean([reward[j] for j in members if j != last])
    elif not _all_equal([solved_at[i] for i in survivors], gamma):
      # The group's std is taken over all turns at once, below.
      for i, advantage in zip(survivors, _normalise(returns, "rloo" if adv_norm == "rloo" else "none"), strict=True):
        out[i][t - 1] = advantage
  if adv_norm == "std":
    scale = np.sqrt(np.mean(np.concatenate([out[i] for i in members]) ** 2))
    for i in members:
      # 0 where no turn was reached by two dialogues that differ (a dialogue may end before the student's first turn).
      out[i] /= scale or 1.0


def _all_equal(solved_at: Sequence[int | None], gamma: float | None) -> bool:
  """Whether dialogues solved at these turns have the same returns, without comparing floats."""
  return len({n is not None if gamma == 1 else n for n in solved_at}) <= 1
