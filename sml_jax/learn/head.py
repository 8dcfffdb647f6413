"""The output head and what is read off its logits, a piece of the vocabulary at a time.

With a vocabulary of 262,144 entries the logits of one row of 4,096 tokens are 4 GiB, and training needs several arrays
of that size. In pieces, the logits of `chunk` entries exist at once, in the backward pass as well, where they are
computed again: one more product with the head, whatever the size of the pieces. The vocabulary is cut and not the
tokens, because then a mesh with fsdp gathers every part of the head, and reduces its gradient, once a pass and not once
for every chunk of tokens.

Shapes: B rows, T tokens, D model, V vocabulary, M shards of the vocabulary along `model`, W entries of a piece in each.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sml_jax.learn import losses
from sml_jax.models.transformer import NEVER, Model, Params


def token_scores(
    model: Model,
    params: Params,
    hidden: jax.Array,
    tokens: jax.Array,
    segments: jax.Array,
    *,
    temperature: float = 1.0,
    chunk: int = 0,
) -> tuple[jax.Array, jax.Array]:
  """Log-probability of each token and entropy of the distribution it was drawn from.

  Args:
    model, params: of the head.
    hidden: [B, T, D], from `model.forward`.
    tokens: int [B, T].
    segments: int [B, T], 0 for padding.
    temperature: divides the logits; both results are of the scaled distribution.
    chunk: entries of the vocabulary whose logits exist at once; 0 = all.

  Returns:
    f32 [B, T] each, as `losses.token_logprobs` and `losses.token_entropy`; the entropy has no gradient.
  """
  following = jnp.roll(tokens, -1, axis=1)
  if 0 < chunk < model.config.vocab_size:
    found = _in_pieces(model, params, hidden, following, temperature, chunk)
  else:
    found = losses.predictions(model.logits(params, hidden), following, temperature)
  logp, entropy = (losses.per_token(x, segments) for x in found)
  return logp, jax.lax.stop_gradient(entropy)


def _in_pieces(model: Model, params: Params, hidden, following, temperature, chunk) -> tuple[jax.Array, jax.Array]:
  """`losses.predictions` of `model.logits`, which are never whole."""
  c = model.config
  shards = model.mesh.shape["model"] if model.mesh is not None else 1
  if c.vocab_size % shards:
    shards = 1  # the head is replicated then
  each = c.vocab_size // shards
  width = -(-chunk // shards)
  count = -(-each // width)
  head = params["embedding"]["table"] if c.tied_embeddings else params["embedding"]["head"].T  # [V, D]
  head = jnp.pad(head.reshape(shards, each, -1), ((0, 0), (0, count * width - each), (0, 0)))
  pieces = head.reshape(shards, count, width, -1).swapaxes(0, 1)  # [pieces, M, W, D]: every device has a part of each
  wide = hidden.astype(jnp.float32)  # so that the pieces' gradients add up in f32

  def part(piece, i):
    """piece [M, W, D], the i-th -> log of the sum of its exponentials, the target's score or 0, its own entropy."""
    at = i * width + jnp.arange(width)
    ids = jnp.arange(shards)[:, None] * each + at  # [M, W]
    scores = jnp.einsum(
        "btd,mwd->btmw", wide.astype(hidden.dtype), piece.astype(hidden.dtype), preferred_element_type=jnp.float32
    )
    # Exactly NEVER: of a piece with nothing else, scores rounded in two ways would differ by more than exp can bear.
    scores = jnp.where((at < each) & (ids < (c.usable_vocab or c.vocab_size)), scores / temperature, NEVER)
    log_sum = jax.nn.logsumexp(scores, axis=(-2, -1), keepdims=True)
    hit = (ids == following[..., None, None]) & (at < each)
    logp = jax.lax.stop_gradient(scores - log_sum)
    entropy = -(jnp.exp(logp) * logp).sum((-2, -1))
    return log_sum[..., 0, 0], jnp.where(hit, scores, 0.0).sum((-2, -1)), entropy

  part = jax.checkpoint(part, prevent_cse=False)
  _, (log_sums, chosen, entropies) = jax.lax.scan(lambda _, xs: (None, part(*xs)), None, (pieces, jnp.arange(count)))
  log_sum = jax.nn.logsumexp(log_sums, axis=0)
  logp = log_sums - log_sum  # of each piece
  return chosen.sum(0) - log_sum, (jnp.exp(logp) * (entropies - logp)).sum(0)
