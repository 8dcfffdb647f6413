"""Both products beside tensordot, and the gradient of the one beside what autodiff makes of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sml_jax.models.product import MANY, PARTS, product, product_of_turned, turn


@pytest.mark.parametrize(("ins", "outs"), [((6,), (5,)), ((6,), (3, 2)), ((3, 2), (5,)), ((3, 2), (2, 4))])
@pytest.mark.parametrize("dtype", [None, jnp.float32], ids=str)
@pytest.mark.parametrize("of", [jnp.float32, jnp.bfloat16], ids=lambda d: d.__name__)
def test_values_and_gradients_are_those_of_tensordot(ins, outs, dtype, of):
  keys = jax.random.split(jax.random.key(0), 3)
  draw = lambda key, *shape: jax.random.normal(key, shape).astype(of)
  x, weight, pull = draw(keys[0], 2, 4, *ins), draw(keys[1], *ins, *outs), draw(keys[2], 2, 4, *outs)
  plain = lambda x, w: jnp.tensordot(x, w, len(ins), preferred_element_type=dtype)
  ours = lambda x, w: product(x, w, len(ins), dtype)
  assert ours(x, weight).dtype == plain(x, weight).dtype
  np.testing.assert_array_equal(ours(x, weight), plain(x, weight))
  loss = lambda f: lambda x, w: (f(x, w) * pull.astype(dtype or of)).sum()
  found, expected = (jax.grad(loss(f), (0, 1))(x, weight) for f in (ours, plain))
  rtol = 1e-5 if of == jnp.float32 else 2e-2
  for a, b in zip(found, expected, strict=True):
    assert a.dtype == b.dtype == of
    np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), rtol=rtol, atol=1e-5)


@pytest.mark.parametrize(("ins", "outs"), [((6,), (5,)), ((6,), (PARTS, 2)), ((3, 2), (2 * PARTS,)), ((3, 2), (2, 4))])
@pytest.mark.parametrize("rows", [1, 2, MANY // 2], ids=lambda n: f"{n} rows a sequence")
def test_a_turned_weight_gives_the_same_product(ins, outs, rows):
  for sequences in (1, 2):
    x = jax.random.normal(jax.random.key(0), (sequences, rows, *ins))
    weight = jax.random.normal(jax.random.key(1), (*ins, *outs))
    lies = turn(weight, len(ins))
    assert lies.shape == (*outs, *ins)
    found = product_of_turned(x, lies, len(ins), jnp.float32)
    np.testing.assert_allclose(found, product(x, weight, len(ins)), rtol=1e-5, atol=1e-5)
