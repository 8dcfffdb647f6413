"""The scripted teacher word for word, for every feedback arm; what it never says; the lazy user; the questioner."""

from __future__ import annotations

import dataclasses
import re
from typing import get_args

import numpy as np
import pytest

from sml_jax.dialogue.record import Dialogue, Feedback, Turn
from sml_jax.dialogue.scripted import (
    CAN_NOT_SAY,
    FAR,
    NO_ANSWER,
    ScriptedTeacher,
    is_question,
    scripted_question,
)
from sml_jax.dialogue.teacher import TRY_AGAIN, USUAL_WORDS, Reply, as_reply, choose, hidden_shards
from sml_jax.tasks.microworld import LARGEST, Slot, World, answer_text, slots_of
from sml_jax.tasks.task import Task

WORLD = World()
ARMS = get_args(Feedback)


def make_task(*slots: Slot, reveal="") -> Task:
  private = {"style": "story", "slots": [dataclasses.asdict(s) for s in slots]}
  question = "How many pens and hats now?"
  shards = (question, *(s.text(exact=True) for s in slots)) if reveal else ()
  text = question if reveal else " ".join([*(s.text(exact=False) for s in slots), question])
  return Task("by-hand", "math", text, answer_text("story", list(slots)), private, shards, reveal)


PENS = Slot("pens", 5, 1, 3, "", "Ann has 5 pens and gets 3 more.")  # 8
HATS = Slot("hats", 12, -1, 5, "lots", "Bob has 12 hats and loses {m}.")  # 7, where "lots" is usually 7
TASK = make_task(PENS, HATS)
NUMBERED = dataclasses.replace(HATS, word="", clause="Bob has 12 hats and loses 5.")
HIDDEN = make_task(PENS, NUMBERED, reveal="on_question")


def stated(task: Task, text: str) -> tuple[int, int] | None:
  """Reads maths off the text, and code by its form: a stand-in for running it."""
  numbers = [int(n) for n in re.findall(r"\d+", text)]
  return (numbers[0], numbers[1]) if len(numbers) == 2 else None


def teacher(feedback: str) -> ScriptedTeacher:
  return ScriptedTeacher(feedback, stated, WORLD)


def dialogue(task: Task, *said: str, sample: int = 0) -> Dialogue:
  """The teacher's text and student and teacher turns after it, the last one a student's."""
  roles = ("student", "teacher")
  turns = [Turn("teacher", task.text), *(Turn(roles[i % 2], text) for i, text in enumerate(said))]
  return Dialogue(task.id, task.domain, sample, "full", turns)


def reply(feedback: str, task: Task, *said: str, sample: int = 0) -> str:
  return as_reply(teacher(feedback).reply([task], [dialogue(task, *said, sample=sample)])[0]).text


def usual(text: str, *forms: str) -> bool:
  """Whether text is one of the usual words and one of the forms."""
  return text in {f"{u} {form}".strip() for u in USUAL_WORDS for form in forms}


@pytest.mark.parametrize("attempt, forms", [
    ("6 pens and 7 hats.", ("6 is too low for the pens.", "6 for the pens is too low.")),
    ("9 pens and 9 hats.", ("9 is too high for the pens.", "9 for the pens is too high.")),  # the first wrong one
    ("8 pens and 9 hats.", ("9 is too high for the hats.", "9 for the hats is too high.")),
    ("8 pens and 5 hats.", ("5 is too low for the hats.", "5 for the hats is too low.")),
    ("8 pens and 4 hats.", ("4 is far too low for the hats.", "4 for the hats is far too low.")),
    ("11 pens and 7 hats.", ("11 is far too high for the pens.", "11 for the pens is far too high.")),
])  # fmt: skip
def test_full_names_the_first_wrong_slot_and_says_which_way(attempt, forms):
  assert FAR == 3
  replies = {reply("full", TASK, attempt, sample=s) for s in range(40)}
  assert all(usual(r, *forms) for r in replies)
  assert len(replies) == 6  # every usual word, both forms


def test_no_private_checks_plain_sums_and_only_doubts_a_convention():
  said = reply("no_private", TASK, "6 pens and 9 hats.")
  assert usual(said, "6 is too low for the pens.", "6 for the pens is too low.")
  for hats in (0, 4, 9):
    assert usual(reply("no_private", TASK, f"8 pens and {hats} hats."), f"Are you sure of {hats} for the hats?")


@pytest.mark.parametrize("attempt", ["6 pens and 7 hats.", "8 pens and 9 hats."])
def test_the_other_arms_word_for_word(attempt):
  assert reply("binary", TASK, attempt) in USUAL_WORDS
  assert reply("try_again", TASK, attempt) == TRY_AGAIN
  assert reply("none", TASK, attempt) == ""


def test_questions_restate_the_clause_from_what_the_arm_knows():
  for question in ("What about the hats?", "Tell me about the hats."):
    assert reply("full", TASK, question) == "Bob has 12 hats and loses 5."
    assert reply("no_private", TASK, question) == "Bob has 12 hats and loses lots."
    assert reply("binary", TASK, question) == CAN_NOT_SAY
    assert reply("try_again", TASK, question) == TRY_AGAIN
    assert reply("none", TASK, question) == ""
  assert reply("full", TASK, "What?") == "Ann has 5 pens and gets 3 more."


def test_a_turn_without_an_answer_is_asked_for_one():
  for feedback in ("full", "no_private", "binary"):
    assert reply(feedback, TASK, "Hm.") == NO_ANSWER


def test_shuffled_is_feedback_on_another_task():
  for seed in range(300):
    domain = ("math", "code")[seed % 2]
    task = WORLD.task(domain, "dev", seed)
    (text,) = teacher("shuffled").reply([task], [dialogue(task, "1 and 2")])
    words = r"(Not yet|Not quite|Look again)\. \d+ (for .* )?is (far )?too (low|high)( for .*)?\."
    assert re.fullmatch(words, text)
  texts = {reply("shuffled", TASK, "6 pens and 7 hats.", sample=s) for s in range(40)}
  assert len(texts) > 30
  assert sum("pens" in t for t in texts) < 10  # mostly not even about the same thing


@pytest.mark.parametrize("value", [0, 1, LARGEST - 2, LARGEST])
def test_shuffled_quotes_a_value_that_is_possible_and_wrong(value):
  """At the ends too: "0 is too high" is nothing that a student could be told."""
  donor = make_task(*[Slot(noun, value, 1, 0, "", "") for noun in ("pens", "hats")])
  made = ScriptedTeacher("shuffled", stated, type("OneTask", (), {"task": lambda *a, **k: donor})())
  for sample in range(60):
    (text,) = made.reply([TASK], [dialogue(TASK, "6 pens and 7 hats.", sample=sample)])
    quoted = int(re.search(r"\d+", text)[0])
    assert 0 <= quoted <= LARGEST and quoted != value
    assert ("low" in text) == (quoted < value)


def random_attempt(rng: np.random.Generator, index: int) -> tuple[Task, tuple[int, int], str]:
  task = WORLD.task(("math", "code")[index % 2], ("train", "dev", "test")[index % 3], index)
  slots, near = slots_of(task), rng.integers(-4, 5, 2)
  values = tuple(int(max(0, s.value + d)) for s, d in zip(slots, near, strict=True))
  return task, values, answer_text(task.private["style"], slots, values)


def test_full_never_gives_the_answer_away():
  """2000 wrong attempts: the only number is the student's own wrong one, and the answer's text is nowhere."""
  rng, checked = np.random.default_rng(0), 0
  for index in range(2300):
    task, values, text = random_attempt(rng, index)
    slots = slots_of(task)
    wrong = [(s, v) for s, v in zip(slots, values, strict=True) if v != s.value]
    if not wrong:
      continue
    (said,) = ScriptedTeacher("full", lambda *_, v=values: v, WORLD).reply([task], [dialogue(task, text)])
    slot, value = wrong[0]
    assert re.findall(r"\d+", said) == [str(value)] and value != slot.value
    assert re.search(rf"\b{slot.noun}\b", said) and task.answer not in said
    assert ("low" in said) == (value < slot.value) and ("far too" in said) == (abs(value - slot.value) >= 3)
    checked += 1
  assert checked >= 2000


def test_no_private_is_computed_from_the_public_text_alone():
  """Other private amounts under the same words: the same reply to the same dialogue."""
  rng, checked = np.random.default_rng(1), 0
  for index in range(600):
    task, values, text = random_attempt(rng, index)
    slots = slots_of(task)
    others = [dataclasses.replace(s, amount=int(rng.integers(0, 9))) if s.word else s for s in slots]
    private = task.private | {"slots": [dataclasses.asdict(s) for s in others]}
    other = dataclasses.replace(task, answer="", private=private)
    if values in (tuple(s.value for s in slots), tuple(s.value for s in others)):
      continue  # a solved dialogue gets no reply
    for last in (text, "What about it?", f"Tell me about {slots[1].article}."):
      made = ScriptedTeacher("no_private", lambda *_, v=values: v, WORLD)
      assert made.reply([task], [dialogue(task, last)]) == made.reply([other], [dialogue(other, last)])
    checked += 1
  assert checked > 400


@pytest.mark.parametrize("feedback", ARMS)
def test_a_reply_does_not_depend_on_the_batch(feedback):
  rng = np.random.default_rng(2)
  drawn = [random_attempt(rng, i) for i in range(40)]
  tasks = [t for t, _, _ in drawn]
  dialogues = [dialogue(t, "1 and 23", sample=i % 3) for i, t in enumerate(tasks)]
  made = teacher(feedback)
  alone = [made.reply([t], [d])[0] for t, d in zip(tasks, dialogues, strict=True)]
  assert made.reply(tasks, dialogues) == alone
  order = rng.permutation(len(tasks))
  assert made.reply([tasks[i] for i in order], [dialogues[i] for i in order]) == [alone[i] for i in order]


def test_choose_is_a_function_of_place():
  assert choose("abc", "task", 0, 1) == choose("abc", "task", 0, 1)
  assert {choose("abc", "task", s, 1) for s in range(30)} == set("abc")


@pytest.mark.parametrize("feedback", ARMS)
def test_reveal_on_question_gives_the_asked_shard_and_nothing_to_an_attempt(feedback):
  assert reply(feedback, HIDDEN, "Tell me about the hats.") == "Bob has 12 hats and loses 5."
  assert reply(feedback, HIDDEN, "What about the pens?") == "Ann has 5 pens and gets 3 more."
  assert reply(feedback, HIDDEN, "What?") == "Ann has 5 pens and gets 3 more."  # the first one hidden
  seen = ("Tell me about the hats.", "Bob has 12 hats and loses 5.")
  assert reply(feedback, HIDDEN, *seen, "What about the hats?") == "Ann has 5 pens and gets 3 more."
  assert hidden_shards(HIDDEN, dialogue(HIDDEN, *seen, "?")) == {2: "Ann has 5 pens and gets 3 more."}
  said = reply(feedback, HIDDEN, "6 pens and 7 hats.")
  assert not re.search("5|3 more|12", said) or feedback == "shuffled"
  if feedback in ("full", "no_private", "binary"):  # while a shard is hidden there is nothing to grade
    assert said in USUAL_WORDS


def test_full_grades_once_all_shards_are_stated():
  seen = ("What about the pens?", HIDDEN.shards[1], "What about the hats?", HIDDEN.shards[2])
  said = reply("full", HIDDEN, *seen, "6 pens and 7 hats.")
  assert usual(said, "6 is too low for the pens.", "6 for the pens is too low.")
  assert reply("full", HIDDEN, *seen, "What about the hats?") == HIDDEN.shards[2]


@pytest.mark.parametrize("said", ["6 pens and 7 hats.", "What about the hats?", "", "Hm."])
def test_reveal_every_turn_gives_the_next_shard_whatever_is_said(said):
  task = dataclasses.replace(HIDDEN, reveal="every_turn")
  for feedback in ARMS:
    assert reply(feedback, task, said) == task.shards[1]
    assert reply(feedback, task, said, task.shards[1], said) == task.shards[2]
  assert reply("try_again", task, said, task.shards[1], said, task.shards[2], said) == TRY_AGAIN


def test_a_shard_that_was_told_in_other_words_is_no_longer_hidden():
  task, talk = dataclasses.replace(HIDDEN, reveal="every_turn"), dialogue(HIDDEN, "Hm.", "five pens, then three more")
  assert set(hidden_shards(task, talk)) == {2, 3}
  talk.turns[-1].shard = 2
  assert set(hidden_shards(task, talk)) == {3}
  assert teacher("full").reply([task], [talk]) == [Reply(HIDDEN.shards[2], 3)]


def test_questions_are_told_from_answers():
  assert is_question("What about K?") and is_question("Tell me about K.") and is_question("8 pens? ")
  assert not is_question("8 pens and 7 hats.") and not is_question("")


def test_the_questioner_asks_about_the_first_wrong_slot():
  for text, noun in (("6 pens and 7 hats.", "pens"), ("8 pens and 9 hats.", "hats"), ("Hm.", "pens")):
    question = scripted_question(TASK, text, stated, ("place", 0, 1))
    assert question in (f"What about the {noun}?", f"Tell me about the {noun}.") and is_question(question)
