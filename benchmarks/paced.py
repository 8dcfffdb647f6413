"""Runs another library's training loop a step at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Paced:
  """A loop that stops in its reward function until it is told to go on: a step is from one call of it to the next."""

  def __init__(self):
    self._rewarded, self._go = threading.Semaphore(0), threading.Semaphore(0)
    self._failed: list[BaseException] = []

  def reward(self, prompts, completions, **more) -> list[float]:
    """Of completions that are texts of numbers."""
    self._rewarded.release()
    self._go.acquire()
    return [float(sum(map(int, text.split())) % 7) for text in completions]

  def start(self, loop: Callable[[], object]) -> Callable[[], None]:
    """Starts the loop in a thread; its first rewards are asked for when this returns. The result runs one step."""

    def play() -> None:
      try:
        loop()
      except BaseException as e:
        self._failed.append(e)
        self._rewarded.release()

    def step() -> None:
      self._go.release()
      self._wait()

    threading.Thread(target=play, daemon=True).start()
    self._wait()
    return step

  def _wait(self) -> None:
    self._rewarded.acquire()
    if self._failed:
      raise self._failed[0]
