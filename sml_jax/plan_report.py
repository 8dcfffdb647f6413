"""What a plan prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jax.sharding import Mesh
from rich import box
from rich.console import Console
from rich.table import Table

from sml_jax.learn.flops import dialogue_flops, train_flops
from sml_jax.models import lora
from sml_jax.models.transformer import parameter_count
from sml_jax.plan_memory import PARTS, Moment, Suggestion, device_bytes, suggest, together
from sml_jax.tpu_slice import Slice

if TYPE_CHECKING:
  from sml_jax.plan import Program, Training, Work

FITS, TOO_LARGE = 0, 2
MFU = 0.4
"""Share of the peak at which the time of a step is stated."""


def heading(place: Slice, mesh: Mesh, work: Work) -> str:
  """What is planned, before anything is compiled."""
  c, d, b = work.model.config, work.config.dialogue, work.budget
  sizes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
  devices = f"devices {len(place.devices)} ({len(place.devices) // place.chips} a chip)"
  base, own = lora.split(work.model.shapes)
  adapter = f", an adapter of {parameter_count(own):,} is trained" if c.lora else ""
  lines = [
      f"{place.name}: chips {place.chips}, {devices} with {gib(place.chip.hbm)} GiB each for programs; mesh {sizes}",
      f"{work.config.model.name or 'model'}: {parameter_count(base):,} parameters in "
      f"{np.dtype(c.param_dtype)}, activations and caches in {np.dtype(c.dtype)}{adapter}",
      f"a dialogue: at most {b.length(work.turns):,} tokens in {work.turns} turns: a problem of {b.problem:,}, student "
      f"turns of {b.turn:,}, replies of {b.reply:,}; {d.teacher} teacher",
  ]
  if work.samples:
    lines.append(f"sampling: {work.engine.rows} rows of {work.engine.slots:,} slots")
  for t in work.training:
    lines.append(f"{t.name}: micro-batches of {t.rows} rows of {t.length:,} tokens, at most {t.micro_batches} a step")
    if t.stage.kind == "rl" and max(t.lengths) > t.length:
      lines.append(f"  warning: its dialogues may take {max(t.lengths):,} tokens, more than stages.{t.name}.row_length")
  return "\n".join(lines)


def show(
    console: Console, place: Slice, mesh: Mesh, work: Work, programs: dict[str, Program], moments: list[Moment]
) -> int:
  """Prints the tables; returns the exit code."""
  hbm = place.chip.hbm
  _print(memory_table(moments, hbm))
  if any(p.collectives for p in programs.values()):
    _print(collectives_table(programs))
  for t in work.training:
    console.print(training_line(t, place))
  if work.samples:
    console.print(rollout_lines(work, place))
  worst = max(moments, key=lambda m: m.peak)
  over = [m for m in moments if m.peak > hbm]
  if not over:
    console.print(f"fits: {worst.name} takes the most, {gib(worst.peak)} of {gib(hbm)} GiB a device")
    return FITS
  for m in over:
    console.print(f"does not fit: {m.name} takes {gib(m.peak)} GiB a device, {gib(m.peak - hbm)} more than {gib(hbm)}")
  found = suggest(
      moments, hbm, work.model.config, mesh=dict(mesh.shape), slices=place.slices,
      engine_rows=work.config.engine_rows, head_chunk=work.config.model.head_chunk,
  )  # fmt: skip
  if found:
    _print(help_table(found, moments, hbm))
  else:
    console.print("no single key helps: take a larger slice")
  return TOO_LARGE


def memory_table(moments: Sequence[Moment], hbm: float) -> Table:
  """GiB on a device: a row for each part, a column for each moment."""
  table = _table("memory, GiB a device", "", *(m.name for m in moments))
  for part in PARTS:
    if any(m.parts.get(part) for m in moments):
      table.add_row(part, *(gib(m.parts[part]) if m.parts.get(part) else "" for m in moments))
  table.add_section()
  table.add_row("peak", *(gib(m.peak) for m in moments))
  table.add_row("of the device", *(f"{m.peak / hbm:.0%}" for m in moments))
  return table


def collectives_table(programs: dict[str, Program]) -> Table:
  table = _table("collectives in a step's text; one in a loop over layers or tokens counts once", "", *programs)
  for kind in sorted({k for p in programs.values() for k in p.collectives}):
    table.add_row(kind, *(str(p.collectives[kind]) if p.shardings is not None else "?" for p in programs.values()))
  return table


def training_line(t: Training, place: Slice) -> str:
  updates = t.stage.get("inner_updates", 1)
  total = updates * train_flops(t.work.model.config, t.lengths)
  seconds = total / (MFU * place.peak_flops)
  of = "rows" if t.stage.kind == "sft" else "dialogues"
  return (
      f"{t.name}: at most {total:.3g} FLOP a step (forward and backward of {len(t.lengths):,} {of} of "
      f"{max(t.lengths):,} tokens; a token attends to those before it alone, in sliding windows to those within; remat "
      f"not counted): {seconds:.3g} s at {MFU:.0%} MFU"
  )


def rollout_lines(work: Work, place: Slice) -> str:
  """FLOPs, and what reading the memory alone takes: decoding is bound by it."""
  weights, caches = device_bytes(work.decode), device_bytes(work.rows)
  alone, full = (n / place.chip.bandwidth for n in (weights, weights + caches))
  speed = f"{place.chip.bandwidth / 1e9:.0f} GB/s"
  lines = [
      f"sampling: a token of all {work.engine.rows} rows takes at least {alone * 1e3:.3g} ms, to read {gib(weights)} "
      f"GiB of weights a device at {speed}, and {full * 1e3:.3g} ms with {gib(caches)} GiB of full caches"
  ]
  for name, stage in work.config.stages.items():
    if stage.kind == "rl" and any(t.name == name for t in work.training):
      n, most = stage.tasks_per_step * stage.group_size, work.budget.length(stage.turns)
      steps = -(-n // work.config.engine_rows) * stage.turns * work.budget.turn
      total = dialogue_flops(work.model.config, [most] * n)
      lines.append(f"{name}: a rollout is at most {total:.3g} FLOP ({n:,} dialogues of {most:,} tokens), at least "
                   f"{steps * alone:.3g} s where every turn takes all its tokens")
  return "\n".join(lines)


def help_table(found: Sequence[Suggestion], moments: Sequence[Moment], hbm: float) -> Table:
  """Suggestions, the best first: what each would make of the moments that do not fit; and what they make together."""
  over = [i for i, m in enumerate(moments) if m.peak > hbm]
  table = _table("what would help, each alone, by estimate; GiB a device", "", *(moments[i].name for i in over))
  for s in found:
    table.add_row(s.keys, *(gib(s.change(moments[i]).peak) for i in over))
  n, after = together(found, moments, hbm)
  if n > 1:
    table.add_section()
    table.add_row(f"the first {n} together", *(gib(after[i].peak) for i in over))
  return table


def gib(n: float) -> str:
  """Bytes in GiB, with two digits at least."""
  n /= 2**30
  return f"{n:.2g}" if 0 < n < 0.1 else f"{n:.2f}"


def _table(title: str, *columns: str) -> Table:
  table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
  for i, name in enumerate(columns):
    table.add_column(name, justify="right" if i else "left", no_wrap=True)
  return table


def _print(table: Table) -> None:
  # As wide as it is, whatever the terminal: a number that is cut says nothing.
  width = max(len(table.title), Console(width=1000).measure(table).maximum)
  Console(highlight=False, width=width).print(table)
