"""The micro-world as a source: code really runs, failures are nobody's fault, kinds, and the authors' verdicts."""

from __future__ import annotations

import os

import pytest

from sml_jax.config import get_default
from sml_jax.dialogue.authors import Mixture, author_dialogue
from sml_jax.dialogue.record import Dialogue
from sml_jax.dialogue.renderer import Renderer
from sml_jax.errors import UserError
from sml_jax.tasks import source as source_module
from sml_jax.tasks.executor import Outcome
from sml_jax.tasks.microworld import World, answer_text, expected_outputs, slots_of
from sml_jax.tasks.microworld_source import MicroworldSource
from sml_jax.tasks.task import Task


@pytest.fixture(scope="module")
def source():
  return MicroworldSource(World())


@pytest.fixture(scope="module")
def line(source) -> Task:
  return next(t for i in range(99) if (t := source.task("code", "dev", i)).private["style"] == "line")


@pytest.fixture(scope="module")
def floor(source) -> Task:
  return next(t for i in range(99) if (t := source.task("code", "dev", i)).private["style"] == "floor")


@pytest.fixture(scope="module")
def sums(source) -> Task:
  return next(t for i in range(99) if (t := source.task("math", "dev", i)).private["style"] == "sum")


def verdict(source, task: Task, text: str) -> str:
  return source.verify([task], [text])[0]


def test_right_code_of_any_form_is_solved(source, line, floor):
  a, b = (s.value for s in slots_of(line))
  assert verdict(source, line, line.answer) == "solved"
  assert verdict(source, line, f"def f(x): return {b} + x * {a}") == "solved"
  assert verdict(source, line, f"def f(x):\n  y = x * {a}\n  return y + {b}") == "solved"
  assert verdict(source, line, f"def f(x): return {a} * x + {b + 1}") == "wrong"
  a, b = (s.value for s in slots_of(floor))
  assert verdict(source, floor, f"def f(x): return ({a} if x < {a} else x) + {b}") == "solved"
  assert verdict(source, floor, f"def f(x): return min(x, {a}) + {b}") == "wrong"


@pytest.mark.parametrize("code", [
    "def f(x): return y", "def f(x): return 1 +", "def f(x): return x / 0", "def f(x): return (lambda: f(x))()",
    "def f(x): import os; os._exit(0)", "def f(x): pass", "def f(x): return str(x)", "def f(x): return",
])  # fmt: skip
def test_code_that_fails_is_wrong_and_not_a_failed_verifier(source, line, code):
  assert verdict(source, line, code) == "wrong"
  assert verdict(source, line, line.answer) == "solved"  # the worker works on


def test_an_infinite_loop_is_wrong(source, line):
  assert verdict(source, line, "def f(x):\n  while True: pass") == "wrong"


def test_code_runs_in_another_process(source, line):
  outcome = source._outcome(line, "def f(x): import os; return os.getpid()")
  assert outcome.status == "ok" and os.getpid() not in outcome.values


def test_knowing_the_task_module_does_not_help(source, line):
  """A submission sees no expected output: they stay in this process."""
  assert verdict(source, line, "def f(x): import sys; return len(sys.argv[1:]) + len(globals())") == "wrong"


def test_P32_a_failed_executor_is_verifier_failed(source, line, monkeypatch):
  """Neither wrong nor no attempt; turns that need no running keep their verdict."""
  died = lambda submissions: [Outcome("failed", [], "the worker died twice")] * len(submissions)
  monkeypatch.setattr(source._executor, "outputs_batch", died)
  texts = [line.answer, "def f(x): return 1", "What about the factor?", ""]
  assert source.verify([line] * 4, texts) == ["verifier_failed", "verifier_failed", "no_attempt", "no_attempt"]
  assert source.observe(line, line.answer) is None


def test_maths_verdicts(source, sums):
  values = tuple(s.value for s in slots_of(sums))
  wrong = answer_text("sum", slots_of(sums), (values[0] + 1, values[1]))
  texts = [sums.answer, wrong, "I do not know.", "", sums.answer.replace(".", "?"), f"{sums.answer} {wrong}"]
  assert source.verify([sums] * 6, texts) == ["solved", "wrong"] + ["no_attempt"] * 4


def test_observed_values_are_those_that_the_turn_stands_for(source, line, floor, sums):
  for task in (line, floor, sums):
    assert source.observe(task, answer_text(task.private["style"], slots_of(task), (3, 4))) == (3, 4)
  assert source.observe(line, "def f(x): return x + x + x + 4") == (3, 4)
  assert source.observe(line, "def f(x): return x ** 2") is None
  assert source.observe(line, "def f(x): return y") is None


def test_kinds(source, line, sums):
  a, b = (s.article for s in slots_of(line))
  kinds = {
      "def f(x): return 1 * x + 2": "answer_attempt", "def f(x): return": "answer_attempt",
      f"What about {a}?": "clarification", f"Tell me about {b}.": "clarification",
      f"What are {a} and {b}?": "interrogation",
      "def f(x): return 1?": "clarification", "Hm, def f(x): return 1": "discussion", " ": "missing", "": "missing",
  }  # fmt: skip
  assert {text: source.kind(line, text) for text in kinds} == kinds
  p, q = (s.noun for s in slots_of(sums))
  assert source.kind(sums, f"{p} is 3 and {q} is 4.") == "answer_attempt"
  assert source.kind(sums, f"{p} is 3.") == "discussion"
  assert source.kind(sums, f"Tell me about {p}.") == "clarification"


def test_an_attempt_is_what_the_verifier_judges(source, line, sums):
  """kind and verdict can not disagree: a rate of attempts counts verdicts."""
  for task in (line, sums):
    for text in (task.answer, "What?", "", "Hm.", "def f(x): return 1", "Tell me about it."):
      assert (source.kind(task, text) == "answer_attempt") == (verdict(source, task, text) in ("solved", "wrong"))


def test_authors_verdicts_are_those_of_the_real_verifier(source):
  """The authors' verdicts come from the values they had in mind; here their code is run and their numbers are read."""
  mixture, renderer, seen = Mixture(), Renderer(), set()
  for index in range(300):
    dialogue = author_dialogue(source.world, mixture, renderer, index, seed=5)
    if dialogue.task_id.startswith("lesson"):
      continue
    task = task_of_author(source.world, mixture, dialogue, index)
    assert task.id == dialogue.task_id
    for turn in dialogue.student_turns:
      assert verdict(source, task, turn.text) == turn.verdict, (task.text, turn.text)
      assert source.kind(task, turn.text) == turn.kind
      seen.add((task.domain, turn.verdict))
    assert (dialogue.end == "solved") == (dialogue.student_turns[-1].verdict == "solved")
  assert seen == {(d, v) for d in ("math", "code") for v in ("solved", "wrong", "no_attempt")}


def task_of_author(world: World, mixture: Mixture, dialogue: Dialogue, index: int) -> Task:
  """The task that an author's dialogue is about, found again by its id."""
  for kind in ({}, {"plain": True}, {"reveal": "on_question"}, {"reveal": "every_turn"}):
    task = world.task(dialogue.domain, "train", index, seed=1005, all_nouns=True, **kind)
    if task.id == dialogue.task_id:
      return task
  raise AssertionError(dialogue.task_id)


def test_held_out_tasks_are_the_same_for_every_run_seed():
  a, b = MicroworldSource(World(), seed=0), MicroworldSource(World(), seed=1)
  for part in ("dev", "test"):
    assert [a.task("math", part, i) for i in range(20)] == [b.task("math", part, i) for i in range(20)]
  assert [a.task("math", "train", i).text for i in range(20)] != [b.task("math", "train", i).text for i in range(20)]
  assert a.size("math", "train") is None


def test_expected_outputs_by_hand(line, floor):
  a, b = (s.value for s in slots_of(line))
  assert expected_outputs(line) == [b, a + b, 2 * a + b, 5 * a + b, 10 * a + b]
  a, b = (s.value for s in slots_of(floor))
  assert expected_outputs(floor) == [a + b, max(0, a) + b, max(7, a) + b, 30 + b, 50 + b]


def test_a_source_is_made_from_its_name_or_import_path():
  config = get_default()
  config.tasks.split_salt, config.tasks.convention_share = "7", 0.5
  made = source_module.make_source(config)
  assert isinstance(made, MicroworldSource)
  assert made.world == World(0.5, tuple(config.tasks.convention_spread), "7")
  config.tasks.source = "sml_jax.tasks.microworld_source:make_source"
  assert isinstance(source_module.make_source(config), MicroworldSource)


@pytest.mark.parametrize("path", ["no.such.module:f", "sml_jax.tasks.source:nothing", "sml_jax.tasks.source", ""])
def test_an_import_path_that_leads_nowhere_is_one_line(path):
  with pytest.raises(UserError, match=r"tasks.source: cannot import .* \(expected package.module:name\)") as e:
    source_module.load(path, "tasks.source")
  assert "\n" not in str(e.value)


def judge(verdict: str, *raises: str):
  """A verifier that gives `verdict`, but raises on a batch or a turn that holds one of the texts in `raises`."""
  def verify(tasks, texts):
    if set(raises) & set(texts):
      raise RuntimeError("out of order")
    return [verdict] * len(texts)

  return verify


def test_P32_an_own_verifier_that_raises_loses_only_what_it_cannot_judge(source, line):
  own = source_module.OwnVerifier(source, judge("solved", "bad"))
  assert own.verify([line] * 3, ["a", "bad", "b"]) == ["solved", "verifier_failed", "solved"]
  assert own.kind(line, "") == "missing"  # all else is the source's


@pytest.mark.parametrize("verifier", [lambda tasks, texts: ["right"] * len(texts), lambda tasks, texts: [], None])
def test_P32_an_own_verifier_without_verdicts_has_failed(source, line, verifier):
  assert source_module.OwnVerifier(source, verifier).verify([line] * 2, ["a", "b"]) == ["verifier_failed"] * 2
