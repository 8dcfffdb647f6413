"""A matrix product whose gradient transposes nothing: for the one that autodiff makes of a weight XLA's CPU code writes
the incoming gradient, with all that is fused into it, a second time and turned, which costs a sixth of a step."""

from __future__ import annotations

import functools
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
  outs = weight.ndim - axes
  last = lambda a, n: tuple(range(a.ndim - n, a.ndim))
  over = lambda left, right: ((left, right), ((), ()))
  dx = jax.lax.dot_general(g, weight, over(last(g, outs), last(weight, outs)), preferred_element_type=x.dtype)
  rows = lambda a, n: a.reshape(-1, *a.shape[a.ndim - n :])  # of several axes to sum over XLA would make one by copying
  dw = jax.lax.dot_general(rows(x, axes), rows(g, outs), over((0,), (0,)), preferred_element_type=weight.dtype)
  return dx, dw


product.defvjp(_forward, _backward)
