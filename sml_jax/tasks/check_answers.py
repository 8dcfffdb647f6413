r"""Checks answers against golds, one JSON object a line in and one out.

  python -m sml_jax.tasks.check_answers --rows=IN.jsonl --out=OUT.jsonl

A row in, with
  id     anything, given back
  gold   the right answer: a number, a formula in LaTeX, a word
  pred   what is checked
  kind   "answer": pred is the answer alone; "response": pred is a whole turn, from which the answer is taken (\boxed{},
         else ####, <answer> or "the answer is", else, where the gold is a number, the last number)

  {"id": 1, "gold": "2\\sqrt{3}", "pred": "So it is \\boxed{\\sqrt{12}}.", "kind": "response"}
  {"id": 2, "gold": "5", "pred": "5 or 6", "kind": "answer"}

A row out, in the same order, with
  id         as it came in
  correct    whether the verdict is "equal"
  verdict    "equal"; "differs"; "no_answer": a response gives none, or several, or takes it back; "unparsable": the
             answer or the gold is not understood; "timeout": the comparison took too long
  extracted  the answer that was compared, or null

  {"id": 1, "correct": true, "verdict": "equal", "extracted": "\\sqrt{12}"}
  {"id": 2, "correct": false, "verdict": "differs", "extracted": "5 or 6"}

Formulas that are equal but not written alike need Math-Verify: pip install 'math-verify[antlr4_13_2]==0.9.0'
A row whose gold is not understood is "unparsable" and counted on stderr. A row that is no such object ends the run with
one line that names file, line and field, and nothing is written.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
from typing import Any

from sml_jax.tasks import answers, commands
from sml_jax.tasks.jsonl import bad_row, read_rows

KINDS = ("answer", "response")


def check_file(rows: str, out: str) -> tuple[collections.Counter[str], list[str]]:
  """Checks the rows of a file and writes what came out; returns how often each verdict came, and a line for each gold
  that is not understood.

  Raises:
    UserError: a file or a row is not as it should be, or Math-Verify is needed and not there.
  """
  commands.check_out(out)
  found: list[dict[str, Any]] = []
  problems = []
  for line, row in read_rows(rows, {"gold": str, "pred": str, "kind": str}):
    if "id" not in row:
      raise bad_row(rows, line, "id", "anything", "nothing")
    if row["kind"] not in KINDS:
      raise bad_row(rows, line, "kind", " or ".join(KINDS), row["kind"])
    if problem := answers.gold_problem(row["gold"]):
      problems.append(f"{rows}:{line}: field 'gold': {problem}")
    found.append(row)
  checked = answers.check(*([row[field] for row in found] for field in ("gold", "pred", "kind")))
  commands.write_whole(out, "".join(
      json.dumps({"id": row["id"], "correct": c.correct, "verdict": c.verdict, "extracted": c.extracted}) + "\n"
      for row, c in zip(found, checked, strict=True)))
  return collections.Counter(c.verdict for c in checked), problems


def main(argv: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(prog="python -m sml_jax.tasks.check_answers", description=__doc__,
                                   formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument("--rows", required=True, metavar="IN.jsonl", help="what to check; .jsonl or .jsonl.gz")
  parser.add_argument("--out", required=True, metavar="OUT.jsonl", help="where the verdicts go")
  args = parser.parse_args(argv)

  def work() -> None:
    counts, problems = check_file(args.rows, args.out)
    for problem in problems:
      print(f"warning: {problem}", file=sys.stderr)
    if problems:
      print(f"{len(problems)} golds are not understood", file=sys.stderr)
    print(", ".join(f"{verdict}: {count}" for verdict, count in sorted(counts.items())) or "no rows")

  return commands.run(work)


if __name__ == "__main__":
  sys.exit(main())
