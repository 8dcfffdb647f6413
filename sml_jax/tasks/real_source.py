"""Tasks of real data sets as a source (see source.py): read, checked, split, judged, with a scripted teacher."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from sml_jax.dialogue.record import Dialogue, Feedback, Kind
from sml_jax.errors import UserError
from sml_jax.tasks import locations
from sml_jax.tasks.answer_teacher import AnswerTeacher
from sml_jax.tasks.code_schemas import ASK_CODE, ASK_PROGRAM
from sml_jax.tasks.exclusions import read_exclusions
from sml_jax.tasks.jsonl import DataError
from sml_jax.tasks.judge import Judge, check_tests, value_of
from sml_jax.tasks.leaks import Guarded
from sml_jax.tasks.schemas import ASK_BOX, ASK_VALUE, SCHEMAS, Schema
from sml_jax.tasks.source import Source
from sml_jax.tasks.splits import PARTS, near_copies, part_of, representatives
from sml_jax.tasks.task import Reveal, Task, Verdict
from sml_jax.tasks.turn_kinds import classify

_ASKS = re.compile("|".join(f"\\s*{re.escape(ask)}" for ask in (ASK_BOX, ASK_VALUE, ASK_CODE, ASK_PROGRAM)))


class RealSource(Source):
  """A finite number of tasks, by domain and part.

  Args:
    parts: (domain, part) -> tasks.
    judge: decides about student turns.
    compat: "reference" judges and speaks as the reference of Lost in Conversation does, with its defects.
    report: what loading found, for the log.
  """

  def __init__(
      self, parts: Mapping[tuple[str, str], Sequence[Task]], judge: Judge, compat: str = "fixed",
      report: Sequence[str] = (),
  ):
    self._parts, self.judge, self.compat, self.report = parts, judge, compat, list(report)

  def describe(self) -> list[str]:
    return self.report

  def size(self, domain: str, part: str) -> int:
    return len(self._parts.get((domain, part), ()))

  def task(self, domain: str, part: str, index: int, reveal: Reveal = "") -> Task:
    if not any((domain, p) in self._parts for p in PARTS):
      known = ", ".join(sorted({d for d, _ in self._parts}))
      raise DataError(f"tasks.source has no tasks of the domain {domain!r} (it has: {known})")
    task = self._parts[domain, part][index]
    if not task.shards:
      if reveal:
        raise DataError(f"{domain} has whole tasks alone, and none whose shards could come out {reveal!r}")
      return task
    if not reveal:
      return dataclasses.replace(task, text=task.whole, shards=(), reveal="")
    return dataclasses.replace(task, reveal=reveal)

  def verify(self, tasks: Sequence[Task], texts: Sequence[str]) -> list[Verdict]:
    asks = [self.kind(task, text) in ("clarification", "interrogation", "missing") for task, text in
            zip(tasks, texts, strict=True)]  # fmt: skip
    judged = iter(self.judge.verdicts([t for t, a in zip(tasks, asks, strict=True) if not a],
                                      [x for x, a in zip(texts, asks, strict=True) if not a]))  # fmt: skip
    return ["no_attempt" if a else next(judged) for a in asks]

  def reason(self, task: Task, text: str) -> str:
    return self.judge.reason(task, text)

  def kind(self, task: Task, text: str) -> Kind:
    if task.form == "value":
      return "answer_attempt" if value_of(text) else classify(text, domain="latex")
    return classify(text, domain=task.form, sharded=bool(task.shards))

  def knowledge(self, task: Task, dialogue: Dialogue) -> Mapping[str, Any]:
    """The reference answer; of a program what its tests said about the student's last turn, and nothing before it."""
    if task.form != "code":
      return {"answer": task.private["answer"]}
    said = dialogue.student_turns
    return self.judge.test_results(task, said[-1].text) if said else {}

  def guarded(self, task: Task) -> Guarded:
    problem, private = task.whole or task.text, task.private
    if task.form != "code":
      return Guarded(problem, private["answer"])
    asserts = tuple(a for part in ("public", "hidden") for a in test_asserts(private[part], private["entry_point"]))
    return Guarded(problem, private["solution"], asserts, private["solution"])

  def teacher(self, feedback: Feedback) -> AnswerTeacher:
    donors = [t for (_, part), tasks in self._parts.items() if part == "train" for t in tasks]
    return AnswerTeacher(self, feedback, donors, self.compat)

  def question(self, task: Task, dialogue: Dialogue) -> str:
    if task.form == "code":
      return "Which case fails first?"
    return "Is it too low or too high?" if task.form == "number" else "Where is my first mistake?"


def test_asserts(found: Mapping[str, Any], entry_point: str) -> list[str]:
  """A set of tests as assert statements, for the leak check."""
  calls = [f"assert {entry_point}({', '.join(map(repr, t['args']))}) == {t['expected']!r}" for t in found["io_tests"]]
  inside = re.sub(r"\bcandidate\(", f"{entry_point}(", found["test"])
  return [*found["asserts"], *calls, *re.findall(r"^\s*(assert .*)$", inside, re.MULTILINE)]


def problem_text(task: Task) -> str:
  """What the problem says, without the words about the form of its answer."""
  return _ASKS.sub("", task.whole or task.text)


@dataclasses.dataclass
class Loader:
  """Reads sources and divides them.

  Args:
    data_dir: where relative paths, and sources given by name alone, are looked for.
    on_bad_row: "fail", or "skip_and_count".
    exclude: ids of tasks or rows, files with one id a line, or "known" for the list of defective rows.
  """

  data_dir: str = ""
  on_bad_row: str = "fail"
  exclude: Sequence[str] = ()
  report: list[str] = dataclasses.field(default_factory=list)

  def load(self, source: str) -> dict[str, Task]:
    """The tasks of "NAME" or "LOCATION#NAME" by id; a problem that comes twice is kept once.

    Raises:
      DataError: nothing there, or a bad row.
    """
    location, _, name = source.partition("#") if ":" in source else ("", "", source)
    schema = _schema(name, location)
    if name == "" and location:
      name, schema = self._guess(location)
    excluded, tasks, counts = read_exclusions(self.exclude), {}, collections.Counter()
    bad = self._bad(counts)
    for place in [location] if location else self._default_locations(name, schema):
      for file, line, row in locations.read(place, schema.fields, self.data_dir, bad):
        try:
          if task := schema.make(file, line, row):
            check_tests(task)
        except UserError as e:
          bad(e if isinstance(e, DataError) else DataError(f"{file}:{line}: {e}"))
          continue
        own = {str(row.get(k)) for k in ("id", "task_id", "question_id") if row.get(k) is not None}
        if task is None:
          counts["of another kind left out"] += 1
        elif task.id in excluded or own & excluded:
          counts["excluded"] += 1
        elif task.id in tasks:
          counts["copies left out"] += 1
        else:
          tasks[task.id] = task
    if not tasks:
      raise DataError(f"{location or name}: holds no rows of {name}")
    self.report.append(f"{source}: {len(tasks)} tasks" + "".join(f", {n} {what}" for what, n in counts.items()))
    return tasks

  def _bad(self, counts: collections.Counter) -> Callable[[DataError], None]:
    def bad(error: DataError) -> None:
      if self.on_bad_row == "fail":
        raise DataError(f"{error}; tasks.on_bad_row=skip_and_count leaves such rows out")
      counts["bad rows skipped"] += 1
      if counts["bad rows skipped"] <= 3:
        self.report.append(f"skipped: {error}")

    return bad

  def _default_locations(self, name: str, schema: Schema) -> list[str]:
    if not self.data_dir:
      raise DataError(f"{name} is read from files; add --config.data_dir=FOLDER")
    if not epath.Path(self.data_dir).is_dir():
      raise DataError(f"data_dir: there is no folder {self.data_dir}")
    for pattern in schema.files:
      path = str(epath.Path(self.data_dir) / pattern)
      try:
        locations.files(path)
      except DataError:
        continue
      return [f"jsonl:{path}"]
    raise DataError(f"data_dir: {self.data_dir} holds none of {', '.join(schema.files)}")

  def _guess(self, location: str) -> tuple[str, Schema]:
    """The data set that a location's first row is one of."""
    for file, line, row in locations.read(location, {}, self.data_dir, lambda e: None):
      fits = []
      for name, schema in SCHEMAS.items():
        try:
          locations.check_row(file, line, row, schema.fields)
          if schema.make(file, line, row) is not None:
            fits.append(name)
        except DataError:
          continue
      if fits:
        name = max(fits, key=lambda name: len(SCHEMAS[name].fields))  # the one that asks for most
        return name, SCHEMAS[name]
      raise DataError(f"{location}: its first row has the fields {', '.join(row)} and fits no data set; name it behind "
                      f"the location, {location}#NAME, to see why: {', '.join(SCHEMAS)}")
    raise DataError(f"{location}: holds no rows")


def _schema(name: str, location: str) -> Schema | None:
  if name in SCHEMAS:
    return SCHEMAS[name]
  if name or not location:
    raise UserError(f"tasks.source: no data set {name!r}; known: {', '.join(SCHEMAS)}")
  return None


def divide(
    tasks: Sequence[Task], salt: str, shares: tuple[float, float], parts: Sequence[str] = PARTS
) -> dict[str, list[Task]]:
  """The parts of one data set; near copies are in the same part."""
  out: dict[str, list[Task]] = {part: [] for part in parts}
  texts = [problem_text(t) for t in tasks]
  by_text = dict(zip(texts, tasks, strict=True))
  for task, first in zip(tasks, representatives(texts), strict=True):
    out[part_of(by_text[first].whole or by_text[first].text, salt, *shares)].append(task)
  return out


def make_source(config: Any) -> RealSource:
  """The source of a config.

  tasks.source names one or more data sets, each divided into train, dev and test by tasks.shares; those of
  tasks.eval_source are divided into dev and test alone, and their near copies leave the training part.

  Raises:
    UserError: files, rows or packages that are missing or not as they should be.
  """
  t = config.tasks
  loader = Loader(config.data_dir, t.on_bad_row, t.exclude)
  held = {d: list(group) for d, group in _by_domain(loader, t.eval_source).items()}
  parts: dict[tuple[str, str], list[Task]] = {}
  for domain, tasks in _by_domain(loader, t.source).items():
    divided = {"train": tasks} if domain in held else divide(tasks, t.split_salt, tuple(t.shares))
    parts |= {(domain, part): group for part, group in divided.items()}
  for domain, tasks in held.items():
    share = t.shares[0] / sum(t.shares) if sum(t.shares) else 0.5
    divided = divide(tasks, t.split_salt, (share, 1 - share))
    parts |= {(domain, part): divided[part] for part in ("dev", "test")}
  _keep_apart(parts, loader.report)
  judge = Judge(config)
  judge.check(task for tasks in parts.values() for task in tasks)
  return RealSource(parts, judge, t.compat, loader.report)


def _by_domain(loader: Loader, sources: str) -> dict[str, list[Task]]:
  out: dict[str, dict[str, Task]] = {}
  for source in (s.strip() for s in sources.split(",") if s.strip()):
    for name, task in loader.load(source).items():
      out.setdefault(task.domain, {}).setdefault(name, task)
  return {domain: list(tasks.values()) for domain, tasks in out.items()}


def _keep_apart(parts: dict[tuple[str, str], list[Task]], report: list[str]) -> None:
  """Takes near copies of dev and test tasks of any domain out of the training parts, and says what was found."""
  placed = [(key, task) for key, tasks in parts.items() for task in tasks]
  texts = [problem_text(task) for _, task in placed]
  gone, across, together = set(), 0, 0
  for i, j in near_copies(texts):
    (key_i, a), (key_j, b) = placed[i], placed[j]
    if key_i[1] == key_j[1]:
      together += 1
      continue
    trained = [(key, task) for key, task in ((key_i, a), (key_j, b)) if key[1] == "train"]
    gone |= {(key, task.id) for key, task in trained}
    across += not trained
  for key in {key for key, _ in gone}:
    parts[key] = [t for t in parts[key] if (key, t.id) not in gone]
  sizes = collections.defaultdict(list)
  for (domain, part), tasks in parts.items():
    sizes[domain].append(f"{part} {len(tasks)}")
  report += [f"{domain}: {', '.join(found)}" for domain, found in sizes.items()]
  report.append(f"near copies: {together} pairs within a part; {len(gone)} training tasks left out that are near "
                f"copies of dev or test tasks; {across} pairs across dev and test")
