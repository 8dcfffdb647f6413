r"""Omni-MATH from files: contest problems whose answer is a number or a formula, which the student puts in \boxed{}.

The checker accepts what is surely the same: equal numbers by exact arithmetic, or formulas that are the same text after
`canonical`. It misses equal formulas that are written differently (\sqrt{12} and 2\sqrt{3}, x = 5 and 5, n+1 and 1+n),
so success is a lower bound.
"""

from __future__ import annotations

import functools
import hashlib
import re
from typing import Any

from absl import logging
from etils import epath

from sml_jax.tasks.file_source import Answer, FileSource
from sml_jax.tasks.jsonl import DataError, bad_row, check_manifest, read_rows
from sml_jax.tasks.numbers import parse_number
from sml_jax.tasks.task import Task

ASK = r"Put your final answer in \boxed{}."
_BOX = re.compile(r"\\boxed\s*\{")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace is a character of the formula
_DENIED = re.compile(r"(not|n't|never)(\s+be)?[\s:*$\\(\[]*$", re.IGNORECASE)
_SAME = tuple((re.compile(pattern), to) for pattern, to in (
    (r"\{,\}|,\\!", ","),
    (r"\\%", "%"),
    (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
    (r"\\(?:text|textbf|textrm|mathrm|mbox)\s*\{([^{}]*)\}", r"\1"),
    (r"(?:\\?\$|\\[()\[\],;:! ]|~|\\(?:left|right|displaystyle|quad)(?![A-Za-z])|\s)+", " "),
    (r"\\frac ?(\d) ?(\d)", r"\\frac{\1}{\2}"),
))
# Where a space says nothing: behind a command and before a digit, and anywhere but between two letters or digits.
_SPACES = re.compile(r"(\\[A-Za-z]+) (?=\d)|(?<!\w) | (?!\w)")
_FRACTION = re.compile(r"(-?)\\frac ?\{ ?(-?\d+) ?\} ?\{ ?(\d+) ?\}")


def load_omni_math(data_dir: epath.PathLike) -> list[Task]:
  """The problems of data_dir/omni_math_rule/*.jsonl[.gz], or else of data_dir/*.jsonl[.gz], in the order of the files.

  A row has `problem` and `answer`. A problem that comes twice is kept once; an answer whose braces do not match was cut
  off and is left out, since nobody could give it.

  Raises:
    DataError: no such folder or files, or a malformed row: with file, line and field.
  """
  tasks, cut = {}, 0
  for folder, name in _find(data_dir):
    check_manifest(folder, name)
    for line, row in read_rows(folder / name, {"problem": str, "answer": str}):
      for field in ("problem", "answer"):
        if not row[field].strip():
          raise bad_row(folder / name, line, field, "some text", row[field])
      problem, answer = row["problem"].strip(), _unboxed(row["answer"])
      # By all its characters but space: problems that differ in a minus sign alone are two (of the same part).
      key = hashlib.sha256(" ".join(problem.split()).encode()).hexdigest()[:16]
      said = rf"The answer is \boxed{{{answer}}}."
      if boxed(said) != [answer]:
        cut += 1
        continue
      tasks.setdefault(key, Task(id=f"omni_math/{key}", domain="omni_math", text=f"{problem}\n\n{ASK}", answer=said,
                                 private={"answer": answer}))
  if cut:
    logging.warning("omni_math: %d rows left out, whose answers are cut off", cut)
  if not tasks:
    raise DataError(f"data_dir: {data_dir} holds no rows of omni_math")
  return list(tasks.values())


class OmniMathSource(FileSource):
  """Omni-MATH as a task source (see source.py).

  Of the 2,821 rows of Omni-MATH-Rule its shares make about 2,000 problems for training and more than 500 for the test.
  """

  domain = "omni_math"
  please = r"Please put your answer in \boxed{}."
  shares = (0.1, 0.19)

  def gold(self, task: Task) -> Answer | None:
    return canonical(task.private["answer"])

  def given(self, text: str) -> Answer | None:
    return given_answer(text)

  def is_question(self, text: str) -> bool:
    return text.rstrip().endswith("?") and not _BOX.search(text)


def boxed(text: str) -> list[str] | None:
  r"""What the \boxed{...} of a text hold, the outermost ones alone; None if one is never closed."""
  found, position = [], 0
  while match := _BOX.search(text, position):
    depth = 1
    for brace in _BRACES.finditer(text, match.end()):
      depth += {"{": 1, "}": -1}.get(brace[0], 0)
      if depth == 0:
        break
    else:
      return None
    found.append(text[match.end() : brace.start()])
    position = brace.end()
  return found


def given_answer(text: str) -> Answer | None:
  r"""The answer in a student's \boxed{}, or None: no box, one that is empty or never closed, several that differ, or a
  "not" right before one."""
  if any(_DENIED.search(text, max(0, m.start() - 40), m.start()) for m in _BOX.finditer(text)):
    return None
  answers = {canonical(box) for box in boxed(text) or ()}
  return answers.pop() if len(answers) == 1 and answers != {""} else None


@functools.lru_cache(maxsize=100_000)
def canonical(answer: str) -> Answer:
  r"""An answer in the form in which answers are compared: a Fraction if it is a number ("1,080", "3/4", \frac{3}{4}).

  Else its text without what changes only the look: dollar signs, \left and \right, thin spaces and spaces that keep no
  words apart, the \text{} around words, a full stop at the end; \dfrac is \frac, and \frac12 is \frac{1}{2}. A percent
  sign stays: 60% is not 60.
  """
  answer = _unboxed(answer)
  for pattern, to in _SAME:
    answer = pattern.sub(to, answer)
  answer = answer.strip().removesuffix(".").strip()
  fraction = _FRACTION.fullmatch(answer)
  number = None if "%" in answer else parse_number(fraction.expand(r"\1\2/\3") if fraction else answer)
  # After that: "3, 440" is two numbers.
  return _SPACES.sub(r"\1", answer) if number is None else number


def _unboxed(answer: str) -> str:
  boxes = boxed(answer)
  return (boxes[0] if boxes and len(boxes) == 1 else answer).strip()


def make_source(config: Any) -> OmniMathSource:
  """The source of a config: reads config.data_dir. Raises DataError."""
  return OmniMathSource(load_omni_math(config.data_dir), config.tasks.split_salt)


def _find(data_dir: epath.PathLike) -> list[tuple[epath.Path, str]]:
  if not str(data_dir):
    raise DataError("omni_math is read from files; add --config.data_dir=FOLDER")
  root = epath.Path(data_dir)
  if not root.is_dir():
    raise DataError(f"data_dir: there is no folder {root}")
  for folder in (root / "omni_math_rule", root):
    if folder.is_dir():
      names = sorted(p.name for p in folder.iterdir() if p.name.endswith((".jsonl", ".jsonl.gz")))
      if names:
        return [(folder, name) for name in names]
  raise DataError(f"data_dir: {root} holds no omni_math_rule/*.jsonl[.gz] and no *.jsonl[.gz]")
