"""The student: a decoder-only transformer (GQA, RoPE, RMSNorm, gated MLP) as pure functions over a params pytree.

One transformer covers the families by its config: sliding windows, two RoPE bases, RoPE scaling, norms of queries and
keys, norms behind attention and MLP, tied or untied heads, padded vocabularies, LoRA.

Shapes: B rows, T tokens, S cache slots, D model, H query heads, K key-value heads, E head width, F MLP width, L layers,
V vocabulary.
Only this package knows Flax NNX: everybody else passes `(model, params)`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from sml_jax import parallel
from sml_jax.models.attention import Segments, cached_attention, packed_attention
from sml_jax.models.lora import PREFIX, Adapter, Lora
from sml_jax.models.product import product, product_of_turned, turn

Params = dict[str, Any]
"""Nested dict of arrays; those under "blocks" are stacked over layers, [L, ...]."""
Cache = tuple[tuple[Segments, Segments], ...]
"""One (keys, values) a layer, S slots of B rows in segments; row b is valid up to its length."""
REMAT = {"full": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}
"""The policies of jax.checkpoint by their names here."""
NEVER = -1e30
"""The logit of an id that no tokenizer piece stands for."""


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """How rotary frequencies are stretched for long contexts.

  Attributes:
    kind: "linear" divides all by `factor`; "llama3" (transformers' name) only those whose wavelength is above
      original_length / low_freq_factor, leaves those below original_length / high_freq_factor, and blends between.
    original_length: context that the model was first trained on, tokens.
  """

  kind: Literal["linear", "llama3"]
  factor: float
  low_freq_factor: float = 1.0
  high_freq_factor: float = 4.0
  original_length: int = 8192

  def __call__(self, frequencies: jax.Array) -> jax.Array:
    if self.kind == "linear":
      return frequencies / self.factor
    turns = self.original_length * frequencies / (2 * math.pi)  # in the original context
    share = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
    share = jnp.clip(share, 0.0, 1.0)
    return share * frequencies + (1 - share) * frequencies / self.factor


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Shape of the transformer; widths in channels.

  Attributes:
    rope_scaling: of the global layers.
    local_rope_theta: base of the local layers' wavelengths; 0 = rope_theta.
    window: a token of a local layer sees itself and the window - 1 tokens before it.
    local_layers: which layers are local, one entry a layer; () = none.
    norm_plus_one: a norm's stored scale is its factor minus one.
    post_norms: a norm behind attention and behind the MLP too.
    qk_norm: queries and keys are normed over the head width, before RoPE.
    query_scale: scores are multiplied by it; 0 = head_dim ** -0.5.
    embed_scale: embeddings are multiplied by sqrt(d_model).
    usable_vocab: ids from here on are padding of the vocabulary, and never sampled; 0 = there is none.
    scan_layers: scan over the stacked layers in training: compiles once for all of them.
    remat: what of a layer the backward pass finds: "none" = all that it needs; "full" = its input alone, and computes
      the rest again; "dots" = the results of its matrices too, and computes again what lies between them.
    dtype, param_dtype: of activations, and of stored parameters (adapters are always f32).
    attention: which implementation, see `attention.packed_attention`.
  """

  vocab_size: int
  d_model: int
  layers: int
  heads: int
  kv_heads: int
  head_dim: int
  mlp_dim: int
  rope_theta: float = 10_000.0
  rope_scaling: RopeScaling | None = None
  local_rope_theta: float = 0.0
  window: int = 0
  local_layers: tuple[bool, ...] = ()
  norm_eps: float = 1e-6
  norm_plus_one: bool = False
  post_norms: bool = False
  qk_norm: bool = False
  query_scale: float = 0.0
  activation: Literal["silu", "gelu_tanh"] = "silu"
  embed_scale: bool = True
  tied_embeddings: bool = True
  usable_vocab: int = 0
  scan_layers: bool = False
  remat: Literal["none", "dots", "full"] = "none"
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32
  attention: Literal["auto", "xla", "splash", "cudnn"] = "auto"
  lora: Lora | None = None

  def __post_init__(self):
    if self.heads % self.kv_heads:
      raise ValueError(f"model.heads ({self.heads}) must be a multiple of model.kv_heads ({self.kv_heads})")
    if self.head_dim % 2:
      raise ValueError(f"model.head_dim ({self.head_dim}) must be even for rotary positions")
    if self.local_layers and (len(self.local_layers) != self.layers or self.window < 1):
      n = len(self.local_layers)
      raise ValueError(f"local_layers has {n} entries for {self.layers} layers, with window {self.window}")


class RMSNorm(nnx.Module):
  def __init__(self, width: int, c: ModelConfig):
    self.scale = nnx.Param(jnp.full(width, 0.0 if c.norm_plus_one else 1.0, c.param_dtype))
    self.c = c

  def __call__(self, x: jax.Array) -> jax.Array:
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + self.c.norm_eps)
    scale = self.scale.astype(jnp.float32)
    return (y * (1.0 + scale if self.c.norm_plus_one else scale)).astype(x.dtype)


Angles = tuple[jax.Array, jax.Array]
"""Sine and cosine of the rotary angles, each [B, T, 1, E/2]."""


def rotary_angles(positions: jax.Array, head_dim: int, theta: float, scaling: RopeScaling | None = None) -> Angles:
  """The angles of positions [B, T], once for all layers: fused into every use, XLA would compute them for each."""
  half = head_dim // 2
  frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
  if scaling is not None:
    frequencies = scaling(frequencies)
  angles = positions[..., None, None].astype(jnp.float32) * frequencies
  return jax.lax.optimization_barrier((jnp.sin(angles), jnp.cos(angles)))


def rotate(x: jax.Array, angles: Angles) -> jax.Array:
  """Rotary position embedding (half-split form). x [B, T, heads, E]."""
  sin, cos = angles
  a, b = jnp.split(x.astype(jnp.float32), 2, -1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


Attend = Callable[..., tuple[jax.Array, Any]]
"""(q [B, T, H, E], k, v [B, T, K, E], this layer's cache or None) -> (out [B, T, H, E], this layer's new cache)."""


MADE = {"q": 2, "k": 2, "v": 2, "o": 1, "gate": 1, "up": 1, "down": 1}
"""How many axes each weight of a layer makes, its last; it contracts the others."""


class Block(nnx.Module):
  """One layer: attention and a gated MLP, each behind a norm and a residual."""

  def __init__(self, c: ModelConfig, rngs: nnx.Rngs):
    heads, kv, width, mlp = (c.heads, c.head_dim), (c.kv_heads, c.head_dim), (c.d_model,), (c.mlp_dim,)
    shapes = {  # name -> the axes it contracts and those it makes
        "q": (width, heads), "k": (width, kv), "v": (width, kv), "o": (heads, width),
        "gate": (width, mlp), "up": (width, mlp), "down": (mlp, width),
    }  # fmt: skip
    self.c = c
    self.attn_norm = RMSNorm(c.d_model, c)
    for name in ("q", "k", "v", "o"):
      self._weight(name, *shapes[name], rngs)
    self.mlp_norm = RMSNorm(c.d_model, c)
    for name in ("gate", "up", "down"):
      self._weight(name, *shapes[name], rngs)
    if c.qk_norm:
      self.q_norm, self.k_norm = RMSNorm(c.head_dim, c), RMSNorm(c.head_dim, c)
    if c.post_norms:
      self.post_attn_norm, self.post_mlp_norm = RMSNorm(c.d_model, c), RMSNorm(c.d_model, c)
    for name in c.lora.targets if c.lora else ():
      setattr(self, PREFIX + name, Adapter(*shapes[name], c.lora.rank, rngs))

  def _weight(self, name: str, ins: tuple[int, ...], outs: tuple[int, ...], rngs: nnx.Rngs) -> None:
    residual = 2 * self.c.layers if name in ("o", "down") else 1
    draw = jax.random.normal(rngs.params(), (*ins, *outs)) * (math.prod(ins) * residual) ** -0.5
    setattr(self, name, nnx.Param(draw.astype(self.c.param_dtype)))

  def _project(self, name: str, x: jax.Array, adapted: jax.Array | None, turned: bool) -> jax.Array:
    weight = getattr(self, name)
    multiply = product_of_turned if turned else product
    y = multiply(x, weight.astype(x.dtype), weight.ndim - MADE[name])
    if self.c.lora and name in self.c.lora.targets:
      change = self.c.lora.scale * getattr(self, PREFIX + name)(x)
      if adapted is not None:
        change = jnp.where(adapted.reshape(-1, *[1] * (y.ndim - 1)), change, 0)
      y = y + change
    return y

  def __call__(
      self, x: jax.Array, angles: Angles, attend: Attend, cache: Any = None, adapted: jax.Array | None = None,
      turned: bool = False,
  ) -> tuple[jax.Array, Any]:
    """x [B, T, D] -> (x, new cache of this layer). adapted: bool [B], the rows that the adapters change; None = all."""
    project = functools.partial(self._project, adapted=adapted, turned=turned)
    h = self.attn_norm(x)
    q, k, v = (project(name, h) for name in ("q", "k", "v"))
    if self.c.qk_norm:
      q, k = self.q_norm(q), self.k_norm(k)
    out, cache = attend(rotate(q, angles), rotate(k, angles), v, cache)
    h = project("o", out)
    x = x + (self.post_attn_norm(h) if self.c.post_norms else h)
    h = self.mlp_norm(x)
    gate = jax.nn.silu if self.c.activation == "silu" else jax.nn.gelu
    h = project("down", gate(project("gate", h)) * project("up", h))
    return x + (self.post_mlp_norm(h) if self.c.post_norms else h), cache


def _write(segments: Segments, new: jax.Array, offsets: jax.Array, rows: jax.Array | None, axis: int) -> Segments:
  """Writes new [B, T, K, E] into caches of N rows from slot offsets[b] on; what would fall outside is dropped.

  rows: int [P, B/P], where in each of P parts of the N rows; None = row b for each b. axis: of a segment's slots.
  """
  parts = 1 if rows is None else rows.shape[0]
  apart = lambda a: a.reshape(parts, -1, *a.shape[1:])
  rows = jnp.arange(new.shape[0])[None] if rows is None else rows
  out, start = [], 0
  for segment in segments:
    heads, size = jnp.arange(segment.shape[1]), segment.shape[axis]

    def write(cache, new, offsets, rows, heads=heads, size=size):
      slots = offsets[:, None, None] + jnp.arange(new.shape[1])[:, None]
      slots = jnp.where(slots < 0, size, slots)  # which is outside; a negative index would count from the end
      at = (rows[:, None, None], heads) + ((slots,) if axis == 2 else (slice(None), slots))
      return cache.at[at].set(new.astype(cache.dtype), mode="drop", unique_indices=True)

    out.append(jax.vmap(write)(apart(segment), apart(new), apart(offsets - start), rows).reshape(segment.shape))
    start += size
  return tuple(out)


class Embedding(nnx.Module):
  """The token table, and the output head where that is not the same table."""

  def __init__(self, c: ModelConfig, rngs: nnx.Rngs):
    self.c = c
    draw = lambda *shape: (jax.random.normal(rngs.params(), shape) * c.d_model**-0.5).astype(c.param_dtype)
    self.table = nnx.Param(draw(c.vocab_size, c.d_model))
    if not c.tied_embeddings:
      self.head = nnx.Param(draw(c.d_model, c.vocab_size))

  def __call__(self, tokens: jax.Array) -> jax.Array:
    x = self.table[...][tokens].astype(self.c.dtype)
    return x * jnp.asarray(self.c.d_model**0.5, x.dtype) if self.c.embed_scale else x

  def logits(self, hidden: jax.Array, turned: bool) -> jax.Array:
    if self.c.tied_embeddings:
      head = self.table[...] if turned else self.table[...].T
    else:
      head = self.head[...]
    multiply = product_of_turned if turned else product
    logits = multiply(hidden, head.astype(hidden.dtype), 1, jnp.float32)
    if 0 < self.c.usable_vocab < self.c.vocab_size:
      logits = jnp.where(jnp.arange(self.c.vocab_size) < self.c.usable_vocab, logits, NEVER)
    return logits


@dataclasses.dataclass(frozen=True)
class Model:
  """The static half of a transformer; every method is a pure function of its arguments, `params` first.

  Args:
    config: the shape.
    mesh: where activations lie; None = wherever XLA puts them.

  Example:
    model = Model(config)
    params = model.init(jax.random.key(0))
    logits = model.logits(params, model.forward(params, tokens, positions, segments))
  """

  config: ModelConfig
  mesh: Mesh | None = None

  def _modules(self, key: jax.Array) -> dict[str, nnx.Module]:
    c, (embed_key, block_key) = self.config, jax.random.split(key)
    blocks = nnx.vmap(lambda k: Block(c, nnx.Rngs(k)))(jax.random.split(block_key, c.layers))
    return {"embedding": Embedding(c, nnx.Rngs(embed_key)), "blocks": blocks, "final_norm": RMSNorm(c.d_model, c)}

  @functools.cached_property
  def _graphdefs(self) -> dict[str, nnx.GraphDef]:
    modules = nnx.eval_shape(lambda: self._modules(jax.random.key(0)))
    return {name: nnx.split(module)[0] for name, module in modules.items()}

  def init(self, key: jax.Array) -> Params:
    """Random parameters: normal with standard deviation 1/sqrt(fan in), residual outputs divided by sqrt(2 L)."""
    return {name: nnx.to_pure_dict(nnx.state(module)) for name, module in self._modules(key).items()}

  @functools.cached_property
  def shapes(self) -> Params:
    """The parameters as ShapeDtypeStructs."""
    return jax.eval_shape(self.init, jax.random.key(0))

  def unstacked(self, params: Params, turned: bool = False) -> Params:
    """The same parameters with "blocks" a tuple of layers: unrolled decode reads them without slicing at every step.

    By a split, whose gradient lays the layers' side by side; that of slices would add up as many padded arrays.

    Args:
      params: stacked.
      turned: to lay the weights as `product_of_turned` wants them, too; an empty entry "turned" then says so.
    """
    leaves, tree = jax.tree.flatten(params["blocks"])
    split = [jax.lax.split(a, (1,) * self.config.layers) for a in leaves]
    blocks = tuple(tree.unflatten([a[0] for a in parts]) for parts in zip(*split, strict=True))
    if not turned:
      return params | {"blocks": blocks}
    lay = lambda name, a: turn(a, a.ndim - MADE[name]) if name in MADE else a
    embedding = {name: turn(a) if name == "head" else a for name, a in params["embedding"].items()}
    blocks = tuple({name: lay(name, a) for name, a in layer.items()} for layer in blocks)
    return params | {"embedding": embedding, "blocks": blocks, "turned": None}

  def init_cache(self, rows: int, segments: Sequence[int]) -> Cache:
    """Empty caches, with segments of so many slots."""
    shape = (rows, self.config.kv_heads)
    keys = lambda: tuple(jnp.zeros((*shape, self.config.head_dim, s), self.config.dtype) for s in segments)
    values = lambda: tuple(jnp.zeros((*shape, s, self.config.head_dim), self.config.dtype) for s in segments)
    return tuple((keys(), values()) for _ in range(self.config.layers))

  def _run(self, params, tokens, positions, attend, cache=None, adapted=None):
    """attend(is_local, q, k, v, cache of the layer) -> (out, new cache of the layer)."""
    c, constrain = self.config, functools.partial(parallel.constrain, self.mesh)
    x = nnx.merge(self._graphdefs["embedding"], params["embedding"])(tokens)
    if cache is None:
      x = constrain(x, parallel.LOOKED_UP)
    x = constrain(x)
    far = rotary_angles(positions, c.head_dim, c.rope_theta, c.rope_scaling)
    near = rotary_angles(positions, c.head_dim, c.local_rope_theta or c.rope_theta) if c.local_layers else far

    def layer(p, x, local, kv):
      if isinstance(local, bool):
        angles = near if local else far
      else:
        angles = jax.tree.map(lambda a, b: jnp.where(local, a, b), near, far)
      block, attend_here = nnx.merge(self._graphdefs["blocks"], p), functools.partial(attend, local)
      x, kv = block(x, angles, attend_here, kv, adapted, "turned" in params)
      return constrain(x), kv

    local = c.local_layers or (False,) * c.layers
    mixed = len(set(local)) > 1
    blocks = params["blocks"]
    if cache is None and c.scan_layers and not isinstance(blocks, tuple):
      step = lambda x, given: (layer(given[0], x, given[1] if mixed else local[0], None)[0], None)
      if c.remat != "none":
        step = jax.checkpoint(step, prevent_cse=False, policy=REMAT[c.remat])
      x, _ = jax.lax.scan(step, x, (blocks, jnp.asarray(local)))
    else:
      blocks = blocks if isinstance(blocks, tuple) else self.unstacked(params)["blocks"]
      if c.remat != "none" and cache is None:
        layer = jax.checkpoint(layer, static_argnums=2, policy=REMAT[c.remat])
      new = []
      for i, p in enumerate(blocks):
        x, kv = layer(p, x, local[i], cache[i] if cache is not None else None)
        new.append(kv)
      cache = tuple(new)
    return nnx.merge(self._graphdefs["final_norm"], params["final_norm"])(x), cache

  @property
  def _attention(self) -> dict[str, Any]:
    c = self.config
    return {"window": c.window, "scale": c.query_scale or c.head_dim**-0.5}

  def forward(self, params: Params, tokens: jax.Array, positions: jax.Array, segments: jax.Array) -> jax.Array:
    """Packed rows: tokens, positions, segments [B, T] (segment 0 is padding) -> hidden [B, T, D].

    A token attends to those before it in its own segment.
    """
    options = self._attention | {"impl": self.config.attention, "mesh": self.mesh}
    attend = lambda local, q, k, v, _: (packed_attention(q, k, v, segments, is_local=local, **options), None)
    return self._run(params, tokens, positions, attend)[0]

  def extend(
      self, params: Params, cache: Cache, tokens: jax.Array, lengths: jax.Array, *, reach: jax.Array | None = None,
      rows: jax.Array | None = None, adapted: jax.Array | None = None,
  ) -> tuple[jax.Array, Cache]:
    """Runs tokens [B, T] that follow the `lengths` [B] tokens already in the cache.

    Args:
      params: stacked or `unstacked`.
      cache: of `init_cache`; slots from lengths[b] on are overwritten, so what stood there never mattered.
      tokens: [B, T]; those beyond a row's real count are computed and harmless (a later call overwrites their slots).
      lengths: [B] tokens in the cache before the call.
      reach: the last segment to attend over, a scalar (None = all); the slots up to its end must be at least
        max(lengths) + T of the rows that matter.
      rows: int [P, B/P], which caches these are, within each of P equal parts of them; those beyond a part's size are
        none. None = row b for each b.
      adapted: bool [B], the rows that adapters change; None = all.

    Returns:
      hidden [B, T, D] and the cache.
    """
    positions = lengths[:, None] + jnp.arange(tokens.shape[1])
    options = self._attention | {"reach": reach, "rows": rows}

    def attend(local, q, k, v, kv):
      kv = tuple(_write(old, new, lengths, rows, axis) for old, new, axis in zip(kv, (k, v), (3, 2), strict=True))
      return cached_attention(q, *kv, positions, is_local=local, **options), kv

    return self._run(params, tokens, positions, attend, cache, adapted)

  def logits(self, params: Params, hidden: jax.Array) -> jax.Array:
    """hidden [..., D] -> f32 [..., V]."""
    return nnx.merge(self._graphdefs["embedding"], params["embedding"]).logits(hidden, "turned" in params)


def parameter_count(params: Params) -> int:
  return sum(a.size for a in jax.tree.leaves(params))
