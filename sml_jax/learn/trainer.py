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
from sml_jax.learn import head, losses, optimizer
from sml_jax.learn.losses import Batch, Objective, Sums
from sml_jax.models import lora
from sml_jax.models.transformer import Model, Params

NONE_LEFT_OUT = {name: np.float32(0) for name in ("tokens", "dialogues", "surprisal")}


class TrainState(NamedTuple):
  """What an update changes, and a checkpoint keeps: with LoRA the adapter alone."""

  params: Params
  opt_state: Any


class Trainer:
  """Updates for one stage.

  Attributes:
    frozen: with LoRA, the weights that no update changes; else {}.

  Args:
    model: the static half of the transformer; with config.lora its adapter is trained and nothing else.
    objective: the loss.
    tx: the optimizer.
    mesh: of all devices.
    micro_batch_rows: rows of one gradient accumulation; 0 = all at once. Rows are padded to a multiple of it.
    head_chunk: entries of the vocabulary whose logits exist at once; 0 = all (see `head`).
  """

  def __init__(
      self, model: Model, objective: Objective, tx: optax.GradientTransformation, mesh: Mesh,
      micro_batch_rows: int = 0, head_chunk: int = 0,
  ):  # fmt: skip
    self.model, self.objective, self.tx, self.mesh, self.head_chunk = model, objective, tx, mesh, head_chunk
    shards = parallel.row_shards(mesh)
    self.micro_batch_rows = -(-micro_batch_rows // shards) * shards
    self._weigh = jax.jit(self._weigh_all)
    self._gradient = jax.jit(self._micro_gradient)
    self._accumulate = jax.jit(_accumulated, donate_argnums=(0, 2))
    self._finish = jax.jit(_metrics)
    self._apply = jax.jit(self._apply_update, donate_argnums=(0, 1))
    self._logp = jax.jit(self.logprobs)
    self.frozen: Params = {}

  def init(self, params: Params) -> TrainState:
    """The state at step 0; what is trained is copied onto the mesh, what is not is shared with the caller."""
    self.freeze(params)
    _, trained = self.partition(params)
    trained = jax.device_put(trained, parallel.param_shardings(self.mesh, trained))
    trained = jax.tree.map(jnp.copy, trained)  # the first update donates them, and the caller may still need its own
    shardings = jax.tree.map(lambda s: s.sharding, self.abstract_state(trained).opt_state)
    return TrainState(trained, jax.jit(self.tx.init, out_shardings=shardings)(trained))

  def freeze(self, params: Params) -> None:
    """Sets `frozen`; `init` does it, and a stage that goes on must."""
    frozen, _ = self.partition(params)
    self.frozen = jax.device_put(frozen, parallel.param_shardings(self.mesh, frozen))

  def partition(self, params: Params) -> tuple[Params, Params]:
    """(frozen, trained)."""
    return lora.split(params) if self.model.config.lora else ({}, params)

  def whole(self, trained: Params) -> Params:
    """The model's parameters: the trained ones among the frozen."""
    return lora.join(self.frozen, trained) if self.frozen else trained

  def abstract_state(self, trained: Params | None = None) -> TrainState:
    """The state's shapes and where they lie; of the model's trained parameters, or of those given."""
    trained = self.partition(self.model.shapes)[1] if trained is None else trained
    shardings = parallel.param_shardings(self.mesh, trained)
    opt_state = jax.eval_shape(self.tx.init, trained)
    state_shardings = optax.tree.map_params(
        self.tx, lambda _, s: s, opt_state, shardings, transform_non_params=lambda _: parallel.replicated(self.mesh)
    )
    placed = lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s)
    return TrainState(jax.tree.map(placed, trained, shardings), jax.tree.map(placed, opt_state, state_shardings))

  def update(
      self, state: TrainState, batch: PackedBatch, reference: Params | None = None, left_out: Sums = NONE_LEFT_OUT
  ) -> tuple[TrainState, Sums]:
    """One optimizer step on packed rows [R, T] (host arrays, this process's share, see `parallel.row_share`).

    Args:
      state: consumed (donated).
      batch: of `packing`.
      reference: parameters of the reference policy (whole); needed if objective.kl_coef is not 0.
      left_out: of `losses.without_signal`: rows that are not in the batch and count in it, the same in every process.

    Returns:
      The new state, and metrics on the device: means over the trained tokens of the batch, `grad_norm`, and of those
      left out too `tokens`, `loss` and `entropy`, which is estimated for these from what was sampled.
    """
    # All of it is put in line before any of it is done: nothing here waits for a device, or hands it a loose number.
    with jax.transfer_guard("disallow"):
      micro = self._micro_batches(batch)
      left_out = parallel.put_everywhere(self.mesh, left_out)
      denominator, signal = self._weigh(micro, left_out)
      grads, sums = None, None
      for m in micro:
        g, s = self._gradient(state.params, self.frozen, reference, m, denominator)
        grads, sums = (g, s) if grads is None else self._accumulate(grads, g, sums, s)
      params, opt_state, norm = self._apply(state.params, state.opt_state, grads, signal)
      return TrainState(params, opt_state), self._finish(sums, norm, signal, left_out)

  def _weigh_all(self, micro: list[Batch], left_out: Sums) -> tuple[jax.Array, jax.Array]:
    """What divides the loss of the whole batch, and whether it can move the parameters."""
    counts = functools.reduce(_add, [losses.batch_sums(m) for m in micro])
    counts = {name: n + left_out[name] for name, n in counts.items()}
    signal = functools.reduce(jnp.logical_or, [losses.has_signal(m, self.objective) for m in micro])
    return losses.loss_denominator(counts, self.objective.norm), signal

  def _micro_batches(self, batch: PackedBatch) -> list[Batch]:
    _, parts = parallel.row_share(self.mesh)
    shards = parallel.row_shards(self.mesh) // parts
    size = self.micro_batch_rows // parts or len(batch["tokens"])
    size = -(-size // shards) * shards
    batch = pad_rows(batch, size)
    rows = len(batch["tokens"])
    return [parallel.put_rows(self.mesh, {k: v[i : i + size] for k, v in batch.items()}) for i in range(0, rows, size)]

  def logprobs(self, params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Log-probability of each token and entropy of the distribution it was drawn from, both [B, T]."""
    hidden = self.model.forward(params, batch["tokens"], batch["positions"], batch["segments"])
    options = {"temperature": self.objective.temperature, "chunk": self.head_chunk}
    return head.token_scores(self.model, params, hidden, batch["tokens"], batch["segments"], **options)

  def score(self, params: Params, batch: PackedBatch) -> np.ndarray:
    """Log-probability of each token of packed rows, [R, T]."""
    scored = [np.asarray(self._logp(params, m)[0]) for m in self._micro_batches(batch)]
    return np.concatenate(scored)[: len(batch["tokens"])]

  def _micro_gradient(self, trained, frozen, reference, batch, denominator) -> tuple[Params, Sums]:
    def loss_of(trained):
      params = lora.join(frozen, trained) if frozen else trained
      logp, entropy = self.logprobs(params, batch)
      if self.objective.kind == "sft":
        total, sums = losses.sft_loss(logp, batch, entropy=entropy)
      else:
        ref_logp = self.logprobs(reference, batch)[0] if self.objective.kl_coef else None
        total, sums = losses.grpo_loss(logp, batch, self.objective, ref_logp, entropy=entropy)
      loss = total / denominator
      return loss, sums | {"loss": jax.lax.stop_gradient(loss)}

    gradients, sums = jax.grad(loss_of, has_aux=True)(trained)
    # Left to itself XLA sums them over fsdp and gives every device all of them.
    return jax.lax.with_sharding_constraint(gradients, parallel.param_shardings(self.mesh, gradients)), sums

  def _apply_update(self, params, opt_state, grads, signal):
    return optimizer.update(params, opt_state, grads, self.tx, signal)


def _add(a: Any, b: Any) -> Any:
  return jax.tree.map(jnp.add, a, b)


def _accumulated(grads: Params, more: Params, sums: Sums, more_sums: Sums) -> tuple[Params, Sums]:
  return _add(grads, more), losses.add_metrics(sums, more_sums)


def _metrics(sums: Sums, norm: jax.Array, signal: jax.Array, left_out: Sums) -> Sums:
  whole = {"tokens": sums["tokens"] + left_out["tokens"], "entropy": sums["entropy"] + left_out["surprisal"]}
  whole = losses.mean_metrics(whole) | {"grad_norm": norm, "loss": sums.pop("loss"), "skipped": 1.0 - signal}
  return losses.mean_metrics(sums) | whole
