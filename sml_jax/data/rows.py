"""Dialogue -> token rows: what the trainer eats. An objective is nothing but a choice of per-token weights."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from sml_jax.dialogue.record import Dialogue

TokenRow = dict[str, np.ndarray]
"""tokens int32 [T]; weights f32 [T], the loss weight of token t as a target; advantages f32 [T]; logprobs f32 [T],
the sampled log-probability of token t (0 where nothing was sampled)."""

Truncated = Literal["keep", "mask_loss", "drop"]
"""A dialogue cut at a token limit: trained as any other; in the group statistics but not in the loss; in neither."""


def token_rows(dialogue: Dialogue, *, train_on_injected: bool = True, mask_loss: bool = False) -> list[TokenRow]:
  """Rows in which every student turn stands behind exactly what the student saw when it spoke.

  That is one row, unless thinking was stripped from a turn that another one follows: then a new row begins, with what
  was left of the dialogue so far as context. Each turn is trained in one row alone.

  Args:
    dialogue: with tokens in every turn.
    train_on_injected: whether questions injected by Q-priming are targets.
    mask_loss: all weights 0 (see `Truncated`).

  Returns:
    TokenRows; student tokens (end of turn included, header excluded) have weight 1. None for a dialogue of no tokens.
  """
  student_turns, student, rows = dialogue.student_turns, 0, []
  row, past = _Row(dialogue.bos), list(dialogue.bos)
  for turn in dialogue.turns:
    past += turn.context
    row.context(turn.prompt if turn.role == "student" else turn.tokens)
    if turn.role == "teacher":
      continue
    weight = float(not mask_loss and (train_on_injected or not turn.injected))
    row.said(turn.tokens, weight, dialogue.advantages[student] if dialogue.advantages else 0.0, turn.logprobs)
    student += 1
    if turn.stripped and student < len(student_turns):
      rows.append(row)
      row = _Row(past)
  return [r.arrays() for r in (*rows, row) if r.tokens]


def token_row(dialogue: Dialogue, *, train_on_injected: bool = True, mask_loss: bool = False) -> TokenRow:
  """The whole dialogue in one row, stripped thinking in its place: to be looked at, and to be trained on where nothing
  was stripped. Arguments as for `token_rows`."""
  turns = [dataclasses.replace(t, stripped=[]) for t in dialogue.turns]
  whole = dataclasses.replace(dialogue, turns=turns)
  rows = token_rows(whole, train_on_injected=train_on_injected, mask_loss=mask_loss)
  return rows[0] if rows else _Row([]).arrays()


class _Row:
  """A row being laid out; begins with context."""

  def __init__(self, context: list[int]):
    self.tokens, self.weights, self.advantages, self.logprobs = [], [], [], []
    self.context(context)

  def context(self, tokens: list[int]) -> None:
    self.said(tokens, 0.0, 0.0, [])

  def said(self, tokens: list[int], weight: float, advantage: float, logprobs: list[float]) -> None:
    self.tokens += tokens
    self.weights += [weight] * len(tokens)
    self.advantages += [advantage] * len(tokens)
    self.logprobs += logprobs or [0.0] * len(tokens)

  def arrays(self) -> TokenRow:
    return {
        "tokens": np.asarray(self.tokens, np.int32),
        "weights": np.asarray(self.weights, np.float32),
        "advantages": np.asarray(self.advantages, np.float32),
        "logprobs": np.asarray(self.logprobs, np.float32),
    }
