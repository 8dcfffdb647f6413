"""How much memory the import of a checkpoint needs besides its result:

  python benchmarks/import_memory.py [--preset=llama3_1b] [--devices=1,4] [--param_dtype=bfloat16]

Writes a random bf16 checkpoint of a published shape (1.2 billion parameters by default, 2.5 GB in a temporary folder
that is deleted again), imports it in a fresh process over 1 and over 4 virtual devices, and watches that process's
anonymous memory (RssAnon; the page cache through which files are read is not in it). A group is what one device holds
of one parameter, all layers together. Extra is anonymous memory above that before the import, less the arrays already
done; on a CPU the array that is being filled is itself anonymous memory, and counts as extra until it is done. Exits
with 1 if the most extra is above 1.3 times the largest group.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

LIMIT = 1.3
SHARD_BYTES = 1_000_000_000


def write_checkpoint(preset: str, folder: Path) -> int:
  """Random normal bf16 weights in shards, never more than one block of them in memory; returns their number."""
  from sml_jax.models import families
  from sml_jax.models.tensor_files import DTYPES, header_bytes
  from sml_jax.models.transformer import Model
  from sml_jax.models.weights import flat

  _, config = families.preset(preset)
  shapes, tensors = flat(Model(config).shapes), {}
  for path, weight in families.weights(config).items():
    inner = shapes[path].shape[1:] if path.startswith("blocks/") else shapes[path].shape
    for layer in range(config.layers if path.startswith("blocks/") else 1):
      prefix = "" if weight.name == "lm_head.weight" else "model."
      tensors[prefix + weight.name.format(layer=layer)] = ("BF16", weight.tensor_shape(inner))
  shards = [{}]
  for name, tensor in tensors.items():
    if sum(2 * math.prod(shape) for _, shape in shards[-1].values()) > SHARD_BYTES:
      shards.append({})
    shards[-1][name] = tensor
  rng = np.random.default_rng(0)
  block = rng.standard_normal(1 << 22, np.float32).astype(DTYPES["BF16"]).view(np.uint16)
  weight_map = {}
  for i, shard in enumerate(shards, 1):
    file = folder / f"model-{i:05}-of-{len(shards):05}.safetensors"
    weight_map |= dict.fromkeys(shard, file.name)
    with file.open("wb") as f:
      f.write(header_bytes(shard))
      for _, shape in shard.values():
        left, start = math.prod(shape), int(rng.integers(block.size))
        while left:
          part = block[start : start + left]
          f.write(part.data)
          left, start = left - part.size, 0
  (folder / "config.json").write_text(json.dumps(families.PRESETS[preset]))
  (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
  return sum(math.prod(shape) for _, shape in tensors.values())


def anonymous() -> int:
  """Bytes of this process's anonymous memory."""
  for line in Path("/proc/self/status").read_text().splitlines():
    if line.startswith("RssAnon:"):
      return int(line.split()[1]) * 1024
  raise RuntimeError("/proc/self/status has no RssAnon: this benchmark needs Linux")


def measure(folder: str, param_dtype: str) -> None:
  """In the process that imports: prints one line of JSON."""
  import dataclasses

  import jax

  from sml_jax import parallel
  from sml_jax.models.families import read_shape
  from sml_jax.models.transformer import Model
  from sml_jax.models.weights import Source, flat, load

  config = dataclasses.replace(read_shape(folder)[1], param_dtype=jax.numpy.dtype(param_dtype))
  mesh = parallel.make_mesh()
  shapes = Model(config).shapes
  shardings = flat(parallel.param_shardings(mesh, shapes))
  group = max(math.prod(shardings[p].shard_shape(s.shape)) * s.dtype.itemsize for p, s in flat(shapes).items())
  Source(folder, config)  # What JAX needs once to trace a model is not the import's.
  before, done, most, over = anonymous(), 0, 0, threading.Event()

  def report(now: int, total: int) -> None:
    nonlocal done
    done = now

  def watch() -> None:
    nonlocal most
    while not over.wait(0.002):
      finished = done  # First: if more is done while we look, extra is stated too high, not too low.
      most = max(most, anonymous() - before - finished)

  watcher = threading.Thread(target=watch)
  watcher.start()
  began = time.monotonic()
  params = load(folder, config, mesh, report=report)
  seconds = time.monotonic() - began
  over.set()
  watcher.join()
  arrays = sum(s.data.nbytes for a in jax.tree.leaves(params) for s in a.addressable_shards)
  print(json.dumps({"group": group, "extra": most, "arrays": arrays, "seconds": seconds,
                    "left": anonymous() - before - arrays}))  # fmt: skip


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument("--preset", default="llama3_1b")
  parser.add_argument("--devices", default="1,4", help="numbers of virtual CPU devices, one import each")
  parser.add_argument("--param_dtype", default="bfloat16", choices=("bfloat16", "float32"))
  parser.add_argument("--child", help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    measure(args.child, args.param_dtype)
    return 0
  os.environ["JAX_PLATFORMS"] = "cpu"
  folder, worst = Path(tempfile.mkdtemp(prefix="import_memory_")), 0.0
  try:
    count = write_checkpoint(args.preset, folder)
    print(f"{args.preset}: {count:,} random parameters in bf16, imported as {args.param_dtype}")
    print("devices  largest group MB  most extra MB  ratio  arrays MB  left over MB  seconds")
    for devices in args.devices.split(","):
      env = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
      command = [sys.executable, __file__, f"--child={folder}", f"--param_dtype={args.param_dtype}"]
      m = json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)
      ratio = m["extra"] / m["group"]
      worst = max(worst, ratio)
      megabytes = {k: m[k] / 1e6 for k in ("group", "extra", "arrays", "left")}
      print(f"{devices:>7}  {megabytes['group']:16.0f}  {megabytes['extra']:13.0f}  {ratio:5.2f}  "
            f"{megabytes['arrays']:9.0f}  {megabytes['left']:12.0f}  {m['seconds']:7.1f}")  # fmt: skip
  finally:
    shutil.rmtree(folder, ignore_errors=True)
  print(f"worst ratio {worst:.2f}, allowed {LIMIT}")
  return int(worst > LIMIT)


if __name__ == "__main__":
  sys.exit(main())
