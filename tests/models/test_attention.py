"""Attention: hand values for every implementation, and the kernels against plain XLA."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sml_jax.errors import UserError
from sml_jax.models import attention
from sml_jax.models.attention import cached_attention, packed_attention

SEGMENTS = [[1, 1, 1, 1, 2, 2, 2, 0]]
GLOBAL = [0, 0.5, 1, 1.5, 4, 4.5, 5, 7]
LOCAL = [0, 0.5, 1.5, 2.5, 4, 4.5, 5.5, 7]  # window 2


def random_case(seed, b, t, h, k, e):
  """q, k, v, a cotangent [B, T, H, E] and segments: two of them and padding; the last of several rows has none."""
  rng = np.random.default_rng(seed)
  q, key, v, g = (jnp.asarray(rng.normal(size=(b, t, n, e)), jnp.float32) for n in (h, k, k, h))
  ends = np.sort(rng.integers(1, t, (b, 2)))
  at = np.arange(t)
  segments = np.where(at < ends[:, :1], 1, np.where(at < ends[:, 1:], 2, 0))
  segments[1:][-1:] = 0
  return q, key, v, g, jnp.asarray(segments, jnp.int32)


def values_and_gradients(case, *, is_local=(False, True), **options):
  """For each entry of is_local, output and gradients of q, k, v; what a padded query gives counts for neither."""
  *qkv, g, segments = case

  def f(*qkv, local):
    out = packed_attention(*qkv, segments, is_local=local, **options)
    return (jnp.where((segments != 0)[..., None, None], out, 0.0) * g).sum(), out

  # Where both kinds of layer are wanted, they are one program, as when layers are scanned.
  f = jax.grad(f, argnums=(0, 1, 2), has_aux=True)
  f = jax.jit(f, static_argnames=() if len(is_local) > 1 else "local")
  for local in is_local:
    grads, out = f(*qkv, local=local)
    assert np.isfinite(out).all()
    yield np.where((segments != 0)[..., None, None], out, 0.0)
    yield from grads


def assert_same(case, impl, atol, mesh=None, **options):
  got = values_and_gradients(case, impl=impl, mesh=mesh, **options)
  for a, b in zip(got, values_and_gradients(case, impl="xla", **options), strict=True):
    np.testing.assert_allclose(a, b, atol=atol)


@pytest.fixture
def cudnn_in_xla(monkeypatch):
  """impl="cudnn" with XLA behind the call that would run cuDNN's kernel."""
  call = jax.nn.dot_product_attention

  def without_gpu(*args, implementation, **kwargs):
    assert implementation == "cudnn"
    return call(*args, implementation="xla", **kwargs)

  monkeypatch.setattr(jax.nn, "dot_product_attention", without_gpu)
  monkeypatch.setattr(attention, "_choose", lambda impl, *_: impl)


@pytest.mark.parametrize(
    ("impl", "traced"), [("xla", False), ("xla", True), ("splash", True), ("cudnn", False), ("cudnn", True)]
)
def test_what_a_token_sees(impl, traced, cudnn_in_xla):
  # Queries of 0 weigh all that they see equally: the mean of their places. Heads 0, 1 read place, heads 2, 3 minus it.
  q, k = jnp.zeros((1, 8, 4, 8)), jnp.ones((1, 8, 2, 8))
  v = jnp.arange(8.0)[None, :, None, None] * jnp.array([1.0, -1.0])[:, None] * jnp.ones(8)
  run = functools.partial(packed_attention, q, k, v, jnp.asarray(SEGMENTS), window=2, scale=1.0, impl=impl)
  for local, golden in ((False, GLOBAL), (True, LOCAL)):
    f = jax.jit(lambda local: run(is_local=local)) if traced else lambda local: run(is_local=local)
    out = f(jnp.asarray(local) if traced else local)
    for head in range(4):
      np.testing.assert_allclose(out[0, :, head], np.outer(golden, [1 - 2 * (head > 1)] * 8), atol=1e-6)


def test_scale_by_hand():
  # Scores 0 and ln 3 times 2: weights 1/10 and 9/10.
  q = jnp.full((1, 2, 1, 1), np.log(3), jnp.float32)
  k = v = jnp.array([0.0, 1.0])[None, :, None, None]
  out = packed_attention(q, k, v, jnp.ones((1, 2), jnp.int32), window=0, is_local=False, scale=2.0)
  np.testing.assert_allclose(out[0, :, 0, 0], [0.0, 0.9], rtol=1e-6)


def test_splash_equals_xla():
  assert_same(random_case(0, 1, 520, 2, 1, 8), "splash", 2e-5, window=150, scale=0.2)  # 5 x 5 blocks, some empty
  assert_same(random_case(1, 2, 100, 4, 2, 64), "splash", 2e-5, window=17, scale=0.2, is_local=[True])


def test_what_is_passed_to_cudnn(cudnn_in_xla):
  assert_same(random_case(1, 3, 24, 4, 2, 8), "cudnn", 1e-5, window=5, scale=0.3)


# ------------------------------------------------------------------------------------------------------- caches


def test_cached_by_hand():
  # Two rows, three queries each at their own places; slots beyond hold what a longer dialogue left there.
  k, slots = jnp.ones((2, 1, 2, 8)), jnp.arange(8.0)
  v = jnp.where(slots < 7, slots, 1e6)[None, None, :, None] * jnp.ones((2, 1, 8, 2))
  q, positions = jnp.zeros((2, 3, 2, 2)), jnp.array([[0, 1, 2], [4, 5, 6]])
  for local, golden in ((False, [[0, 0.5, 1], [2, 2.5, 3]]), (True, [[0, 0.5, 1], [3, 4, 5]])):
    for is_local in (local, jnp.asarray(local)):
      run = jax.jit(functools.partial(cached_attention, window=3, is_local=is_local, scale=1.0))
      out = run(q, jnp.split(k, (2, 5), 3), jnp.split(v, (2, 5), 2), positions)
      np.testing.assert_allclose(out, np.broadcast_to(np.array(golden)[:, :, None, None], (2, 3, 2, 2)), rtol=1e-6)


def test_cached_equals_packed():
  q, k, v, *_ = random_case(3, 2, 12, 4, 2, 8)

  @jax.jit
  def both(local):
    options = {"window": 4, "is_local": local, "scale": 0.4}
    golden = packed_attention(q, k, v, jnp.ones((2, 12), jnp.int32), **options)
    held = [jnp.pad(a.swapaxes(1, 2), ((0, 0), (0, 0), (0, 5), (0, 0)), constant_values=9.0) for a in (k, v)]
    cache = jnp.split(held[0].swapaxes(2, 3), (4, 8), 3), jnp.split(held[1], (4, 8), 2)
    at = lambda i, j: jnp.tile(jnp.arange(i, j), (2, 1))
    parts = [cached_attention(q[:, i:j], *cache, at(i, j), **options) for i, j in ((0, 5), (5, 6), (6, 12))]
    return jnp.concatenate(parts, 1), golden

  for local in (False, True):
    np.testing.assert_allclose(*both(local), atol=1e-6)


# ----------------------------------------------------------------------------------------------- devices and meshes


def device(platform, capability="9.0"):
  return types.SimpleNamespace(platform=platform, compute_capability=capability)


@pytest.mark.parametrize(
    ("golden", "on", "shape", "dtype"),
    [
        ("xla", device("cpu"), (1, 8, 2, 64), "bfloat16"),
        ("splash", device("tpu"), (1, 7, 2, 64), "float32"),
        ("cudnn", device("gpu"), (1, 8, 2, 256), "bfloat16"),
        ("cudnn", device("gpu", "10.0"), (1, 8, 2, 256), "float16"),
        ("cudnn", device("gpu", "8.0"), (1, 8, 2, 128), "bfloat16"),
        ("xla", device("gpu", "8.0"), (1, 8, 2, 256), "bfloat16"),
        ("xla", device("gpu", "7.5"), (1, 8, 2, 64), "float16"),
        ("xla", device("gpu"), (1, 8, 2, 64), "float32"),
        ("xla", device("gpu"), (1, 7, 2, 64), "bfloat16"),
        ("xla", device("gpu"), (1, 8, 2, 60), "bfloat16"),
    ],
)
def test_auto(golden, on, shape, dtype):
  q = jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
  assert attention._choose("auto", on, q) == golden
  if golden == "xla" and on.platform == "gpu":
    with pytest.raises(UserError, match=r"^model\.attention=cudnn needs .*; use model\.attention=auto or xla$"):
      attention._choose("cudnn", on, q)


def test_refusals():
  q, *_, segments = random_case(0, 1, 8, 2, 2, 8)
  run = functools.partial(packed_attention, q, q, q, segments, window=0, is_local=False, scale=1.0)
  with pytest.raises(UserError, match="cudnn needs a GPU, and the devices are cpu"):
    run(impl="cudnn")
  with pytest.raises(UserError, match="unknown 'flash'; one of auto, xla, splash, cudnn"):
    run(impl="flash")


def run_script(script: str, **env: str) -> str:
  call, env = [sys.executable, "-c", script], os.environ | {"JAX_PLATFORMS": "cpu"} | env
  done = subprocess.run(call, capture_output=True, text=True, env=env, cwd=os.path.dirname(__file__))
  assert done.returncode == 0, done.stderr[-3000:]
  return done.stdout


EIGHT_DEVICES = """
import jax
from jax.sharding import NamedSharding
from sml_jax import parallel
from sml_jax.models.attention import packed_attention
from test_attention import assert_same, random_case

# With model = 4: key-value heads that it does not divide; query heads that it does not divide, and rows that do not
# divide over fsdp = 2.
mesh = parallel.make_mesh(1, 2, 4)
for rows, heads, kv in ((2, 12, 6), (3, 6, 2)):
  case = random_case(heads, rows, 40, heads, kv, 8)
  if rows == 2:
    case = [jax.device_put(x, NamedSharding(mesh, parallel.ROWS)) for x in case]
  assert_same(case, "splash", 1e-5, mesh=mesh, window=7, scale=0.3, is_local=[True])
  print(heads, kv)
"""


def test_splash_on_a_mesh_equals_xla():
  out = run_script(EIGHT_DEVICES, XLA_FLAGS="--xla_force_host_platform_device_count=8")
  assert out.split("\n")[:-1] == ["12 6", "6 2"]


COMPILE_FOR_TPU = """
import jax, jax.numpy as jnp
from jax.experimental import mesh_utils, topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from sml_jax.models.attention import packed_attention

topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
devices = mesh_utils.create_device_mesh((1, 2, 2), list(topology.devices), allow_split_physical_axes=True)
mesh = Mesh(devices, ("data", "fsdp", "model"))

def loss(q, k, v, segments, local):
  layer = lambda q, l: (packed_attention(q, k, v, segments, window=100, is_local=l, scale=0.1, mesh=mesh), None)
  return jax.lax.scan(layer, q, local)[0].astype(jnp.float32).sum()

like = lambda *shape, dtype=jnp.bfloat16: jax.ShapeDtypeStruct(
    shape, dtype, sharding=NamedSharding(mesh, P(("data", "fsdp")) if len(shape) > 1 else P()))
args = like(2, 300, 4, 256), like(2, 300, 1, 256), like(2, 300, 1, 256), like(2, 300, dtype=jnp.int32)
text = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*args, like(3, dtype=bool)).compile().as_text()
print(text.count('custom_call_target="tpu_custom_call"'), "384,384" in text or "300,300" in text)
"""


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs the tpu extra")
def test_splash_compiles_for_a_tpu():
  # Forward, and the gradients of q and of k and v: three kernels, for each of the two masks; no scores [T, T] anywhere.
  out = run_script(COMPILE_FOR_TPU, ALLOW_MULTIPLE_LIBTPU_LOAD="1", TPU_SKIP_MDS_QUERY="1")
  assert out.splitlines() == ["6 False"]
