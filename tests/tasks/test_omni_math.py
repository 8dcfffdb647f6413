r"""Omni-MATH rows, and the checker of \boxed{} answers: what it takes for the same, and what it must not."""

from __future__ import annotations

import gzip
import json
import pathlib
from fractions import Fraction

import pytest

from sml_jax.dialogue.record import Dialogue, Turn
from sml_jax.tasks.file_source import part_of
from sml_jax.tasks.jsonl import DataError
from sml_jax.tasks.omni_math import ASK, OmniMathSource, boxed, canonical, given_answer, load_omni_math

DATA = pathlib.Path(__file__).parents[2] / "../shared/data"
needs_data = pytest.mark.skipif(not (DATA / "omni_math_rule").exists(), reason="the data folder is not here")
ROWS = [
    {"problem": "What is $1+1$?", "answer": "2", "solution": "Count.", "domain": ["Algebra"], "difficulty": 1.0},
    {"problem": "Area of the unit disc?", "answer": "$\\boxed{\\pi}$", "domain": ["Geometry"], "difficulty": 2.5},
]


def write(folder, rows, name="omni_math_rule/a.jsonl"):
  path = folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
  path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
  return path


@pytest.mark.parametrize("name", ["omni_math_rule/x.jsonl", "omni_math_rule/dev.jsonl.gz", "x.jsonl", "x.jsonl.gz"])
def test_loads(tmp_path, name):
  write(tmp_path, [*ROWS, "", ROWS[0] | {"problem": " What is  $1+1$?"}], name)
  first, second = load_omni_math(tmp_path)
  assert first.text == f"What is $1+1$?\n\n{ASK}" and "\\boxed{}" in first.text
  assert first.answer == "The answer is \\boxed{2}." and first.private == {"answer": "2"}
  assert second.answer == "The answer is \\boxed{\\pi}." and second.domain == "omni_math"
  assert first.id.startswith("omni_math/") and first.id != second.id


def test_reads_all_files_of_the_folder_in_order(tmp_path):
  write(tmp_path, ROWS[1:], "omni_math_rule/b.jsonl.gz")
  write(tmp_path, ROWS[:1])
  write(tmp_path, ["not for us"], "other.jsonl")
  assert [t.private["answer"] for t in load_omni_math(tmp_path)] == ["2", "\\pi"]


def test_problems_that_differ_in_a_sign_are_two_of_one_part(tmp_path):
  rows = [{"problem": f"If $x=11, y={y}$, what is $x{s}y$?", "answer": "1"} for y in ("8", "-8") for s in "+-"]
  write(tmp_path, rows)
  tasks = load_omni_math(tmp_path)
  assert len({t.id for t in tasks}) == 4 and len({part_of(t.text, "0") for t in tasks}) == 1


def test_an_answer_that_is_cut_off_is_left_out(tmp_path):
  write(tmp_path, [*ROWS, *({"problem": f"p{a}", "answer": a} for a in ("\\frac{1}{2^{15}", "2}", "\\boxed{3"))])
  assert len(load_omni_math(tmp_path)) == 2


@pytest.mark.parametrize("row, message", [
    ({"problem": "p"}, "a.jsonl:3: field 'answer': expected str, got nothing"),
    ({"problem": "p", "answer": 5}, "a.jsonl:3: field 'answer': expected str, got 5"),
    ({"problem": ["p"], "answer": "5"}, "a.jsonl:3: field 'problem': expected str, got ['p']"),
    ({"problem": "p", "answer": " "}, "a.jsonl:3: field 'answer': expected some text, got ' '"),
    ({"problem": "", "answer": "5"}, "a.jsonl:3: field 'problem': expected some text, got ''"),
    ("{", "a.jsonl:3: not JSON"),
    ("[1]", "a.jsonl:3: expected an object with fields problem, answer, got list"),
])  # fmt: skip
def test_a_malformed_row_is_named_by_file_line_and_field(tmp_path, row, message):
  write(tmp_path, [*ROWS, row])
  with pytest.raises(DataError) as e:
    load_omni_math(tmp_path)
  assert message in str(e.value) and "\n" not in str(e.value)


def test_missing_files(tmp_path):
  with pytest.raises(DataError, match=r"--config\.data_dir=FOLDER"):
    load_omni_math("")
  with pytest.raises(DataError, match="there is no folder"):
    load_omni_math(tmp_path / "no")
  with pytest.raises(DataError, match=r"holds no omni_math_rule/\*\.jsonl"):
    load_omni_math(tmp_path)
  write(tmp_path, ["", {"problem": "p", "answer": "{"}])
  with pytest.raises(DataError, match="holds no rows"):
    load_omni_math(tmp_path)
  path = write(tmp_path, ROWS * 50, "omni_math_rule/b.jsonl.gz")
  path.write_bytes(path.read_bytes()[:-20])
  with pytest.raises(DataError, match=r"b\.jsonl\.gz: damaged"):
    load_omni_math(tmp_path)


@pytest.mark.parametrize("text, boxes", [
    ("none", []), ("\\boxed{5}", ["5"]), ("a \\boxed{\\frac{1}{2}} b", ["\\frac{1}{2}"]), ("\\boxed {5}", ["5"]),
    ("\\boxed{\\{1,2\\}}", ["\\{1,2\\}"]), ("\\boxed{\\left\\{1\\right\\}}", ["\\left\\{1\\right\\}"]),
    ("\\boxed{1} \\boxed{2}", ["1", "2"]), ("\\boxed{\\boxed{5}}", ["\\boxed{5}"]), ("\\boxed{}", [""]),
    ("\\boxed{5", None), ("\\boxed{5} \\boxed{\\frac{1}{2}", None), ("\\boxed{5\\}", None), ("} \\boxed{5}", ["5"]),
    ("\\boxed 5", []), ("\\boxed{a\\\\}", ["a\\\\"]),
])  # fmt: skip
def test_boxes(text, boxes):
  assert boxed(text) == boxes


@pytest.mark.parametrize("text, answer", [
    ("So \\boxed{0}.", 0), ("$\\boxed{\\frac{3}{4}}$ and again \\boxed{3/4}", Fraction(3, 4)),
    ("\\boxed{\\boxed{5}}", 5),
    ("It does not depend on n, so it is \\boxed{5}.", 5), ("5", None), ("The answer is 5.", None), ("", None),
    ("\\boxed{}", None), ("\\boxed{ \\text{} }", None), ("\\boxed{5} or \\boxed{6}", None),
    ("\\boxed{5} \\boxed{", None),
    ("It is not \\boxed{5}.", None), ("It isn't $\\boxed{5}$.", None), ("It cannot be \\boxed{5}.", None),
    ("\\boxed{5 or 6}", "5 or 6"),
])  # fmt: skip
def test_given_answer(text, answer):
  assert given_answer(text) == answer


@pytest.mark.parametrize("a, b", [
    ("115440", "115{,}440"), ("115440", "115,\\!440"), ("1,080", "$1080.0$."), ("0.75", "\\dfrac34"),
    ("-\\frac{1}{2}", "-0.5"),
    ("\\frac{-1}{2}", "-1/2"), ("\\$5", "5"), ("60\\%", "60%"), ("\u22124", "-4"), ("\\sqrt 2", "\\sqrt2"),
    ("2 \\pi", "2\\pi"), ("\\left( 1, 2 \\right)", "(1,2)"), ("\\[\n\\boxed{n^2}\n\\]", "n^2."), ("\\text{Yes}", "Yes"),
    ("\\tfrac{\\sqrt{3}}{2}", "\\frac{\\sqrt{3}}{2}"), ("4 \\cdot 3^{2011}", "4\\cdot3^{2011}"), ("1 - x", "1-x"),
    ("(\\frac12, 1)", "(\\frac{1}{2},1)"), ("1620 \\mathrm{~mm}^{2}", "1620\\text{ mm}^{2}"),
])  # fmt: skip
def test_the_same(a, b):
  assert canonical(a) == canonical(b)


@pytest.mark.parametrize("a, b", [
    ("1\\frac12", "11/2"), ("1\\frac12", "\\frac{11}{2}"), ("3440", "3, 440"), ("12", "1 2"), ("12", "1 ~2"),
    ("60", "60%"), ("0.6", "60%"),
    ("1/3", "0.3333"), ("5", "-5"), ("5", "5^{\\circ}"), ("5", "5\\text{ cm}"), ("5", "x=5"), ("5", "5!"),
    ("5", "\\sqrt{5}"),
    ("10", "1e1"), ("\\pi r", "\\pir"), ("\\{1,2\\}", "(1,2)"), ("(1,2)", "(2,1)"), ("n+1", "n-1"), ("2^{10}", "2^10"),
    ("\\frac{1}{23}", "\\frac123"), ("5", ""), ("5", "five"), ("5", "1.5"), ("15", "1. 5"), ("1/2", "1/2/1"),
    ("\\sqrt{2}+1", "\\sqrt{2+1}"), ("5", "5\\pm1"), ("2", "1,2"), ("1/2", "\\frac{1}{2}\\frac{1}{1}"),
])  # fmt: skip
def test_not_the_same(a, b):
  assert canonical(a) != canonical(b)


def test_hostile_texts_are_read_fast():
  n = 20_000
  for piece in ("\\boxed{", "\\text{", "not ", "\\frac", "{", "\\", "\\boxed{5}", " ", "\\text ", ",", "9", "$"):
    given_answer(piece * n)  # would hang the test if any pattern were quadratic enough to matter
    given_answer("\\boxed{" + piece.replace("{", "(") * n + "}")


def source_of(folder, n=40) -> OmniMathSource:
  words = [{"problem": f"Which curve, case {i}?", "answer": f"y=x^{{{i}}}"} for i in range(n)]
  write(folder, [*({"problem": f"What is {i} and 500?", "answer": str(i + 500)} for i in range(n)), *words])
  return OmniMathSource(load_omni_math(folder))


def test_source_verifies_and_names_kinds(tmp_path):
  source = source_of(tmp_path)
  assert sum(source.size(part) for part in ("train", "dev", "test")) == 80
  task = source.task("omni_math", "train", 0)
  texts = [task.answer, "Is it even?", "\\boxed{1}?", "hm, 500", "", "\\boxed{1}"]
  assert source.verify([task] * 6, texts) == ["solved", "no_attempt", "wrong", "no_attempt", "no_attempt", "wrong"]
  kinds = ["answer_attempt", "clarification", "answer_attempt", "discussion", "missing", "answer_attempt"]
  assert [source.kind(task, t) for t in texts] == kinds
  with pytest.raises(DataError, match="whole tasks of the domain omni_math alone"):
    source.task("omni_math", "train", 0, reveal="on_question")


def test_scripted_teacher_never_says_the_answer(tmp_path):
  source = source_of(tmp_path)
  tasks = [source.task("omni_math", "train", i) for i in range(source.size("train"))]
  number = next(t for t in tasks if t.private["answer"].isdigit())
  curve = next(t for t in tasks if not t.private["answer"].isdigit())

  def reply(arm, task, text):
    turns = [Turn("teacher", task.text), Turn("student", text)]
    return source.teacher(arm).reply([task], [Dialogue(task.id, "omni_math", 0, arm, turns)])[0]

  gold = int(number.private["answer"])
  assert reply("full", number, f"\\boxed{{{gold - 1}}}").endswith("It is too low.")
  assert reply("full", number, f"\\boxed{{{gold + 1}}}").endswith("It is too high.")
  assert reply("full", number, "hm") == "Please put your answer in \\boxed{}."
  assert reply("full", number, "Is it big?") == "I can not say."
  for task, text in ((number, "\\boxed{x}"), (curve, "\\boxed{y}"), (curve, "\\boxed{5}")):
    assert reply("full", task, text) == reply("binary", task, text) in ("Not yet.", "Not quite.", "Look again.")
  for arm in ("full", "no_private", "binary", "try_again", "shuffled", "none"):
    for task in (number, curve):
      assert all(task.private["answer"] not in reply(arm, task, text) for text in ("\\boxed{1}", "Is it big?", "hm"))


def test_shares_of_the_parts():
  parts = [part_of(f"problem number {i}", "0", *OmniMathSource.shares) for i in range(5000)]
  # Binomial(5000, .1) and (5000, .19): standard deviations 21 and 28.
  assert abs(parts.count("dev") - 500) < 110 and abs(parts.count("test") - 950) < 140


@needs_data
def test_every_real_gold_solves_its_own_task_and_no_other():
  tasks = load_omni_math(DATA)
  source = OmniMathSource(tasks)
  assert len(tasks) == 1387 - 2
  assert set(source.verify(tasks, [t.answer for t in tasks])) == {"solved"}
  golds = [source.gold(t) for t in tasks]
  for shift in (1, 2, 3):
    others = [t.answer for t in tasks[shift:]]
    same = [a == b for a, b in zip(golds, golds[shift:], strict=False)]
    assert source.verify(tasks[:-shift], others) == ["solved" if s else "wrong" for s in same]
    assert sum(same) < 20
