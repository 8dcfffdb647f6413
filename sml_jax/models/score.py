"""Log-probabilities of given tokens under any checkpoint folder of a known family:

  python -m sml_jax.models.score --checkpoint=FOLDER --tokens=IDS.npy --out=LOGPROBS.npy [--dtype=float32]

IDS.npy is int32 [B, T]; -1 is padding, wherever it stands, and the rest of a row is one sequence. LOGPROBS.npy is
float32 [B, T]: the log-probability (nats) of each token given those before it, NaN at a row's first and at padding.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sml_jax import parallel
from sml_jax.errors import UserError
from sml_jax.evaluate.progress import Progress
from sml_jax.learn.head import token_scores
from sml_jax.models.families import read_shape
from sml_jax.models.transformer import Model, Params
from sml_jax.models.weights import load

PADDING = -1
LOGITS = 1 << 26
"""Most numbers of the logits, and of one layer's attention scores, that exist at once for one device's rows."""


def score(model: Model, params: Params, tokens: np.ndarray, progress: Progress | None = None) -> np.ndarray:
  """tokens int [B, T], -1 = padding -> f32 [B, T] as the module's docstring says.

  Args:
    model: with the mesh that params lie on.
  """
  rows, width = tokens.shape
  real = tokens != PADDING
  # Real tokens to the left, in their order: window and causality count places.
  order = np.argsort(~real, axis=1, kind="stable")
  left, valid = np.take_along_axis(tokens, order, 1), np.take_along_axis(real, order, 1)
  shards = parallel.row_shards(model.mesh)
  each = max(1, min(LOGITS // (model.config.heads * width * width), 32, -(-rows // shards)))
  batch = each * shards
  chunk = max(1, LOGITS // (each * model.config.vocab_size))
  logp = np.full(tokens.shape, np.nan, np.float32)
  for at in range(0, rows, batch):
    part = slice(at, at + batch)
    given = np.zeros((2, batch, width), np.int32)
    given[0, : len(left[part])], given[1, : len(left[part])] = np.where(valid[part], left[part], 0), valid[part]
    put = parallel.put_rows(model.mesh, {"tokens": given[0], "segments": given[1]})
    logp[part] = np.asarray(_logprobs(model, chunk, params, **put))[: len(left[part])]
    if progress:
      progress.update(min(at + batch, rows))
  valid[:, 0] = False  # Nothing predicts the first.
  out = np.empty_like(logp)
  np.put_along_axis(out, order, np.where(valid, logp, np.nan), 1)
  return out


@functools.partial(jax.jit, static_argnums=(0, 1))
def _logprobs(model: Model, chunk: int, params: Params, tokens: jax.Array, segments: jax.Array) -> jax.Array:
  positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
  hidden = model.forward(params, tokens, positions, segments)
  return token_scores(model, params, hidden, tokens, segments, chunk=chunk)[0]


def read_tokens(file: str | Path, vocab_size: int) -> np.ndarray:
  """Raises UserError if the file is no int [B, T] of ids below vocab_size and -1."""
  try:
    tokens = np.load(file)
  except (OSError, ValueError) as e:
    raise UserError(f"{file}: cannot be read as .npy: {str(e).splitlines()[0]}") from None
  if not isinstance(tokens, np.ndarray) or tokens.dtype.kind != "i" or tokens.ndim != 2 or not tokens.size:
    found = f"{tokens.dtype} {list(tokens.shape)}" if isinstance(tokens, np.ndarray) else "an archive"
    raise UserError(f"{file}: is {found}; expected int32 [rows, tokens]")
  if len(bad := np.argwhere((tokens < PADDING) | (tokens >= vocab_size))):
    row, column = bad[0]
    what = f"row {row}, column {column} is {tokens[row, column]}"
    raise UserError(f"{file}: {what}; expected an id from 0 to {vocab_size - 1}, or -1 for padding")
  return tokens


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(
      prog="python -m sml_jax.models.score", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--checkpoint", required=True, help="Hugging Face folder")
  parser.add_argument("--tokens", required=True, help="int32 [B, T] .npy")
  parser.add_argument("--out", required=True, help=".npy to write")
  parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of weights and activations")
  args = parser.parse_args(argv)
  try:
    with Progress() as progress:
      _run(args, progress)
  except UserError as e:
    print(f"error: {e}", file=sys.stderr)
    return 1
  return 0


def _run(args: argparse.Namespace, progress: Progress) -> None:
  out = Path(args.out)
  if not out.parent.is_dir():
    raise UserError(f"{out}: there is no folder {out.parent}")
  _, config = read_shape(args.checkpoint)
  tokens = read_tokens(args.tokens, config.vocab_size)
  if args.dtype == "float32":
    jax.config.update("jax_default_matmul_precision", "highest")
  dtype = jnp.dtype(args.dtype)
  mesh = parallel.make_mesh()
  model = Model(dataclasses.replace(config, dtype=dtype, param_dtype=dtype, scan_layers=True), mesh)
  params = load(args.checkpoint, model.config, mesh)
  progress.stage("rows", len(tokens))
  logp = score(model, params, tokens, progress)
  part = out.with_name(f"{out.name}.part")
  try:
    with part.open("wb") as f:
      np.save(f, logp)
    part.replace(out)
  except OSError as e:
    part.unlink(missing_ok=True)
    raise UserError(f"{out}: cannot be written: {e.strerror or e}") from e
  progress.log(f"{out}: {int(np.isfinite(logp).sum())} log-probabilities, mean {np.nanmean(logp):.4f} nats")


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
