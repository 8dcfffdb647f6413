"""Dialogues are the record: JSONL objects while a stage runs, one ArrayRecord data set when it has ended."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import re
import tempfile
from collections.abc import Container, Iterator, Sequence

import tensorflow_datasets as tfds
from etils import epath

from sml_jax.data.fields import check_fields
from sml_jax.dialogue.record import Dialogue, Turn
from sml_jax.errors import UserError

_NAME = re.compile(r"step_(\d{8,})\.p(\d+)\.jsonl\.gz")
_MARKER = "record.sha256"


class DialogueWriter:
  """Writes the dialogues of a stage, one object a step and process: `step_00000012.p0.jsonl.gz`.

  An object is written whole under another name and then renamed, so a reader never sees half of it, and its bytes
  depend on the dialogues alone. Nothing is appended to: object stores cannot.
  """

  def __init__(self, folder: epath.PathLike):
    self.folder = epath.Path(folder)
    self.folder.mkdir(parents=True, exist_ok=True)

  @staticmethod
  def name(step: int, process: int) -> str:
    """The name of the object that holds one step's dialogues of one process."""
    return f"step_{step:08d}.p{process}.jsonl.gz"

  def write(self, step: int, process: int, dialogues: Sequence[Dialogue]) -> epath.Path:
    """Writes (or replaces) one step's dialogues of one process and returns the object's path.

    Raises:
      UserError: the disk is full, or the folder cannot be written; an object of that name is untouched.
    """
    path = self.folder / self.name(step, process)
    lines = "".join(d.to_json() + "\n" for d in dialogues)
    part = self.folder / f".{path.name}.part"
    try:
      part.write_bytes(gzip.compress(lines.encode(), compresslevel=1, mtime=0))
      part.replace(path)
    except OSError as e:
      part.unlink(missing_ok=True)
      raise UserError(f"cannot write {path}: {e.strerror or e}") from e
    return path

  def steps(self) -> set[int]:
    """Those that have an object, of whatever process."""
    return {step for _, step, _ in self._objects()}

  def discard_after(self, step: int) -> int:
    """Removes what was written after `step` (of any process, and half-written objects); returns how many objects.

    For a run that goes on from the checkpoint of `step`. Only one process may call it, before any of them writes.
    """
    for part in self.folder.glob(".step_*.part"):
      part.unlink(missing_ok=True)
    late = [path for path, s, _ in self._objects() if s > step]
    for path in late:
      path.unlink(missing_ok=True)
    return len(late)

  def _objects(self) -> list[tuple[epath.Path, int, int]]:
    try:
      return _objects(self.folder)
    except FileNotFoundError:  # An object store has no empty folders.
      return []


def read_dialogues(folder: epath.PathLike, steps: Container[int] | None = None) -> Iterator[Dialogue]:
  """Reads the record back in the order (step, process, line).

  Args:
    folder: that a DialogueWriter wrote.
    steps: only these steps; all if None.

  Raises:
    FileNotFoundError: there is no such folder.
    UserError: a line is not a dialogue; names file, line and field.
  """
  for path, step, _ in _objects(folder):
    if steps is None or step in steps:
      for number, line in _lines(path):
        fields = _fields(line, path, number)
        yield Dialogue(turns=[Turn(**t) for t in fields.pop("turns", [])], **fields)


def build_dataset(folder: epath.PathLike, out_dir: epath.PathLike) -> epath.Path:
  """Turns a folder of dialogues into a TFDS data set in ArrayRecord files, in the order of `read_dialogues`.

  Does nothing if `out_dir` already holds the data set of exactly these dialogues. Call it from one process.

  Returns:
    The folder to give to `open_dataset`.

  Raises:
    UserError: a line is not a dialogue, or there are no dialogues at all.
  """
  folder, out_dir = epath.Path(folder), epath.Path(out_dir)
  marker, digest = out_dir / _MARKER, _digest(folder)
  if marker.exists() and marker.read_text() == digest:
    return out_dir
  marker.unlink(missing_ok=True)
  if (out_dir / _Dialogues.name).exists():
    (out_dir / _Dialogues.name).rmtree()  # Of another record, or half-built.
  # ArrayRecord writes local files alone. TFDS announces a download that does not happen.
  with tempfile.TemporaryDirectory() as local, contextlib.redirect_stdout(io.StringIO()):
    tfds.disable_progress_bar()
    _Dialogues(folder, data_dir=local, file_format="array_record").download_and_prepare()
    _copy(epath.Path(local) / _Dialogues.name, out_dir / _Dialogues.name)
  marker.write_text(digest)
  return out_dir


def open_dataset(folder: epath.PathLike) -> DialogueSource:
  """Opens what `build_dataset` made.

  Raises:
    FileNotFoundError: the folder holds no finished data set.

  Example:
    source = open_dataset(build_dataset(workdir / "dialogues", workdir / "dataset"))
    rows = [token_row(dialogue) for dialogue in source]
  """
  folder = epath.Path(folder)
  if not (folder / _MARKER).exists():
    raise FileNotFoundError(f"{folder} holds no finished dialogue data set")
  files, local = folder / _Dialogues.name / str(_Dialogues.VERSION), None
  if "://" in str(folder):  # ArrayRecord reads local files alone.
    local = tempfile.TemporaryDirectory()
    files = _copy(files, epath.Path(local.name))
  return DialogueSource(tfds.builder_from_directory(files).as_data_source(split="train"), local)


class DialogueSource:
  """Random access to dialogues, in the order of the record; a source for `grain.MapDataset.source` too."""

  def __init__(self, records: Sequence, folder: tempfile.TemporaryDirectory | None = None):
    """`folder`, if there is one, holds the records' files, and is removed with this object."""
    self._records, self._folder = records, folder

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> Dialogue:
    return Dialogue.from_json(self._records[index]["dialogue"])

  def __iter__(self) -> Iterator[Dialogue]:
    for start in range(0, len(self), 1024):  # Reading in blocks is five times faster than one by one.
      for record in self._records.__getitems__(list(range(start, min(start + 1024, len(self))))):
        yield Dialogue.from_json(record["dialogue"])


class _Dialogues(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """One split, `train`; an example is the dialogue's JSON line."""

  name = "dialogues"
  VERSION = tfds.core.Version("1.0.0")
  code_path = None  # TFDS would look for download checksums beside the code, with a package it does not install.

  def __init__(self, record: epath.Path, **kwargs):
    self._record = record
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    features = tfds.features.FeaturesDict({"dialogue": tfds.features.Text()})
    return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

  def _split_generators(self, download_manager):
    del download_manager
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    index = 0
    for path, _, _ in _objects(self._record):
      for number, line in _lines(path):
        _fields(line, path, number)
        yield index, {"dialogue": line}
        index += 1
    if not index:
      raise UserError(f"{self._record} holds no dialogues")


def _copy(source: epath.Path, target: epath.Path) -> epath.Path:
  """Copies a folder; either may be remote."""
  target.mkdir(parents=True, exist_ok=True)
  for path in source.iterdir():
    if path.is_dir():
      _copy(path, target / path.name)
    else:
      path.copy(target / path.name, overwrite=True)
  return target


def _objects(folder: epath.PathLike) -> list[tuple[epath.Path, int, int]]:
  """(path, step, process) of a record's objects, sorted by step and then process, both as numbers."""
  named = ((path, _NAME.fullmatch(path.name)) for path in epath.Path(folder).iterdir())
  return sorted(((p, int(m[1]), int(m[2])) for p, m in named if m), key=lambda o: o[1:])


def _lines(path: epath.Path) -> Iterator[tuple[int, str]]:
  try:
    text = gzip.decompress(path.read_bytes()).decode()
  except (OSError, EOFError, UnicodeDecodeError) as e:
    raise UserError(f"{path}: not a gzip file of text: {e}") from None
  yield from enumerate(text.rstrip("\n").split("\n") if text else [], 1)  # Not splitlines: text may hold U+2028.


def _digest(folder: epath.Path) -> str:
  digest = hashlib.sha256()
  for path, _, _ in _objects(folder):
    digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
  return digest.hexdigest()


def _fields(line: str, path: epath.Path, number: int) -> dict:
  try:
    fields = json.loads(line)
    check_fields(fields, Dialogue)
  except ValueError as e:
    raise UserError(f"{path}, line {number}: {e}") from None
  return fields
