"""The README's table of speed is that of benchmarks/results.json."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
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
    assert [key for key in r if key != "device"] == KEYS
    if r["ratio"] is None:
      assert r["ours"] is r["theirs"] is r["spread"] is None
      continue
    rate = r["unit"].endswith("/s")
    ratio = r["ours"] / r["theirs"] if rate else r["theirs"] / r["ours"]
    assert abs(r["ratio"] / ratio - 1) < 0.02, r
    low, high = r["spread"]["ours"]
    assert low <= r["ours"] <= high


def test_what_is_measured_on_an_accelerator_can_be_rehearsed_here():
  before = (ROOT / "benchmarks/results.json").read_bytes()
  command = [sys.executable, "benchmarks/accelerator.py", "--shape=tiny", "--repeats=1"]
  env = os.environ | {"JAX_PLATFORMS": "cpu"}
  done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
  rows = [json.loads(line) for line in done.stdout.splitlines()]
  assert [r["work"] for r in rows] == [r["work"] for r in RESULTS["rows"] if r["dtype"] == "bfloat16"]
  for r in rows:
    assert r["size"] == "tiny" and r["device"].startswith("cpu") and r["theirs"] > 0
    assert 0 < r["ours"] < (1 if r["theirs"] == 1 else float("inf"))
  assert (ROOT / "benchmarks/results.json").read_bytes() == before
