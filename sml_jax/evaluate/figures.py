"""Figures: success by turn with its controls, answer NLL, learning curves. Drawn without a display."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from etils import epath
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

INK, FAINT = "#1f2329", "#d9dde3"
DASHED = (0, (4, 2))

ARM_COLOURS = {  # Okabe and Ito's palette, which colour-blind readers can tell apart
    "base": "#7a7f87",
    "mt_sft": "#e69f00",
    "st_rl": "#0072b2",
    "mt_rl": "#d55e00",
    "st_sft": "#56b4e9",
    "q_sft": "#cc79a7",
    "q_mt_rl": "#009e73",
}
SPARE_COLOURS = ("#8c564b", "#6a51a3", "#b5a900", "#17a2b8", "#3d3d3d")

SUITE_TITLES = {
    "math": "maths",
    "code": "code",
    "math_sharded": "maths, underspecified",
    "code_sharded": "code, underspecified",
    "math_try_again": "maths, teacher only says try again",
}

LEARNING_PANELS = (
    ("success", "dialogues solved"),
    ("reward", "reward a dialogue"),
    ("loss", "loss, nats a token"),
    ("degenerate", "groups without a signal"),
    ("repeat_rate", "attempts repeated after a wrong one"),
    ("entropy", "entropy, nats a token"),
)
"""(metric, title): drawn if any row has the metric. The loss is drawn for supervised stages alone."""

STYLE = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "sml_jax",
    "figure.facecolor": "white",
}


def arm_colours(names: Iterable[str]) -> dict[str, str]:
  """The colour of each arm: the same arm has the same colour in every figure; unknown ones take the spare colours."""
  spare = [n for n in dict.fromkeys(names) if n not in ARM_COLOURS]
  return {**ARM_COLOURS, **{n: SPARE_COLOURS[i % len(SPARE_COLOURS)] for i, n in enumerate(spare)}}


def success_figure(summary: Mapping[str, Any], suites: Sequence[str] | None = None) -> Figure:
  """Success by student turn: a panel a suite, a line an arm with its 95% band, its resampling control dashed."""
  arms = summary["arms"]
  suites = list(suites or dict.fromkeys(s for arm in arms.values() for s in arm["eval"]))
  with matplotlib.rc_context(STYLE):
    colours = arm_colours(arms)
    fig, axes = _grid(len(suites), height=3.3)
    top = 0.0
    for ax, suite in zip(axes, suites, strict=True):
      for arm, entry in arms.items():
        if suite not in entry["eval"]:
          continue
        e, colour = entry["eval"][suite], colours[arm]
        curve = _floats(e["success_by_turn"])
        x = np.arange(1, len(curve) + 1)
        lo, hi = _floats([c[0] for c in e["ci95"]]), _floats([c[1] for c in e["ci95"]])
        ax.fill_between(x, lo, hi, color=colour, alpha=0.13, linewidth=0)
        ax.plot(x, curve, color=colour, marker="o", markersize=3.5)
        top = max(top, np.nanmax(hi, initial=0.0))
        if e["resampling"]:
          ax.plot(x, _floats(e["resampling"]), color=colour, linestyle=DASHED, linewidth=1.2)
          top = max(top, np.nanmax(_floats(e["resampling"]), initial=0.0))
        ax.set_xlim(0.7, len(curve) + 0.3)
        ax.set_xticks([t for t in (1, 2, 4, 6, 8, 10) if t <= len(curve)])
      ax.set_title(SUITE_TITLES.get(suite, suite))
      ax.set_xlabel("student turn")
    for i, ax in enumerate(axes):
      ax.set_ylim(0, min(1.02, top + 0.05))
      ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
      if i % _columns(len(suites)) == 0:
        ax.set_ylabel("tasks solved so far")
    handles = [Line2D([], [], color=colours[arm], marker="o", markersize=4, label=arm) for arm in arms]
    handles.append(
        Line2D(
            [], [], color=INK, linestyle=DASHED, linewidth=1.2, label="its independent tries without a teacher, pass@t"
        )
    )
    _legend(fig, handles)
  return fig


def nll_figure(summary: Mapping[str, Any], suites: Sequence[str] | None = None) -> Figure | None:
  """Answer NLL after each teacher turn: solid over open dialogues, dotted over the never solved. None if unmeasured."""
  arms = summary["arms"]
  measured = [
      s
      for s in dict.fromkeys(s for arm in arms.values() for s in arm["eval"])
      if any(v is not None for arm in arms.values() for v in arm["eval"].get(s, {}).get("answer_nll_by_turn", []))
  ]
  suites = [s for s in (suites or measured) if s in measured]
  if not suites:
    return None
  with matplotlib.rc_context(STYLE):
    colours = arm_colours(arms)
    fig, axes = _grid(len(suites), height=2.9)
    for ax, suite in zip(axes, suites, strict=True):
      for arm, entry in arms.items():
        for key, style in (("answer_nll_by_turn", "-"), ("answer_nll_unsolved_by_turn", ":")):
          curve = _floats(entry["eval"].get(suite, {}).get(key, []))
          ax.plot(np.arange(1, len(curve) + 1), curve, color=colours[arm], linestyle=style, linewidth=1.6)
      ax.set_title(SUITE_TITLES.get(suite, suite))
      ax.set_xlabel("teacher turn")
      ax.set_xticks((1, 2, 4, 6, 8, 10))
      ax.set_ylim(bottom=0)
    for ax in axes[:: _columns(len(suites))]:
      ax.set_ylabel("answer NLL, nats")
    handles = [Line2D([], [], color=colours[arm], label=arm) for arm in arms]
    handles.append(Line2D([], [], color=INK, linestyle="-", linewidth=1.6, label="dialogues still open"))
    handles.append(Line2D([], [], color=INK, linestyle=":", linewidth=1.6, label="never solved"))
    _legend(fig, handles)
  return fig


def learning_figure(
    metrics: Sequence[Mapping[str, Any]], panels: Sequence[tuple[str, str]] = LEARNING_PANELS
) -> Figure:
  """Learning curves from rows with "step", "stage" and numbers: a panel a metric, a line a stage, noise drawn faint."""
  stages = list(dict.fromkeys(row["stage"] for row in metrics))
  series: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
  for name, _ in panels:
    for stage in stages:
      rows = [r for r in metrics if r["stage"] == stage and isinstance(r.get(name), (int, float))]
      if name == "loss" and any("reward" in r for r in rows):
        continue  # the value of a policy-gradient loss says nothing about progress
      if rows:
        series[name, stage] = np.array([r["step"] for r in rows]), _floats([r[name] for r in rows])
  drawn = [(name, title) for name, title in panels if any(key[0] == name for key in series)]
  with matplotlib.rc_context(STYLE):
    colours = arm_colours(stages)
    fig, axes = _grid(max(1, len(drawn)), height=2.6)
    for ax, (name, title) in zip(axes, drawn, strict=False):
      for stage in stages:
        if (name, stage) in series:
          steps, values = series[name, stage]
          ax.plot(steps, values, color=colours[stage], linewidth=0.8, alpha=0.3)
          ax.plot(steps, _smooth(values), color=colours[stage], linewidth=1.8)
      ax.set_title(title)
      ax.set_xlabel("step")
      ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if not drawn:
      axes[0].set_axis_off()
      axes[0].text(0.5, 0.5, "no learning curves were recorded", ha="center", va="center")
    used = [s for s in stages if any(key[1] == s for key in series)]
    _legend(fig, [Line2D([], [], color=colours[s], label=s) for s in used])
  return fig


def save_png(fig: Figure, path, dpi: int = 150) -> None:
  """Writes a PNG (for the README; 10 inches wide, so 1500 pixels)."""
  buffer = io.BytesIO()
  fig.savefig(buffer, format="png", dpi=dpi)
  epath.Path(path).write_bytes(buffer.getvalue())


def inline_svg(fig: Figure, label: str) -> str:
  """The figure as an <svg> element that takes text and grid colours from the page, so that it reads in the dark too."""
  buffer = io.StringIO()
  with matplotlib.rc_context(STYLE):
    fig.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
  svg = buffer.getvalue()
  svg = svg[svg.index("<svg") :]
  svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
  for size in ("width", "height"):  # the page decides
    svg = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", svg, count=1)
  svg = svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
  return svg.replace(INK, "var(--ink)").replace(FAINT, "var(--grid)")


def _columns(n: int) -> int:
  return n if n <= 3 else 2 if n == 4 else 3


def _grid(n: int, height: float) -> tuple[Figure, list]:
  """n panels, 10 inches wide in all; `height` inches a row."""
  columns = _columns(n)
  rows = math.ceil(n / columns)
  fig = Figure(figsize=(10, height * rows + 0.45), layout="constrained")
  fig.get_layout_engine().set(hspace=0.08, h_pad=0.06)
  axes = [fig.add_subplot(rows, columns, i + 1) for i in range(n)]
  return fig, axes


def _legend(fig: Figure, handles: list[Line2D]) -> None:
  if handles:
    columns = min(len(handles), 6)
    fig.legend(handles=handles, loc="outside upper left", ncols=columns, handlelength=2.2, columnspacing=1.6)


def _floats(values: Sequence[float | None]) -> np.ndarray:
  return np.array([np.nan if v is None else v for v in values], np.float64)


def _smooth(values: np.ndarray) -> np.ndarray:
  """Running mean over a tenth of the curve, centred, narrower at its ends; values with NaN are left out."""
  half = len(values) // 20
  if half == 0:
    return values
  present = ~np.isnan(values)
  total = np.concatenate([[0.0], np.cumsum(np.where(present, values, 0.0))])
  count = np.concatenate([[0], np.cumsum(present)])
  i = np.arange(len(values))
  lo, hi = np.maximum(i - half, 0), np.minimum(i + half + 1, len(values))
  n = count[hi] - count[lo]
  return np.divide(total[hi] - total[lo], n, out=np.full(len(values), np.nan), where=n > 0)
