"""Programs of real tasks, judged on public and hidden tests in the sandbox, and what the teacher is told of it."""

from __future__ import annotations

import json

import pytest

from sml_jax import config as c
from sml_jax.dialogue.record import Dialogue, Turn
from sml_jax.dialogue.teacher import USUAL_WORDS
from sml_jax.tasks import sandbox
from sml_jax.tasks.judge import Judge
from sml_jax.tasks.real_source import RealSource
from sml_jax.tasks.schemas import SCHEMAS
from sml_jax.tasks.task import Task

pytestmark = pytest.mark.skipif(
    all(sandbox.works(name) for name in sandbox.SAFE), reason="no isolation works here: no bwrap and no namespaces"
)

MBPP = SCHEMAS["mbpp"].make("a", 1, {
    "task_id": 1, "text": "Write a function to add.", "code": "def add(a, b):\n  return a + b", "test_list":
    ["assert add(1, 2) == 3", "assert add(5, 7) == 12"], "test_setup_code": "",
})  # fmt: skip
STDIN = SCHEMAS["livecodebench"].make("a", 1, {
    "question_id": "s", "question_content": "Print the sum of the numbers of a line.", "metadata": "{}",
    "public_test_cases": json.dumps([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]),
    "private_test_cases": json.dumps([{"input": "5 7 1\n", "output": "13", "testtype": "stdin"}]),
})  # fmt: skip
SHARDED = SCHEMAS["lost_in_conversation"].make("a", 1, {
    "task_id": "sharded-HumanEval/900", "task": "code", "shards": [{"shard_id": i + 1, "shard": s} for i, s in
                                                                  enumerate(("add things", "two of them"))],
    "prompt": 'def add(a, b):\n    """Add.\n    >>> add(1, 2)\n    3\n    """\n', "metadata": {"func_name": "add"},
    "test": "def check(candidate):\n    assert candidate(5, 7) == 12\n",
})  # fmt: skip
RIGHT, HALF = "```python\ndef add(a, b):\n  return a + b\n```", "```python\ndef add(a, b):\n  return 3\n```"
WRONG = "```python\ndef add(a, b):\n  return a - b\n```"
LOOP, RAISES = "```python\ndef add(a, b):\n  while True: pass\n```", "```python\ndef add(a, b):\n  return a + c\n```"


def judge_of(**tasks) -> Judge:
  config = c.get_default()
  config.tasks.update(tasks)
  config.executor.cpu_s = 1.0
  return Judge(config)


@pytest.fixture(scope="module")
def judge() -> Judge:
  return judge_of()


def test_hidden_tests_decide(judge):
  texts = [RIGHT, HALF, WRONG, LOOP, RAISES, "no code here", "```python\nx = 3\n```"]
  verdicts = judge.verdicts([MBPP] * len(texts), texts)
  assert verdicts == ["solved", "wrong", "wrong", "wrong", "wrong", "no_attempt", "no_attempt"]
  reasons = [judge.reason(MBPP, t) for t in texts]
  assert reasons == ["passed", "hidden_failed", "wrong", "timeout", "error", "no_code", "no_code"]


def test_success_on_public_tests_is_a_named_choice():
  public = judge_of(success_on="public")
  assert public.verdicts([MBPP] * 2, [HALF, WRONG]) == ["solved", "wrong"]


def test_what_the_teacher_is_told_is_of_the_public_tests_alone(judge):
  known = judge.test_results(MBPP, WRONG)
  assert known == {"result": "0 of 1 tests passed", "first failing case, input": "1, 2",
                   "first failing case, expected": "3", "first failing case, actual": "-1"}  # fmt: skip
  assert judge.test_results(MBPP, HALF) == {"result": "1 of 1 tests passed"}
  assert "12" not in json.dumps(judge.test_results(MBPP, RAISES))
  assert "too long" in judge.test_results(MBPP, LOOP)["result"]
  assert judge.test_results(MBPP, "hm") == {"result": "there was no program to run"}


def talk(task: Task, *texts: str) -> Dialogue:
  turns = [Turn("teacher" if i % 2 == 0 else "student", t) for i, t in enumerate((task.text, *texts))]
  return Dialogue(task.id, task.domain, 0, "full", turns)


def test_the_private_knowledge_is_empty_at_turn_1_and_the_scripted_teacher_keeps_the_expected_value(judge):
  source = RealSource({("mbpp", "train"): [MBPP]}, judge)
  assert source.knowledge(MBPP, talk(MBPP)) == {} and source.knowledge(MBPP, talk(MBPP, WRONG))["result"]
  (reply,) = source.teacher("full").reply([MBPP], [talk(MBPP, WRONG)])
  usual = next(u for u in USUAL_WORDS if reply.startswith(u))
  assert reply == f"{usual} 0 of 1 tests passed. Called with 1, 2, your function returns -1."
  (reply,) = source.teacher("full").reply([MBPP], [talk(MBPP, RAISES)])
  assert "fails: NameError" in reply and "3" not in reply
  (reply,) = source.teacher("full").reply([MBPP], [talk(MBPP, "hm")])
  assert reply == "Please write the whole function in one ```python block."
  guarded = source.guarded(MBPP)
  assert guarded.tests == ("assert add(1, 2) == 3", "assert add(1, 2) == 3", "assert add(5, 7) == 12")
  assert "return a + b" in guarded.solution


def test_programs_that_read_standard_input(judge):
  right = "```python\nprint(sum(map(int, input().split())))\n```"
  main = "```python\nimport sys\ndef main():\n  print(sum(map(int, sys.stdin.read().split())))\n  sys.exit(0)\n" \
         'if __name__ == "__main__":\n  main()\n```'  # fmt: skip
  half, wrong = "```python\nprint(3)\n```", "```python\nprint(input())\n```"
  assert judge.verdicts([STDIN] * 4, [right, main, half, wrong]) == ["solved", "solved", "wrong", "wrong"]
  assert judge.reason(STDIN, half) == "hidden_failed"


def test_the_function_of_an_underspecified_task_may_have_any_name(judge):
  named = "Here:\n```python\ndef add_two_things(x, y):\n  return x + y\n```"
  assert judge.verdicts([SHARDED] * 2, [named, WRONG]) == ["solved", "wrong"]


def test_an_executor_that_fails_is_nobodys_wrong_answer(monkeypatch):
  from sml_jax.tasks.program import Report

  monkeypatch.setattr("sml_jax.tasks.judge.grade", lambda box, asked: [Report("failed", 0, 1, 0.0)] * len(asked))
  broken = judge_of()
  assert broken.verdicts([MBPP], [RIGHT]) == ["verifier_failed"]
  monkeypatch.undo()
  assert broken.verdicts([MBPP], [RIGHT]) == ["solved"]  # a failure is not remembered
