"""Programs and their verdicts: runs a submission in a sandbox, asks it for values, and judges them outside of it."""

from __future__ import annotations

import dataclasses
import re
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import Any, Literal

from sml_jax.tasks.cases import Case, Plan, no_handle, plan_of, shown
from sml_jax.tasks.sandbox import Ended, Process, Sandbox
from sml_jax.tasks.sandbox_values import MAX_DRAIN, decode, encode

Verdict = Literal["passed", "wrong", "error", "timeout", "no_code", "failed"]

SHOWN = 500  # characters of each text of a failure
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_FUNCTION = r"^\f*(?:async[ \t]+)?def[ \t]+\w+"
# Classes that a test may use and leave to the program to import: the program's could make anything equal.
_KNOWN = {**dict.fromkeys(("Counter", "OrderedDict", "ChainMap", "defaultdict", "deque", "namedtuple"), "collections"),
          "Decimal": "decimal", "Fraction": "fractions"}


@dataclasses.dataclass(frozen=True)
class Problem:
  """What a program must do. Build two, with the public and the hidden tests: it costs nothing.

  Attributes:
    prompt: the text; where it is Python (HumanEval), its imports and helper functions are there for the program too.
    entry_point: the function to call.
    setup: Python to run before the tests, in the test's process; its imports are there for the program too.
    asserts: Python texts, each one test: mostly one `assert entry_point(...) == value`.
    io_tests: {"args": [...], "expected": value} in plain JSON, each one test.
    test: HumanEval's `def check(candidate): ...`: a test for each assert where it holds nothing else, else one.
  """

  prompt: str
  entry_point: str
  setup: str = ""
  asserts: tuple[str, ...] = ()
  io_tests: tuple[dict, ...] = ()
  test: str = ""

  def plan(self) -> Plan:
    """Raises UserError for a test that is not Python, or if there are none."""
    return plan_of(self.prompt, self.entry_point, self.setup, self.asserts, self.io_tests, self.test)


@dataclasses.dataclass(frozen=True)
class Failure:
  """The first test that failed. Texts of at most SHOWN characters: the arguments, what was expected, what came back
  ("" if nothing), and the error ("" if none)."""

  input: str
  expected: str
  actual: str
  error: str


@dataclasses.dataclass(frozen=True)
class Report:
  """A submission's verdict.

  Attributes:
    verdict: "passed" all tests; "wrong" a value was not the expected one; "error" it raised, died, or tampered with the
      channel; "timeout"; "no_code" nothing to run; "failed" the executor did not work, which is nobody's wrong answer.
      Of several failures the first decides, but for a timeout.
    passed_tests, total_tests: all tests are run, but for those after a death or a timeout, which do not pass.
    seconds: on the clock.
  """

  verdict: Verdict
  passed_tests: int
  total_tests: int
  seconds: float
  first_failure: Failure | None = None


def extract_code(text: str, entry_point: str = "") -> str | None:
  """The program in a reply: the last fenced block that defines the entry point at its top level, or has any function
  there if none does. Without any fence, or where the first one is inside of a docstring, the whole text takes the place
  of the blocks. None if there is no program.

  Nothing is parsed, since Python's own parser can be made to hang or crash: text that is no Python is found out in
  the sandbox.
  """
  lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
  blocks, mark, start, first, quotes = [], "", 0, len(lines), [0, 0]
  for number, line in enumerate([*lines, ""]):  # no regular expression here either: a reply could make it hang
    bare, indent = line.strip(), len(line) - len(line.lstrip())
    if not mark and bare.startswith(("```", "~~~")) and "`" not in bare.lstrip(bare[0]):
      mark, start, first, margin = bare[:len(bare) - len(bare.lstrip(bare[0]))], number + 1, min(first, number), indent
      quotes = [0, 0]
    elif mark and (number == len(lines) or (bare.startswith(mark) and not bare.strip(mark[0])
                                            and (indent <= margin or not any(quotes)))):  # else it is in a docstring
      block = "\n".join(lines[start:number])
      blocks.append(textwrap.dedent(block) if block.strip("\n")[:1].isspace() else block)
      mark = ""
    quotes = [odd ^ line.count(quote) % 2 for odd, quote in zip(quotes, ('"""', "'''"), strict=True)]
  before = "\n".join(lines[:first])
  if not blocks or before.count('"""') % 2 or before.count("'''") % 2:
    blocks = ["\n".join(lines)]
  name = re.escape(entry_point or "def")
  wanted = (rf"^\f*(?:(?:async[ \t]+)?def|class)[ \t]+{name}\b", rf"^\f*{name}[ \t]*(?::[^=\n]*)?=(?!=)", _FUNCTION)
  return next((block for pattern in wanted for block in reversed(blocks) if re.search(pattern, block, re.M)), None)


def grade(sandbox: Sandbox, submissions: Sequence[tuple[Problem, str | None]]) -> list[Report]:
  """The reports of (problem, program) pairs, in order; a program of None has no code.

  One that ran out of clock time, not CPU time, may have met a busy machine: it is run once more, alone, after the
  others; so is one that the executor failed on. Those that hardly used the CPU, as programs that sleep, are run once
  more together, lest they take a long time one after the other.

  Raises:
    UserError: a problem's tests are no tests.
  """
  plans = {id(problem): problem.plan() for problem, _ in submissions}
  jobs = [(problem, plans[id(problem)], code) for problem, code in submissions]
  run = lambda job: _grade_one(sandbox, *job)
  graded = sandbox.map(run, jobs)
  idle = [at for at, (_, again) in enumerate(graded) if again == "together"]
  for at, (report, _) in zip(idle, sandbox.map(run, [jobs[at] for at in idle]), strict=True):
    graded[at] = report, ""
  return [run(job)[0] if again else report for job, (report, again) in zip(jobs, graded, strict=True)]


class _Tally:
  """Results of a plan's tests as they come in."""

  def __init__(self, plan: Plan):
    self.passed = 0
    self.failures: dict[int, tuple[Verdict, Failure]] = {}
    self._plan, self._start = plan, time.monotonic()

  def fail(self, index: int, verdict: Verdict, expected: str = "", actual: str = "", error: str = "",
           input: str = "") -> None:
    test = self._plan.tests[index]
    if isinstance(test, Case):
      input, expected = test.shown_input, test.expected
    cut = lambda text: text if len(text) <= SHOWN else text[:SHOWN - 3] + "..."
    self.failures[index] = (verdict, Failure(*map(cut, (input, expected or test, actual, error))))

  def report(self, verdict: Verdict | None = None) -> Report:
    """`verdict` overrides what the failures say."""
    first = self.failures[min(self.failures)] if self.failures else None
    verdict = verdict or (first[0] if first else "passed")
    seconds = round(time.monotonic() - self._start, 3)
    return Report(verdict, self.passed, len(self._plan.tests), seconds, first and first[1])


def _grade_one(sandbox: Sandbox, problem: Problem, plan: Plan, code: str | None) -> tuple[Report, str]:
  """The report, and whether another try is due: "", "alone", or "together" with others."""
  tally = _Tally(plan)
  if code is None or not code.strip():
    return tally.report("no_code"), ""
  at = 0  # the test that is being run
  try:
    with sandbox.open() as process:
      answer = process.ask({"op": "load", "prelude": plan.prelude, "code": code})
      if "error" in answer:
        kind, text = _error(answer)
        tally.fail(0, "error", error=f"{kind}: {text}")
        broken = kind in ("SyntaxError", "IndentationError", "TabError")
        absent = not re.search(rf"\bdef\s+{re.escape(problem.entry_point)}\b", code)
        return tally.report("no_code" if broken and absent else None), ""
      for at, test in enumerate(plan.tests):
        if isinstance(test, Case):
          _run_case(process, problem.entry_point, at, test, tally)
      judged = [at for at, test in enumerate(plan.tests) if isinstance(test, str)]
      if judged:
        at = judged[0]
        with sandbox.open("judge") as judge:
          for at in _run_judge(judge, process, plan, judged, code, problem.entry_point, tally):  # noqa: B007
            pass
  except Ended as e:
    verdict: Verdict = "error" if e.kind == "died" else e.kind
    tally.fail(at, verdict, error=str(e))
    again = "together" if e.idle else "alone" if e.wall or e.kind == "failed" else ""
    return tally.report(verdict if verdict != "error" else None), again
  unsendable = any(verdict == "failed" for verdict, _ in tally.failures.values())
  return tally.report("failed" if unsendable else None), ""


def _run_case(process: Process, entry: str, index: int, case: Case, tally: _Tally) -> None:
  values: list[Any] = []
  for args, kwargs in case.calls:
    answer = process.ask({"op": "call", "target": entry, "args": [encode(arg, no_handle) for arg in args],
                          "kwargs": {key: encode(arg, no_handle) for key, arg in kwargs.items()}})
    if "error" in answer:
      tally.fail(index, "error", error=": ".join(_error(answer)))
      return
    try:
      values.append(decode(answer.get("value"), lambda handle: _Opaque(process, handle)))
    except ValueError as e:
      tally.fail(index, "error", error=str(e))
      return
  try:
    holds, error = case.holds(values), ""
  except Ended:
    raise
  except Exception as e:  # the check makes no sense of the value, as in None - 2.5
    holds, error = False, f"{type(e).__name__}: {e}"
  if holds:
    tally.passed += 1
  else:
    tally.fail(index, "wrong", actual="; ".join(map(shown, values)), error=error)


def _run_judge(judge: Process, process: Process, plan: Plan, judged: list[int], code: str, entry: str,
               tally: _Tally) -> Any:
  """Runs the tests that are code, passing the test's questions on to the program. Yields the test that is next."""
  imports, names = _resolve(plan.names, code, entry)
  message = judge.ask({"setup": imports + plan.setup, "names": names, "tests": [plan.tests[at] for at in judged]})
  done = 0
  while message.get("report", 0) is not None:
    if "op" in message:
      answer = process.ask(message)
      message = judge.ask({key: answer[key] for key in ("value", "in_place", "error") if key in answer})
      continue
    if "error" not in message:
      tally.passed += 1
    else:
      unsendable = message["unsendable"]
      verdict: Verdict = "failed" if unsendable else "error" if message["error"] else "wrong"
      tally.fail(judged[done], verdict, message["expected"], message.get("actual", ""),
                 unsendable or message["error"], message.get("input", ""))
    done += 1
    if done < len(judged):
      yield judged[done]
    message = judge.ask({})


def _resolve(names: list[str], code: str, entry: str = "") -> tuple[str, list[str]]:
  """Tests may use what the program imports. What is of the standard library the test's process imports itself, since
  the program's could be anything. Returns the imports as text, and the names that are left."""
  sources: dict[str, str] = {}
  for line in code.splitlines():
    words = line.split("#")[0].split(None, 3)
    if line.startswith("from") and len(words) == 4 and words[2] == "import" and _MODULE.fullmatch(words[1]):
      sources.update(dict.fromkeys((name.strip() for name in words[3].strip("() ").split(",")), words[1]))
  sources.update(_KNOWN)
  sources.pop(entry, None)
  lines, left = [], []
  for name in names:
    if sources.get(name, "").split(".")[0] in sys.stdlib_module_names:
      lines.append(f"from {sources[name]} import {name}\n")
    elif name in sys.stdlib_module_names and name != entry:
      lines.append(f"import {name}\n")
    else:
      left.append(name)
  return "".join(lines), left


def _error(answer: dict) -> list[str]:
  found = answer["error"]
  good = type(found) is list and len(found) == 3 and all(type(text) is str for text in found)
  return found[:2] if good else ["Exception", "a malformed error"]


class _Opaque:
  """An object of the program: equal to itself alone. Only the program can tell its items, length, text and truth."""

  def __init__(self, process: Process, target: Any):
    self._process, self._target, self._left = process, target, MAX_DRAIN

  def _ask(self, question: dict) -> Any:
    answer = self._process.ask({**question, "target": self._target})
    if "error" in answer:
      raise TypeError(": ".join(_error(answer)))
    return decode(answer.get("value"), lambda handle: _Opaque(self._process, handle))

  def _special(self, name: str) -> Any:
    return self._ask({"op": "special", "name": name, "args": []})

  def _more(self, count: int) -> list:
    items = self._ask({"op": "more", "count": count})
    self._left -= count
    if self._left < 0 or type(items) is not list:
      raise ValueError(f"an iterator of more than {MAX_DRAIN:,} items")
    return items

  def __iter__(self) -> Any:
    return iter(self._special("__iter__"))

  def __len__(self) -> int:
    return self._special("__len__")

  def __str__(self) -> str:
    return self._special("__str__")

  def __bool__(self) -> bool:
    return self._special("__bool__")

  def __repr__(self) -> str:
    return "<an object of the program>"

