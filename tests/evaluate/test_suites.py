"""Suites by name, fixed tasks, and what each evaluator plays."""

from __future__ import annotations

import types

import jax
import pytest

from sml_jax.config import FEEDBACK
from sml_jax.dialogue.record import Dialogue
from sml_jax.errors import UserError
from sml_jax.evaluate.suites import EVALUATORS, Setting, Suite, evaluators_of, success
from sml_jax.tasks.microworld import World
from sml_jax.tasks.microworld_source import MicroworldSource

SOURCE = MicroworldSource(World(), seed=5)


class FakeTable:
  """Remembers what it was asked to play."""

  def play(self, params, tasks, samples, rules, key):
    self.params, self.tasks, self.samples, self.rules, self.key = params, tasks, samples, rules, key
    return [Dialogue(t.id, t.domain, s, rules.feedback) for t, s in zip(tasks, samples, strict=True)]


def setting(suite: str, **changes) -> Setting:
  parsed = Suite.parse(suite)
  tasks = parsed.tasks(SOURCE, "dev", 3, "on_question")
  return Setting(**{
      "table": FakeTable(), "tasks": tasks, "feedback": parsed.feedback, "turns": 10, "tries": 4,
      "key": jax.random.key(0),
  } | changes)  # fmt: skip


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
  source = types.SimpleNamespace(size=lambda part: 7, task=lambda *a: None)
  assert len(Suite.parse("math").tasks(source, "dev", 7, "")) == 7
  with pytest.raises(UserError, match="an evaluation wants 8 dev tasks, but there are 7"):
    Suite.parse("math").tasks(source, "dev", 8, "")


def test_sampled_and_greedy_play_each_task_once():
  for name, temperature, nll in (("sampled", 1.0, True), ("greedy", 0.0, False)):
    s = setting("math_try_again")
    dialogues = EVALUATORS[name](s, "params")
    table, rules = s.table, s.table.rules
    assert [d.task_id for d in dialogues] == [t.id for t in s.tasks] and table.samples == [0, 0, 0]
    assert (rules.turns, rules.feedback, rules.temperature, rules.answer_nll) == (10, "try_again", temperature, nll)
    assert rules.q_priming == 0 and table.params == "params" and table.key is s.key


def test_tries_are_independent_first_turns_in_the_order_of_the_tasks():
  """None of them is the dialogue's own first turn: that would pair the control with what it controls."""
  s = setting("math")
  dialogues = EVALUATORS["tries"](s, None)
  assert [d.task_id for d in dialogues] == [t.id for t in s.tasks for _ in range(4)]
  assert s.table.samples == [1, 2, 3, 4] * 3
  assert s.table.rules.turns == 1 and s.table.rules.temperature == 1.0


@pytest.mark.parametrize("name", ["math_sharded", "code_sharded"])
def test_full_states_all_shards_at_once_in_one_turn(name):
  s = setting(name)
  dialogues = EVALUATORS["full"](s, None)
  for task, told in zip(s.tasks, s.table.tasks, strict=True):
    assert all(shard in told.text for shard in task.shards) and told.text.endswith(task.shards[0])
    assert told.shards == () and told.reveal == "" and told.turn_cap is None
    assert (told.id, told.answer, told.private) == (task.id, task.answer, task.private)
  assert s.table.rules.turns == 1 and len(dialogues) == 3


@pytest.mark.parametrize("name, greedy, tries, evaluators", [
    ("math", True, 16, ["sampled", "greedy", "tries"]),
    ("math", False, 0, ["sampled"]),
    ("math_try_again", True, 16, ["sampled", "greedy"]),  # the control is that of the suite under the full teacher
    ("code_sharded", True, 16, ["sampled", "greedy", "full"]),
])  # fmt: skip
def test_evaluators_of_a_suite(name, greedy, tries, evaluators):
  assert evaluators_of(Suite.parse(name), types.SimpleNamespace(greedy=greedy, tries=tries)) == evaluators
  assert set(evaluators) <= set(EVALUATORS)


def test_P32_success_leaves_out_invalid_dialogues():
  ends = ["solved", "turn_limit", "verifier_failed", "malformed", "context_full", "teacher_failed"]
  assert success([Dialogue("t", "math", 0, "full", end=e) for e in ends]) == 0.25
  assert success([]) != success([])  # NaN: there is nothing to say
