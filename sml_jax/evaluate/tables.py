"""The tables of report.html."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from sml_jax.evaluate.cards import chip, words
from sml_jax.evaluate.figures import SUITE_TITLES, arm_colours

Summary = Mapping[str, Any]


def claims_table(summary: Summary) -> str:
  found = summary.get("claims", [])
  if not found:
    return ""
  edge = max(0.1, *(abs(x) for c in found for x in (*c["ci95"], c["measured"], c["demanded"]) if x is not None)) * 1.08
  rows = []
  for c in found:
    verdict = {True: chip("met", "good"), False: chip("not met", "bad"), None: ""}[c["met"]]
    where = f"{escape(c['pair'])} on {escape(c['suite'])}, turn {c['turn']}"
    demanded = "" if c["demanded"] is None else f"{c['demanded']:+.2f}"
    rows.append(
        f'<tr{"" if c["demanded"] is not None else " class=beside"}><td class="l">{escape(c["claim"])}</td>'
        f'<td class="l w">{escape(c["text"])}<small>{where}</small></td><td>{demanded}</td>'
        f"<td>{_signed(c['measured'], c['ci95'])}</td><td>{_forest(c, edge)}</td><td>{verdict}</td></tr>"
    )
  return (
      "<p class='why'>A claim is met if the measured difference is at least the demanded one and its "
      "interval is above 0.</p><div class='scroll'><table><thead><tr><th class='l'></th><th class='l'>claim</th>"
      f"<th>demanded</th><th>measured</th><th></th><th></th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
  )


def _forest(c: Mapping, edge: float) -> str:
  """The interval as a small drawing: zero line, demanded difference (dashed), interval and estimate."""
  x = lambda v: 95 + 90 * v / edge
  colour = {True: "var(--good)", False: "var(--bad)", None: "var(--soft)"}[c["met"]]
  lo, hi = c["ci95"]
  parts = ['<line x1="95" x2="95" y1="2" y2="20" stroke="var(--grid)" stroke-width="1.5"/>']
  if c["demanded"] is not None:
    at = x(c["demanded"])
    parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="3" y2="19" stroke="var(--soft)" stroke-dasharray="2 2"/>')
  if lo is not None and hi is not None:
    parts.append(f'<line x1="{x(lo):.1f}" x2="{x(hi):.1f}" y1="11" y2="11" stroke="{colour}" stroke-width="2.5" '
                 'stroke-linecap="round"/>')  # fmt: skip
  parts.append(f'<circle cx="{x(c["measured"]):.1f}" cy="11" r="4" fill="{colour}"/>')
  return f'<svg class="forest" viewBox="0 0 190 22" aria-hidden="true">{"".join(parts)}</svg>'


def _by_suite(summary: Summary, columns: list[tuple[str, Callable[[Mapping], str]]], first: str = "") -> str:
  """A table with a block of rows a suite, a row an arm."""
  colours = arm_colours(summary["arms"])
  suites = dict.fromkeys(s for arm in summary["arms"].values() for s in arm["eval"])
  out = [f"<div class='scroll'><table><thead><tr><th class='l'>{first}</th>"]
  out += [f"<th>{name}</th>" for name, _ in columns] + ["</tr></thead><tbody>"]
  for suite in suites:
    title = f"{SUITE_TITLES.get(suite, suite)}"
    out.append(f'<tr class="head"><th colspan="{len(columns) + 1}">{escape(title)}</th></tr>')
    for arm, entry in summary["arms"].items():
      if suite in entry["eval"]:
        e = entry["eval"][suite]
        out.append(f'<tr><td class="l"><span class="dot" style="background:{colours[arm]}"></span>{escape(arm)}</td>')
        out += [f"<td>{cell(e)}</td>" for _, cell in columns] + ["</tr>"]
  return "".join(out) + "</tbody></table></div>"


def success_table(summary: Summary) -> str:
  def at(t):
    return lambda e: _rate(*_pick(e["success_by_turn"], e["ci95"], t))

  def control(t):
    return lambda e: _percent(e["resampling"][t - 1]) if e["resampling"] and t <= len(e["resampling"]) else "–"

  def greedy(t):
    return lambda e: _percent(_pick(e["greedy"]["success_by_turn"], None, t)[0]) if e.get("greedy") else "–"

  def without_leaks(t):
    return lambda e: _percent(_pick(e["success_leaked_failed_by_turn"], None, t)[0])

  columns = [(f"success@{t}", at(t)) for t in (1, 4, 10)] + [(f"tries:<br>pass@{t}", control(t)) for t in (4, 10)]
  if any(e["leaked_dialogues"] for arm in summary["arms"].values() for e in arm["eval"].values()):
    columns += [(f"leaked = failed:<br>success@{t}", without_leaks(t)) for t in (4, 10)]
  if any(e.get("greedy") for arm in summary["arms"].values() for e in arm["eval"].values()):
    columns += [(f"greedy:<br>success@{t}", greedy(t)) for t in (1, 10)]
  return _by_suite(summary, columns)


def behaviour_table(summary: Summary) -> str:
  def rate(name):
    return lambda e: _rate(e[name], e.get("rates_ci95", {}).get(name))

  def nll(t):
    def cell(e):
      value, _ = _pick(e["answer_nll_by_turn"], None, t)
      return "–" if value is None else f"{value:.2f}<small>{e['answer_nll_n'][t - 1]} open</small>"

    return cell

  def ends(e):
    return "<br>".join(f"{escape(words(k))} {v}" for k, v in e["end_reasons"].items())

  return _by_suite(summary, [
      ("questions<br>a dialogue", lambda e: f"{e['questions_per_dialogue']:.2f}"),
      ("clarification<br>rate", rate("clarification_rate")),
      ("premature<br>attempts", rate("premature_attempt_rate")),
      ("repeat<br>rate", rate("repeat_rate")),
      ("answer NLL<br>at 1", nll(1)),
      ("answer NLL<br>at 4", nll(4)),
      ("leaks", rate("leak_rate")),
      ("cut", lambda e: _percent(e["truncated_rate"])),
      ("invalid", lambda e: _percent(e["invalid_rate"])),
      ("ended by", ends),
      ("verdicts", lambda e: "<br>".join(f"{escape(words(k))} {v}" for k, v in e["reasons"].items()) or "–"),
  ])  # fmt: skip


def training_table(summary: Summary) -> str:
  """What each arm that SFT made was trained on; "" if there is none."""
  rows = [(arm, e) for arm, e in summary["arms"].items() if "trained_tokens" in e]
  if not rows:
    return ""
  body = "".join(f"<tr><td class='l'>{escape(arm)}</td><td>{e['trained_tokens']:,}</td>"
                 f"<td>{e.get('injected_questions', 0):,}</td></tr>" for arm, e in rows)  # fmt: skip
  return ("<div class='scroll'><table><thead><tr><th class='l'></th><th>trained tokens of its data</th>"
          f"<th>injected questions</th></tr></thead><tbody>{body}</tbody></table></div>")  # fmt: skip


def api_table(summary: Summary) -> str:
  """What servers were asked for; "" if there was none."""
  rows = "".join(f"<tr><td class='l'>{escape(words(k))}</td><td>{v:,.6g}</td></tr>" for k, v in
                 summary.get("api", {}).items())  # fmt: skip
  return f"<div class='scroll'><table><tbody>{rows}</tbody></table></div>" if rows else ""


def paired_table(summary: Summary) -> str:
  out = ["<div class='scroll'><table><thead><tr><th class='l'>B − A</th><th class='l'>suite</th>"]
  out += [f"<th>turn {t}</th>" for t in (1, 4, 10)] + ["<th>tasks</th></tr></thead><tbody>"]
  for pair, suites in summary["paired"].items():
    for i, (suite, found) in enumerate(suites.items()):
      out.append(f"<tr><td class='l'>{escape(pair) if i == 0 else ''}</td><td class='l'>{escape(suite)}</td>")
      for t in (1, 4, 10):
        out.append(f"<td>{_signed(*_pick(found['difference_by_turn'], found['ci95'], t))}</td>")
      out.append(f"<td>{found.get('n_tasks', '')}</td></tr>")
  return "".join(out) + "</tbody></table></div>"


def _pick(values: Sequence, intervals: Sequence | None, turn: int):
  """The value and interval at a turn (from 1), None past the end."""
  if turn > len(values):
    return None, None
  return values[turn - 1], None if intervals is None else intervals[turn - 1]


def _percent(value: float | None) -> str:
  return "–" if value is None else f"{100 * value:.1f}%"


def _rate(value: float | None, ci95: Sequence | None) -> str:
  if value is None or not ci95 or ci95[0] is None:
    return _percent(value)
  return f"{_percent(value)}<small>{100 * ci95[0]:.1f} – {100 * ci95[1]:.1f}</small>"


def _signed(value: float | None, ci95: Sequence | None) -> str:
  if value is None:
    return "–"
  small = f"<small>{ci95[0]:+.3f} to {ci95[1]:+.3f}</small>" if ci95 and ci95[0] is not None else ""
  return f"{value:+.3f}{small}"
