"""LoRA on the params pytree: nothing at first, merged it is the same model, and only the adapter learns."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sml_jax import parallel
from sml_jax.data.packing import pack_all
from sml_jax.learn.losses import Objective
from sml_jax.learn.trainer import Trainer
from sml_jax.models import lora
from sml_jax.models.lora import Lora
from sml_jax.models.transformer import Model, ModelConfig, parameter_count

PLAIN = ModelConfig(
    vocab_size=19, d_model=12, layers=3, heads=4, kv_heads=2, head_dim=6, mlp_dim=20, qk_norm=True, post_norms=True
)
ADAPTED = dataclasses.replace(PLAIN, lora=Lora(rank=2, alpha=8.0))


def drawn(config: ModelConfig):
  """Random params, adapters' b (0 at first) included."""
  rng = np.random.default_rng(0)
  draw = lambda path, a: rng.uniform(0.5, 1.5, a.shape) if path[-1].key == "scale" else 0.15 * rng.normal(size=a.shape)
  drawn = jax.tree_util.tree_map_with_path(draw, Model(config).shapes)
  return jax.tree.map(lambda x, a: jnp.asarray(x, a.dtype), drawn, Model(config).shapes)


def logits(config: ModelConfig, params) -> np.ndarray:
  model = Model(config)
  tokens = jnp.asarray(np.random.default_rng(0).integers(0, 19, (2, 9)))
  positions = jnp.broadcast_to(jnp.arange(9), (2, 9))
  run = jax.jit(lambda p: model.logits(p, model.forward(p, tokens, positions, jnp.ones_like(tokens))))
  return np.asarray(run(params))


def test_by_hand():
  """y = x W + (alpha / rank) (x A) B with alpha 6 and rank 3, one number each."""
  adapter = {"a": jnp.ones((1, 1, 3)), "b": jnp.full((1, 3, 1), 0.5)}
  params = {"blocks": {"gate": jnp.full((1, 1, 1), 5.0), "lora_gate": adapter}}
  merged = lora.merge(params, Lora(rank=3, alpha=6.0))
  assert merged == {"blocks": {"gate": jnp.full((1, 1, 1), 5.0 + 2 * 1.5)}}


def test_a_fresh_adapter_changes_nothing():
  params = jax.jit(Model(ADAPTED).init)(jax.random.key(0, impl="unsafe_rbg"))
  np.testing.assert_allclose(logits(ADAPTED, params), logits(PLAIN, lora.split(params)[0]), atol=1e-5)


@pytest.mark.parametrize("targets, scan_layers", [
    (lora.TARGETS, False), (lora.TARGETS, True), (("q",), True), (("o", "down"), False), (("k", "v", "up"), True)
])  # fmt: skip
def test_merged_equals_unmerged(targets, scan_layers):
  config = dataclasses.replace(ADAPTED, lora=Lora(2, 8.0, targets), scan_layers=scan_layers)
  params = drawn(config)
  merged = lora.merge(params, config.lora)
  assert jax.tree.structure(merged) == jax.tree.structure(Model(PLAIN).shapes)
  with jax.default_matmul_precision("highest"):
    want = logits(config, params)
    np.testing.assert_allclose(logits(PLAIN, merged), want, atol=1e-5)
  assert np.abs(logits(PLAIN, lora.split(params)[0]) - want).max() > 1e-2


def test_split_and_join_are_inverse():
  params = drawn(ADAPTED)
  base, adapter = lora.split(params)
  assert jax.tree.structure(base) == jax.tree.structure(Model(PLAIN).shapes)
  assert {name for name in adapter["blocks"]} == {f"lora_{t}" for t in lora.TARGETS} and set(adapter) == {"blocks"}
  again = lora.join(base, adapter)
  assert jax.tree.structure(again) == jax.tree.structure(params)
  assert lora.split(base) == (base, {})
  # rank x (in + out) of each projection and layer
  d, h, kv, f = 12, 24, 12, 20
  assert parameter_count(adapter) == 3 * 2 * ((d + h) + 2 * (d + kv) + (h + d) + 2 * (d + f) + (f + d))


def test_bfloat16_weights_have_a_float32_adapter():
  config = dataclasses.replace(ADAPTED, param_dtype=jnp.bfloat16)
  base, adapter = lora.split(Model(config).shapes)
  assert {a.dtype for a in jax.tree.leaves(base)} == {jnp.bfloat16.dtype}
  assert {a.dtype for a in jax.tree.leaves(adapter)} == {jnp.float32.dtype}
  params = drawn(config)
  assert lora.merge(params, config.lora)["blocks"]["q"].dtype == jnp.bfloat16


def test_training_changes_the_adapter_alone_and_shares_the_base():
  mesh = parallel.make_mesh()
  trainer = Trainer(Model(ADAPTED, mesh), Objective("sft"), optax.adam(1e-2), mesh)
  params = drawn(ADAPTED)
  state = trainer.init(params)
  for a, b in zip(jax.tree.leaves(trainer.frozen), jax.tree.leaves(lora.split(params)[0]), strict=True):
    assert a.unsafe_buffer_pointer() == b.unsafe_buffer_pointer()  # the same memory, not a copy
  moments = [a for a in jax.tree.leaves(state.opt_state) if a.ndim]
  assert sum(a.size for a in moments) == 2 * parameter_count(state.params)
  before = jax.tree.map(np.asarray, params)
  row = {"tokens": np.arange(1, 9, dtype=np.int32), "weights": np.ones(8, np.float32)}
  row |= {"advantages": np.zeros(8, np.float32), "logprobs": np.zeros(8, np.float32)}
  first = last = None
  for _ in range(20):
    state, metrics = trainer.update(state, pack_all([row], 8))
    first, last = first or float(metrics["loss"]), float(metrics["loss"])
  assert last < first - 0.2
  base, adapter = lora.split(trainer.whole(state.params))
  for a, b in zip(jax.tree.leaves(base), jax.tree.leaves(lora.split(before)[0]), strict=True):
    np.testing.assert_array_equal(a, b)
  for a, b in zip(jax.tree.leaves(adapter), jax.tree.leaves(lora.split(before)[1]), strict=True):
    assert np.abs(np.asarray(a) - b).max() > 1e-3


def test_an_unknown_projection_is_refused():
  with pytest.raises(ValueError, match="no projection 'query' to adapt; known: q, k, v"):
    Lora(2, 4.0, ("query",))
