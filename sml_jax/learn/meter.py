"""Tokens a second, MFU and where the time of a step went."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from sml_jax.learn.flops import dialogue_flops, train_flops
from sml_jax.models.transformer import ModelConfig

PARTS = ("prefill", "decode", "teacher", "verify", "train", "data")


class Meter:
  """Adds up what was done since the last reading.

  Args:
    config: the model.
    peak: FLOP/s of all devices at their best, against which MFU is stated; None = unknown.
    rollouts: the seconds of all rollouts so far (see `conversation.Table.clock`).
    parts: the lengths given here are one of so many parts of a batch, about equal (see `parallel.row_share`).
  """

  def __init__(self, config: ModelConfig, peak: float | None, rollouts: Mapping[str, float], parts: int = 1):
    self._config, self._peak, self._rollouts, self._parts_of_batch = config, peak, rollouts, parts
    self._reset()

  def _reset(self) -> None:
    self._since, self._flops, self._tokens = time.monotonic(), 0, 0
    self._seconds = dict.fromkeys(PARTS, 0.0) | {name: -t for name, t in self._rollouts.items()}

  @contextlib.contextmanager
  def part(self, name: str) -> Iterator[None]:
    """Time spent inside counts as `name`, one of PARTS."""
    start = time.monotonic()
    yield
    self._seconds[name] += time.monotonic() - start

  def train(self, lengths: Sequence[int]) -> None:
    """Forward and backward over dialogues of these lengths."""
    self._flops += train_flops(self._config, lengths) * self._parts_of_batch
    self._tokens += sum(map(int, lengths)) * self._parts_of_batch

  def sample(self, lengths: Sequence[int]) -> None:
    """Dialogues of these lengths were sampled or read."""
    self._flops += dialogue_flops(self._config, lengths) * self._parts_of_batch

  def read(self) -> dict[str, Any]:
    """The clock's part of a row of metrics; starts anew.

    seconds; tokens_per_second that went forward and backward, and of a device; mfu, with causal attention counted once
    (what a token sees, not the square); and share_PART of PARTS: prefill, decode, and where no row could go on for
    them, teacher and verify; train; and data, waiting for the next batch. The rest is evaluation of dialogues, records
    and checkpoints.
    """
    seconds = time.monotonic() - self._since
    speed = self._tokens / seconds
    mfu = self._flops / seconds / self._peak if self._peak else None
    clock = {"seconds": seconds, "tokens_per_second": speed, "tokens_per_second_per_device": speed / jax.device_count()}
    spent = {name: t + self._rollouts.get(name, 0.0) for name, t in self._seconds.items()}
    clock |= {"mfu": mfu} | {f"share_{name}": t / seconds for name, t in spent.items()}
    self._reset()
    return clock
