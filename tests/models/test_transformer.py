"""The transformer against the same formulas in NumPy; caches, packing and padding that change nothing."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sml_jax.models.transformer import Model, ModelConfig, parameter_count, rotary_angles, rotate

BASE = ModelConfig(vocab_size=19, d_model=12, layers=2, heads=4, kv_heads=2, head_dim=6, mlp_dim=20, rope_theta=100.0)


def make(**changes) -> tuple[Model, dict]:
  """A model whose norms' scales are random too, so that none could be forgotten."""
  model, rng = Model(dataclasses.replace(BASE, **changes)), np.random.default_rng(1)
  like = jax.eval_shape(model.init, jax.random.key(0))
  draw = lambda path, a: rng.uniform(0.5, 2, a.shape) if path[-1].key == "scale" else rng.normal(0, 0.3, a.shape)
  return model, jax.tree_util.tree_map_with_path(lambda path, a: jnp.asarray(draw(path, a), jnp.float32), like)


@pytest.fixture(scope="module")
def made():
  return make()


def alone(tokens) -> tuple[jax.Array, jax.Array, jax.Array]:
  """tokens [B, T] as rows of one segment each."""
  tokens = jnp.atleast_2d(jnp.asarray(tokens))
  return tokens, jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape), jnp.ones_like(tokens)


@functools.partial(jax.jit, static_argnums=0)
def jitted_logits(model, params, tokens, positions, segments):
  return model.logits(params, model.forward(params, tokens, positions, segments))


def logits(*arguments) -> np.ndarray:
  return np.asarray(jitted_logits(*arguments))


@functools.partial(jax.jit, static_argnums=0)
def extend(model, params, cache, tokens, lengths, reach=None):
  return model.extend(params, cache, tokens, lengths, reach=reach)


@functools.partial(jax.jit, static_argnums=0)
def hidden_of(model, params, tokens, positions, segments):
  return model.forward(params, tokens, positions, segments)


def random_tokens(*shape: int) -> np.ndarray:
  return np.random.default_rng(0).integers(0, BASE.vocab_size, shape)


# The formulas once more, one row and one head at a time, float64.


def np_norm(x, scale, eps):
  return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * scale


def np_rotate(x, position, theta):
  half = len(x) // 2
  out = np.empty_like(x)
  for i in range(half):
    angle = position * theta ** (-i / half)
    out[i] = x[i] * np.cos(angle) - x[i + half] * np.sin(angle)
    out[i + half] = x[i + half] * np.cos(angle) + x[i] * np.sin(angle)
  return out


def np_logits(c: ModelConfig, params, tokens) -> np.ndarray:
  """Logits [T, V] of one dialogue."""
  p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
  n, group = len(tokens), c.heads // c.kv_heads
  x = p["embedding"]["table"][tokens] * np.sqrt(c.d_model)
  for layer in range(c.layers):
    w = jax.tree.map(lambda a, layer=layer: a[layer], p["blocks"])
    h = np_norm(x, w["attn_norm"]["scale"], c.norm_eps)
    out = np.zeros_like(x)
    for head in range(c.heads):
      kv = head // group  # query heads of a group are neighbours
      q = np.stack([np_rotate(h[t] @ w["q"][:, head], t, c.rope_theta) for t in range(n)])
      k = np.stack([np_rotate(h[t] @ w["k"][:, kv], t, c.rope_theta) for t in range(n)])
      v = h @ w["v"][:, kv]
      for t in range(n):
        score = k[: t + 1] @ q[t] / np.sqrt(c.head_dim)
        weight = np.exp(score - score.max())
        out[t] += (weight / weight.sum()) @ v[: t + 1] @ w["o"][head]
    x = x + out
    h = np_norm(x, w["mlp_norm"]["scale"], c.norm_eps)
    gate = h @ w["gate"]
    x = x + (gate / (1 + np.exp(-gate)) * (h @ w["up"])) @ w["down"]
  x = np_norm(x, p["final_norm"]["scale"], c.norm_eps)
  return x @ (p["embedding"]["table"].T if c.tied_embeddings else p["embedding"]["head"])


@pytest.mark.parametrize("changes", [
    {}, {"tied_embeddings": False}, {"kv_heads": 1}, {"kv_heads": 4}, {"scan_layers": True}, {"norm_eps": 0.1},
])  # fmt: skip
def test_forward_is_the_formulas(changes):
  model, params = make(**changes)
  tokens = random_tokens(2, 9)
  got = logits(model, params, *alone(tokens))
  for row in range(2):
    np.testing.assert_allclose(got[row], np_logits(model.config, params, tokens[row]), atol=2e-5)
  assert ("head" in params["embedding"]) == (not model.config.tied_embeddings)


def test_scanned_layers_are_the_unrolled_ones(made):
  model, params = made
  scanned = Model(dataclasses.replace(BASE, scan_layers=True))
  assert jax.tree.structure(params) == jax.tree.structure(jax.eval_shape(scanned.init, jax.random.key(0)))
  inputs = alone(random_tokens(2, 9))
  want = logits(model, params, *inputs)
  np.testing.assert_allclose(logits(scanned, params, *inputs), want, atol=1e-5)
  np.testing.assert_array_equal(logits(model, model.unstacked(params), *inputs), want)
  gradient = lambda m: jax.jit(jax.grad(lambda p: (m.forward(p, *inputs) ** 2).mean()))(params)
  for a, b in zip(jax.tree.leaves(gradient(model)), jax.tree.leaves(gradient(scanned)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("turned", [False, True], ids=["plain weights", "turned weights"])
@pytest.mark.parametrize("chunks", [[1] * 12, [5, 7], [3, 1, 1, 7], [12]])
def test_decoding_through_the_cache_is_forward(made, chunks, turned):
  model, params = made
  tokens = random_tokens(2, 12)
  want = np.asarray(hidden_of(model, params, *alone(tokens)))
  cache, lengths, start = model.init_cache(2, (4, 4, 8)), jnp.zeros(2, jnp.int32), 0
  unstacked = model.unstacked(params, turned)
  np.testing.assert_allclose(logits(model, unstacked, *alone(tokens)), logits(model, params, *alone(tokens)), atol=1e-5)
  for n in chunks:
    hidden, cache = extend(model, unstacked, cache, jnp.asarray(tokens[:, start : start + n]), lengths)
    np.testing.assert_allclose(hidden, want[:, start : start + n], atol=1e-5)
    start, lengths = start + n, lengths + n


def test_rows_of_unequal_length_share_a_cache(made):
  """Row 0 has 3 tokens and row 1 has 8; the pad behind row 0's is overwritten and never seen."""
  model, params = made
  tokens = random_tokens(2, 12)
  want = np.asarray(hidden_of(model, params, *alone(tokens)))
  cache, lengths = model.init_cache(2, (4, 4, 8)), jnp.array([3, 8])
  _, cache = extend(model, params, cache, jnp.asarray(tokens[:, :8]), jnp.zeros(2, jnp.int32))
  following = jnp.asarray([tokens[0, 3:7], tokens[1, 8:12]])
  hidden, _ = extend(model, params, cache, following, lengths)
  np.testing.assert_allclose(hidden, np.stack([want[0, 3:7], want[1, 8:12]]), atol=1e-5)


def test_what_stands_beyond_a_row_s_length_never_matters(made):
  model, params = made
  tokens, lengths = jnp.asarray(random_tokens(2, 4)), jnp.array([2, 5])
  clean = jax.tree.map(lambda a: jax.random.normal(jax.random.key(2), a.shape), model.init_cache(2, (16,)))
  slots = jnp.arange(16)
  beyond = slots[:, None] >= lengths[:, None, None, None], slots >= lengths[:, None, None, None]  # of values, and keys
  dirty = tuple(
      tuple((jnp.where(beyond[a.shape[3] == 16], 1e6, a),) for (a,) in layer) for layer in clean
  )  # fmt: skip
  out = [np.asarray(extend(model, params, c, tokens, lengths)[0]) for c in (clean, dirty)]
  np.testing.assert_array_equal(*out)


def test_a_longer_reach_changes_no_bit(made):
  """Whether attention is over 8, 16, 32 or all 64 slots, and in whose lane a row is fed."""
  model, params = made
  tokens, lengths = jnp.asarray(random_tokens(3, 5)), jnp.zeros(3, jnp.int32)
  start = lambda: model.init_cache(3, (8, 8, 16, 32))
  hidden, cache = extend(model, params, start(), tokens, lengths)
  for reach in range(4):
    shorter = extend(model, params, start(), tokens, lengths, jnp.int32(reach))
    np.testing.assert_array_equal(hidden, shorter[0])
    jax.tree.map(np.testing.assert_array_equal, cache, shorter[1])
  want, _ = model.extend(params, start(), tokens, lengths)
  np.testing.assert_allclose(hidden, hidden_of(model, params, *alone(tokens)), atol=1e-5)
  rows = jnp.array([[2, 0, 7]])  # the third lane has no row
  lanes, fed = model.extend(params, start(), tokens[jnp.array([2, 0, 1])], lengths, rows=rows)
  np.testing.assert_allclose(lanes[:2], want[jnp.array([2, 0])], atol=1e-5)
  for got, all_rows in zip(jax.tree.leaves(fed), jax.tree.leaves(cache), strict=True):
    np.testing.assert_allclose(got[jnp.array([0, 2])], all_rows[jnp.array([0, 2])], atol=1e-5)
    assert not np.asarray(got[1]).any()


@pytest.mark.parametrize("b, t, heads, kv_heads, width", [
    (32, 1, 8, 2, 32), (4, 16, 2, 1, 8), (8, 1, 16, 1, 64), (64, 1, 8, 4, 32), (2, 16, 4, 4, 16),
])  # fmt: skip
def test_a_longer_reach_changes_no_bit_in_any_shape(b, t, heads, kv_heads, width):
  """As many rows and tokens as decode, or are fed, at a time: XLA makes other programs of them."""
  config = dataclasses.replace(BASE, heads=heads, kv_heads=kv_heads, head_dim=width, layers=1)
  model = Model(config)
  params, cache = model.init(jax.random.key(0)), model.init_cache(b, (32, 32, 64, 128))
  lengths = jnp.asarray(np.random.default_rng(0).integers(0, 40, b), jnp.int32)
  _, cache = extend(model, params, cache, jnp.asarray(random_tokens(b, 40)), jnp.zeros(b, jnp.int32))
  tokens = jnp.asarray(random_tokens(b, t))
  want, *others = (np.asarray(extend(model, params, cache, tokens, lengths, jnp.int32(r))[0]) for r in range(4))
  for got in others:
    np.testing.assert_array_equal(got, want)


def laid_out(parts, length: int, start: int = 0) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Dialogues one after the other in one row from `start` on; the rest is padding of a token that exists."""
  tokens, positions, segments = np.full((1, length), 7), np.zeros((1, length), int), np.zeros((1, length), int)
  for segment, part in enumerate(parts, 1):
    end = start + len(part)
    tokens[0, start:end], positions[0, start:end], segments[0, start:end] = part, np.arange(len(part)), segment
    start = end
  return jnp.asarray(tokens), jnp.asarray(positions), jnp.asarray(segments)


@pytest.mark.parametrize("left, right", [(0, 0), (0, 7), (7, 0), (0, 64), (64, 0), (57, 7), (7, 57)])
def test_P22_padding_on_either_side_changes_nothing(made, left, right):
  model, params = made
  tokens = random_tokens(1, 9)
  want = logits(model, params, *alone(tokens))[0]
  got = logits(model, params, *laid_out([tokens[0]], left + 9 + right, left))[0, left : left + 9]
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_P22_the_order_of_packing_changes_nothing(made):
  model, params = made
  parts = [random_tokens(30)[a:b] for a, b in ((0, 4), (4, 13), (13, 20))]
  want = [logits(model, params, *alone(p))[0] for p in parts]
  for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
    got, start = logits(model, params, *laid_out([parts[i] for i in order], 24))[0], 0
    for i in order:
      np.testing.assert_allclose(got[start : start + len(parts[i])], want[i], atol=1e-5)
      start += len(parts[i])


@pytest.mark.parametrize("scan_layers", [False, True])
def test_P23_packed_dialogues_do_not_see_each_other(scan_layers):
  """Bitwise: other tokens in segment A leave segment B's logits as they are, on either side of it."""
  model, params = make(scan_layers=scan_layers, tied_embeddings=False)
  b, c = [3, 1, 4, 1, 5], [2, 7, 2]
  runs = [logits(model, params, *laid_out([a, b, c], 16))[0] for a in ([9, 10, 11, 12], [13, 14, 9, 9])]
  np.testing.assert_array_equal(runs[0][4:12], runs[1][4:12])
  assert np.abs(runs[0][1:4] - runs[1][1:4]).max() > 0.1
  tail = [logits(model, params, *laid_out([b, a], 16))[0] for a in ([9, 10, 11, 12], [13, 14, 9, 9])]
  np.testing.assert_array_equal(tail[0][:5], tail[1][:5])

  tokens, positions, segments = laid_out([[9, 10, 11, 12], b], 9)
  of_b = lambda p: (jitted_logits(model, p, tokens, positions, segments)[0, 4:] ** 2).sum()
  grads = jax.jit(jax.grad(of_b))(params)
  table = np.asarray(grads["embedding"]["table"])
  assert not table[[9, 10, 11, 12]].any() and np.abs(table[b]).max() > 0


def test_rotation_by_hand():
  x = jnp.asarray([[[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]]])  # [1, 3, 1, 2]: one frequency, angle = position
  got = rotate(x, rotary_angles(jnp.asarray([[0, 1, 2]]), 2, 10_000.0))[0, :, 0]
  np.testing.assert_allclose(got, [[1, 0], [np.cos(1), np.sin(1)], [-np.sin(2), np.cos(2)]], atol=1e-6)


def test_only_the_distance_of_positions_matters(made):
  model, params = made
  tokens, positions, segments = alone(random_tokens(1, 9))
  moved = logits(model, params, tokens, positions + 100, segments)
  np.testing.assert_allclose(moved, logits(model, params, tokens, positions, segments), atol=1e-4)


def test_bfloat16_activations_give_float32_logits_nearby(made):
  model, params = made
  half = Model(dataclasses.replace(BASE, dtype=jnp.bfloat16))
  inputs = alone(random_tokens(2, 9))
  assert hidden_of(half, params, *inputs).dtype == jnp.bfloat16
  assert half.init_cache(1, (8,))[0][0][0].dtype == jnp.bfloat16
  got = logits(half, params, *inputs)
  assert got.dtype == np.float32
  np.testing.assert_allclose(got, logits(model, params, *inputs), atol=0.25)


def test_initial_parameters():
  """f32, as many as the formula says, normal of standard deviation 1 / sqrt(fan in), other ones for another key."""
  model = Model(ModelConfig(vocab_size=300, d_model=64, layers=2, heads=4, kv_heads=2, head_dim=16, mlp_dim=128))
  params, other = (jax.jit(model.init)(jax.random.key(i, impl="unsafe_rbg")) for i in (0, 1))  # compiles fast
  attention, mlp = 64 * 16 * (4 + 2 + 2 + 4), 3 * 64 * 128
  assert parameter_count(params) == 300 * 64 + 2 * (attention + mlp + 2 * 64) + 64
  assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(params))
  for name, std in (("q", 64**-0.5), ("o", (64 * 4) ** -0.5), ("gate", 64**-0.5), ("down", (128 * 4) ** -0.5)):
    assert abs(float(params["blocks"][name].std()) / std - 1) < 0.05
    assert not np.array_equal(params["blocks"][name][0], params["blocks"][name][1])  # layers differ
  assert not np.array_equal(params["blocks"]["q"], other["blocks"]["q"])


@pytest.mark.parametrize("bad, text", [({"kv_heads": 3}, r"heads \(4\) must be a multiple"), ({"head_dim": 5}, "even")])
def test_a_shape_that_can_not_be_is_refused(bad, text):
  with pytest.raises(ValueError, match=text):
    dataclasses.replace(BASE, **bad)
