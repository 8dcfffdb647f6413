"""Sampler and trainer are one program: log-probabilities, weights and caches agree."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import optax
import pytest

from sml_jax import parallel
from sml_jax.data.packing import pack_all
from sml_jax.data.rows import token_row
from sml_jax.dialogue.conversation import Rules, Table, TokenBudget
from sml_jax.dialogue.renderer import Renderer
from sml_jax.errors import UserError
from sml_jax.learn.losses import Objective
from sml_jax.learn.trainer import Trainer
from sml_jax.models.transformer import Model, ModelConfig
from sml_jax.sampling.engine import Engine
from sml_jax.sampling.session import Request, Said, Session
from sml_jax.tasks.microworld import World
from sml_jax.tasks.microworld_source import MicroworldSource


@pytest.fixture(scope="module")
def model() -> Model:
  return Model(ModelConfig(Renderer().vocab_size, d_model=16, layers=2, heads=2, kv_heads=1, head_dim=8, mlp_dim=24))


@pytest.fixture(scope="module")
def params(model):
  return jax.jit(model.init)(jax.random.key(0, impl="unsafe_rbg"))


@pytest.fixture(scope="module")
def trainer(model) -> Trainer:
  return Trainer(model, Objective("grpo"), optax.sgd(0.1), parallel.make_mesh())


@pytest.fixture(scope="module")
def engine(model) -> Engine:
  return Engine(model, rows=8, slots=64, max_turn=8, stop_ids=(5,), chunk=8)


def prompts(n: int, seed: int = 0) -> list[list[int]]:
  rng = np.random.default_rng(seed)
  return [rng.integers(3, 300, rng.integers(3, 30)).tolist() for _ in range(n)]


def logprobs_of(trainer: Trainer, params, sequences) -> list[np.ndarray]:
  """The trainer's log-probability of each token of each sequence, from rows packed as in an update."""
  others = lambda s: {name: np.zeros(len(s), np.float32) for name in ("weights", "advantages", "logprobs")}
  rows = [{"tokens": np.asarray(s)} | others(s) for s in sequences]
  batch = pack_all(rows, 64)
  scores, found = trainer.score(params, batch), {}
  for r, segments in enumerate(batch["segments"]):
    for segment in range(1, segments.max() + 1):
      found[tuple(batch["tokens"][r][segments == segment])] = scores[r][segments == segment]
  return [found[tuple(s)] for s in sequences]


def scores_of(engine, decode, fed, answers) -> tuple[Session, dict[int, Said]]:
  """Each row reads, has its answer scored, and then says up to 8 tokens."""
  session, said = Session(engine, decode), {}
  for row, (tokens, answer) in enumerate(zip(fed, answers, strict=True)):
    key, done = np.asarray(jax.random.key_data(jax.random.key(1))), lambda s, row=row: said.__setitem__(row, s)
    session.submit(Request(row, tokens, 0, key, (1, row, 1), 8, 1.0, done, score=answer))
  while session.busy:
    session.tick()
  return session, said


def test_score_is_the_trainers_log_probability_and_leaves_the_rows_alone(engine, params, trainer):
  decode, fed = engine.decode_params(params), prompts(8)
  answers = [p[:n] for p, n in zip(prompts(8, seed=2), (8, 8, 3, 7, 8, 8, 1, 0), strict=True)]
  _, said = scores_of(engine, decode, fed, answers)
  _, without = scores_of(engine, decode, fed, [[]] * 8)
  for row in range(8):
    assert dataclasses.replace(said[row], nats=None) == without[row]  # as if nobody had asked
  assert said[7].nats is None
  want = logprobs_of(trainer, params, [f + a for f, a in zip(fed, answers, strict=True)])
  for row in range(7):
    np.testing.assert_allclose(said[row].nats, -want[row][-len(answers[row]) :].sum(), atol=1e-4)
  with pytest.raises(UserError, match="a turn of 9 tokens cannot be scored"):
    scores_of(engine, decode, fed[:1], [[3] * 9])


def test_P21_the_sampler_gets_the_updated_weights(engine, model, params, trainer):
  row = {"tokens": np.arange(3, 40), "weights": np.ones(37), "advantages": np.ones(37), "logprobs": np.full(37, -5.0)}
  batch = pack_all([{k: v.astype(np.int32 if k == "tokens" else np.float32) for k, v in row.items()}], 64)
  state, _ = trainer.update(trainer.init(params), batch)
  decode = engine.decode_params(state.params)
  for a, b in zip(jax.tree.leaves(decode), jax.tree.leaves(model.unstacked(state.params, turned=True)), strict=True):
    np.testing.assert_array_equal(a, b)
  fed, answers = prompts(8), [a[:3] for a in prompts(8, seed=1)]
  before, after = (scores_of(engine, p, fed, answers)[1] for p in (engine.decode_params(params), decode))
  assert min(abs(before[row].nats - after[row].nats) for row in range(8)) > 1e-5


@pytest.fixture(scope="module")
def table(model) -> Table:
  renderer = Renderer()
  renderer.stop_ids = tuple(range(0, renderer.vocab_size, 2))
  budget = TokenBudget(problem=32, turn=12, reply=20)
  engine = Engine(model, rows=64, slots=budget.length(4), max_turn=12, stop_ids=renderer.stop_ids)
  return Table(engine, renderer, MicroworldSource(World()), budget)


def play(table: Table, params, n: int = 64, turns: int = 4, **rules):
  tasks = [table.source.task("math", "dev", i) for i in range(n)]
  return table.play(params, tasks, [0] * n, Rules(turns, **rules), jax.random.key(1))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_P18_sampled_log_probabilities_are_the_trainers(table, model, params, temperature):
  """f32, within 1e-5, on 64 dialogues of four turns: kept caches against packed rows."""
  dialogues = play(table, params, temperature=temperature)
  assert sum(len(d.student_turns) == 4 for d in dialogues) >= 60
  batch = pack_all([token_row(d) for d in dialogues], 192)
  objective = Objective("grpo", temperature=temperature)
  scores = Trainer(model, objective, optax.sgd(0.1), parallel.make_mesh()).score(params, batch)
  trained = batch["weights"] == 1
  assert trained.sum() == sum(d.sampled_tokens for d in dialogues) > 300
  np.testing.assert_allclose(batch["logprobs"][trained], scores[trained], atol=1e-5)


def test_P20_no_cache_outlives_its_weights(table, model, params):
  """Other weights in the same engine, after other dialogues: bitwise what a new engine gives."""
  other = jax.tree.map(lambda a: a, params)
  other["blocks"]["v"] = params["blocks"]["v"].at[0, 0, 0, 0].add(1.0)
  old = play(table, params, turns=2)
  got = play(table, other, turns=2)
  e = table.engine
  new = Engine(model, rows=64, slots=e.slots, max_turn=12, stop_ids=table.renderer.stop_ids)
  assert got == play(Table(new, table.renderer, table.source, table.budget), other, turns=2)
  assert [t.logprobs for d in got for t in d.student_turns] != [t.logprobs for d in old for t in d.student_turns]
