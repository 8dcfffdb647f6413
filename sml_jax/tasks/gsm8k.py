"""GSM8K from a file: school word problems whose answer is one number, with a teacher who knows the number alone."""

from __future__ import annotations

import hashlib
import re
from fractions import Fraction
from typing import Any

from etils import epath

from sml_jax.tasks.file_source import FileSource, normalise, part_of
from sml_jax.tasks.jsonl import DataError, bad_row, check_manifest, read_rows
from sml_jax.tasks.numbers import extract_number, has_answer_mark, parse_number
from sml_jax.tasks.task import Task

__all__ = ["Gsm8kSource", "load_gsm8k", "make_source", "normalise", "part_of"]

_GOLD = re.compile(r"####\s*(\S.*?)\s*$")


def load_gsm8k(data_dir: epath.PathLike) -> list[Task]:
  """The problems of data_dir/gsm8k/train.jsonl[.gz] (or data_dir/train.jsonl[.gz]), in the order of the file.

  A row has `question`, and its worked solution with the line "#### n" in `solution` or, as OpenAI publishes it, in
  `answer`. A problem that comes twice is kept once.

  Raises:
    DataError: folder or file missing, a malformed row, a gold without a number: with file, line and field.
  """
  root, name = _find(data_dir)
  check_manifest(root, name)
  path, tasks = root / name, {}
  for line, row in read_rows(path, {"question": str, "answer": str}):
    field = "solution" if "solution" in row else "answer"
    gold = _GOLD.search(row[field]) if isinstance(row[field], str) else None
    if not gold or parse_number(gold[1]) is None:
      raise bad_row(path, line, field, 'text that ends in "#### " and a number', _tail(row[field]))
    text, number = row["question"].strip(), gold[1]
    key = hashlib.sha256(normalise(text).encode()).hexdigest()[:16]
    tasks.setdefault(key, Task(id=f"gsm8k/{key}", domain="gsm8k", text=text, answer=f"The answer is {number}.",
                               private={"answer": number}))
  if not tasks:
    raise DataError(f"{path}: holds no rows")
  return list(tasks.values())


class Gsm8kSource(FileSource):
  """GSM8K as a task source (see source.py)."""

  domain = "gsm8k"
  please = "Please answer with a number."

  def gold(self, task: Task) -> Fraction | None:
    return parse_number(task.private["answer"])

  def given(self, text: str) -> Fraction | None:
    return extract_number(text)

  def is_question(self, text: str) -> bool:
    return text.rstrip().endswith("?") and not has_answer_mark(text)


def make_source(config: Any) -> Gsm8kSource:
  """The source of a config: reads config.data_dir. Raises DataError."""
  return Gsm8kSource(load_gsm8k(config.data_dir), config.tasks.split_salt)


def _find(data_dir: epath.PathLike) -> tuple[epath.Path, str]:
  if not str(data_dir):
    raise DataError("gsm8k is read from files; add --config.data_dir=FOLDER")
  root = epath.Path(data_dir)
  if not root.is_dir():
    raise DataError(f"data_dir: there is no folder {root}")
  names = [f"{folder}train.jsonl{end}" for folder in ("gsm8k/", "") for end in (".gz", "")]
  for name in names:
    if (root / name).exists():
      return root, name
  raise DataError(f"data_dir: {root} holds none of {', '.join(names)}")


def _tail(value: Any) -> Any:
  return "... " + value[-30:] if isinstance(value, str) and len(value) > 34 else value
