"""Suites of held-out tasks, and the evaluators that run on them: the same inside training and alone."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from sml_jax.config import FEEDBACK
from sml_jax.dialogue.conversation import Rules, solved_counts
from sml_jax.dialogue.record import Dialogue
from sml_jax.errors import UserError
from sml_jax.tasks import lost_in_conversation as lic
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
    size = source.size(self.domain, part)
    if size is not None and size < count:
      raise UserError(f"an evaluation wants {count} {part} tasks of {self.domain}, but there are {size}")
    return [source.task(self.domain, part, i, reveal if self.sharded else "") for i in range(count)]


@dataclasses.dataclass(frozen=True)
class Setting:
  """What an evaluator needs to know besides the student; `runs` and `compat` are for MODES."""

  tasks: list[Task]
  feedback: str
  turns: int
  tries: int = 0
  runs: int = 1
  compat: lic.Compat = "fixed"


class Games(NamedTuple):
  """The dialogues that an evaluator wants played: see `Table.play`."""

  tasks: list[Task]
  samples: list[int]
  rules: Rules


def sampled(s: Setting) -> Games:
  """One dialogue a task at temperature 1, with the answer's nats before every student turn."""
  return Games(s.tasks, [0] * len(s.tasks), Rules(s.turns, s.feedback, answer_nll=True))


def greedy(s: Setting) -> Games:
  """One dialogue a task at temperature 0."""
  return Games(s.tasks, [0] * len(s.tasks), Rules(s.turns, s.feedback, temperature=0.0))


def tries(s: Setting) -> Games:
  """`tries` independent first turns a task at temperature 1, ordered by (task, try): the resampling control."""
  # Sample 0 is the dialogue's own first turn, which must not be one of the tries.
  return Games([t for t in s.tasks for _ in range(s.tries)], [1 + i for _ in s.tasks for i in range(s.tries)], Rules(1))


def full(s: Setting) -> Games:
  """Underspecified tasks with all their shards stated at once, one turn at temperature 1."""
  all_of = lambda t: lic.full(lic.instruction_of(t)) if t.whole else " ".join([*t.shards[1:], t.shards[0]])
  told = [dataclasses.replace(t, text=all_of(t), shards=(), reveal="") for t in s.tasks]
  return Games(told, [0] * len(told), Rules(1))


MODE = "mode_"
MODES = ("full", "concat", "shuffle_concat", "sharded", "recap", "snowball")
"""Ways to tell an underspecified task, of Lost in Conversation (see tasks/lost_in_conversation.py)."""


def told_by(mode: str, s: Setting) -> Games:
  """`runs` dialogues a task, ordered by (task, run), in which the task is told in a way of MODES."""
  out = []
  for task in s.tasks:
    instruction = lic.instruction_of(task)
    for run in range(s.runs):
      if mode in ("sharded", "recap", "snowball"):
        out.append(dataclasses.replace(task, reveal="every_turn" if mode == "sharded" else mode))
        continue
      text = (lic.shuffle_concat(instruction, run, s.compat) if mode == "shuffle_concat"
              else {"full": lic.full, "concat": lic.concat}[mode](instruction))  # fmt: skip
      out.append(dataclasses.replace(task, text=text, shards=(), reveal=""))
  whole = mode not in ("sharded", "recap", "snowball")
  # Runs that begin alike are other samples in each mode.
  samples = [1000 * (1 + MODES.index(mode)) + run for _ in s.tasks for run in range(s.runs)]
  return Games(out, samples, Rules(1 if whole else s.turns, s.feedback))


def runs_of(dialogues: list[Dialogue], runs: int) -> list[list[Dialogue]]:
  """The dialogues of `told_by`, a list a task."""
  return [dialogues[i : i + runs] for i in range(0, len(dialogues), runs)]


EVALUATORS: Mapping[str, Callable[[Setting], Games]] = {
    "sampled": sampled,
    "greedy": greedy,
    "tries": tries,
    "full": full,
    **{f"{MODE}{mode}": functools.partial(told_by, mode) for mode in MODES},
}
"""By name; each says which dialogues are to be played, and every number is computed from those."""


def evaluators_of(suite: Suite, stage) -> list[str]:
  """Which evaluators an evaluate stage runs on a suite."""
  names = ["sampled"]
  if stage.greedy:
    names.append("greedy")
  if suite.sharded:
    names += ["full", *(f"{MODE}{mode}" for mode in stage.modes)]
  elif stage.tries and suite.feedback == "full":
    names.append("tries")
  return names


def success(dialogues: list[Dialogue]) -> float:
  """Share solved among the valid ones; NaN if there are none."""
  solved = [d.end == "solved" for d in dialogues if d.valid]
  return float(np.mean(solved)) if solved else float("nan")


__all__ = ["EVALUATORS", "MODE", "Games", "Setting", "Suite", "evaluators_of", "runs_of", "solved_counts", "success"]
