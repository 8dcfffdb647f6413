"""The student: a decoder-only transformer (GQA, RoPE, RMSNorm, gated MLP) as pure functions over a params pytree.

Shapes: B rows, T tokens, S cache slots, D model, H query heads, K key-value heads, E head width, F MLP width, L layers,
V vocabulary.
Only this package knows Flax NNX: `init` gives `(graphdef, params)` and everybody else passes the pair.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

Params = dict[str, Any]
"""Nested dict of arrays; those under "blocks" are stacked over layers, [L, ...]."""
Cache = tuple[tuple[jax.Array, jax.Array], ...]
"""One (keys, values) a layer, each [B, K, S, E]; row b is valid up to its length."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Shape of the transformer; widths in channels."""

  vocab_size: int
  d_model: int
  layers: int
  heads: int
  kv_heads: int
  head_dim: int
  mlp_dim: int
  rope_theta: float = 10_000.0
  norm_eps: float = 1e-6
  tied_embeddings: bool = True
  scan_layers: bool = False
  dtype: Any = jnp.float32

  def __post_init__(self):
    if self.heads % self.kv_heads:
      raise ValueError(f"model.heads ({self.heads}) must be a multiple of model.kv_heads ({self.kv_heads})")
    if self.head_dim % 2:
      raise ValueError(f"model.head_dim ({self.head_dim}) must be even for rotary positions")


class RMSNorm(nnx.Module):
  def __init__(self, width: int, eps: float):
    self.scale = nnx.Param(jnp.ones(width))
    self.eps = eps

  def __call__(self, x: jax.Array) -> jax.Array:
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + self.eps)
    return (y * self.scale).astype(x.dtype)


Angles = tuple[jax.Array, jax.Array]
"""Sine and cosine of the rotary angles, each [B, T, 1, E/2]."""


def rotary_angles(positions: jax.Array, head_dim: int, theta: float) -> Angles:
  """The angles of positions [B, T], once for all layers: fused into every use, XLA would compute them for each."""
  half = head_dim // 2
  frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
  angles = positions[..., None, None].astype(jnp.float32) * frequencies
  return jax.lax.optimization_barrier((jnp.sin(angles), jnp.cos(angles)))


def rotate(x: jax.Array, angles: Angles) -> jax.Array:
  """Rotary position embedding (half-split form). x [B, T, heads, E]."""
  sin, cos = angles
  a, b = jnp.split(x.astype(jnp.float32), 2, -1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
  """Grouped-query attention. q [B, T, H, E]; k, v [B, K, S, E]; mask bool [B, T, S] -> [B, T, H, E].

  A row whose mask is all False gives a finite value nobody reads. The heads of a group are laid along the rows of one
  batched product: XLA's CPU code for the five-dimensional form is four times slower.
  """
  b, t, h, e = q.shape
  groups, s = k.shape[1], k.shape[2]
  each = h // groups
  q = q.reshape(b, t, groups, each, e).transpose(0, 2, 3, 1, 4).reshape(b, groups, each * t, e)
  scores = jnp.einsum("bkme,bkse->bkms", q, k, preferred_element_type=jnp.float32) * e**-0.5
  scores = jnp.where(mask[:, None, None], scores.reshape(b, groups, each, t, s), -1e30)
  weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype).reshape(b, groups, each * t, s)
  out = jnp.einsum("bkms,bkse->bkme", weights, v).reshape(b, groups, each, t, e)
  return out.transpose(0, 3, 1, 2, 4).reshape(b, t, h, e)


class Block(nnx.Module):
  """One layer: attention and a gated MLP, each behind a norm and a residual."""

  def __init__(self, c: ModelConfig, rngs: nnx.Rngs):
    def weight(*shape, fan_in, depth=1.0):
      return nnx.Param(jax.random.normal(rngs.params(), shape) * (fan_in * depth) ** -0.5)

    self.c = c
    self.attn_norm = RMSNorm(c.d_model, c.norm_eps)
    self.q = weight(c.d_model, c.heads, c.head_dim, fan_in=c.d_model)
    self.k = weight(c.d_model, c.kv_heads, c.head_dim, fan_in=c.d_model)
    self.v = weight(c.d_model, c.kv_heads, c.head_dim, fan_in=c.d_model)
    self.o = weight(c.heads, c.head_dim, c.d_model, fan_in=c.heads * c.head_dim, depth=2 * c.layers)
    self.mlp_norm = RMSNorm(c.d_model, c.norm_eps)
    self.gate = weight(c.d_model, c.mlp_dim, fan_in=c.d_model)
    self.up = weight(c.d_model, c.mlp_dim, fan_in=c.d_model)
    self.down = weight(c.mlp_dim, c.d_model, fan_in=c.mlp_dim, depth=2 * c.layers)

  def __call__(self, x: jax.Array, angles: Angles, mask: jax.Array, cache=None, offsets=None):
    """x [B, T, D] -> (x, new cache of this layer).

    With a cache (k, v: [B, K, S, E]) the T new keys are written at `offsets` [B].
    """
    h = self.attn_norm(x)
    q = rotate(jnp.einsum("btd,dhe->bthe", h, self.q.astype(h.dtype)), angles)
    k = rotate(jnp.einsum("btd,dke->btke", h, self.k.astype(h.dtype)), angles)
    v = jnp.einsum("btd,dke->btke", h, self.v.astype(h.dtype))
    k, v = (a.swapaxes(1, 2) for a in (k, v))  # [B, K, T, E]
    if cache is not None:
      view = mask.shape[-1]
      cache = tuple(_write(old, new, offsets) for old, new in zip(cache, (k, v), strict=True))
      k, v = (a[:, :, :view] for a in cache)
    x = x + jnp.einsum("bthe,hed->btd", attend(q, k, v, mask), self.o.astype(h.dtype))
    h = self.mlp_norm(x)
    gated = jax.nn.silu(h @ self.gate.astype(h.dtype)) * (h @ self.up.astype(h.dtype))
    return x + gated @ self.down.astype(h.dtype), cache


def _write(cache: jax.Array, new: jax.Array, offsets: jax.Array) -> jax.Array:
  """Writes new [B, K, T, E] into cache [B, K, S, E] from slot offsets[b] on; what would fall outside is dropped."""
  rows = jnp.arange(cache.shape[0])[:, None, None]
  heads = jnp.arange(cache.shape[1])[None, :, None]
  slots = offsets[:, None, None] + jnp.arange(new.shape[2])
  return cache.at[rows, heads, slots].set(new.astype(cache.dtype), mode="drop", unique_indices=True)


class Embedding(nnx.Module):
  """The token table, and the output head where that is not the same table."""

  def __init__(self, c: ModelConfig, rngs: nnx.Rngs):
    self.c = c
    self.table = nnx.Param(jax.random.normal(rngs.params(), (c.vocab_size, c.d_model)) * c.d_model**-0.5)
    if not c.tied_embeddings:
      self.head = nnx.Param(jax.random.normal(rngs.params(), (c.d_model, c.vocab_size)) * c.d_model**-0.5)

  def __call__(self, tokens: jax.Array) -> jax.Array:
    x = self.table[...][tokens].astype(self.c.dtype)
    return x * jnp.asarray(self.c.d_model**0.5, x.dtype)

  def logits(self, hidden: jax.Array) -> jax.Array:
    head = self.table[...].T if self.c.tied_embeddings else self.head[...]
    return jnp.matmul(hidden, head.astype(hidden.dtype), preferred_element_type=jnp.float32)


@dataclasses.dataclass(frozen=True)
class Model:
  """The static half of a transformer; every method is a pure function of its arguments, `params` first.

  Example:
    model = Model(config)
    params = model.init(jax.random.key(0))
    logits = model.logits(params, model.forward(params, tokens, positions, segments))
  """

  config: ModelConfig

  def _modules(self, key: jax.Array) -> dict[str, nnx.Module]:
    c, (embed_key, block_key) = self.config, jax.random.split(key)
    blocks = nnx.vmap(lambda k: Block(c, nnx.Rngs(k)))(jax.random.split(block_key, c.layers))
    return {
        "embedding": Embedding(c, nnx.Rngs(embed_key)),
        "blocks": blocks,
        "final_norm": RMSNorm(c.d_model, c.norm_eps),
    }

  @functools.cached_property
  def _graphdefs(self) -> dict[str, nnx.GraphDef]:
    modules = nnx.eval_shape(lambda: self._modules(jax.random.key(0)))
    return {name: nnx.split(module)[0] for name, module in modules.items()}

  def init(self, key: jax.Array) -> Params:
    """Random parameters, f32: normal with standard deviation 1/sqrt(fan in), residual outputs divided by sqrt(2 L)."""
    return {name: nnx.to_pure_dict(nnx.state(module)) for name, module in self._modules(key).items()}

  def unstacked(self, params: Params) -> Params:
    """The same parameters with "blocks" a tuple of layers: unrolled decode reads them without slicing at every step."""
    blocks = tuple(jax.tree.map(lambda a, i=i: a[i], params["blocks"]) for i in range(self.config.layers))
    return params | {"blocks": blocks}

  def init_cache(self, rows: int, slots: int) -> Cache:
    """Empty caches: a tuple over layers of (keys, values), each [B, K, S, E]."""
    shape = (rows, self.config.kv_heads, slots, self.config.head_dim)
    empty = lambda: jnp.zeros(shape, self.config.dtype)
    return tuple((empty(), empty()) for _ in range(self.config.layers))

  def _run(self, params, tokens, positions, mask, cache=None, offsets=None):
    x = nnx.merge(self._graphdefs["embedding"], params["embedding"])(tokens)
    angles = rotary_angles(positions, self.config.head_dim, self.config.rope_theta)
    layer = lambda p, x, kv: nnx.merge(self._graphdefs["blocks"], p)(x, angles, mask, kv, offsets)
    blocks = params["blocks"]
    if cache is None and self.config.scan_layers and not isinstance(blocks, tuple):
      x, _ = jax.lax.scan(lambda x, p: (layer(p, x, None)[0], None), x, blocks)
    else:
      blocks = blocks if isinstance(blocks, tuple) else self.unstacked(params)["blocks"]
      new = []
      for i, p in enumerate(blocks):
        x, kv = layer(p, x, cache[i] if cache is not None else None)
        new.append(kv)
      cache = tuple(new)
    return nnx.merge(self._graphdefs["final_norm"], params["final_norm"])(x), cache

  def forward(self, params: Params, tokens: jax.Array, positions: jax.Array, segments: jax.Array) -> jax.Array:
    """Packed rows: tokens, positions, segments [B, T] (segment 0 is padding) -> hidden [B, T, D].

    A token attends to those before it in its own segment.
    """
    t = tokens.shape[1]
    causal = jnp.arange(t)[:, None] >= jnp.arange(t)
    mask = causal & (segments[:, :, None] == segments[:, None, :])
    return self._run(params, tokens, positions, mask)[0]

  def extend(
      self, params: Params, cache: Cache, tokens: jax.Array, lengths: jax.Array, view: int
  ) -> tuple[jax.Array, Cache]:
    """Runs tokens [B, T] that follow the `lengths` [B] tokens already in the cache.

    Args:
      params: stacked or `unstacked`.
      cache: of `init_cache`; slots from lengths[b] on are overwritten, so what stood there never mattered.
      tokens: [B, T]; those beyond a row's real count are computed and harmless (a later call overwrites their slots).
      lengths: [B] tokens in the cache before the call.
      view: slots to attend over (static); at least max(lengths) + T of the rows that matter.

    Returns:
      hidden [B, T, D] and the cache.
    """
    positions = lengths[:, None] + jnp.arange(tokens.shape[1])
    mask = jnp.arange(view)[None, None, :] <= positions[:, :, None]
    return self._run(params, tokens, positions, mask, cache, lengths)

  def logits(self, params: Params, hidden: jax.Array) -> jax.Array:
    """hidden [..., D] -> f32 [..., V]."""
    return nnx.merge(self._graphdefs["embedding"], params["embedding"]).logits(hidden)


def parameter_count(params: Params) -> int:
  return sum(a.size for a in jax.tree.leaves(params))
