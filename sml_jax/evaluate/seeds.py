"""The claims of several runs side by side, as Markdown: python -m sml_jax.evaluate.seeds results/quickstart/*.json"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from etils import epath

from sml_jax.errors import UserError
from sml_jax.workdir import read_json

Summary = Mapping[str, Any]


def claims_by_seed(summaries: list[Summary]) -> str:
  """A row a claim, a column a run: the difference with its 95% interval over tasks, and whether the demand was met."""
  seeds = [s["config"]["seed"] for s in summaries]
  lines = ["| | B - A | suite, turn | demanded |" + "".join(f" seed {s} |" for s in seeds)]
  lines.append("|---|---|---|---|" + "---|" * len(seeds))
  for row in zip(*(s["claims"] for s in summaries), strict=True):
    c = row[0]
    demanded = "" if c["demanded"] is None else f"{c['demanded']:+.2f}"
    cells = [f" {r['measured']:+.3f} ({r['ci95'][0]:+.3f} to {r['ci95'][1]:+.3f}){_mark(r['met'])} |" for r in row]
    lines.append(f"| {c['claim']} | {c['pair']} | {c['suite']}, {c['turn']} | {demanded} |" + "".join(cells))
  return "\n".join(lines)


def success_by_seed(summaries: list[Summary], turns: tuple[int, ...] = (1, 4, 10)) -> str:
  """A row a suite and arm: the range over runs of success at some turns, and of pass@4 of independent tries."""
  lines = ["| suite | arm |" + "".join(f" turn {t} |" for t in turns) + " 4 tries |"]
  lines.append("|---|---|" + "---|" * (len(turns) + 1))
  arms = summaries[0]["arms"]
  for suite in dict.fromkeys(name for arm in arms.values() for name in arm["eval"]):
    for arm in arms:
      entries = [s["arms"][arm]["eval"][suite] for s in summaries]
      cells = [_range([e["success_by_turn"][t - 1] for e in entries]) for t in turns]
      cells.append(_range([e["resampling"][3] for e in entries]) if entries[0]["resampling"] else "")
      lines.append(f"| {suite} | {arm} |" + "".join(f" {c} |" for c in cells))
  return "\n".join(lines)


def _mark(met: bool | None) -> str:
  return "" if met is None else " ✓" if met else " ✗"


def _range(values: list[float]) -> str:
  lo, hi = min(values), max(values)
  return f"{lo:.3f}" if lo == hi else f"{lo:.3f} to {hi:.3f}"


def main(files: list[str]) -> int:
  try:
    if not files:
      raise UserError("usage: python -m sml_jax.evaluate.seeds SUMMARY.json ...")
    summaries = [read_json(epath.Path(f)) for f in files]
  except UserError as e:
    print(f"error: {e}", file=sys.stderr)
    return 1
  print(claims_by_seed(summaries), success_by_seed(summaries), sep="\n\n")
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
