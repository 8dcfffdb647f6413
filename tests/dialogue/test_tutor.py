"""What a model teacher, a lazy user, a questioner and a judge are asked, and what is made of their words."""

from __future__ import annotations

import pytest

from sml_jax.dialogue.record import Dialogue, Turn
from sml_jax.dialogue.teacher import TRY_AGAIN, Reply
from sml_jax.dialogue.tutor import KindJudge, Prompts, Questioner, Tutor, told
from sml_jax.errors import UserError
from sml_jax.tasks.source import Source
from sml_jax.tasks.task import Task

PROMPTS = Prompts.load()
TASK = Task("t", "gsm8k", "What is 40 + 2?", "The answer is 42.", {"answer": "SECRET"}, form="number")
CODE = Task("c", "mbpp", "Write f.", "", {"public": {}, "solution": "SECRET"}, form="code")
SHARDS = ("how many?", "Ann has 3", "Bob has 4")
SHARDED = Task("s", "lost_in_conversation", "how many?", "7", {"answer": "SECRET"}, SHARDS, "every_turn", "number",
               "Ann has 3, Bob has 4. How many?", system="Be brief.")  # fmt: skip


class Fake(Source):
  """Its scripted teacher says one sentence."""

  teacher = staticmethod(lambda feedback: Fake)
  reply = staticmethod(lambda tasks, dialogues: [TRY_AGAIN] * len(tasks))
  kind = staticmethod(lambda task, text: "discussion")

  def knowledge(self, task, dialogue):
    return {"result": "1 of 3 tests passed"} if task.form == "code" else task.private


class Writer:
  """Says what it is told to, and keeps what it was asked."""

  words = 30

  def __init__(self, *said):
    self.said, self.notes = said, []

  def write(self, notes):
    self.notes += notes
    return [self.said[(len(self.notes) - len(notes) + i) % len(self.said)] for i in range(len(notes))]


def talk(task, *texts, kind="answer_attempt", sample=0) -> Dialogue:
  turns = [Turn("teacher" if i % 2 == 0 else "student", text) for i, text in enumerate((task.text, *texts))]
  turns[-1].kind = kind
  return Dialogue(task.id, task.domain, sample, "full", turns)


def tutor(writer, feedback="full") -> Tutor:
  return Tutor(feedback, Fake(), writer, PROMPTS, str.strip)


def test_the_transcript_has_the_roles_turned_round_and_the_private_block_first():
  writer = Writer("Hm. <feedback> Check the units. </feedback>")
  assert tutor(writer).reply([TASK], [talk(TASK, "41", "No.", "43", sample=3)]) == ["Check the units."]
  (note,) = writer.notes
  assert (note.task, note.sample, note.turn, note.again) == ("t", 3, 2, 0)
  (role, system), *rest = note.messages
  assert role == "system" and "SECRET" in system and TASK.text in system and "30 words" in system
  assert rest == [("user", "41"), ("assistant", "No."), ("user", "43")]


@pytest.mark.parametrize("feedback, knows", [("full", True), ("no_private", False), ("shuffled", True)])
def test_who_knows(feedback, knows):
  writer = Writer("a word")
  tutor(writer, feedback).reply([TASK], [talk(TASK, "41")])
  assert ("SECRET" in str(writer.notes)) == knows


def test_of_a_program_it_knows_what_the_tests_said_and_no_solution():
  writer = Writer("a word")
  tutor(writer).reply([CODE], [talk(CODE, "def f(): pass")])
  assert "1 of 3 tests passed" in str(writer.notes) and "SECRET" not in str(writer.notes)
  assert told({}) == "nothing yet" and told({"a": "b", "c": [1]}) == "a: b\nc: [1]"


@pytest.mark.parametrize("feedback", ["binary", "try_again", "none"])
def test_other_arms_are_the_sources_words(feedback):
  writer = Writer("never asked")
  assert tutor(writer, feedback).reply([TASK] * 2, [talk(TASK, "41")] * 2) == [TRY_AGAIN] * 2 and not writer.notes


@pytest.mark.parametrize("said", [None, "", "<think>no end", "<feedback>no end", "<think>a</think>  "])
def test_nothing_to_show_is_a_failed_teacher(said):
  assert tutor(Writer(said)).reply([TASK], [talk(TASK, "41")]) == [None]


def test_a_lazy_user_tells_one_shard():
  writer = Writer('{"response": "oh, bob has four", "shard_id": 3}')
  (reply,) = tutor(writer, "try_again").reply([SHARDED], [talk(SHARDED, "Who else?")])
  assert reply == Reply("oh, bob has four", shard=3)
  system = writer.notes[0].messages[0][1]
  assert "2: Ann has 3\n3: Bob has 4" in system and "1: how many?" in system and "SECRET" not in system


def test_a_lazy_user_may_tell_none_and_may_fail():
  (reply,) = tutor(Writer('{"response": "dunno", "shard_id": -1}')).reply([SHARDED], [talk(SHARDED, "Weather?")])
  assert reply == Reply("dunno")
  for bad in ("dunno", '{"response": "x", "shard_id": 1}', '{"response": "", "shard_id": 2}', None):
    assert tutor(Writer(bad)).reply([SHARDED], [talk(SHARDED, "?")]) == [None]


def test_when_all_is_told_it_is_a_teacher():
  writer = Writer("Look again.")
  dialogue = talk(SHARDED, "?", "Ann has 3", "?", "Bob has 4", "8")
  assert tutor(writer).reply([SHARDED], [dialogue]) == ["Look again."]
  assert SHARDED.whole in writer.notes[0].messages[0][1]


def test_on_question_a_shard_is_told_to_a_question_alone():
  task = Task(**{**vars(SHARDED), "reveal": "on_question"})
  user = '{"response": "ann has three", "shard_id": 2}'
  assert tutor(Writer(user)).reply([task], [talk(task, "Ann?", kind="clarification")]) == [Reply("ann has three", 2)]
  assert tutor(Writer("Not yet.")).reply([task], [talk(task, "7")]) == ["Not yet."]


def test_snowball_repeats_what_was_said():
  task = Task(**{**vars(SHARDED), "reveal": "snowball"})
  (reply,) = tutor(Writer('{"response": "ann has three", "shard_id": 2}')).reply([task], [talk(task, "?")])
  assert reply.shard == 2 and "how many?" in reply.text and reply.text.endswith("ann has three")


def test_the_questioner_is_the_student_with_its_attempt_and_the_private_knowledge():
  writer = Writer("<question> Which unit? </question>", "Which unit?")
  asks = Questioner(Fake(), writer, PROMPTS, str.strip)
  assert asks.ask([TASK, TASK], [talk(TASK, "41", "No.", "43")] * 2) == ["Which unit?", None]  # without tags: none
  (role, system), *said, (last, ask) = writer.notes[0].messages
  assert (role, system, last) == ("system", "", "user") and "43" in ask and "SECRET" in ask
  assert said == [("user", TASK.text), ("assistant", "41"), ("user", "No."), ("assistant", "43")]


def test_the_judge_names_a_kind_or_the_rules_do():
  judge = KindJudge(Fake(), Writer('{"kind": "hedge"}', "I would say: question"), PROMPTS)
  assert judge.kinds([TASK, TASK], [talk(TASK, "5 or 6")] * 2) == ["hedge", "discussion"]


def test_own_prompt_files(tmp_path):
  (tmp_path / "mine.txt").write_text("Teach {problem} with {private} in {words}.")
  own = Prompts.load({"teacher": str(tmp_path / "mine.txt"), "user": ""})
  assert own.teacher.text.startswith("Teach") and own.user == PROMPTS.user and own.hashes != PROMPTS.hashes
  (tmp_path / "bad.txt").write_text("Teach {problem}.")
  with pytest.raises(UserError, match=r"bad\.txt"):
    Prompts.load({"teacher": str(tmp_path / "bad.txt")})
