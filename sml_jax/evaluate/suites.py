"""Suites of held-out tasks, and the evaluators that run on them: the same inside training and alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import jax
import numpy as np

from sml_jax.config import FEEDBACK
from sml_jax.dialogue.conversation import Rules, Table, solved_counts
from sml_jax.dialogue.record import Dialogue
from sml_jax.errors import UserError
from sml_jax.models.transformer import Params
from sml_jax.tasks.source import Source
from sml_jax.tasks.task import Reveal, Task


@dataclasses.dataclass(frozen=True)
class Suite:
  """Which tasks, and under which teacher. Its name is DOMAIN, DOMAIN_sharded or either with _FEEDBACK behind it."""

  domain: str
  sharded: bool
  feedback: str

  @staticmethod
  def parse(name: str) -> Suite:
    feedback = next((f for f in FEEDBACK if name.endswith(f"_{f}")), "full")
    rest = name.removesuffix(f"_{feedback}")
    return Suite(rest.removesuffix("_sharded"), rest.endswith("_sharded"), feedback)

  def tasks(self, source: Source, part: str, count: int, reveal: Reveal) -> list[Task]:
    """The first `count` tasks of a part: fixed, whatever the run's seed. Raises UserError if there are not enough."""
    size = source.size(part)
    if size is not None and size < count:
      raise UserError(f"an evaluation wants {count} {part} tasks, but there are {size}")
    return [source.task(self.domain, part, i, reveal if self.sharded else "") for i in range(count)]


@dataclasses.dataclass(frozen=True)
class Setting:
  """What an evaluator needs to know besides the student."""

  table: Table
  tasks: list[Task]
  feedback: str
  turns: int
  tries: int
  key: jax.Array

  def play(self, params: Params, rules: Rules, tasks: list[Task] | None = None, samples=None) -> list[Dialogue]:
    tasks = self.tasks if tasks is None else tasks
    return self.table.play(params, tasks, [0] * len(tasks) if samples is None else samples, rules, self.key)


def sampled(s: Setting, params: Params) -> list[Dialogue]:
  """One dialogue a task at temperature 1, with the answer's nats before every student turn."""
  return s.play(params, Rules(s.turns, s.feedback, answer_nll=True))


def greedy(s: Setting, params: Params) -> list[Dialogue]:
  """One dialogue a task at temperature 0."""
  return s.play(params, Rules(s.turns, s.feedback, temperature=0.0))


def tries(s: Setting, params: Params) -> list[Dialogue]:
  """`tries` independent first turns a task at temperature 1, ordered by (task, try): the resampling control."""
  tasks = [t for t in s.tasks for _ in range(s.tries)]
  # Sample 0 is the dialogue's own first turn, which must not be one of the tries.
  return s.play(params, Rules(1), tasks, [1 + i for _ in s.tasks for i in range(s.tries)])


def full(s: Setting, params: Params) -> list[Dialogue]:
  """Underspecified tasks with all their shards stated at once, one turn at temperature 1."""
  told = [dataclasses.replace(t, text=" ".join([*t.shards[1:], t.shards[0]]), shards=(), reveal="") for t in s.tasks]
  return s.play(params, Rules(1), told)


EVALUATORS: Mapping[str, Callable[[Setting, Params], list[Dialogue]]] = {
    "sampled": sampled,
    "greedy": greedy,
    "tries": tries,
    "full": full,
}
"""By name; each plays dialogues, and every number is computed from those."""


def evaluators_of(suite: Suite, stage) -> list[str]:
  """Which evaluators an evaluate stage runs on a suite."""
  names = ["sampled"]
  if stage.greedy:
    names.append("greedy")
  if suite.sharded:
    names.append("full")
  elif stage.tries and suite.feedback == "full":
    names.append("tries")
  return names


def success(dialogues: list[Dialogue]) -> float:
  """Share solved among the valid ones; NaN if there are none."""
  solved = [d.end == "solved" for d in dialogues if d.valid]
  return float(np.mean(solved)) if solved else float("nan")


__all__ = ["EVALUATORS", "Setting", "Suite", "evaluators_of", "solved_counts", "success"]
