"""What a row of each data set must have, and the task that it makes: maths, code reading, and underspecified tasks.

Programs are in code_schemas.py. A maker raises DataError with file, line and field for a row that it cannot use.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from sml_jax.tasks import answers, code_schemas
from sml_jax.tasks.answers.latex import unboxed
from sml_jax.tasks.answers.numbers import parse_number
from sml_jax.tasks.jsonl import bad_row
from sml_jax.tasks.lost_in_conversation import SYSTEM_PROMPTS, read_instruction
from sml_jax.tasks.splits import normalise
from sml_jax.tasks.task import Task

ASK_BOX = r"Put your final answer in \boxed{}."
ASK_VALUE = 'End with a line "Answer: VALUE", where VALUE is what the call returns, as a Python literal.'

_GOLD = re.compile(r"####\s*(\S.*?)\s*$")


@dataclasses.dataclass(frozen=True)
class Schema:
  """One data set's rows.

  Attributes:
    fields: field -> exact type, checked in every row.
    make: (place, line, row) -> Task; None for a row that is none of ours, and no error.
    files: where the rows lie under data_dir, the first pattern that is there.
  """

  fields: Mapping[str, type]
  make: Callable[[str, int, dict[str, Any]], Task | None]
  files: tuple[str, ...]


def _gsm8k(place: str, line: int, row: dict[str, Any]) -> Task:
  field = "solution" if "solution" in row else "answer"
  gold = _GOLD.search(row[field]) if isinstance(row[field], str) else None
  if not gold or parse_number(gold[1]) is None:
    raise bad_row(place, line, field, 'text that ends in "#### " and a number', _tail(row[field]))
  return _number("gsm8k", _digest(normalise(row["question"])), row["question"], gold[1], solution=row[field])


def _svamp(place: str, line: int, row: dict[str, Any]) -> Task:
  """As published (ID, Body, Question, Answer), or with both sentences in `question` and `answer`."""
  published = "Body" in row
  texts = (row.get("Body"), row.get("Question")) if published else (row.get("question"),)
  gold, name = (row.get("Answer"), "Answer") if published else (row.get("answer"), "answer")
  if not all(isinstance(t, str) and t.strip() for t in texts):
    raise bad_row(place, line, "Question" if published else "question", "some text", texts[-1])
  text = str(int(gold) if gold == int(gold) else gold) if type(gold) in (int, float) else gold
  if not isinstance(text, str) or parse_number(text) is None:
    raise bad_row(place, line, name, "a number", gold)
  own = str(row.get("ID") or row.get("id") or _digest(normalise(" ".join(texts)))).removeprefix("svamp/")
  return _number("svamp", own, " ".join(t.strip() for t in texts), text)


def _number(domain: str, own: str, question: str, gold: str, **private: str) -> Task:
  return Task(f"{domain}/{own}", domain, question.strip(), f"The answer is {gold}.", {"answer": gold, **private},
              form="number")


def _omni_math(place: str, line: int, row: dict[str, Any]) -> Task:
  for field in ("problem", "answer"):
    if not row[field].strip():
      raise bad_row(place, line, field, "some text", row[field])
  if problem := answers.gold_problem(row["answer"]):
    raise bad_row(place, line, "answer", f"an answer that can be compared ({problem})", row["answer"])
  text, gold = row["problem"].strip(), unboxed(row["answer"])
  # By all its characters but space: problems that differ in a minus sign alone are two (of the same part).
  own = _digest(" ".join(text.split()))
  private = {"answer": gold} | ({"solution": row["solution"]} if isinstance(row.get("solution"), str) else {})
  return Task(f"omni_math/{own}", "omni_math", f"{text}\n\n{ASK_BOX}", rf"The answer is \boxed{{{gold}}}.", private,
              form="latex")


def _cruxeval(place: str, line: int, row: dict[str, Any]) -> Task:
  try:
    ast.literal_eval(row["output"])
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    raise bad_row(place, line, "output", "a Python literal", row["output"]) from None
  text = f"```python\n{row['code'].strip()}\n```\n\nWhat does f({row['input']}) return? {ASK_VALUE}"
  private = {"answer": row["output"], "code": row["code"], "input": row["input"]}
  return Task(f"cruxeval/{row['id']}", "cruxeval", text, f"Answer: {row['output']}", private, form="value")


def _lost_in_conversation(place: str, line: int, row: dict[str, Any]) -> Task | None:
  """Rows of maths and code; those of the other official tasks are none of ours."""
  if row["task"] not in ("math", "code"):
    return None
  told = read_instruction(row, place, line)
  shards, own = {"shards": told.shards, "whole": told.whole}, f"lost_in_conversation/{told.task_id}"
  if told.task == "math":
    task = _gsm8k(place, line, row)
    private = task.private
    fields = {"answer": task.answer, "form": "number"}
  else:
    task = code_schemas.humaneval_or_livecodebench(place, line, row)
    private, fields = task.private, {"answer": task.answer, "form": "code"}
  return Task(own, "lost_in_conversation", told.shards[0], private=private, reveal="every_turn",
              system=SYSTEM_PROMPTS[told.task], **fields, **shards)


def _digest(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _tail(value: Any) -> Any:
  return "... " + value[-30:] if isinstance(value, str) and len(value) > 34 else value


SCHEMAS: Mapping[str, Schema] = {
    "gsm8k": Schema({"question": str, "answer": str}, _gsm8k,
                    ("gsm8k/train.jsonl.gz", "gsm8k/train.jsonl", "train.jsonl.gz", "train.jsonl")),
    "svamp": Schema({}, _svamp, ("svamp/SVAMP.json", "svamp/*.jsonl*")),
    "omni_math": Schema({"problem": str, "answer": str}, _omni_math,
                        ("omni_math_rule/*.jsonl*", "omni_math/*.jsonl*", "*.jsonl*")),
    "cruxeval": Schema({"code": str, "input": str, "output": str, "id": str}, _cruxeval, ("cruxeval/*.jsonl*",)),
    "lost_in_conversation": Schema(
        {"task_id": str, "task": str, "shards": list}, _lost_in_conversation,
        ("lost_in_conversation/sharded_instructions_600.json", "lost_in_conversation/*verbatim*.jsonl*")),
    **{name: Schema(*entry) for name, entry in code_schemas.SCHEMAS.items()},
}  # fmt: skip
"""By name, which is also the domain of the tasks."""
