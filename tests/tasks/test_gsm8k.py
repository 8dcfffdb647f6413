import collections
import gzip
import hashlib
import json
import pathlib
from fractions import Fraction

import pytest

from sml_jax.dialogue.record import Dialogue, Turn
from sml_jax.tasks.gsm8k import Gsm8kSource, load_gsm8k, normalise, part_of
from sml_jax.tasks.jsonl import DataError, read_rows
from sml_jax.tasks.numbers import check_number, extract_number, parse_number

DATA = pathlib.Path(__file__).parents[2] / "../shared/data"
needs_data = pytest.mark.skipif(not (DATA / "gsm8k").exists(), reason="the data folder ../shared/data is not here")
ROWS = [
    {"question": "Ann has 3 pens and buys 4. How many?", "answer": "3+4 = <<3+4=7>>7 pens.\n#### 7"},
    {"question": "A car costs $1,000 and $80 more. Price?", "solution": "1000+80\n#### 1,080", "answer": "1,080"},
]


def write(folder, rows, name="train.jsonl"):
  path = folder / name
  path.parent.mkdir(exist_ok=True)
  text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
  path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
  return path


@pytest.mark.parametrize("text, number", [
    ("The answer is 5.", 5), ("so it costs $14,000", 14000), ("#### 14000.0", 14000), ("**72**", 72), ("50%", 50),
    ("The answer is:\n\n**$1,080.50**.", Fraction("1080.5")), ("The final answer is \\boxed{-3}.", -3),
    ("<<48/2=24>> half of 48 are left", 48), ("I got 5. The answer is 6.", 6), ("The answer is 5. So I say 9.", 5),
    ("The answer is 3 * 4 = 12.", 12), ("The answer is 1/2", Fraction(1, 2)), ("it is .5", Fraction(1, 2)),
    ("10-4", 4), ("10 - 4", 4), ("it is -4", -4), ("-$5", -5), ("$-5", -5), ("\u22124", -4), ("x2 is 7th", 7),
    ("12cm", 12), ("The answer is 6 and again 6.0", 6),
])
def test_extracts(text, number):
  assert extract_number(text) == number


@pytest.mark.parametrize("text", [
    "", "no idea", "I got 5. The answer is", "#### ", "The answer is 5 or 6.", "The answer is not 5.",
    "The answer is not 5, it is 6.", "The answer isn't 5", "1,2,3", "#### 1e3", "v1.2.3", "The answer is 1/0",
    "9" * 5000, "x2", "\u0663", "#### five",
])
def test_hedges_lists_and_unreadable_numbers_are_no_answer(text):
  assert extract_number(text) is None


@pytest.mark.parametrize("text, gold, verdict", [
    ("The answer is 14000.", "14,000", "solved"), ("#### 14,000.00", "14000", "solved"),
    ("The answer is 14.000.", "14,000", "wrong"), ("0.1", "0.1", "solved"), ("0.30000000000000004", "0.3", "wrong"),
    ("60%", "0.6", "wrong"), ("who knows", "3", "no_attempt"), ("3", "three", "verifier_failed"),
    ("3", "", "verifier_failed"),
])
def test_compares_exactly_and_fails_closed(text, gold, verdict):
  assert check_number(text, gold) == verdict


def test_number_checker_is_fast_on_hostile_text():
  for text in ("1," * 20_000, "<<" * 20_000, "-$" * 20_000, "answer is " * 5_000, "1/" * 20_000, "9" * 100_000):
    check_number(text, "3")  # would hang the test if any pattern were quadratic enough to matter


@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl.gz", "gsm8k/train.jsonl.gz", "gsm8k/train.jsonl"])
def test_loads_both_published_forms(tmp_path, name):
  write(tmp_path, [*ROWS, "", ROWS[0] | {"question": "Ann has 3 pens and buys 5. How many?"}], name)
  tasks = load_gsm8k(tmp_path)
  assert [t.answer for t in tasks[:2]] == ["The answer is 7.", "The answer is 1,080."]
  assert [t.private for t in tasks[:2]] == [{"answer": "7"}, {"answer": "1,080"}]
  assert tasks[0].id.startswith("gsm8k/") and tasks[0].domain == "gsm8k" and tasks[0].text == ROWS[0]["question"]
  assert len(tasks) == 3 and len({t.id for t in tasks}) == 3


def test_a_copy_of_a_problem_is_dropped(tmp_path):
  write(tmp_path, [*ROWS, ROWS[0] | {"question": "ann has 3 pens  and buys 4 - how many"}])
  assert normalise(" Ann has 3 PENS.") == "ann has 3 pens"
  assert len(load_gsm8k(tmp_path)) == 2


@pytest.mark.parametrize("row, message", [
    ({"question": "q", "answer": "7"}, "train.jsonl:3: field 'answer': expected text that ends in \"#### \""),
    ({"question": "q", "answer": "#### seven"}, "train.jsonl:3: field 'answer'"),
    ({"question": "q", "answer": "7", "solution": "so 7"}, "train.jsonl:3: field 'solution'"),
    ({"question": "q", "answer": "7", "solution": None}, "train.jsonl:3: field 'solution'"),
    ({"question": 5, "answer": "#### 7"}, "train.jsonl:3: field 'question': expected str, got 5"),
    ({"answer": "#### 7"}, "train.jsonl:3: field 'question': expected str, got nothing"),
    ("{", "train.jsonl:3: not JSON"),
    ("[1]", "train.jsonl:3: expected an object with fields question, answer, got list"),
])
def test_a_malformed_row_is_named_by_file_line_and_field(tmp_path, row, message):
  write(tmp_path, [*ROWS, row])
  with pytest.raises(DataError) as e:
    load_gsm8k(tmp_path)
  assert message in str(e.value) and "\n" not in str(e.value)


def test_missing_and_damaged_files(tmp_path):
  with pytest.raises(DataError, match=r"--config\.data_dir=FOLDER"):
    load_gsm8k("")
  with pytest.raises(DataError, match="there is no folder"):
    load_gsm8k(tmp_path / "no")
  with pytest.raises(DataError, match=r"holds none of gsm8k/train\.jsonl\.gz"):
    load_gsm8k(tmp_path)
  path = write(tmp_path, ROWS * 50, "train.jsonl.gz")
  path.write_bytes(path.read_bytes()[:-20])
  with pytest.raises(DataError, match="damaged"):
    load_gsm8k(tmp_path)
  path.write_bytes(b"not gzip")
  with pytest.raises(DataError, match="damaged after line 0"):
    load_gsm8k(tmp_path)
  with pytest.raises(DataError, match="there is no such file"):
    list(read_rows(tmp_path / "x.jsonl", {}))
  write(tmp_path, [])
  path.unlink()
  with pytest.raises(DataError, match="holds no rows"):
    load_gsm8k(tmp_path)


def test_read_rows_checks_exact_types(tmp_path):
  path = write(tmp_path, ['{"n": 1}', "", '{"n": true}'])
  rows = read_rows(path, {"n": int})
  assert next(rows) == (1, {"n": 1})
  with pytest.raises(DataError, match=r"train\.jsonl:3: field 'n': expected int, got True"):
    next(rows)


def test_a_file_that_is_not_the_manifests_is_refused(tmp_path):
  path = write(tmp_path, ROWS)
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  (tmp_path / "MANIFEST.json").write_text(json.dumps({"train.jsonl": {"sha256": digest}}))
  assert len(load_gsm8k(tmp_path)) == 2
  write(tmp_path, ROWS[:1])
  with pytest.raises(DataError, match="SHA-256 differs"):
    load_gsm8k(tmp_path)


def test_parts_depend_on_the_problem_and_the_salt_alone():
  texts = [f"problem number {i}" for i in range(5000)]
  counts = collections.Counter(part_of(t, "0") for t in texts)
  # Binomial(5000, .1): standard deviation 21.
  assert abs(counts["dev"] - 500) < 110 and abs(counts["test"] - 500) < 110
  assert part_of("Problem  number 7!", "0") == part_of("problem number 7", "0")
  assert any(part_of(t, "0") != part_of(t, "1") for t in texts)


def reply(source, arm, task, text):
  turns = [Turn("teacher", task.text), Turn("student", text)]
  return source.teacher(arm).reply([task], [Dialogue(task.id, "gsm8k", 0, arm, turns)])[0]


def test_teacher_says_which_way_and_never_the_answer(tmp_path):
  write(tmp_path, [{"question": f"What is {i} and 500?", "answer": f"#### {i + 500}"} for i in range(30)])
  source = Gsm8kSource(load_gsm8k(tmp_path))
  task = source.task("gsm8k", "train", 0)
  gold = int(task.private["answer"])
  assert reply(source, "full", task, f"The answer is {gold - 1}.").endswith("It is too low.")
  assert reply(source, "full", task, f"The answer is {gold + 1}.").endswith("It is too high.")
  assert reply(source, "full", task, "hm") == "Please answer with a number."
  assert reply(source, "none", task, "The answer is 1.") == ""
  assert reply(source, "try_again", task, "The answer is 1.") == reply(source, "try_again", task, "Is it 1?")
  for arm in ("full", "no_private", "binary", "try_again", "shuffled", "none"):
    for text in ("The answer is 1.", "The answer is 9999.", "Is it big?", "hm"):
      said = reply(source, arm, task, text)
      assert task.private["answer"] not in said
      if arm in ("no_private", "binary", "try_again"):
        assert "low" not in said and "high" not in said


def test_source_verifies_kinds_and_whole_tasks_alone(tmp_path):
  write(tmp_path, [{"question": f"What is {i} and 5?", "answer": f"#### {i + 5}"} for i in range(30)])
  source = Gsm8kSource(load_gsm8k(tmp_path))
  assert sum(source.size(part) for part in ("train", "dev", "test")) == 30
  task = source.task("gsm8k", "train", 0)
  gold = task.private["answer"]
  texts = [task.answer, f"{gold}?", "The answer is 999.", ""]
  assert source.verify([task] * 4, texts) == ["solved", "no_attempt", "wrong", "no_attempt"]
  assert [source.kind(task, t) for t in texts] == ["answer_attempt", "clarification", "answer_attempt", "missing"]
  with pytest.raises(DataError):
    source.task("gsm8k", "train", 0, reveal="on_question")


@needs_data
def test_every_real_gold_parses_and_solves_its_own_task():
  tasks = load_gsm8k(DATA)
  assert len(tasks) == 7473
  assert {check_number(t.answer, t.private["answer"]) for t in tasks} == {"solved"}
  assert all(parse_number(t.private["answer"]) is not None for t in tasks)


@needs_data
def test_agrees_with_all_published_labels():
  agree = collections.Counter()
  for _, row in read_rows(DATA / "gsm8k/example_model_solutions_dev.jsonl.gz", {"answer": str, "outputs": dict}):
    for output in row["outputs"].values():
      agree[(check_number(output["solution"], row["answer"]) == "solved") == output["is_correct"]] += 1
  assert agree == {True: 2732}
