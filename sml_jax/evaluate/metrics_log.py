"""metrics.jsonl and TensorBoard of one stage. Nothing appends, so a resumed run writes what an unbroken one would."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import Any

from etils import epath

from sml_jax.errors import UserError

CLOCK = frozenset({"seconds", "tokens_per_second", "mfu"})
"""Metrics that a clock made: kept under "clock", apart from what a resumed run must repeat to the bit."""


class MetricsLog:
  """Rows of numbers by step: `folder/metrics.jsonl` and, for TensorBoard, `folder/tensorboard/`.

  All rows are kept in memory and the file is rewritten whole and moved into place, so it is never half written, also
  on storage without appending. A row: {"step": 3, "stage": "mt_rl", "loss": .., "clock": {"seconds": ..}}.

  Args:
    folder: of the stage; local or remote. Rows that an earlier run left in it are read back.
    stage: name of the stage.
    every_seconds: at most so often does `write` flush by itself.
    enabled: False on all processes but the first: then nothing is read or written.

  Raises:
    UserError: if an existing row is not JSON with a step (file and line are named).
  """

  def __init__(self, folder, stage: str, *, every_seconds: float = 10.0, enabled: bool = True):
    self.folder, self.stage, self.every_seconds, self.enabled = epath.Path(folder), stage, every_seconds, enabled
    self.path = self.folder / "metrics.jsonl"
    self.rows: list[dict[str, Any]] = self._read() if enabled else []
    self._shown = len(self.rows)  # rows that TensorBoard has
    self._purge: int | None = None
    self._board = None
    self._flushed = time.monotonic()

  def discard_after(self, step: int) -> None:
    """Forgets the rows after `step`: on a restore they belong to work that was lost. Call it before writing."""
    self.rows = [row for row in self.rows if row["step"] <= step]
    self._shown = len(self.rows)
    self._purge = step + 1
    if self._board is not None:
      self._board.close()
      self._board = None
    self.flush()

  def write(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Adds the row of `step`; scalars of numpy and JAX are converted, NaN and infinities become null."""
    row: dict[str, Any] = {"step": int(step), "stage": self.stage}
    clock = {}
    for name, value in metrics.items():
      if name != "clock":
        (clock if name in CLOCK else row)[name] = _plain(value)
    clock |= {name: _plain(value) for name, value in metrics.get("clock", {}).items()}
    self.rows.append(row | ({"clock": clock} if clock else {}))
    if time.monotonic() - self._flushed >= self.every_seconds:
      self.flush()

  def flush(self) -> None:
    """Writes everything now. Raises UserError if it cannot; the file before is then still whole."""
    if not self.enabled:
      return
    self.folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in self.rows)
    part = self.folder / "metrics.jsonl.part"
    try:
      part.write_bytes(text.encode())
      part.replace(self.path)
    except OSError as e:
      part.unlink(missing_ok=True)
      raise UserError(f"cannot write {self.path}: {e.strerror or e}") from e
    self._show()
    self._flushed = time.monotonic()

  def close(self) -> None:
    self.flush()
    if self._board is not None:
      self._board.close()

  def _show(self) -> None:
    """Hands the new rows to TensorBoard; scalars only, at a flush, so that a step costs nothing."""
    if self._shown == len(self.rows):
      return
    if self._board is None:
      from tensorboardX import SummaryWriter  # slow to import, and not needed to read a log

      self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self._purge, max_queue=1000)
    for row in self.rows[self._shown :]:
      for name, value in {**row, **row.get("clock", {})}.items():
        if name not in ("step", "stage", "clock") and isinstance(value, (int, float)):
          self._board.add_scalar(name, value, row["step"])
    self._board.flush()
    self._shown = len(self.rows)

  def _read(self) -> list[dict[str, Any]]:
    if not self.path.exists():
      return []
    rows = []
    for i, line in enumerate(self.path.read_text().splitlines(), 1):
      try:
        rows.append(json.loads(line))
        rows[-1]["step"] + 0  # a row without a numeric step cannot be placed
      except (ValueError, TypeError, KeyError) as e:
        raise UserError(f"{self.path}, line {i}: not a row of metrics ({e})") from None
    return rows


def _plain(value: Any) -> Any:
  if isinstance(value, (bool, str)) or value is None:
    return value
  value = value.item() if hasattr(value, "item") else value
  return value if not isinstance(value, float) or math.isfinite(value) else None
