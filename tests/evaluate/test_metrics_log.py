import json

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from sml_jax.errors import UserError
from sml_jax.evaluate.metrics_log import MetricsLog


def lines(folder):
  return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def events(folder):
  """(step, tag, value) of every scalar, and the steps at which a new session starts, over all event files in order."""
  scalars, starts = [], []
  for path in sorted((folder / "tensorboard").iterdir()):
    data, at = path.read_bytes(), 0
    while at < len(data):
      n = int.from_bytes(data[at : at + 8], "little")
      event = Event.FromString(data[at + 12 : at + 12 + n])
      at += 16 + n
      if event.HasField("session_log"):
        starts.append(event.step)
      scalars += [(event.step, v.tag, round(v.simple_value, 6)) for v in event.summary.value]
  return scalars, starts


def test_rows(tmp_path):
  log = MetricsLog(tmp_path / "a", "mt_rl")
  log.write(1, {"loss": np.float32(0.5), "seconds": 2.0, "mfu": None, "groups": np.int64(3)})
  log.write(2, {"loss": float("nan"), "clock": {"seconds": 1.0}})
  log.close()
  assert lines(tmp_path / "a") == [
      {"step": 1, "stage": "mt_rl", "loss": 0.5, "groups": 3, "clock": {"seconds": 2.0, "mfu": None}},
      {"step": 2, "stage": "mt_rl", "loss": None, "clock": {"seconds": 1.0}},
  ]
  scalars, _ = events(tmp_path / "a")
  assert set(scalars) == {(1, "loss", 0.5), (1, "groups", 3.0), (1, "seconds", 2.0), (2, "seconds", 1.0)}


def test_a_resumed_run_equals_an_unbroken_one_but_for_the_clock(tmp_path):
  def steps(log, first, last, speed):
    for step in range(first, last + 1):
      log.write(step, {"loss": 1 / step, "tokens_per_second": speed})

  whole = MetricsLog(tmp_path / "whole", "st_rl")
  steps(whole, 1, 8, 100.0)
  whole.close()
  broken = MetricsLog(tmp_path / "broken", "st_rl")
  steps(broken, 1, 6, 200.0)  # saved at step 4, killed after step 6
  broken.flush()
  resumed = MetricsLog(tmp_path / "broken", "st_rl")
  assert len(resumed.rows) == 6
  resumed.discard_after(4)
  assert [row["step"] for row in lines(tmp_path / "broken")] == [1, 2, 3, 4]
  steps(resumed, 5, 8, 300.0)
  resumed.close()
  a, b = ([{k: v for k, v in row.items() if k != "clock"} for row in lines(tmp_path / n)] for n in ("whole", "broken"))
  assert a == b and len(a) == 8
  assert events(tmp_path / "broken")[1] == [5]  # TensorBoard drops what the killed run wrote from step 5 on


def test_it_flushes_by_itself_now_and_then(tmp_path):
  log = MetricsLog(tmp_path, "s", every_seconds=0)
  log.write(1, {"a": 1})
  assert lines(tmp_path) == [{"step": 1, "stage": "s", "a": 1}]
  slow = MetricsLog(tmp_path / "slow", "s", every_seconds=1000)
  slow.write(1, {"a": 1})
  assert not (tmp_path / "slow").exists()


def test_a_full_disk_leaves_the_file_before_whole(tmp_path, monkeypatch):
  log = MetricsLog(tmp_path, "s")
  log.write(1, {"a": 1})
  log.flush()
  log.write(2, {"a": 2})

  def full(self, data):
    with open(self, "wb") as f:
      f.write(data[:5])
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(type(log.folder), "write_bytes", full)
  with pytest.raises(UserError, match="No space"):
    log.flush()
  assert [row["step"] for row in lines(tmp_path)] == [1]
  assert not (tmp_path / "metrics.jsonl.part").exists()
  monkeypatch.undo()
  log.close()
  assert [row["step"] for row in lines(tmp_path)] == [1, 2]


@pytest.mark.parametrize("bad", ["{", '{"stage": "s"}', "[]"])
def test_a_malformed_row_is_named(tmp_path, bad):
  (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n' + bad + "\n")
  with pytest.raises(ValueError, match=r"metrics.jsonl, line 2"):
    MetricsLog(tmp_path, "s")


def test_other_processes_write_nothing(tmp_path):
  log = MetricsLog(tmp_path / "x", "s", enabled=False)
  log.write(1, {"a": 1})
  log.discard_after(0)
  log.close()
  assert not (tmp_path / "x").exists()
