"""The README's table of speed is that of benchmarks/results.json."""

from __future__ import annotations

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import table  # noqa: E402

KEYS = ["work", "against", "dtype", "size", "ours", "theirs", "unit", "ratio", "aim", "spread"]
RESULTS = json.loads((ROOT / "benchmarks/results.json").read_text())


def test_the_readme_shows_what_was_measured():
  shown = (ROOT / "README.md").read_text().split(table.BEGIN)[1].split(table.END)[0]
  assert shown == table.text(RESULTS), "run `python benchmarks/table.py`"


def test_every_row_says_what_it_is_and_its_ratio_follows():
  assert set(RESULTS) == {"machine", "versions", "rows"} and len(RESULTS["rows"]) > 10
  for r in RESULTS["rows"]:
    assert list(r) == KEYS
    if r["ratio"] is None:
      assert r["ours"] is r["theirs"] is r["spread"] is None
      continue
    rate = r["unit"].endswith("/s")
    ratio = r["ours"] / r["theirs"] if rate else r["theirs"] / r["ours"]
    assert abs(r["ratio"] / ratio - 1) < 0.02, r
    low, high = r["spread"]["ours"]
    assert low <= r["ours"] <= high
