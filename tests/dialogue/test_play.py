"""When what happens: seats that are taken anew, errands beside decoding, and that nothing of it changes a dialogue."""

from __future__ import annotations

import dataclasses
import random
import threading
import time

import jax
import jax.numpy as jnp
import pytest

from sml_jax.dialogue.conversation import Rules, Table, TokenBudget
from sml_jax.dialogue.play import Play
from sml_jax.dialogue.renderer import Renderer
from sml_jax.models.transformer import Model, ModelConfig
from sml_jax.sampling.engine import Engine
from sml_jax.sampling.session import Sessions
from sml_jax.tasks.microworld import World
from sml_jax.tasks.microworld_source import MicroworldSource
from sml_jax.tasks.source import Source
from sml_jax.tasks.task import Task

BUDGET = TokenBudget(problem=40, turn=12, reply=24)
KEY = jax.random.key(3)


class Late(Source):
  """Every answer takes its time, and who asks first may be answered last."""

  def __init__(self, seed: int = 0, longest_s: float = 0.02, any_thread: bool = True):
    self.any_thread, self.longest_s = any_thread, longest_s
    self.random, self.inside, self.most = random.Random(seed), 0, 0
    self.lock = threading.Lock()

  def _wait(self) -> None:
    with self.lock:
      self.inside += 1
      self.most = max(self.most, self.inside)
      seconds = self.random.random() * self.longest_s
    time.sleep(seconds)
    with self.lock:
      self.inside -= 1

  def verify(self, tasks, texts):
    self._wait()
    return ["wrong"] * len(tasks)

  def kind(self, task, text):
    return "answer_attempt"

  def teacher(self, feedback):
    return self

  def reply(self, tasks, dialogues):
    self._wait()
    return [f"Look at {len(d.turns[-1].tokens)} pens." for d in dialogues]


@pytest.fixture(scope="module")
def model() -> Model:
  return Model(ModelConfig(Renderer().vocab_size, d_model=16, layers=2, heads=2, kv_heads=1, head_dim=8, mlp_dim=24))


@pytest.fixture(scope="module")
def params(model):
  return jax.jit(model.init)(jax.random.key(0, impl="unsafe_rbg"))


def table_of(model, rows: int, source, turns: int = 4, budget: TokenBudget = BUDGET) -> Table:
  """One piece in eight ends a turn, so that turns are of many lengths."""
  renderer = Renderer()
  renderer.stop_ids = tuple(range(0, renderer.vocab_size, 8))
  engine = Engine(model, rows=rows, slots=budget.length(turns), max_turn=budget.turn, stop_ids=renderer.stop_ids)
  return Table(engine, renderer, source, budget)


@pytest.fixture(scope="module")
def eight(model) -> Table:
  return table_of(model, 8, None)


def tasks_of(n: int) -> list[Task]:
  world = MicroworldSource(World())
  return [world.task("math", "dev", i) for i in range(n)]


def test_seats_arrivals_and_neighbours_change_nothing(eight, params):
  """Bitwise: 20 dialogues on 8 seats while verdicts and replies come in any order, at once, or for one at a time."""
  tasks, rules, samples = [t for t in tasks_of(10) for _ in range(2)], Rules(4), [0, 1] * 10
  sources = Late(1), Late(2), Late(3, 0.0), Late(4, 0.005, any_thread=False)
  played = []
  for source in sources:
    eight.source = source
    played.append(eight.play(params, tasks, samples, rules, KEY))
  assert played[0] == played[1] == played[2] == played[3]
  lengths = {len(t.tokens) for d in played[0] for t in d.student_turns}
  assert len(lengths) > 5 and {2, 8} < {len(d.turns) for d in played[0]}
  assert sources[0].most > 1 and sources[3].most == 1
  eight.source = sources[0]
  for i in (0, 7, 13):
    assert eight.play(params, [tasks[i]], [samples[i]], rules, KEY) == [played[0][i]]
  engine = eight.engine
  assert [f._cache_size() for f in (engine.feed, engine.fork, engine.decode)] == [1, 1, 1]


def test_dialogues_in_step_are_the_same_where_the_teacher_does_not_mind(eight, params):
  class InStep(Late):
    in_step = True

  tasks, played = tasks_of(12), []
  for source in (Late(5, 0.0), InStep(5)):
    eight.source = source
    played.append(eight.play(params, tasks, [0] * 12, Rules(3), KEY))
  assert played[0] == played[1] and source.most == 1


def test_a_slow_verifier_leaves_the_devices_idle_for_less_than_a_tenth():
  """Each verdict and each reply takes up to 10 ms, which is about what a burst takes: the others decode meanwhile."""
  model = Model(ModelConfig(Renderer().vocab_size, d_model=64, layers=4, heads=4, kv_heads=2, head_dim=16, mlp_dim=192))
  params = jax.jit(model.init)(jax.random.key(0))
  table, tasks = table_of(model, 32, Late(6, 0.01)), tasks_of(200)
  table.play(params, tasks[:4], [0] * 4, Rules(4), KEY)  # compiles
  table.clock.clear()
  since = time.monotonic()
  table.play(params, tasks, [0] * 200, Rules(4), KEY)
  seconds, clock = time.monotonic() - since, table.clock
  idle = clock["verify"] + clock["teacher"]
  assert set(clock) == {"prefill", "decode", "verify", "teacher"} and clock["decode"] > 0 and clock["prefill"] > 0
  assert idle < 0.1 * seconds, (seconds, clock)
  assert seconds < 1.05 * sum(clock.values()) + 0.3, (seconds, clock)


class Clockwork:
  """A model that ends its turn where a dialogue of a problem of 300 tokens, turns of 400 and replies of 150 has it."""

  STOP = 0

  def __init__(self, vocab_size: int):
    self.config = ModelConfig(vocab_size, d_model=1, layers=1, heads=1, kv_heads=1, head_dim=2, mlp_dim=1)

  unstacked = staticmethod(lambda params, turned: params)
  init_cache = staticmethod(lambda rows, segments: (((jnp.zeros((rows, 1, 2, 2)),),) * 2,))

  @staticmethod
  def extend(params, cache, tokens, lengths, **at):
    return (lengths[:, None] + jnp.arange(1, tokens.shape[1] + 1))[..., None].astype(jnp.float32), cache

  def logits(self, params, hidden):
    last = (hidden.astype(jnp.int32) + 1) % 550 == 150
    return jnp.where(last, 50.0, -50.0) * (jnp.arange(self.config.vocab_size) == self.STOP)


@pytest.mark.parametrize("turns, wanted, without", [(4, 750, 4_500), (10, 1_650, 27_750)])
def test_tokens_are_fed_once(turns, wanted, without):
  """300, 400 and 150 tokens, with all that belongs to a turn: what is fed, and what an engine that
  keeps nothing would read before each turn."""
  renderer = Renderer()
  renderer.stop_ids = (Clockwork.STOP,)

  class Sized(Late):
    def reply(self, tasks, dialogues):
      words = 150 - len(renderer.student_prompt()) - len(renderer.teacher_turn("").tokens)
      return ["pens " * words] * len(tasks)

  engine = Engine(Clockwork(renderer.vocab_size), rows=1, slots=550 * turns, max_turn=400, stop_ids=renderer.stop_ids)
  table = Table(engine, renderer, Sized(7, 0.0), TokenBudget(300, 400, 150))
  words = 300 - len(renderer.bos) - len(renderer.student_prompt()) - len(renderer.first_turn("").tokens)
  rules, sessions = Rules(turns, temperature=0.0), Sessions()
  sessions.of(engine, dict)
  task = Task("sized", "math", "pens " * words, "", {})
  (d,) = Play(table, sessions, table.others(rules, KEY, sessions), [task], [0], rules, KEY).run()
  assert [len(t.tokens) for t in d.student_turns] == [400] * turns
  (session,) = sessions
  assert (session.fed, session.shared) == (wanted, 0)
  before = [len(renderer.render(dataclasses.replace(d, turns=d.turns[: 2 * n + 1]))) for n in range(turns)]
  assert sum(before) + turns * len(renderer.student_prompt()) == without


@pytest.mark.parametrize("where", ["verify", "reply"])
def test_what_goes_wrong_outside_ends_the_rollout(eight, params, where):
  def fails(*args):
    raise OSError("the network is gone")

  eight.source = Late(8)
  setattr(eight.source, where, fails)
  with pytest.raises(OSError, match="the network is gone"):
    eight.play(params, tasks_of(10), [0] * 10, Rules(3), KEY)
  eight.source = Late(8)
  assert all(d.end for d in eight.play(params, tasks_of(10), [0] * 10, Rules(3), KEY))
