import collections
import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

from sml_jax.tasks.turn_kinds import classify

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = ROOT / "benchmarks/turn_kinds.py"
A, CL, IN, D, H, R, M = (
    "answer_attempt", "clarification", "interrogation", "discussion", "hedge", "refuse", "missing")  # fmt: skip
FUNCTION = "```python\ndef f(x):\n  return x\n```"
OTHER = "```python\ndef f(x):\n  return x + 1\n```"


@pytest.fixture(scope="module")
def program():
  spec = importlib.util.spec_from_file_location("turn_kinds_benchmark", PROGRAM)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.mark.parametrize("text", ["", " \n\t", "<think>The answer is 5.</think>", "<think>How many?", "a</think> "])
@pytest.mark.parametrize("domain", ["number", "latex", "code"])
def test_nothing_or_nothing_but_thinking_is_missing(text, domain):
  assert classify(text, domain=domain) == M
  assert classify(text, domain=domain, sharded=True) == M


@pytest.mark.parametrize("text, kind", [
    ("The answer is 20.", A), ("#### 20", A), ("4 * 5 = 20", A), ("20 apples", A), ("She has 20 apples left.", A),
    ("So in total that makes 20 apples. Does that help?", A),
    ("The total is 20. Would you like me to explain?", A),
    ("The answer is 20. How many friends are there?", A),  # a form of its own stays an attempt
    ("Assuming 5 apples each, the total is 20.", A),
    ("Assuming 5 apples each, the total is 20. How many friends?", CL),
    ("Assuming 5 apples each, the answer is 20. How many friends?", CL),
    ("If there are 5 apples each, the total would be 20.", D),
    ("If there are 5 apples each, the answer is 20, otherwise 24.", H),
    ("The answer is 20 or 24.", H), ("It could be 20 or 24.", H),
    ("If she has 5 boxes the answer is 20; if 6 it is 24. She has 5 boxes. The answer is 20.", A),
    ("How many friends are there?", CL), ("Please tell me the price of one apple.", CL),
    ("How many friends are there? And how many apples?", IN), ("How many apples, and how many friends?", IN),
    ("I need to know:\n- the price\n- the number of apples", IN),
    ("Can you give me more information?", D), ("What else can I help you with?", D),
    ("We multiply the price by the number of apples.", D),
    ("I can't determine the total.", R), ("I can't determine the total. How many apples are there?", CL),
    ("I don't know", R), ("No.", R),
    ("word " * 98 + "how many apples?", D), ("word " * 96 + "how many apples?", CL),  # 101 and 99 words
])  # fmt: skip
def test_numbers(text, kind):
  assert classify(text, domain="number", sharded=True) == kind


@pytest.mark.parametrize("text, whole, sharded", [
    ("Ann has 3 pens. Ben has 4 pens.", A, D), ("Okay, the hotel has 100 guests.", A, D), ("It is 7.", A, A),
    ("How many guests are there?", CL, CL), ("5 if it rains, otherwise 6", H, H),
])  # fmt: skip
def test_a_talk_about_a_whole_task_takes_the_last_number_for_an_answer(text, whole, sharded):
  assert classify(text, domain="number") == whole
  assert classify(text, domain="number", sharded=True) == sharded


@pytest.mark.parametrize("text, kind", [
    (r"So it is $\boxed{3}$.", A), (r"\boxed{\frac{1}{2}} and so \boxed{ \dfrac{1}{2} }", A),
    (r"\boxed{3} Is the triangle right?", A), (r"\boxed{3} or \boxed{-3}", H), (r"\boxed{3", D), (r"\boxed{}", D),
    ("The answer is 3.", D), ("Is the triangle right?", CL), ("Is $n$ even? Is it prime?", IN),
    ("I cannot solve this.", R),
    (r"<think>\boxed{4}</think>\boxed{3}", A),
])  # fmt: skip
def test_latex(text, kind):
  assert classify(text, domain="latex") == kind


@pytest.mark.parametrize("text, kind", [
    (FUNCTION, A), (FUNCTION.replace("```python\n", "").replace("```", ""), A),
    (f"Here:\n{FUNCTION}\nWhat about -1?", A),
    ("```python\nclass Solution:\n  def f(self, x):\n    return x\n```", A), ("```python\nx = 1\n```", D),
    ("```python\ndef f(x):\n  '''Do it.'''\n  pass\n```", D), ("```python\ndef f(x):\n  ...\n```", D),
    ("```python\ndef f(x):\n  raise NotImplementedError()\n```", D), ("```python\ndef f(x:\n```", D),
    (f"Option 1:\n{FUNCTION}\nOption 2:\n{OTHER}", H), (f"If you need x:\n{FUNCTION}\nIf you want more:\n{OTHER}", H),
    (f"Option 1:\n{FUNCTION}\nAgain option 1:\n{FUNCTION}", A),  # the same code twice
    (f"First I wrote this.\n{FUNCTION}\nThe corrected one:\n{OTHER}", A),
    ("What is returned for an empty list?", CL),
    ("```python\n# is it sorted? is it long?\nx = 1\n```\nIs it sorted?", CL),
    ("Is it sorted? Can it be empty?", IN), ("I can't write this function.", R),
])  # fmt: skip
def test_code(text, kind):
  assert classify(text, domain="code") == kind


@pytest.mark.parametrize("piece", [
    "1,", "1 or ", "if ", "? ", "\n- ", "could you ", "more information about ", "\\boxed{", "```", "def f(x):\n",
    "not enough ", "case 1: 5\n", "<think>", "1. ", "= 1 ", "9",
])  # fmt: skip
def test_hostile_text_costs_little(piece):
  for domain in ("number", "latex", "code"):
    classify(piece * (8_000 // len(piece)), domain=domain, sharded=True)  # would hang the test if it were quadratic


def test_the_labels_are_as_many_as_promised(program):
  rows = program.read_labels(str(PROGRAM.with_suffix(".jsonl")))
  kinds = collections.Counter(row["kind"] for row in rows)
  assert len(rows) >= 210 and min(kinds[k] for k in program.KINDS) >= 20
  assert len({(row["domain"], row["text"]) for row in rows}) == len(rows)
  assert {row["domain"] for row in rows} == {"number", "latex", "code"}


def test_agreement_is_what_was_measured(program):
  rows = program.read_labels(str(PROGRAM.with_suffix(".jsonl")))
  for held_out, least in ((False, 0.97), (True, 0.80)):  # measured: 132 of 132 and 100 of 120
    half = [row for row in rows if row.get("held_out", False) is held_out]
    right = sum(classify(row["text"], domain=row["domain"], sharded=True) == row["kind"] for row in half)
    assert len(half) >= 105 and right / len(half) >= least


def test_wilson_and_kappa_by_hand(program):
  assert program.wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
  assert program.wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
  # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: observed .7, by chance .5 * .6 + .5 * .4 = .5.
  pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
  assert program.kappa(pairs) == pytest.approx(0.4)
  assert program.kappa([("y", "y")] * 3) == 1.0


def run(*arguments):
  return subprocess.run([sys.executable, str(PROGRAM), *arguments], capture_output=True, text=True, cwd=ROOT,
                        env={"PYTHONPATH": str(ROOT), "PATH": ""})  # fmt: skip


def test_the_program_reports_own_labels(tmp_path):
  labels = tmp_path / "own.jsonl"
  rows = [("How much is it?", "clarification", {}), ("The answer is 5.", "answer_attempt", {}),
          ("The answer is 5.", "discussion", {"held_out": True}), ("", "missing", {"held_out": True})]  # fmt: skip
  rows = [{"text": text, "domain": "number", "kind": kind} | more for text, kind, more in rows]
  labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
  done = run(f"--labels={labels}", "--show")
  assert done.returncode == 0, done.stderr
  assert "rules made on these: 2 of 2 agree, 1.000 (Wilson 95% 0.342 to 1.000), Cohen's kappa 1.000" in done.stdout
  assert "held out: 1 of 2 agree, 0.500" in done.stdout
  assert "number, label discussion, given answer_attempt: 'The answer is 5.'" in done.stdout


@pytest.mark.parametrize("line, message", [
    ('{"text": "a", "domain": "number"}', "field 'kind': expected str, got nothing"),
    ('{"text": "a", "domain": "prose", "kind": "hedge"}', "field 'domain': expected one of number, latex, code"),
    ('{"text": "a", "domain": "code", "kind": "answer"}', "field 'kind': expected one of answer_attempt, "),
    ('{"text": "a", "domain": "code", "kind": "hedge", "held_out": 1}', "field 'held_out': expected true or false"),
])  # fmt: skip
def test_a_malformed_label_is_named(program, capsys, monkeypatch, tmp_path, line, message):
  labels = tmp_path / "own.jsonl"
  labels.write_text('{"text": "a", "domain": "code", "kind": "hedge"}\n' + line + "\n")
  monkeypatch.setattr(sys, "argv", ["turn_kinds.py", f"--labels={labels}"])
  assert program.main() == 1
  error = capsys.readouterr().err
  assert error.startswith(f"error: {labels}:2: ") and message in error and error.count("\n") == 1


def test_a_missing_or_empty_file_of_labels(program, capsys, monkeypatch, tmp_path):
  for name, message in (("no.jsonl", "there is no such file"), ("empty.jsonl", "holds no rows")):
    (tmp_path / "empty.jsonl").write_text("")
    monkeypatch.setattr(sys, "argv", ["turn_kinds.py", f"--labels={tmp_path / name}"])
    assert program.main() == 1
    assert message in capsys.readouterr().err
