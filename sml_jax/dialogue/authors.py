"""The base student's reading matter: dialogues between scripted authors and the scripted teacher."""

from __future__ import annotations

import dataclasses

import numpy as np

from sml_jax.dialogue.record import Dialogue, Feedback
from sml_jax.dialogue.renderer import Renderer
from sml_jax.dialogue.scripted import Authors, ScriptedStudent, ScriptedTeacher
from sml_jax.dialogue.teacher import as_reply
from sml_jax.tasks.microworld import ASK_ONE, World, answer_text, slots_of
from sml_jax.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Mixture:
  """Shares of kinds of dialogue in the base student's data; what is left is fully specified, with the full teacher.

  Attributes:
    authors: how the authors behave.
    long: share with 10 turns instead of 4.
    sharded, plain: share of underspecified tasks, and of tasks without hidden conventions.
    lessons: share of single clauses, answered at once: cheap practice in arithmetic.
    arms: share of each feedback arm other than full.
  """

  authors: Authors = dataclasses.field(default_factory=Authors)
  long: float = 0.06
  sharded: float = 0.1
  plain: float = 0.08
  lessons: float = 0.3
  arms: tuple[tuple[Feedback, float], ...] = (
      ("none", 0.06), ("try_again", 0.05), ("no_private", 0.04), ("binary", 0.03)
  )


def author_dialogue(world: World, mixture: Mixture, renderer: Renderer, index: int, seed: int) -> Dialogue:
  """Dialogue number `index` of the base student's data: a function of its arguments alone."""
  rng = np.random.default_rng((seed, index))
  if rng.random() < mixture.lessons:
    return _lesson(world, renderer, index, seed)
  domain = "math" if rng.random() < 0.5 else "code"
  turns = 10 if rng.random() < mixture.long else 4
  u = rng.random()
  reveal = ("on_question" if rng.random() < 0.5 else "every_turn") if u < mixture.sharded else ""
  plain = not reveal and u < mixture.sharded + mixture.plain
  task = world.task(domain, "train", index, seed=seed + 1000, reveal=reveal, plain=plain, all_nouns=True)
  return _play(world, mixture.authors, renderer, task, _arm(mixture, rng), task.turn_cap or turns, rng)


def _arm(mixture: Mixture, rng: np.random.Generator) -> Feedback:
  u = rng.random()
  for arm, share in mixture.arms:
    u -= share
    if u < 0:
      return arm
  return "full"


def _play(
    world: World, authors: Authors, renderer: Renderer, task: Task, feedback: Feedback, turns: int,
    rng: np.random.Generator,
) -> Dialogue:
  student = ScriptedStudent(authors, world, rng)
  # What the author meant needs no reading (or running) of what it wrote.
  teacher = ScriptedTeacher(feedback, lambda task, text: tuple(student.values or ()) or None, world)
  dialogue = Dialogue(task.id, task.domain, 0, feedback, [renderer.first_turn(task.text)], bos=renderer.bos)
  slots = slots_of(task)
  truth = [s.value for s in slots]
  for n in range(turns):
    said = student.speak(task, dialogue)
    attempt = not isinstance(said, str)
    text = answer_text(task.private["style"], slots, tuple(said)) if attempt else said
    turn = renderer.student_turn(text)
    turn.kind = "answer_attempt" if attempt else "clarification"
    turn.verdict = "no_attempt" if not attempt else "solved" if said == truth else "wrong"
    dialogue.turns.append(turn)
    if turn.verdict == "solved":
      dialogue.end = "solved"
      return dialogue
    if n + 1 < turns:
      dialogue.turns.append(renderer.teacher_turn(as_reply(teacher.reply([task], [dialogue])[0]).text))
  dialogue.end = "turn_limit"
  return dialogue


def _lesson(world: World, renderer: Renderer, index: int, seed: int) -> Dialogue:
  """The first clause of a plain problem, asked for alone and answered at once."""
  task = world.task("math", "train", index, seed=seed + 1000, plain=True, all_nouns=True)
  slot, style = slots_of(task)[0], task.private["style"]
  answer = f"{slot.noun} is {slot.value}." if style == "sum" else f"{slot.value} {slot.noun}."
  turn = renderer.student_turn(answer)
  turn.kind, turn.verdict = "answer_attempt", "solved"
  turns = [renderer.first_turn(f"{slot.text(exact=True)} {ASK_ONE[style].format(s=slot.noun)}"), turn]
  return Dialogue(f"lesson-{index}", "math", 0, "full", turns, "solved", renderer.bos)
