"""The micro-world as a task source: its verifier (numbers read off, code really run), kinds, teacher and questioner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sml_jax.dialogue.record import Dialogue, Feedback, Kind
from sml_jax.dialogue.scripted import ScriptedTeacher, is_question, scripted_question
from sml_jax.dialogue.teacher import place_of
from sml_jax.tasks.executor import Executor, Outcome, Submission, same
from sml_jax.tasks.microworld import INPUTS, World, expected_outputs, slots_from_outputs, slots_of, stated_values
from sml_jax.tasks.source import Source
from sml_jax.tasks.task import Reveal, Task, Verdict


class MicroworldSource(Source):
  """Endless maths and code tasks; code is run in a worker process."""

  def __init__(self, world: World, seed: int = 0):
    self.world, self.seed = world, seed
    self._executor = Executor()

  def size(self, domain: str, part: str) -> None:
    return None

  def task(self, domain: str, part: str, index: int, reveal: Reveal = "") -> Task:
    # Dev and test tasks are the same for every run seed.
    return self.world.task(domain, part, index, seed=self.seed if part == "train" else 0, reveal=reveal)

  def _outcome(self, task: Task, text: str) -> Outcome:
    """What the function of a code turn returns; known already if `verify` has seen the turn."""
    return self._executor.outputs_batch([_submission(task, text)])[0]

  def verify(self, tasks: Sequence[Task], texts: Sequence[str]) -> list[Verdict]:
    turns = list(zip(tasks, texts, strict=True))
    code = [(t, x) for t, x in turns if t.domain == "code" and self.kind(t, x) == "answer_attempt"]
    self._executor.outputs_batch([_submission(t, x) for t, x in code])  # all at once; the verdicts find them done
    return [self._verdict(t, x) for t, x in turns]

  def _verdict(self, task: Task, text: str) -> Verdict:
    if self.kind(task, text) != "answer_attempt":
      return "no_attempt"
    if task.domain == "math":
      return "solved" if stated_values(task, text) == tuple(s.value for s in slots_of(task)) else "wrong"
    outcome = self._outcome(task, text)
    if outcome.status == "failed":
      return "verifier_failed"
    solved = outcome.status == "ok" and same(outcome.values, expected_outputs(task))
    return "solved" if solved else "wrong"

  def observe(self, task: Task, text: str) -> tuple[int, int] | None:
    """The two values a turn states (maths) or that its function's outputs show (code); None if there are none."""
    if task.domain == "math":
      return stated_values(task, text)
    outcome = self._outcome(task, text)
    return slots_from_outputs(task.private["style"], outcome.values) if outcome.status == "ok" else None

  def kind(self, task: Task, text: str) -> Kind:
    if not text.strip():
      return "missing"
    if is_question(text):
      mentioned = [s for s in slots_of(task) if s.article in text]
      return "interrogation" if len(mentioned) > 1 else "clarification"
    attempt = text.startswith("def f(x):") if task.domain == "code" else stated_values(task, text) is not None
    return "answer_attempt" if attempt else "discussion"

  def teacher(self, feedback: Feedback) -> ScriptedTeacher:
    return ScriptedTeacher(feedback, self.observe, self.world)

  def question(self, task: Task, dialogue: Dialogue) -> str:
    return scripted_question(task, dialogue.turns[-1].text, self.observe, place_of(task, dialogue))


def _submission(task: Task, text: str) -> Submission:
  return Submission(text, [[x] for x in INPUTS[task.private["style"]]])


def make_source(config: Any) -> MicroworldSource:
  t = config.tasks
  world = World(t.convention_share, tuple(t.convention_spread), t.split_salt)
  return MicroworldSource(world, seed=config.seed)
