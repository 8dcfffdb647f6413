"""Suites by name, fixed tasks, and what each evaluator plays."""

from __future__ import annotations

import dataclasses
import types

import pytest

from sml_jax.config import FEEDBACK
from sml_jax.dialogue.conversation import Rules
from sml_jax.dialogue.record import Dialogue
from sml_jax.errors import UserError
from sml_jax.evaluate.suites import EVALUATORS, Setting, Suite, evaluators_of, runs_of, success
from sml_jax.tasks.microworld import World
from sml_jax.tasks.microworld_source import MicroworldSource
from sml_jax.tasks.task import Task

SOURCE = MicroworldSource(World(), seed=5)


def setting(suite: str, **changes) -> Setting:
  parsed = Suite.parse(suite)
  tasks = parsed.tasks(SOURCE, "dev", 3, "on_question")
  return Setting(**{"tasks": tasks, "feedback": parsed.feedback, "turns": 10, "tries": 4} | changes)


@pytest.mark.parametrize("name, suite", [
    ("math", Suite("math", False, "full")),
    ("code_sharded", Suite("code", True, "full")),
    ("math_try_again", Suite("math", False, "try_again")),
    ("math_no_private", Suite("math", False, "no_private")),
    ("code_sharded_none", Suite("code", True, "none")),
    ("math_full", Suite("math", False, "full")),
    ("my_own_domain", Suite("my_own_domain", False, "full")),
])  # fmt: skip
def test_names(name, suite):
  assert Suite.parse(name) == suite


@pytest.mark.parametrize("feedback", FEEDBACK)
def test_every_feedback_arm_has_a_suite(feedback):
  assert Suite.parse(f"math_{feedback}") == Suite("math", False, feedback)
  assert Suite.parse(f"math_sharded_{feedback}") == Suite("math", True, feedback)


def test_tasks_are_the_first_of_their_part_whatever_the_run_seed():
  for name in ("math", "code_sharded"):
    suite = Suite.parse(name)
    tasks = suite.tasks(SOURCE, "test", 5, "every_turn")
    assert tasks == suite.tasks(MicroworldSource(World(), seed=6), "test", 5, "every_turn")
    assert tasks == suite.tasks(SOURCE, "test", 9, "every_turn")[:5]
    assert len({t.id for t in tasks}) == 5 and all(t.reveal == ("every_turn" if suite.sharded else "") for t in tasks)
  assert Suite.parse("math").tasks(SOURCE, "dev", 5, "") == Suite.parse("math_try_again").tasks(SOURCE, "dev", 5, "")


def test_too_few_tasks_is_one_line():
  source = types.SimpleNamespace(size=lambda domain, part: 7, task=lambda *a: None)
  assert len(Suite.parse("math").tasks(source, "dev", 7, "")) == 7
  with pytest.raises(UserError, match="an evaluation wants 8 dev tasks of math, but there are 7"):
    Suite.parse("math").tasks(source, "dev", 8, "")


def test_sampled_and_greedy_play_each_task_once():
  for name, temperature, nll in (("sampled", 1.0, True), ("greedy", 0.0, False)):
    s = setting("math_try_again")
    tasks, samples, rules = EVALUATORS[name](s)
    assert tasks == s.tasks and samples == [0, 0, 0]
    assert rules == Rules(10, "try_again", temperature, answer_nll=nll)


def test_tries_are_independent_first_turns_in_the_order_of_the_tasks():
  """None of them is the dialogue's own first turn: that would pair the control with what it controls."""
  s = setting("math")
  tasks, samples, rules = EVALUATORS["tries"](s)
  assert [t.id for t in tasks] == [t.id for t in s.tasks for _ in range(4)]
  assert samples == [1, 2, 3, 4] * 3 and rules == Rules(1)


@pytest.mark.parametrize("name", ["math_sharded", "code_sharded"])
def test_full_states_all_shards_at_once_in_one_turn(name):
  s = setting(name)
  games = EVALUATORS["full"](s)
  for task, told in zip(s.tasks, games.tasks, strict=True):
    assert all(shard in told.text for shard in task.shards) and told.text.endswith(task.shards[0])
    assert told.shards == () and told.reveal == "" and told.turn_cap is None
    assert (told.id, told.answer, told.private) == (task.id, task.answer, task.private)
  assert games.rules == Rules(1) and len(games.tasks) == 3


def lic_setting(**changes) -> Setting:
  task = Task("lost_in_conversation/x", "lost_in_conversation", "how many?", "The answer is 3.", {"answer": "3"},
              ("how many?", "Ann has 1", "Bob has 2"), "every_turn", "number",
              "Ann has 1, Bob 2. How many?")  # fmt: skip
  return Setting([task], "full", 6, runs=3, **changes)


@pytest.mark.parametrize("mode, text, reveal, turns", [
    ("full", "Q: Ann has 1, Bob 2. How many?\nA:", "", 1),
    ("concat", "Q: - how many?\n- Ann has 1\n- Bob has 2\nA:", "", 1),
    ("sharded", "how many?", "every_turn", 6),
    ("recap", "how many?", "recap", 6),
    ("snowball", "how many?", "snowball", 6),
])  # fmt: skip
def test_ways_to_tell_a_task(mode, text, reveal, turns):
  tasks, samples, rules = EVALUATORS[f"mode_{mode}"](lic_setting())
  assert {(t.text, t.reveal, bool(t.shards)) for t in tasks} == {(text, reveal, bool(reveal))}
  assert rules == Rules(turns) and len(tasks) == len(set(samples)) == 3
  others = {n for name, make in EVALUATORS.items() for n in make(lic_setting()).samples if name != f"mode_{mode}"}
  assert others.isdisjoint(samples)  # no mode begins with another's random numbers


def test_shuffled_runs_keep_the_first_shard_but_in_the_reference():
  told = [t.text for t in EVALUATORS["mode_shuffle_concat"](lic_setting()).tasks]
  assert all(t.startswith("Q: - how many?") for t in told)
  many = [t.text for t in EVALUATORS["mode_shuffle_concat"](dataclasses.replace(lic_setting(), runs=40)).tasks]
  assert len(set(many)) == 2
  own = dataclasses.replace(lic_setting(compat="reference"), runs=200)
  assert len({t.text for t in EVALUATORS["mode_shuffle_concat"](own).tasks}) == 6


def test_runs_of_a_task_lie_side_by_side():
  assert runs_of(list(range(6)), 2) == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("name, greedy, tries, evaluators", [
    ("math", True, 16, ["sampled", "greedy", "tries"]),
    ("math", False, 0, ["sampled"]),
    ("math_try_again", True, 16, ["sampled", "greedy"]),  # the control is that of the suite under the full teacher
    ("code_sharded", True, 16, ["sampled", "greedy", "full"]),
])  # fmt: skip
def test_evaluators_of_a_suite(name, greedy, tries, evaluators):
  assert evaluators_of(Suite.parse(name), types.SimpleNamespace(greedy=greedy, tries=tries, modes=())) == evaluators
  assert set(evaluators) <= set(EVALUATORS)


def test_P32_success_leaves_out_invalid_dialogues():
  ends = ["solved", "turn_limit", "verifier_failed", "malformed", "context_full", "teacher_failed"]
  assert success([Dialogue("t", "math", 0, "full", end=e) for e in ends]) == 0.25
  assert success([]) != success([])  # NaN: there is nothing to say
