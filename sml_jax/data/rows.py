"""Dialogue -> token row: what the trainer eats. An objective is nothing but a choice of per-token weights."""

from __future__ import annotations

from typing import Literal

import numpy as np

from sml_jax.dialogue.record import Dialogue

TokenRow = dict[str, np.ndarray]
"""tokens int32 [T]; weights f32 [T], the loss weight of token t as a target; advantages f32 [T]; logprobs f32 [T],
the sampled log-probability of token t (0 where nothing was sampled)."""

Truncated = Literal["keep", "mask_loss", "drop"]
"""A dialogue cut at a token limit: trained as any other; in the group statistics but not in the loss; in neither."""


def token_row(dialogue: Dialogue, *, train_on_injected: bool = True, mask_loss: bool = False) -> TokenRow:
  """Lays a dialogue out as one row; student tokens (end of turn included, header excluded) have weight 1.

  Args:
    dialogue: with tokens in every turn.
    train_on_injected: whether questions injected by Q-priming are targets.
    mask_loss: all weights 0 (see `Truncated`).

  Returns:
    A TokenRow whose T is the dialogue's length in tokens.
  """
  tokens, weights, advantages, logprobs = list(dialogue.bos), [], [], []
  for out in (weights, advantages, logprobs):
    out.extend([0.0] * len(tokens))
  student = 0
  for turn in dialogue.turns:
    context = turn.prompt if turn.role == "student" else turn.tokens
    tokens += context
    for out in (weights, advantages, logprobs):
      out.extend([0.0] * len(context))
    if turn.role == "teacher":
      continue
    n = len(turn.tokens)
    train = not mask_loss and (train_on_injected or not turn.injected)
    tokens += turn.tokens
    weights += [float(train)] * n
    advantages += [dialogue.advantages[student] if dialogue.advantages else 0.0] * n
    logprobs += turn.logprobs or [0.0] * n
    student += 1
  return {
      "tokens": np.asarray(tokens, np.int32),
      "weights": np.asarray(weights, np.float32),
      "advantages": np.asarray(advantages, np.float32),
      "logprobs": np.asarray(logprobs, np.float32),
  }
