"""Measures on one accelerator, in bf16 and with random weights, what compare.py leaves as not measured in results.json.

python benchmarks/accelerator.py [--shape=tiny] [--repeats=N]; tiny is a rehearsal on any machine, of which nothing is
kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable

import compare
import jax
import jax.numpy as jnp
import numpy as np
import ours
import table

from sml_jax.data.packing import pack_all
from sml_jax.learn import flops
from sml_jax.models.lora import Lora, split
from sml_jax.models.transformer import Model, ModelConfig, parameter_count
from sml_jax.sampling.engine import Engine
from sml_jax.sampling.session import Session

QWEN3_0_6B = ModelConfig(
    151_936, d_model=1024, layers=28, heads=16, kv_heads=8, head_dim=128, mlp_dim=3072, rope_theta=1e6, qk_norm=True,
    dtype=jnp.bfloat16, scan_layers=True, remat="dots",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Shape:
  """What is run: the model, tokens of a row of SFT and of RL, rows of a step, turns and tokens that are decoded."""

  model: ModelConfig
  sft: int = 8192
  rl: int = 16_384
  rows: int = 2
  batch: int = 64
  prompt: int = 32
  new: int = 256
  head_chunk: int = 16_384


SHAPES = {
    "qwen3_0.6b": Shape(QWEN3_0_6B),
    "tiny": Shape(
        dataclasses.replace(
            QWEN3_0_6B, vocab_size=256, d_model=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_dim=64
        ),
        sft=64, rl=128, batch=4, prompt=8, new=16, head_chunk=128,
    ),
}  # fmt: skip

Sides = list[tuple[Callable[[], object], Callable[[float], float]]]
"""Ours, and theirs if there is one: what is run, and the number that is shown for the seconds it takes."""


def training(shape: Shape, tokens: int, kind: str) -> Sides:
  """MFU of steps of a few rows, each one dialogue of `tokens` tokens; gradients are accumulated row by row."""
  model = Model(shape.model)
  rows = ours.rows_of([tokens] * shape.rows, shape.model.vocab_size, advantages=0.5)
  batch, params = pack_all(rows, tokens), jax.jit(model.init)(jax.random.key(0))
  run = ours.updates(model, params, batch, kind, micro_batch_rows=1, head_chunk=shape.head_chunk)
  work, peak = flops.train_flops(shape.model, [tokens] * shape.rows), flops.peak_flops()
  return [(run, lambda seconds: work / seconds / peak)]


def decoding(shape: Shape) -> Sides:
  """The share of a greedy generation's time, prompt and all, in which weights and caches are read once a token."""
  c, model, rng = shape.model, Model(shape.model), np.random.default_rng(0)
  engine = Engine(model, rows=shape.batch, slots=shape.prompt + shape.new, max_turn=shape.new, stop_ids=(0,))
  params = engine.decode_params(jax.jit(model.init)(jax.random.key(0)))
  prompts = rng.integers(3, c.vocab_size, (shape.batch, shape.prompt)).tolist()
  run = lambda: ours.speak(Session(engine, params), {b: (p, 0) for b, p in enumerate(prompts)}, shape.new)
  length = shape.prompt + shape.new / 2
  caches = shape.batch * length * 2 * c.layers * c.kv_heads * c.head_dim
  size = jnp.dtype(c.dtype).itemsize
  bound = shape.new * size * (parameter_count(params) + caches) / bandwidth()
  return [(run, lambda seconds: bound / seconds)]


def bandwidth() -> float:
  """Bytes a second that a copy of 1 GiB reads and writes."""
  x = jnp.zeros(2**28, jnp.float32)
  copy = jax.jit(lambda x: x + 1)
  copy(x)
  return 2 * x.nbytes / min(seconds_of(lambda: copy(x)) for _ in range(5))


def both_roles(shape: Shape) -> Sides:
  """Turns of students, with adapters, and of as many teachers, without: in one batch, and one engine after another."""
  c, rng, half = shape.model, np.random.default_rng(0), shape.batch // 2
  model = Model(dataclasses.replace(c, lora=Lora(rank=16, alpha=32.0)))
  params = jax.jit(model.init)(jax.random.key(0))
  room = {"slots": shape.prompt + shape.new, "max_turn": shape.new, "stop_ids": (0,)}
  prompts = rng.integers(3, c.vocab_size, (2 * half, shape.prompt)).tolist()

  def session_of(model: Model, params, rows: int) -> Session:
    engine = Engine(model, rows=rows, **room)
    return Session(engine, engine.decode_params(params))

  together = session_of(model, params, 2 * half)
  apart = session_of(model, params, half), session_of(Model(c), split(params)[0], half)
  ask = lambda session, prompts, **how: ours.speak(session, dict(enumerate((p, 0) for p in prompts)), shape.new, **how)
  one = lambda: ask(together, prompts, adapted=lambda row: row < half)
  two = lambda: (ask(apart[0], prompts[:half]), ask(apart[1], prompts[half:]))
  rate = lambda seconds: half / seconds
  return [(one, rate), (two, rate)]


CASES: dict[str, Callable[[Shape], Sides]] = {
    "SFT on one GPU": lambda shape: training(shape, shape.sft, "sft"),
    "RL on one GPU": lambda shape: training(shape, shape.rl, "grpo"),
    "decoding on one GPU": decoding,
    "both roles in one batch on one GPU": both_roles,
}


def seconds_of(run: Callable[[], object]) -> float:
  since = time.perf_counter()
  jax.block_until_ready(run())
  return time.perf_counter() - since


def measure(row: dict, shape: Shape, repeats: int) -> dict:
  sides = CASES[row["work"]](shape)
  for run, _ in sides:
    run()
  found: list[list[float]] = [[] for _ in sides]
  for _ in range(repeats):
    for (run, shown), values in zip(sides, found, strict=True):
      values.append(shown(seconds_of(run)))
  digits = lambda n: float(f"{n:.4g}")
  mine, *other = [digits(statistics.median(v)) for v in found]
  bound = other[0] if other else 1.0
  spread = dict(zip(("ours", "theirs"), ([digits(min(v)), digits(max(v))] for v in found), strict=False))
  device = f"{jax.devices()[0].device_kind}, jax {jax.__version__}"
  return row | {"ours": mine, "theirs": bound, "ratio": round(mine / bound, 2), "spread": spread, "device": device}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--shape", choices=SHAPES, default="qwen3_0.6b")
  parser.add_argument("--repeats", type=int, default=5)
  flags = parser.parse_args()
  kept = flags.shape != "tiny"
  if kept and jax.devices()[0].platform == "cpu":
    parser.error("JAX finds no accelerator here; --shape=tiny is a rehearsal on the CPU")
  for row in compare.NOT_MEASURED:
    found = measure(row, SHAPES[flags.shape], flags.repeats)
    print(json.dumps(found if kept else found | {"size": flags.shape}), flush=True)
    if kept:
      results = json.loads(compare.RESULTS.read_text())
      results["rows"] = [found if compare.key_of(r) == compare.key_of(row) else r for r in results["rows"]]
      compare.RESULTS.write_text(json.dumps(results, indent=1) + "\n")
      table.update_readme()


if __name__ == "__main__":
  main()
