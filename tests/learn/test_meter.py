"""Where the time of a step went."""

from __future__ import annotations

import collections
import functools
import types

import pytest

from sml_jax.learn import meter
from sml_jax.learn.flops import dialogue_flops, train_flops
from sml_jax.learn.meter import Meter
from sml_jax.models.transformer import ModelConfig
from sml_jax.run import TrainingStage

CONFIG = ModelConfig(64, d_model=8, layers=2, heads=2, kv_heads=1, head_dim=4, mlp_dim=16)


def test_shares_speed_and_mfu_by_hand(monkeypatch):
  now, rollouts = [100.0], collections.Counter(prefill=7.0, decode=9.0)
  monkeypatch.setattr(meter.time, "monotonic", lambda: now[0])
  monkeypatch.setattr(meter.jax, "device_count", lambda: 4)
  m = Meter(CONFIG, 1e6, rollouts, parts=2)

  def spend(seconds, name):
    with m.part(name):
      now[0] += seconds

  spend(0.5, "data")
  now[0] += 5
  rollouts.update(prefill=1.0, decode=3.0, verify=0.25, teacher=0.75)  # of the five
  spend(4.0, "train")
  m.train([10, 30])
  m.sample([20, 40])
  now[0] += 0.5
  clock = m.read()
  assert clock["seconds"] == 10 and clock["tokens_per_second"] == 8 and clock["tokens_per_second_per_device"] == 2
  flops = 2 * (train_flops(CONFIG, [10, 30]) + dialogue_flops(CONFIG, [20, 40]))
  assert clock["mfu"] == pytest.approx(flops / 10 / 1e6)
  shares = {"prefill": 0.1, "decode": 0.3, "teacher": 0.075, "verify": 0.025, "train": 0.4, "data": 0.05}
  assert {name: clock[f"share_{name}"] for name in meter.PARTS} == pytest.approx(shares)
  now[0] += 1
  rollouts.update(decode=0.5)
  again = m.read()
  assert again["share_decode"] == 0.5 and again["share_prefill"] == again["share_train"] == again["mfu"] == 0


def test_without_a_peak_there_is_no_mfu():
  m = Meter(CONFIG, None, {})
  m.train([3])
  assert m.read()["mfu"] is None


def test_a_row_of_metrics_has_the_clock_of_all_steps_since_the_last(monkeypatch):
  """Three steps of 40 tokens and 2 s a row: 20 tokens a second, and not what the last of them alone would give."""
  now, written = [0.0], []
  monkeypatch.setattr(meter.time, "monotonic", lambda: now[0])
  shown = types.SimpleNamespace(update=lambda step, **_: None)
  stage = types.SimpleNamespace(
      run=types.SimpleNamespace(config=types.SimpleNamespace(log_every=3), progress=shown),
      config=types.SimpleNamespace(steps=7), metrics=types.SimpleNamespace(write=lambda *row: written.append(row)),
  )  # fmt: skip
  stage.due = functools.partial(TrainingStage.due, stage)
  m = Meter(CONFIG, None, {})
  for step in range(1, 8):
    with m.part("train"):
      now[0] += 2
    m.train([10, 30])
    TrainingStage.log(stage, step, {"loss": 0.0}, m)
  assert [step for step, _ in written] == [3, 6, 7]
  for _, row in written:
    assert row["clock"]["tokens_per_second"] == 20 and row["clock"]["share_train"] == 1
  assert [row["clock"]["seconds"] for _, row in written] == [6, 6, 2]
