"""What is done about replies that give the answer away."""

from __future__ import annotations

import pytest

from sml_jax.dialogue.firewall import REDACTED, Firewall
from sml_jax.dialogue.record import Dialogue, Turn
from sml_jax.dialogue.teacher import Reply
from sml_jax.evaluate.metrics import dialogue_metrics, leak_counts, leak_rate
from sml_jax.tasks.leaks import Guarded
from sml_jax.tasks.source import Source
from sml_jax.tasks.task import Task

TASK = Task("t", "gsm8k", "Ann has 3 boxes of 14 pens. How many pens?", "The answer is 42.", {"answer": "42"})
CLEAN, LEAK = "Look at the boxes again.", "Look again: the answer is 42."


class Guarding(Source):
  guarded = staticmethod(lambda task: Guarded(task.text, task.private["answer"]))


class Says:
  """A teacher with a list of replies; `again` chooses."""

  def __init__(self, *replies, varies=True):
    self.replies, self.varies, self.asked = replies, varies, []

  def reply(self, tasks, dialogues, again=0):
    self.asked.append((len(tasks), again))
    return [self.replies[min(again, len(self.replies) - 1)]] * len(tasks)


def talk(text="It is 40.") -> Dialogue:
  return Dialogue("t", "gsm8k", 0, "full", [Turn("teacher", TASK.text), Turn("student", text)])


def heard(policy, *replies, resamples=2, **how) -> tuple[Reply | None, list]:
  teacher = Says(*replies, **how)
  (reply,) = Firewall(teacher, Guarding(), policy, resamples).reply([TASK], [talk()])
  return reply, teacher.asked


@pytest.mark.parametrize("policy", ["mark", "redact", "resample", "drop"])
def test_a_clean_reply_goes_through(policy):
  assert heard(policy, CLEAN) == (Reply(CLEAN), [(1, 0)])
  assert heard(policy, None)[0] is None


def test_mark_shows_it_and_says_so():
  reply, asked = heard("mark", LEAK)
  assert reply.text == LEAK and reply.leak and not reply.stopped and asked == [(1, 0)]


def test_redact_cuts_it_out():
  reply, _ = heard("redact", LEAK)
  assert "42" not in reply.text and REDACTED in reply.text and reply.text.startswith("Look again")
  assert not reply.leak and reply.stopped == 1


def test_resample_asks_again_and_at_last_drops():
  assert heard("resample", LEAK, CLEAN) == (Reply(CLEAN, stopped=1), [(1, 0), (1, 1)])
  assert heard("resample", LEAK, LEAK, CLEAN) == (Reply(CLEAN, stopped=2), [(1, 0), (1, 1), (1, 2)])
  assert heard("resample", LEAK) == (Reply("", stopped=3, dropped=True), [(1, 0), (1, 1), (1, 2)])
  assert heard("resample", LEAK, None)[0] is None  # the teacher failed when asked again
  # A scripted teacher would say the same again.
  assert heard("resample", LEAK, CLEAN, varies=False) == (Reply("", stopped=1, dropped=True), [(1, 0)])


def test_only_those_that_leak_are_asked_again():
  class Mixed(Says):
    def reply(self, tasks, dialogues, again=0):
      self.asked.append((len(tasks), again))
      return [CLEAN if again or i else LEAK for i in range(len(tasks))]

  teacher = Mixed()
  replies = Firewall(teacher, Guarding(), "resample").reply([TASK] * 3, [talk()] * 3)
  assert replies == [Reply(CLEAN, stopped=1), Reply(CLEAN), Reply(CLEAN)] and teacher.asked == [(3, 0), (1, 1)]


def test_drop():
  assert heard("drop", LEAK)[0] == Reply("", stopped=1, dropped=True)


def test_what_the_student_said_and_a_shard_are_no_leaks():
  (reply,) = Firewall(Says("42 is too high."), Guarding(), "mark").reply([TASK], [talk("Is it 42 or 40?")])
  assert not reply.leak
  (reply,) = Firewall(Says(Reply("There are 42 of them.", shard=2)), Guarding(), "drop").reply([TASK], [talk()])
  assert reply == Reply("There are 42 of them.", shard=2)


def test_a_source_that_guards_nothing():
  class Open(Source):
    pass

  assert Firewall(Says(LEAK), Open(), "drop").reply([TASK], [talk()]) == [Reply(LEAK)]


def dialogue(end, *replies: Turn, task="t") -> Dialogue:
  turns = [Turn("teacher", "problem")]
  for reply in replies:
    turns += [Turn("student", "1", kind="answer_attempt", verdict="wrong"), reply]
  if end == "solved":
    turns.append(Turn("student", "42", kind="answer_attempt", verdict="solved"))
  return Dialogue(task, "gsm8k", 0, "full", turns, end)


def test_rates_by_hand():
  """Replies: 1 shown leak of 2; 2 stopped and 1 shown in one place (3 replies); 3 stopped and none shown (3)."""
  shown = dialogue("solved", Turn("teacher", "a", leak="stated"), Turn("teacher", "b"))
  again = dialogue("solved", Turn("teacher", "c", stopped=2), task="u")
  never = dialogue("teacher_failed", Turn("teacher", "", stopped=3), task="v")
  assert [leak_counts(d) for d in (shown, again, never)] == [(1, 2), (2, 3), (3, 3)]
  assert leak_rate([shown, again, never]) == 6 / 8 and leak_rate([]) == 0
  found = dialogue_metrics([shown, again, never], turns=3, draws=10)
  assert found["leak_rate"] == 0.75 and found["leaked_dialogues"] == 1
  assert found["success_by_turn"] == [0, 0.5, 1]  # of two valid ones
  assert found["success_leaked_failed_by_turn"] == [0, 0.5, 0.5]
