"""Runs the program as one of several processes on CPU, whose connections are made while all are in step.

Gloo gives up on a process that is half a minute late to a group's first meeting, as one that compiles longer on a busy
machine is. TPUs and GPUs have no such limit.
"""

from __future__ import annotations

import itertools
import runpy
import sys

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sml_jax import parallel

make_mesh = parallel.make_mesh


def connected(*args, **kwargs) -> Mesh:
  mesh = make_mesh(*args, **kwargs)
  parallel.gather(lambda: None)
  everywhere = P(parallel.AXES)
  zeros = np.zeros(mesh.size, np.float32)
  x = jax.make_array_from_callback(zeros.shape, NamedSharding(mesh, everywhere), lambda i: zeros[i])
  for axes in itertools.chain(*(itertools.combinations(parallel.AXES, n) for n in (3, 2, 1))):
    add = lambda x, axes=axes: jax.lax.psum(x, axes)
    jax.jit(jax.shard_map(add, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False))(x)
  return mesh


if __name__ == "__main__":
  parallel.make_mesh = connected
  sys.argv = ["sml_jax.main", *sys.argv[1:]]
  runpy.run_module("sml_jax.main", run_name="__main__")
