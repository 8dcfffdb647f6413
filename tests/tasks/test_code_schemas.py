"""Rows of programs: public and hidden tests, what is refused, and that no pickle is ever run."""

from __future__ import annotations

import base64
import json
import pickle
import zlib

import pytest

from sml_jax.tasks.code_schemas import ASK_CODE, ASK_PROGRAM, STDIN, called_function, docstring_asserts, stripped
from sml_jax.tasks.jsonl import DataError
from sml_jax.tasks.schemas import SCHEMAS

PROMPT = 'def add(a, b):\n    """Add.\n    >>> add(1, 2)\n    3\n    >>> add(1, 0.5)  # a remark\n    1.5\n    """\n'
CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n"
HUMANEVAL = {"task_id": "HumanEval/7", "prompt": PROMPT, "entry_point": "add",
             "canonical_solution": "    return a + b\n", "test": CHECK}  # fmt: skip
MBPP = {"task_id": 11, "text": "Write a function to add.", "code": "def add(a,b):\r\n  return a+b",
        "test_list": ["assert add(1,2)==3", "assert add(0,0)==0"], "test_setup_code": "", "challenge_test_list":
        ["assert add(-1,1)==0"], "sanitized": None}  # fmt: skip
CHECKED = {"prompt": "Write a function that adds.", "code": "import math\ndef add(a, b):\n  return a + b",
           "test_imports": ["import math"], "test_list": ["assert math.isclose(add(1, 2), 3)"]}  # fmt: skip
OCI = {"id": "abc", "input": "Add two numbers.", "output": "```python\ndef add(a, b):\n    return a + b\n```",
       "unit_tests": json.dumps(["\nassert add(1, 2) == 3\n", "assert add(0, 0) == 0"]), "average_test_score": "1.0",
       "tests_execution_status": "[]", "domain": "generic"}  # fmt: skip
FUNCTIONAL = [{"input": "[1, 2]\n3", "output": "[3]", "testtype": "functional"}]
STDINS = [{"input": "1 2\n", "output": "3 \n\n", "testtype": "stdin"}]
LCB = {"question_title": "t", "question_content": "Add.", "platform": "leetcode", "question_id": "123",
       "contest_id": "c", "contest_date": "2024-01-01", "starter_code": "class Solution:\n    def add(self, a, b):",
       "difficulty": "easy",
       "public_test_cases": json.dumps(FUNCTIONAL), "private_test_cases": json.dumps(FUNCTIONAL),
       "metadata": json.dumps({"func_name": "add"})}  # fmt: skip


def make(name, row):
  return SCHEMAS[name].make("a.jsonl", 3, row)


def packed(value) -> str:
  return base64.b64encode(zlib.compress(value)).decode()


def test_humaneval():
  task = make("humaneval", HUMANEVAL)
  assert task.text == f"Complete this function.\n\n```python\n{PROMPT.strip()}\n```\n\n{ASK_CODE}"
  assert task.answer == f"```python\n{PROMPT}    return a + b\n```" and task.id == "humaneval/7" and task.form == "code"
  assert task.private["public"]["asserts"] == ["assert add(1, 2) == 3", "assert add(1, 0.5) == 1.5"]
  assert task.private["hidden"]["test"] == CHECK
  bare = make("humaneval", {**HUMANEVAL, "prompt": 'def add(a, b):\n    """Add."""\n'})
  assert bare.private["public"]["test"] == CHECK and not bare.private["hidden"]["test"]


@pytest.mark.parametrize("text, asserts", [
    (PROMPT, ["assert add(1, 2) == 3", "assert add(1, 0.5) == 1.5"]),
    ('def add(a):\n  """\n  >>> add(x)\n  Add(1)\n  >>> other(1)\n  1\n  >>> add(2)\n  """\n', []),
    ('def add(a):\n  """\n  >>> add("a")\n  \'ab\'\n  >>> add(1) + 1\n  2\n  """\n', ["assert add('a') == 'ab'"]),
    ('def add(a):\n  """\n  >>>add(1)\n  1\n  """\n', []),  # no example as doctest knows them
    ('def g(a):\n  """\n  >>> add(1)\n  1\n  """\n', []),  # of another function
    ("def add(a", []),
])  # fmt: skip
def test_examples_of_a_docstring(text, asserts):
  assert docstring_asserts(text, "add") == asserts


def test_mbpp():
  task = make("mbpp", MBPP)
  assert task.text.startswith("Write a function to add.\nYour function should pass this test:\n\nassert add(1,2)==3")
  assert (task.id, task.private["entry_point"]) == ("mbpp/11", "add") and "\r" not in task.private["solution"]
  assert task.private["public"]["asserts"] == MBPP["test_list"][:1]
  assert task.private["hidden"]["asserts"] == [*MBPP["test_list"], "assert add(-1,1)==0"]
  checked = make("mbpp", {**MBPP, "sanitized": CHECKED})
  assert checked.private["setup"] == "import math" and checked.private["hidden"]["asserts"] == CHECKED["test_list"]
  assert checked.text.startswith("Write a function that adds.") and checked.private["entry_point"] == "add"
  own = make("mbpp", {"task_id": 11, "source_file": "x", **CHECKED})  # the rows of sanitized-mbpp.json
  assert own.private == checked.private


@pytest.mark.parametrize("test, code, name", [
    ("assert f(g(1)) == 2", "def f(x): return x\ndef g(x): return x", "f"),
    ("assert set(f(1)) == {2}", "def f(x): return x", "f"),
    ("assert abs(f(1) - 2) < 1", "def f(x): return x", "f"),
    ("assert h(1)", "def f(x): return x", None),
    ("assert f(1)", "def f(x: return x", None),
])  # fmt: skip
def test_which_function_is_called(test, code, name):
  assert called_function([test], code) == name


def test_opencodeinstruct():
  task = make("opencodeinstruct", OCI)
  assert task.private["public"]["asserts"] == ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]
  assert not task.private["hidden"]["asserts"] and task.private["entry_point"] == "add"
  assert task.text == f"Add two numbers.\n\n{ASK_CODE}" and "def add(a, b):" in task.answer
  assert make("opencodeinstruct", {**OCI, "average_test_score": "0.9"}) is None  # its own tests failed
  python = {**OCI, "unit_tests": "['assert add(1, 2) == 3']"}  # written as Python and not as JSON
  assert make("opencodeinstruct", python).private["public"]["asserts"] == ["assert add(1, 2) == 3"]


def test_livecodebench_functional():
  task = make("livecodebench", LCB)
  assert task.private["public"]["io_tests"] == [{"args": [[1, 2], 3], "expected": [3]}]
  assert len(task.private["hidden"]["io_tests"]) == 2 and task.private["entry_point"] == "add"
  assert task.text.endswith(ASK_CODE) and "class Solution" in task.text and task.id == "livecodebench/123"


def test_livecodebench_stdin():
  row = {**LCB, "public_test_cases": json.dumps(STDINS), "private_test_cases": "[]", "metadata": "{}"}
  row["starter_code"] = ""
  task = make("livecodebench", row)
  assert task.private["entry_point"] == STDIN and task.text.endswith(ASK_PROGRAM)
  assert task.private["public"]["io_tests"] == [{"args": ["1 2\n"], "expected": "3"}]
  assert not task.private["hidden"]["io_tests"]
  assert stripped(" a \n b\n\n") == "a\n b"


def test_private_tests_are_read_out_of_a_pickle_that_is_never_run():
  """As published: base64 of zlib of a pickle of a JSON string."""
  for protocol in range(2, 6):
    text = packed(pickle.dumps(json.dumps(FUNCTIONAL), protocol=protocol))
    assert len(make("livecodebench", {**LCB, "private_test_cases": text}).private["hidden"]["io_tests"]) == 2
  plain = packed(json.dumps(FUNCTIONAL).encode())
  assert len(make("livecodebench", {**LCB, "private_test_cases": plain}).private["hidden"]["io_tests"]) == 2


class Bomb:
  def __reduce__(self):
    return exec, ("raise SystemExit('it ran')",)


@pytest.mark.parametrize("value", [
    pickle.dumps(Bomb()), pickle.dumps([Bomb(), json.dumps(FUNCTIONAL)]), pickle.dumps([json.dumps(FUNCTIONAL)]),
    pickle.dumps(("a", "b")), pickle.dumps("x")[:-2], b"\x80",
])  # fmt: skip
def test_any_other_pickle_is_refused(value):
  with pytest.raises(DataError, match=r"a\.jsonl:3: field 'private_test_cases'"):
    make("livecodebench", {**LCB, "private_test_cases": packed(value)})


def test_a_bomb_of_zeros_is_refused(monkeypatch):
  monkeypatch.setattr("sml_jax.tasks.code_schemas.LARGEST_TESTS", 1000)
  with pytest.raises(DataError, match="more than 1000 bytes"):
    make("livecodebench", {**LCB, "private_test_cases": packed(b" " * 5000)})


@pytest.mark.parametrize("name, change, message", [
    ("humaneval", {"prompt": "def add(a, b:\n"}, "field 'prompt': expected Python (SyntaxError)"),
    ("humaneval", {"test": "def check("}, "field 'test': expected Python"),
    ("humaneval", {"entry_point": "plus"}, "field 'entry_point': expected a function that the prompt begins, got"),
    ("mbpp", {"text": ""}, "field 'text': expected str"),
    ("mbpp", {"test_list": []}, "field 'test_list': expected list, got []"),
    ("mbpp", {"test_list": ["assert add("]}, "field 'test_list': expected Python"),
    ("mbpp", {"test_list": ["assert plus(1)"]}, "field 'test_list': expected tests that call a function of the code"),
    ("opencodeinstruct", {"average_test_score": "good"}, "field 'average_test_score': expected a number"),
    ("opencodeinstruct", {"unit_tests": "[1]"}, "field 'unit_tests': expected a list of tests"),
    ("opencodeinstruct", {"unit_tests": "["}, "field 'unit_tests'"),
    ("opencodeinstruct", {"output": "no code"}, "field 'output': expected code with the function that the tests call"),
    ("livecodebench", {"public_test_cases": "[]"}, "field 'public_test_cases': expected at least one test"),
    ("livecodebench", {"public_test_cases": "{"}, "field 'public_test_cases'"),
    ("livecodebench", {"public_test_cases": '[{"input": "1"}]'}, "a list of objects with input and output"),
    ("livecodebench", {"private_test_cases": "!!"}, "field 'private_test_cases': expected JSON, or base64 of zlib"),
    ("livecodebench", {"metadata": "{}"}, "field 'metadata': expected func_name and tests of one type"),
    ("livecodebench", {"private_test_cases": json.dumps(STDINS)}, "tests of one type, stdin or functional"),
    ("livecodebench", {"public_test_cases": json.dumps([{**FUNCTIONAL[0], "output": "x"}])}, "expected JSON, one"),
])  # fmt: skip
def test_a_row_that_cannot_be_used_is_named(name, change, message):
  base = {"humaneval": HUMANEVAL, "mbpp": MBPP, "opencodeinstruct": OCI, "livecodebench": LCB}[name]
  with pytest.raises(DataError) as e:
    make(name, {**base, **change})
  assert "a.jsonl:3" in str(e.value) and message in str(e.value) and "\n" not in str(e.value)
