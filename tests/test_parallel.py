"""The table of sharding rules, and meshes that do not fit."""

from __future__ import annotations

import dataclasses
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from sml_jax import parallel
from sml_jax.errors import UserError
from sml_jax.models import families
from sml_jax.models.lora import Lora
from sml_jax.models.transformer import Model, ModelConfig

SHAPE = dict(vocab_size=48, d_model=16, layers=3, heads=4, kv_heads=2, head_dim=6, mlp_dim=20)


def shapes(**changes):
  return jax.eval_shape(Model(ModelConfig(**SHAPE | changes)).init, jax.random.key(0))


def mesh(data: int, fsdp: int, model: int) -> AbstractMesh:
  return AbstractMesh((data, fsdp, model), parallel.AXES)


def specs(mesh, params, use="train") -> dict[str, P]:
  found = jax.tree_util.tree_leaves_with_path(parallel.param_shardings(mesh, params, use))
  return {"/".join(k.key for k in path): s.spec for path, s in found}


def rules_of(params) -> dict[str, list[str]]:
  names = ["/".join(k.key for k in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  return {name: [r[0] for r in parallel.RULES if re.fullmatch(r[0], name)] for name in names}


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_matches_exactly_one_rule_and_every_rule_is_used(tied):
  matches = rules_of(shapes(tied_embeddings=tied, post_norms=True, qk_norm=True, lora=Lora(4, 8.0)))
  assert all(len(found) == 1 for found in matches.values()), matches
  used = {found[0] for found in matches.values()}
  assert {r[0] for r in parallel.RULES} - used == ({r"embedding/head"} if tied else set())


@pytest.mark.parametrize("name", families.PRESETS)
def test_every_preset_has_one_rule_a_parameter_and_lies_on_large_meshes(name):
  _, config = families.preset(name)
  params = Model(dataclasses.replace(config, lora=Lora(16, 32.0))).shapes
  assert all(len(found) == 1 for found in rules_of(params).values())
  for sizes in ((1, 64, 2), (2, 8, 16)):
    for use in ("train", "decode"):
      shardings = parallel.param_shardings(mesh(*sizes), params, use)
      jax.tree.map(lambda s, a: s.shard_shape(a.shape), shardings, params)  # raises where an axis does not divide


def test_an_adapter_lies_as_its_weight_and_its_rank_is_never_cut():
  found = specs(mesh(2, 2, 2), shapes(lora=Lora(4, 8.0)))
  for name in ("q", "gate"):
    assert (*found[f"blocks/lora_{name}/a"],) == (None, "fsdp", None)  # [L, D, r] of [L, D, ...]
  assert found["blocks/lora_q/b"] == P(None, None, "model", None)  # [L, r, H, E]
  assert found["blocks/lora_o/a"] == P(None, "model", None, None) and found["blocks/lora_o/b"] == P(None, None, "fsdp")
  assert found["blocks/lora_down/a"] == P(None, "model", None) and found["blocks/lora_up/b"] == P(None, None, "model")


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
def test_minus_one_is_the_rest_of_eight(sizes, rest):
  assert parallel.mesh_sizes(*sizes, devices=8) == rest


def test_rows_lie_along_data_and_fsdp():
  assert parallel.row_shards(mesh(2, 4, 8)) == 8
  put = parallel.put_rows(parallel.make_mesh(), {"tokens": np.arange(6).reshape(3, 2)})
  assert put["tokens"].sharding.spec == P(("data", "fsdp")) and put["tokens"].tolist() == [[0, 1], [2, 3], [4, 5]]


@dataclasses.dataclass(frozen=True)
class Device:
  id: int
  process_index: int


def mesh_of(processes: int, each: int, *sizes: int):
  """What a mesh of that many processes with `each` devices looks like to the functions below."""
  devices = [Device(i, i // each) for i in range(processes * each)]
  grid = np.array(devices, object).reshape(sizes)
  return types.SimpleNamespace(devices=grid, shape=dict(zip(parallel.AXES, sizes, strict=True)))


@pytest.mark.parametrize("processes, each, sizes, shares, local", [
    (2, 4, (1, 8, 1), [(0, 2), (1, 2)], [(0, 1, 2, 3), (4, 5, 6, 7)]),
    (2, 4, (2, 2, 2), [(0, 2), (1, 2)], [(0, 1, 2, 3), (4, 5, 6, 7)]),
    (2, 4, (1, 2, 4), [(0, 2), (1, 2)], [(0, 1, 2, 3), (4, 5, 6, 7)]),
    (2, 4, (1, 1, 8), [(0, 1), (0, 1)], None),  # one part of the rows, on all devices of both
    (4, 2, (1, 2, 4), [(0, 2), (0, 2), (1, 2), (1, 2)], None),
    (1, 8, (1, 8, 1), [(0, 1)], [tuple(range(8))]),
])  # fmt: skip
def test_which_rows_are_a_processs_own(monkeypatch, processes, each, sizes, shares, local):
  monkeypatch.setattr(parallel, "Mesh", lambda devices, axes, axis_types: devices)
  whole = mesh_of(processes, each, *sizes)
  for process in range(processes):
    monkeypatch.setattr(jax, "process_index", lambda process=process: process)
    assert parallel.row_share(whole) == shares[process]
    own = parallel.local_mesh(whole)
    assert own is None if local is None else tuple(d.id for d in own.flat) == local[process]
    assert local is None or own.shape == (each // sizes[2], 1, sizes[2])


def test_a_model_axis_across_the_bounds_of_processes_is_one_line(monkeypatch):
  monkeypatch.setattr(jax, "process_index", lambda: 0)
  line = r"^mesh: data x fsdp x model = 1 x 4 x 3 cuts rows unevenly among 3 processes; [^\n]*$"
  with pytest.raises(UserError, match=line):
    parallel.row_share(mesh_of(3, 4, 1, 4, 3))


def test_one_process_meets_itself():
  assert parallel.gather(lambda: 3) == [3] and parallel.by_first(lambda: "a") == "a"
  assert parallel.all_or_none(lambda: [1]) == [1]
  with pytest.raises(UserError, match=r"^no$"):
    parallel.gather(lambda: (_ for _ in ()).throw(UserError("no")))
