"""Sampler and trainer are one program: log-probabilities, weights and caches agree."""

from __future__ import annotations

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


def test_score_is_the_trainers_log_probability_and_leaves_the_rows_alone(engine, params, trainer):
  decode, fed, answers = engine.decode_params(params), prompts(8), [p[:8] for p in prompts(8, seed=2)]
  rows = engine.feed(decode, engine.start(), fed, 64)
  before = jax.tree.map(np.array, rows)
  rows, nats = engine.score(decode, rows, answers, 64)
  np.testing.assert_array_equal(rows.lengths, before.lengths)
  np.testing.assert_array_equal(rows.last, before.last)
  held = np.arange(before.cache[0][0].shape[2]) < before.lengths[:, None]  # [B, S]
  for a, b in zip(jax.tree.leaves(before.cache), jax.tree.leaves(rows.cache), strict=True):
    np.testing.assert_array_equal(a.swapaxes(1, 2)[held], np.asarray(b).swapaxes(1, 2)[held])
  want = logprobs_of(trainer, params, [f + a for f, a in zip(fed, answers, strict=True)])
  np.testing.assert_allclose(nats, [-w[-len(a) :].sum() for w, a in zip(want, answers, strict=True)], atol=1e-4)
  rows, nats = engine.score(decode, rows, [[]] * 8, 64)
  assert nats.tolist() == [0.0] * 8
  with pytest.raises(UserError, match="a turn of 9 tokens cannot be scored"):
    engine.score(decode, rows, [[3] * 9, *[[]] * 7], 64)


def test_P21_the_sampler_gets_the_updated_weights(engine, model, params, trainer):
  row = {"tokens": np.arange(3, 40), "weights": np.ones(37), "advantages": np.ones(37), "logprobs": np.full(37, -5.0)}
  batch = pack_all([{k: v.astype(np.int32 if k == "tokens" else np.float32) for k, v in row.items()}], 64)
  state, _ = trainer.update(trainer.init(params), batch)
  decode = engine.decode_params(state.params)
  for a, b in zip(jax.tree.leaves(decode), jax.tree.leaves(model.unstacked(state.params)), strict=True):
    np.testing.assert_array_equal(a, b)
  fed, answers, nats = prompts(8), prompts(8, seed=1), []
  for p in (engine.decode_params(params), decode):
    nats.append(engine.score(p, engine.feed(p, engine.start(), fed, 64), [a[:3] for a in answers], 64)[1])
  assert np.abs(nats[0] - nats[1]).min() > 1e-5


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
