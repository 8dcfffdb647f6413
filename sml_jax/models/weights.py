"""Weights from a Hugging Face folder into sharded arrays: each process reads the slices that its devices hold.

Beside the arrays themselves, memory is needed for one parameter's shard of one device at a time.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jax.sharding import Mesh

from sml_jax import parallel
from sml_jax.errors import UserError
from sml_jax.models.families import Weight, family_of, weights
from sml_jax.models.tensor_files import DTYPES, Tensors
from sml_jax.models.transformer import Model, ModelConfig, Params

BODIES = ("model.", "language_model.model.", "model.language_model.")
"""What stands before a tensor's name: in text models, and in both forms of multimodal ones."""
HEADS = ("lm_head.weight", "language_model.lm_head.weight")


class Source:
  """Which tensors of a folder hold which of our parameters; everything is checked, nothing is read.

  Attributes:
    tensors: the folder's.
    places: parameter path -> (how it lies there, its tensors: one, or one a layer).
    twin: a copy of the embedding that a tied model's folder has as its head; "" = there is none.
    other: tensors that are no part of the text model.

  Raises:
    UserError: a tensor is missing, unexpected, of another shape than config.json makes it, or no floating-point one.
  """

  def __init__(self, folder: str | Path, config: ModelConfig):
    self.config = dataclasses.replace(config, lora=None)
    self.tensors = Tensors(folder)
    self.shapes = flat(Model(self.config).shapes)
    entries = self.tensors.entries
    body = next((b for b in BODIES if f"{b}embed_tokens.weight" in entries), BODIES[0])
    head = next((h for h in HEADS if h in entries), HEADS[0])
    self.places: dict[str, tuple[Weight, list[str]]] = {}
    for path, weight in weights(config).items():
      if weight.name == "lm_head.weight":
        names = [head]
      else:
        layers = range(config.layers) if "{layer}" in weight.name else (0,)
        names = [body + weight.name.format(layer=i) for i in layers]
      self.places[path] = (weight, names)
      for name in names:
        self._check(name, weight.tensor_shape(self.inner_shape(path)))
    self.twin = head if config.tied_embeddings and head in entries else ""
    if self.twin:
      self._check(self.twin, self.shapes["embedding/table"].shape)
    known = {self.twin, *itertools.chain(*(names for _, names in self.places.values()))}
    self.other = [name for name in entries if name not in known]
    passing = family_of(config).PASS_THROUGH if body != BODIES[0] else None
    for name in self.other:
      if not (passing and re.fullmatch(passing, name)):
        file = entries[name].file
        raise UserError(f"{file}: unexpected tensor {name} {list(entries[name].shape)}; the model has {self._size()}")

  def inner_shape(self, path: str) -> tuple[int, ...]:
    """Shape of a parameter, of one layer where it is stacked."""
    shape = self.shapes[path].shape
    return shape[1:] if path.startswith("blocks/") else shape

  def _size(self) -> str:
    tied = "tied" if self.config.tied_embeddings else "untied"
    return f"{self.config.layers} layers and {tied} embeddings by {self.tensors.folder}/config.json"

  def _check(self, name: str, shape: tuple[int, ...]) -> None:
    entry = self.tensors.entries.get(name)
    if entry is None:
      raise UserError(f"{self.tensors.folder}: tensor {name} {list(shape)} is missing; the model has {self._size()}")
    if entry.shape != shape:
      wanted = f"{self.tensors.folder}/config.json makes it {list(shape)}"
      raise UserError(f"{entry.file}: tensor {name} is {list(entry.shape)}, but {wanted}")
    if entry.dtype not in DTYPES:
      raise UserError(f"{entry.file}: tensor {name} is {entry.dtype}; supported: {', '.join(DTYPES)}")

  def read(self, path: str, index: tuple[slice, ...]) -> np.ndarray:
    """A part of a parameter in the model's param_dtype; index: a slice for each of our axes."""
    weight, names = self.places[path]
    full = self.shapes[path].shape
    index = tuple(slice(*s.indices(n)[:2]) for s, n in zip(index, full, strict=True))
    out = _aligned([s.stop - s.start for s in index], np.dtype(self.config.param_dtype))
    if path.startswith("blocks/"):
      for row, layer in zip(out, range(index[0].start, index[0].stop), strict=True):
        row[...] = _piece(self.tensors.view(names[layer]), weight, full[1:], index[1:])
    else:
      piece = _piece(self.tensors.view(names[0]), weight, full, index)
      if path == "embedding/table" and self.twin:
        self._check_twin(piece, _piece(self.tensors.view(self.twin), weight, full, index))
      out[...] = piece
    return out

  def _check_twin(self, table: np.ndarray, head: np.ndarray) -> None:
    for at in range(0, len(table), 4096):
      if not np.array_equal(table[at : at + 4096], head[at : at + 4096]):
        file = self.tensors.entries[self.twin].file
        raise UserError(f"{file}: {self.twin} differs from the embedding, but the model has {self._size()}")


def load(
    folder: str | Path,
    config: ModelConfig,
    mesh: Mesh,
    use: Literal["train", "decode"] = "train",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Params:
  """The parameters of a checkpoint folder as sharded arrays in config.param_dtype, without LoRA.

  Args:
    folder: with model.safetensors, or an index and its shards.
    config: of `families.read_shape(folder)`, with the fields that files do not tell.
    mesh, use: where the arrays will lie, see `parallel.param_shardings`.
    report: is given (bytes of the arrays that are done on this process, of all of them).

  Raises:
    UserError: see Source; raised before anything is read, except for a head that should equal the embedding.
  """
  source = Source(folder, config)
  shardings = flat(parallel.param_shardings(mesh, Model(source.config).shapes, use))
  size = lambda like, s: math.prod(s.shard_shape(like.shape)) * like.dtype.itemsize  # of one device's part
  total = sum(size(source.shapes[path], s) * len(s.addressable_devices) for path, s in shardings.items())
  done, out = 0, {}
  for path, sharding in shardings.items():
    shape = source.shapes[path].shape
    parts: dict[str, tuple[tuple, list[jax.Device]]] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
      parts.setdefault(str(index), (index, []))[1].append(device)
    arrays = []
    for index, devices in parts.values():  # One after the other; what several devices hold is read once.
      part = source.read(path, index)
      arrays += jax.block_until_ready([jax.device_put(part, device) for device in devices])
      done += len(devices) * part.nbytes
      report(done, total)
    out[path] = jax.make_array_from_single_device_arrays(shape, sharding, arrays)
  return nested(out)


def _piece(view: np.ndarray, weight: Weight, shape: tuple[int, ...], index: tuple[slice, ...]) -> np.ndarray:
  """The part of a tensor that is our index of our shape (both without layers), as a view with our axes."""
  sizes = tuple(s.stop - s.start for s in index)
  cuts = []
  for first, *rest in weight.axes:
    if any(sizes[a] != shape[a] for a in rest):
      raise ValueError(f"axes {rest} of {weight.name} cannot be cut: they are within axis {first}")
    inner = math.prod(shape[a] for a in rest)
    cuts.append(slice(index[first].start * inner, index[first].stop * inner))
  order = tuple(itertools.chain(*weight.axes))
  return view[tuple(cuts)].reshape([sizes[a] for a in order]).transpose(np.argsort(order))


def _aligned(shape: list[int], dtype: np.dtype) -> np.ndarray:
  """An empty array which JAX on a CPU takes over as it is; one that begins elsewhere it would copy."""
  size = math.prod(shape) * dtype.itemsize
  raw = np.empty(size + 64, np.uint8)
  at = -raw.ctypes.data % 64
  return raw[at : at + size].view(dtype).reshape(shape)


def flat(tree: Params) -> dict:
  """Nested dicts -> {"blocks/q": leaf}."""
  return {"/".join(k.key for k in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def nested(leaves: dict) -> Params:
  """The inverse of `flat`."""
  out: Params = {}
  for path, leaf in leaves.items():
    *above, name = path.split("/")
    node = out
    for key in above:
      node = node.setdefault(key, {})
    node[name] = leaf
  return out
