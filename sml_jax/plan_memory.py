"""The memory of a plan: what a device holds at each moment of a run, and which keys would make it less."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np

from sml_jax.models.transformer import ModelConfig

PARTS = (
    "parameters", "frozen weights", "optimizer state", "reference policy", "frozen teacher", "gradients", "decode copy",
    "caches", "activations and temporaries",
)  # fmt: skip
"""What a device holds; the last is all that a step needs besides, as the compiler says, its own code included."""
WORK = PARTS[-1]
SHARDED = ("parameters", "frozen weights", "optimizer state", "reference policy", "gradients")
"""Cut along fsdp."""
HEAD_CHUNK, RANK = 16_384, 16
"""What is suggested for model.head_chunk and model.lora.rank."""


@dataclasses.dataclass(frozen=True)
class Moment:
  """A step of the run while it runs.

  Attributes:
    name, kind: of the step.
    parts: bytes on a device, by PARTS.
    stage, rows, length: of a training step, and the rows and tokens of its micro-batch.
    accumulates: it has several micro-batches.
  """

  name: str
  kind: Literal["gradient", "update", "copy", "decode"]
  parts: dict[str, int]
  stage: str = ""
  rows: int = 0
  length: int = 0
  accumulates: bool = False

  @property
  def peak(self) -> int:
    return sum(self.parts.values())

  def scaled(self, factors: dict[str, float]) -> Moment:
    """The same with some parts times a factor."""
    return dataclasses.replace(self, parts={k: round(v * factors.get(k, 1)) for k, v in self.parts.items()})


def device_bytes(tree: Any) -> int:
  """Bytes of arrays (or their shapes, with shardings) on one device, without what their layout adds."""
  return sum(math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize for a in jax.tree.leaves(tree))


def program_bytes(analysis: Any) -> int:
  """What a compiled step needs on a device, by its `memory_analysis()`: an output in a donated argument counts once."""
  a = analysis
  new = a.output_size_in_bytes - a.alias_size_in_bytes
  return a.argument_size_in_bytes + new + a.temp_size_in_bytes + a.generated_code_size_in_bytes


def exhausted_bytes(message: str) -> int | None:
  """The HBM that a step would need, from what the compiler says when it is too much; None if it says something else."""
  found = re.search(r"\(([\d.]+)([KMGT])\) exceeds available HBM|Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm", message)
  if not found:
    return None
  number, unit = (found[1], found[2]) if found[1] else (found[3], found[4])
  return round(float(number) * 1024 ** ("KMGT".index(unit) + 1))


@dataclasses.dataclass(frozen=True)
class Suggestion:
  """A change of keys: what a moment would be with it, by estimate, and by how much less it would not fit (bytes)."""

  keys: str
  change: Callable[[Moment], Moment]
  relief: int


def suggest(
    moments: Sequence[Moment], hbm: float, c: ModelConfig, *, mesh: dict[str, int], slices: int, engine_rows: int,
    head_chunk: int,
) -> list[Suggestion]:
  """Keys that would help where it does not fit, those that help most first.

  Each is estimated alone, by what its part of the memory is proportional to.

  Args:
    moments: of the plan.
    hbm: bytes that a device has.
    c: the model.
    mesh: sizes by axis.
    slices: of TPUs; mesh.data is a multiple of it.
    engine_rows, head_chunk: as in the config.
  """
  shards = mesh["data"] * mesh["fsdp"]
  out: list[Suggestion] = []

  def offer(keys: str, change: Callable[[Moment], Moment], kinds: str = "gradient update copy decode") -> None:
    only = lambda m: change(m) if m.kind in kinds.split() else m
    relief = sum(max(0, m.peak - hbm) - max(0, only(m).peak - hbm) for m in moments)
    if relief > 0.005 * hbm:
      out.append(Suggestion(keys, only, round(relief)))

  for m in moments:
    if m.kind == "gradient" and m.rows > shards:
      rows = _largest(m.rows, shards, lambda n, m=m: _fewer_rows(m, n).peak <= hbm)
      change = lambda n, name=m.name, rows=rows: _fewer_rows(n, rows) if n.name == name else n
      offer(f"stages.{m.stage}.micro_batch_rows={rows}", change)
  decode = [m for m in moments if m.kind == "decode"]
  if decode and engine_rows > shards:
    less = lambda m, n: m.scaled(dict.fromkeys(("caches", WORK), n / engine_rows))
    rows = _largest(engine_rows, shards, lambda n: all(less(m, n).peak <= hbm for m in decode))
    offer(f"engine_rows={rows}", lambda m: less(m, rows), "decode")
  if c.remat == "none":
    offer("model.remat=full", lambda m: _less_work(m, _kept(c, m, mesh)), "gradient")
  if (rest := (head_chunk or c.vocab_size) - HEAD_CHUNK) > 0:
    # The logits and their gradient, f32.
    offer(f"model.head_chunk={HEAD_CHUNK}",
          lambda m: _less_work(m, 2 * 4 * _tokens(m, mesh) * rest // mesh["model"]), "gradient")  # fmt: skip
  if c.lora is None:
    # What is left of these is the adapter's; the weights themselves stay.
    offer(f"model.lora.rank={RANK}", lambda m: m.scaled({"optimizer state": 0.02, "gradients": 0.02}))
  if np.dtype(c.param_dtype).itemsize == 4:
    trained = ("frozen weights",) if c.lora else ("parameters", "optimizer state", "gradients")
    note = "" if c.lora else " (less exact updates)"
    offer(f"model.param_dtype=bfloat16{note}", lambda m: m.scaled(dict.fromkeys((*trained, "reference policy"), 0.5)))
  if mesh["data"] > slices:
    offer(f"mesh.data={slices} mesh.fsdp=-1", lambda m: m.scaled(dict.fromkeys(SHARDED, slices / mesh["data"])))
  if c.kv_heads % (2 * mesh["model"]) == 0 and mesh["fsdp"] % 2 == 0:
    offer(f"mesh.model={2 * mesh['model']}", lambda m: m.scaled({"decode copy": 0.5, "frozen teacher": 0.5}))
  fewer = lambda m: (m.kind == "decode" and engine_rows > shards) or m.rows >= 2 * shards  # rows on a device
  halves = dict.fromkeys((*SHARDED, "caches"), 0.5)
  offer("twice the chips", lambda m: m.scaled(halves | {WORK: 0.5 if fewer(m) else 1}))
  return sorted(out, key=lambda s: -s.relief)


def together(found: Sequence[Suggestion], moments: Sequence[Moment], hbm: float) -> tuple[int, list[Moment]]:
  """How many of the suggestions, the best first, it takes until it fits (or all), and what the moments would be."""
  moments, n = list(moments), 0
  while n < len(found) and any(m.peak > hbm for m in moments):
    moments, n = [found[n].change(m) for m in moments], n + 1
  return n, moments


def _largest(rows: int, least: int, fits: Callable[[int], bool]) -> int:
  """The most of rows / 2, rows / 4, ... (multiples of `least`) that fits; else the least."""
  while rows > least:
    rows = max(least, rows // 2 // least * least)
    if fits(rows):
      break
  return rows


def _fewer_rows(m: Moment, rows: int) -> Moment:
  """With several micro-batches their gradients are there twice: the sum so far, and the newest."""
  return m.scaled({WORK: rows / m.rows, "gradients": 1 if m.accumulates else 2})


def _less_work(m: Moment, less: int) -> Moment:
  """At least a tenth is left, since estimates of a part may be more than the whole."""
  work = m.parts.get(WORK, 0)
  return m.scaled({WORK: max(0.1, 1 - less / work) if work else 1})


def _tokens(m: Moment, mesh: dict[str, int]) -> int:
  return m.rows * m.length // (mesh["data"] * mesh["fsdp"])


def _kept(c: ModelConfig, m: Moment, mesh: dict[str, int]) -> int:
  """Bytes that the backward pass finds of a forward pass without remat, and makes again with it.

  Of each layer: normed inputs (2 D), queries, keys and values before and after RoPE, the heads' outputs, and the MLP's
  gate, up and their product.
  """
  split = 2 * (c.heads + 2 * c.kv_heads) * c.head_dim + c.heads * c.head_dim + 3 * c.mlp_dim
  return c.layers * _tokens(m, mesh) * (2 * c.d_model + split // mesh["model"]) * np.dtype(c.dtype).itemsize
