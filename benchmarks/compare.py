"""Measures what results.json holds: ours and others alternate in one run; medians, with the least and the most.

python benchmarks/compare.py --peers=FOLDER [--only=TEXT] [--repeats=N]; `make bench` makes the folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from typing import Any

import table

from sml_jax.allocator import GLIBC_TUNABLES

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results.json"


@dataclasses.dataclass(frozen=True)
class Row:
  """A line of the table.

  Attributes:
    work, against, size, unit: as shown.
    aim: how many times better ours should be; None = the value itself has an aim, `at_most`.
    ours, theirs: (module, what to prepare); None = nobody is compared with.
    rate: work per second; else the value that the case returns, of which less is better.
  """

  work: str
  against: str
  size: str
  unit: str
  aim: float | None
  ours: tuple[str, dict[str, Any]]
  theirs: tuple[str, dict[str, Any]] | None
  rate: bool = True
  at_most: float | None = None


def ours(case: str, **how: Any) -> tuple[str, dict[str, Any]]:
  return "ours", {"prepare": case, **how}


def theirs(peer: str, case: str, **how: Any) -> tuple[str, dict[str, Any]]:
  return f"peer_{peer}", {"prepare": case, **how}


HF, TUNIX, TRL = "transformers, torch", "google-tunix", "TRL"
LLAMA = {"size": "4.2m", "batch": 8, "prompt": 64, "new": 64}
STEP = {"size": "4.2m", "prompts": 2, "group": 4, "prompt": 64, "new": 64}
AGAIN, OWN = "our engine, all read again each turn", "the same engine"
ROWS = [
    *(Row("training step", HF, f"{size}, {shape} tokens", "tokens/s", aim, ours("train", size=size),
          theirs("transformers", "train", size=size)) for size, shape, aim in
      (("10m", "8 x 256", 1.2), ("100m", "2 x 256", 1.6))),
    *(Row("greedy decoding", HF, f"{size}, batch {b}, 32 + 128 tokens", "tokens/s", aim,
          ours("decode", size=size, batch=b), theirs("transformers", "decode", size=size, batch=b))
      for size, b, aim in (("10m", 1, 3.0), ("100m", 1, 2.4), ("10m", 32, 2.0), ("100m", 32, 2.0))),
    Row("greedy decoding", f"{TUNIX} Sampler", "4.2m, batch 8, 64 + 64 tokens", "tokens/s", 1.5,
        ours("decode", **LLAMA), theirs("tunix", "decode", **LLAMA)),
    Row("GRPO step", f"{TUNIX} GRPOLearner", "4.2m, 2 prompts x 4, 64 + 64 tokens", "steps/s", 2.0,
        ours("grpo", **STEP), theirs("tunix", "grpo", **STEP)),
    Row("GRPO step", f"{TRL} GRPOTrainer, torch", "4.2m, 2 prompts x 4, 64 + 64 tokens", "steps/s", 2.0,
        ours("grpo", **STEP), theirs("trl", "grpo", **STEP)),
    *(Row("dialogues", AGAIN, f"10m, {turns} turns of 30/40/15 tokens, 32 at a time", "dialogues/s", aim,
          ours("dialogues", size="10m", turns=turns), ours("dialogues", size="10m", turns=turns, again=True))
      for turns, aim in ((4, 2.0), (10, 4.0))),
    *(Row("tokens read for a dialogue", AGAIN, f"{turns} turns of 300/400/150 tokens", "tokens", aim,
          ours("prefilled", turns=turns), ours("prefilled", turns=turns, again=True), rate=False)
      for turns, aim in ((4, 6.0), (10, 16.8))),
    Row("dialogues", f"{TUNIX} agentic GRPOLearner, rollouts",
        "4.2m, 4 turns of 30/40/15 tokens", "dialogues/s", 10.0, ours("dialogues", size="4.2m", turns=4),
        theirs("tunix", "dialogues", size="4.2m", turns=4)),
    *(Row("cost of a dialogue against its turns", "a straight line", f"{size}, 2, 4, 8 and 16 turns, {rows} at a time",
          "% off at most", None, ours("by_turns", size=size, rows=rows), None, rate=False, at_most=15.0)
      for size, rows in (("10m", 32), ("100m", 8))),
    Row("training step", "the same with a row for each dialogue", "quickstart model and dialogues", "tokens/s", 1.8,
        ours("packing", packed=True), ours("packing", packed=False)),
    Row("memory of the gradient of an RL step", "the same with all logits", "V = 262,144, 4,096 tokens", "MiB", 4.0,
        ours("memory", chunk=8_192), ours("memory", chunk=0), rate=False),
]
NOT_MEASURED = [  # here, but by accelerator.py
    {"work": work, "against": against, "dtype": "bfloat16", "size": f"Qwen3-0.6B shape, {size}", "ours": None,
     "theirs": None, "unit": unit, "ratio": None, "aim": aim, "spread": None}
    for work, against, size, unit, aim in (
        ("SFT on one GPU", "peak", "8k tokens", "MFU", 0.35),
        ("RL on one GPU", "peak", "16k tokens", "MFU", 0.35),
        ("decoding on one GPU", "memory bandwidth bound", "batch 64", "share", 0.6),
        ("both roles in one batch on one GPU", "two engines", "LoRA", "dialogues/s", None),
    )
]  # fmt: skip


class Worker:
  """See worker.py."""

  def __init__(self, module: str, python: str):
    # The allocator of sml_jax.main is for all.
    env = os.environ | {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1", "GLIBC_TUNABLES": GLIBC_TUNABLES}
    command = [python, str(HERE / "worker.py"), module]
    self._process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env,
        cwd=HERE.parent,
    )  # fmt: skip

  def ask(self, **what: Any) -> dict[str, Any]:
    print(json.dumps(what), file=self._process.stdin, flush=True)
    answer = json.loads(self._process.stdout.readline() or '{"error": "it died"}')
    if "error" in answer:
      raise RuntimeError(answer["error"])
    return answer

  def close(self) -> None:
    self._process.kill()


def measure(row: Row, python_of: dict[str, str], repeats: int) -> dict[str, Any]:
  """The row of results.json. Both sides are prepared, each in a process of its own, before they take turns."""
  sides = [Worker(side[0], python_of[side[0]]) for side in (row.ours, row.theirs) if side]
  try:
    units = [w.ask(**side[1])["units"] for w, side in zip(sides, (row.ours, row.theirs), strict=False)]
    found: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
      for w, n, values in zip(sides, units, found, strict=True):
        out = w.ask(run=1)
        values.append(n / out["seconds"] if row.rate else out["value"])
  finally:
    for w in sides:
      w.close()
  median = [statistics.median(values) for values in found]
  better = (lambda a, b: a / b) if row.rate else (lambda a, b: b / a)
  digits = lambda n: float(f"{n:.4g}")
  spread = [[digits(min(v)), digits(max(v))] for v in found]
  return {
      "work": row.work, "against": row.against, "dtype": "float32", "size": row.size, "ours": digits(median[0]),
      "theirs": digits(median[1]) if row.theirs else row.at_most, "unit": row.unit,
      "ratio": round(better(*median), 2) if row.theirs else round(row.at_most / median[0], 2),
      "aim": row.aim or 1.0, "spread": dict(zip(("ours", "theirs"), spread, strict=False)),
  }  # fmt: skip


def key_of(row: dict[str, Any]) -> tuple[str, str, str]:
  return row["work"], row["against"], row["size"]


def machine() -> str:
  names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
  return f"{len(os.sched_getaffinity(0))} cores of {names[0] if names else platform.processor()}, {platform.system()}"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--peers", type=pathlib.Path, required=True, help="folder with the peers' environments")
  parser.add_argument("--only", default="", help="measure the rows with this text in them; the others stay as they are")
  parser.add_argument("--repeats", type=int, default=5)
  flags = parser.parse_args()
  environment_of = {"transformers": "transformers", "trl": "transformers", "tunix": "tunix"}
  python_of = {f"peer_{peer}": str(flags.peers / name / "bin" / "python") for peer, name in environment_of.items()}
  python_of["ours"] = sys.executable
  kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
  known = {key_of(r): r for r in kept["rows"]}
  chosen = [r for r in ROWS if flags.only in f"{r.work} {r.against} {r.size}"]
  versions: dict[str, str] = {"python": platform.python_version()}
  for module, python in python_of.items():
    worker = Worker(module, python)
    versions |= worker.ask(versions=1)
    worker.close()
  since = time.monotonic()
  for i, row in enumerate(chosen):
    try:
      found = measure(row, python_of, flags.repeats)
      known[key_of(found)] = found
      save(known, versions)
      says = f"{found['ours']:,} against {found['theirs']:,} {row.unit}: {found['ratio']}x"
    except RuntimeError as e:
      says = f"not measured: {e}"
    left = (time.monotonic() - since) / (i + 1) * (len(chosen) - i - 1)
    print(f"[{i + 1}/{len(chosen)}, {left / 60:.0f} min left] {row.work}, {row.size}: {says}", flush=True)
  print(table.text(json.loads(RESULTS.read_text())))


def save(known: dict[tuple[str, str, str], dict[str, Any]], versions: dict[str, str]) -> None:
  """Every row as soon as it is there."""
  rows = [known[key] for r in ROWS if (key := (r.work, r.against, r.size)) in known]
  rows += [known.get(key_of(row), row) for row in NOT_MEASURED]
  RESULTS.write_text(json.dumps({"machine": machine(), "versions": versions, "rows": rows}, indent=1) + "\n")
  table.update_readme()


if __name__ == "__main__":
  main()
