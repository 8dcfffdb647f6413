"""What a person sees in the terminal: a live line a stage, one dialogue to read, and the table at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from sml_jax.data.rows import TokenRow
from sml_jax.dialogue.record import Dialogue
from sml_jax.evaluate.cards import Pieces, runs, turn_weights, words


class Progress:
  """The live display of one run; without a terminal one plain line every few seconds.

  >>> with Progress() as progress:
  ...   progress.stage("mt_rl", total=200)
  ...   progress.update(1, success=0.31, loss=0.2, tokens_per_second=9100.0, mfu=None)

  Args:
    console: where to draw; by default standard output.
    every_seconds: without a terminal, seconds between two lines; the last step of a stage is always shown.
    enabled: False on all processes but the first.
  """

  def __init__(self, console: Console | None = None, every_seconds: float = 10.0, enabled: bool = True):
    self.console = console or Console(highlight=False, soft_wrap=True)
    self.every_seconds = every_seconds
    self.enabled = enabled
    self._live: RichProgress | None = None
    self._stage, self._total = "", 0
    self._first: tuple[int, float] | None = None  # (step, time) of the first update: compiling is over
    self._last_line = -float("inf")

  def __enter__(self) -> Progress:
    if self.enabled and self.console.is_terminal:
      self._live = RichProgress(
          TextColumn("[bold]{task.description}"),
          BarColumn(bar_width=24),
          MofNCompleteColumn(),
          TaskProgressColumn(),
          TextColumn("{task.fields[line]}"),
          console=self.console,
          auto_refresh=False,  # drawn by `update` alone: no thread beside the training loop
      )
      self._live.start()
    return self

  def __exit__(self, *exc) -> None:
    if self._live is not None:
      self._live.stop()
      self._live = None

  def stage(self, name: str, total: int, start: int = 0) -> None:
    """Begins a stage of `total` steps, of which `start` were done before (a resumed run)."""
    self._stage, self._total, self._first, self._last_line = name, total, None, -float("inf")
    if self._live is not None:
      self._task = self._live.add_task(name, total=total, completed=start, line="compiling")
      self._live.refresh()
    else:
      self.log(f"{name}: {total} steps" + (f", going on after step {start}" if start else ""))

  def update(
      self,
      step: int,
      *,
      success: float | None = None,
      leaks: float | None = None,
      loss: float | None = None,
      tokens_per_second: float | None = None,
      mfu: float | None = None,
      note: str = "",
  ) -> None:
    """Shows step `step` (from 1). `mfu` is a share of peak FLOP/s, None where the peak is unknown."""
    if not self.enabled:
      return
    now = time.monotonic()
    self._first = self._first or (step, now)
    line = status_line(success, loss, tokens_per_second, mfu, self._seconds_left(step, now), note, leaks)
    if self._live is not None:
      self._live.update(self._task, completed=step, line=line)
      self._live.refresh()
    elif step >= self._total or now - self._last_line >= self.every_seconds:
      self._last_line = now
      self.log(f"{self._stage}  {step}/{self._total}  {line}")

  def log(self, text: str) -> None:
    """A line above the live display."""
    if self.enabled:
      self.console.print(Text(text))

  def _seconds_left(self, step: int, now: float) -> float | None:
    first, began = self._first
    return None if step == first else (self._total - step) * (now - began) / (step - first)


def status_line(
    success: float | None,
    loss: float | None,
    tokens_per_second: float | None,
    mfu: float | None,
    seconds_left: float | None,
    note: str = "",
    leaks: float | None = None,
) -> str:
  """One line of numbers; what is None is left out, and a leak rate of 0."""
  parts = []
  if success is not None:
    parts.append(f"success {success:.1%}")
  if leaks:
    parts.append(f"leaks {leaks:.1%}")
  if loss is not None:
    parts.append(f"loss {loss:.3f}")
  if tokens_per_second is not None:
    rate = f"{tokens_per_second:.0f}" if tokens_per_second < 1000 else f"{tokens_per_second / 1000:.1f}k"
    parts.append(f"{rate} tok/s")
  if mfu is not None:
    parts.append(f"MFU {mfu:.1%}")
  if seconds_left is not None:
    minutes, seconds = divmod(round(seconds_left), 60)
    clock = f"{minutes}:{seconds:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
    parts.append(f"{clock} left")
  if note:
    parts.append(note)
  return "  ".join(parts)


def show_dialogue(dialogue: Dialogue, row: TokenRow, tokens_to_pieces: Pieces, console: Console | None = None) -> None:
  """Prints one dialogue with the trained tokens (weight > 0) coloured; «so» where there is no colour.

  Args:
    row: the dialogue's whole token row: what the trainer really eats is what is shown.
  """
  console = console or Console(highlight=False, soft_wrap=True)
  coloured = console.color_system is not None
  trained_count = int(np.sum(row["weights"] > 0))
  console.print(Text(
      f"task {dialogue.task_id} ({dialogue.domain}), teacher: {words(dialogue.feedback)}, ended: "
      f"{words(dialogue.end or 'not over')}; {trained_count} of {len(row['tokens'])} tokens are trained",
      style="dim",
  ))  # fmt: skip
  for turn, weights in zip(dialogue.turns, turn_weights(dialogue, row), strict=True):
    line = Text(f"{turn.role:>8}  ", style="bold" if turn.role == "student" else "cyan")
    for text, trained, special in runs(tokens_to_pieces(turn.tokens), weights):
      if trained:
        line.append(text if coloured else f"«{text}»", style="black on yellow" if not special else "yellow")
      else:
        line.append(text, style="not bold dim" if special else "not bold default")
    if turn.verdict:
      line.append(f"  [{words(turn.verdict)}]", style="green" if turn.verdict == "solved" else "dim")
    console.print(line)


def final_table(summary: Mapping[str, Any], console: Console | None = None) -> Table:
  """Prints success at turns 1, 4 and 10 with intervals, by suite and arm, then the claims; returns the first table."""
  console = console or Console(highlight=False)
  table = Table(title="tasks solved by student turn (95% interval over tasks)", title_justify="left")
  for name in ("suite", "arm"):
    table.add_column(name)
  for name in ("turn 1", "turn 4", "turn 10", "4 tries", "repeats"):
    table.add_column(name, justify="right")
  suites = dict.fromkeys(s for arm in summary["arms"].values() for s in arm["eval"])
  for suite in suites:
    for i, (arm, entry) in enumerate((a, e) for a, e in summary["arms"].items() if suite in e["eval"]):
      e = entry["eval"][suite]
      cells = [_cell(e["success_by_turn"], e["ci95"], t) for t in (1, 4, 10)]
      tries = _cell(e["resampling"], None, 4) if e["resampling"] else "–"
      repeats = f"{e['repeat_rate']:.0%}"
      table.add_row(suite if i == 0 else "", arm, *cells, tries, repeats)
    table.add_section()
  console.print(table)
  claims = Table(title="claims", title_justify="left")
  for name in ("", "B - A", "suite", "turn"):
    claims.add_column(name)
  for name in ("demanded", "measured", ""):
    claims.add_column(name, justify="right")
  for c in summary.get("claims", []):
    lo, hi = ("?" if x is None else f"{x:+.3f}" for x in c["ci95"])
    verdict = {True: "[green]met[/]", False: "[red]not met[/]", None: ""}[c["met"]]
    demanded = "" if c["demanded"] is None else f"{c['demanded']:+.2f}"
    claims.add_row(
        c["claim"], c["pair"], c["suite"], str(c["turn"]), demanded, f"{c['measured']:+.3f} ({lo} to {hi})", verdict
    )
  if claims.row_count:
    console.print(claims)
  return table


def _cell(values: list, ci95: list | None, turn: int) -> str:
  if turn > len(values) or values[turn - 1] is None:
    return "–"
  if ci95 is None:
    return f"{values[turn - 1]:.1%}"
  lo, hi = ci95[turn - 1]
  return f"{values[turn - 1]:.1%} ({100 * lo:.0f}–{100 * hi:.0f})"
