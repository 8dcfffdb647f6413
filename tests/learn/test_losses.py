"""Losses: P-numbers are traps known from other code bases."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sml_jax.data.rows import token_row
from sml_jax.dialogue.record import Dialogue, Turn
from sml_jax.learn import losses
from sml_jax.learn.losses import (
  Objective,
  add_metrics,
  batch_sums,
  grpo_loss,
  has_signal,
  loss_denominator,
  mean_metrics,
  sft_loss,
  without_signal,
)

V = 16
# Compiled: one operation at a time, these tests take several times as long.
token_logprobs = jax.jit(losses.token_logprobs, static_argnames="temperature")
token_entropy = jax.jit(losses.token_entropy, static_argnames="temperature")


def rows(*values, dtype=jnp.float32):
  return jnp.array(values, dtype)


def make_batch(weights, advantages=None, logprobs=None, segments=None):
  """A batch [B, T]; what is not given is 0, segments are one dialogue a row."""
  weights = jnp.asarray(weights, jnp.float32)
  zeros = jnp.zeros_like(weights)
  return {
      "weights": weights,
      "advantages": zeros if advantages is None else jnp.asarray(advantages, jnp.float32),
      "logprobs": zeros if logprobs is None else jnp.asarray(logprobs, jnp.float32),
      "segments": jnp.ones(weights.shape, jnp.int32) if segments is None else jnp.asarray(segments, jnp.int32),
  }


def random_batch(seed, b=4, t=12):
  """Tokens, logits and everything else at random; the tail of each row is padding."""
  rng = np.random.default_rng(seed)
  segments = (np.arange(t)[None] < rng.integers(t // 2, t, (b, 1))).astype(np.int32)
  weights = segments * rng.integers(0, 2, (b, t))
  weights[:, 0], weights[:, 2] = 0, 1
  batch = make_batch(weights, rng.normal(size=(b, t)), -np.abs(rng.normal(size=(b, t))), segments)
  batch["tokens"] = jnp.asarray(rng.integers(0, V, (b, t)), jnp.int32)
  return jnp.asarray(rng.normal(size=(b, t, V)), jnp.float32), batch


def counting_logits(tokens):
  """f32 [B, T, V] of a rigged model: probability .9 on (x + 1) mod V."""
  hit = jax.nn.one_hot((jnp.asarray(tokens) + 1) % V, V)
  return jnp.log(0.9 * hit + 0.1 / (V - 1) * (1 - hit))


def total(fn, batch, *args, norm="token", **kwargs):
  """The loss as the trainer has it: the sum divided by the global count."""
  loss = lambda batch, *args: fn(*args, batch, **kwargs)[0] / loss_denominator(batch_sums(batch), norm)
  return jax.jit(loss)(batch, *args)


# ---------------------------------------------------------------------------------------------- log-probabilities


def test_P14_the_logits_at_t_predict_token_t_plus_1():
  tokens = (jnp.arange(12)[None] + 3) % V
  ones = jnp.ones_like(tokens)
  got = token_logprobs(counting_logits(tokens), tokens, ones)
  np.testing.assert_allclose(got, [[0.0] + [math.log(0.9)] * 11], rtol=1e-5)
  # A model of the token itself instead of the next cannot: 11 ln(.1/15).
  off_by_one = token_logprobs(jnp.roll(counting_logits(tokens), 1, axis=1), tokens, ones)
  np.testing.assert_allclose(off_by_one[0, 2:], [math.log(0.1 / 15)] * 10, rtol=1e-5)


def dialogue(closing_teacher_turn=False, teacher_says=(0,)):
  """Three rounds of teacher header 1.., student header, student turn; the tokens count up by one throughout."""
  count = itertools.count(1)
  take = lambda n: [next(count) % V for _ in range(n)]
  out = Dialogue("t", "math", 0, "full", bos=[0], advantages=[1.0, -0.5, 2.0])
  for n in (4, 1, 6):
    out.turns.append(Turn("teacher", "", tokens=take(5)))
    out.turns.append(Turn("student", "", prompt=take(2), tokens=take(n), logprobs=[-0.3] * n))
  if closing_teacher_turn:
    out.turns.append(Turn("teacher", "", tokens=list(teacher_says)))
  return out


def as_batch(row):
  batch = {k: jnp.asarray(v)[None] for k, v in row.items()}
  return batch | {"segments": jnp.ones_like(batch["tokens"])}


def test_P15_the_first_student_token_of_every_turn_is_predicted_by_the_header():
  batch = as_batch(token_row(dialogue()))
  logp = token_logprobs(counting_logits(batch["tokens"]), batch["tokens"], batch["segments"])
  nll, sums = sft_loss(logp, batch)
  assert sums["tokens"] == 11
  np.testing.assert_allclose(nll, -11 * math.log(0.9), rtol=1e-5)


def test_packed_dialogues_do_not_predict_each_other():
  tokens, segments = rows([1, 2, 3, 4, 5, 6, 0, 0], dtype=jnp.int32), rows([1, 1, 1, 2, 2, 2, 0, 0], dtype=jnp.int32)
  logits = counting_logits(tokens)
  ln9 = math.log(0.9)
  np.testing.assert_allclose(token_logprobs(logits, tokens, segments), [[0, ln9, ln9, 0, ln9, ln9, 0, 0]], rtol=1e-5)
  assert (token_entropy(logits, segments) > 0).tolist() == [[False, True, True, False, True, True, False, False]]


def test_P16_temperature_is_part_of_the_distribution():
  logits, tokens = rows([[0, math.log(3)], [0, 0]]), rows([0, 1], dtype=jnp.int32)
  segments = jnp.ones_like(tokens)
  sampled = token_logprobs(logits, tokens, segments, temperature=0.5)
  scored = token_logprobs(logits, tokens, segments)
  np.testing.assert_allclose(jnp.exp(sampled)[0, 1], 0.9, rtol=1e-6)
  np.testing.assert_allclose(jnp.exp(scored)[0, 1], 0.75, rtol=1e-6)
  batch = make_batch([[0, 1]], logprobs=sampled)
  for logp, ratio in ((scored, 0.83333), (sampled, 1.0)):
    np.testing.assert_allclose(mean_metrics(grpo_loss(logp, batch, Objective())[1])["ratio"], ratio, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_large_and_small_vocabularies_agree_with_log_softmax(monkeypatch, temperature):
  logits, batch = random_batch(0)
  logits *= 20

  def value_and_grad():
    f = lambda x: losses.token_logprobs(x, batch["tokens"], batch["segments"], temperature=temperature)
    return jax.jit(f)(logits), jax.jit(jax.grad(lambda x: (f(x) * batch["advantages"]).sum()))(logits)

  small, small_grad = value_and_grad()
  monkeypatch.setattr(losses, "ONE_HOT_MAX", V - 1)
  large, large_grad = value_and_grad()
  np.testing.assert_array_equal(small, large)
  np.testing.assert_allclose(small_grad, large_grad, atol=1e-6)
  x = np.asarray(logits, np.float64) / temperature
  x -= np.log(np.exp(x).sum(-1, keepdims=True))
  tokens, segments = np.asarray(batch["tokens"]), np.asarray(batch["segments"])
  for b, t in np.ndindex(tokens.shape):
    golden = x[b, t - 1, tokens[b, t]] if t and segments[b, t] else 0.0
    np.testing.assert_allclose(small[b, t], golden, rtol=2e-6, atol=1e-6)


def test_entropy_by_hand():
  logits = rows([[0, 0, 0, 0], [0, math.log(3), -jnp.inf, -jnp.inf], [0, 0, 0, 0]])
  uniform, skewed = math.log(4), -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
  np.testing.assert_allclose(token_entropy(logits, rows([1, 1, 1], dtype=jnp.int32)), [[0, uniform, skewed]], rtol=1e-6)
  # At temperature 1/2 the odds 1:3 become 1:9.
  hot = -(0.1 * math.log(0.1) + 0.9 * math.log(0.9))
  got = token_entropy(logits, rows([1, 1, 1], dtype=jnp.int32), temperature=0.5)
  np.testing.assert_allclose(got[0, 2], hot, rtol=1e-6)


# ------------------------------------------------------------------------------------------- counting and masking


@pytest.mark.parametrize("cuts", [(), (1,), (2,), (1, 2), (1, 2, 3, 4)])
def test_P10_any_split_into_micro_batches_gives_the_same_loss(cuts):
  # A: 9 tokens of loss 1 (in four rows), B: 1 token of loss 0.
  weights = np.zeros((5, 4), np.float32)
  for row, n in enumerate((3, 2, 2, 2, 1)):
    weights[row, :n] = 1
  logp = jnp.asarray([[-1.0] * 4] * 4 + [[0.0] * 4])
  batch = make_batch(weights)
  edges = [0, *cuts, 5]
  parts = [slice(a, b) for a, b in itertools.pairwise(edges)]
  loss, sums = 0.0, None
  for part in parts:
    part_loss, part_sums = sft_loss(logp[part], {k: v[part] for k, v in batch.items()})
    loss += part_loss
    sums = part_sums if sums is None else add_metrics(sums, part_sums)
  np.testing.assert_allclose(loss / loss_denominator(batch_sums(batch), "token"), 0.9, rtol=1e-6)
  np.testing.assert_allclose(mean_metrics(sums)["nll"], 0.9, rtol=1e-6)


@pytest.mark.parametrize("norm", losses.NORMS)
def test_P11_padding_and_packing_do_not_change_the_loss_or_its_gradient(norm):
  logits, batch = random_batch(1)
  objective = Objective(temperature=0.7)

  def loss(logits, batch):
    logp = token_logprobs(logits, batch["tokens"], batch["segments"], temperature=0.7)
    return grpo_loss(logp, batch, objective)[0] / loss_denominator(batch_sums(batch), norm)

  value_and_grad = jax.jit(jax.value_and_grad(loss))
  value, grad = value_and_grad(logits, batch)
  for pad in (1, 64):
    wide = {k: jnp.pad(v, ((0, 3), (0, pad))) for k, v in batch.items()}
    wide_value, wide_grad = value_and_grad(jnp.pad(logits, ((0, 3), (0, pad), (0, 0))), wide)
    np.testing.assert_allclose(wide_value, value, rtol=1e-6)
    np.testing.assert_allclose(wide_grad[:4, :12], grad, atol=1e-7)
  # All four dialogues in one row, each a segment.
  packed = {k: v.reshape(1, -1) for k, v in batch.items()}
  packed["segments"] = (batch["segments"] * jnp.arange(1, 5)[:, None]).reshape(1, -1)
  packed_value, packed_grad = value_and_grad(logits.reshape(1, -1, V), packed)
  np.testing.assert_allclose(packed_value, value, rtol=1e-6)
  np.testing.assert_allclose(packed_grad.reshape(grad.shape), grad, atol=1e-7)


def test_batch_sums_counts_trained_dialogues():
  segments = [[1, 1, 1, 2, 2, 3, 3, 0], [1, 1, 1, 1, 1, 1, 1, 1], [5, 5, 2, 2, 2, 0, 0, 0], [0] * 8]
  weights = [[0, 1, 1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 1, 1, 0, 1], [1, 1, 1, 0, 0, 0, 0, 0], [0] * 8]
  sums = batch_sums(make_batch(weights, segments=segments))
  assert sums["dialogues"] == 5  # the second segment of the first row is not trained
  assert sums["tokens"] == 10
  assert loss_denominator(sums, "token") == 10 and loss_denominator(sums, "dialogue") == 5
  empty = batch_sums(make_batch(np.zeros((2, 3))))
  assert loss_denominator(empty, "token") == 1 and loss_denominator(empty, "dialogue") == 1


@pytest.mark.parametrize("norm", losses.NORMS)
def test_P12_an_untrained_row_is_in_neither_numerator_nor_denominator(norm):
  logits, batch = random_batch(2)
  logp = token_logprobs(logits, batch["tokens"], batch["segments"])
  untrained = {k: jnp.concatenate([v, v[:1] * (0 if k == "weights" else 1)]) for k, v in batch.items()}
  more = jnp.concatenate([logp, logp[:1]])
  np.testing.assert_allclose(total(sft_loss, untrained, more, norm=norm), total(sft_loss, batch, logp, norm=norm))


@pytest.mark.parametrize("norm", losses.NORMS)
def test_P13_tokens_of_short_and_long_wrong_answers_pull_equally(norm):
  # Two wrong answers of 2 and 20 tokens, uniform policy. Divided by its own length, the short one would pull 10 times.
  weights = np.zeros((2, 21), np.float32)
  weights[0, 1:3] = weights[1, 1:21] = 1
  tokens = jnp.ones((2, 21), jnp.int32)
  batch = make_batch(weights, advantages=-np.ones((2, 21)), logprobs=np.full((2, 21), -math.log(V)))

  def loss(logits):
    logp = token_logprobs(logits, tokens, batch["segments"])
    return grpo_loss(logp, batch, Objective())[0] / loss_denominator(batch_sums(batch), norm)

  pull = jnp.abs(jax.jit(jax.grad(loss))(jnp.zeros((2, 21, V)))).sum(-1)  # [B, T]
  each = 1 / (22 if norm == "token" else 2) * (2 * (V - 1) / V)
  np.testing.assert_allclose(pull[0, :2], each, rtol=1e-5)
  np.testing.assert_allclose(pull[1, :20], each, rtol=1e-5)


def test_P30_a_closing_teacher_turn_takes_no_credit():
  plain, closed = (as_batch(token_row(dialogue(c, teacher_says=(7, 8, 9)))) for c in (False, True))
  n = plain["tokens"].shape[1]
  assert closed["tokens"].shape[1] == n + 3
  np.testing.assert_array_equal(closed["advantages"][:, :n], plain["advantages"])
  assert not closed["weights"][:, n:].any()
  values = []
  for batch in (plain, closed):
    logp = token_logprobs(counting_logits(batch["tokens"]), batch["tokens"], batch["segments"])
    values.append(total(grpo_loss, batch, logp, objective=Objective()))
  # 4, 1 and 6 tokens of advantage 1, -.5 and 2 at ratio .9 e^.3 = 1.2149, within the clip.
  np.testing.assert_allclose(values, [-(4 - 0.5 + 12) * 0.9 * math.exp(0.3) / 11] * 2, rtol=1e-5)


def test_P38_nothing_about_an_untrained_token_is_in_loss_gradient_or_metrics():
  _, batch = random_batch(3)
  objective = Objective(kl_coef=0.1)
  rng = np.random.default_rng(3)
  logp, ref, entropy = (jnp.asarray(-np.abs(rng.normal(size=(4, 12))), jnp.float32) for _ in range(3))

  def run(garbage):
    spoil = lambda x: jnp.where(batch["weights"] == 0, garbage, x)
    spoilt = batch | {k: spoil(batch[k]) for k in ("advantages", "logprobs")}
    args = [spoil(x) for x in (logp, ref, entropy)]
    grpo = lambda x: grpo_loss(x, spoilt, objective, args[1], entropy=args[2])
    sft = lambda x: sft_loss(x, spoilt, entropy=args[2])
    return [jax.jit(jax.value_and_grad(f, has_aux=True))(args[0]) for f in (grpo, sft)]

  clean = run(0.0)
  assert set(clean[0][0][1]) == {
      "tokens", "ratio", "clip_fraction", "logp_gap", "ratio_max", "logp_gap_max", "kl", "entropy"
  }  # fmt: skip
  assert set(clean[1][0][1]) == {"tokens", "nll", "entropy"}
  for garbage in (-1e4, 1e4, np.inf, np.nan):
    jax.tree.map(np.testing.assert_array_equal, run(garbage), clean)


def test_metrics_by_hand():
  # Ratios 2, 1, 1/2 with advantages 1, 1, 1: the first is clipped, the last is not. The fourth token is not trained.
  logp = rows([math.log(0.8), math.log(0.5), math.log(0.25), -50.0])
  batch = make_batch([[1, 1, 1, 0]], advantages=np.ones((1, 4)), logprobs=np.log([[0.4, 0.5, 0.5, 1e-9]]))
  ref_logp = logp + rows([0, 0, math.log(2), 9])
  sums = grpo_loss(logp, batch, Objective(), ref_logp, entropy=rows([1, 2, 3, 9]))[1]
  sums = add_metrics(sums, jax.tree.map(lambda x: x * 0.5, sums))
  assert sums["tokens"] == 4.5
  got = mean_metrics(sums)
  golden = {
      "tokens": 4.5,
      "ratio": 3.5 / 3,
      "clip_fraction": 1 / 3,
      "logp_gap": 2 * math.log(2) / 3,
      "ratio_max": 2.0,
      "logp_gap_max": math.log(2),
      "kl": (2 - math.log(2) - 1) / 3,
      "entropy": 2.0,
  }
  assert got.keys() == golden.keys()
  for k, v in golden.items():
    np.testing.assert_allclose(got[k], v, rtol=1e-5, err_msg=k)
  empty = grpo_loss(logp, batch | {"weights": jnp.zeros((1, 4))}, Objective())[1]
  assert all(v == 0 for v in mean_metrics(empty).values())


# --------------------------------------------------------------------------------------------------------- GRPO


@pytest.mark.parametrize(
    ("advantage", "ratio", "value", "clipped"),
    [(1, 1.5, 1.28, 1), (1, 0.5, 0.5, 0), (-1, 1.5, -1.5, 0), (-1, 0.5, -0.8, 1)],
)
def test_P33_the_clip_binds_only_where_it_limits_the_gain(advantage, ratio, value, clipped):
  batch = make_batch([[1]], advantages=[[advantage]], logprobs=[[-2.0]])
  f = lambda logp: grpo_loss(logp, batch, Objective(clip_low=0.2, clip_high=0.28))
  (loss, sums), grad = jax.jit(jax.value_and_grad(f, has_aux=True))(rows([math.log(ratio) - 2.0]))
  np.testing.assert_allclose(loss, -value, rtol=1e-5)
  assert sums["clip_fraction"] == clipped
  np.testing.assert_allclose(grad, [[0.0 if clipped else -advantage * ratio]], rtol=1e-5)


def test_P34_the_ratio_is_to_what_was_sampled_after_several_updates():
  # One token of two words, logits [0, theta]; word 1 was sampled at theta 0. SGD of rate 1 takes theta from 0 to 1/2
  # and, as d ratio / d theta = p (1 - p) / .5, to 1/2 + p (1 - p) / .5.
  tokens, weights = rows([0, 1], dtype=jnp.int32), [[0, 1]]
  batch = make_batch(weights, advantages=[[0, 1]], logprobs=[[0, math.log(0.5)]])

  def loss(theta):
    logits = jnp.stack([jnp.zeros_like(theta), theta])[None, None].repeat(2, axis=1)  # [1, 2, 2]
    return grpo_loss(token_logprobs(logits, tokens, jnp.ones_like(tokens)), batch, Objective())

  step = jax.jit(jax.value_and_grad(loss, has_aux=True))
  theta, seen = jnp.array(0.0), []
  for _ in range(3):
    (_, sums), grad = step(theta)
    seen.append((float(sums["ratio"]), float(sums["clip_fraction"])))
    theta -= grad
  p1 = 1 / (1 + math.exp(-0.5))
  p2 = 1 / (1 + math.exp(-0.5 - p1 * (1 - p1) / 0.5))
  np.testing.assert_allclose(seen, [(1.0, 0.0), (p1 / 0.5, 0.0), (p2 / 0.5, 1.0)], rtol=1e-5)
  assert p1 / 0.5 < 1.28 < p2 / 0.5


def test_P36_on_policy_the_value_is_zero_and_the_gradient_is_reinforce():
  logits, batch = random_batch(4)
  batch["logprobs"] = token_logprobs(logits, batch["tokens"], batch["segments"])
  w = batch["weights"] * (batch["segments"] != 0)
  mean = (w * batch["advantages"]).sum() / w.sum()
  batch["advantages"] -= mean
  f = lambda x: total(
      grpo_loss, batch, token_logprobs(x, batch["tokens"], batch["segments"]), objective=Objective()
  )  # fmt: skip
  value, grad = jax.jit(jax.value_and_grad(f))(logits)
  np.testing.assert_allclose(value, 0.0, atol=1e-6)
  # Analytically: -A (one_hot - p) / tokens at the position before each trained token.
  p = np.asarray(jax.nn.softmax(logits), np.float64)
  golden = np.zeros(grad.shape)
  for b, t in zip(*np.nonzero(np.asarray(w)), strict=True):
    golden[b, t - 1] = -np.asarray(batch["advantages"])[b, t] * (np.eye(V)[batch["tokens"][b, t]] - p[b, t - 1])
  np.testing.assert_allclose(grad, golden / float(w.sum()), atol=1e-6)


def test_P37_k3_has_the_value_of_one_kl_and_the_gradient_of_the_other():
  # Two words, policy (1-p, p), reference (1-q, q). The expectation over the policy as weights, advantage 0.
  p, q = 0.9, 0.3
  theta = math.log(p / (1 - p))
  batch = make_batch([[1 - p, p]], logprobs=np.log([[1 - p, p]]))
  ref = jnp.log(rows([1 - q, q]))

  def loss(theta):
    logp = jax.nn.log_softmax(jnp.stack([jnp.zeros_like(theta), theta]))[None]
    return grpo_loss(logp, batch, Objective(kl_coef=1.0), ref)

  (value, sums), grad = jax.jit(jax.value_and_grad(loss, has_aux=True))(theta)
  kl = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
  k2 = (p * math.log(p / q) ** 2 + (1 - p) * math.log((1 - p) / (1 - q)) ** 2) / 2
  np.testing.assert_allclose([value, sums["kl"]], kl, rtol=1e-5)  # as k1 has; k2 is biased
  assert abs(kl - k2) > 0.05
  # d KL(ref || policy) = p - q; k1 as a loss has gradient 0, k2 that of KL(policy || ref).
  np.testing.assert_allclose(grad, p - q, rtol=1e-5)
  assert abs((p - q) - p * (1 - p) * math.log(p * (1 - q) / (q * (1 - p)))) > 0.3
  # Single words: never negative, unlike k1 = log(p/q).
  for p1, q1 in ((p, q), (1 - p, 1 - q)):
    one = make_batch([[1]], logprobs=[[math.log(p1)]])
    got = grpo_loss(rows([math.log(p1)]), one, Objective(), rows([math.log(q1)]))[1]["kl"]
    np.testing.assert_allclose(got, q1 / p1 - 1 - math.log(q1 / p1), rtol=1e-4)


def test_kl_coefficient_weighs_k3_against_the_surrogate():
  logits, batch = random_batch(5)
  logp = token_logprobs(logits, batch["tokens"], batch["segments"])
  ref = logp + 0.3
  plain, sums = grpo_loss(logp, batch, Objective(), ref)
  np.testing.assert_allclose(sums["kl"] / sums["tokens"], math.exp(0.3) - 1.3, rtol=1e-5)
  loss, _ = grpo_loss(logp, batch, Objective(kl_coef=0.5), ref)
  np.testing.assert_allclose(loss - plain, 0.5 * sums["kl"], rtol=1e-4)
  with pytest.raises(ValueError, match="reference"):
    grpo_loss(logp, batch, Objective(kl_coef=0.5))


def test_has_signal():
  advantages = [[0, 0, 3], [0, 0, 0]]
  trained, elsewhere = [[0, 0, 1], [0, 1, 0]], [[0, 1, 0], [0, 1, 0]]
  for weights, kind, kl_coef, golden in (
      (trained, "grpo", 0.0, True),
      (elsewhere, "grpo", 0.0, False),
      (elsewhere, "grpo", 0.1, True),
      (elsewhere, "sft", 0.0, True),
      (np.zeros((2, 3)), "sft", 0.0, False),
      (np.zeros((2, 3)), "grpo", 0.1, False),
  ):
    batch = make_batch(weights, advantages=advantages)
    assert bool(has_signal(batch, Objective(kind=kind, kl_coef=kl_coef))) is golden


def test_losses_compile():
  logits, batch = random_batch(6)

  @jax.jit
  def step(logits, batch):
    logp = token_logprobs(logits, batch["tokens"], batch["segments"])
    loss, sums = grpo_loss(logp, batch, Objective(), entropy=token_entropy(logits, batch["segments"]))
    return loss / loss_denominator(batch_sums(batch), "dialogue"), sums, has_signal(batch, Objective())

  loss, sums, signal = step(logits, batch)
  assert np.isfinite(loss) and signal and all(np.isfinite(v) for v in sums.values())


@pytest.mark.parametrize(
    "bad", [{"kind": "ppo"}, {"norm": "sequence"}, {"temperature": 0.0}, {"clip_low": 1.5}, {"kl_coef": -1.0}]
)
def test_a_bad_objective_is_refused(bad):
  with pytest.raises(ValueError):
    Objective(**bad)


def test_an_unknown_norm_is_refused():
  with pytest.raises(ValueError, match="sequence"):
    loss_denominator({"tokens": jnp.ones(()), "dialogues": jnp.ones(())}, "sequence")


def test_which_rows_need_no_gradient_and_what_they_count():
  def row(weights, advantage):
    w = np.array(weights, np.float32)
    return {"tokens": np.ones(len(w), np.int32), "weights": w, "advantages": w * advantage, "logprobs": w * -0.5}

  dead, live, masked = row([1, 0, 1, 1], 0), row([0, 0, 1], -2), row([0, 0], 1)
  kept, counts = without_signal([dead, live, masked], Objective())
  assert kept == [live] and counts == {"tokens": 2, "dialogues": 1, "surprisal": 1}  # nothing predicts a first token
  pulled, counts = without_signal([dead, live, masked], Objective(kl_coef=0.1))  # towards the reference
  assert pulled == [dead, live] and counts == {"tokens": 0, "dialogues": 0, "surprisal": 0}
  one, counts = without_signal([dead, dead | {}], Objective())
  assert one == [dead] and counts["dialogues"] == 1
  assert without_signal([], Objective())[0] == []
