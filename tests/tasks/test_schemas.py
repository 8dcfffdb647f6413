r"""Rows of maths, code reading and underspecified tasks: what each makes, and which are refused."""

from __future__ import annotations

import gzip
import json

import pytest

from sml_jax.tasks.jsonl import DataError
from sml_jax.tasks.lost_in_conversation import SYSTEM_PROMPTS
from sml_jax.tasks.schemas import ASK_BOX, ASK_VALUE, SCHEMAS

GSM8K = {"question": "Ann has 3 pens and buys 4. How many?", "answer": "3+4 = <<3+4=7>>7 pens.\n#### 7"}
OMNI = {"problem": "Area of the unit disc?", "answer": "$\\boxed{\\pi}$", "solution": "Known."}
CRUX = {"code": "def f(x):\n    return (x, 'a')", "input": "[1]", "output": "([1], 'a')", "id": "sample_9"}
SHARDS = [{"shard_id": 1, "shard": "how many pens?"}, {"shard_id": 2, "shard": "Ann has 3"}]
LIC = {"task_id": "sharded-GSM8K/7", "task": "math", "shards": SHARDS, **GSM8K}
PROMPT = 'def add(a, b):\n    """Add.\n    >>> add(1, 2)\n    3\n    """\n'
LIC_CODE = {"task_id": "sharded-HumanEval/7", "task": "code", "shards": SHARDS, "prompt": PROMPT,
            "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
            "metadata": {"func_name": "add"}}  # fmt: skip


def make(name, row):
  return SCHEMAS[name].make("a.jsonl", 3, row)


def test_gsm8k_in_both_published_forms():
  for row in (GSM8K, {**GSM8K, "solution": GSM8K["answer"], "answer": "7"}):
    task = make("gsm8k", row)
    assert (task.text, task.answer) == (GSM8K["question"], "The answer is 7.")
    assert (task.form, task.domain) == ("number", "gsm8k")
    assert task.private["answer"] == "7" and task.id.startswith("gsm8k/") and len(task.id) == 22
  other = make("gsm8k", {**GSM8K, "question": "ann has 3 pens  and buys 4 - how many"})
  assert other.id == task.id  # a copy
  assert make("gsm8k", {"question": "Price?", "answer": "#### 1,080"}).private["answer"] == "1,080"


@pytest.mark.parametrize("row, id_, answer", [
    ({"ID": "chal-9", "Body": "A pack costs 76 dollars.", "Question": "How much?", "Answer": 51.0, "Type": "x"},
     "svamp/chal-9", "51"),
    ({"ID": "chal-9", "Body": "A", "Question": "B?", "Answer": 0.5}, "svamp/chal-9", "0.5"),
    ({"ID": "chal-9", "Body": "A", "Question": "B?", "Answer": 1234567}, "svamp/chal-9", "1234567"),
    ({"id": "svamp/chal-1", "question": "A pack costs 76 dollars. How much?", "answer": "51"}, "svamp/chal-1", "51"),
])  # fmt: skip
def test_svamp_as_published_and_joined(row, id_, answer):
  task = make("svamp", row)
  assert (task.id, task.private, task.form) == (id_, {"answer": answer}, "number")
  assert task.answer == f"The answer is {answer}."


def test_omni_math():
  task = make("omni_math", OMNI)
  assert task.text == f"{OMNI['problem']}\n\n{ASK_BOX}" and task.answer == "The answer is \\boxed{\\pi}."
  assert (task.private["answer"], task.form, task.domain) == ("\\pi", "latex", "omni_math")
  signs = [make("omni_math", {"problem": f"If $x=1$, what is $x{s}2$?", "answer": "1"}).id for s in "+-"]
  assert len(set(signs)) == 2  # all characters count but space
  assert make("omni_math", {**OMNI, "problem": " Area of  the unit disc? "}).id == task.id


def test_cruxeval():
  task = make("cruxeval", CRUX)
  assert task.text.startswith("```python\ndef f(x):") and task.text.endswith(f"What does f([1]) return? {ASK_VALUE}")
  assert (task.answer, task.form, task.id) == ("Answer: ([1], 'a')", "value", "cruxeval/sample_9")


def test_lost_in_conversation():
  task = make("lost_in_conversation", LIC)
  assert (task.text, task.shards, task.whole) == ("how many pens?", ("how many pens?", "Ann has 3"), GSM8K["question"])
  assert (task.id, task.reveal, task.form) == ("lost_in_conversation/sharded-GSM8K/7", "every_turn", "number")
  assert task.system == SYSTEM_PROMPTS["math"] and task.answer == "The answer is 7." and task.turn_cap == 10
  code = make("lost_in_conversation", LIC_CODE)
  assert (code.form, code.private["entry_point"], code.whole) == ("code", "add", PROMPT)
  assert code.private["public"]["asserts"] == ["assert add(1, 2) == 3"]
  assert "candidate(1, 2)" in code.private["hidden"]["test"] and code.system == SYSTEM_PROMPTS["code"]
  # The function may have another name in the prompt than in the talk.
  other = make("lost_in_conversation", {**LIC_CODE, "metadata": {"func_name": "plus"}})
  assert other.private["entry_point"] == "add"
  for task_name in ("database", "actions", "summary"):
    assert make("lost_in_conversation", {**LIC, "task": task_name}) is None


@pytest.mark.parametrize("name, change, message", [
    ("gsm8k", {"answer": "7"}, "a.jsonl:3: field 'answer': expected text that ends in \"#### \" and a number"),
    ("gsm8k", {"answer": "#### seven"}, "field 'answer'"),
    ("gsm8k", {"solution": "so 7"}, "field 'solution'"),
    ("gsm8k", {"solution": None}, "field 'solution'"),
    ("svamp", {"question": "", "answer": "5"}, "field 'question': expected some text, got ''"),
    ("svamp", {"answer": "five"}, "field 'answer': expected a number, got 'five'"),
    ("svamp", {"ID": "x", "Body": "b", "Question": "q", "Answer": True}, "field 'Answer': expected a number, got True"),
    ("omni_math", {"answer": " "}, "field 'answer': expected some text, got ' '"),
    ("omni_math", {"problem": ""}, "field 'problem': expected some text"),
    ("omni_math", {"answer": "\\frac{1}{2^{15}"}, "field 'answer': expected an answer that can be compared (the"),
    ("cruxeval", {"output": "f(1)"}, "field 'output': expected a Python literal, got 'f(1)'"),
    ("cruxeval", {"output": "["}, "field 'output'"),
    ("lost_in_conversation", {"shards": SHARDS[:1]}, "field 'shards': expected at least 2 shards"),
    ("lost_in_conversation", {"shards": SHARDS[::-1]}, "field 'shards[0].shard_id': expected 1, got 2"),
    ("lost_in_conversation", {"answer": "seven"}, "field 'answer'"),
])  # fmt: skip
def test_a_row_that_cannot_be_used_is_named(name, change, message):
  base = {"gsm8k": GSM8K, "omni_math": OMNI, "cruxeval": CRUX, "lost_in_conversation": LIC}
  with pytest.raises(DataError) as e:
    make(name, {**base.get(name, {"id": "a", "question": "q?", "answer": "1"}), **change})
  assert "a.jsonl:3: " in str(e.value) and message in str(e.value) and "\n" not in str(e.value)


def rows_file(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows)
  path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
  return path
