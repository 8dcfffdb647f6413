"""Analytic FLOPs of the transformer, and the peak they are held against."""

from __future__ import annotations

import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from sml_jax.models.transformer import ModelConfig

# Dense bf16 peak of one device, FLOP/s, as its maker states it; a TPU7x chip has two devices.
PEAKS = {
    "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5": 459e12, "TPU v6 lite": 918e12, "TPU7x": 1153.5e12,
    "NVIDIA H100": 989e12,
}  # fmt: skip


def forward_flops(c: ModelConfig, tokens: int, attended: int, attended_locally: int | None = None) -> int:
  """FLOPs of one forward pass: 2 for each multiply-add of the matrices, the head included.

  Args:
    c: the model.
    tokens: tokens run through it.
    attended: sum over tokens of the tokens each attends to (see `causal`).
    attended_locally: the same in a layer with a sliding window; None = as in the others.
  """
  return 2 * tokens * (_matrices(c) + _adapters(c)) + _attention(c, attended, attended_locally)


def dialogue_flops(c: ModelConfig, lengths: Sequence[int]) -> int:
  """FLOPs of one forward pass over dialogues of these lengths, each token attending to what it may see and no more."""
  return forward_flops(c, sum(map(int, lengths)), causal(lengths), causal(lengths, c.window))


def train_flops(c: ModelConfig, lengths: Sequence[int]) -> int:
  """FLOPs of a forward and a backward pass over dialogues of these lengths; nothing is counted that remat does again.

  The backward pass costs two forward passes: the gradient of what goes into a product, and that of its weights. With
  LoRA the model's own weights have no gradient.
  """
  tokens, local = sum(map(int, lengths)), causal(lengths, c.window)
  own = 2 if c.lora else 3
  return 2 * tokens * (own * _matrices(c) + 3 * _adapters(c)) + 3 * _attention(c, causal(lengths), local)


def causal(lengths: Sequence[int], window: int = 0) -> int:
  """Sum over the tokens of dialogues of these lengths of the tokens each attends to: itself and all before it.

  With a window the last `window` of those: n (n + 1) / 2 of a dialogue of n tokens, less the triangle out of sight.
  """
  triangle = lambda n: n * (n + 1) // 2
  return sum(triangle(int(n)) - (triangle(max(0, int(n) - window)) if window else 0) for n in lengths)


def _matrices(c: ModelConfig) -> int:
  """Multiply-adds of a token in the model's own matrices."""
  qkvo = c.d_model * c.head_dim * (2 * c.heads + 2 * c.kv_heads)
  return c.layers * (qkvo + 3 * c.d_model * c.mlp_dim) + c.d_model * c.vocab_size


def _adapters(c: ModelConfig) -> int:
  """Multiply-adds of a token in the adapters."""
  if c.lora is None:
    return 0
  queries, keys, mlp = c.heads * c.head_dim, c.kv_heads * c.head_dim, c.mlp_dim
  wide = {"q": queries, "k": keys, "v": keys, "o": queries, "gate": mlp, "up": mlp, "down": mlp}
  return c.layers * c.lora.rank * sum(c.d_model + wide[name] for name in c.lora.targets)


def _attention(c: ModelConfig, attended: int, locally: int | None) -> int:
  """FLOPs of scores and of weighted values."""
  near = sum(c.local_layers)
  seen = (c.layers - near) * attended + near * (attended if locally is None else locally)
  return 4 * seen * c.heads * c.head_dim


def device_peak(kind: str) -> float | None:
  """Peak FLOP/s of a device of this kind, None if unknown."""
  known = [k for k in PEAKS if kind.startswith(k)]
  return PEAKS[max(known, key=len)] if known else None


def peak_flops() -> float | None:
  """Peak FLOP/s of all devices: from PEAKS; on CPU a matrix product timed here (f32, 1024 x 1024); None if unknown."""
  device = jax.devices()[0]
  if device.platform != "cpu":
    peak = device_peak(device.device_kind)
    return peak and peak * jax.device_count()
  n = 1024
  x = jnp.ones((n, n), jnp.float32)
  product = jax.jit(jnp.matmul)
  product(x, x).block_until_ready()
  times = []
  for _ in range(5):
    start = time.perf_counter()
    product(x, x).block_until_ready()
    times.append(time.perf_counter() - start)
  return 2 * n**3 / min(times)
