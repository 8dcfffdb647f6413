"""Does every reference solution pass, and does the next row's fail? On real rows, with counts, seconds and speed.

  python benchmarks/verify_references.py --data_dir=../shared/data [--backend=auto]

Programs (MBPP, HumanEval, CRUXEval) run in the sandbox; golds (GSM8K, SVAMP, Omni-MATH-Rule) are compared by the answer
checker, each as "\\boxed{...}" or "The answer is ..." would give it. The next row's solution, renamed to what the tests
call, is wrong but where two rows ask for the same; those that pass are listed. Exit code 1 if a reference fails.
"""

from __future__ import annotations

import argparse
import sys
import time

from sml_jax.errors import UserError
from sml_jax.tasks import answers
from sml_jax.tasks.code_schemas import has_tests
from sml_jax.tasks.program import Problem, grade
from sml_jax.tasks.real_source import Loader
from sml_jax.tasks.sandbox import Sandbox
from sml_jax.tasks.task import Task

PROGRAMS, GOLDS = ("mbpp", "humaneval", "cruxeval"), ("gsm8k", "svamp", "omni_math")


def main(argv: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data_dir", required=True, help="folder with mbpp/, humaneval/, cruxeval/, gsm8k/, svamp/, ...")
  parser.add_argument("--backend", default="auto", help="of the sandbox: auto, bubblewrap, namespaces or rlimits")
  args = parser.parse_args(argv)
  good = True
  print(f"{'rows':22}{'count':>7}{'passed':>8}{'next row passed':>17}{'seconds':>9}{'a second':>10}")
  try:
    with Sandbox(backend=args.backend) as sandbox:
      for name in PROGRAMS:
        good &= _programs(name, Loader(args.data_dir, "skip_and_count"), sandbox)
      print(f"(sandbox: {sandbox.backend})")
    for name in GOLDS:
      good &= _golds(name, Loader(args.data_dir, "skip_and_count"))
  except UserError as e:
    print(f"error: {e}", file=sys.stderr)
    return 1
  return 0 if good else 1


def _programs(name: str, loader: Loader, sandbox: Sandbox) -> bool:
  tasks = list(loader.load(name).values())
  problems = [_problem(t) for t in tasks]
  own = [(p, _code(t)) for p, t in zip(problems, tasks, strict=True)]
  others = [(p, f"{_code(t)}\n{p.entry_point} = {_entry(t)}\n") for p, t in
            zip(problems, [*tasks[1:], *tasks[:1]], strict=True)]  # fmt: skip
  since = time.monotonic()
  passed = [r.verdict == "passed" for r in grade(sandbox, own)]
  seconds = time.monotonic() - since
  wrong = [r.verdict == "passed" for r in grade(sandbox, others)]
  _row(name, passed, wrong, seconds)
  for task, ok, other in zip(tasks, passed, wrong, strict=True):
    if not ok or other:
      print(f"  {task.id}: {'the next row passes' if ok else 'the reference FAILS'}")
  return all(passed)


def _problem(task: Task) -> Problem:
  private = task.private
  if task.form == "value":
    return Problem("", "f", "", (f"assert f({private['input']}) == {private['answer']}",), (), "")
  found = private["hidden"] if has_tests(private["hidden"]) else private["public"]
  return Problem(private["prompt"], private["entry_point"], private["setup"], tuple(found["asserts"]),
                 tuple(found["io_tests"]), found["test"])  # fmt: skip


def _code(task: Task) -> str:
  return task.private["code" if task.form == "value" else "solution"]


def _entry(task: Task) -> str:
  return "f" if task.form == "value" else task.private["entry_point"]


def _golds(name: str, loader: Loader) -> bool:
  tasks = list(loader.load(name).values())
  golds, said = [t.private["answer"] for t in tasks], [t.answer for t in tasks]
  since = time.monotonic()
  passed = [c.correct for c in answers.check(golds, said, ["response"] * len(tasks))]
  seconds = time.monotonic() - since
  others = [c.correct for c in answers.check(golds, [*said[1:], *said[:1]], ["response"] * len(tasks))]
  _row(name, passed, others, seconds)
  for line in loader.report[:-1]:
    print(f"  {line}")
  for i, (task, ok) in enumerate(zip(tasks, passed, strict=True)):
    other = golds[(i + 1) % len(golds)]
    if not ok:
      print(f"  {task.id}: {golds[i]!r} does NOT equal itself")
    elif others[i] and other.strip() != golds[i].strip():
      print(f"  {task.id}: {golds[i]!r} equals the next row's {other!r}")
  return all(passed)


def _row(name: str, passed: list[bool], others: list[bool], seconds: float) -> None:
  n = len(passed)
  print(f"{name:22}{n:7}{sum(passed):8}{sum(others):17}{seconds:9.1f}{n / seconds if seconds else 0:10.1f}", flush=True)


if __name__ == "__main__":
  sys.exit(main())
