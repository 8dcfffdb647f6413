"""The base student's reading matter: what the mixture promises, budgets that hold, and how the authors behave."""

from __future__ import annotations

import collections
import dataclasses
import re
from typing import get_args

import numpy as np
import pytest

from sml_jax.config import get_default
from sml_jax.dialogue.authors import Mixture, author_dialogue
from sml_jax.dialogue.record import Dialogue, Feedback, Turn
from sml_jax.dialogue.renderer import Renderer
from sml_jax.dialogue.scripted import Authors, ScriptedStudent
from sml_jax.dialogue.teacher import TRY_AGAIN, USUAL_WORDS
from sml_jax.tasks.microworld import (
    LARGEST,
    NOUNS,
    SPEC,
    STORY_MINUS,
    STORY_PLUS,
    SUM,
    USUAL,
    Slot,
    World,
    answer_text,
)
from sml_jax.tasks.task import Task

WORLD = World(spread=(0.45, 0.14, 0.085, 0.05))
MIXTURE = Mixture()
COUNT = 2000


@pytest.fixture(scope="module")
def dialogues() -> list[Dialogue]:
  renderer = Renderer()
  return [author_dialogue(WORLD, Mixture(), renderer, i, seed=3) for i in range(COUNT)]


def near(count: int, share: float, of: int) -> bool:
  return abs(count / of - share) <= 4 * (share * (1 - share) / of) ** 0.5


def test_a_dialogue_is_a_function_of_its_index_and_seed(dialogues):
  again = [author_dialogue(WORLD, Mixture(), Renderer(), i, seed=3) for i in range(50)]
  assert again == dialogues[:50]
  assert again != [author_dialogue(WORLD, Mixture(), Renderer(), i, seed=4) for i in range(50)]


def test_shares_of_the_mixture(dialogues):
  lessons = [d for d in dialogues if d.task_id.startswith("lesson")]
  played = [d for d in dialogues if not d.task_id.startswith("lesson")]
  n = len(played)
  assert near(len(lessons), MIXTURE.lessons, COUNT)
  assert near(sum(d.domain == "code" for d in played), 0.5, n)
  sharded = [d for d in played if d.task_id.endswith(("on_question", "every_turn"))]
  assert near(len(sharded), MIXTURE.sharded, n)
  assert near(sum(d.task_id.endswith("on_question") for d in sharded), 0.5, len(sharded))
  assert near(sum(d.task_id.endswith("plain") for d in played), MIXTURE.plain, n)
  arms = collections.Counter(d.feedback for d in played)
  shares = dict(MIXTURE.arms)
  for arm in get_args(Feedback):
    share = 1 - sum(shares.values()) if arm == "full" else shares.get(arm, 0)
    assert near(arms[arm], share, n), (arm, arms)


def test_dialogues_are_well_formed(dialogues):
  for d in dialogues:
    assert [t.role for t in d.turns] == ["teacher", "student"] * (len(d.turns) // 2)
    assert d.end in ("solved", "turn_limit") and all(t.tokens for t in d.turns)
    solved = [t.verdict == "solved" for t in d.student_turns]
    assert solved == [False] * (len(solved) - 1) + [d.end == "solved"]
    assert len(solved) <= 10
    if d.task_id.endswith(("on_question", "every_turn")):
      assert len(solved) <= 4  # two hidden shards and two more


def test_the_teacher_of_each_arm_is_the_one_that_replies(dialogues):
  words = {"none": {""}, "try_again": {TRY_AGAIN}, "binary": {*USUAL_WORDS, "I can not say."}}
  for d in dialogues:
    if d.feedback in words and not d.task_id.endswith(("on_question", "every_turn")):
      assert {t.text for t in d.turns[2::2]} <= words[d.feedback]


def test_every_number_is_one_piece_and_every_turn_fits_the_default_budget(dialogues):
  budget = get_default().dialogue
  for d in dialogues:
    for turn in d.turns:
      assert all(0 <= int(n) <= LARGEST for n in re.findall(r"\d+", turn.text)), turn.text
    assert len(d.bos) + len(d.turns[0].tokens) + 1 <= budget.max_problem_tokens  # 1: the student's header
    assert all(len(t.tokens) + 1 <= budget.max_reply_tokens for t in d.turns[2::2])
    assert all(len(t.tokens) <= budget.max_turn_tokens for t in d.student_turns)


def test_a_lesson_is_one_plain_sum_with_its_answer(dialogues):
  for d in dialogues:
    if not d.task_id.startswith("lesson"):
      continue
    problem, answer = d.turns
    a, b = map(int, re.findall(r"\d+", problem.text))
    value = a - b if re.search("loses|sells|gives|go away|minus", problem.text) else a + b
    noun = re.search(r"(How many|What is) (\w+)", problem.text)[2]
    assert answer.text in (f"{value} {noun}.", f"{noun} is {value}.") and d.end == "solved" and d.solved_at == 1


def test_only_train_templates_are_read_but_the_nouns_of_all_parts(dialogues):
  text = "\n".join(t.text for d in dialogues for t in d.turns)
  fills = {"p": r"\w+", "n": r"\d+", "s": r"\w+", "m": r"[\w ]+", "sign": "(plus|minus)"}
  for table in (STORY_PLUS, STORY_MINUS, SUM, SPEC):
    for part, templates in table.items():
      for template in templates:
        form = r"(^|[.?] )" + template.replace(".", r"\.").format(**fills)
        assert bool(re.search(form, text, re.MULTILINE)) == (part == "train"), template
  assert all(re.search(rf"\b{noun}\b", text) for part in NOUNS for noun in NOUNS[part])


def test_authors_learn_more_from_full_feedback_than_from_none():
  """What the mixture is for: the base student must see that feedback can be used, and that it often is not."""
  share = {}
  for arm in ("full", "try_again"):
    only = Mixture(Authors(attentive=1.0, ask=0.0), long=0, sharded=0, plain=0, lessons=0, arms=((arm, 1.0),))
    made = [author_dialogue(WORLD, only, Renderer(), i, seed=1) for i in range(300)]
    share[arm] = np.mean([d.end == "solved" for d in made])
  assert share["full"] > share["try_again"] + 0.2


PENS = Slot("pens", 5, 1, 3, "", "Ann has 5 pens and gets 3 more.")  # 8
HATS = Slot("hats", 12, -1, 5, "lots", "Bob has 12 hats and loses {m}.")  # 7; 5 if "lots" were its usual 7
TEXT = "Ann has 5 pens and gets 3 more. Bob has 12 hats and loses lots. How many pens and hats now?"
SLOTS = [dataclasses.asdict(s) for s in (PENS, HATS)]
TASK = Task("by-hand", "math", TEXT, answer_text("story", [PENS, HATS]), {"style": "story", "slots": SLOTS})


def student(seed: int, use: float, repeat: float = 1.0, ask: float = 0.0) -> ScriptedStudent:
  authors = Authors(attentive=1.0, use=use, repeat=repeat, ask=ask, ask_sharded=ask)
  return ScriptedStudent(authors, WORLD, np.random.default_rng(seed))


def after(*said: str) -> Dialogue:
  roles = ("teacher", "student")
  return Dialogue("by-hand", "math", 0, "full", [Turn(roles[i % 2], s) for i, s in enumerate((TEXT, *said))])


def test_an_attentive_author_goes_the_way_the_teacher_says():
  for seed in range(60):
    author = student(seed, use=1.0)
    pens, hats = author.speak(TASK, after())
    assert pens == 8 and abs(hats - 5) <= 3  # plain sums are right, a convention is a guess around its usual value
    for text, step in (("{} is too low for the hats.", 1), ("{} for the hats is far too high.", -3)):
      before = author.values[1]
      assert author.speak(TASK, after("8 pens.", text.format(before))) == [8, max(0, before + step)]
    assert author.speak(TASK, after("Tell me about the hats.", "Bob has 12 hats and loses 5.")) == [8, 7]


def test_an_inattentive_author_repeats_or_draws_anew():
  for seed in range(20):
    author = student(seed, use=0.0)
    first = author.speak(TASK, after())
    assert author.speak(TASK, after("8 pens.", "4 is too low for the hats.")) == first
  author = student(0, use=0.0, repeat=0.0)
  drawn = {author.speak(TASK, after("8 pens.", "No."))[1] for _ in range(200)}
  assert drawn == set(range(12 - USUAL["lots"] - 3, 12 - USUAL["lots"] + 4))


def test_an_author_who_asks_asks_about_a_slot():
  said = {student(s, use=1.0, ask=1.0).speak(TASK, after()) for s in range(40)}
  assert said == {f.format(x) for f in ("What about the {}?", "Tell me about the {}.") for x in ("pens", "hats")}
