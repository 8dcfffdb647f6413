"""Checksums of arrays that do not depend on the mesh, since array data has none of its own on the disk."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def named_arrays(state: Any) -> dict[str, Any]:
  """The leaves of a pytree by path, such as `params.layers.0.wq`."""
  leaves = jax.tree_util.tree_leaves_with_path(state)
  return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def checksums(state: Any) -> dict[str, int]:
  """One checksum for each array by its path: equal for equal bits, on any mesh, whether NumPy's or JAX's.

  Taken of the values before they are written and after they are read, it guards the whole way to the disk and back.
  """
  sums = {
      name: _of_numpy(x) if isinstance(x, np.ndarray | np.generic) else _of_device(x)
      for name, x in named_arrays(state).items()
  }
  return {name: int(value) for name, value in jax.device_get(sums).items()}


def _checksum(array, xp) -> Any:
  """The words of an array summed modulo 2^32, each times an odd number of its place: no single wrong word escapes.

  Integer sums do not depend on their order, so the sharding does not matter.
  """
  array = xp.asarray(array)
  if array.dtype == bool:
    array = array.astype(xp.uint8)
  words = array.view(f"uint{8 * array.dtype.itemsize}").astype(xp.uint32)
  place = xp.ones((), xp.uint32)
  for axis, size in enumerate(array.shape):
    # Axis by axis, since flattening a sharded array would gather the whole of it on every device.
    shape = [size if a == axis else 1 for a in range(array.ndim)]
    place = place + xp.arange(size, dtype=xp.uint32).reshape(shape) * xp.uint32(2 * (7919 * axis + 1))
  return (words * place).sum(dtype=xp.uint32)


_of_device = jax.jit(functools.partial(_checksum, xp=jnp))
_of_numpy = functools.partial(_checksum, xp=np)
