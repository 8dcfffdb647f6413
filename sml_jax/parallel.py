"""The mesh, and the one table that says how every array lies on it."""

from __future__ import annotations

import os
import re
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sml_jax.errors import UserError

AXES = ("data", "fsdp", "model")
ROWS = P(("data", "fsdp"))
"""Rows of a batch lie along data and fsdp."""

# Parameter (without the leading layer axis) -> its axes when training, and when decoding, where FSDP would gather the
# weights for every token.
RULES: tuple[tuple[str, P, P], ...] = (
    (r"embedding/table", P("model", "fsdp"), P("model", None)),
    (r"embedding/head", P("fsdp", "model"), P(None, "model")),
    (r"blocks/[qkv]", P("fsdp", "model", None), P(None, "model", None)),
    (r"blocks/o", P("model", None, "fsdp"), P("model", None, None)),
    (r"blocks/(gate|up)", P("fsdp", "model"), P(None, "model")),
    (r"blocks/down", P("model", "fsdp"), P("model", None)),
    (r"(blocks/(attn|mlp)_norm|final_norm)/scale", P(None), P(None)),
)


def make_mesh(data: int = 1, fsdp: int = -1, model: int = 1) -> Mesh:
  """The mesh over all devices of all processes; one of the sizes may be -1, the rest.

  Raises:
    UserError: the sizes do not multiply to the number of devices.
  """
  sizes, devices = [data, fsdp, model], jax.device_count()
  if sizes.count(-1) == 1:
    known = int(np.prod([s for s in sizes if s != -1]))
    sizes[sizes.index(-1)] = devices // max(1, known)  # a size of 0 is refused below
  if -1 in sizes or int(np.prod(sizes)) != devices:
    wanted = f"data x fsdp x model = {data} x {fsdp} x {model}"
    raise UserError(f"mesh: {wanted} does not make the {devices} devices there are")
  return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3)


def param_shardings(mesh: Mesh, params: Any, use: Literal["train", "decode"] = "train") -> Any:
  """The sharding of every parameter, by RULES; an axis that does not divide a dimension is left out (replicated).

  Raises:
    ValueError: a parameter matches no rule, or several.
  """
  def one(path, leaf):
    name = "/".join(str(k.key) for k in path)
    found = [rule for rule in RULES if re.fullmatch(rule[0], name)]
    if len(found) != 1:
      raise ValueError(f"parameter {name} matches {len(found)} sharding rules, not one")
    spec = tuple(found[0][1 if use == "train" else 2])
    if name.startswith("blocks/"):
      spec = (None, *spec)
    return NamedSharding(mesh, P(*(_if_divides(mesh, a, n) for a, n in zip(spec, leaf.shape, strict=True))))

  return jax.tree_util.tree_map_with_path(one, params)


def _if_divides(mesh: Mesh, axis: str | None, size: int) -> str | None:
  return axis if axis and size % mesh.shape[axis] == 0 else None


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, P())


def row_shards(mesh: Mesh) -> int:
  """Into how many parts the rows of a batch are cut."""
  return mesh.shape["data"] * mesh.shape["fsdp"]


def put_rows(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
  """Local rows of a batch -> global arrays whose rows lie along data and fsdp."""
  sharding = NamedSharding(mesh, ROWS)
  if jax.process_count() == 1:
    return jax.device_put(batch, sharding)
  return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def start() -> None:
  """Joins the other processes of the job where there are any, and turns on the compilation cache.

  Call it before any other use of JAX.
  """
  cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/sml_jax/compiled"))
  jax.config.update("jax_compilation_cache_dir", cache)
  signs_of_others = ("JAX_COORDINATOR_ADDRESS", "TPU_WORKER_HOSTNAMES", "MEGASCALE_COORDINATOR_ADDRESS")
  if any(name in os.environ for name in signs_of_others):
    jax.distributed.initialize()


def wait_for_all(what: str) -> None:
  """Returns when every process has come to this place."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)
