"""Judges student turns on tasks of real data sets: answers by answers.py, programs by running them in the sandbox."""

from __future__ import annotations

import ast
import collections
import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sml_jax.errors import UserError
from sml_jax.tasks import answers
from sml_jax.tasks import lost_in_conversation as lic
from sml_jax.tasks.answers import symbolic
from sml_jax.tasks.code_schemas import STDIN, has_tests
from sml_jax.tasks.program import Problem, Report, extract_code, grade
from sml_jax.tasks.sandbox import Sandbox
from sml_jax.tasks.task import Task, Verdict

_MEMO_SIZE = 20_000
_VERDICTS: Mapping[str, Verdict] = {
    "equal": "solved", "differs": "wrong", "no_answer": "no_attempt", "unparsable": "wrong", "timeout": "wrong",
}  # fmt: skip
"""A turn whose formula cannot be read, or takes too long, is the student's own failure: it may not leave the group."""
_VALUE = re.compile(r"^.*\bAnswer\s*(?::|is)\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)
_LONGEST_VALUE, _DEEPEST_VALUE = 10_000, 50
_RUN_PROGRAM = '''
def __program__(text):
  import io, sys
  kept = sys.stdin, sys.stdout
  sys.stdin, sys.stdout = io.TextIOWrapper(io.BytesIO(text.encode())), io.TextIOWrapper(io.BytesIO())
  try:
    exec(compile(_PROGRAM, "program", "exec"), {"__name__": "__main__"})
  except SystemExit:
    pass
  finally:
    printed = sys.stdout
    sys.stdin, sys.stdout = kept
  printed.flush()
  output = printed.buffer.getvalue().decode("utf-8", "replace")
  return "\\n".join(line.rstrip() for line in output.strip().splitlines())
'''


@dataclasses.dataclass(frozen=True)
class Judged:
  """A verdict with its reason; `tests`: what the public tests of a program said."""

  verdict: Verdict
  reason: str = ""
  tests: Report | None = None


class Judge:
  """Judges batches, and remembers what it judged.

  Args:
    config: of the run; `tasks.success_on`, `tasks.compat` and `executor` are read.
  """

  def __init__(self, config: Any):
    self._on_hidden = config.tasks.success_on == "hidden"
    self._compat = config.tasks.compat
    self._limits = dict(config.executor)
    self._memo: collections.OrderedDict[tuple[str, str], Judged] = collections.OrderedDict()

  @functools.cached_property
  def _sandbox(self) -> Sandbox:
    return Sandbox(**self._limits)

  def check(self, tasks: Iterable[Task]) -> None:
    """Raises UserError at once if something is missing here that judging such tasks needs."""
    forms = {task.form for task in tasks}
    if "code" in forms:
      self._sandbox  # noqa: B018 (made here, so that it is not missed in the middle of a run)
    if "latex" in forms and not symbolic.available():
      raise UserError("formulas are compared by Math-Verify: pip install 'math-verify[antlr4_13_2]==0.9.0'")

  def verdicts(self, tasks: Sequence[Task], texts: Sequence[str]) -> list[Verdict]:
    return [j.verdict for j in self._judged(tasks, texts)]

  def reason(self, task: Task, text: str) -> str:
    """Why a turn got its verdict, if it was judged: equal, differs, timeout, hidden_failed ..."""
    found = self._memo.get((task.id, text))
    return found.reason if found else ""

  def test_results(self, task: Task, text: str) -> dict[str, str]:
    """What the public tests said about a program: how many passed, and the first case that did not."""
    report = self._judged([task], [text])[0].tests
    if report is None:
      return {"result": "there was no program to run"}
    out = {"result": f"{report.passed_tests} of {report.total_tests} tests passed"}
    if report.verdict == "timeout":
      out["result"] += "; the program took too long"
    if case := report.first_failure:
      shown = {"input": case.input, "expected": case.expected, "actual": case.actual, "error": case.error}
      out |= {f"first failing case, {name}": value for name, value in shown.items() if value}
    return out

  def _judged(self, tasks: Sequence[Task], texts: Sequence[str]) -> list[Judged]:
    known: dict[tuple[str, str], Judged] = {}
    new: dict[str, dict[tuple[str, str], tuple[Task, str]]] = {"answer": {}, "value": {}, "code": {}}
    for task, text in zip(tasks, texts, strict=True):
      key = (task.id, text)
      if key in self._memo:
        known[key] = self._memo[key]
      else:
        new[task.form if task.form in new else "answer"][key] = (task, text)
    for form, judge in (("answer", self._answers), ("value", self._values), ("code", self._programs)):
      if new[form]:
        known |= dict(zip(new[form], judge(list(new[form].values())), strict=True))
    for key, judged in known.items():
      if judged.verdict != "verifier_failed":
        self._memo[key] = judged
    while len(self._memo) > _MEMO_SIZE:
      self._memo.popitem(last=False)
    return [known[task.id, text] for task, text in zip(tasks, texts, strict=True)]

  def _answers(self, turns: list[tuple[Task, str]]) -> list[Judged]:
    golds = [task.private["answer"] for task, _ in turns]
    if self._compat == "reference" and all(task.domain == "lost_in_conversation" for task, _ in turns):
      right = [lic.reference_equal(text, gold) for gold, (_, text) in zip(golds, turns, strict=True)]
      return [Judged("solved", "equal") if r else Judged("wrong", "differs") for r in right]
    checked = answers.check(golds, [text for _, text in turns], ["response"] * len(turns))
    return [Judged(_VERDICTS[c.verdict], c.verdict) for c in checked]

  def _values(self, turns: list[tuple[Task, str]]) -> list[Judged]:
    out = []
    for task, text in turns:
      given, gold = value_of(text), ast.literal_eval(task.private["answer"])
      if given is None:
        out.append(Judged("no_attempt", "no_answer"))
      else:
        # By type too: True is not 1, and (1,) is not [1].
        same = given[0] == gold and repr(type(given[0])) == repr(type(gold)) and repr(given[0]) == repr(gold)
        same = same or (given[0] == gold and isinstance(gold, (dict, set, frozenset)) and type(given[0]) is type(gold))
        out.append(Judged("solved", "equal") if same else Judged("wrong", "differs"))
    return out

  def _programs(self, turns: list[tuple[Task, str]]) -> list[Judged]:
    programs = [self._program(task, text) for task, text in turns]
    public = self._graded([(t, p) for (t, _), p in zip(turns, programs, strict=True)], "public")
    further = [
        i for i, ((task, _), report) in enumerate(zip(turns, public, strict=True))
        if self._on_hidden and report.verdict == "passed" and has_tests(task.private["hidden"])
    ]  # fmt: skip
    hidden = dict(zip(further, self._graded([(turns[i][0], programs[i]) for i in further], "hidden"), strict=True))
    return [_judged_program(report, hidden.get(i)) for i, report in enumerate(public)]

  def _program(self, task: Task, text: str) -> str:
    entry = task.private["entry_point"]
    if task.domain == "lost_in_conversation":
      # The shards need not say what the function is called.
      return lic.extract_function(text, entry, self._compat, task.private["prompt"]) or ""
    if entry == STDIN:
      source = last_block(text)
      return f"_PROGRAM = {source!r}\n{_RUN_PROGRAM}" if source else ""
    return extract_code(text, entry) or ""

  def _graded(self, programs: list[tuple[Task, str]], part: str) -> list[Report]:
    asked = [(problem_of(task, part), code) for task, code in programs]
    return grade(self._sandbox, asked) if asked else []


def problem_of(task: Task, part: str) -> Problem:
  """The "public" or "hidden" tests of a task that wants a program."""
  private, found = task.private, task.private[part]
  return Problem(private["prompt"], private["entry_point"], private["setup"], tuple(found["asserts"]),
                 tuple(found["io_tests"]), found["test"])  # fmt: skip


def check_tests(task: Task) -> None:
  """Raises UserError for a program's tests that are none, such as one that cannot fail."""
  for part in ("public", "hidden") if task.form == "code" else ():
    if has_tests(task.private[part]):
      problem_of(task, part).plan()


def _judged_program(public: Report, hidden: Report | None) -> Judged:
  last = hidden or public
  if last.verdict == "failed":
    return Judged("verifier_failed", "failed", public)
  if last.verdict == "no_code":
    return Judged("no_attempt", "no_code")
  if last.verdict == "passed":
    return Judged("solved", "passed", public)
  return Judged("wrong", "hidden_failed" if hidden else last.verdict, public)


def value_of(text: str) -> tuple[Any] | None:
  """The Python literal on the last line "Answer: VALUE", in a tuple; None if there is none or it cannot be read."""
  found = _VALUE.findall(text)
  written = found[-1].strip("` *.").strip() if found else ""
  if not written or len(written) > _LONGEST_VALUE or _depth(written) > _DEEPEST_VALUE:
    return None
  try:
    return (ast.literal_eval(written),)
  except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
    return None


def _depth(text: str) -> int:
  depth = most = 0
  for c in text:
    depth += (c in "([{") - (c in ")]}")
    most = max(most, depth)
  return most + text.count("-" * 50)


def last_block(text: str) -> str | None:
  """The last fenced block, or a text that is a program by itself."""
  blocks = re.findall(r"```(?:python|py)?[^\n]*\n(.*?)```", text, re.DOTALL)
  if blocks:
    return blocks[-1]
  try:
    return text if ast.parse(text).body else None
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return None
