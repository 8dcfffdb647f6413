"""GSM8K from a file: school word problems whose answer is one number, with a teacher who knows the number alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from etils import epath

from sml_jax.dialogue.record import Dialogue, Feedback, Kind
from sml_jax.dialogue.teacher import TRY_AGAIN, USUAL_WORDS, choose, place_of
from sml_jax.tasks.jsonl import DataError, bad_row, check_manifest, read_rows
from sml_jax.tasks.numbers import extract_number, has_answer_mark, parse_number, verify_numbers
from sml_jax.tasks.task import Reveal, Task, Verdict

PARTS = ("train", "dev", "test")
_SHARE = 0.1  # of the problems in dev, and again in test
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


def part_of(text: str, salt: str) -> str:
  """train (80%), dev (10%) or test (10%) as a function of the problem and the salt, so that no part shares one."""
  digest = hashlib.sha256(f"{salt}|{normalise(text)}".encode()).digest()
  u = int.from_bytes(digest[:8], "big") / 2**64
  return "dev" if u < _SHARE else "test" if u < 2 * _SHARE else "train"


def normalise(text: str) -> str:
  """Words and numbers alone, in small letters: what two copies of a problem share."""
  return " ".join(re.findall(r"\w+", text.lower()))


class Gsm8kTeacher:
  """Generic feedback from the gold number: whether the student's is too low or too high, and never the number."""

  def __init__(self, feedback: Feedback, donors: Sequence[Task]):
    self.feedback, self.donors = feedback, donors

  def reply(self, tasks: Sequence[Task], dialogues: Sequence[Dialogue]) -> list[str | None]:
    return [self._reply(task, dialogue) for task, dialogue in zip(tasks, dialogues, strict=True)]

  def _reply(self, task: Task, dialogue: Dialogue) -> str:
    if self.feedback == "none":
      return ""
    if self.feedback == "try_again":
      return TRY_AGAIN
    place, text = place_of(task, dialogue), dialogue.turns[-1].text
    usual = choose(USUAL_WORDS, *place)
    value = None if _is_question(text) else extract_number(text)
    if self.feedback == "shuffled":
      # Real words about another problem: right for that one, whatever this student said.
      donor = parse_number(choose(self.donors, "donor", *place).private["answer"])
      return _graded(usual, value or 0, donor) if value != donor else f"{usual} It is too low."
    if value is None:
      return "I can not say." if _is_question(text) else "Please answer with a number."
    if self.feedback == "binary":
      return usual
    if self.feedback == "no_private":
      return f"{usual} Are you sure?"
    return _graded(usual, value, parse_number(task.private["answer"]))


class Gsm8kSource:
  """GSM8K as a task source (see source.py): a finite number of tasks in three parts."""

  def __init__(self, tasks: Sequence[Task], salt: str = "0"):
    self._parts: dict[str, list[Task]] = {part: [] for part in PARTS}
    for task in tasks:
      self._parts[part_of(task.text, salt)].append(task)

  def size(self, part: str) -> int:
    return len(self._parts[part])

  def task(self, domain: str, part: str, index: int, reveal: Reveal = "") -> Task:
    if domain != "gsm8k" or reveal:
      raise DataError(f"gsm8k has whole tasks of the domain gsm8k alone, not {domain!r} with reveal {reveal!r}")
    return self._parts[part][index]

  def verify(self, tasks: Sequence[Task], texts: Sequence[str]) -> list[Verdict]:
    verdicts = verify_numbers(tasks, texts)
    return ["no_attempt" if _is_question(text) else verdict for text, verdict in zip(texts, verdicts, strict=True)]

  def kind(self, task: Task, text: str) -> Kind:
    if not text.strip():
      return "missing"
    if _is_question(text):
      return "clarification"
    return "discussion" if extract_number(text) is None else "answer_attempt"

  def teacher(self, feedback: Feedback) -> Gsm8kTeacher:
    return Gsm8kTeacher(feedback, self._parts["train"])

  def question(self, task: Task, dialogue: Dialogue) -> str:
    return "Is it too low or too high?"


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


def _graded(usual: str, value: Any, gold: Any) -> str:
  return f"{usual} It is too {'low' if value < gold else 'high'}."


def _is_question(text: str) -> bool:
  return text.rstrip().endswith("?") and not has_answer_mark(text)


def _tail(value: Any) -> Any:
  return "... " + value[-30:] if isinstance(value, str) and len(value) > 34 else value
