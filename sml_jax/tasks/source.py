"""Where tasks come from: a source gives tasks, judges student turns, names their kind and brings its teacher.

`tasks.source` in the config is a name from SOURCES or an import path "package.module:function"; the function gets the
config and returns an object with the methods of `Source`. examples/own_task.py is a complete one.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

from sml_jax.dialogue.record import Dialogue, Feedback, Kind
from sml_jax.dialogue.teacher import Teacher
from sml_jax.tasks.task import Reveal, Task, Verdict


class Source(Protocol):
  """What a kind of task must bring along."""

  def size(self, part: str) -> int | None:
    """Number of tasks of a part; None for an endless stream."""
    ...

  def task(self, domain: str, part: str, index: int, reveal: Reveal = "") -> Task:
    """Task `index` of a part: the same arguments always give the same task."""
    ...

  def verify(self, tasks: Sequence[Task], texts: Sequence[str]) -> list[Verdict]:
    """Judges student turns; `verifier_failed` where the verifier could not (never `wrong`)."""
    ...

  def kind(self, task: Task, text: str) -> Kind:
    """Which of the seven kinds a student turn is."""
    ...

  def teacher(self, feedback: Feedback) -> Teacher:
    """The teacher of this source for a feedback arm. Raises ValueError for an arm it does not have."""
    ...

  def question(self, task: Task, dialogue: Dialogue) -> str:
    """Q-priming: an informative question in place of the dialogue's last student turn, which is wrong."""
    ...


SOURCES = {
    "microworld": "sml_jax.tasks.microworld_source:make_source",
    "gsm8k": "sml_jax.tasks.gsm8k:make_source",
}


def load(path: str) -> Any:
  """Imports "package.module:name". Raises ValueError in one line."""
  module, _, name = path.partition(":")
  try:
    return getattr(importlib.import_module(module), name)
  except (ImportError, AttributeError, ValueError) as e:
    raise ValueError(f"cannot import {path!r} (expected package.module:name): {e}") from None


def make_source(config: Any) -> Source:
  """The source that config.tasks.source names."""
  return load(SOURCES.get(config.tasks.source, config.tasks.source))(config)
