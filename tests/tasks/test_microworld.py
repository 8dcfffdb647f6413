"""The micro-world: disjoint parts, conventions as announced, shards hide what they should, answers are read."""

from __future__ import annotations

import collections
import dataclasses
import re

import numpy as np
import pytest

from sml_jax.dialogue.authors import Mixture, author_dialogue
from sml_jax.dialogue.renderer import Renderer
from sml_jax.tasks.microworld import (
    FORMS,
    INPUTS,
    LARGEST,
    NOUNS,
    PARTS,
    SPEC,
    STORY_MINUS,
    STORY_PLUS,
    SUM,
    USUAL,
    Slot,
    World,
    answer_text,
    expected_outputs,
    slots_from_outputs,
    slots_of,
    stated_values,
)
from sml_jax.tasks.task import Task

DOMAINS = ("math", "code")
WORLD = World()
SPREAD = (0.45, 0.14, 0.085, 0.05)
SHARES = {0: 0.45, 1: 0.14, -1: 0.14, 2: 0.085, -2: 0.085, 3: 0.05, -3: 0.05}


def tasks(part: str, n: int, domain: str, **kinds) -> list[Task]:
  return [WORLD.task(domain, part, i, **kinds) for i in range(n)]


def task_of(style: str, *slots: Slot) -> Task:
  private = {"style": style, "slots": [dataclasses.asdict(s) for s in slots]}
  return Task("by hand", "math", "", answer_text(style, list(slots)), private)


PENS_AND_HATS = task_of("story", Slot("pens", 5, 1, 3, "", ""), Slot("hats", 12, -1, 7, "lots", ""))
K_AND_Q = task_of("sum", Slot("K", 5, 1, 3, "", ""), Slot("Q", 12, -1, 7, "", ""))


def template_of(slot: Slot) -> str:
  """The clause without what fills it: {p} {n} {s} {m} are digits, names, nouns and amounts."""
  text = slot.clause.replace("plus" if slot.sign > 0 else "minus", "{sign}")
  text = re.sub(rf"\b{slot.noun}\b", "{s}", text)
  text = re.sub(r"\b(Ann|Bob|Cleo|Dan|Eva|Finn|Gus|Hana)\b", "{p}", text)
  return re.sub(r"\b\d+\b", "{n}", text)


def problem_key(task: Task) -> tuple:
  return task.private["style"], *((s.base, s.sign, s.word or s.amount) for s in slots_of(task))


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_problem_is_in_two_parts(domain):
  keys = {part: {problem_key(t) for t in tasks(part, 1500, domain)} for part in PARTS}
  assert all(len(k) > 1200 for k in keys.values())
  assert not keys["train"] & keys["dev"] and not keys["train"] & keys["test"] and not keys["dev"] & keys["test"]


def test_underspecified_and_plain_problems_keep_to_the_same_split():
  for domain in DOMAINS:
    train = {problem_key(t) for t in tasks("train", 1500, domain, plain=True)}
    assert not train & {problem_key(t) for t in tasks("test", 500, domain, reveal="on_question")}


def test_every_part_has_templates_of_its_own():
  for table in (STORY_PLUS, STORY_MINUS, SUM, SPEC):
    assert len({t for part in PARTS for t in table[part]}) == sum(len(table[part]) for part in PARTS)
  used = {part: {template_of(s) for d in DOMAINS for t in tasks(part, 400, d) for s in slots_of(t)} for part in PARTS}
  signed = lambda part: sum(len(t[part]) for t in (STORY_PLUS, STORY_MINUS, SUM, SPEC))
  assert {p: len(u) for p, u in used.items()} == {p: signed(p) for p in PARTS}  # all of them, and nothing else
  assert not used["train"] & used["dev"] and not used["train"] & used["test"] and not used["dev"] & used["test"]


def test_held_out_nouns_are_in_their_own_part_alone():
  assert len({n for part in PARTS for n in NOUNS[part]}) == sum(map(len, NOUNS.values()))
  for part in PARTS:
    stories = [t for t in tasks(part, 800, "math") if t.private["style"] == "story"]
    nouns = [[s.noun for s in slots_of(t)] for t in stories]
    assert {n for pair in nouns for n in pair} == {*NOUNS["train"], *NOUNS[part]}
    if part != "train":
      assert all(sum(n in NOUNS[part] for n in pair) == 1 for pair in nouns)
    assert all(a != b for a, b in nouns)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("reveal", ["", "on_question"])
def test_values_and_stated_numbers_fit_the_number_pieces(domain, reveal):
  for part in PARTS:
    for task in tasks(part, 700, domain, reveal=reveal):
      said = [s.text(exact=exact) for s in slots_of(task) for exact in (True, False)] + [task.answer]
      numbers = [int(n) for text in said for n in re.findall(r"\d+", text)]
      assert all(0 <= s.value <= LARGEST for s in slots_of(task)) and all(0 <= n <= LARGEST for n in numbers)


def test_the_same_arguments_give_the_same_task():
  world, again = World(), World()
  for domain in DOMAINS:
    for reveal in ("", "every_turn"):
      assert world.task(domain, "dev", 7, seed=3, reveal=reveal) == again.task(domain, "dev", 7, seed=3, reveal=reveal)
  kinds = [(d, p, r) for d in DOMAINS for p in PARTS for r in ("", "on_question", "every_turn")]
  ids = [t.id for d, p, r in kinds for t in tasks(p, 5, d, reveal=r)]
  assert len(set(ids)) == len(ids)
  assert world.task("math", "dev", 7) != world.task("math", "dev", 7, seed=1)
  # A new salt draws new dev problems.
  assert {problem_key(World(salt="1").task("math", "dev", i)) for i in range(200)} - {
      problem_key(world.task("math", "dev", i)) for i in range(200)}


@pytest.mark.parametrize("arguments", [("maths", "train"), ("math", "validation")])
def test_unknown_domain_or_part_is_refused(arguments):
  with pytest.raises(ValueError, match="micro-world has domains"):
    WORLD.task(*arguments, 0)


def test_a_spread_that_is_no_distribution_is_refused():
  with pytest.raises(ValueError, match="add up to 1"):
    World(spread=(0.5, 0.2))


def test_conventions_follow_the_spread():
  """P-value bound: chi-square with 6 degrees of freedom exceeds 22.46 once in a thousand seeds; the seed is fixed."""
  rng, n, world = np.random.default_rng(0), 20_000, World(spread=SPREAD)
  shifts = collections.Counter(world.draw_value(rng, "lots") - USUAL["lots"] for _ in range(n))
  assert set(shifts) == set(SHARES)
  assert sum((shifts[k] - n * p) ** 2 / (n * p) for k, p in SHARES.items()) < 22.46
  assert {world.draw_value(rng, "a few") for _ in range(2000)} == {0, 1, 2, 3, 4, 5}  # never below 0
  assert {World(spread=(1.0,)).draw_value(rng, "many") for _ in range(100)} == {5}


def test_tasks_draw_conventions_anew_by_the_spread():
  drawn = [World(spread=SPREAD).task(d, "train", i) for d in DOMAINS for i in range(1500)]
  slots = [s for t in drawn for s in slots_of(t) if s.word and s.word != "a few"]
  shifts = collections.Counter(s.amount - USUAL[s.word] for s in slots)
  for shift, p in SHARES.items():
    assert abs(shifts[shift] / len(slots) - p) < 4 * (p * (1 - p) / len(slots)) ** 0.5


@pytest.mark.parametrize("share", [0.0, 0.75, 1.0])
def test_share_of_problems_with_one_convention(share):
  world, n = World(one_convention=share), 1200
  words = collections.Counter(sum(bool(s.word) for s in slots_of(world.task("math", "train", i))) for i in range(n))
  assert words[0] == 0 and words[1] + words[2] == n
  assert abs(words[1] / n - share) < 0.05
  assert not any(s.word for t in tasks("train", 200, "math", plain=True) for s in slots_of(t))


def test_the_base_does_not_tell_the_convention():
  """Correlation of base and shift over thousands of slots, within 4 / sqrt(n) of none."""
  slots = [s for t in tasks("train", 4000, "math") for s in slots_of(t) if s.word and s.sign > 0]
  bases, shifts = np.array([[s.base, s.amount - USUAL[s.word]] for s in slots]).T
  assert abs(np.corrcoef(bases, shifts)[0, 1]) < 4 / len(slots) ** 0.5
  assert abs(np.corrcoef(bases, shifts == 0)[0, 1]) < 4 / len(slots) ** 0.5
  assert set(bases) == set(range(1, 13))  # the same bases whatever the word


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("reveal", ["on_question", "every_turn"])
def test_shards_hide_all_that_decides_the_answer_and_tell_all_of_it(domain, reveal):
  for task in tasks("dev", 300, domain, reveal=reveal):
    a, b = slots_of(task)
    assert task.text == task.shards[0] and not re.search(r"\d", task.text)
    stated = task.text.replace("How many", "").replace("factor times x plus constant", "").replace("limit, plus", "")
    assert not re.search("|".join((*USUAL, "plus", "minus")), stated)
    assert task.hidden == 2 and task.turn_cap == 4
    for slot, shard in zip((a, b), task.shards[1:], strict=True):
      assert re.search(rf"\b{slot.noun}\b", shard)
      assert [int(n) for n in re.findall(r"\d+", shard)] == [slot.base, slot.amount]  # numbers, and no convention
    # Forms of code are named at turn 1; the two numbers of the answer are in the shards alone.
    assert task.answer == answer_text(task.private["style"], [a, b])


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_fully_specified_problem_states_each_clause_as_it_stands(domain):
  for task in tasks("test", 300, domain):
    assert task.shards == () and task.turn_cap is None
    for slot in slots_of(task):
      assert slot.text(exact=False) in task.text
      assert not slot.word or slot.word in slot.text(exact=False)
      assert slot.text(exact=True).count(str(slot.amount)) >= 1


@pytest.mark.parametrize("text, values", [
    ("8 pens and 5 hats.", (8, 5)),
    ("Hats: 5 hats. Then 8 pens.", (8, 5)),
    ("3 pens or 4 pens and 5 hats.", None),
    ("8 pens, 5 hats, 6 hats.", None),
    ("8 pens.", None),
    ("8 and 5.", None),
    ("8 open and 5 hats.", None),
    ("1234567 pens and 5 hats.", None),
    ("", None),
])  # fmt: skip
def test_listing_guesses_is_no_attempt_story(text, values):
  assert stated_values(PENS_AND_HATS, text) == values


@pytest.mark.parametrize("text, values", [
    ("K is 8 and Q is 5.", (8, 5)),
    ("Q is 5, K is 8", (8, 5)),
    ("K is 8, K is 9, Q is 5.", None),
    ("K is 8.", None),
    ("K is eight and Q is 5.", None),
])  # fmt: skip
def test_listing_guesses_is_no_attempt_sum(text, values):
  assert stated_values(K_AND_Q, text) == values


def test_the_canonical_answer_states_the_true_values():
  assert PENS_AND_HATS.answer == "8 pens and 5 hats." and K_AND_Q.answer == "K is 8 and Q is 5."
  for task in tasks("test", 300, "math"):
    assert stated_values(task, task.answer) == tuple(s.value for s in slots_of(task))


@pytest.mark.parametrize("style", FORMS)
def test_slots_are_read_back_from_outputs(style):
  for a in range(LARGEST + 1):
    for b in range(LARGEST + 1):
      outputs = expected_outputs(task_of(style, Slot("x", a, 1, 0, "", ""), Slot("y", b, 1, 0, "", "")))
      function = (lambda x, a=a, b=b: a * x + b) if style == "line" else (lambda x, a=a, b=b: max(x, a) + b)
      assert outputs == [function(x) for x in INPUTS[style]]
      assert slots_from_outputs(style, outputs) == (a, b)


@pytest.mark.parametrize("style, outputs", [
    ("line", [1, 2, 3, 6, 12]), ("line", [1.0, 2, 3, 6, 11]), ("line", [True, 2, 3, 6, 11]), ("line", [None] * 5),
    ("floor", [0, 1, 0, 0, 0]), ("floor", [5, 4, 7, 30, 50]),
])  # fmt: skip
def test_outputs_of_another_form_have_no_slots(style, outputs):
  assert slots_from_outputs(style, outputs) is None


def test_pieces_of_held_out_tasks_were_read_often():
  """A piece of one in a thousand dev or test tasks, or more, stands at least 20 times in 3000 dialogues of the authors.

  The rest is the number 22, the largest value there is, which a held-out answer holds once in some thousands.
  """
  renderer, read, held_out = Renderer(), collections.Counter(), collections.Counter()
  for i in range(3000):
    for turn in author_dialogue(WORLD, Mixture(), renderer, i, seed=11).turns:
      read.update(turn.tokens)
  kinds = [(d, p, r) for d in DOMAINS for p in ("dev", "test") for r in ("", "on_question")]
  drawn = [t for d, p, r in kinds for t in tasks(p, 512, d, reveal=r)]
  for task in drawn:
    held_out.update({p for text in (task.text, task.answer, *task.shards) for p in renderer.encode(text)})
  often = [p for p, n in held_out.items() if n >= len(drawn) / 1000]
  assert {renderer.pieces([p])[0]: read[p] for p in often if read[p] < 20} == {}
  assert {renderer.pieces([p])[0] for p in held_out if p not in often} <= {" 22"}
