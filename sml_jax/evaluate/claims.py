"""What the experiment set out to show, what it shows, and the same in three sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

Summary = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Claim:
  """B minus A on a suite at a student turn: at least `demanded`, with the lower end of its interval above 0.

  `demanded` None: shown beside the claim, nothing is demanded of it.
  """

  claim: str
  text: str
  pair: str
  suite: str
  turn: int
  demanded: float | None


CLAIMS = (
    Claim("a", "multi-turn RL beats single-turn RL on maths", "mt_rl-st_rl", "math", 4, 0.10),
    Claim("a", "multi-turn RL beats single-turn RL on maths", "mt_rl-st_rl", "math", 10, 0.10),
    Claim("b", "multi-turn RL beats the SFT student", "mt_rl-mt_sft", "math", 4, 0.05),
    Claim("c", "a dialogue beats four independent tries of the same student", "mt_rl-resampling", "math", 4, 0.05),
    Claim("c", "beside it: against four tries of the base student", "mt_rl-base_resampling", "math", 4, None),
    Claim("c", "beside it: against four tries of the SFT student", "mt_rl-mt_sft_resampling", "math", 4, None),
    Claim("d", "real feedback beats a teacher that only says try again", "mt_rl:full-try_again", "math", 4, 0.08),
    Claim("e", "the gain carries over to code, which RL never saw", "mt_rl-st_rl", "code", 10, 0.08),
)


def claims(summary: Summary) -> list[dict[str, Any]]:
  """Each claim with demanded and measured number, 95% interval, and whether it is met (None: nothing demanded).

  Claims whose arms or suites are absent are left out.
  """
  out = []
  for c in CLAIMS:
    measured, ci95 = difference(summary, c.pair, c.suite, c.turn)
    if measured is None:
      continue
    met = None if c.demanded is None else measured >= c.demanded - 1e-9 and ci95[0] is not None and ci95[0] > 0
    out.append({**dataclasses.asdict(c), "measured": measured, "ci95": ci95, "met": met})
  return out


def difference(summary: Summary, pair: str, suite: str, turn: int) -> tuple[float | None, list]:
  """(difference, [lo, hi]) of a paired comparison at a student turn; (None, [None, None]) if it was not made."""
  found = summary["paired"].get(pair, {}).get(suite)
  if not found or len(found["difference_by_turn"]) < turn:
    return None, [None, None]
  return found["difference_by_turn"][turn - 1], list(found["ci95"][turn - 1])


def notes(summary: Summary) -> list[str]:
  """What a reader must know before believing the claims: leaks, lost ground, and what plain resampling would reach."""
  out = [*_next_to_nothing(summary), *_leaks(summary)]
  lost = [f"{suite} {points(*cell)} at turn {turn}" for suite, turn, cell in _lost_ground(summary)]
  if lost:
    out.append(
        f"st_rl lost ground to mt_sft: {'; '.join(lost)}. "
        "That part of mt_rl − st_rl is its loss and not a gain of mt_rl."
    )
  for other, who in (("base", "the base student"), ("mt_sft", "the SFT student")):
    level = []
    for suite in ("math", "code"):
      measured, ci95 = difference(summary, f"mt_rl-{other}_resampling", suite, 4)
      if measured is not None and not (ci95[0] is not None and ci95[0] > 0):
        level.append(f"{suite} {points(measured, ci95)}")
    if level:
      out.append(f"It is not shown that four turns of mt_rl beat four independent tries of {who}: {'; '.join(level)}.")
  return out


def _next_to_nothing(summary: Summary) -> list[str]:
  """One sentence if no arm solves a tenth of any suite by its last turn: its curves then say nothing."""
  best = [e["success_by_turn"][-1] or 0.0 for arm in summary["arms"].values() for e in arm["eval"].values()]
  if not best or max(best) >= 0.1:
    return []
  return [
      f"These students solve next to nothing (at most {max(best):.1%} of any suite): nothing about learning from "
      "feedback can be read off these curves. The dialogues are there to read."
  ]


def _leaks(summary: Summary) -> list[str]:
  """One sentence for each arm and suite in which students were shown the answer."""
  return [
      f"{arm} on {suite}: in {e['leaked_dialogues']} of {e['n_tasks']} dialogues the teacher gave the answer away. "
      f"With those as failures {without[-1]:.1%} are solved by the last turn, and not {e['success_by_turn'][-1]:.1%}."
      for arm, entry in summary["arms"].items()
      for suite, e in entry["eval"].items()
      if e.get("leaked_dialogues") and (without := e["success_leaked_failed_by_turn"])[-1] is not None
  ]


def _lost_ground(summary: Summary) -> list[tuple[str, int, tuple[float, list]]]:
  """(suite, turn, difference) where st_rl is below mt_sft with its whole interval, at the last of turns 4 and 10."""
  out = []
  for suite in summary["paired"].get("st_rl-mt_sft", {}):
    for turn in (10, 4):
      measured, ci95 = difference(summary, "st_rl-mt_sft", suite, turn)
      if measured is not None and ci95[1] is not None and ci95[1] < 0:
        out.append((suite, turn, (measured, ci95)))
        break
  return out


def sentences(summary: Summary) -> list[str]:
  """What this shows, in three sentences computed from the numbers; a claim that failed is said to have failed."""
  found = claims(summary)
  by_key = {(c["pair"], c["suite"], c["turn"]): c for c in found}
  if "mt_rl" not in summary["arms"] or not any(c["met"] is not None for c in found):
    return _without_claims(summary)
  return [_learning(summary, by_key), _feedback(by_key), _transfer(summary, by_key)]


def _learning(summary: Summary, by_key: Mapping) -> str:
  curve = summary["arms"]["mt_rl"]["eval"].get("math", {}).get("success_by_turn")
  parts = []
  for pair, turns, other in (("mt_rl-st_rl", (4, 10), "single-turn RL"), ("mt_rl-mt_sft", (4,), "the SFT student")):
    found = [f"{_gap(c)} at turn {turn}" for turn in turns if (c := by_key.get((pair, "math", turn)))]
    if found:
      parts.append(f"{' and '.join(found)} against {other}")
  ab = [c for c in by_key.values() if c["claim"] in "ab"]
  if not curve or not ab:
    return "Nothing can be said about held-out maths: the arms to compare with were not evaluated."
  return (
      f"On held-out maths the student trained by multi-turn RL solves {curve[3]:.1%} of the tasks by turn 4 and "
      f"{curve[-1]:.1%} by turn {len(curve)}: {', and '.join(parts)} ({_verdict(ab)})."
  )


def _feedback(by_key: Mapping) -> str:
  own = by_key.get(("mt_rl-resampling", "math", 4))
  again = by_key.get(("mt_rl:full-try_again", "math", 4))
  base = by_key.get(("mt_rl-base_resampling", "math", 4))
  if not own and not again:
    return "Whether the gain comes from the feedback was not tested: neither control was evaluated."
  parts = []
  if own:
    parts.append(f"{_gap(own)} against its own four independent tries")
  if base:
    parts.append(f"{_gap(base)} against four tries of the base student")
  if again:
    parts.append(f"{_gap(again)} against the same student with a teacher that only says try again")
  demanded = [c for c in (own, again) if c]
  if all(c["met"] for c in demanded):
    head = "It gains from what the teacher says and not only from trying again"
  elif any(c["met"] for c in demanded):
    head = "Whether it gains from what the teacher says is only half shown"
  else:
    head = "It is not shown that it gains from what the teacher says rather than from trying again"
  return f"{head}: at turn 4 it stands {', '.join(parts)} ({_verdict(demanded)})."


def _transfer(summary: Summary, by_key: Mapping) -> str:
  code = by_key.get(("mt_rl-st_rl", "code", 10))
  if not code:
    return "Transfer to code was not tested."
  head = "It carries over to code, which RL never saw" if code["met"] else "Transfer to code is not shown"
  lost = any(suite == "code" for suite, _, _ in _lost_ground(summary))
  tail = ", but part of that is ground that single-turn RL lost" if lost else ""
  return f"{head}: {_gap(code)} against single-turn RL at turn 10 ({_verdict([code])}){tail}."


def _without_claims(summary: Summary) -> list[str]:
  """Three plain sentences about whatever arms there are."""
  rows = [(arm, suite, e) for arm, a in summary["arms"].items() for suite, e in a["eval"].items()]
  rows = [r for r in rows if r[2]["success_by_turn"][-1] is not None]
  if not rows:
    return ["No arm was evaluated.", "There is nothing to compare.", "There is nothing to conclude."]
  suite = rows[0][1]
  arm, _, e = max((r for r in rows if r[1] == suite), key=lambda r: r[2]["success_by_turn"][-1])
  curve, control = e["success_by_turn"], e["resampling"]
  first = f"On {suite}, {arm} is the highest of the evaluated arms: {curve[0]:.1%} of the tasks at turn 1"
  first += f" and {curve[-1]:.1%} by turn {len(curve)}."
  measured, ci95 = difference(summary, f"{arm}-resampling", suite, min(4, len(curve)))
  if control is None or measured is None:
    second = "It has no resampling control here, so learning from feedback cannot be told from trying again."
  else:
    clear = ci95[0] is not None and ci95[0] > 0
    second = f"At turn {min(4, len(curve))} it stands {points(measured, ci95)} against its own independent tries, "
    second += "so a dialogue is worth more than trying again." if clear else "so no use of feedback is shown."
  return [first, second, "The claims of the standard experiment were not judged: they need arms that are not here."]


def points(value: float, ci95: list) -> str:
  """0.186 and [0.143, 0.229] -> "+18.6 points [+14.3, +22.9]"."""
  value, lo, hi = ("?" if x is None else f"{100 * x:+.1f}".replace("-", "−") for x in (value, *ci95))
  return f"{value} points [{lo}, {hi}]"


def _gap(c: Mapping) -> str:
  return points(c["measured"], c["ci95"])


def _verdict(found: list) -> str:
  """Which of these claims are met: "claim a met, claim b not met"."""
  by_id: dict[str, bool] = {}
  for c in found:
    if c["met"] is not None:
      by_id[c["claim"]] = by_id.get(c["claim"], True) and c["met"]
  return ", ".join(f"claim {name} {'met' if met else 'NOT met'}" for name, met in sorted(by_id.items()))
