"""Products with weights, in the two forms that XLA's CPU code is fast at.

`product`, to train with, has a gradient that transposes nothing: for the one that autodiff makes of a weight XLA writes
the incoming gradient, with all that is fused into it, a second time and turned, which costs a sixth of a step.

`product_of_turned`, to decode with, is of few rows with a weight that was turned (`turn`) once before.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def product(x: jax.Array, weight: jax.Array, axes: int = 1, dtype: Any = None) -> jax.Array:
  """x [..., *ins] times weight [*ins, *outs] -> [..., *outs].

  Args:
    axes: how many axes `ins` are.
    dtype: of the sums and of the result; None = x's.
  """
  return _product(x, weight, axes, dtype)


def _product(x, weight, axes, dtype):
  return jnp.tensordot(x, weight, axes, preferred_element_type=dtype)


def _forward(x, weight, axes, dtype):
  return _product(x, weight, axes, dtype), (x, weight)  # not `product`: a remat policy sees the dot of this one alone


def _backward(axes, dtype, kept, g):
  x, weight = kept
  # As matrices: of several axes to sum over XLA would make one by copying.
  contracted = math.prod(weight.shape[:axes])
  rows, matrix = x.reshape(-1, contracted), weight.reshape(contracted, -1)
  pull = g.reshape(len(rows), -1)
  dx = jax.lax.dot_general(pull, matrix, (((1,), (1,)), ((), ())), preferred_element_type=x.dtype)
  dw = jax.lax.dot_general(rows, pull, (((0,), (0,)), ((), ())), preferred_element_type=weight.dtype)
  return dx.reshape(x.shape), dw.reshape(weight.shape)


product.defvjp(_forward, _backward)


MANY = 256
"""From so many rows on the plain order is the faster one."""
PARTS = 4
"""A single row takes a weight in so many parts, which XLA gives to several cores."""


def turn(weight: jax.Array, axes: int = 1) -> jax.Array:
  """weight [*ins, *outs] -> [*outs, *ins]."""
  return jnp.moveaxis(weight, range(axes), range(-axes, 0))


def product_of_turned(x: jax.Array, weight: jax.Array, axes: int = 1, dtype: Any = None) -> jax.Array:
  """`product` with what `turn` made of a weight, [*outs, *ins]; for few rows on a CPU it is the faster."""
  ins, outs = weight.shape[weight.ndim - axes :], weight.shape[: weight.ndim - axes]
  rows, matrix = x.reshape(-1, math.prod(ins)), weight.reshape(-1, math.prod(ins))
  times = lambda a, b: jax.lax.dot_general(a, b, (((1,), (1,)), ((), ())), preferred_element_type=dtype)
  if len(rows) >= MANY:
    y = times(rows, matrix)
  elif len(rows) == 1 and len(matrix) % PARTS == 0:
    parts, copies = matrix.reshape(PARTS, -1, rows.shape[1]), jnp.broadcast_to(rows, (PARTS, rows.shape[1]))
    y = jax.lax.dot_general(parts, copies, (((2,), (1,)), ((0,), (0,))), preferred_element_type=dtype).reshape(1, -1)
  else:  # behind the barrier, as XLA would make the other order of it
    y = jax.lax.optimization_barrier(times(matrix, rows)).T
  return y.reshape(*x.shape[: x.ndim - axes], *outs)
