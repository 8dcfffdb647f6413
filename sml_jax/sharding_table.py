"""What --show_sharding prints: where each parameter lies, and what of it one device holds, training and decoding."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, PartitionSpec
from ml_collections import ConfigDict
from rich import box
from rich.console import Console
from rich.table import Table

from sml_jax import parallel
from sml_jax.dialogue.renderer import make_renderer
from sml_jax.models.transformer import Model
from sml_jax.student import model_config


@dataclasses.dataclass(frozen=True)
class Share:
  """One parameter in one use (training or decoding): its dtype, its spec, and the bytes of it on one device."""

  dtype: np.dtype
  spec: PartitionSpec
  device_bytes: int


def shares(mesh: AbstractMesh, shapes: Any, decode_dtype: Any) -> dict[str, tuple[tuple[int, ...], Share, Share]]:
  """Parameter -> (shape, in training, in decoding).

  Args:
    mesh: its sizes are all that matters.
    shapes: the parameters, or things with their shapes and dtypes.
    decode_dtype: of the copy that decoding reads; norms keep theirs.
  """
  out = {}
  both = (parallel.param_shardings(mesh, shapes, use) for use in ("train", "decode"))
  leaves = jax.tree_util.tree_leaves_with_path(shapes)
  for (path, leaf), train, decode in zip(leaves, *map(jax.tree.leaves, both), strict=True):
    cast = leaf.dtype if path[-1].key == "scale" else np.dtype(decode_dtype)
    each = [
        Share(np.dtype(dtype), s.spec, math.prod(s.shard_shape(leaf.shape)) * np.dtype(dtype).itemsize)
        for dtype, s in ((leaf.dtype, train), (cast, decode))
    ]
    out["/".join(k.key for k in path)] = (tuple(leaf.shape), *each)
  return out


def show(config: ConfigDict, devices: int) -> None:
  """Prints the table for a config's student on a mesh of so many devices, of which nothing needs to be there.

  Raises:
    UserError: the mesh does not make the devices, or the config names no model.
  """
  _, shape = model_config(config)
  if not shape.vocab_size:
    shape = dataclasses.replace(shape, vocab_size=make_renderer(config.tokenizer, "").vocab_size)
  sizes = parallel.mesh_sizes(**config.mesh, devices=devices)
  found = shares(AbstractMesh(sizes, parallel.AXES), Model(shape).shapes, shape.dtype)
  mesh = " x ".join(f"{axis} {size}" for axis, size in zip(parallel.AXES, sizes, strict=True))
  table = Table(title=f"parameters on the mesh {mesh}", title_justify="left", box=box.SIMPLE_HEAD)
  columns = "parameter, shape, dtype, spec, bytes a device, decode dtype, decode spec, bytes a device"
  for name in columns.split(", "):
    table.add_column(name, justify="right" if "bytes" in name else "left", no_wrap=True)
  for name, (dims, train, decode) in found.items():
    cells = [cell for s in (train, decode) for cell in (str(s.dtype), _spec(s.spec), f"{s.device_bytes:,}")]
    table.add_row(name, " ".join(map(str, dims)), *cells)
  count = sum(math.prod(dims) for dims, _, _ in found.values())
  total = [sum(each[i].device_bytes for each in found.values()) for i in (1, 2)]
  table.add_section()
  table.add_row("total", f"{count:,} parameters", "", "", f"{total[0]:,}", "", "", f"{total[1]:,}")
  # As wide as it is, whatever the terminal: a number that is cut says nothing.
  Console(highlight=False, width=Console(width=1000).measure(table).maximum).print(table)


def _spec(spec: PartitionSpec) -> str:
  """Axes of the mesh by dimension; "-" is replicated."""
  return " ".join(axis or "-" for axis in spec)
