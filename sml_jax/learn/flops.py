"""Analytic FLOPs of the transformer, and the peak they are held against."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp

from sml_jax.models.transformer import ModelConfig

# Dense bf16 peak of one chip, FLOP/s, as its maker states it.
PEAKS = {"TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5": 459e12, "TPU v6 lite": 918e12, "NVIDIA H100": 989e12}


def forward_flops(c: ModelConfig, tokens: int, attended: int) -> int:
  """FLOPs of one forward pass: 2 for each multiply-add of the matrices, the head included.

  Args:
    c: the model.
    tokens: tokens run through it.
    attended: sum over tokens of the tokens each attends to (causal: n (n + 1) / 2 of a dialogue of n tokens).
  """
  qkvo = c.d_model * c.head_dim * (2 * c.heads + 2 * c.kv_heads)
  matrices = c.layers * (qkvo + 3 * c.d_model * c.mlp_dim) + c.d_model * c.vocab_size
  return 2 * tokens * matrices + 4 * attended * c.layers * c.heads * c.head_dim


def causal(lengths) -> int:
  """What `forward_flops` calls attended, of dialogues of these lengths."""
  return sum(int(n) * (int(n) + 1) // 2 for n in lengths)


def peak_flops() -> float | None:
  """Peak FLOP/s of all devices: from PEAKS; on CPU a matrix product timed here (f32, 1024 x 1024); None if unknown."""
  device = jax.devices()[0]
  if device.platform != "cpu":
    kinds = [k for k in PEAKS if device.device_kind.startswith(k)]
    return PEAKS[max(kinds, key=len)] * jax.device_count() if kinds else None
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
