r"""The worker processes: verdicts, limits, deaths, threads, and what they leave behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from sml_jax.errors import UserError
from sml_jax.tasks.answers import symbolic
from sml_jax.tasks.answers.symbolic import SymbolicComparer, too_big

needs_math_verify = pytest.mark.skipif(not symbolic.available(), reason="Math-Verify is not installed")
SAME = ("\\sqrt{12}", "2\\sqrt{3}")
OTHER = ("\\sqrt{12}", "2\\sqrt{2}")


@pytest.fixture(scope="module")
def comparer():
  with SymbolicComparer(workers=2) as comparer:
    yield comparer


def pids(comparer):
  return [w.process.pid for w in comparer._workers if w.process]


@needs_math_verify
def test_verdicts_in_order(comparer):
  pairs = [SAME, OTHER, ("\\sqrt{12}", "\\sum_{k=1}^3 k"), SAME, *((f"\\sqrt{{{i}}}",
  "\\sqrt{2}") for i in range(2, 30))]
  assert comparer.compare(pairs) == ["equal", "differs", "unparsable", "equal", "equal", *["differs"] * 27]
  assert comparer.compare([]) == []


@needs_math_verify
@pytest.mark.parametrize("gold, given", [
    # What Math-Verify 0.9.0 alone takes for equal.
    ("1-\\frac{1}{e}", "1-\\frac{1}{e}+10^{-16}"), ("\\frac{1}{2004!}", "\\frac{1}{2006!}"), ("60\\%", "0.6"),
    ("\\frac13+\\pi", "0.3333333+\\pi"),
    ("\\sqrt{\\frac{2^{2009}-1}{3\\cdot 2^{2008}-1}}", "\\sqrt{\\frac{2^{2009}+1}{3\\cdot 2^{2008}-1}}"),
    ("\\sqrt{2}", "\\{\\sqrt{2}\\}"), ("2^{1100}", "2^{1100}+1"),
])  # fmt: skip
def test_not_equal_whatever_math_verify_says(comparer, gold, given):
  assert comparer.compare([(gold, given)])[0] != "equal"


@needs_math_verify
def test_bombs_end_in_time_and_do_no_harm(comparer):
  bombs = ["9^{9^{9^{9}}}", "(" * 2000 + "x" + ")" * 2000, "1" * 1_000_000, "\\sum_{k=1}^{10^{9}} k^k",
  "\\prod_{k=1}^{10^9} k", "x^{x^{x^{x^{x}}}}",
           "(x+1)^{999999999}", "((((x+y)^{99})^{99})^{99})^{99}", "\\binom{99999999}{9999999}", "999999999!",
           "\\sqrt[1000]{" * 30 + "2" + "}" * 30,
           "\\frac{" * 30 + "1" + "}{x+1}" * 30, "\\int_0^1 x^x dx", "\\sin(10^{10^{10}})",
           "\\lfloor 10^{100000} \\pi \\rfloor"]  # fmt: skip
  start = time.monotonic()
  for bomb in bombs:
    for pair in (("x", bomb), (bomb, f"2-1+{bomb}"), ("2\\pi", bomb)):
      assert comparer.compare([pair])[0] != "equal"
      assert time.monotonic() - start < 300
  assert comparer.compare([("\\sqrt{20}", "2\\sqrt{5}"), ("\\sqrt{20}", "3\\sqrt{5}")]) == ["equal", "differs"]


# Stands for the worker: it answers what the pair asks for.
FAKE = """
import json, os, signal, sys, time
print('"ready"', flush=True)
for line in sys.stdin:
  gold, given = json.loads(line)
  if given == "spin":
    signal.setitimer(signal.ITIMER_PROF, 0.2)
    while True: pass
  if given == "sleep": time.sleep(600)
  if given == "die": os._exit(3)
  if given == "die once" and not os.path.exists(gold):
    open(gold, "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
  print(json.dumps("equal" if given == "die once" else given), flush=True)
"""


@pytest.fixture
def fake(monkeypatch):
  real = subprocess.Popen
  monkeypatch.setattr(symbolic, "available", lambda: True)
  monkeypatch.setattr(symbolic.subprocess, "Popen", lambda command, **kw: real([sys.executable, "-c", FAKE], **kw))
  with SymbolicComparer(cpu_s=0.2, wall_s=1, workers=2) as comparer:
    yield comparer


def test_time_limits_kill_and_later_comparisons_work(fake):
  start = time.monotonic()
  assert fake.compare([("a", "spin"), ("b", "equal"), ("c", "sleep"),
  ("d", "differs")]) == ["timeout", "equal", "timeout", "differs"]
  assert time.monotonic() - start < 30
  assert fake.compare([("e", "equal")]) == ["equal"]


def test_a_death_is_tried_once_more(fake, tmp_path):
  assert fake.compare([(str(tmp_path / "mark"), "die once")]) == ["equal"]
  assert fake.compare([("a", "die"), ("b", "equal")]) == ["unparsable", "equal"]


def test_pairs_seen_before_are_not_asked_again(fake):
  assert fake.compare([("a", "equal")] * 3) == ["equal"] * 3
  fake.close()
  assert fake.compare([("a", "equal")]) == ["equal"] and pids(fake) == []
  assert fake.compare([("z", "equal")]) == ["equal"] and len(pids(fake)) == 1


def test_a_killed_idle_worker_is_replaced(fake):
  fake.compare([("a", "equal")])
  os.killpg(pids(fake)[0], signal.SIGKILL)
  assert fake.compare([("b", "differs")]) == ["differs"]


def test_from_many_threads(fake):
  found = {}

  def work(i):
    found[i] = fake.compare([(str(i), "equal"), (str(i), "differs")])

  threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert found == {i: ["equal", "differs"] for i in range(12)}


@pytest.mark.parametrize("end", ["close", "collect"])
def test_nothing_is_left_behind(fake, end):
  comparer = SymbolicComparer(workers=1)
  comparer.compare([("a", "equal")])
  pid, = pids(comparer)
  if end == "close":
    comparer.close()
    comparer.close()
  else:
    del comparer
    gc.collect()
  with pytest.raises(ProcessLookupError):
    os.kill(pid, 0)


def test_a_worker_that_does_not_start_is_no_verdict(monkeypatch):
  real = subprocess.Popen
  monkeypatch.setattr(symbolic, "available", lambda: True)
  monkeypatch.setattr(symbolic.subprocess, "Popen", lambda command, **kw: real([sys.executable, "-c", "1/0"], **kw))
  with SymbolicComparer(workers=1) as comparer, pytest.raises(UserError, match="does not start"):
    comparer.compare([SAME])


def test_size_limits():
  assert too_big("x" * 2001) and too_big("(" * 41 + ")" * 41) and too_big("{[(" * 20)
  assert not too_big("x" * 2000) and not too_big("()" * 500) and not too_big("")
  with SymbolicComparer() as comparer:
    assert comparer.compare([("x", "(" * 2000 + ")" * 2000)]) == ["unparsable"] and pids(comparer) == []


def test_without_math_verify_it_says_what_to_install(monkeypatch):
  monkeypatch.setattr(symbolic, "available", lambda: False)
  with SymbolicComparer() as comparer, pytest.raises(UserError, match=r"needs Math-Verify: pip install") as e:
    comparer.compare([SAME])
  assert "\n" not in str(e.value)
