"""The head in pieces of the vocabulary: the same numbers, and never all logits."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sml_jax.learn.head import token_scores
from sml_jax.models.transformer import Model, ModelConfig

SEGMENTS = [[1, 1, 1, 2, 2, 2, 2, 0, 0], [3, 3, 3, 3, 3, 3, 3, 3, 3], [0] * 9]


def make_model(vocabulary, width, mesh=None, **changes) -> Model:
  return Model(ModelConfig(vocabulary, width, layers=1, heads=1, kv_heads=1, head_dim=2, mlp_dim=2, **changes), mesh)


def random_case(model: Model, segments, scale=1.0):
  """params, hidden, tokens, segments, cotangent [B, T]; all target ids are usable."""
  rng, c = np.random.default_rng(0), model.config
  segments = jnp.asarray(segments, jnp.int32)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape) * scale, jnp.float32)
  params = {"embedding": {"table": draw(c.vocab_size, c.d_model)}}
  if not c.tied_embeddings:
    params["embedding"]["head"] = draw(c.d_model, c.vocab_size)
  tokens = jnp.asarray(rng.integers(0, c.usable_vocab or c.vocab_size, segments.shape), jnp.int32)
  return params, draw(*segments.shape, c.d_model), tokens, segments, draw(*segments.shape)


def gradient(model: Model, chunk: int, temperature: float = 0.7):
  """(params, hidden, tokens, segments, cotangent) -> (gradients of params and hidden, (log-probabilities, entropy))."""

  def f(params, hidden, tokens, segments, g):
    logp, entropy = token_scores(model, params, hidden, tokens, segments, temperature=temperature, chunk=chunk)
    # The entropy has no gradient, so that it may stand here.
    return (logp * g).sum() + (entropy * g).sum(), (logp, entropy)

  return jax.grad(f, argnums=(0, 1), has_aux=True)


def assert_same(a, b):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5, rtol=1e-5), a, b)


@pytest.mark.parametrize("chunk", [0, 2])
def test_by_hand(chunk):
  # Logits 0, ln 2, ln 5 at temperature 1: probabilities 1/8, 2/8, 5/8.
  model = make_model(3, 2)
  params = {"embedding": {"table": jnp.log(jnp.array([[1.0, 1], [2, 1], [5, 1]]))}}
  hidden, segments = jnp.tile(jnp.array([1.0, 0.0]), (1, 5, 1)), jnp.array([[1, 1, 1, 1, 0]])
  logp, entropy = token_scores(model, params, hidden, jnp.array([[0, 2, 1, 0, 0]]), segments, chunk=chunk)
  np.testing.assert_allclose(jnp.exp(logp), [[1, 5 / 8, 2 / 8, 1 / 8, 1]], rtol=1e-6)
  nats = -sum(p * np.log(p) for p in (1 / 8, 2 / 8, 5 / 8))
  np.testing.assert_allclose(entropy, [[0, nats, nats, nats, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "chunk"),
    [({}, 1), ({}, 30), ({"tied_embeddings": False}, 96), ({"usable_vocab": 40}, 16)],
    ids=["one by one", "ragged", "untied, one is left", "whole pieces never sampled"],
)
def test_pieces_equal_the_whole(changes, chunk):
  model = make_model(97, 6, **changes)
  case = random_case(model, SEGMENTS)
  assert_same(jax.jit(gradient(model, chunk))(*case), jax.jit(gradient(model, 0))(*case))


def test_extreme_logits():
  """Exponentials that underflow in a whole piece, and a target that is never sampled: as with all logits at once."""
  model = make_model(12, 6, usable_vocab=10)
  params, hidden, tokens, *rest = random_case(model, SEGMENTS, scale=20.0)
  tokens = tokens.at[0, 1].set(11)
  golden, got = (jax.jit(gradient(model, chunk))(params, hidden, tokens, *rest) for chunk in (0, 4))
  assert golden[1][0][0, 1] < -1e29 and got[1][0][0, 1] < -1e29
  golden, got = (jax.tree.map(lambda x: jnp.maximum(x, -1e29), x) for x in (golden, got))
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-3), got, golden)


def array_sizes(text: str, operation: str = "") -> list[int]:
  """Elements of the arrays that a compiled program makes, or those that one kind of operation makes."""
  made = re.findall(rf"= \(?[a-z0-9]+\[([0-9,]+)\]\S* {operation or '[a-z]'}", text)
  return [math.prod(map(int, shape.split(","))) for shape in made]


def test_the_compiled_step_never_holds_all_logits():
  # 262,144 entries in pieces of 8,192 for 2 x 256 tokens: 16 MiB of logits at once instead of 512 MiB.
  b, t, v, d, chunk = 2, 256, 262_144, 32, 8_192
  model = make_model(v, d)
  case = jax.eval_shape(lambda: random_case(model, np.ones((b, t))))
  whole, pieces = (jax.jit(gradient(model, n)).lower(*case).compile() for n in (0, chunk))
  need = lambda step: step.memory_analysis().temp_size_in_bytes
  assert need(whole) > 2 * (4 * b * t * v)
  assert need(pieces) < 4 * (4 * b * t * chunk) + 2 * (4 * v * d)
  assert max(array_sizes(whole.as_text())) == b * t * v
  assert max(array_sizes(pieces.as_text())) == v * d < t * v


EIGHT_DEVICES = """
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from sml_jax import parallel
from test_head import array_sizes, assert_same, gradient, make_model, random_case

mesh = parallel.make_mesh(1, 4, 2)
segments = np.repeat([[1] * 20 + [2] * 30 + [0] * 14], 4, 0)
for changes in ({}, {"tied_embeddings": False, "usable_vocab": 1001}):
  case = random_case(make_model(1022, 16, **changes), segments)
  golden = jax.jit(gradient(make_model(1022, 16, **changes), 0))(*case)
  params = jax.device_put(case[0], parallel.param_shardings(mesh, case[0]))
  case = [params, *jax.device_put(case[1:], NamedSharding(mesh, parallel.ROWS))]
  step = jax.jit(gradient(make_model(1022, 16, mesh, **changes), 200)).lower(*case).compile()
  assert_same(step(*case), golden)
  # Of 2 x 100 entries each device gathers its 100, of width 16; its logits are 1 x 64 x 100.
  print(max(array_sizes(step.as_text(), "all-gather")), max(array_sizes(step.as_text(), "all-reduce")))
"""


def test_on_a_mesh_the_head_is_gathered_by_pieces_and_logits_never():
  env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
  call = [sys.executable, "-c", EIGHT_DEVICES]
  done = subprocess.run(call, capture_output=True, text=True, env=env, cwd=os.path.dirname(__file__))
  assert done.returncode == 0, done.stderr[-3000:]
  assert done.stdout.splitlines() == ["1600 1600"] * 2
