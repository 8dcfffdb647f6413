"""A workdir on an object store: nothing appends, nothing needs a folder to be there, nothing opens it as a local file.

The store is one in memory behind `epath`, with the ways of gs:// that differ from a disk: folders exist only as the
beginnings of names, and a file is there when it is closed. Checkpoints are not tested here: TensorStore has its own gs://.
"""

from __future__ import annotations

import json
import types

import fsspec
import pytest
import tensorboardX.record_writer as board
from etils import epath
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem
from matplotlib.figure import Figure

from sml_jax import config as c
from sml_jax import config_check
from sml_jax.data.store import DialogueWriter, build_dataset, open_dataset, read_dialogues
from sml_jax.dialogue.record import Dialogue, Turn
from sml_jax.evaluate.figures import save_png
from sml_jax.evaluate.metrics_log import MetricsLog
from sml_jax.workdir import Workdir


class ObjectStore(MemoryFileSystem):
  """MemoryFileSystem without folders of their own."""

  protocol = "gs"
  cachable = False
  store, pseudo_dirs = {}, [""]

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(str(path).removeprefix("gs://"))

  def makedirs(self, path, exist_ok=False):
    pass

  def mkdir(self, path, create_parents=True, **kwargs):
    pass

  def open(self, path, mode="rb", **kwargs):
    assert "a" not in mode and "+" not in mode, f"{path} is opened to append"
    return super().open(path, mode, **kwargs)


@pytest.fixture
def bucket(monkeypatch) -> epath.Path:
  store = ObjectStore()
  store.store.clear()
  local = fsspec.filesystem("file")
  monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", lambda name: local if name == "file" else store)
  monkeypatch.setenv("EPATH_USE_TF", "false")
  return epath.Path("gs://bucket/run")


def dialogue(i: int) -> Dialogue:
  turns = [Turn("teacher", "one and one?"), Turn("student", "2", [i], [1], [-0.5], "answer_attempt", "solved")]
  return Dialogue(f"task {i}", "math", 0, "full", turns, "solved", [2], 1.0)


def test_the_store_is_like_one(bucket):
  bucket.mkdir(parents=True, exist_ok=True)
  assert not bucket.exists()
  with pytest.raises(FileNotFoundError):
    list(bucket.iterdir())
  (bucket / "a" / "b").write_text("x")
  assert bucket.is_dir() and [p.name for p in bucket.iterdir()] == ["a"]


def test_workdir(bucket):
  config = config_check.validate(c.to_config(config_check.complete(config_check.plain(c.get_default()))))
  for seen in ([], [], ["log_every"]):
    if seen:
      config.log_every += 1
    workdir = Workdir(bucket, config)
    assert [key for key, _, _ in workdir.changes] == seen
  workdir.keep("tokenizer", "abc", "was another")
  workdir.stage_dir("base")
  assert not workdir.is_done("base")
  workdir.mark_done("base", {"seconds": 1.5})
  assert Workdir(bucket, config).done_info("base") == {"seconds": 1.5}
  assert sorted(p.name for p in bucket.iterdir()) == ["base", "config.json", "config_changes.json", "kept.json"]


def test_record_and_data_set(bucket):
  record = DialogueWriter(bucket / "base" / "dialogues")
  assert record.discard_after(0) == 0 and record.steps() == set()
  for step in (1, 2, 3):
    record.write(step, 0, [dialogue(step), dialogue(10 * step)])
  assert record.discard_after(2) == 1
  want = [dialogue(i) for i in (1, 10, 2, 20)]
  assert list(read_dialogues(record.folder)) == want
  for _ in range(2):
    assert list(open_dataset(build_dataset(record.folder, bucket / "base" / "dataset"))) == want
  record.write(3, 0, [dialogue(5)])
  assert list(open_dataset(build_dataset(record.folder, bucket / "base" / "dataset"))) == [*want, dialogue(5)]


def test_metrics_and_figure(bucket, monkeypatch):
  """TensorBoard's files go through google-cloud-storage, whole at every flush; `Events` stands for that."""
  class Events:
    def __init__(self, path):
      self.path, self.written = epath.Path(path), b""

    def write(self, data):
      self.written += data

    def flush(self):
      self.path.write_bytes(self.written)

    close = flush

  factory = types.SimpleNamespace(open=Events, directory_check=lambda path: None)
  monkeypatch.setitem(board.REGISTERED_FACTORIES, "gs", factory)
  for step in (1, 2):
    log = MetricsLog(bucket / "base", "base")
    log.write(step, {"loss": 1 / step})
    log.close()
  rows = [json.loads(line) for line in (bucket / "base" / "metrics.jsonl").read_text().splitlines()]
  assert rows == [{"step": 1, "stage": "base", "loss": 1.0}, {"step": 2, "stage": "base", "loss": 0.5}]
  assert list((bucket / "base" / "tensorboard").iterdir())
  save_png(Figure(), bucket / "success.png")
  assert (bucket / "success.png").read_bytes().startswith(b"\x89PNG")
