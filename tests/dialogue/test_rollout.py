"""Who plays what among several processes, and that the first process alone asks the world outside."""

from __future__ import annotations

import dataclasses
import threading

import jax
import pytest

from sml_jax import parallel
from sml_jax.dialogue.conversation import Rules, Table
from sml_jax.dialogue.record import Dialogue
from sml_jax.dialogue.rollout import OneTable, OwnTables, ToldWriter, share
from sml_jax.errors import UserError
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


@dataclasses.dataclass
class World:
  """Each process would hear something else of it."""

  me: int
  asked: int = 0
  words = 7

  def hear(self, what: str) -> str:
    self.asked += 1
    return f"{what} of {self.me}"

  def verify(self, tasks, texts):
    return [self.hear("verdict") for _ in tasks]

  def kind(self, task, text):
    return self.hear("kind")

  def question(self, task, dialogue):
    return self.hear("question")

  def reason(self, task, text):
    return self.hear("reason")

  def knowledge(self, task, dialogue):
    return {"known": self.hear("knowledge")}

  def teacher(self, feedback):
    return self

  def reply(self, tasks, dialogues):
    return [self.hear("reply") for _ in tasks]

  def write(self, notes):
    return [self.hear("words") for _ in notes]

  def size(self, domain, part):
    return self.me


def test_the_first_process_asks_for_all(monkeypatch):
  monkeypatch.setattr(Table, "__init__", lambda self, engine, renderer, source, budget: setattr(self, "source", source))
  worlds = [World(0), World(1)]

  def play(i):
    source = OneTable(None, None, worlds[i], None).source
    two = tasks("ab")
    return [
        source.verify(two, ["x", "y"]), source.kind(two[1], "y"), source.kind(two[0], "other"),
        source.question(two[0], None), source.teacher("full").reply(two, [None] * 2),
        source.teacher("full").reply([], []), source.verify([], []),
        source.reason(two[1], "y"), source.reason(two[0], "other"), source.knowledge(two[0], None),
        ToldWriter(worlds[i]).write([1, 2]), ToldWriter(worlds[i]).write([]),
    ]  # fmt: skip

  heard = [["verdict of 0"] * 2, "kind of 0", "kind of 0", "question of 0", ["reply of 0"] * 2, [], [],
           "reason of 0", "reason of 0", {"known": "knowledge of 0"}, ["words of 0"] * 2, []]  # fmt: skip
  assert Processes(monkeypatch, 2).run(play) == [heard, heard]
  assert (worlds[0].asked, worlds[1].asked) == (2 + 2 + 2 + 1 + 1 + 2 + 1 + 1 + 2, 0)
