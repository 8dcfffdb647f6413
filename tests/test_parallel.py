"""The table of sharding rules, and meshes that do not fit."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from sml_jax import parallel
from sml_jax.errors import UserError
from sml_jax.models.transformer import Model, ModelConfig

SHAPE = dict(vocab_size=48, d_model=16, layers=3, heads=4, kv_heads=2, head_dim=6, mlp_dim=20)


def shapes(**changes):
  return jax.eval_shape(Model(ModelConfig(**SHAPE | changes)).init, jax.random.key(0))


def mesh(data: int, fsdp: int, model: int) -> AbstractMesh:
  return AbstractMesh((data, fsdp, model), parallel.AXES)


def specs(mesh, params, use="train") -> dict[str, P]:
  found = jax.tree_util.tree_leaves_with_path(parallel.param_shardings(mesh, params, use))
  return {"/".join(k.key for k in path): s.spec for path, s in found}


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_matches_exactly_one_rule_and_every_rule_is_used(tied):
  leaves = jax.tree_util.tree_leaves_with_path(shapes(tied_embeddings=tied))
  names = ["/".join(k.key for k in path) for path, _ in leaves]
  matches = {name: [r[0] for r in parallel.RULES if re.fullmatch(r[0], name)] for name in names}
  assert all(len(found) == 1 for found in matches.values()), matches
  used = {found[0] for found in matches.values()}
  assert {r[0] for r in parallel.RULES} - used == ({r"embedding/head"} if tied else set())


def test_specs_by_hand():
  assert specs(mesh(2, 2, 2), shapes(tied_embeddings=False)) == {
      "embedding/table": P("model", "fsdp"), "embedding/head": P("fsdp", "model"),
      "blocks/q": P(None, "fsdp", "model", None), "blocks/k": P(None, "fsdp", "model", None),
      "blocks/v": P(None, "fsdp", "model", None), "blocks/o": P(None, "model", None, "fsdp"),
      "blocks/gate": P(None, "fsdp", "model"), "blocks/up": P(None, "fsdp", "model"),
      "blocks/down": P(None, "model", "fsdp"), "blocks/attn_norm/scale": P(None, None),
      "blocks/mlp_norm/scale": P(None, None), "final_norm/scale": P(None),
  }  # fmt: skip


def test_decoding_shards_over_model_alone():
  """FSDP would gather the weights again for every token."""
  train, decode = (specs(mesh(2, 2, 2), shapes(tied_embeddings=False), use) for use in ("train", "decode"))
  for name, spec in train.items():
    assert decode[name] == P(*(None if axis == "fsdp" else axis for axis in spec))


def test_an_axis_that_does_not_divide_is_replicated():
  found = specs(mesh(1, 1, 4), shapes())
  assert found["blocks/q"] == P(None, "fsdp", "model", None)  # 4 query heads over 4
  assert found["blocks/k"] == P(None, "fsdp", None, None)  # 2 key-value heads over 4
  found = specs(mesh(1, 3, 5), shapes())
  assert found["embedding/table"] == P(None, None) and found["blocks/gate"] == P(None, None, "model")


@pytest.mark.parametrize("params, name", [
    ({"blocks": {"bias": jnp.zeros((2, 3))}}, "blocks/bias"), ({"lora": jnp.zeros(3)}, "lora"),
    ({"blocks": {"q": {"extra": jnp.zeros(3)}}}, "blocks/q/extra"),
])  # fmt: skip
def test_an_unknown_parameter_is_refused_by_name(params, name):
  with pytest.raises(ValueError, match=f"parameter {name} matches 0 sharding rules"):
    parallel.param_shardings(mesh(1, 1, 1), params)


def test_a_parameter_of_two_rules_is_refused(monkeypatch):
  monkeypatch.setattr(parallel, "RULES", (*parallel.RULES, (r"final_norm/.*", P(None), P(None))))
  with pytest.raises(ValueError, match="final_norm/scale matches 2 sharding rules"):
    parallel.param_shardings(mesh(1, 1, 1), shapes())


@pytest.mark.parametrize("sizes", [(2, 1, 1), (0, -1, 1), (-1, -1, 1), (1, 1, 3), (-1, 2, 1), (0, 1, 1), (1, 0, 0)])
def test_a_mesh_that_does_not_fit_is_one_line(sizes):
  with pytest.raises(UserError, match=r"^mesh: data x fsdp x model = .* does not make the 1 devices there are$") as e:
    parallel.make_mesh(*sizes)
  assert " x ".join(map(str, sizes)) in str(e.value)


@pytest.mark.parametrize("sizes", [(1, -1, 1), (-1, 1, 1), (1, 1, -1), (1, 1, 1)])
def test_minus_one_is_the_rest(sizes):
  assert dict(parallel.make_mesh(*sizes).shape) == {"data": 1, "fsdp": 1, "model": 1}


@pytest.mark.parametrize("sizes, rest", [((1, -1, 1), (1, 8, 1)), ((2, -1, 2), (2, 2, 2)), ((-1, 4, 2), (1, 4, 2))])
def test_minus_one_is_the_rest_of_eight(monkeypatch, sizes, rest):
  monkeypatch.setattr(jax, "device_count", lambda: 8)
  monkeypatch.setattr(jax, "make_mesh", lambda shape, axes, **_: (shape, axes))
  assert parallel.make_mesh(*sizes) == (rest, ("data", "fsdp", "model"))


def test_rows_lie_along_data_and_fsdp():
  assert parallel.row_shards(mesh(2, 4, 8)) == 8
  put = parallel.put_rows(parallel.make_mesh(), {"tokens": np.arange(6).reshape(3, 2)})
  assert put["tokens"].sharding.spec == P(("data", "fsdp")) and put["tokens"].tolist() == [[0, 1], [2, 3], [4, 5]]
