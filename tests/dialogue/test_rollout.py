"""Who plays what among several processes, and that the first process alone asks the world outside."""

from __future__ import annotations

import threading

import jax
import numpy as np
import pytest

from sml_jax import parallel
from sml_jax.dialogue.conversation import Rules, Table, TokenBudget
from sml_jax.dialogue.record import Dialogue
from sml_jax.dialogue.renderer import Renderer
from sml_jax.dialogue.rollout import OneTable, OwnTables, share
from sml_jax.errors import UserError
from sml_jax.models.transformer import Model, ModelConfig
from sml_jax.sampling.engine import Engine
from sml_jax.tasks.source import Source
from sml_jax.tasks.task import Task


def tasks(names: str) -> list[Task]:
  return [Task(id=n, domain="math", text=n, answer=n, private=n) for n in names]


@pytest.mark.parametrize("names, parts", [
    ("aaabbbccc", [[0, 1, 2, 6, 7, 8], [3, 4, 5]]),  # groups of three stay together
    ("abcab", [[0, 2, 3], [1, 4]]),  # a task that comes twice, too
    ("a", [[0], []]),
])  # fmt: skip
def test_tasks_are_dealt_in_turn_with_all_their_dialogues(names, parts):
  assert [share(tasks(names), i, 2) for i in range(2)] == parts


class Processes:
  """Threads that `parallel.gather` takes for processes."""

  def __init__(self, monkeypatch, count: int):
    self.count, self.here, self.barrier = count, threading.local(), threading.Barrier(count)
    self.given = [None] * count
    monkeypatch.setattr(jax, "process_index", lambda: self.here.index)
    monkeypatch.setattr(jax, "process_count", lambda: count)
    monkeypatch.setattr(parallel.multihost_utils, "process_allgather", self.allgather)

  def allgather(self, array):
    self.given[self.here.index] = array
    self.barrier.wait(10)
    every = parallel.np.stack(self.given)
    self.barrier.wait(10)
    return every

  def run(self, work) -> list:
    out = [None] * self.count

    def one(index):
      self.here.index = index
      try:
        out[index] = work(index)
      except Exception as e:
        out[index] = e

    threads = [threading.Thread(target=one, args=(i,)) for i in range(self.count)]
    for t in threads:
      t.start()
    for t in threads:
      t.join(20)
    return out


def test_gather_is_exact_and_passes_failures_on(monkeypatch):
  two = Processes(monkeypatch, 2)
  assert two.run(lambda i: parallel.gather(lambda: [0.1 + i] * (1 + 40 * i))) == [[[0.1], [1.1] * 41]] * 2
  assert two.run(lambda i: parallel.by_first(lambda: f"said by {i}")) == ["said by 0"] * 2
  assert two.run(lambda i: parallel.all_or_none(lambda: i)) == [0, 1]

  def fails(i):
    raise UserError("no disk") if i else ValueError("worse")

  first, second = two.run(lambda i: parallel.gather(lambda: fails(i) if i else 5))
  assert isinstance(first, UserError) and str(first) == "process 1: no disk"
  assert isinstance(second, UserError) and str(second) == "no disk"
  first, second = two.run(lambda i: parallel.by_first(lambda: fails(i)))
  assert isinstance(first, ValueError) and isinstance(second, UserError)
  assert str(second) == "process 0: ValueError: worse"


def test_each_plays_its_own_and_all_have_all(monkeypatch):
  monkeypatch.setattr(Table, "__init__", lambda self: None)
  said = lambda t, s, i: Dialogue(t.id, t.domain, s, "full", reward=1 / 3 + i)
  monkeypatch.setattr(
      Table, "play",
      lambda self, params, tasks, samples, rules, key: [
          said(t, s, jax.process_index()) for t, s in zip(tasks, samples, strict=True)
      ],
  )  # fmt: skip
  asked, samples = tasks("aabbc"), [0, 1, 0, 1, 0]
  out = Processes(monkeypatch, 2).run(lambda i: OwnTables().play(None, asked, samples, Rules(1), None))
  wanted = [said(t, s, i) for t, s, i in zip(asked, samples, [0, 0, 1, 1, 0], strict=True)]
  assert out == [wanted, wanted]


class Asked(Source):
  """Only the first process may ask it."""

  any_thread = True

  def __init__(self, me: int, fails: bool = False):
    self.me, self.fails, self.asked = me, fails, 0

  def verify(self, tasks, texts):
    self.asked += 1
    if self.fails and self.asked > 2:
      raise OSError("no network")
    return ["wrong"] * len(tasks)

  def kind(self, task, text):
    return "answer_attempt"

  def teacher(self, feedback):
    return self

  def reply(self, tasks, dialogues):
    return ["Look again."] * len(tasks)


@pytest.fixture(scope="module")
def model():
  return Model(ModelConfig(Renderer().vocab_size, d_model=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp_dim=16))


def one_table(kind, model, source) -> Table:
  renderer = Renderer()
  renderer.stop_ids = tuple(range(0, renderer.vocab_size, 8))
  budget = TokenBudget(32, 12, 20)
  engine = Engine(model, rows=4, slots=budget.length(3), max_turn=12, stop_ids=renderer.stop_ids)
  return kind(engine, renderer, source, budget)


def test_the_first_process_plays_and_the_others_run_its_steps(monkeypatch, model):
  params, asked, samples = model.init(jax.random.key(0)), tasks("aabbccdd"), [0, 1] * 4
  play = lambda table: table.play(params, asked, samples, Rules(3), jax.random.key(1))
  want = play(one_table(Table, model, Asked(0)))
  sources, caches, plain = [Asked(0), Asked(1)], {}, OneTable._run

  def noting(self, play, sessions):
    dialogues = plain(self, play, sessions)
    caches[jax.process_index()] = [session._rows for session in sessions]
    return dialogues

  monkeypatch.setattr(OneTable, "_run", noting)
  tables = [one_table(OneTable, model, source) for source in sources]
  two = Processes(monkeypatch, 2)
  out = two.run(lambda i: play(tables[i]))
  assert out == [want, want] and sources[0].asked > 2 and sources[1].asked == 0
  for a, b in zip(*map(jax.tree.leaves, (caches[0], caches[1])), strict=True):
    np.testing.assert_array_equal(a, b)


def test_no_process_waits_for_one_that_has_failed(monkeypatch, model):
  params, asked = model.init(jax.random.key(0)), tasks("aabbccdd")
  two = Processes(monkeypatch, 2)
  play = lambda table: table.play(params, asked, [0, 1] * 4, Rules(3), jax.random.key(1))
  tables = [one_table(OneTable, model, Asked(i, fails=True)) for i in range(2)]
  first, second = two.run(lambda i: play(tables[i]))
  assert isinstance(first, OSError)
  assert isinstance(second, UserError) and str(second) == "process 0: OSError: no network"
  tables = [one_table(OneTable, model, Asked(i)) for i in range(2)]
  decode, calls = tables[1].engine.decode, []

  def breaks(*args):
    calls.append(1)
    if len(calls) == 2:
      raise ValueError("no memory")
    return decode(*args)

  tables[1].engine.decode = breaks
  first, second = two.run(lambda i: play(tables[i]))
  assert isinstance(first, UserError) and str(first) == "process 1: ValueError: no memory"
  assert isinstance(second, ValueError)
