"""Safetensors files, read through the page cache: a tensor costs no memory until it is copied.

A file is the length of its header (8 bytes), the header (JSON: tensor -> dtype, shape, place), and the tensors' bytes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from sml_jax.errors import UserError

DTYPES = {"BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype(np.float16), "F32": np.dtype(np.float32)}
"""The dtypes that parameters may have."""
_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16,
         "F8_E4M3": 8, "F8_E5M2": 8, "I8": 8, "U8": 8, "BOOL": 8}  # fmt: skip
_LONGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""


@dataclasses.dataclass(frozen=True)
class Entry:
  """A tensor in a file: its dtype by the format's name, its shape, and its bytes [start, stop) of the file."""

  file: Path
  dtype: str
  shape: tuple[int, ...]
  start: int
  stop: int


class Tensors:
  """The tensors of a checkpoint folder: model.safetensors, or the shards that an index names.

  Every file's header is read and checked here, so that what is damaged is found before anything is loaded.

  Attributes:
    folder: where they are.
    entries: by tensor name, in the order of their bytes, file after file.

  Raises:
    UserError: a file is missing, truncated or damaged, or contradicts the index.
  """

  def __init__(self, folder: str | Path):
    self.folder = Path(folder)
    self.entries: dict[str, Entry] = {}
    self._maps: dict[Path, mmap.mmap] = {}
    single, index = self.folder / "model.safetensors", self.folder / "model.safetensors.index.json"
    if single.exists():
      self.entries = read_header(single)
    elif index.exists():
      self._read_shards(index)
    else:
      raise UserError(f"{self.folder}: has neither model.safetensors nor model.safetensors.index.json")

  def _read_shards(self, index: Path) -> None:
    try:
      weight_map = json.loads(index.read_text())["weight_map"]
      files = sorted(set(weight_map.values()))
      if any(Path(f).name != f for f in files):
        raise ValueError("weight_map names files elsewhere")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
      raise UserError(f"{index}: is not an index of shards: {type(e).__name__}: {e}") from None
    for name in files:
      file = self.folder / name
      if not file.exists():
        count = sum(f == name for f in weight_map.values())
        raise UserError(f"{file}: this shard is missing; {index.name} places {count} tensors in it")
      found = read_header(file)
      wanted = {tensor for tensor, f in weight_map.items() if f == name}
      if missing := sorted(wanted - found.keys()):
        raise UserError(f"{file}: has no tensor {missing[0]}, which {index.name} places there")
      if extra := sorted(found.keys() - wanted):
        raise UserError(f"{file}: has a tensor {extra[0]}, which {index.name} does not place there")
      self.entries |= found

  def files(self) -> list[Path]:
    return list(dict.fromkeys(e.file for e in self.entries.values()))

  def raw(self, name: str) -> memoryview:
    """The bytes of a tensor as they are in the file."""
    entry = self.entries[name]
    if entry.file not in self._maps:
      with entry.file.open("rb") as f:
        self._maps[entry.file] = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    return memoryview(self._maps[entry.file])[entry.start : entry.stop]

  def view(self, name: str) -> np.ndarray:
    """A tensor of one of DTYPES, read-only; only what is copied from it is read."""
    entry = self.entries[name]
    return np.frombuffer(self.raw(name), np.uint8).view(DTYPES[entry.dtype]).reshape(entry.shape)


def read_header(file: Path) -> dict[str, Entry]:
  """The tensors of one file in the order of their bytes.

  Raises:
    UserError: the file is truncated or damaged, or cannot be read.
  """
  try:
    size = file.stat().st_size
    with file.open("rb") as f:
      length = int.from_bytes(f.read(8), "little")
      begin = 8 + length
      text = f.read(length) if length <= _LONGEST_HEADER else b""
  except OSError as e:
    raise UserError(f"{file}: cannot be read: {e.strerror or e}") from None
  if begin > size or length > _LONGEST_HEADER:
    raise UserError(f"{file}: truncated, or no safetensors file: {size} bytes, and a header of {length} announced")
  try:
    header = json.loads(text)
    header.pop("__metadata__", None)
    entries = {}
    for name, t in header.items():
      start, stop = (begin + int(n) for n in t["data_offsets"])
      entries[name] = Entry(file, t["dtype"], tuple(int(n) for n in t["shape"]), start, stop)
  except (ValueError, TypeError, KeyError, AttributeError) as e:
    raise UserError(f"{file}: its header is damaged: {type(e).__name__}: {e}") from None
  entries = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)))
  expected = begin
  for name, e in entries.items():
    if e.stop > size:
      raise UserError(f"{file}: truncated: tensor {name} ends at byte {e.stop}, the file has {size}")
    wanted = math.prod(e.shape) * _BITS.get(e.dtype, 0) // 8
    if e.start != expected or (e.dtype in _BITS and e.stop - e.start != wanted):
      raise UserError(
          f"{file}: its header is damaged: tensor {name} ({e.dtype} {list(e.shape)}) is said to be bytes {e.start} to "
          f"{e.stop}, after one that ends at {expected}"
      )
    expected = e.stop
  if expected != size:
    raise UserError(f"{file}: damaged: its tensors end at byte {expected}, the file has {size}")
  return entries


def header_bytes(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> bytes:
  """The beginning of a file that will hold these tensors (dtype and shape by name) in this order."""
  header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers refuses files without it
  at = 0
  for name, (dtype, shape) in tensors.items():
    end = at + math.prod(shape) * _BITS[dtype] // 8
    header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
    at = end
  text = json.dumps(header, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)  # so that the tensors are aligned
  return len(text).to_bytes(8, "little") + text


def write(f: BinaryIO, array: np.ndarray | memoryview) -> None:
  """Appends an array's bytes."""
  f.write(array if isinstance(array, memoryview) else np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
