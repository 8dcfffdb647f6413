"""The optimizer against hand-computed AdamW steps; P-numbers are traps known from other code bases."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from sml_jax.learn.losses import batch_sums, loss_denominator, sft_loss, token_logprobs
from sml_jax.learn.optimizer import is_decayed, make_optimizer, make_schedule, update


def config(**changes):
  cfg = ml_collections.ConfigDict({
      "learning_rate": 0.1, "schedule": "constant", "warmup_steps": 0, "total_steps": 100, "end_lr_fraction": 0.1,
      "b1": 0.9, "b2": 0.99, "eps": 1e-8, "weight_decay": 0.0, "clip_norm": 1.0,
  })  # fmt: skip
  cfg.update(changes)
  return cfg


@pytest.mark.parametrize(
    ("kind", "golden"),
    [
        ("constant", {4: 1.0, 9: 1.0, 14: 1.0, 30: 1.0}),
        ("linear", {4: 1.0, 9: 0.55, 14: 0.1, 30: 0.1}),
        ("cosine", {4: 1.0, 6: 0.1 + 0.9 * (1 + np.cos(0.2 * np.pi)) / 2, 9: 0.55, 14: 0.1, 30: 0.1}),
    ],
)
def test_schedules_at_known_steps(kind, golden):
  schedule = make_schedule(config(schedule=kind, learning_rate=2.0, warmup_steps=4, total_steps=14))
  np.testing.assert_allclose([schedule(i) for i in range(4)], [0.5, 1.0, 1.5, 2.0])
  for step, fraction in golden.items():
    np.testing.assert_allclose(jax.jit(schedule)(jnp.int32(step)), 2.0 * fraction, rtol=1e-5)


def test_without_warm_up_the_first_rate_is_the_peak():
  for kind in ("constant", "linear", "cosine"):
    assert make_schedule(config(schedule=kind))(0) == pytest.approx(0.1)


def test_bad_schedules_are_named():
  with pytest.raises(ValueError, match="'step'"):
    make_optimizer(config(schedule="step"))
  with pytest.raises(ValueError, match="warmup_steps 100"):
    make_optimizer(config(schedule="cosine", warmup_steps=100))
  make_optimizer(config(warmup_steps=200))  # a constant rate has no decay to end


def test_weight_decay_is_for_matrices_by_name():
  params = {
      "embed": jnp.ones((4, 2)),
      "layers": {"norm": {"scale": jnp.ones((3, 2))}, "q": {"kernel": jnp.ones((3, 2, 2)), "bias": jnp.ones((3, 2))}},
      "norm": {"scale": jnp.ones((2,))},
  }
  tx, _ = make_optimizer(config(weight_decay=0.5))
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates, _ = tx.update(zeros, tx.init(params), params)
  moved = jax.tree.map(lambda u: float(u.ravel()[0]), updates)
  assert moved == {
      "embed": pytest.approx(-0.05),
      "layers": {"norm": {"scale": 0.0}, "q": {"kernel": pytest.approx(-0.05), "bias": 0.0}},
      "norm": {"scale": 0.0},
  }
  tx, _ = make_optimizer(config(weight_decay=0.5), decayed=lambda path, x: "embed" not in path and is_decayed(path, x))
  updates, _ = tx.update(zeros, tx.init(params), params)
  assert not updates["embed"].any() and updates["layers"]["q"]["kernel"].all()


def test_one_adamw_step_by_hand():
  params, grads = {"kernel": jnp.full((1, 2), 2.0)}, {"kernel": jnp.array([[3.0, -4.0]])}
  tx, _ = make_optimizer(config(weight_decay=0.5, eps=1.0))
  new, state, norm = update(params, tx.init(params), grads, tx, jnp.array(True))
  assert norm == 5.0
  clipped = np.array([[0.6, -0.8]])
  golden = 2.0 - 0.1 * (clipped / (np.abs(clipped) + 1.0) + 0.5 * 2.0)
  np.testing.assert_allclose(new["kernel"], golden, rtol=1e-6)
  np.testing.assert_allclose(optax.tree_utils.tree_get(state, "mu")["kernel"], 0.1 * clipped, rtol=1e-6)
  # Without clipping the moment is that of the gradient itself.
  for off in (0.0, None):
    cfg = config()
    with cfg.ignore_type():
      cfg.clip_norm = off
    tx, _ = make_optimizer(cfg)
    _, state, _ = update(params, tx.init(params), grads, tx, jnp.array(True))
    np.testing.assert_allclose(optax.tree_utils.tree_get(state, "mu")["kernel"], [[0.3, -0.4]], rtol=1e-6)


def test_P39_a_batch_without_signal_changes_nothing_and_the_next_step_goes_on():
  params = {"kernel": jnp.arange(6.0).reshape(2, 3), "scale": jnp.ones(3)}
  tx, _ = make_optimizer(config(weight_decay=0.5, schedule="cosine"))
  step = jax.jit(lambda p, s, g, ok: update(p, s, g, tx, ok))
  grads = jax.tree.map(jnp.ones_like, params)
  params, state, _ = step(params, tx.init(params), grads, jnp.array(True))
  for empty in (jnp.zeros_like, lambda x: jnp.full_like(x, jnp.nan)):
    kept, kept_state, norm = step(params, state, jax.tree.map(empty, params), jnp.array(False))
    assert norm == 0.0
    jax.tree.map(np.testing.assert_array_equal, (kept, kept_state), (params, state))
  assert optax.tree_utils.tree_get(kept_state, "ScaleByAdamState").count == 1
  # What the trap does: old momentum and weight decay move the parameters.
  moved, _, _ = step(params, state, jax.tree.map(jnp.zeros_like, params), jnp.array(True))
  assert (moved["kernel"] != params["kernel"]).all() and (moved["scale"] != params["scale"]).all()


def test_P42_accumulation_over_micro_batches_gives_the_same_update():
  rng = np.random.default_rng(0)
  b, t, v = 8, 6, 5
  batch = {
      "tokens": jnp.asarray(rng.integers(0, v, (b, t)), jnp.int32),
      "segments": jnp.ones((b, t), jnp.int32),
      # Few trained tokens in the first rows, all in the last: unequal micro-batches.
      "weights": jnp.asarray(np.arange(t)[None] > np.array([4, 4, 4, 3, 2, 1, 0, 0])[:, None], jnp.float32),
  }
  start = {"kernel": jnp.asarray(rng.normal(size=(v, v)), jnp.float32)}
  tx, _ = make_optimizer(config(clip_norm=0.05, eps=0.1, weight_decay=0.1))
  denominator = loss_denominator(batch_sums(batch), "token")
  step = jax.jit(lambda p, s, g: update(p, s, g, tx, jnp.array(True)))

  def loss(params, part):
    logits = params["kernel"][part["tokens"]]  # [b, T, V]: a bigram model
    return sft_loss(token_logprobs(logits, part["tokens"], part["segments"]), part)[0] / denominator

  grad_of = jax.jit(jax.grad(loss))

  def train(k, clip_parts=False):
    params, state = start, tx.init(start)
    for _ in range(3):
      grads = jax.tree.map(jnp.zeros_like, params)
      for i in range(k):
        part = {n: x[i * b // k : (i + 1) * b // k] for n, x in batch.items()}
        grad = grad_of(params, part)
        if clip_parts:
          grad, _ = optax.clip_by_global_norm(0.05 / k).update(grad, optax.EmptyState())
        grads = jax.tree.map(jnp.add, grads, grad)
      params, state, norm = step(params, state, grads)
      assert norm > 0.05 or clip_parts  # the clip is at work
    return params["kernel"]

  whole = train(1)
  for k in (2, 4):
    np.testing.assert_allclose(train(k), whole, atol=1e-6)
  assert np.abs(train(4, clip_parts=True) - whole).max() > 1e-4
