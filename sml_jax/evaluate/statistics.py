"""Intervals and estimators. The unit that is resampled is always the task."""

from __future__ import annotations

import functools
import math

import numpy as np

DRAWS = 10_000
Z95 = 1.959963984540054  # the normal quantile at .975
Z80 = 0.8416212335729143  # the normal quantile at .80


@functools.lru_cache(maxsize=2)
def _draw_counts(n: int, draws: int, seed: int) -> np.ndarray:
  """How often each of n tasks is drawn in each bootstrap sample: f32 [draws, n]; every row sums to n."""
  picks = np.random.default_rng(seed).integers(0, n, size=(draws, n), dtype=np.int32)  # [draws, n]
  picks += np.arange(draws, dtype=np.int32)[:, None] * np.int32(n)
  counts = np.bincount(picks.ravel(), minlength=draws * n).reshape(draws, n).astype(np.float32)
  counts.flags.writeable = False  # it is shared by every caller
  return counts


def bootstrap_ratio_ci(
    numer: np.ndarray, denom: np.ndarray, *, draws: int = DRAWS, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """95% percentile bootstrap interval, over tasks, of a pooled ratio sum(numer) / sum(denom).

  Args:
    numer, denom: [n, ...] one row a task; a task may add 0 to both.
    draws: bootstrap samples.
    seed: same seed, same samples: intervals of the same tasks are comparable.

  Returns:
    (lo, hi), each of shape [...]; NaN where sum(denom) is 0. Samples in which the denominator is 0 are left out.
  """
  numer, denom = np.broadcast_arrays(np.asarray(numer, np.float64), np.asarray(denom, np.float64))
  n, shape = numer.shape[0], numer.shape[1:]
  if n == 0:
    return np.full(shape, np.nan), np.full(shape, np.nan)
  counts = _draw_counts(n, draws, seed)
  top = (counts @ numer.reshape(n, -1).astype(np.float32)).astype(np.float64)  # [draws, K]
  bottom = (counts @ denom.reshape(n, -1).astype(np.float32)).astype(np.float64)
  ratio = np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom != 0)
  lo, hi = np.full(ratio.shape[1], np.nan), np.full(ratio.shape[1], np.nan)
  for k in range(ratio.shape[1]):
    kept = ratio[~np.isnan(ratio[:, k]), k]
    if kept.size:
      lo[k], hi[k] = np.percentile(kept, [2.5, 97.5])
  return lo.reshape(shape), hi.reshape(shape)


def bootstrap_ci(values: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """95% percentile bootstrap interval, over tasks, of the mean.

  Args:
    values: [n, ...] one row a task; NaN entries leave the mean (a task drawn with NaN counts for nothing).

  Returns:
    (lo, hi), each of shape [...]; NaN where no value is left.
  """
  values = np.asarray(values, np.float64)
  present = ~np.isnan(values)
  return bootstrap_ratio_ci(np.where(present, values, 0.0), present, draws=draws, seed=seed)


def paired_difference(
    a: np.ndarray,
    b: np.ndarray,
    valid_a: np.ndarray | None = None,
    valid_b: np.ndarray | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, list]:
  """b minus a on the same tasks, with a bootstrap interval of the difference itself.

  Args:
    a, b: [n, T] a score (success by turn, pass@t) of each task in each arm, rows in the same order.
    valid_a, valid_b: bool [n]; a task counts only if both are valid. None: all are.

  Returns:
    difference_by_turn [T], ci95 [T][lo, hi], n_tasks (pairs kept), discordant_by_turn [T] (share of pairs that differ).

  Raises:
    ValueError: if the shapes differ.
  """
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  if a.shape != b.shape:
    raise ValueError(f"a pair needs the same tasks and turns: {a.shape} and {b.shape}")
  keep = np.ones(len(a), bool)
  for valid in (valid_a, valid_b):
    if valid is not None:
      keep &= np.asarray(valid, bool)
  difference = (b - a)[keep]  # [kept, T]
  lo, hi = bootstrap_ci(difference, draws=draws, seed=seed)
  nothing = np.full(a.shape[1:], np.nan)
  return {
      "difference_by_turn": (difference.mean(0) if keep.any() else nothing).tolist(),
      "ci95": np.stack([lo, hi], -1).tolist(),
      "n_tasks": int(keep.sum()),
      "discordant_by_turn": ((difference != 0).mean(0) if keep.any() else nothing).tolist(),
  }


def pass_at_k(n: int, c: np.ndarray | int, k: np.ndarray | int) -> np.ndarray:
  """Unbiased estimate of the chance that at least one of k tries is right, from c right ones among n.

  1 - C(n-c, k) / C(n, k) (Chen et al. 2021, "Evaluating Large Language Models Trained on Code"); the plug-in
  1 - (1 - c/n)^k is biased. For n=8, c=2, k=4 it is 11/14.

  Args:
    n: tries made.
    c: right tries; any shape; NaN gives NaN.
    k: tries allowed; broadcast against c.

  Raises:
    ValueError: unless 1 <= k <= n and 0 <= c <= n.
  """
  c, k = np.broadcast_arrays(np.asarray(c, np.float64), np.asarray(k))
  if np.any(k < 1) or np.any(k > n) or np.any(c < 0) or np.any(c > n):
    raise ValueError(f"pass@k needs 1 <= k <= n and 0 <= c <= n, got n={n}, k={k}, c={c}")
  fail = np.ones(c.shape)
  for j in range(int(k.max(initial=0))):  # C(n-c, k) / C(n, k) = prod_j (n-c-j) / (n-j)
    fail = fail * np.where(j < k, np.maximum(n - c - j, 0) / (n - j), 1.0)
  return 1.0 - fail


def minimum_detectable_difference(n: int, discordant: float) -> float:
  """Smallest paired difference that a 5% two-sided test finds 80% of the time: (z.975 + z.80) sqrt(discordant / n).

  Args:
    n: tasks.
    discordant: share of tasks that the two arms judge differently (Miller 2024, arXiv 2411.00640, paired form).
  """
  return (Z95 + Z80) * math.sqrt(discordant / n)


def detectable_line(n: int) -> str:
  """The planning line of a report: what n tasks can and cannot tell apart."""
  points = " / ".join(f"{100 * minimum_detectable_difference(n, d):.1f}" for d in (0.1, 0.2, 0.3))
  return (
      f"{n} tasks find a paired difference of {points} points with 80% power "
      "when 10 / 20 / 30% of the tasks come out differently."
  )
