import json
import pathlib

import pytest

from sml_jax.tasks import lost_in_conversation as lic
from sml_jax.tasks.jsonl import DataError, read_rows

DATA = pathlib.Path(__file__).parents[2] / "../shared/data/lost_in_conversation"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the data folder ../shared/data is not here")

MATH = {
    "task_id": "sharded-GSM8K/0", "task": "math", "question": "Ann has 3 pens and buys 4 at $2. How many has she?",
    "answer": "3+4 = <<3+4=7>>7\n#### 7",
    "shards": [{"shard_id": 1, "shard": "how many pens does Ann have?"}, {"shard_id": 2, "shard": "she had 3 pens"},
               {"shard_id": 3, "shard": "she buys 4 more"}, {"shard_id": 4, "shard": "a pen costs $2"}],
}  # fmt: skip
HUMANEVAL = {
    "task_id": "sharded-HumanEval/0", "task": "code", "test": "def check(candidate):\n    assert candidate(1) == 2\n",
    "prompt": "from typing import List\n\ndef inc(x: int) -> int:\n    '''One more.'''\n",
    "metadata": {"func_name": "inc"}, "public_test_cases": None,
    "shards": [{"shard_id": 1, "shard_text": "Increase a number"}, {"shard_id": 2, "shard_text": "by one"}],
}  # fmt: skip
LCB = {
    "task_id": "sharded-lcb/0", "task": "code", "question_content": "Given n, return n + 1.",
    "starter_code": "class Solution:\n    def inc(self, n: int) -> int:\n        ", "metadata": {"func_name": "inc"},
    "public_test_cases": json.dumps([{"input": "1", "output": "2", "testtype": "functional"}]),
    "shards": [{"shard_id": 1, "shard": "Write inc"}, {"shard_id": 2, "shard": "add one"}],
}  # fmt: skip


def read(row):
  return lic.read_instruction(row, "x.json", 3)


# Reading rows.


def test_reads_math_rows():
  got = read(MATH | {"known_issue": "no price"})
  assert (got.task_id, got.task, got.whole) == ("sharded-GSM8K/0", "math", MATH["question"])
  assert got.shards == ("how many pens does Ann have?", "she had 3 pens", "she buys 4 more", "a pen costs $2")
  assert got.known_issue == "no price" and read(MATH | {"known_issue": None}).known_issue is None
  assert read(MATH).known_issue is None


def test_reads_code_rows_of_both_origins_and_both_spellings_of_a_shard():
  got = read(HUMANEVAL)
  assert got.shards == ("Increase a number", "by one") and got.whole == got.context == HUMANEVAL["prompt"]
  got = read(LCB)
  assert (got.whole, got.starter, got.context) == ("Given n, return n + 1.", LCB["starter_code"], "")
  assert read(LCB | {"starter_code": ""}).starter == ""


@pytest.mark.parametrize("task", ["database", "actions", "data2text", "summary", "translation"])
def test_other_official_tasks_are_named_as_not_supported(task):
  with pytest.raises(lic.NotSupported) as e:
    read({"task_id": "sharded-x/1", "task": task, "shards": []})
  assert str(e.value) == f"x.json:3: task {task!r} is not supported: math and code only"


SHARD = {"shard_id": 1, "shard": "a"}


@pytest.mark.parametrize("row, message", [
    (MATH | {"task_id": 5}, "field 'task_id': expected some text, got 5"),
    (MATH | {"task": ""}, "field 'task': expected some text, got ''"),
    (MATH | {"shards": "a"}, "field 'shards': expected list, got 'a'"),
    (MATH | {"shards": [SHARD]}, "field 'shards': expected at least 2 shards, got '1'"),
    (MATH | {"shards": [SHARD, "b"]}, "field 'shards': expected objects with shard_id and shard, got 'b'"),
    (MATH | {"shards": [SHARD, {"shard_id": 3, "shard": "b"}]}, "field 'shards[1].shard_id': expected 2, got 3"),
    (MATH | {"shards": [SHARD, {"shard_id": True, "shard": "b"}]}, "field 'shards[1].shard_id': expected 2, got True"),
    (MATH | {"shards": [SHARD, {"shard": "b"}]}, "field 'shards[1].shard_id': expected 2, got nothing"),
    (MATH | {"shards": [SHARD, {"shard_id": 2, "shard": " "}]}, "field 'shards[1].shard': expected some text, got ' '"),
    (MATH | {"shards": [SHARD, {"shard_id": 2}]}, "field 'shards[1].shard': expected some text, got nothing"),
    (MATH | {"answer": "it is 7"}, "field 'answer': expected text that ends in \"#### \" and a number"),
    ({k: v for k, v in MATH.items() if k != "question"}, "field 'question': expected some text, got nothing"),
    (HUMANEVAL | {"metadata": {}}, "field 'metadata': expected an object whose func_name is the function's name"),
    (HUMANEVAL | {"metadata": {"func_name": "a b"}}, "field 'metadata'"),
    (HUMANEVAL | {"test": None}, "field 'test': expected some text, got None"),
    (LCB | {"public_test_cases": None}, "field 'public_test_cases': expected some text, got None"),
    (LCB | {"starter_code": 1}, "field 'starter_code': expected str, got 1"),
    (LCB | {"question_content": ""}, "field 'question_content': expected some text, got ''"),
])  # fmt: skip
def test_a_malformed_row_is_named_by_file_line_and_field(row, message):
  with pytest.raises(DataError) as e:
    read(row)
  assert str(e.value).startswith("x.json:3: ") and message in str(e.value) and "\n" not in str(e.value)
  assert not isinstance(e.value, lic.NotSupported)


@needs_data
@pytest.mark.parametrize("name, n", [("math_verbatim_dev.jsonl", 12), ("code_humaneval_verbatim_dev.jsonl", 7)])
def test_reads_official_rows(name, n):
  found = [lic.read_instruction(row, name, line) for line, row in read_rows(DATA / name, {"task_id": str})]
  assert len(found) == n and all(len(i.shards) >= 3 for i in found)
  assert sum(i.known_issue is not None for i in found) == (2 if "math" in name else 1)


# What the user says.


def test_full_and_concat_of_math_share_their_frame():
  assert lic.full(read(MATH)) == "Q: Ann has 3 pens and buys 4 at $2. How many has she?\nA:"
  assert lic.concat(read(MATH)) == (
      "Q: - how many pens does Ann have?\n- she had 3 pens\n- she buys 4 more\n- a pen costs $2\nA:"
  )


def test_full_and_concat_of_code():
  full = lic.full(read(HUMANEVAL))
  assert "```python\nfrom typing import List\n\ndef inc(x: int)" in full and full.endswith("'''\n```")
  assert lic.concat(read(HUMANEVAL)) == "Increase a number\n- by one"
  start = "\n\nStart from this code:\n```python\nclass Solution:\n    def inc(self, n: int) -> int:\n```"
  assert lic.full(read(LCB)) == "Given n, return n + 1." + start
  assert lic.concat(read(LCB)) == "Write inc\n- add one" + start


def test_system_prompts_do_not_tell_of_more_turns():
  assert set(lic.SYSTEM_PROMPTS) == {"math", "code"}
  words = set(" ".join(lic.SYSTEM_PROMPTS.values()).lower().replace(".", "").split())
  assert not words & {"turn", "turns", "ask", "question", "clarify", "missing", "conversation"}


def test_shuffle_keeps_the_first_shard_as_the_paper_says_and_the_reference_does_not():
  got = read(MATH)
  lines = lambda key, compat: lic.shuffle_concat(got, key, compat).removeprefix("Q: ").removesuffix("\nA:").split("\n")
  fixed, reference = ([lines(k, compat) for k in range(60)] for compat in ("fixed", "reference"))
  bullets = [f"- {s}" for s in got.shards]
  assert all(sorted(x) == sorted(bullets) for x in fixed + reference)
  assert all(x[0] == bullets[0] for x in fixed) and len({tuple(x) for x in fixed}) == 6
  assert {x[0] for x in reference} == set(bullets)
  assert lines(7, "fixed") == lines(7, "fixed")
  assert lic.shuffle_concat(read(HUMANEVAL), 0) == lic.concat(read(HUMANEVAL))


def test_snowball_repeats_what_was_said():
  assert lic.snowball([], "How many?") == "How many?"
  assert lic.snowball(["How many?", "She had 3."], "She buys 4.") == (
      "Just to repeat:\n- How many?\n- She had 3.\n\nAlso,\nShe buys 4."
  )
  assert lic.snowball(["a", "b"], "c\n\nd").partition(lic.ALSO)[2] == "c\n\nd"


def test_recap_restates_the_talk_and_the_reference_the_shards_nobody_saw():
  said = ["How many pens does Ann have?", "Oh, she had 3."]
  fixed = lic.recap(said, read(MATH))
  assert "- How many pens does Ann have?\n- Oh, she had 3.\n" in fixed and "$2" not in fixed
  reference = lic.recap(said, read(MATH), "reference")
  assert lic.concat(read(MATH)) in reference and "Oh" not in reference


@pytest.mark.parametrize("shard, text", [
    ("she had 3 pens", "She had 3 pens."), ("how many?", "How many?"), ("Done.", "Done."), (" a \n", "A."),
    ("3 pens", "3 pens."), ("it costs $2", "It costs $2."), ("an example: 'b b' gives {'b': 2}", None),
])  # fmt: skip
def test_utterance(shard, text):
  assert lic.utterance(shard) == (text or "An example: 'b b' gives {'b': 2}.")
  assert lic.utterance(shard, "reference") == shard.strip()


def test_turn_cap():
  assert [lic.turn_cap(n) for n in (2, 3, 4, 12)] == [10, 10, 12, 36]
  assert lic.turn_cap(12, "reference") is None


# Which shard comes next.

SHARDS = {2: "Raphael bought 4 pens", 3: "each pen costs $1.5", 4: "he bought 2 notebooks", 5: "a notebook cost $4",
          7: "the rest of the money goes into two savings boxes"}  # fmt: skip


@pytest.mark.parametrize("turn, shard", [
    ("How many pens did he buy?", 2), ("What is the cost of one pen?", 3), ("How much are the notebooks?", 4),
    ("What does each notebook cost?", 5), ("Where does the saved money go? Into a box?", 7),
    ("So he has pens and notebooks and they cost money. How much money is saved?", 7),  # its question goes first
    ("The pens and the notebooks cost 14 dollars. Is there more?", 3),  # no word of the question fits: the whole turn
    ("", 2), ("The answer is 5.", 2), ("Hmm?", 2), ("4 or 1.5 or 2?", 2),  # numbers are not read
    ("<think>notebook costs</think>How many pens?", 2), ("saving", 7), ("NOTEBOOK'S cost", 5),
])  # fmt: skip
def test_the_shard_that_fits_best(turn, shard):
  assert lic.choose_shard(SHARDS, turn) == shard


def test_ties_go_to_the_lowest_id_in_any_order():
  assert lic.choose_shard({9: "a red car", 3: "a red bus"}, "Which is red?") == 3
  assert lic.choose_shard({9: "a red car"}, "What?") == 9


@pytest.mark.parametrize("text, kept", [
    ("a <think>b</think> c", "a  c"), ("<think>b", ""), ("b</think>c", "c"),
    ("<think>a</think>b<think>c</think>d", "bd"),
])  # fmt: skip
def test_thinking_is_not_read(text, kept):
  assert lic.without_thinking(text) == kept


# Which code counts.


def call(code, name, *arguments):
  names = {}
  exec(code, names)
  return names[name](*arguments)


def test_the_last_function_of_the_last_block_that_has_one():
  reply = (
      "```python\ndef first(x):\n  return 1\n```\nBetter:\n```python\nimport math\ndef help(x):\n  return x\n\n"
      "def second(x):\n  from math import sqrt\n  return sqrt(math.floor(x))\n```\nUse it:\n"
      "```python\nprint(second(4))\n```"
  )
  for compat in ("fixed", "reference"):
    code = lic.extract_function(reply, "root", compat)
    assert call(code, "root", 4.5) == 2 and "help" not in code and "first" not in code


def test_imports_of_the_prompt_are_there_and_a_future_import_stays_first():
  reply = "```python\nfrom __future__ import annotations\ndef inc(x: List[int]) -> int:\n  return x + 1\n```"
  code = lic.extract_function(reply, "inc", "fixed", HUMANEVAL["prompt"])
  assert code.startswith("from __future__ import annotations\nfrom typing import List\n") and call(code, "inc", 1) == 2
  plain = "```python\ndef inc(x: List[int]) -> int:\n  return x + 1\n```"
  assert call(lic.extract_function(plain, "inc", "reference", HUMANEVAL["prompt"]), "inc", 1) == 2


def test_the_true_name_is_bound_and_the_reference_replaces_letters():
  reply = "```python\ndef add(x):\n  'add'\n  address = x\n  return 'add' if x == 0 else address + len(add(0))\n```"
  fixed = lic.extract_function(reply, "plus")
  assert call(fixed, "plus", 4) == 7 and call(fixed, "plus", 0) == "add"
  reference = lic.extract_function(reply, "plus", "reference")
  assert call(reference, "plus", 0) == "plus" and "plusress" in reference
  assert lic.reference_rename("def f(x):\n  if x: return f(x - 1)", "g") == "deg g(x):\n  ig x: return g(x - 1)"


def test_an_unharmed_recursion_when_the_names_meet():
  reply = "```python\ndef solve(n):\n  f = n\n  return 0 if f == 0 else 1 + solve(n - 1)\n```"
  assert call(lic.extract_function(reply, "f"), "f", 5) == 5


SOLUTION = "class Solution:\n  def _help(self):\n    return 1\n  def other(self, n):\n    return n + self._help()\n"


def test_a_class_solution_is_called_through_its_method():
  code = lic.extract_function(f"```python\n{SOLUTION}```", "inc")
  assert call(code, "inc", 1) == 2
  assert call(lic.extract_function(SOLUTION, "inc"), "inc", 1) == 2
  assert lic.extract_function(SOLUTION, "inc", "reference") is None  # the program raises
  assert "class Solution" in lic.extract_function(f"```python\n{SOLUTION}```", "inc", "reference")


@pytest.mark.parametrize("reply, result", [
    ("def f(x):\n  return x + 1", 2), ("Here it is:\n\ndef f(x):\n  return x + 1\n\nIt adds one.", 2),
    ("1. So:\n   ```python\n   def f(x):\n     return x + 1\n   ```", 2), ("```def f(x): return x + 1```", 2),
    ("```python\ndef f(x):\n  return x + 1", 2), ("```py\r\ndef f(x):\r\n  return x + 1\r\n```", 2),
    ("<think>```python\ndef f(x):\n  return 0\n```</think>```python\ndef f(x):\n  return x + 1\n```", 2),
    ("import math\nfrom math import pi\ndef f(x):\n  return math.ceil(x + pi / 4)", 2),
    ("```\n@staticmethod\ndef f(x):\n  return x + 1\n```", 2),
])  # fmt: skip
def test_finds_code_in_replies_of_many_looks(reply, result):
  assert call(lic.extract_function(reply, "g"), "g", 1) == result


@pytest.mark.parametrize("reply", [
    "", "No code.", "```python\nx = 1\n```", "```python\ndef f(x:\n```", "```python\nif x:\n  def f(): pass\n```",
    "```python\nclass A:\n  def f(self):\n    return 1\n```", "```bash\nls\n```", "class Solution:\n  x = 1",
])  # fmt: skip
def test_no_code(reply):
  assert lic.extract_function(reply, "g") is None
  assert lic.extract_function(reply, "g", "reference") is None


@pytest.mark.parametrize("piece", ["-", "(", "not ", "lambda:", "[", "f()", "x.", "if x:\n ", "{1:", "f'{", "1+", "```",
                                   "def f(): pass\n"])  # fmt: skip
def test_hostile_code_is_no_code_and_costs_little(piece):
  for text in (piece * 20_000, f"```python\ndef f(x):\n  return {piece * 4_000}1\n```"):
    for compat in ("fixed", "reference"):
      lic.extract_function(text, "g", compat)


# The program's number checker.


@pytest.mark.parametrize("reply, number", [
    ("The answer is 42.", "42"), ("$100.00", "1"), ("$20.00", "2"), ("$14.50", "14.50"), ("100.00", "100.00"),
    ("12 apples in 2 baskets", "2"), ("3/4", "4"), ("-5", "-5"), ("7", "7"), ("1,080", "1080"), ("none", None),
    ("It is 10,000.", "10000"), ("$1,200", "1200"), ("5...", "5.."),
])  # fmt: skip
def test_reference_number(reply, number):
  assert lic.reference_number(reply) == number


@pytest.mark.parametrize("reply, gold, equal", [
    ("so 72", "48/2 = 24\n#### 72", True), ("so 72", "72", True), ("#### 1,080", "1080", True), ("72.0", "72", False),
    ("$100.00", "100", False), ("$100", "100", True), ("3/4", "4", True), ("", "4", False),
    ("14,000", "#### 14,000", True),
])  # fmt: skip
def test_reference_equal(reply, gold, equal):
  assert lic.reference_equal(reply, gold) is equal
