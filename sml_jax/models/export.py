"""Our parameters as a Hugging Face folder:

  python -m sml_jax.models.export --checkpoint=RUN/STAGE/checkpoints --base=FOLDER --out=NEW_FOLDER

FOLDER is the one that the run began with (its model.checkpoint). Its files (config, tokenizer, generation settings) are
copied, its tensors keep their names, order, dtype and shards, and those that are no part of the text model pass through
unchanged. For a run that began with random weights it is the name of a preset. Adapters are merged into the weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from sml_jax.checkpoint import CheckpointError, restore_params
from sml_jax.errors import UserError
from sml_jax.models import families, lora
from sml_jax.models.families import Weight
from sml_jax.models.tensor_files import DTYPES, header_bytes, write
from sml_jax.models.transformer import Model, ModelConfig, Params
from sml_jax.models.weights import Source, flat
from sml_jax.workdir import read_json

SHARD_BYTES = 4_000_000_000
"""Most bytes of tensors in a file, where there is no base whose files are made again."""
_WEIGHT_FILES = r"\..*|.*\.index\.json|.*\.(safetensors|bin|pth?|gguf|msgpack|h5|onnx)"
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def export(
    params: Params,
    config: ModelConfig,
    base: str | Path,
    out: str | Path,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
  """Writes a folder that transformers loads, one tensor in memory at a time; call it in one process.

  Args:
    params: arrays of JAX or NumPy; adapters are merged. If they are adapters alone, the weights are those of `base`.
    config: their shape, with `lora` if they have adapters.
    base: a Hugging Face folder of the same shape, whose form and other files are taken, or a preset's name: then
      tensors are of the dtype of params, and there is no tokenizer.
    out: the folder to make; it appears under its name only when it is whole.
    report: is given (bytes written, all of them).

  Raises:
    UserError: `out` is there already, `base` does not fit or cannot be read, params are of another shape, or the disk
      is full. Nothing is left then.
  """
  out = Path(out)
  if out.exists():
    raise UserError(f"{out}: is there already; give --out a new name")
  source = None if _is_preset(base) else Source(base, dataclasses.replace(config, param_dtype=jnp.float32))
  values = _Values(params, config, source)
  plan = _fresh(config, values) if source is None else _like_base(source)
  part = out.parent / f"{out.name}.part"
  shutil.rmtree(part, ignore_errors=True)
  try:
    part.mkdir(parents=True)
    if source is None:
      (part / "config.json").write_text(json.dumps(families.PRESETS[str(base)], indent=2) + "\n")
    else:
      _copy_files(Path(base), part)
    _write(plan, values, part, report)
    part.rename(out)
  except OSError as e:
    raise UserError(f"{out}: cannot be written: {e.strerror or e}") from e
  finally:
    shutil.rmtree(part, ignore_errors=True)


def _is_preset(base: str | Path) -> bool:
  return str(base) in families.PRESETS and not Path(base).exists()


class _Values:
  """Our parameters one layer at a time, adapters merged; from the base where params are adapters alone."""

  def __init__(self, params: Params, config: ModelConfig, source: Source | None):
    self.config, self.source, self.leaves = config, source, flat(params)
    wanted = flat(Model(config).shapes)
    if config.lora and not jax.tree.leaves(lora.split(params)[0]):
      if source is None:
        raise UserError("the checkpoint holds adapters alone: give the folder with the weights they were trained on")
      wanted = flat(lora.split(Model(config).shapes)[1])
    for path in sorted(self.leaves.keys() | wanted.keys()):
      have, want = (list(tree[path].shape) if path in tree else "missing" for tree in (self.leaves, wanted))
      if have != want:
        raise UserError(f"the parameters to export are not of this model: {path} is {have}, wanted {want}")

  def __call__(self, path: str, layer: int | None) -> np.ndarray:
    """The parameter, or one layer of it."""
    if path in self.leaves:
      value = self._layer(path, layer)
    else:
      shape = self.source.shapes[path].shape
      whole = tuple(slice(0, n) for n in shape)
      value = self.source.read(path, whole if layer is None else (slice(layer, layer + 1), *whole[1:]))
      value = value if layer is None else value[0]
    name = lora.PREFIX + path.removeprefix("blocks/")
    if f"blocks/{name}/a" not in self.leaves:
      return value
    adapter = {part: self._layer(f"blocks/{name}/{part}", layer)[None] for part in ("a", "b")}
    target = name.removeprefix(lora.PREFIX)
    merged = lora.merge({"blocks": {target: value[None], name: adapter}}, self.config.lora)
    return np.asarray(merged["blocks"][target][0])

  def _layer(self, path: str, layer: int | None) -> np.ndarray:
    leaf = self.leaves[path]
    if layer is not None:  # As an operand: one compilation for all layers.
      leaf = leaf[layer] if isinstance(leaf, np.ndarray) else jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False)
    return np.asarray(leaf)


@dataclasses.dataclass
class _Tensor:
  """One tensor to write: one of our parameters (or a layer of it), or bytes that pass through."""

  name: str
  dtype: str
  shape: tuple[int, ...]
  path: str = ""
  layer: int | None = None
  weight: Weight | None = None
  raw: memoryview | None = None

  @property
  def size(self) -> int:
    return len(self.raw) if self.raw is not None else int(np.prod(self.shape)) * DTYPES[self.dtype].itemsize

  def value(self, values: _Values) -> np.ndarray | memoryview:
    if self.raw is not None:
      return self.raw
    order = tuple(itertools.chain(*self.weight.axes))
    return values(self.path, self.layer).astype(DTYPES[self.dtype]).transpose(order).reshape(self.shape)


Plan = dict[str, tuple[bytes, list[_Tensor]]]
"""File name -> how the file begins, and its tensors in order."""


def _like_base(source: Source) -> Plan:
  """The base's files again, with our values in them."""
  ours = {source.twin: ("embedding/table", None)}
  for path, (_, names) in source.places.items():
    ours |= {name: (path, i if path.startswith("blocks/") else None) for i, name in enumerate(names)}
  plan: Plan = {}
  for file in source.tensors.files():
    shard = []
    entries = {name: e for name, e in source.tensors.entries.items() if e.file == file}
    for name, e in entries.items():
      if name in ours:
        path, layer = ours[name]
        shard.append(_Tensor(name, e.dtype, e.shape, path, layer, source.places[path][0]))
      else:
        shard.append(_Tensor(name, e.dtype, e.shape, raw=source.tensors.raw(name)))
    with file.open("rb") as f:
      plan[file.name] = (f.read(min(e.start for e in entries.values())), shard)
  return plan


def _fresh(config: ModelConfig, values: _Values) -> Plan:
  """Files of at most SHARD_BYTES."""
  tensors = []
  for path, weight in families.weights(config).items():
    leaf, stacked = values.leaves[path], path.startswith("blocks/")
    shape = weight.tensor_shape(leaf.shape[1:] if stacked else leaf.shape)
    prefix = "" if weight.name == "lm_head.weight" else "model."
    for i in range(config.layers) if stacked else (None,):
      name, dtype = prefix + weight.name.format(layer=i), _NAMES[np.dtype(leaf.dtype)]
      tensors.append(_Tensor(name, dtype, shape, path, i, weight))
  tensors.sort(key=lambda t: -1 if t.layer is None else t.layer)
  shards: list[list[_Tensor]] = [[]]
  for tensor in tensors:
    if shards[-1] and sum(t.size for t in shards[-1]) + tensor.size > SHARD_BYTES:
      shards.append([])
    shards[-1].append(tensor)
  plan: Plan = {}
  for i, shard in enumerate(shards, 1):
    name = "model.safetensors" if len(shards) == 1 else f"model-{i:05}-of-{len(shards):05}.safetensors"
    plan[name] = (header_bytes({t.name: (t.dtype, t.shape) for t in shard}), shard)
  return plan


def _write(plan: Plan, values: _Values, folder: Path, report: Callable[[int, int], None]) -> None:
  total, done = sum(t.size for _, shard in plan.values() for t in shard), 0
  for name, (begin, shard) in plan.items():
    with (folder / name).open("wb") as f:
      f.write(begin)
      for tensor in shard:
        write(f, tensor.value(values))
        done += tensor.size
        report(done, total)
  if len(plan) > 1:
    weight_map = {t.name: name for name, (_, shard) in plan.items() for t in shard}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _copy_files(base: Path, folder: Path) -> None:
  """Everything but weights and hidden files: config, tokenizer, chat template, generation settings, licence."""
  for file in base.iterdir():
    if file.is_file() and not re.fullmatch(_WEIGHT_FILES, file.name):
      shutil.copyfile(file, folder / file.name)


def _lora_of(checkpoint: epath.Path) -> lora.Lora:
  """The adapters' shape, from the config of the run that a stage's checkpoints belong to."""
  file = checkpoint.resolve().parent.parent / "config.json"
  found = read_json(file).get("model", {}).get("lora", {})
  if not found.get("rank"):
    raise UserError(f"{checkpoint}: holds adapters, but {file} says nothing of model.lora.rank")
  return lora.Lora(found["rank"], found["alpha"], tuple(found["targets"]))


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(
      prog="python -m sml_jax.models.export", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--checkpoint", required=True, help="folder of a training stage's checkpoints")
  parser.add_argument("--base", required=True, help="Hugging Face folder, or a preset's name")
  parser.add_argument("--out", required=True, help="folder to make")
  args = parser.parse_args(argv)
  try:
    _, config = families.preset(args.base) if _is_preset(args.base) else families.read_shape(args.base)
    step, params, _ = restore_params(args.checkpoint)
    if lora.split(params)[1]:
      config = dataclasses.replace(config, lora=_lora_of(epath.Path(args.checkpoint)))
    export(params, config, args.base, args.out)
  except (UserError, CheckpointError) as e:
    print(f"error: {e}", file=sys.stderr)
    return 1
  print(f"{args.out}: the parameters of step {step} of {args.checkpoint}")
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
