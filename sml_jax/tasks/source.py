"""Where tasks come from: a source gives tasks, judges student turns, names their kind and brings its teacher.

`tasks.source` in the config is "microworld", data sets by name or by location (see real_source.py and locations.py), or
an import path "package.module:function"; the function gets the config and returns an object with the methods of
`Source`. examples/own_task.py is a complete one.
"""

from __future__ import annotations

import functools
import importlib
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, get_args

from absl import logging

from sml_jax.dialogue.record import Dialogue, Feedback, Kind
from sml_jax.dialogue.teacher import Teacher
from sml_jax.errors import UserError
from sml_jax.tasks.leaks import Guarded
from sml_jax.tasks.locations import KINDS
from sml_jax.tasks.task import Reveal, Task, Verdict, Verifier


class Source(Protocol):
  """What a kind of task must bring along; a class that inherits from this has the methods with a body already.

  Attributes:
    any_thread: whether methods, and teachers, may be called from several threads at a time; else one waits for another.
  """

  any_thread: bool = False

  def size(self, domain: str, part: str) -> int | None:
    """Number of a domain's tasks in a part; None for an endless stream."""
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

  def reason(self, task: Task, text: str) -> str:
    """Why a turn that was verified got its verdict, in a word; counted in the metrics. "" = nothing more to say."""
    return ""

  def knowledge(self, task: Task, dialogue: Dialogue) -> Mapping[str, Any]:
    """What the teacher alone knows now, for one that is a model: the answer, or what the tests said."""
    return task.private

  def guarded(self, task: Task) -> Guarded | None:
    """What no teacher turn may give away; None = teacher turns are not checked."""
    return None

  def describe(self) -> list[str]:
    """Lines about the tasks, for the log."""
    return []


MICROWORLD, REAL = "sml_jax.tasks.microworld_source:make_source", "sml_jax.tasks.real_source:make_source"


class OwnVerifier:
  """A source whose turns are judged by another verifier; all else is the source's.

  A verifier that raises has failed, which is nobody's wrong answer: the turns are then judged one by one, so that only
  those it cannot judge are lost.
  """

  def __init__(self, source: Source, verifier: Verifier):
    self._source, self._verifier, self._warned = source, verifier, False

  def __getattr__(self, name: str) -> Any:
    return getattr(self._source, name)

  def verify(self, tasks: Sequence[Task], texts: Sequence[str]) -> list[Verdict]:
    try:
      verdicts = list(self._verifier(list(tasks), list(texts)))
      if len(verdicts) != len(tasks) or not set(verdicts) <= set(get_args(Verdict)):
        raise ValueError(f"{len(tasks)} turns wanted as many of {', '.join(get_args(Verdict))}, got {verdicts!r:.80}")
      return verdicts
    except Exception as e:
      if len(tasks) > 1:
        return [v for task, text in zip(tasks, texts, strict=True) for v in self.verify([task], [text])]
      if not self._warned:
        logging.warning("tasks.verifier failed on task %s: %s: %s", tasks[0].id, type(e).__name__, e)
      self._warned = True
      return ["verifier_failed"]


def one_at_a_time(source: Source | None) -> Source | None:
  """The source, whose calls from several threads wait for each other unless it is made for them."""
  return source if source is None or getattr(source, "any_thread", False) else _OneAtATime(source, threading.RLock())


class _OneAtATime:
  any_thread = True

  def __init__(self, inner: Any, lock: threading.RLock):
    self._inner, self._lock = inner, lock

  def __getattr__(self, name: str) -> Any:
    value = getattr(self._inner, name)
    if not callable(value):
      return value

    @functools.wraps(value)
    def alone(*args, **kwargs):
      with self._lock:
        return value(*args, **kwargs)

    return alone

  def teacher(self, feedback: Feedback) -> Teacher:
    return _OneAtATime(self._inner.teacher(feedback), self._lock)


def load(path: str, key: str) -> Any:
  """Imports "package.module:name"; `key` is the config key that names it. Raises UserError in one line."""
  module, _, name = path.partition(":")
  try:
    return getattr(importlib.import_module(module), name)
  except (ImportError, AttributeError, ValueError) as e:
    raise UserError(f"{key}: cannot import {path!r} (expected package.module:name): {e}") from None


def make_source(config: Any) -> Source:
  """The source that config.tasks.source names, with the verifier that config.tasks.verifier names."""
  t = config.tasks
  source = load(_path(t.source), "tasks.source")(config)
  return OwnVerifier(source, load(t.verifier, "tasks.verifier")) if t.verifier else source


def _path(source: str) -> str:
  if source == "microworld":
    return MICROWORLD
  own = re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", source) and source.partition(":")[0] not in KINDS
  return source if own else REAL
