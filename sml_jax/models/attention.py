"""Attention, one function in front of what is fast on each platform.

  xla     plain products; writes the scores to memory, in causal blocks of queries, and keeps them for the gradient.
  splash  the flash-attention kernel for TPUs; elsewhere it is interpreted, which is slow and meant for tests.
  cudnn   the flash-attention kernel for GPUs, in bfloat16 or float16.
  auto    splash on TPU, cudnn on a GPU that can run it, xla otherwise.

Splash was compared with xla on CPU in f32, and compiled for TPUs; what is passed to cudnn was compared on CPU. Neither
kernel was run on its own hardware.

Shapes: B rows, T tokens, S slots of a cache, H query heads, K key-value heads, E head width.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from sml_jax.errors import UserError

IMPLEMENTATIONS = ("auto", "xla", "splash", "cudnn")
SMALLEST_BLOCK, MOST_BLOCKS = 64, 8
"""Queries of a block in plain XLA, and how many blocks a row is cut into."""


def packed_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segments: jax.Array,
    *,
    window: int,
    is_local: bool | jax.Array,
    scale: float,
    impl: str = "auto",
    mesh: Mesh | None = None,
) -> jax.Array:
  """Attention of packed rows: a token sees itself and those before it in its own segment.

  Args:
    q: [B, T, H, E].
    k, v: [B, T, K, E]; query head h reads key-value head h // (H / K).
    segments: int [B, T], 0 for padding; a segment's tokens are side by side.
    window: in a local layer a token sees itself and the window-1 tokens before it; 0 = there are no local layers.
    is_local: whether this layer is local: a bool, or a traced bool scalar where layers are scanned.
    scale: of the scores.
    impl: one of IMPLEMENTATIONS.
    mesh: where the arrays lie, rows along data and fsdp, heads along model; None = one device.

  Returns:
    [B, T, H, E]; finite and of no meaning at padding.

  Raises:
    UserError: the devices or the arrays cannot do what `impl` names.
  """
  t = q.shape[1]
  device = mesh.devices.flat[0] if mesh is not None else jax.devices()[0]
  impl = _choose(impl, device, q)
  if impl == "xla":
    return _in_blocks(q, k, v, segments, window, is_local, scale)
  kernel = functools.partial(_splash, interpret=device.platform != "tpu") if impl == "splash" else _cudnn
  run = lambda window: _on_shards(functools.partial(kernel, window=window, scale=scale), mesh, q, k, v, segments)
  if not 0 < window < t or is_local is False:
    return run(0)
  if is_local is True:
    return run(window)
  # A kernel skips the blocks that its mask leaves empty, so it must know the mask when it is compiled.
  return jax.lax.cond(is_local, lambda: run(window), lambda: run(0))


Segments = tuple[jax.Array, ...]
"""The keys [N, K, E, s] or values [N, K, s, E] of N rows' caches, cut into runs of s slots each. Attention reads the
first few of them as they lie, where the slice of one array would be a copy."""


def cached_attention(
    q: jax.Array,
    keys: Segments,
    values: Segments,
    positions: jax.Array,
    *,
    reach: jax.Array | None = None,
    rows: jax.Array | None = None,
    window: int,
    is_local: bool | jax.Array,
    scale: float,
) -> jax.Array:
  """Attention to a cache whose slot s holds the token of position s.

  Products and sums go segment by segment and a masked one adds 0: the result is bitwise the same for every reach that
  holds what the queries see. At least two segments take part, if there are as many: XLA fuses a single one in another
  way, and takes another exponential for it.

  Args:
    q: [B, T, H, E].
    keys, values: of N rows, S slots in all.
    positions: int [B, T] of the queries: one sees the slots up to its own, in a local layer the last `window` of them.
    reach: the last of the segments that attention is over, a scalar; None = all.
    rows: int [P, B/P], the caches of the queries, counted within each of P equal parts of the N; None = q's rows.
    window, is_local, scale: as in `packed_attention`.

  Returns:
    [B, T, H, E].
  """
  ends = [int(n) for n in itertools.accumulate(a.shape[2] for a in values)]

  def over(n: int) -> jax.Array:
    held = ([taken(a, rows) for a in segments[:n]] for segments in (keys, values))
    back = positions[:, :, None] - jnp.arange(ends[n - 1])  # [B, T, S]
    return _attend_segments(q, *held, _sees(back, window, is_local), scale)

  if reach is None or len(values) <= 2:
    return over(len(values))
  return jax.lax.switch(reach - 1, [functools.partial(over, n) for n in range(2, len(values) + 1)])


def taken(cache: jax.Array, rows: jax.Array | None) -> jax.Array:
  """Some rows (see `cached_attention`) of an array [N, ...]."""
  if rows is None:
    return cache
  parts = cache.reshape(rows.shape[0], -1, *cache.shape[1:])
  found = jax.vmap(lambda part, rows: part.at[rows].get(mode="clip"))(parts, rows)
  return found.reshape(-1, *cache.shape[1:])


def _sees(back: jax.Array, window: int, is_local: bool | jax.Array) -> jax.Array:
  """Whether a query may look `back` tokens."""
  causal = back >= 0
  if not window or is_local is False:
    return causal
  near = back < window
  return causal & (near if is_local is True else near | ~jnp.asarray(is_local))


def _in_blocks(q, k, v, segments, window: int, is_local: bool | jax.Array, scale: float) -> jax.Array:
  """In plain XLA; a block of queries looks at the keys up to its last one alone. Arguments as in `packed_attention`."""
  b, t, h, e = q.shape
  groups = k.shape[2]
  q = _by_group(q * jnp.asarray(scale, q.dtype), groups).reshape(b, groups, h // groups, t, e)
  k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
  block, outs = max(SMALLEST_BLOCK, -(-t // MOST_BLOCKS)), []
  for start in range(0, t, block):
    end = min(start + block, t)
    back = jnp.arange(start, end)[:, None] - jnp.arange(end)  # tokens from the query back to the key
    mask = _sees(back, window, is_local) & (segments[:, start:end, None] == segments[:, None, :end])
    mask = jnp.tile(mask[:, None], (1, 1, h // groups, 1))
    out = attend(q[..., start:end, :].reshape(b, groups, -1, e), k[:, :, :end], v[:, :, :end], mask)
    outs.append(out.reshape(b, groups, -1, end - start, e))
  return jnp.concatenate(outs, 3).transpose(0, 3, 1, 2, 4).reshape(b, t, h, e)


def _by_group(q: jax.Array, groups: int) -> jax.Array:
  """[B, T, H, E] -> [B, K, H/K T, E]: the heads of a group lie along the rows of one batched product, since XLA's CPU
  code for the five-dimensional form is four times slower."""
  b, t, h, e = q.shape
  return q.reshape(b, t, groups, h // groups, e).transpose(0, 2, 3, 1, 4).reshape(b, groups, -1, e)


_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


@jax.custom_vjp
def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
  """softmax(q k^T) v, with a gradient that keeps the exponentials alone and transposes nothing of their size.

  Args:
    q: [B, K, M, E], scaled.
    k, v: [B, K, S, E].
    mask: bool [B, 1, M, S]; a row that is all False gives a finite value nobody reads.

  Returns:
    [B, K, M, E], in v's dtype.
  """
  return _attend_forward(q, k, v, mask)[0]


def _attend_forward(q, k, v, mask):
  scores = jnp.where(mask, _product("bkme,bkse->bkms", q, k), -1e30)
  weights = jnp.exp(scores - scores.max(-1, keepdims=True))
  inverse = 1 / weights.sum(-1, keepdims=True)
  weights = weights.astype(v.dtype)
  out = (_product("bkms,bkse->bkme", weights, v) * inverse).astype(v.dtype)
  return out, (q, k, v, weights, inverse, out)


def _attend_backward(kept, g):
  q, k, v, weights, inverse, out = kept
  # Barriers, as XLA would fold the transposes of these small arrays into ones of the weights, or into a slow product.
  barrier = jax.lax.optimization_barrier
  across = lambda a, b: barrier(_product("bkem,bkms->bkes", barrier(a.swapaxes(2, 3)), b)).swapaxes(2, 3)
  g = g * inverse
  dv = across(g.astype(v.dtype), weights)
  ds = _product("bkme,bkse->bkms", g.astype(v.dtype), v) - (g * out).sum(-1, keepdims=True)
  ds = (weights * ds).astype(k.dtype)
  dq = _product("bkms,bkse->bkme", ds, k)
  dk = across(q, ds)
  return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None


attend.defvjp(_attend_forward, _attend_backward)


def _attend_segments(
    q: jax.Array, keys: Sequence[jax.Array], values: Sequence[jax.Array], mask: jax.Array, scale: float
) -> jax.Array:
  """Of q [B, T, H, E] to keys [B, K, E, s] and values [B, K, s, E] in segments, S slots in all; mask [B, T, S]."""
  b, t, h, e = q.shape
  groups, each = values[0].shape[1], h // values[0].shape[1]
  q = _by_group(q, groups)
  mask = jnp.tile(mask[:, None], (1, 1, each, 1))  # [B, 1, each T, S]
  masks = jnp.split(mask, list(itertools.accumulate(a.shape[2] for a in values))[:-1], -1)
  scores = [_product("bkme,bkes->bkms", q, k) * scale for k in keys]
  scores = [jnp.where(m, a, -1e30) for a, m in zip(scores, masks, strict=True)]
  highest = functools.reduce(jnp.maximum, [a.max(-1, keepdims=True) for a in scores])
  weights = [jnp.exp(a - highest) for a in scores]
  total = functools.reduce(jnp.add, [a.sum(-1, keepdims=True) for a in weights])
  outs = [_product("bkms,bkse->bkme", a.astype(v.dtype), v) for a, v in zip(weights, values, strict=True)]
  out = (functools.reduce(jnp.add, outs) / total).astype(q.dtype).reshape(b, groups, each, t, e)
  return out.transpose(0, 3, 1, 2, 4).reshape(b, t, h, e)


def _choose(impl: str, device: jax.Device, q: jax.Array) -> str:
  """The implementation that `impl` means for queries [B, T, H, E] on such a device."""
  if impl not in IMPLEMENTATIONS:
    raise UserError(f"model.attention: unknown {impl!r}; one of {', '.join(IMPLEMENTATIONS)}")
  if impl in ("xla", "splash"):
    return impl
  if impl == "auto" and device.platform == "tpu":
    return "splash"
  lacks = _cudnn_lacks(device, q)
  if impl == "cudnn" and lacks:
    raise UserError(f"model.attention=cudnn needs {lacks}; use model.attention=auto or xla")
  return "xla" if lacks else "cudnn"


def _cudnn_lacks(device: jax.Device, q: jax.Array) -> str:
  """What cuDNN's kernel (with a mask, and a gradient) needs and does not get; "" if nothing."""
  if device.platform not in ("gpu", "cuda"):
    return f"a GPU, and the devices are {device.platform}"
  capability = float(device.compute_capability)
  widest = 256 if capability >= 9 else 128
  _, t, _, e = q.shape
  if capability < 8:
    return f"a GPU of compute capability 8.0 or more, and this one has {capability}"
  if q.dtype not in (jnp.bfloat16, jnp.float16):
    return f"bfloat16 or float16 activations, and these are {q.dtype}"
  if e > widest or e % 8:
    return f"a head width that is a multiple of 8 up to {widest} on this GPU, and it is {e}"
  return f"an even number of tokens a row, and it is {t}" if t % 2 else ""


def _on_shards(kernel: Callable, mesh: Mesh | None, q, k, v, segments) -> jax.Array:
  """Runs kernel(q, k, v, segments) on each device's rows and heads: the compiler cannot cut a kernel by itself.

  Where the key-value heads do not divide over `model`, they are repeated up to the least number that does.
  """
  if mesh is None:
    return kernel(q, k, v, segments)
  parts = mesh.shape["model"]
  split = q.shape[2] % parts == 0
  rows = ("data", "fsdp") if q.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]) == 0 else None
  if split:
    k, v = (jnp.repeat(a, math.lcm(a.shape[2], parts) // a.shape[2], axis=2) for a in (k, v))
  spec = P(rows, None, "model" if split else None, None)
  on_shards = jax.shard_map(
      kernel, mesh=mesh, in_specs=(spec, spec, spec, P(rows, None)), out_specs=spec, check_vma=False
  )  # fmt: skip
  return on_shards(q, k, v, segments)


def _splash(q, k, v, segments, *, window: int, scale: float, interpret: bool) -> jax.Array:
  """The TPU kernel; window 0 = all. Arguments as in `packed_attention`, of one device."""
  t, h = q.shape[1:3]
  pad = -t % 128  # of segment 0, behind all others
  q, k, v = (jnp.pad(a, ((0, 0), (0, pad), (0, 0), (0, 0))).swapaxes(1, 2) for a in (q, k, v))  # [B, H or K, T, E]
  segments = jnp.pad(segments, ((0, 0), (0, pad)))
  shape = (t + pad, t + pad)
  # LocalMask counts the tokens before the query and those after it.
  mask = splash_attention.LocalMask(shape, (window - 1, 0), 0) if window else splash_attention.CausalMask(shape)
  block = next(n for n in (512, 384, 256, 128) if shape[0] % n == 0)  # not tuned
  sizes = splash_attention.BlockSizes(
      block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block, block_kv_dq=block
  )
  kernel = splash_attention.make_splash_mha(
      splash_attention.MultiHeadMask([mask] * h), block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret
  )
  one = lambda q, k, v, s: kernel(q, k, v, segment_ids=splash_attention.SegmentIds(s, s))
  out = jax.vmap(one)((q * scale).astype(q.dtype), k, v, segments)
  return out.swapaxes(1, 2)[:, :t]


def _cudnn(q, k, v, segments, *, window: int, scale: float) -> jax.Array:
  """The GPU kernel; window 0 = all. Segments are a mask [B, 1, T, T]; the scores [B, H, T, T] are never written."""
  same = segments[:, None, :, None] == segments[:, None, None, :]
  near = (window - 1, 0) if window else None
  return jax.nn.dot_product_attention(
      q, k, v, mask=same, scale=scale, is_causal=True, local_window_size=near, implementation="cudnn"
  )
