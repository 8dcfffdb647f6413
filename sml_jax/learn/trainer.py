"""The train step: packed rows in, one optimizer update out, the same for any micro-batch split or mesh."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from sml_jax import parallel
from sml_jax.data.packing import PackedBatch, pad_rows
from sml_jax.learn import losses, optimizer
from sml_jax.learn.losses import Batch, Objective, Sums
from sml_jax.models.transformer import Model, Params


class TrainState(NamedTuple):
  """What an update changes, and a checkpoint keeps."""

  params: Params
  opt_state: Any


class Trainer:
  """Updates for one stage.

  Args:
    model: the static half of the transformer.
    objective: the loss.
    tx: the optimizer.
    mesh: of all devices.
    micro_batch_rows: rows of one gradient accumulation; 0 = all at once. Rows are padded to a multiple of it.
  """

  def __init__(
      self, model: Model, objective: Objective, tx: optax.GradientTransformation, mesh: Mesh, micro_batch_rows: int = 0
  ):
    self.model, self.objective, self.tx, self.mesh = model, objective, tx, mesh
    shards = parallel.row_shards(mesh)
    self.micro_batch_rows = -(-micro_batch_rows // shards) * shards
    self._sums = jax.jit(losses.batch_sums)
    self._signal = jax.jit(lambda b: losses.has_signal(b, objective))
    self._gradient = jax.jit(self._micro_gradient)
    self._accumulate = jax.jit(_add, donate_argnums=0)
    self._apply = jax.jit(self._apply_update, donate_argnums=(0, 1))
    self._logp = jax.jit(self.logprobs)

  def init(self, params: Params) -> TrainState:
    """The state at step 0; params are copied onto the mesh."""
    params = jax.device_put(params, parallel.param_shardings(self.mesh, params))
    params = jax.tree.map(jnp.copy, params)  # the first update donates them, and the caller may still need its own
    like = jax.eval_shape(self.tx.init, params)
    shardings = optax.tree.map_params(
        self.tx, lambda _, s: s, like, parallel.param_shardings(self.mesh, params),
        transform_non_params=lambda _: parallel.replicated(self.mesh),
    )
    return TrainState(params, jax.jit(self.tx.init, out_shardings=shardings)(params))

  def update(self, state: TrainState, batch: PackedBatch, reference: Params | None = None) -> tuple[TrainState, Sums]:
    """One optimizer step on packed rows [R, T] (host arrays, this process's share).

    Args:
      state: consumed (donated).
      batch: of `packing`.
      reference: parameters of the reference policy; needed if objective.kl_coef is not 0.

    Returns:
      The new state, and metrics on the device: means over trained tokens, `grad_norm`, `tokens`, `loss`.
    """
    micro = self._micro_batches(batch)
    counts = functools.reduce(_add, [self._sums(m) for m in micro])
    denominator = losses.loss_denominator(counts, self.objective.norm)
    signal = functools.reduce(jnp.logical_or, [self._signal(m) for m in micro])
    grads, sums = None, None
    for m in micro:
      g, s = self._gradient(state.params, reference, m, denominator)
      grads, sums = (g, s) if grads is None else (self._accumulate(grads, g), losses.add_metrics(sums, s))
    params, opt_state, norm = self._apply(state.params, state.opt_state, grads, signal)
    loss = sums.pop("loss")
    metrics = losses.mean_metrics(sums) | {"grad_norm": norm, "loss": loss, "skipped": 1.0 - signal}
    return TrainState(params, opt_state), metrics

  def _micro_batches(self, batch: PackedBatch) -> list[Batch]:
    shards = parallel.row_shards(self.mesh) // jax.process_count()
    size = self.micro_batch_rows // jax.process_count() or len(batch["tokens"])
    size = -(-size // max(1, shards)) * max(1, shards)
    batch = pad_rows(batch, size)
    rows = len(batch["tokens"])
    return [parallel.put_rows(self.mesh, {k: v[i : i + size] for k, v in batch.items()}) for i in range(0, rows, size)]

  def logprobs(self, params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Log-probability of each token and entropy of the distribution it was drawn from, both [B, T]."""
    hidden = self.model.forward(params, batch["tokens"], batch["positions"], batch["segments"])
    logits = self.model.logits(params, hidden)
    at = {"temperature": self.objective.temperature}
    logp = losses.token_logprobs(logits, batch["tokens"], batch["segments"], **at)
    return logp, losses.token_entropy(logits, batch["segments"], **at)

  def score(self, params: Params, batch: PackedBatch) -> np.ndarray:
    """Log-probability of each token of packed rows, [R, T]."""
    scored = [np.asarray(self._logp(params, m)[0]) for m in self._micro_batches(batch)]
    return np.concatenate(scored)[: len(batch["tokens"])]

  def _micro_gradient(self, params, reference, batch, denominator) -> tuple[Params, Sums]:
    def loss_of(params):
      logp, entropy = self.logprobs(params, batch)
      if self.objective.kind == "sft":
        total, sums = losses.sft_loss(logp, batch, entropy=entropy)
      else:
        ref_logp = self.logprobs(reference, batch)[0] if self.objective.kl_coef else None
        total, sums = losses.grpo_loss(logp, batch, self.objective, ref_logp, entropy=entropy)
      loss = total / denominator
      return loss, sums | {"loss": jax.lax.stop_gradient(loss)}

    return jax.grad(loss_of, has_aux=True)(params)

  def _apply_update(self, params, opt_state, grads, signal):
    return optimizer.update(params, opt_state, grads, self.tx, signal)


def _add(a: Any, b: Any) -> Any:
  return jax.tree.map(jnp.add, a, b)
