"""The optimizer: AdamW with clipping by the global norm, a schedule in steps, and an update that can be skipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

SCHEDULES = ("constant", "cosine", "linear")
NOT_DECAYED = ("scale", "bias")
"""Vectors. By name, since a norm's scale is a matrix [L, D] once layers are stacked."""


def is_decayed(path: tuple[str, ...], leaf: Any) -> bool:
  """Whether weight decay applies to a parameter: matrices, and no norm's scale or bias, stacked or not."""
  return leaf.ndim >= 2 and not any(name in NOT_DECAYED for name in path)


def make_schedule(cfg: Any) -> optax.Schedule:
  """Update number (from 0) -> learning rate: linear warm-up, then `cfg.schedule` down to `end_lr_fraction` of the peak.

  Update k of the warm-up uses (k + 1) / warmup_steps of the peak, so none is lost at 0; the end of the decay is
  reached at total_steps and kept. The number counts the updates made: skipped ones do not advance it.

  Args:
    cfg: learning_rate, schedule, warmup_steps, total_steps, end_lr_fraction (unused by "constant").

  Raises:
    ValueError: an unknown schedule, or a decay that would start after total_steps.
  """
  if cfg.schedule not in SCHEDULES:
    raise ValueError(f"unknown schedule {cfg.schedule!r}: one of {', '.join(SCHEDULES)}")
  kind, peak, end = cfg.schedule, cfg.learning_rate, cfg.end_lr_fraction
  warmup, decay_steps = cfg.warmup_steps, cfg.total_steps - cfg.warmup_steps
  if kind != "constant" and decay_steps <= 0:
    raise ValueError(f"warmup_steps {warmup} leaves nothing of total_steps {cfg.total_steps} to decay in")

  def schedule(count: jax.Array | int) -> jax.Array:
    rate = jnp.minimum(1.0, (count + 1) / max(warmup, 1))
    if kind == "constant":
      return peak * rate
    done = jnp.clip((count - warmup) / decay_steps, 0.0, 1.0)
    left = 1.0 - done if kind == "linear" else 0.5 * (1.0 + jnp.cos(jnp.pi * done))
    return peak * rate * (end + (1.0 - end) * left)

  return schedule


def make_optimizer(
    cfg: Any, decayed: Callable[[tuple[str, ...], Any], bool] = is_decayed
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """AdamW (arXiv:1711.05101) behind one clip of the global norm.

  The clip sees the gradient of the whole batch, summed over micro-batches and divided by the global count: clipping
  is not linear, so clipping each part would make the update depend on the split.

  Args:
    cfg: those of `make_schedule` and b1, b2, eps, weight_decay, clip_norm (0 or None: no clipping).
    decayed: (names on the path to a parameter, parameter) -> whether weight decay applies.

  Returns:
    The transformation, and its schedule, for the metrics.
  """
  schedule = make_schedule(cfg)

  def mask(params):
    return jax.tree_util.tree_map_with_path(lambda path, x: decayed(tuple(map(_name, path)), x), params)

  adamw = optax.adamw(schedule, b1=cfg.b1, b2=cfg.b2, eps=cfg.eps, weight_decay=cfg.weight_decay, mask=mask)
  clip = _clip(cfg.clip_norm) if cfg.clip_norm else optax.identity()
  return optax.chain(clip, adamw), schedule


def update(
    params: Any, opt_state: Any, grads: Any, tx: optax.GradientTransformation, nonempty: jax.Array
) -> tuple[Any, Any, jax.Array]:
  """One optimizer step; if `nonempty` is False (see `losses.has_signal`) everything stays, bit for bit.

  Without this a batch without signal would still decay weights and moments, move along old momentum, and advance the
  schedule.

  Args:
    params, opt_state, grads: pytrees; grads of the whole batch.
    tx: from `make_optimizer`.
    nonempty: bool scalar.

  Returns:
    New params, new opt_state, and the global norm of grads before clipping (0 if skipped), f32.
  """
  def step():
    updates, new_state = tx.update(grads, opt_state, params)
    apart = jax.lax.optimization_barrier(grads)  # else XLA writes their squares once for the norm and for the moments
    return optax.apply_updates(params, updates), new_state, optax.tree.norm(apart)

  # A branch, and not a choice between two results: those could not take the place of what they replace.
  return jax.lax.cond(nonempty, step, lambda: (params, opt_state, jnp.zeros((), jnp.float32)))


def _clip(most: float) -> optax.GradientTransformation:
  """As optax.clip_by_global_norm, by one factor, which XLA multiplies in where the gradients are read next."""

  def update(updates, state, params=None):
    norm = optax.tree.norm(updates)
    factor = jnp.where(norm < most, 1.0, most / norm)
    return jax.tree.map(lambda g: g * factor.astype(g.dtype), updates), state

  return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _name(key: Any) -> str:
  """The name in one key of a pytree path: of a dict entry, an attribute or an index."""
  for attribute in ("key", "name", "idx"):
    if hasattr(key, attribute):
      return str(getattr(key, attribute))
  return str(key)
