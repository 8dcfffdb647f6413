import gzip
import json

import pytest

from sml_jax.tasks import check_leaks

ROWS = [
    {"id": 1, "problem": "Ann has 6 boxes of 7 pens. How many pens?", "answer": "42", "turn": "It is forty-two."},
    {"id": "b", "problem": "Ann has 6 boxes of 7 pens.", "answer": "42", "tests": [], "turn": "What is a box?"},
    {"id": "c", "problem": "Write f.", "answer": "def f(x):\n  return x + 3", "tests": ["assert f(2) == 5"],
     "turn": "f(2) should return 5", "more": 1},
    {"id": "d", "problem": "Ann has 6 boxes of 7 pens.", "answer": "42", "tests": None, "turn": ""},
]


def write(path, rows):
  text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
  path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
  return path


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz"])
def test_one_row_out_for_each_row_in(tmp_path, name):
  out = tmp_path / "out.jsonl"
  assert check_leaks.main([f"--rows={write(tmp_path / name, ROWS)}", f"--out={out}"]) == 0
  assert [json.loads(line) for line in out.read_text().splitlines()] == [
      {"id": 1, "leaked": True, "kind": "words", "span": "forty-two"},
      {"id": "b", "leaked": False, "kind": None, "span": None},
      {"id": "c", "leaked": True, "kind": "test", "span": "5"},
      {"id": "d", "leaked": False, "kind": None, "span": None}]
  assert sorted(p.name for p in tmp_path.iterdir()) == [name, "out.jsonl"]


@pytest.mark.parametrize("row, message", [
    ({"id": 1, "problem": "p", "answer": "4"}, "in.jsonl:2: field 'turn': expected str, got nothing"),
    ({"problem": "p", "answer": "4", "turn": "t"},
    "in.jsonl:2: field 'id': expected text or a whole number, got nothing"),
    ({"id": True, "problem": "p", "answer": "4", "turn": "t"}, "in.jsonl:2: field 'id'"),
    ({"id": 1, "problem": "p", "answer": 4, "turn": "t"}, "in.jsonl:2: field 'answer': expected str, got 4"),
    ({"id": 1, "problem": "p", "answer": "4", "turn": "t", "tests": "x"}, "in.jsonl:2: field 'tests': expected a list"),
    ({"id": 1, "problem": "p", "answer": "4", "turn": "t", "tests": False}, "in.jsonl:2: field 'tests': expected"),
    ({"id": 1, "problem": "p", "answer": "4", "turn": "t", "tests": [1]}, "in.jsonl:2: field 'tests': expected a list"),
    ("{", "in.jsonl:2"), ("[1]", "in.jsonl:2"),
])
def test_a_malformed_row_stops_with_one_line_and_writes_nothing(tmp_path, capsys, row, message):
  rows, out = write(tmp_path / "in.jsonl", [ROWS[0], row]), tmp_path / "out.jsonl"
  assert check_leaks.main([f"--rows={rows}", f"--out={out}"]) == 1
  error = capsys.readouterr().err
  assert message in error and error.startswith("error: ") and error.count("\n") == 1 and not out.exists()


def test_missing_input_and_unwritable_output(tmp_path, capsys):
  assert check_leaks.main([f"--rows={tmp_path / 'no.jsonl'}", f"--out={tmp_path / 'out.jsonl'}"]) == 1
  assert "no.jsonl" in capsys.readouterr().err
  rows = write(tmp_path / "in.jsonl", ROWS)
  assert check_leaks.main([f"--rows={rows}", f"--out={tmp_path / 'no' / 'out.jsonl'}"]) == 1
  assert "--out=" in capsys.readouterr().err


def test_the_example_in_help_is_true(tmp_path, capsys):
  with pytest.raises(SystemExit) as e:
    check_leaks.main(["--help"])
  assert e.value.code == 0
  text = capsys.readouterr().out
  given, expected = (json.loads(line.split(None, 1)[1]) for line in text.splitlines() if line.startswith(("  in ",
      "  out ")))
  rows, out = write(tmp_path / "in.jsonl", [given]), tmp_path / "out.jsonl"
  assert check_leaks.main([f"--rows={rows}", f"--out={out}"]) == 0
  assert json.loads(out.read_text()) == expected
