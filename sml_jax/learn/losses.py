"""Losses over token rows: sums over tokens of weight times something, divided once by a global count.

Because nothing is averaged before the end, a loss is the same number for any padding, packing, split into
micro-batches or number of devices. A batch is a dict of arrays [B, T]: tokens, weights (loss weight of token t as a
target), advantages, logprobs (sampled, of the temperature-scaled distribution), segments (0 is padding; each packed
dialogue has its own number in its row), positions. Entry t of every per-token array is about *predicting* token t.

Which count divides the sum:

  token     the weights' sum. Every token of the batch pulls equally; when dialogues get longer each pulls less.
  dialogue  the number of trained dialogues. A dialogue's gradient is the gradient of its log-probability, the sum over
            its tokens, as the policy gradient has it; the divisor does not depend on how long dialogues turned out.

Neither has a bias towards long wrong answers, which comes from dividing each sequence by its own length (two wrong
answers of 2 and 20 tokens: the tokens of the first would be pushed ten times as hard as those of the second). Both
count dialogues of zero advantage, so that a batch with little signal makes a small step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from sml_jax.data.rows import TokenRow

Batch = dict[str, jax.Array]
Sums = dict[str, jax.Array]
"""Metrics that add up over micro-batches: sums over weighted tokens, except keys ending in `_max`."""

KINDS = ("sft", "grpo")
NORMS = ("token", "dialogue")
ONE_HOT_MAX = 2048
"""Vocabularies up to this size pick the target by comparing and adding; a gather's backward pass is a slow scatter on
CPU. The numbers are the same."""


@dataclasses.dataclass(frozen=True)
class Objective:
  """What is minimised.

  Attributes:
    kind: "sft" (masked cross-entropy) or "grpo".
    clip_low, clip_high: the ratio to the sampled probability counts within [1 - clip_low, 1 + clip_high].
    kl_coef: weight of the KL divergence from the reference policy; 0 needs no reference.
    temperature: of the distribution that was sampled, and hence is trained.
    norm: what divides the sum, "token" or "dialogue".
  """

  kind: Literal["sft", "grpo"] = "grpo"
  clip_low: float = 0.2
  clip_high: float = 0.28
  kl_coef: float = 0.0
  temperature: float = 1.0
  norm: Literal["token", "dialogue"] = "token"

  def __post_init__(self):
    if self.kind not in KINDS:
      raise ValueError(f"unknown objective {self.kind!r}: one of {', '.join(KINDS)}")
    _check_norm(self.norm)
    if not (0 <= self.clip_low <= 1 and self.clip_high >= 0 and self.kl_coef >= 0 and self.temperature > 0):
      raise ValueError(f"objective out of range: {self}")


def token_logprobs(logits: jax.Array, tokens: jax.Array, segments: jax.Array, *, temperature: float = 1.0) -> jax.Array:
  """Entry t is log p(tokens[t] | the tokens before it in its segment), in nats, from the logits at t-1.

  Args:
    logits: f32 [B, T, V]; those at t predict token t+1.
    tokens: int [B, T].
    segments: int [B, T], 0 for padding.
    temperature: divides the logits; the log-probability is of the scaled distribution.

  Returns:
    f32 [B, T]; 0 for padding and for the first token of a segment, which nothing predicts.
  """
  logp, _ = predictions(logits, jnp.roll(tokens, -1, axis=1), temperature)
  return per_token(logp, segments)


def token_entropy(logits: jax.Array, segments: jax.Array, *, temperature: float = 1.0) -> jax.Array:
  """Entry t is the entropy in nats of the distribution that token t was drawn from; arguments as `token_logprobs`."""
  _, entropy = predictions(logits, jnp.zeros(segments.shape, jnp.int32), temperature)
  return per_token(entropy, segments)


def predictions(logits: jax.Array, following: jax.Array, temperature: float) -> tuple[jax.Array, jax.Array]:
  """What each place says about the next one: the log-probability of the token there, and the entropy, both [B, T].

  Args:
    logits: f32 [B, T, V].
    following: int [B, T], the token after each.
    temperature: divides the logits.
  """
  scaled, log_sum = _log_sum_exp(logits, temperature)  # [B, T, V], [B, T]
  if scaled.shape[-1] <= ONE_HOT_MAX:
    hit = following[..., None] == jnp.arange(scaled.shape[-1])
    chosen = jnp.where(hit, scaled, 0.0).sum(-1)
  else:
    chosen = jnp.take_along_axis(scaled, following[..., None], axis=-1)[..., 0]
  p = jnp.exp(scaled - log_sum[..., None])
  entropy = log_sum - jnp.where(p > 0, p * scaled, 0.0).sum(-1)  # 0 * -inf is not a number
  return chosen - log_sum, entropy


def per_token(predicted: jax.Array, segments: jax.Array) -> jax.Array:
  """Moves `predictions` [B, T] to the token they are about; 0 where there is none in the same segment."""
  return jnp.where(_is_predicted(segments), _shift_right(predicted), 0.0)


def sft_loss(logp: jax.Array, batch: Batch, *, entropy: jax.Array | None = None) -> tuple[jax.Array, Sums]:
  """Weighted cross-entropy, summed over tokens.

  Args:
    logp: f32 [B, T] from `token_logprobs`.
    batch: weights.
    entropy: f32 [B, T] from `token_entropy`, for the metrics alone.

  Returns:
    The loss, a sum to be divided by `loss_denominator`, and sums: tokens, nll, and entropy if given.
  """
  w = batch["weights"]
  loss = (w * -_where_trained(w, logp)).sum()
  sums = {"tokens": w.sum(), "nll": loss}
  if entropy is not None:
    sums["entropy"] = (w * _where_trained(w, entropy)).sum()
  return loss, _no_gradient(sums)


def grpo_loss(
    logp: jax.Array,
    batch: Batch,
    objective: Objective,
    ref_logp: jax.Array | None = None,
    *,
    entropy: jax.Array | None = None,
) -> tuple[jax.Array, Sums]:
  """The clipped policy-gradient surrogate, token by token, summed: -min(ratio A, clip(ratio) A) + kl_coef k3.

  On the policy that sampled, the value is minus the mean advantage, about 0, while the gradient is that of REINFORCE:
  judge a run by its metrics and not by this value. The ratio is to the *sampled* log-probabilities, which stay what
  they were however many updates use the batch.

  k3 (http://joschu.net/blog/kl-approx.html) is unbiased as an estimate of KL(policy || reference), but its gradient
  as a loss is that of KL(reference || policy).

  Args:
    logp: f32 [B, T] from `token_logprobs`, at the objective's temperature.
    batch: weights, advantages, logprobs.
    objective: clip_low, clip_high, kl_coef.
    ref_logp: f32 [B, T] of the reference policy, at the same temperature; needed if kl_coef is not 0, and otherwise
      only measured.
    entropy: f32 [B, T] from `token_entropy`, for the metrics alone.

  Returns:
    The loss, a sum to be divided by `loss_denominator`, and sums: tokens, ratio, clip_fraction (where the clip binds),
    logp_gap (|logp - sampled|), kl and entropy if given; and maxima: ratio_max, logp_gap_max.

  Raises:
    ValueError: kl_coef is not 0 and there is no ref_logp.
  """
  if objective.kl_coef and ref_logp is None:
    raise ValueError("kl_coef is not 0: the reference policy's log-probabilities are needed")
  w = batch["weights"]
  advantage = _where_trained(w, batch["advantages"])
  # Masked before the exponential: an untrained token may overflow it, and 0 * inf is not a number.
  gap = _where_trained(w, logp - batch["logprobs"])
  ratio = jnp.exp(gap)
  low, high = 1.0 - objective.clip_low, 1.0 + objective.clip_high
  loss = -jnp.minimum(ratio * advantage, jnp.clip(ratio, low, high) * advantage)  # [B, T]
  binds = ((advantage > 0) & (ratio > high)) | ((advantage < 0) & (ratio < low))
  trained = w != 0
  sums = {
      "tokens": w.sum(),
      "ratio": (w * ratio).sum(),
      "clip_fraction": (w * binds).sum(),
      "logp_gap": (w * jnp.abs(gap)).sum(),
      "ratio_max": jnp.max(ratio, initial=0.0, where=trained),
      "logp_gap_max": jnp.max(jnp.abs(gap), initial=0.0, where=trained),
  }
  if ref_logp is not None:
    log_ratio = _where_trained(w, ref_logp - logp)
    kl = jnp.exp(log_ratio) - 1.0 - log_ratio  # k3
    sums["kl"] = (w * kl).sum()
    if objective.kl_coef:
      loss += objective.kl_coef * kl
  if entropy is not None:
    sums["entropy"] = (w * _where_trained(w, entropy)).sum()
  return (w * loss).sum(), _no_gradient(sums)


def batch_sums(batch: Batch) -> Sums:
  """The counts that may divide a loss: `tokens`, the sum of weights, and `dialogues`, those with a trained token.

  Both add up over micro-batches. Needs weights and segments [B, T], a segment's tokens side by side.
  """
  trained = (batch["weights"] != 0).astype(jnp.int32)
  segments = batch["segments"]
  so_far = jnp.cumsum(trained, axis=1)
  before_segment = jax.lax.cummax(jnp.where(segments != _shift_right(segments), so_far - trained, 0), axis=1)
  first_trained = trained * (so_far - before_segment == 1)
  return {"tokens": batch["weights"].sum(), "dialogues": first_trained.sum().astype(jnp.float32)}


def loss_denominator(global_sums: Sums, norm: str) -> jax.Array:
  """What divides a loss: the `tokens` or `dialogues` of `batch_sums` of the *whole* batch; 1 if there are none.

  Raises:
    ValueError: an unknown norm.
  """
  _check_norm(norm)
  count = jnp.asarray(global_sums["tokens" if norm == "token" else "dialogues"])
  return jnp.where(count > 0, count, 1.0)


def has_signal(batch: Batch | TokenRow, objective: Objective) -> jax.Array | np.bool_:
  """Whether the batch, or one row of it, can move the parameters at all, a bool scalar: some token is trained and, for
  GRPO without a KL term, some trained token has an advantage. Otherwise the optimizer must not step (see
  `optimizer.update`)."""
  trained = batch["weights"] != 0
  if objective.kind == "grpo" and not objective.kl_coef:
    trained &= batch["advantages"] != 0
  return trained.any()


def without_signal(rows: Sequence[TokenRow], objective: Objective) -> tuple[list[TokenRow], Sums]:
  """Which token rows need no forward and backward pass: those of which no token has a gradient (see `has_signal`).

  All the same they are part of the batch: what they add to the counts that divide a loss stays in them. The first row
  is kept if no other is, so that what a step measures of the policy is never measured of nothing.

  Returns:
    The rows to compute, in their order, and of the others f32 scalars: `tokens` and `dialogues` as `batch_sums` counts
    them, and `surprisal`, the sum of -logprobs over their trained tokens: what is unlikely was sampled rarely, so this
    is an unbiased estimate of their entropy under the policy that sampled them.
  """
  kept = [row for row in rows if has_signal(row, objective)] or list(rows[:1])
  computed = set(map(id, kept))
  out = [row for row in rows if id(row) not in computed]
  weights = [row["weights"][1:] for row in out]  # nothing predicts the first token
  counts = {
      "tokens": sum(w.sum() for w in weights),
      "dialogues": sum(w.any() for w in weights),
      "surprisal": sum(w @ -row["logprobs"][1:] for w, row in zip(weights, out, strict=True)),
  }
  return kept, {k: np.float32(v) for k, v in counts.items()}


def add_metrics(a: Sums, b: Sums) -> Sums:
  """Adds the metric sums of two micro-batches; for keys ending in `_max` it takes the larger."""
  return {k: jnp.maximum(a[k], b[k]) if k.endswith("_max") else a[k] + b[k] for k in a}


def mean_metrics(sums: Sums) -> Sums:
  """Divides metric sums by their `tokens`, once, at the end; maxima and `tokens` stay."""
  tokens = jnp.where(sums["tokens"] > 0, sums["tokens"], 1.0)
  return {k: v if k == "tokens" or k.endswith("_max") else v / tokens for k, v in sums.items()}


def _log_sum_exp(logits: jax.Array, temperature: float) -> tuple[jax.Array, jax.Array]:
  """Scaled logits [B, T, V] less their largest, for precision, and the log of the sum of their exponentials [B, T]."""
  scaled = logits.astype(jnp.float32) / temperature
  scaled -= jax.lax.stop_gradient(scaled.max(-1, keepdims=True))
  return scaled, jnp.log(jnp.exp(scaled).sum(-1))


def _shift_right(x: jax.Array) -> jax.Array:
  """Entry t of the result is entry t-1 of x [B, T]; 0 at index 0."""
  return jnp.pad(x[:, :-1], ((0, 0), (1, 0)))


def _is_predicted(segments: jax.Array) -> jax.Array:
  """Bool [B, T]: token t has a token of its own segment before it."""
  return (segments != 0) & (segments == _shift_right(segments))


def _where_trained(weights: jax.Array, x: jax.Array) -> jax.Array:
  return jnp.where(weights != 0, x, 0.0)


def _no_gradient(sums: Sums) -> Sums:
  return {k: jax.lax.stop_gradient(v) for k, v in sums.items()}


def _check_norm(norm: str) -> None:
  if norm not in NORMS:
    raise ValueError(f"unknown loss norm {norm!r}: one of {', '.join(NORMS)}")
