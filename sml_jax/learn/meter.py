"""Tokens a second, MFU and where the time of a step went."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from sml_jax.learn.flops import dialogue_flops, train_flops
from sml_jax.models.transformer import ModelConfig


class Meter:
  """Adds up what was done since the last reading.

  Args:
    config: the model.
    peak: FLOP/s of all devices at their best, against which MFU is stated; None = unknown.
    parts: the lengths given here are one of so many parts of a batch, about equal (see `parallel.row_share`).
  """

  def __init__(self, config: ModelConfig, peak: float | None, parts: int = 1):
    self._config, self._peak, self._parts_of_batch = config, peak, parts
    self._reset()

  def _reset(self) -> None:
    self._since, self._flops, self._tokens = time.monotonic(), 0, 0
    self._parts: dict[str, float] = {}

  @contextlib.contextmanager
  def part(self, name: str) -> Iterator[None]:
    """Time spent inside counts as `name`."""
    start = time.monotonic()
    yield
    self._parts[name] = self._parts.get(name, 0.0) + time.monotonic() - start

  def train(self, lengths: Sequence[int]) -> None:
    """Forward and backward over dialogues of these lengths."""
    self._flops += train_flops(self._config, lengths) * self._parts_of_batch
    self._tokens += sum(map(int, lengths)) * self._parts_of_batch

  def sample(self, lengths: Sequence[int]) -> None:
    """Dialogues of these lengths were sampled or read."""
    self._flops += dialogue_flops(self._config, lengths) * self._parts_of_batch

  def read(self) -> dict[str, Any]:
    """The clock's part of a row of metrics: seconds, trained tokens_per_second, mfu, share_PART; starts anew."""
    seconds = time.monotonic() - self._since
    mfu = self._flops / seconds / self._peak if self._peak else None
    clock = {"seconds": seconds, "tokens_per_second": self._tokens / seconds, "mfu": mfu}
    clock |= {f"share_{name}": t / seconds for name, t in self._parts.items()}
    self._reset()
    return {"clock": clock}
