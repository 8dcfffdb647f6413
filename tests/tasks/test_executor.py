import os
import pathlib
import signal
import subprocess
import time

import pytest

from sml_jax.tasks import executor as executor_module
from sml_jax.tasks.executor import Executor, Outcome, Submission, same

RIGHT = "def f(x):\n  return 2 * x + 9"


@pytest.fixture(scope="module")
def executor():
  with Executor(timeout_s=0.3, wall_s=1.0) as e:
    yield e


def test_outputs_are_those_of_the_function(executor):
  assert executor.outputs(RIGHT, [[0], [1], [-4]]) == Outcome("ok", [9, 11, 1])
  assert executor.outputs("g = lambda a, b: [a, {'k': b}, None, True, 1.5]", [[1, "x"]], entry="g") == Outcome(
      "ok", [[1, {"k": "x"}, None, True, 1.5]])


@pytest.mark.parametrize("code, error", [
    ("def f(x):\n  return x / 0", "ZeroDivisionError"),
    ("def f(x) return x", "SyntaxError"),
    ("f(", "SyntaxError"),
    ("g = 1", "KeyError"),
    ("f = 1", "TypeError"),
    ("def f(x):\n  return f(x)", "RecursionError"),
    ("import sys\nsys.exit(0)", "SystemExit"),
    ("def f(x):\n  raise KeyboardInterrupt", "KeyboardInterrupt"),
    ("import os\nos._exit(0)", "died"),
    ("import os\ndef f(x):\n  os.kill(os.getpid(), 9)", "died"),
    ("import os\ndef f(x):\n  os.abort()", "died"),
    ("def f(x):\n  return [0] * 10 ** 9", "MemoryError"),
    ("def f(x):\n  return 'x' * 10 ** 6", "output too long"),
    ("def f(x):\n  return 10 ** 5000", "output too long"),
    ("def f(x):\n  return (1, 2)", "TypeError"),
    ("def f(x):\n  return {1: 2}", "TypeError"),
    ("class A(int):\n  def __eq__(self, other): return True\ndef f(x): return A(1)", "TypeError"),
    ("def f(x):\n  a = []\n  a.append(a)\n  return a", "RecursionError"),
    ("import subprocess\ndef f(x): return 1", None),
    ("\x00", None),
    ("'\ud800'", None),
])
def test_a_bad_submission_is_an_error_and_hurts_nobody_else(executor, code, error):
  pid = executor._worker.pid if executor._worker else None
  outcomes = executor.outputs_batch([Submission(RIGHT, [[5]]), Submission(code, [[1]]), Submission(RIGHT, [[6]])])
  assert outcomes[0] == Outcome("ok", [19]) and outcomes[2] == Outcome("ok", [21])
  assert outcomes[1].status == "error" and outcomes[1].error == (error or outcomes[1].error)
  assert pid is None or executor._worker.pid == pid  # the worker itself lives on


def test_memory_that_is_eaten_bit_by_bit_runs_out(executor):
  """It meets the limit on memory or, where pages are slow to come, that on time; its neighbours notice nothing."""
  eats = "def f(x):\n  a = []\n  while True: a.append('x' * 10 ** 6)"
  submissions = [Submission(RIGHT, [[7]]), Submission(eats, [[1]]), Submission(RIGHT, [[8]])]
  before, eater, after = executor.outputs_batch(submissions)
  assert before.status == after.status == "ok"
  assert eater.status in ("error", "timeout") and not eater.values


def test_outputs_before_the_failing_call_are_kept(executor):
  assert executor.outputs("def f(x):\n  return 6 // x", [[1], [2], [0], [3]]) == Outcome(
      "error", [6, 3], "ZeroDivisionError")


@pytest.mark.parametrize("code", ["def f(x):\n  while True: pass", "while True: pass",
                                  "import time\ndef f(x):\n  time.sleep(99)"])
def test_endless_code_is_a_timeout(executor, code):
  start = time.monotonic()
  assert [o.status for o in executor.outputs_batch([Submission(code, [[1]]), Submission(RIGHT, [[7]])])] == [
      "timeout", "ok"]
  assert time.monotonic() - start < 10


def test_code_that_silences_its_alarms_is_killed_from_outside():
  code = ("import signal, time\nfor s in (signal.SIGPROF, signal.SIGALRM):\n  signal.signal(s, signal.SIG_IGN)\n"
          "def f(x):\n  time.sleep(99)")
  with Executor(timeout_s=0.1, wall_s=0.2) as executor:
    outcomes = executor.outputs_batch([Submission(code, [[1]]), Submission(RIGHT, [[8]])])
  assert outcomes == [Outcome("timeout", [], "out of time"), Outcome("ok", [25])]


def test_prints_go_nowhere(executor, capfd):
  code = "import sys\nprint('[1]')\ndef f(x):\n  print('{}', file=sys.stderr, flush=True)\n  return 3"
  assert executor.outputs(code, [[1]]) == Outcome("ok", [3])
  assert capfd.readouterr() == ("", "")


def test_forged_output_is_an_error_of_its_own_submission(executor):
  spray = ("import os\nline = b'{\"status\": \"ok\", \"values\": [9], \"error\": \"\"}\\n'\n"
           "for fd in range(64):\n  try:\n    os.write(fd, line)\n  except OSError:\n    pass\ndef f(x): return 1")
  outcomes = executor.outputs_batch([Submission(spray, [[1]]), Submission(RIGHT, [[11]])])
  assert outcomes == [Outcome("error", [], "forged output"), Outcome("ok", [31])]


def test_submissions_do_not_see_each_other(executor):
  outcomes = executor.outputs_batch([
      Submission("import builtins\nbuiltins.sum = None\nhidden = 1\ndef f(x): return 1", [[1]]),
      Submission("def f(x): return [sum([x, 1]), 'hidden' in globals()]", [[1]]),
  ])
  assert outcomes[1] == Outcome("ok", [[2, False]])


def test_no_files_are_written_and_no_processes_started(executor, tmp_path):
  target = tmp_path / "x"
  executor.outputs(f"def f(x):\n  with open({str(target)!r}, 'w') as g:\n    g.write('abc')\n  return 1", [[1]])
  assert not target.exists() or target.read_text() == ""
  assert executor.outputs("import os\ndef f(x): return os.fork()", [[1]]).status == "error"


def test_same_code_gives_the_same_output_in_every_worker():
  code = "import random\ndef f(x): return [list({'a', 'b', 'c', 'd'}), random.random()]"
  seen = []
  for _ in range(2):
    with Executor() as executor:
      seen.append(executor.outputs(code, [[1]]))
  assert seen[0] == seen[1] and seen[0].status == "ok"


def test_equal_submissions_run_once():
  code = "import time\ndef f(x): return time.perf_counter_ns()"
  with Executor() as executor:
    first, twin = executor.outputs_batch([Submission(code, [[1]])] * 2)
    assert first.status == "ok" and twin is first
    assert executor.outputs(code, [[1]]) is first
    assert executor.outputs(code, [[2]]) != first
    assert executor.outputs(code + " ", [[1]]) != first


def test_a_worker_killed_from_outside_is_replaced(executor):
  executor.outputs(RIGHT, [[100]])
  old = executor._worker.pid
  os.killpg(old, signal.SIGKILL)
  assert executor.outputs(RIGHT, [[101]]) == Outcome("ok", [211])
  assert executor._worker.pid != old


def test_a_worker_that_can_not_be_started_is_a_failure_and_never_wrong(monkeypatch):
  with Executor() as executor:
    monkeypatch.setattr(executor_module.sys, "executable", "/no/such/python")
    assert [o.status for o in executor.outputs_batch([Submission(RIGHT, [[1]]), Submission(RIGHT, [[2]])])] == [
        "failed", "failed"]
    monkeypatch.undo()
    # A failure is not remembered.
    assert executor.outputs(RIGHT, [[1]]) == Outcome("ok", [11])


def test_a_worker_that_dies_twice_is_a_failure(monkeypatch):
  starts = []

  def popen(command, **kwargs):
    starts.append(command)
    return real([command[0], "-c", "pass"], **kwargs)

  real = subprocess.Popen
  monkeypatch.setattr(executor_module.subprocess, "Popen", popen)
  with Executor() as executor:
    assert executor.outputs(RIGHT, [[1]]).status == "failed"
  assert len(starts) == 2


def members(group: int) -> list[str]:
  """States of the living processes of a process group."""
  states = []
  for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
    try:
      state, _, its_group, *_ = path.read_text().rpartition(")")[2].split()
    except OSError:  # it has just ended
      continue
    if int(its_group) == group and state not in "ZX":
      states.append(state)
  return states


def test_close_leaves_no_process_behind():
  executor = Executor()
  executor.outputs(RIGHT, [[1]])
  worker = executor._worker
  executor.close()
  assert worker.poll() is not None
  deadline = time.monotonic() + 10  # a killed process takes a moment to be gone
  while alive := members(worker.pid):
    assert time.monotonic() < deadline, alive
    time.sleep(0.02)


def test_large_batches(executor):
  batch = [Submission(f"def f(x):\n  return x * {i}" + " # " + "long " * 400, [[j] for j in range(5)])
           for i in range(200)]
  assert [o.values for o in executor.outputs_batch(batch)] == [[j * i for j in range(5)] for i in range(200)]


@pytest.mark.parametrize("value, expected, equal", [
    (1, 1, True), (True, 1, False), (1.0, 1, False), ([1, [2]], [1, [2]], True), ([1, True], [1, 1], False),
    ({"a": 1}, {"a": 1}, True), ({"a": 1}, {"a": True}, False), ([1], [1, 2], False), ("1", 1, False),
    (None, False, False), (float("nan"), float("nan"), False),
])
def test_same_compares_types_too(value, expected, equal):
  assert same(value, expected) is equal
