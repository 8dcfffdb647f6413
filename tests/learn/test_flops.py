"""FLOPs by hand and against what XLA counts; peaks by device name."""

from __future__ import annotations

import dataclasses
import types

import jax
import jax.numpy as jnp
import pytest

from sml_jax.learn import flops
from sml_jax.models.lora import Lora
from sml_jax.models.transformer import Model, ModelConfig


def test_forward_flops_by_hand():
  """One token that sees itself: d = 4, 2 query heads and 1 key-value head of 6, MLP 5, 2 layers, 7 pieces."""
  c = ModelConfig(vocab_size=7, d_model=4, layers=2, heads=2, kv_heads=1, head_dim=6, mlp_dim=5)
  q, kv, o, mlp, head = 4 * 12, 2 * 4 * 6, 12 * 4, 3 * 4 * 5, 4 * 7
  scores_and_values = 2 * (2 * 6)  # of each head: a product with one key, and one value times its weight
  assert flops.forward_flops(c, tokens=1, attended=1) == 2 * (2 * (q + kv + o + mlp + scores_and_values) + head)
  assert flops.forward_flops(c, 10, 0) == 10 * flops.forward_flops(c, 1, 0)


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_forward_flops_are_those_that_xla_counts(kv_heads):
  """Within 3%: XLA attends to all of a row, and counts norms and exponentials too."""
  c = ModelConfig(vocab_size=512, d_model=128, layers=2, heads=4, kv_heads=kv_heads, head_dim=32, mlp_dim=384)
  model, b, t = Model(c), 4, 64
  params = jax.eval_shape(model.init, jax.random.key(0))
  ids = jax.ShapeDtypeStruct((b, t), jnp.int32)
  forward = lambda p, *x: model.logits(p, model.forward(p, *x))
  counted = jax.jit(forward).lower(params, ids, ids, ids).compile().cost_analysis()["flops"]
  assert counted == pytest.approx(flops.forward_flops(c, b * t, b * t * t), rel=0.03)


def test_causal_sums_what_each_token_sees():
  assert flops.causal([1, 2, 4]) == 1 + (1 + 2) + (1 + 2 + 3 + 4) and flops.causal([]) == 0


def test_a_window_hides_the_triangle_that_it_cannot_see():
  """Of 5 tokens with a window of 2: 1 + 2 + 2 + 2 + 2."""
  assert flops.causal([5], window=2) == 9 and flops.causal([5, 1], window=2) == 10 and flops.causal([5], window=9) == 15


def test_dialogue_flops_count_each_layer_with_what_it_sees():
  """Two layers of three are local, with a window of 2; two dialogues of 5 and 1 tokens."""
  c = ModelConfig(vocab_size=7, d_model=4, layers=3, heads=2, kv_heads=1, head_dim=6, mlp_dim=5, window=2,
                  local_layers=(True, False, True))  # fmt: skip
  a_token = 3 * (4 * 12 + 2 * 4 * 6 + 12 * 4 + 3 * 4 * 5) + 4 * 7
  seen = (15 + 1) + 2 * (9 + 1)  # of the global layer, and of each local one
  assert flops.dialogue_flops(c, [5, 1]) == 2 * 6 * a_token + 2 * 2 * seen * 2 * 6


@pytest.mark.parametrize("adapted", [False, True])
def test_train_flops_by_hand(adapted):
  """A product has two gradients; one of weights that are frozen has one."""
  c = ModelConfig(vocab_size=7, d_model=4, layers=2, heads=2, kv_heads=1, head_dim=6, mlp_dim=5)
  own, adapter, attention = 2 * (4 * 12 + 2 * 4 * 6 + 12 * 4 + 3 * 4 * 5) + 4 * 7, 0, 4 * 2 * 2 * 6
  if adapted:
    c = dataclasses.replace(c, lora=Lora(3, 6.0, ("q", "v", "o", "down")))
    adapter = 2 * 3 * ((4 + 12) + (4 + 6) + (12 + 4) + (5 + 4))
  assert flops.forward_flops(c, 1, 1) == 2 * (own + adapter) + attention
  assert flops.train_flops(c, [1]) == 2 * ((2 if adapted else 3) * own + 3 * adapter) + 3 * attention


@pytest.mark.parametrize("kind, peak", [
    ("TPU v4", 275e12), ("TPU v5 lite", 197e12), ("TPU v5p", 459e12), ("TPU v6 lite", 918e12),
    ("TPU7x", 1153.5e12), ("NVIDIA H100 80GB HBM3", 989e12), ("TPU v99", None),
])  # fmt: skip
def test_peaks_by_the_longest_name_that_fits(monkeypatch, kind, peak):
  device = types.SimpleNamespace(platform="tpu", device_kind=kind)
  monkeypatch.setattr(jax, "devices", lambda: [device])
  monkeypatch.setattr(jax, "device_count", lambda: 8)
  assert flops.peak_flops() == (peak and 8 * peak)


def test_the_peak_of_a_cpu_is_measured():
  assert 1e8 < flops.peak_flops() < 1e14
