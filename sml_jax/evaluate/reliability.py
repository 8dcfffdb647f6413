"""Aptitude and reliability of Lost in Conversation (Laban et al. 2025, arXiv 2505.06120, section 4.3).

N runs of each instruction, scored 0 to 1. Of one instruction, on 0 to 100: P is the mean of its runs, A90 their 90th
percentile, U90_10 the 90th less the 10th; each is then averaged over instructions, and reliability is 100 - U90_10.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from sml_jax.dialogue.record import Dialogue
from sml_jax.evaluate.metrics import intervals, is_attempt, listed, premature_counts, question_counts
from sml_jax.evaluate.statistics import DRAWS, bootstrap_ci, bootstrap_ratio_ci

RULE = "linear"
"""numpy's name of the percentile rule. The paper does not name its own; other rules give other A and U."""

FIFTHS = 5
ONE_TURN = ("full", "concat", "shuffle_concat")


def by_instruction(scores: np.ndarray, rule: str = RULE) -> dict[str, np.ndarray]:
  """P, A90 and U90_10 of each instruction, each f64 [n] on 0 to 100.

  Args:
    scores: [n, N] in 0 to 1; NaN for a run that is missing or invalid. An instruction without any run is NaN.
    rule: percentile rule, as numpy.percentile's `method`.

  Raises:
    ValueError: a score outside of 0 to 1, or an unknown rule.
  """
  scores = np.asarray(scores, np.float64)
  if np.any((scores < 0) | (scores > 1)):
    raise ValueError("scores are between 0 and 1")
  out = {name: np.full(len(scores), np.nan) for name in ("P", "A90", "U90_10")}
  for i, runs in enumerate(scores):
    runs = 100 * runs[~np.isnan(runs)]
    if runs.size:
      low, high = np.percentile(runs, [10, 90], method=rule)
      out["P"][i], out["A90"][i], out["U90_10"][i] = runs.mean(), high, high - low
  return out


def reliability(scores: np.ndarray, *, rule: str = RULE, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
  """P, A90, U90_10 and reliability, averaged over instructions, with 95% bootstrap intervals over instructions.

  None stands for a number that has no instruction. Arguments and errors: see `by_instruction`.
  """
  each = by_instruction(scores, rule)
  each["reliability"] = 100 - each["U90_10"]
  out: dict[str, Any] = {}
  for name, values in each.items():
    kept = values[~np.isnan(values)]
    out[name] = float(kept.mean()) if kept.size else None
  out["ci95"] = {name: intervals(*bootstrap_ci(v, draws=draws, seed=seed)) for name, v in each.items()}
  return out | {"n_instructions": int((~np.isnan(each["P"])).sum()), "percentile_rule": rule}


def first_attempt_fifth(dialogue: Dialogue) -> int | None:
  """In which fifth of the talk (0 to 4) the first attempt came; None without one, or if nothing was ever hidden.

  The place is the number (from 1) of the student turn with the first attempt, divided by the number of shards: the
  turns that a talk takes in which each teacher turn reveals one. So it does not depend on where a right answer ended
  the talk. Fifths are (0, 1/5], (1/5, 2/5] ...; what comes later than the last shard is in the last one.
  """
  turns = dialogue.student_turns
  if not turns or not turns[0].hidden:
    return None
  shards = turns[0].hidden + 1
  place = next((i for i, turn in enumerate(turns, 1) if is_attempt(turn)), None)
  return None if place is None else min(FIFTHS, -(-FIFTHS * place // shards)) - 1


def success_by_fifth(groups: Sequence[Sequence[Dialogue]], *, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
  """P over the dialogues whose first attempt came in each fifth of the talk (the paper's Table 6), with their number.

  Args:
    groups: the valid dialogues of each instruction, the unit of the intervals.
  """
  solved, counts = np.zeros((2, len(groups), FIFTHS))
  without = 0
  for i, dialogues in enumerate(groups):
    for d in dialogues:
      fifth = first_attempt_fifth(d)
      if fifth is not None:
        solved[i, fifth] += 100 * score(d)
        counts[i, fifth] += 1
      else:
        without += bool(d.student_turns and d.student_turns[0].hidden and not any(map(is_attempt, d.student_turns)))
  n = counts.sum(0)
  p = np.divide(solved.sum(0), n, out=np.full(FIFTHS, np.nan), where=n > 0)
  ci95 = intervals(*bootstrap_ratio_ci(solved, counts, draws=draws, seed=seed))
  return {"P": listed(p), "ci95": ci95, "n_dialogues": n.astype(int).tolist(), "without_attempt": without}


def score(dialogue: Dialogue) -> float:
  """1 if solved, else 0: the score of the last attempt, since a right one ends the talk."""
  return float(dialogue.end == "solved")


def lic_metrics(
    runs_by_mode: Mapping[str, Iterable[Iterable[Dialogue]]],
    *,
    known_issue: Collection[str] = (),
    rule: str = RULE,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
  """All that the runs of the modes say, for summary.json.

  Args:
    runs_by_mode: mode ("full", "concat", "sharded" ...) -> lists of dialogues, by run or by instruction: they are
      sorted by task id here. Invalid dialogues are left out and counted.
    known_issue: ids of tasks known to be defective, with or without the "SOURCE/" that a task id begins with.
    rule, draws, seed: of the percentiles and the intervals.

  Returns:
    {"percentile_rule", "all": block, "without_known_issue": block, or None if no task is of those}; a block is
    {"modes": mode -> numbers, "ratios": {"concat/full", "sharded/full" ...}}. A ratio is 100 times the P of one mode by
    that of FULL, over the instructions with a valid run in both; None where P of FULL is 0 or a mode is not there. For
    the paper's columns call this for each task (math, code) and average the ratios.

  Raises:
    ValueError: a dialogue that is not over, or two of the same task and sample in one mode.
  """
  groups = {mode: _grouped(mode, runs) for mode, runs in runs_by_mode.items()}
  ids = {task for tasks in groups.values() for task in tasks}
  known = sorted(i for i in ids if any(i == k or i.endswith(f"/{k}") for k in known_issue))
  out: dict[str, Any] = {"percentile_rule": rule, "known_issue": known, "all": _block(groups, rule, draws, seed)}
  kept = {mode: {t: d for t, d in tasks.items() if t not in known} for mode, tasks in groups.items()}
  return out | {"without_known_issue": _block(kept, rule, draws, seed) if known else None}


Groups = Mapping[str, list[Dialogue]]
"""Task id -> its dialogues."""


def _grouped(mode: str, runs: Iterable[Iterable[Dialogue]]) -> Groups:
  groups = collections.defaultdict(dict)
  for d in (d for dialogues in runs for d in dialogues):
    if d.end is None:
      raise ValueError(f"{mode}: dialogue of task {d.task_id} has no end reason: it is not over")
    if d.sample in groups[d.task_id]:
      raise ValueError(f"{mode}: task {d.task_id} has two dialogues of sample {d.sample}")
    groups[d.task_id][d.sample] = d
  return {task: [groups[task][sample] for sample in sorted(groups[task])] for task in sorted(groups)}


def _block(groups: Mapping[str, Groups], rule: str, draws: int, seed: int) -> dict[str, Any]:
  boot = {"draws": draws, "seed": seed}
  modes = {mode: _mode(mode, tasks, rule, boot) for mode, tasks in groups.items()}
  others = [mode for mode in groups if mode != "full"] if "full" in groups else []
  return {"modes": modes, "ratios": {f"{m}/full": _ratio(groups[m], groups["full"], rule, boot) for m in others}}


def _mode(mode: str, tasks: Groups, rule: str, boot: Mapping[str, int]) -> dict[str, Any]:
  valid = [[d for d in dialogues if d.valid] for dialogues in tasks.values()]
  numbers = reliability(_scores(valid), rule=rule, **boot)
  runs = [len(dialogues) for dialogues in tasks.values()]
  numbers |= {"runs": max(runs, default=0), "fewest_valid_runs": min(map(len, valid), default=0)}
  numbers["invalid"] = sum(runs) - sum(map(len, valid))
  if mode not in ONE_TURN:
    rates = {"premature_attempt_rate": premature_counts, "clarification_rate": question_counts}
    numbers |= {name: _rate(count, valid, boot) for name, count in rates.items()}
    n = sum(map(len, valid))
    asked = sum(question_counts(d)[0] for dialogues in valid for d in dialogues)
    numbers |= {"questions_per_dialogue": asked / n if n else None, "by_fifth": success_by_fifth(valid, **boot)}
  return numbers


def _rate(
    count: Callable[[Dialogue], tuple[int, int]], groups: Sequence[Sequence[Dialogue]], boot: Mapping[str, int]
) -> dict[str, Any]:
  """A pooled rate of pairs (numerator, denominator), with an interval over instructions."""
  pairs = np.array([np.sum([count(d) for d in dialogues] or [(0, 0)], 0) for dialogues in groups], np.float64)
  top, bottom = pairs.reshape(-1, 2).T
  value = float(top.sum() / bottom.sum()) if bottom.sum() else None
  return {"value": value, "ci95": intervals(*bootstrap_ratio_ci(top, bottom, **boot))}


def _scores(groups: Sequence[Sequence[Dialogue]]) -> np.ndarray:
  """[n, most runs]; NaN where an instruction has fewer."""
  out = np.full((len(groups), max(map(len, groups), default=0)), np.nan)
  for row, dialogues in zip(out, groups, strict=True):
    row[: len(dialogues)] = [score(d) for d in dialogues]
  return out


def _ratio(other: Groups, full: Groups, rule: str, boot: Mapping[str, int]) -> dict[str, Any]:
  shared = [task for task in full if task in other]
  p = [by_instruction(_scores([[d for d in g[task] if d.valid] for task in shared]), rule)["P"] for g in (other, full)]
  both = ~np.isnan(p[0]) & ~np.isnan(p[1])
  top, bottom = p[0][both], p[1][both]
  lo, hi = bootstrap_ratio_ci(100 * top, bottom, **boot)
  value = float(100 * top.sum() / bottom.sum()) if bottom.sum() else None
  return {"value": value, "ci95": intervals(lo, hi), "n_instructions": int(both.sum())}


# The tables.


def lic_table(summary: Mapping[str, Any]) -> str:
  """Of each arm and suite of a summary whose entry has "lost_in_conversation" (see `lic_metrics`): P, A90, U90_10 and
  the ratios of each mode, then P by first attempt, as HTML; "" if there is none."""
  out = []
  for arm, entry in summary["arms"].items():
    for suite, numbers in entry["eval"].items():
      if metrics := numbers.get("lost_in_conversation"):
        out.append(f"<p><b>{escape(arm)}</b> · {escape(suite)}</p>{_modes_table(metrics)}")
  return "".join(out)


def _modes_table(metrics: Mapping[str, Any]) -> str:
  blocks = [("all instructions", metrics["all"])]
  if metrics["without_known_issue"]:
    left_out = len(metrics["known_issue"])
    blocks.append((f"without the {left_out} known to be defective", metrics["without_known_issue"]))
  heads = ("P", "A90", "U90−10", "P / P of full", "premature<br>attempts", "clarification<br>rate",
           "questions<br>a talk", "instructions<br>× runs", "invalid")  # fmt: skip
  out = ["<div class='scroll'><table><thead><tr><th class='l'></th>", *(f"<th>{h}</th>" for h in heads)]
  out.append("</tr></thead><tbody>")
  for title, block in blocks:
    out.append(f'<tr class="head"><th colspan="{len(heads) + 1}">{escape(title)}</th></tr>')
    for mode, m in block["modes"].items():
      ratio = block["ratios"].get(f"{mode}/full")
      cells = [_cell(m[name], m["ci95"][name]) for name in ("P", "A90", "U90_10")]
      cells.append(_cell(ratio["value"], ratio["ci95"], "%") if ratio else "–")
      for name in ("premature_attempt_rate", "clarification_rate"):
        cells.append(_cell(m[name]["value"], m[name]["ci95"], "%", 100) if name in m else "–")
      asked = m.get("questions_per_dialogue")
      cells += ["–" if asked is None else f"{asked:.2f}", f"{m['n_instructions']} × {m['runs']}", str(m["invalid"])]
      name = escape(mode.replace("_", " "))
      out.append(f"<tr><td class='l'>{name}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
  out.append("</tbody></table></div>")
  rule = escape(str(metrics["percentile_rule"]))
  return f"{''.join(out)}<p class='why'>Percentile rule: {rule}.</p>{_fifths_table(metrics['all'])}"


def _fifths_table(block: Mapping[str, Any]) -> str:
  rows = []
  for mode, m in block["modes"].items():
    found = m.get("by_fifth")
    if not found or not sum(found["n_dialogues"]):
      continue
    values = zip(found["P"], found["ci95"], found["n_dialogues"], strict=True)
    cells = "".join(f"<td>{_cell(p, ci95)}<small>{n} talks</small></td>" for p, ci95, n in values)
    name = escape(mode.replace("_", " "))
    rows.append(f"<tr><td class='l'>{name}</td>{cells}<td>{found['without_attempt']}</td></tr>")
  if not rows:
    return ""
  heads = "".join(f"<th>{20 * i}–{20 * (i + 1)}%</th>" for i in range(FIFTHS))
  return ("<p class='why'>P by when the first attempt came, as a share of the shards.</p><div class='scroll'><table>"
          f"<thead><tr><th class='l'></th>{heads}<th>no attempt</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
          "</div>")  # fmt: skip


def _cell(value: float | None, ci95: Sequence[float | None], unit: str = "", scale: float = 1) -> str:
  if value is None:
    return "–"
  small = "" if ci95[0] is None else f"<small>{scale * ci95[0]:.1f} – {scale * ci95[1]:.1f}</small>"
  return f"{scale * value:.1f}{unit}{small}"
