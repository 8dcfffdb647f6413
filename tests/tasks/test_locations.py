"""Rows from files, from TFDS and from the Hub's library, each with its place."""

from __future__ import annotations

import gzip
import hashlib
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from sml_jax.tasks.jsonl import DataError, read_rows
from sml_jax.tasks.locations import files, read

ROWS = [{"question": "1+1?", "answer": "#### 2"}, {"question": "2+2?", "answer": "#### 4"}]
SCHEMA = {"question": str, "answer": str}


def write(path, rows=ROWS):
  path.parent.mkdir(parents=True, exist_ok=True)
  text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
  if ".json" in path.suffixes and ".jsonl" not in path.suffixes:
    text = json.dumps(rows)
  path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
  return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz"])
def test_files_of_each_kind(tmp_path, name):
  path = write(tmp_path / name)
  assert list(read(f"jsonl:{path}", SCHEMA)) == [(str(path), 1, ROWS[0]), (str(path), 2, ROWS[1])]
  assert list(read(f"jsonl:{name}", SCHEMA, str(tmp_path))) == list(read(f"jsonl:{path}", SCHEMA))


def test_a_folder_and_a_pattern_are_all_their_files_in_order(tmp_path):
  for name in ("b.jsonl", "a.jsonl.gz", "notes.txt", "MANIFEST.json"):
    write(tmp_path / name, [{}] if name.startswith("M") else ROWS[:1])
  assert [p.name for p in files(str(tmp_path))] == ["a.jsonl.gz", "b.jsonl"]
  assert [p.name for p in files(f"{tmp_path}/b*")] == ["b.jsonl"]
  with pytest.raises(DataError, match="there is no such file"):
    files(f"{tmp_path}/c*")
  with pytest.raises(DataError, match=r"x\.jsonl nor .*/x\.jsonl"):
    files("x.jsonl", str(tmp_path))


def test_bad_rows_are_refused_or_given_away(tmp_path):
  bad = [{"question": 5, "answer": "x"}, "{", "[1]", "", '{"question": "q"}']
  path = write(tmp_path / "a.jsonl", [ROWS[0], *bad, ROWS[1]])
  with pytest.raises(DataError, match=r"a\.jsonl:2: field 'question': expected str, got 5"):
    list(read(f"jsonl:{path}", SCHEMA))
  errors = []
  rows = list(read(f"jsonl:{path}", SCHEMA, bad=errors.append))
  assert [line for _, line, _ in rows] == [1, 7]
  assert [str(e).split(": ")[0].rpartition(":")[2] for e in errors] == ["2", "3", "4", "6"]


def test_damaged_files(tmp_path):
  path = write(tmp_path / "a.jsonl.gz", ROWS * 50)
  path.write_bytes(path.read_bytes()[:-20])
  with pytest.raises(DataError, match="damaged"):
    list(read(f"jsonl:{path}", SCHEMA))
  path.write_bytes(b"not gzip")
  with pytest.raises(DataError, match="damaged after line 0"):
    list(read(f"jsonl:{path}", SCHEMA))
  with pytest.raises(DataError, match="expected a list of rows, got dict"):
    list(read_rows(_raw(tmp_path / "b.json", "{}"), {}))
  with pytest.raises(DataError, match=r"c\.json:2: expected an object with fields question, answer, got list"):
    list(read_rows(_raw(tmp_path / "c.json", json.dumps([ROWS[0], "text"])), SCHEMA))
  with pytest.raises(DataError, match="not JSON"):
    list(read_rows(_raw(tmp_path / "d.jsonl", "[" * 100_000), {}))


def _raw(path, text):
  path.write_text(text)
  return path


def test_exact_types(tmp_path):
  path = write(tmp_path / "a.jsonl", ['{"n": 1}', "", '{"n": true}'])
  rows = read_rows(path, {"n": int})
  assert next(rows) == (1, {"n": 1})
  with pytest.raises(DataError, match=r"a\.jsonl:3: field 'n': expected int, got True"):
    next(rows)


def test_a_file_that_is_not_the_manifests_is_refused(tmp_path):
  path = write(tmp_path / "gsm8k" / "train.jsonl")
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  (tmp_path / "MANIFEST.json").write_text(json.dumps({"gsm8k/train.jsonl": {"sha256": digest}}))
  assert len(list(read(f"jsonl:{path}", SCHEMA, str(tmp_path)))) == 2
  write(path, ROWS[:1])
  with pytest.raises(DataError, match="SHA-256 differs"):
    list(read(f"jsonl:{path}", SCHEMA, str(tmp_path)))


@pytest.mark.parametrize("location, message", [
    ("csv:a.csv", "expected jsonl:PATH, tfds:NAME/SPLIT or hf:NAME/SPLIT, got 'csv:a.csv'"),
    ("jsonl:", "expected jsonl:PATH"),
    ("tfds:gsm8k", "'tfds:gsm8k' names no split; expected tfds:NAME/SPLIT"),
    ("hf:gsm8k", "'hf:gsm8k' names no split; expected hf:NAME/SPLIT"),
])  # fmt: skip
def test_what_is_no_location(location, message):
  with pytest.raises(DataError, match=message):
    list(read(location, {}))


class Sums(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """As TFDS would prepare a published set: bytes, numbers and lists."""

  name = "sums"
  VERSION = tfds.core.Version("1.0.0")
  code_path = None

  def _info(self):
    features = {"question": tfds.features.Text(), "answer": tfds.features.Text(), "n": tfds.features.Scalar(np.int32),
                "tests": tfds.features.Sequence(tfds.features.Text())}  # fmt: skip
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True)

  def _split_generators(self, download_manager):
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    for i, row in enumerate(ROWS):
      yield i, {**row, "n": i, "tests": ["a", "b"]}


def test_tfds_by_name_without_tensorflow(tmp_path):
  tfds.disable_progress_bar()
  Sums(data_dir=tmp_path, file_format="array_record").download_and_prepare()
  found = list(read("tfds:sums/train", SCHEMA, str(tmp_path)))
  assert found == [("tfds:sums/train", i + 1, {**ROWS[i], "n": i, "tests": ["a", "b"]}) for i in range(2)]
  with pytest.raises(DataError, match=r"^tfds:sums/test: .*test"):
    list(read("tfds:sums/test", SCHEMA, str(tmp_path)))
  with pytest.raises(DataError, match=r"^tfds:nothing/train: DatasetNotFoundError"):
    list(read("tfds:nothing/train", SCHEMA, str(tmp_path)))


def test_hf_from_a_local_folder(tmp_path):
  pytest.importorskip("datasets", reason="the package datasets (the extra hf) is not installed")
  write(tmp_path / "sums" / "train.jsonl")
  found = list(read("hf:sums/train", SCHEMA, str(tmp_path)))
  assert found == [("hf:sums/train", i + 1, ROWS[i]) for i in range(2)]
  with pytest.raises(DataError, match=r"^hf:sums/test: "):
    list(read("hf:sums/test", SCHEMA, str(tmp_path)))
