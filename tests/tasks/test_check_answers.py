r"""The command that checks a file of answers."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from sml_jax.tasks import check_answers
from sml_jax.tasks.answers import symbolic

ROWS = [
    {"id": 1, "gold": "5", "pred": "The answer is 5.", "kind": "response"},
    {"id": "two", "gold": "5", "pred": "5 or 6", "kind": "answer"},
    {"id": None, "gold": "\\frac{1}{2", "pred": "1/2", "kind": "answer"},
    {"id": [4], "gold": "x+1", "pred": "no", "kind": "response", "more": 1},
    {"id": 1, "gold": "1/2", "pred": "\\boxed{\\frac12}", "kind": "response"},
]  # fmt: skip
OUT = [
    {"id": 1, "correct": True, "verdict": "equal", "extracted": "5"},
    {"id": "two", "correct": False, "verdict": "differs", "extracted": "5 or 6"},
    {"id": None, "correct": False, "verdict": "unparsable", "extracted": "1/2"},
    {"id": [4], "correct": False, "verdict": "no_answer", "extracted": None},
    {"id": 1, "correct": True, "verdict": "equal", "extracted": "\\frac12"},
]  # fmt: skip


def write(path, rows):
  path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
  return path


def run(*args):
  command = [sys.executable, "-m", "sml_jax.tasks.check_answers", *map(str, args)]
  return subprocess.run(command, capture_output=True, text=True)


def test_a_row_out_for_each_row_in(tmp_path):
  done = run(f"--rows={write(tmp_path / 'in.jsonl', ROWS)}", f"--out={tmp_path / 'out.jsonl'}")
  assert done.returncode == 0 and done.stdout == "differs: 1, equal: 2, no_answer: 1, unparsable: 1\n"
  assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == OUT
  assert "in.jsonl:3: field 'gold': the braces of the answer do not match" in done.stderr
  assert "\n1 golds are not understood" in done.stderr
  assert {p.name for p in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl"}


def test_help_has_the_formats_and_an_example():
  text = run("--help").stdout
  for word in ("--rows", "--out", '"kind": "response"', "no_answer", "unparsable", "timeout", "extracted"):
    assert word in text


@pytest.mark.skipif(not symbolic.available(), reason="Math-Verify is not installed")
def test_the_example_of_the_help(tmp_path):
  lines = [line.strip() for line in check_answers.__doc__.splitlines() if line.strip().startswith("{")]
  done = run(f"--rows={write(tmp_path / 'in.jsonl', lines[:2])}", f"--out={tmp_path / 'out.jsonl'}")
  assert done.returncode == 0 and (tmp_path / "out.jsonl").read_text().splitlines() == lines[2:]


@pytest.mark.parametrize("row, message", [
    ("{", "in.jsonl:6: not JSON"), ("[1]", "in.jsonl:6: expected an object"),
    ({**ROWS[0], "kind": "guess"}, "in.jsonl:6: field 'kind'"),
    ({"gold": "5", "pred": "5", "kind": "answer"}, "in.jsonl:6: field 'id'"),
    ({"id": 1, "pred": "5", "kind": "answer"}, "in.jsonl:6: field 'gold'"),
    ({**ROWS[0], "pred": 5}, "in.jsonl:6: field 'pred': expected str, got 5"),
    ({**ROWS[0], "gold": None}, "in.jsonl:6: field 'gold'"),
])  # fmt: skip
def test_a_malformed_row_stops_with_one_line(tmp_path, row, message, capsys):
  assert message in error(capsys, write(tmp_path / "in.jsonl", [*ROWS, row]), tmp_path / "out.jsonl")
  assert not (tmp_path / "out.jsonl").exists()


def error(capsys, rows, out) -> str:
  """The one line that a call says which ends with exit code 1."""
  assert check_answers.main([f"--rows={rows}", f"--out={out}"]) == 1
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("error: ")
  return line


def test_missing_files(tmp_path, capsys):
  assert "there is no such file" in error(capsys, tmp_path / "no.jsonl", tmp_path / "out.jsonl")
  rows = write(tmp_path / "in.jsonl", ROWS)
  assert "its folder does not exist" in error(capsys, rows, tmp_path / "no" / "out.jsonl")
  assert "expected a file, or nothing yet" in error(capsys, rows, tmp_path)


def test_an_old_file_survives_a_failed_run(tmp_path, capsys):
  (tmp_path / "out.jsonl").write_text("old")
  error(capsys, write(tmp_path / "in.jsonl", ["{"]), tmp_path / "out.jsonl")
  assert (tmp_path / "out.jsonl").read_text() == "old"


def test_an_interrupted_run_writes_nothing(tmp_path, capsys, monkeypatch):
  def interrupted(*args):
    raise KeyboardInterrupt

  monkeypatch.setattr("sml_jax.tasks.answers.check", interrupted)
  arguments = [f"--rows={write(tmp_path / 'in.jsonl', ROWS)}", f"--out={tmp_path / 'out.jsonl'}"]
  assert check_answers.main(arguments) == 130 and not (tmp_path / "out.jsonl").exists()
  assert capsys.readouterr().err == "error: interrupted; nothing is written\n"


def test_without_math_verify_the_error_is_one_line(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(symbolic, "available", lambda: False)
  rows = write(tmp_path / "in.jsonl", [{"id": 1, "gold": "\\sqrt{12}", "pred": "7\\sqrt{3}", "kind": "answer"}])
  assert "needs Math-Verify" in error(capsys, rows, tmp_path / "out.jsonl")


def test_thousands_of_rows_take_seconds(tmp_path):
  rows = [{"id": i, "gold": str(i), "pred": f"{i}+1={i + 1}. The answer is {i}.",
  "kind": "response"} for i in range(5000)]
  start = time.process_time()
  check_answers.main([f"--rows={write(tmp_path / 'in.jsonl', rows)}", f"--out={tmp_path / 'out.jsonl'}"])
  assert time.process_time() - start < 20
  assert all(json.loads(line)["correct"] for line in (tmp_path / "out.jsonl").read_text().splitlines())


def test_no_jax_and_no_sympy_is_loaded():
  code = "import sys, sml_jax.tasks.check_answers; print(sorted({'jax', 'sympy', 'math_verify'} & set(sys.modules)))"
  assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
