"""The mesh, and the one table that says how every array lies on it."""

from __future__ import annotations

import math
import os
import pickle
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sml_jax import cluster
from sml_jax.errors import UserError

T = TypeVar("T")
AXES = ("data", "fsdp", "model")
ROWS = P(("data", "fsdp"))
"""Rows of a batch, and so of activations, lie along data and fsdp."""
LOOKED_UP = P("data", None, "fsdp")
"""Embeddings in training, cut as the table is, on their way to ROWS: in one step, XLA would copy them everywhere."""
CACHE = P(("data", "fsdp"), "model", None, None)
"""Keys and values [B, K, S, E] that decoding keeps; where there are fewer heads than `model`, all have all of them."""

# Parameter (without the leading layer axis) -> its axes when training, and when decoding, where FSDP would gather the
# weights for every token.
RULES: tuple[tuple[str, P, P], ...] = (
    (r"embedding/table", P("model", "fsdp"), P("model", None)),
    (r"embedding/head", P("fsdp", "model"), P(None, "model")),
    (r"blocks/[qkv]", P("fsdp", "model", None), P(None, "model", None)),
    (r"blocks/o", P("model", None, "fsdp"), P("model", None, None)),
    (r"blocks/(gate|up)", P("fsdp", "model"), P(None, "model")),
    (r"blocks/down", P("model", "fsdp"), P("model", None)),
    (r"(blocks/((post_)?(attn|mlp)|q|k)_norm|final_norm)/scale", P(None), P(None)),
    # An adapter lies as the weight that it changes; its rank is never cut.
    (r"blocks/lora_[qkv]/a", P("fsdp", None), P(None, None)),
    (r"blocks/lora_[qkv]/b", P(None, "model", None), P(None, "model", None)),
    (r"blocks/lora_o/a", P("model", None, None), P("model", None, None)),
    (r"blocks/lora_(o|down)/b", P(None, "fsdp"), P(None, None)),
    (r"blocks/lora_(gate|up)/a", P("fsdp", None), P(None, None)),
    (r"blocks/lora_(gate|up)/b", P(None, "model"), P(None, "model")),
    (r"blocks/lora_down/a", P("model", None), P("model", None)),
)


def make_mesh(data: int = 1, fsdp: int = -1, model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """The mesh over these devices (None = all of all processes); of several TPU slices, `data` lies across them.

  Raises:
    UserError: the sizes do not multiply to the number of devices (see `mesh_sizes`), or `data` not to the slices.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes = mesh_sizes(data, fsdp, model, len(devices))
  slices = len({d.slice_index for d in devices}) if hasattr(devices[0], "slice_index") else 1
  if devices[0].platform != "tpu" or slices == 1:
    lie = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
  elif sizes[0] % slices:
    raise UserError(f"mesh.data is {sizes[0]}: over {slices} slices it must be a multiple of {slices}")
  else:
    each = (sizes[0] // slices, *sizes[1:])
    lie = mesh_utils.create_hybrid_device_mesh(each, (slices, 1, 1), devices, allow_split_physical_axes=True)
  return Mesh(lie, AXES, axis_types=(AxisType.Auto,) * 3)


def mesh_sizes(data: int, fsdp: int, model: int, devices: int) -> tuple[int, int, int]:
  """The sizes of the axes over so many devices; one of them may be -1, the rest.

  Raises:
    UserError: the sizes do not multiply to the number of devices.
  """
  sizes = [data, fsdp, model]
  if sizes.count(-1) == 1:
    known = int(np.prod([s for s in sizes if s != -1]))
    sizes[sizes.index(-1)] = devices // max(1, known)  # a size of 0 is refused below
  if -1 in sizes or int(np.prod(sizes)) != devices:
    wanted = f"data x fsdp x model = {data} x {fsdp} x {model}"
    raise UserError(f"mesh: {wanted} does not make the {devices} devices there are")
  return tuple(sizes)


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
    if len(spec) != leaf.ndim:
      raise ValueError(f"parameter {name} has {leaf.ndim} axes, and its sharding rule {len(spec)}")
    return fitting(mesh, P(*spec), leaf.shape)

  return jax.tree_util.tree_map_with_path(one, params)


def fitting(mesh: Mesh, spec: P, shape: tuple[int, ...]) -> NamedSharding:
  """The sharding by a spec, less the axes that do not divide their dimension: it is replicated along those."""
  size = lambda axes: math.prod(mesh.shape[a] for a in ((axes,) if isinstance(axes, str) else axes))
  return NamedSharding(mesh, P(*(a if a and n % size(a) == 0 else None for a, n in zip(spec, shape, strict=False))))


def constrain(mesh: Mesh | None, x: jax.Array, spec: P = ROWS) -> jax.Array:
  """x, told where it lies. Without a mesh, or on one device, as it is."""
  if mesh is None or mesh.size == 1:
    return x
  return jax.lax.with_sharding_constraint(x, fitting(mesh, spec, x.shape))


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, P())


def row_shards(mesh: Mesh) -> int:
  """Into how many parts the rows of a batch are cut."""
  return mesh.shape["data"] * mesh.shape["fsdp"]


def row_share(mesh: Mesh) -> tuple[int, int]:
  """(index, count): processes cut a batch's rows into `count` parts, and this process gives part `index`.

  Processes give the same part where a group of `model` devices spans them.

  Raises:
    UserError: the parts are not of one size.
  """
  owners = _row_owners(mesh)
  held = {p: tuple(i for i, o in enumerate(owners) if p in o) for p in set().union(*owners)}
  parts = sorted(set(held.values()))
  if sum(map(len, parts)) != len(owners) or len(set(map(len, parts))) != 1:
    sizes = " x ".join(str(mesh.shape[a]) for a in AXES)
    raise UserError(f"mesh: data x fsdp x model = {sizes} cuts rows unevenly among {len(held)} processes; choose a "
                    "`model` that divides the devices of a process, or is a multiple of them")
  return parts.index(held[jax.process_index()]), len(parts)


def local_mesh(mesh: Mesh) -> Mesh | None:
  """This process's rows of the mesh as a mesh of its own; None where a group of `model` devices spans processes."""
  owners = _row_owners(mesh)
  if any(len(o) > 1 for o in owners):
    return None
  mine = [i for i, o in enumerate(owners) if jax.process_index() in o]
  rows = mesh.devices.reshape(-1, mesh.shape["model"])[mine]
  return Mesh(rows[:, None], AXES, axis_types=(AxisType.Auto,) * 3)


def _row_owners(mesh: Mesh) -> list[set[int]]:
  """The processes whose devices hold each part of a batch's rows."""
  return [{d.process_index for d in row} for row in mesh.devices.reshape(-1, mesh.shape["model"])]


def on_own_devices(mesh: Mesh, arrays: Any) -> Any:
  """Global arrays that lie along `model` alone, as arrays on a `local_mesh`: the same memory, nothing is copied."""
  def one(array: jax.Array) -> jax.Array:
    sharding = NamedSharding(mesh, array.sharding.spec)
    pieces = {s.device: s.data for s in array.addressable_shards}
    return jax.make_array_from_single_device_arrays(array.shape, sharding, [pieces[d] for d in mesh.devices.flat])

  return jax.tree.map(one, arrays)


def put_rows(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
  """This process's rows of a batch (see `row_share`) -> global arrays whose rows lie along data and fsdp."""
  sharding = NamedSharding(mesh, ROWS)
  if jax.process_count() == 1:
    return jax.device_put(batch, sharding)
  return _put_local(sharding, batch)


def put_everywhere(mesh: Mesh, arrays: dict[str, np.ndarray]) -> dict[str, jax.Array]:
  """Host arrays, the same in every process -> global arrays that every device has whole."""
  if jax.process_count() == 1:
    return jax.device_put(arrays, replicated(mesh))
  return _put_local(replicated(mesh), arrays)


def _put_local(sharding: NamedSharding, arrays: dict[str, np.ndarray]) -> dict[str, jax.Array]:
  with jax.transfer_guard("allow"):  # it is asked for, but JAX does not count it as such
    return {k: jax.make_array_from_process_local_data(sharding, np.asarray(v)) for k, v in arrays.items()}


def start() -> None:
  """Joins the other processes of the job where there are any, and turns on the compilation cache.

  Call it before any other use of JAX. Raises UserError if there are others and they cannot join each other.
  """
  cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/sml_jax/compiled"))
  jax.config.update("jax_compilation_cache_dir", cache)
  cluster.join()


def wait_for_all(what: str) -> None:
  """Returns when every process has come to this place."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)


def gather(compute: Callable[[], T]) -> list[T]:
  """What `compute` gives on each process, in their order, on every one of them. Call it on all.

  Raises:
    UserError: it failed on another process, so that nobody waits for a process that has left.
    Exception: what it raised here.
  """
  if jax.process_count() == 1:
    return [compute()]
  failed = None
  try:
    mine = compute(), ""
  except Exception as e:
    failed, mine = e, (None, str(e) if isinstance(e, UserError) else f"{type(e).__name__}: {e}")
  data = np.frombuffer(pickle.dumps(mine), np.uint8)  # exact, which a dialogue as JSON is not
  sizes = multihost_utils.process_allgather(np.asarray(data.size, np.int32))
  room = 1 << int(sizes.max()).bit_length()  # few sizes, since each one is compiled
  rows = multihost_utils.process_allgather(np.pad(data, (0, room - data.size)))
  every = [pickle.loads(row[:n].tobytes()) for row, n in zip(rows, sizes, strict=True)]
  if failed is not None:
    raise failed
  for process, (_, why) in enumerate(every):
    if why:
      raise UserError(f"process {process}: {why}")
  return [value for value, _ in every]


def by_first(compute: Callable[[], T]) -> T:
  """What `compute` gives on the first process, which alone calls it, on all. Call it on all; raises as `gather`."""
  return gather(lambda: compute() if jax.process_index() == 0 else None)[0]


def all_or_none(compute: Callable[[], T]) -> T:
  """What `compute` gives here, if it fails nowhere. Call it on all; raises as `gather`."""
  made: list[T] = []
  gather(lambda: made.append(compute()))
  return made[0]
