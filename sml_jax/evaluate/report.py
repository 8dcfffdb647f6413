"""report.html: one file that works offline and says what was shown, with the dialogues to read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from etils import epath

from sml_jax.data.rows import TokenRow
from sml_jax.dialogue.record import Dialogue
from sml_jax.evaluate.cards import Pieces, dialogue_card
from sml_jax.evaluate.claims import sentences
from sml_jax.evaluate.figures import (
  inline_svg,
  learning_figure,
  nll_figure,
  success_figure,
)
from sml_jax.evaluate.reliability import lic_table
from sml_jax.evaluate.report_style import CSS, JS
from sml_jax.evaluate.tables import (
  api_table,
  behaviour_table,
  claims_table,
  paired_table,
  success_table,
  training_table,
)

Summary = Mapping[str, Any]

DEFINITIONS = (
    (
        "success@t",
        "share of all tasks solved at or before student turn t. Solved dialogues stay in the denominator; dialogues "
        "whose verifier or teacher failed leave it and are counted as invalid.",
    ),
    (
        "independent tries, pass@t",
        "the resampling control: the chance that one of t independent first-turn tries of the same checkpoint, at the "
        "same temperature and token limit, is right; unbiased, from 16 tries a task. A try without an answer fails. "
        "Success by turn is cumulative, so without this control any student seems to learn. There is none on "
        "underspecified tasks.",
    ),
    (
        "interval",
        "95%, 10,000 percentile bootstraps over tasks. A difference is paired: both arms on the same tasks, tasks "
        "where either is invalid left out.",
    ),
    (
        "premature attempts",
        "attempts made while a part of the task is still hidden / student turns made while a part is hidden.",
    ),
    ("clarification rate", "student turns that ask (one question or several) / all student turns."),
    ("repeat rate", "attempts equal to the previous attempt / attempts after a wrong attempt."),
    (
        "answer NLL at t",
        "nats of the canonical answer, end of turn included, put after teacher turn t (1 is the problem); over "
        "dialogues still open at t, and again over those never solved, which has no survivors' bias.",
    ),
    (
        "leaks",
        "teacher replies that state the answer, or give it away in another form (see the README) / all replies, shown "
        "or stopped. Where the student was shown one, success is also counted with that dialogue as failed.",
    ),
    ("cut", "dialogues with a turn that met its token limit, or whose context was full. They count as not solved."),
    ("invalid", "dialogues whose verifier or teacher failed: never counted as wrong."),
)


def write_report(
    path,
    summary: Summary,
    metrics_by_stage: Mapping[str, Sequence[Mapping[str, Any]]],
    dialogues_by_arm: Mapping[str, Sequence[Dialogue]],
    tokens_to_pieces: Pieces,
    *,
    title: str = "Social meta-learning: does the student learn from its teacher?",
    dialogues_per_arm: int = 20,
    row_of: Callable[[Dialogue], TokenRow] | None = None,
) -> None:
  """Writes the report.

  Args:
    path: of the file; local or remote.
    summary: as `build_summary` makes it.
    metrics_by_stage: stage -> rows with "step" and numbers ("stage" is filled in).
    dialogues_by_arm: the first `dialogues_per_arm` of each arm are shown, unchosen.
    tokens_to_pieces: token ids -> pieces, for the marking of trained tokens.
    row_of: dialogue -> token row, if the trained tokens are not those of `token_row`'s defaults.
  """
  rows = [{**row, "stage": stage} for stage, stage_rows in metrics_by_stage.items() for row in stage_rows]
  cards = [
      dialogue_card(arm, d, tokens_to_pieces, row=row_of(d) if row_of else None, open_=i == 0)
      for arm, dialogues in dialogues_by_arm.items()
      for i, d in enumerate(dialogues[:dialogues_per_arm])
  ]
  shown = [d for dialogues in dialogues_by_arm.values() for d in dialogues[:dialogues_per_arm]]
  nll = nll_figure(summary)
  body = [
      f"<h1>{escape(title)}</h1>",
      f'<p class="sub">{escape(_subtitle(summary))}</p>',
      "<h2>What this shows</h2>",
      f'<ol class="lede">{"".join(f"<li>{escape(s)}</li>" for s in sentences(summary))}</ol>',
      _figure(
          inline_svg(success_figure(summary), "success by student turn"),
          "Solid: tasks solved at or before a student turn, with 95% intervals over tasks. Dashed, same colour: what "
          "the same student reaches by as many independent tries without a teacher. A student that uses feedback "
          "rises above its dashed line.",
      ),
      "<h2>Claims</h2>" if summary.get("claims") else "",
      claims_table(summary),
      _notes(summary),
      "<h2>Every arm, every suite</h2>",
      success_table(summary),
      _folded("How the students behave: questions, repeats, answer NLL, ends", behaviour_table(summary)),
      _folded("Every paired difference", paired_table(summary)),
      *(_folded(title, table) for title, table in (
          ("What SFT was trained on", training_table(summary)), ("What servers were asked for", api_table(summary)),
      ) if table),
      *(["<h2>Lost in Conversation</h2>", table] if (table := lic_table(summary)) else []),
  ]  # fmt: skip
  if nll is not None:
    body += [
        "<h2>Does the answer become more likely?</h2>",
        _figure(inline_svg(nll, "answer NLL by teacher turn"),
                "Nats of the right answer after each teacher turn; lower is better. Dotted: dialogues never solved."),
    ]  # fmt: skip
  if rows:
    body += [
        "<h2>Learning curves</h2>",
        _figure(inline_svg(learning_figure(rows), "learning curves"), "Faint: each step. Bold: running mean."),
    ]
  if cards:
    body += [
        "<h2>Dialogues to read</h2>",
        '<p class="why">The first of each arm’s evaluation, not chosen. <mark>Marked</mark> tokens are those that '
        "training gives a loss weight.</p>",
        _filters(dialogues_by_arm, shown),
        *cards,
    ]
  body += [
      "<h2>How the numbers are defined</h2>",
      "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in DEFINITIONS) + "</dl>",
      *(f'<p class="why">{escape(line)}</p>' for line in summary.get("power", [])),
      "<h2>Config</h2>",
      _folded("as resolved", f"<pre>{escape(_config(summary))}</pre>"),
  ]
  start = "mt_rl" if "mt_rl" in dialogues_by_arm else ""
  page = (
      '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
      "script-src 'unsafe-inline'\">"
      f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>{''.join(body)}</main>"
  )
  if cards:
    page += f"<script>{JS.replace('START', json.dumps(start))}</script>"
  epath.Path(path).write_bytes((page + "</body></html>\n").encode())


def _subtitle(summary: Summary) -> str:
  sizes = sorted({e["n_tasks"] for arm in summary["arms"].values() for e in arm["eval"].values()})
  minutes = sum(summary["seconds"].values()) / 60
  tasks = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}" if sizes else "no"
  seed = summary["config"].get("seed")
  return (
      f"{len(summary['arms'])} arms, {tasks} held-out tasks a suite"
      + (f", {minutes:.1f} minutes in all" if minutes else "")
      + (f", seed {seed}" if seed is not None else "")
      + ". Intervals are 95%, over tasks; differences are paired."
  )


def _notes(summary: Summary) -> str:
  found = summary.get("notes", [])
  return f'<ul class="notes">{"".join(f"<li>{escape(n)}</li>" for n in found)}</ul>' if found else ""


def _filters(dialogues_by_arm: Mapping[str, Sequence[Dialogue]], shown: Sequence[Dialogue]) -> str:
  def group(key: str, names: list[str]) -> str:
    buttons = "".join(
        f'<button data-key="{key}" data-value="{escape(n)}" aria-pressed="false">{escape(n or "all")}</button>'
        for n in ["", *names]
    )
    return f"<div><span>{key}</span>{buttons}</div>"

  domains = sorted({d.domain for d in shown})
  return (
      '<div class="filters">' + group("arm", list(dialogues_by_arm)) + group("outcome", ["solved", "failed", "invalid"])
      + (group("domain", domains) if len(domains) > 1 else "") + '<span id="count"></span></div>'
  )  # fmt: skip


def _folded(title: str, html: str) -> str:
  return f'<details class="fold"><summary>{escape(title)}</summary>{html}</details>'


def _figure(svg: str, caption: str) -> str:
  return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _config(summary: Summary) -> str:
  return json.dumps(summary["config"], indent=2, default=str)
