"""Dialogues -> numbers. Pure functions of the record: the same file gives the same numbers, without a model.

Every list of dialogues here holds one dialogue a task, in the order of the tasks. Only success@t leaves invalid
dialogues out; pooled rates count every student turn that was said.
"""

from __future__ import annotations

import collections
import itertools
import typing
from typing import Any

import numpy as np

from sml_jax.dialogue.record import QUESTION_KINDS, Dialogue, End, Turn
from sml_jax.evaluate.statistics import DRAWS, bootstrap_ci, bootstrap_ratio_ci, pass_at_k

TURNS = 10
TRIES = 16


def success_by_task(dialogues: list[Dialogue], turns: int = TURNS) -> tuple[np.ndarray, np.ndarray]:
  """Whether each task was solved at or before each student turn.

  A solved dialogue stays solved: it never leaves the denominator; past a smaller turn cap the last value carries on.

  Returns:
    solved: f64 [n, turns], 0 or 1, non-decreasing along turns.
    valid: bool [n]; False where the verifier or the teacher failed.
  """
  at = np.array([d.solved_at or np.inf for d in dialogues], np.float64)  # [n]
  solved = (at[:, None] <= np.arange(1, turns + 1)).astype(np.float64)  # [n, turns]
  return solved, np.array([d.valid for d in dialogues], bool)


def is_attempt(turn: Turn) -> bool:
  return turn.kind == "answer_attempt"


def premature_counts(dialogue: Dialogue) -> tuple[int, int]:
  """(attempts made while a shard is hidden, student turns made while a shard is hidden)."""
  early = [t for t in dialogue.student_turns if t.hidden > 0]
  return sum(map(is_attempt, early)), len(early)


def question_counts(dialogue: Dialogue) -> tuple[int, int]:
  """(student turns that are a clarification or an interrogation, all student turns)."""
  turns = dialogue.student_turns
  return sum(t.kind in QUESTION_KINDS for t in turns), len(turns)


def repeat_counts(dialogue: Dialogue) -> tuple[int, int]:
  """(attempts equal to the previous attempt, attempts whose previous attempt was wrong); white space is normalised."""
  attempts = [t for t in dialogue.student_turns if is_attempt(t)]
  after_wrong = [(a, b) for a, b in itertools.pairwise(attempts) if a.verdict == "wrong"]
  return sum(a.text.split() == b.text.split() for a, b in after_wrong), len(after_wrong)


def leak_counts(dialogue: Dialogue) -> tuple[int, int]:
  """(replies of the teacher that give the answer away, shown or not; all of its replies, those not shown too)."""
  replies = [t for t in dialogue.turns[1:] if t.role == "teacher"]
  stopped = sum(t.stopped for t in replies)
  unshown = sum(max(0, t.stopped - 1) if not t.text else t.stopped for t in replies)
  return sum(bool(t.leak) for t in replies) + stopped, len(replies) + unshown


def leak_rate(dialogues: list[Dialogue]) -> float:
  """Replies that give the answer away / all replies, pooled; 0 without replies."""
  leaks, replies = np.sum([leak_counts(d) for d in dialogues], axis=0) if dialogues else (0, 0)
  return float(leaks / replies) if replies else 0.0


def is_truncated(dialogue: Dialogue) -> bool:
  """A student turn was cut at its token limit, or the context was full."""
  return dialogue.end == "context_full" or any(t.cut for t in dialogue.student_turns)


def answer_nll(dialogues: list[Dialogue], turns: int = TURNS) -> np.ndarray:
  """Answer NLL of each task after each teacher turn, in nats: f64 [n, turns]; NaN where the dialogue is over."""
  out = np.full((len(dialogues), turns), np.nan)
  for i, dialogue in enumerate(dialogues):
    for t, turn in enumerate(dialogue.student_turns[:turns]):
      if turn.answer_nll is not None:
        out[i, t] = turn.answer_nll
  return out


def resampling_by_task(solved_counts: np.ndarray, tries: int = TRIES, turns: int = TURNS) -> np.ndarray:
  """pass@t of each task from `tries` independent first-turn tries: f64 [n, turns], the values to pair with.

  Args:
    solved_counts: [n] right tries of each task (a try without an answer is not right); NaN for a task whose
      verifier failed.
  """
  return pass_at_k(tries, np.asarray(solved_counts, np.float64)[:, None], np.arange(1, turns + 1)[None])


def resampling_curve(solved_counts: np.ndarray, tries: int = TRIES, turns: int = TURNS) -> np.ndarray:
  """The resampling control: pass@t averaged over tasks, f64 [turns]. Tasks with NaN are left out."""
  return _mean(resampling_by_task(solved_counts, tries, turns))


def dialogue_metrics(
    dialogues: list[Dialogue], *, turns: int = TURNS, draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
  """All that one suite's dialogues say, under the names of summary.json.

  A rate with nothing in its denominator is 0, but for `premature_attempt_rate`, which is None where no student turn
  was made while a shard was hidden. Elsewhere None stands for an undefined number. `rates_ci95` has a bootstrap
  interval over tasks for each pooled rate.

  Raises:
    ValueError: if a dialogue has no end reason: it is not over.
  """
  for d in dialogues:
    if d.end is None:
      raise ValueError(f"dialogue of task {d.task_id} has no end reason: it is not over")
  boot = {"draws": draws, "seed": seed}
  solved, valid = success_by_task(dialogues, turns)
  success = np.where(valid[:, None], solved, np.nan)  # [n, turns]
  leaked = np.array([d.leaked for d in dialogues], bool)
  reasons = collections.Counter(t.reason for d in dialogues for t in d.student_turns if t.reason)
  nll = answer_nll(dialogues, turns)
  unsolved = np.array([d.valid and d.end != "solved" for d in dialogues], bool)
  ends = collections.Counter(d.end for d in dialogues)
  n = len(dialogues)

  pooled = {
      "premature_attempt_rate": _counts(premature_counts, dialogues),
      "clarification_rate": _counts(question_counts, dialogues),
      "repeat_rate": _counts(repeat_counts, dialogues),
      "leak_rate": _counts(leak_counts, dialogues),
  }
  rates = {name: float(c[:, 0].sum() / c[:, 1].sum()) if c[:, 1].sum() else 0.0 for name, c in pooled.items()}
  if not pooled["premature_attempt_rate"][:, 1].sum():
    rates["premature_attempt_rate"] = None
  return {
      "n_tasks": n,
      "success_by_turn": listed(_mean(success)),
      "ci95": intervals(*bootstrap_ci(success, **boot)),
      "success_leaked_failed_by_turn": listed(_mean(np.where(leaked[:, None], success * 0, success))),
      "leaked_dialogues": int(leaked.sum()),
      "reasons": dict(sorted(reasons.items())),
      **rates,
      "questions_per_dialogue": float(pooled["clarification_rate"][:, 0].mean()) if n else 0.0,
      "rates_ci95": {name: intervals(*bootstrap_ratio_ci(c[:, 0], c[:, 1], **boot)) for name, c in pooled.items()},
      "attempts_after_wrong": int(pooled["repeat_rate"][:, 1].sum()),
      "answer_nll_by_turn": listed(_mean(nll)),
      "answer_nll_n": (~np.isnan(nll)).sum(0).tolist(),
      "answer_nll_unsolved_by_turn": listed(_mean(nll[unsolved])),
      "answer_nll_unsolved_n": (~np.isnan(nll[unsolved])).sum(0).tolist(),
      "end_reasons": {end: ends[end] for end in typing.get_args(End) if ends[end]},
      "truncated_rate": float(np.mean([is_truncated(d) for d in dialogues])) if n else 0.0,
      "invalid_rate": float(np.mean(~valid)) if n else 0.0,
  }


def listed(values: np.ndarray) -> list[float | None]:
  """A vector as JSON: NaN becomes None."""
  return [None if np.isnan(v) else float(v) for v in values]


def intervals(lo: np.ndarray, hi: np.ndarray) -> list:
  """(lo, hi) of shape [] or [T] -> [lo, hi] or [[lo, hi] x T], NaN as None."""
  pairs = np.stack([lo, hi], -1)
  return listed(pairs) if pairs.ndim == 1 else [listed(p) for p in pairs]


def _counts(count, dialogues: list[Dialogue]) -> np.ndarray:
  return np.array([count(d) for d in dialogues], np.float64).reshape(-1, 2)  # [n, 2]: numerator, denominator


def _mean(values: np.ndarray) -> np.ndarray:
  """Mean over rows without NaN; NaN for a column that has none."""
  present = ~np.isnan(values)
  total, n = np.where(present, values, 0.0).sum(0), present.sum(0)
  return np.divide(total, n, out=np.full(values.shape[1:], np.nan), where=n > 0)
