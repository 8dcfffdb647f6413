"""results.json as the table of the README."""

from __future__ import annotations

import json
import pathlib
from typing import Any

HERE = pathlib.Path(__file__).parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- bench -->\n", "<!-- /bench -->\n"


def text(results: dict[str, Any]) -> str:
  """Markdown: machine and versions, and a line a row; the numbers of both sides with the least and the most of them."""
  versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
  lines = [
      f"Measured on {results['machine']}; {versions}. Ours and theirs took turns in one run: medians, and in brackets "
      "the least and the most.", "",
      "| work | size | against | ours | theirs | unit | ratio | aim |", "|---|---|---|---|---|---|---|---|",
  ]  # fmt: skip
  for r in results["rows"]:
    aim = "" if r["aim"] is None else f"{r['aim']:g}x"
    if r["ratio"] is None:
      cells = ["not measured", "", r["unit"], "", aim]
    else:
      cells = [_number(r, "ours"), _number(r, "theirs"), r["unit"], f"{r['ratio']:.2f}x", aim]
    size = r["size"] + ("" if r["dtype"] == "float32" else f", {r['dtype']}")
    if "device" in r:
      size += f", on {r['device']}"
    lines.append("| " + " | ".join([r["work"], size, r["against"], *cells]) + " |")
  return "\n".join(lines) + "\n"


def _number(row: dict[str, Any], side: str) -> str:
  shown = f"{row[side]:,.4g}" if row[side] < 1000 else f"{row[side]:,.0f}"
  low, high = row["spread"].get(side, (row[side],) * 2)
  return shown if low == high else f"{shown} [{low:,.4g}, {high:,.4g}]"


def update_readme() -> None:
  before, rest = README.read_text().split(BEGIN)
  after = rest.split(END)[1]
  README.write_text(before + BEGIN + text(json.loads((HERE / "results.json").read_text())) + END + after)


if __name__ == "__main__":
  update_readme()
