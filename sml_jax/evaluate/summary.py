"""summary.json: what was measured on every arm and suite, and every paired comparison."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sml_jax.dialogue.record import Dialogue
from sml_jax.evaluate.claims import claims, notes
from sml_jax.evaluate.metrics import (
    TRIES,
    TURNS,
    dialogue_metrics,
    intervals,
    listed,
    resampling_by_task,
    resampling_curve,
    success_by_task,
)
from sml_jax.evaluate.reliability import lic_metrics
from sml_jax.evaluate.statistics import DRAWS, bootstrap_ci, detectable_line, paired_difference
from sml_jax.tasks.exclusions import known_issues

COMPARISONS = (("mt_rl", "st_rl"), ("mt_rl", "mt_sft"), ("st_rl", "mt_sft"))
"""(B, A): B minus A."""

RESAMPLING = (("mt_rl", "base"), ("mt_rl", "mt_sft"))
"""(B, A): success of B minus pass@t of A. Every arm is compared with its own control in any case."""


@dataclasses.dataclass(frozen=True)
class SuiteResult:
  """What one arm did on one suite.

  Attributes:
    dialogues: one a task, sampled at temperature 1; every arm has the same tasks in the same order.
    solved_counts: [n] right ones among the independent first-turn tries of each task; None on underspecified suites.
    greedy: one dialogue a task at temperature 0, or None.
    feedback: the feedback arm.
    full: underspecified suites: one turn a task with everything stated at once, or None.
    modes: of Lost in Conversation: mode -> the runs of each task.
  """

  dialogues: list[Dialogue]
  solved_counts: np.ndarray | None = None
  greedy: list[Dialogue] | None = None
  feedback: str = "full"
  full: list[Dialogue] | None = None
  modes: Mapping[str, list[list[Dialogue]]] = dataclasses.field(default_factory=dict)


Results = Mapping[str, Mapping[str, SuiteResult]]
"""arm -> suite -> SuiteResult"""


def suite_summary(
    result: SuiteResult, *, turns: int = TURNS, tries: int = TRIES, draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
  """One entry of arms/ARM/eval."""
  boot = {"draws": draws, "seed": seed}
  out = {"feedback": result.feedback, **dialogue_metrics(result.dialogues, turns=turns, **boot)}
  out["resampling"] = out["resampling_ci95"] = out["greedy"] = None
  if result.solved_counts is not None:
    out["resampling"] = listed(resampling_curve(result.solved_counts, tries, turns))
    by_task = resampling_by_task(result.solved_counts, tries, turns)
    out["resampling_ci95"] = intervals(*bootstrap_ci(by_task, **boot))
  if result.greedy is not None:
    greedy = dialogue_metrics(result.greedy, turns=turns, **boot)
    out["greedy"] = {key: greedy[key] for key in ("success_by_turn", "ci95", "repeat_rate", "invalid_rate")}
  if result.full is not None:
    score, valid = success_by_task(result.full, 1)
    out["success_full"] = float(score[valid, 0].mean()) if valid.any() else None
  if result.modes:
    out["lost_in_conversation"] = lic_metrics(result.modes, known_issue=known_issues(), **boot)
  return out


def arm_summary(
    suites: Mapping[str, SuiteResult], *, checkpoint: str = "", sampled_student_tokens: int = 0,
    trained: Mapping[str, Any] | None = None, **options,
) -> dict[str, Any]:
  """One entry of "arms"; `options` as in `suite_summary`."""
  return {
      "checkpoint": checkpoint,
      "eval": {name: suite_summary(result, **options) for name, result in suites.items()},
      "sampled_student_tokens": int(sampled_student_tokens),
      **{key: int(trained[key]) for key in ("trained_tokens", "injected_questions") if trained and key in trained},
  }


def paired_summary(
    results: Results,
    comparisons: Sequence[tuple[str, str]] = COMPARISONS,
    resampling: Sequence[tuple[str, str]] = RESAMPLING,
    *,
    turns: int = TURNS,
    tries: int = TRIES,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
  """All paired comparisons, each on every suite that both sides have.

  Keys: "B-A" for each comparison; "B-resampling" (each arm against its own control) and "B-A_resampling" for each of
  `resampling`; "B:full-try_again" where an arm has a suite and the same one under another teacher, named SUITE_TEACHER.
  Comparisons whose arms are absent are left out.

  Raises:
    ValueError: if the two sides do not have the same tasks in the same order.
  """
  paired: dict[str, dict[str, Any]] = {}

  def compare(key: str, suite: str, a, b) -> None:
    (score_a, valid_a), (score_b, valid_b) = a, b
    found = paired_difference(score_a, score_b, valid_a, valid_b, draws=draws, seed=seed)
    paired.setdefault(key, {})[suite] = found

  def curve(result: SuiteResult):
    return success_by_task(result.dialogues, turns)

  def control(result: SuiteResult):
    by_task = resampling_by_task(result.solved_counts, tries, turns)
    return by_task, ~np.isnan(by_task[:, 0])

  for b, a in comparisons:
    for suite in _shared(results, b, a):
      one, other = results[b][suite], results[a][suite]
      _same_tasks(f"{b}-{a} on {suite}", one, other)
      compare(f"{b}-{a}", suite, curve(other), curve(one))
  own = [(arm, arm) for arm in results]
  for b, a in [*own, *(pair for pair in resampling if pair not in own)]:
    key = f"{b}-resampling" if a == b else f"{b}-{a}_resampling"
    for suite in _shared(results, b, a):
      one, other = results[b][suite], results[a][suite]
      if other.solved_counts is None:
        continue
      _same_tasks(f"{key} on {suite}", one, other)
      compare(key, suite, control(other), curve(one))
  for arm, suites in results.items():
    for suite, one in suites.items():
      for other in suites.values():
        if suites.get(f"{suite}_{other.feedback}") is other:
          key = f"{arm}:{one.feedback}-{other.feedback}"
          _same_tasks(f"{key} on {suite}", one, other)
          compare(key, suite, curve(other), curve(one))
  return paired


def build_summary(
    results: Results,
    *,
    config: Mapping[str, Any] | None = None,
    seconds: Mapping[str, float] | None = None,
    checkpoints: Mapping[str, str] | None = None,
    sampled_student_tokens: Mapping[str, int] | None = None,
    trained: Mapping[str, Mapping[str, Any]] | None = None,
    api: Mapping[str, float] | None = None,
    comparisons: Sequence[tuple[str, str]] = COMPARISONS,
    resampling: Sequence[tuple[str, str]] = RESAMPLING,
    **options,
) -> dict[str, Any]:
  """The whole of summary.json, ready for `json.dumps`: plain numbers of six decimals, None for what is undefined.

  Args:
    results: arm -> suite -> SuiteResult, in the order in which the arms are to be shown.
    config, seconds: the resolved config; seconds of each stage.
    checkpoints, sampled_student_tokens: of each arm; student tokens sampled in its training.
    trained: of each arm that SFT made: trained_tokens and injected_questions of its data.
    api: what servers were asked for in this run, if any.
    comparisons, resampling: as in `paired_summary`.
    **options: turns, tries, draws, seed.
  """
  checkpoints, tokens = checkpoints or {}, sampled_student_tokens or {}
  summary = rounded(
      {
          "seconds": dict(seconds or {}),
          **({"api": dict(api)} if api else {}),
          "arms": {
              arm: arm_summary(
                  suites, checkpoint=checkpoints.get(arm, ""), sampled_student_tokens=tokens.get(arm, 0),
                  trained=(trained or {}).get(arm), **options,
              )
              for arm, suites in results.items()
          },
          "paired": paired_summary(results, comparisons, resampling, **options),
      }
  )
  summary = {"config": dict(config or {}), **summary}  # As it is: a small number is not to be rounded to 0.
  summary["claims"] = claims(summary)
  summary["notes"] = notes(summary)
  sizes = sorted({e["n_tasks"] for arm in summary["arms"].values() for e in arm["eval"].values() if e["n_tasks"]})
  summary["power"] = [detectable_line(n) for n in sizes]
  return summary


def rounded(value: Any, digits: int = 6) -> Any:
  """A copy for JSON: floats of `digits` decimals, NaN and infinities as None, numpy scalars as plain numbers."""
  if isinstance(value, Mapping):
    return {key: rounded(v, digits) for key, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [rounded(v, digits) for v in value]
  if isinstance(value, np.generic):
    value = value.item()
  if isinstance(value, float):
    return round(value, digits) if math.isfinite(value) else None
  return value


def _shared(results: Results, b: str, a: str) -> list[str]:
  return [suite for suite in results.get(b, {}) if suite in results.get(a, {})]


def _same_tasks(what: str, one: SuiteResult, other: SuiteResult) -> None:
  ids, other_ids = ([d.task_id for d in r.dialogues] for r in (one, other))
  if ids != other_ids:
    raise ValueError(f"{what}: a paired comparison needs the same tasks in the same order")
