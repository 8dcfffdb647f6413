import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from sml_jax.tasks import execute
from sml_jax.tasks.sandbox import BACKENDS, works

BACKEND = next((name for name in BACKENDS if not works(name)), None)
PROBLEM = {"prompt": "Write add(a, b).", "entry_point": "add",
    "tests": ["assert add(2, 3) == 5", "assert add(0, 0) == 0"],
           "io_tests": [{"args": [0.1, 0.2], "expected": 0.3}]}
CODES = {
    "a": "def add(a, b): return a + b", "b": "So:\n```python\ndef add(a, b):\n  return a + b\n```\n"
    "```\ndef main(): print(add(1, 2))\n```",
    "c": "def add(a, b): return a - b",
    "d": "I cannot.", "e": "def add(a, b): return [a][b]",
}


def run(folder, problem=PROBLEM, lines=None, *more):
  (folder / "problem.json").write_text(problem if isinstance(problem, str) else json.dumps(problem))
  lines = [json.dumps({"id": name, "code": code}) for name, code in CODES.items()] if lines is None else lines
  (folder / "in.jsonl").write_text("\n".join(lines) + "\n")
  return execute.main([f"--problem={folder}/problem.json", f"--submissions={folder}/in.jsonl",
      f"--out={folder}/out.jsonl", *more])


@pytest.mark.skipif(BACKEND is None, reason="no backend works here")
def test_one_row_out_for_each_row_in(tmp_path, capsys):
  assert run(tmp_path, PROBLEM, None, f"--backend={BACKEND}", "--workers=2") == 0
  assert capsys.readouterr() == ("", "")
  rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
  assert [(r["id"], r["passed"], r["verdict"], r["passed_tests"]) for r in rows] == [
      ("a", True, "passed", 3), ("b", True, "passed", 3), ("c", False, "wrong", 1), ("d", False, "no_code", 0),
      ("e", False, "error", 1)]
  assert rows[2]["first_failure"] == {"input": "2, 3", "expected": "5", "actual": "-1", "error": ""}
  assert rows[0]["first_failure"] is None and rows[0]["total_tests"] == 3 and rows[0]["seconds"] > 0
  assert sorted(os.listdir(tmp_path)) == ["in.jsonl", "out.jsonl", "problem.json"]


@pytest.mark.skipif(BACKEND is None, reason="no backend works here")
def test_no_rows_are_no_error(tmp_path):
  assert run(tmp_path, PROBLEM, [], f"--backend={BACKEND}") == 0 and (tmp_path / "out.jsonl").read_text() == ""


@pytest.mark.parametrize("problem, lines, message", [
    ("{", None, "problem.json: expected JSON"), ("[]", None, "problem.json: expected a JSON object, got []"),
    ({**PROBLEM, "test_list": []}, None, "problem.json: unknown key 'test_list': expected prompt"),
    ({**PROBLEM, "tests": "assert 1"}, None, 'problem.json: tests: expected a list, got "assert 1"'),
    ({**PROBLEM, "tests": [1]}, None, "problem.json: tests 1: expected a string, got 1"),
    ({**PROBLEM, "tests": ["assert add("]}, None, "problem.json: assert 1: expected Python"),
    ({**PROBLEM, "io_tests": [{"args": 1}]}, None, 'problem.json: io_tests 1: expected {"args"'),
    ({**PROBLEM, "entry_point": "a b"}, None, "problem.json: entry_point: expected the name of a function, got 'a b'"),
    ({**PROBLEM, "entry_point": "def"}, None, "problem.json: entry_point: expected the name of a function, got 'def'"),
    ({"prompt": ""}, None, "problem.json: entry_point: expected the name of a function, got None"),
    ({"entry_point": "add"}, None, "problem.json: the problem of 'add' has no tests"),
    (PROBLEM, ['{"id": 1, "code": ""}', "x"], "in.jsonl:2: expected JSON"),
    (PROBLEM, ['{"id": 1, "code": ""}', "", '{"id": 1}'],
        'in.jsonl:3: expected {"id": ..., "code": "..."}, got {"id": 1}'),
    (PROBLEM, ['{"id": 1, "code": 5}'], "in.jsonl:1: expected"),
])
def test_bad_input_is_one_line(tmp_path, capsys, problem, lines, message):
  assert run(tmp_path, problem, lines, "--backend=rlimits") == 1
  out, err = capsys.readouterr()
  assert out == "" and err.startswith(f"error: {tmp_path}/{message}") and err.count("\n") == 1
  assert not (tmp_path / "out.jsonl").exists()


def test_bad_flags_and_files(tmp_path, capsys):
  for flag, value in (("workers", "0"), ("cpu_s", "nan"), ("memory_mb", "9999999")):
    assert run(tmp_path, PROBLEM, None, f"--{flag}={value}") == 1
    assert capsys.readouterr().err == f"error: --{flag}: expected a number above 0 and up to 1,000,000, got {value}\n"
  assert run(tmp_path, PROBLEM, None, "--backend=docker") == 1
  assert capsys.readouterr().err.startswith("error: unknown backend 'docker': expected one of auto, bubblewrap, ")
  os.mkfifo(tmp_path / "pipe")
  assert run(tmp_path, PROBLEM, None, f"--out={tmp_path}/pipe") == 1
  assert capsys.readouterr().err == f"error: --out={tmp_path}/pipe: expected a file, or nothing yet\n"
  assert run(tmp_path, PROBLEM, None, f"--out={tmp_path}/none/out.jsonl") == 1
  assert capsys.readouterr().err == f"error: --out={tmp_path}/none/out.jsonl: its folder does not exist\n"
  assert run(tmp_path, PROBLEM, None, "--problem=/nonexistent.json") == 1
  assert capsys.readouterr().err == "error: /nonexistent.json: No such file or directory\n"


def test_help_shows_an_example_and_the_command_loads_no_jax(tmp_path):
  out = subprocess.run([sys.executable, "-X", "importtime", "-m", "sml_jax.tasks.execute", "--help"],
      capture_output=True, text=True)
  assert out.returncode == 0 and '"entry_point": "add"' in out.stdout and "UNSAFE" in out.stdout
  loaded = {line.split("|")[-1].strip() for line in out.stderr.splitlines()}
  assert not loaded & {"jax", "numpy", "flax"}


@pytest.mark.skipif(bool(works("rlimits")), reason=f"rlimits: {works('rlimits')}")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once_and_leaves_nothing(tmp_path, number):
  os.mkfifo(tmp_path / "began")  # the program has begun when it is opened
  for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
    folder.chmod(0o755)
  code = f"open({str(tmp_path / 'began')!r})\nimport time\ntime.sleep(1000)\ndef add(): 1"
  (tmp_path / "problem.json").write_text(json.dumps(PROBLEM))
  (tmp_path / "in.jsonl").write_text(json.dumps({"id": 1, "code": code}))
  process = subprocess.Popen(
      [sys.executable, "-m", "sml_jax.tasks.execute", f"--problem={tmp_path}/problem.json", "--backend=rlimits",
       f"--submissions={tmp_path}/in.jsonl", f"--out={tmp_path}/out.jsonl"], stderr=subprocess.PIPE, text=True)
  with open(tmp_path / "began", "w"):
    tasks = pathlib.Path(f"/proc/{process.pid}/task")
    children = [child for task in os.listdir(tasks) for child in (tasks / task / "children").read_text().split()]
    process.send_signal(number)
    error = process.communicate(timeout=20)[1]
  assert (process.returncode, error) == (130, "error: interrupted; nothing is written\n")
  assert len(children) == 1 and not os.path.exists(f"/proc/{children[0]}")
  assert sorted(os.listdir(tmp_path)) == ["began", "in.jsonl", "problem.json"]


@pytest.mark.skipif(BACKEND is None, reason="no backend works here")
def test_ints_of_ten_thousand_digits_and_a_byte_order_mark(tmp_path):
  long = "9" * 10_000
  (tmp_path / "problem.json").write_text(
      '\ufeff{"entry_point": "f", "tests": ["assert f(1) == LONG"], "io_tests": [{"args": [LONG], "expected": LONG}]}'
      .replace("LONG", long))
  (tmp_path / "in.jsonl").write_text(json.dumps({"id": 1, "code": f"def f(x): return {long}"}))
  out = subprocess.run([sys.executable, "-m", "sml_jax.tasks.execute", f"--problem={tmp_path}/problem.json",
                        f"--backend={BACKEND}", f"--submissions={tmp_path}/in.jsonl", f"--out={tmp_path}/out.jsonl"],
                       capture_output=True, text=True)
  assert (out.returncode, out.stderr) == (0, "")
  assert json.loads((tmp_path / "out.jsonl").read_text())["passed_tests"] == 2
