"""LoRA (arXiv:2106.09685) on the plain params pytree: y = x W + (alpha / rank) (x A) B; W stays, and B begins as 0.

An adapter is a part of the model's params: the leaves under a name that begins with "lora_". Base weights are thus the
same arrays for a student with an adapter and a teacher without.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sml_jax.models.product import product

TARGETS = ("q", "k", "v", "o", "gate", "up", "down")
PREFIX = "lora_"


@dataclasses.dataclass(frozen=True)
class Lora:
  """Which projections have an adapter of which rank; its product counts alpha / rank times."""

  rank: int
  alpha: float
  targets: tuple[str, ...] = TARGETS

  def __post_init__(self):
    if unknown := set(self.targets) - set(TARGETS):
      raise ValueError(f"no projection {sorted(unknown)[0]!r} to adapt; known: {', '.join(TARGETS)}")

  @property
  def scale(self) -> float:
    return self.alpha / self.rank


class Adapter(nnx.Module):
  """a [*ins, r] and b [r, *outs], f32."""

  def __init__(self, ins: tuple[int, ...], outs: tuple[int, ...], rank: int, rngs: nnx.Rngs):
    fan_in = 1
    for n in ins:
      fan_in *= n
    self.a = nnx.Param(jax.random.normal(rngs.params(), (*ins, rank)) * fan_in**-0.5)
    self.b = nnx.Param(jnp.zeros((rank, *outs)))

  def __call__(self, x: jax.Array) -> jax.Array:
    """x [B, T, *ins] -> [B, T, *outs], before the factor alpha / rank."""
    low = product(x, self.a.astype(x.dtype), self.a.ndim - 1)
    return product(low, self.b.astype(x.dtype))


def split(params: Any) -> tuple[Any, Any]:
  """(base, adapter): nested dicts that hold the one kind of leaves alone; without adapters the second is {}."""
  if not isinstance(params, dict):
    return params, {}
  base, adapter = {}, {}
  for name, node in params.items():
    if name.startswith(PREFIX):
      adapter[name] = node
    else:
      base[name], below = split(node)
      if below:
        adapter[name] = below
  return base, adapter


def join(base: Any, adapter: Any) -> Any:
  """The inverse of `split`."""
  out = dict(base)
  for name, node in adapter.items():
    out[name] = join(base[name], node) if name in base else node
  return out


def merge(params: Any, lora: Lora) -> Any:
  """Stacked params without adapters, whose weights have taken them in, in the weights' dtype."""
  base, adapter = split(params)
  blocks = dict(base["blocks"])
  for name, ab in adapter["blocks"].items():
    target = name.removeprefix(PREFIX)
    blocks[target] = _merged(blocks[target], ab["a"], ab["b"], lora.scale)
  return base | {"blocks": blocks}


@jax.jit
def _merged(weight: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
  product = jax.vmap(lambda a, b: jnp.tensordot(a, b, axes=1, precision="highest"))(a, b)  # over layers
  return (weight.astype(jnp.float32) + scale * product).astype(weight.dtype)
