"""The decode engine: stops, budgets, temperature, draws; a row does not depend on its neighbours or its slot."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sml_jax.dialogue.conversation import TokenBudget
from sml_jax.dialogue.renderer import Renderer
from sml_jax.models.transformer import Model, ModelConfig
from sml_jax.sampling.engine import Engine, _draw


class Chain:
  """A model whose next token depends on the last one alone: params [V, V] are its logits. No cache to get wrong."""

  def __init__(self, vocab_size: int):
    self.config = ModelConfig(vocab_size, d_model=1, layers=1, heads=1, kv_heads=1, head_dim=2, mlp_dim=1)

  def unstacked(self, params):
    return params

  def init_cache(self, rows, slots):
    return ((jnp.zeros((rows, 1, slots, 2)),) * 2,)

  def extend(self, params, cache, tokens, lengths, view):
    return tokens[..., None].astype(jnp.float32), cache

  def logits(self, params, hidden):
    return params[hidden[..., 0].astype(jnp.int32)]


def keys(rows: int, seed: int = 0) -> jax.Array:
  return jax.random.split(jax.random.key(seed), rows)


def speak(engine: Engine, params, fed, *, active=None, budgets=None, temperatures=1.0, seed=0, view=None):
  """One turn of each row after `fed`."""
  b = engine.rows
  view = view or engine.slots
  rows = engine.feed(params, engine.start(), fed, view)
  active = np.ones(b, bool) if active is None else np.asarray(active)
  budgets = np.full(b, engine.max_turn, np.int32) if budgets is None else np.asarray(budgets, np.int32)
  temperatures = np.broadcast_to(np.asarray(temperatures, np.float32), (b,))
  return engine.sample(params, rows, keys(b, seed), active, budgets, temperatures, view)


def counting(v: int) -> jax.Array:
  """After x comes x + 1 mod V, with probability .9."""
  return jnp.log(jnp.where(jnp.roll(jnp.eye(v), 1, axis=1) > 0, 0.9, 0.1 / (v - 1)))


@pytest.fixture(scope="module")
def counter() -> Engine:
  return Engine(Chain(32), rows=4, slots=64, max_turn=10, stop_ids=(9, 20))


def test_P14_greedy_counts_and_reports_ln_09(counter):
  """Shifted by one it could not: the logits after x are about x + 1."""
  rows, said = speak(counter, counting(32), [[3, 21], [0, 9], [5, 5, 5], [30]], temperatures=0.0)
  assert said.counts.tolist() == [10, 10, 4, 10]
  assert said.tokens[2, :4].tolist() == [6, 7, 8, 9]  # the stop id is kept
  assert said.tokens[0].tolist() == list(range(22, 32)) and said.tokens[3].tolist() == [31, *range(9)]
  np.testing.assert_allclose(said.logprobs[0], math.log(0.9), atol=1e-6)
  assert rows.lengths.tolist() == [12, 12, 7, 11]


def test_P24_every_stop_id_ends_a_turn(counter):
  _, said = speak(counter, counting(32), [[7], [18], [9], [20]], temperatures=0.0)
  assert said.tokens[0, :2].tolist() == [8, 9] and said.tokens[1, :2].tolist() == [19, 20]
  assert said.counts.tolist() == [2, 2, 10, 9 + 1]  # a stop id that was fed ends nothing
  assert not said.tokens[0, 2:].any() and not said.logprobs[0, 2:].any()


def test_each_row_has_its_own_stop_set(counter):
  params = counting(32)
  rows = counter.feed(params, counter.start(), [[10]] * 4, 64)
  stops = np.array([[13, -1], [11, 14], [-1, -1], [12, 13]], np.int32)
  ones = np.ones(4, bool)
  _, said = counter.sample(params, rows, keys(4, 0), ones, np.full(4, 6, np.int32), np.zeros(4, np.float32), 64, stops)
  assert said.counts.tolist() == [3, 1, 6, 2]  # 11 12 13; 11; 11 to 16; 11 12


def test_budgets_and_active_rows(counter):
  fed = [[21], [22], [23], [24]]
  active, budgets = [True, True, False, True], [3, 99, 5, 0]
  rows, said = speak(counter, counting(32), fed, active=active, budgets=budgets, temperatures=0.0)
  assert said.counts.tolist() == [3, 10, 0, 0]  # no more than max_turn
  assert rows.lengths.tolist() == [4, 11, 1, 1]
  assert not said.tokens[2:].any()
  _, alone = speak(counter, counting(32), fed, budgets=[3, 3, 3, 3], temperatures=0.0)
  assert alone.tokens[0, :3].tolist() == said.tokens[0, :3].tolist() == [22, 23, 24]


def test_P16_temperature_is_in_the_sampled_log_probability():
  """Logits [0, ln 3]: .75 at temperature 1 and .9 at .5, in the reported numbers and in what is drawn."""
  engine = Engine(Chain(2), rows=64, slots=256, max_turn=128, stop_ids=(7,))
  params = jnp.asarray([[0.0, math.log(3)]] * 2)
  temperatures = np.where(np.arange(64) < 32, 0.5, 1.0)
  _, said = speak(engine, params, [[0]] * 64, temperatures=temperatures)
  for half, p in ((slice(0, 32), 0.9), (slice(32, 64), 0.75)):
    tokens, logprobs = said.tokens[half], said.logprobs[half]
    np.testing.assert_allclose(logprobs, np.where(tokens == 1, math.log(p), math.log(1 - p)), atol=1e-6)
    assert abs(tokens.mean() - p) < 4 * (p * (1 - p) / tokens.size) ** 0.5
  _, greedy = speak(engine, params, [[0]] * 64, temperatures=0.0)
  assert greedy.tokens.all()
  np.testing.assert_allclose(greedy.logprobs, math.log(0.75), atol=1e-6)  # of temperature 1


def test_draws_follow_the_probabilities():
  """20,000 draws: chi-square with 3 degrees of freedom exceeds 16.27 once in a thousand seeds; the seed is fixed."""
  p = np.array([0.0, 0.5, 0.2, 0.0, 0.25, 0.05, 0.0])
  with np.errstate(divide="ignore"):
    logp = jnp.broadcast_to(jnp.asarray(np.log(p), jnp.float32), (20_000, len(p)))
  counts = np.bincount(np.asarray(_draw(keys(20_000), logp)), minlength=len(p))
  assert not counts[p == 0].any()
  expected = 20_000 * p[p > 0]
  assert ((counts[p > 0] - expected) ** 2 / expected).sum() < 16.27


def test_draws_at_the_ends_of_the_unit_interval(monkeypatch):
  """The smallest and the largest uniform number pick a token that is possible."""
  logp = jnp.log(jnp.asarray([[0.0, 0.3, 0.7, 0.0]] * 2))
  for u, token in ((0.0, 1), (np.nextafter(np.float32(1), np.float32(0)), 2)):
    monkeypatch.setattr(jax.random, "uniform", lambda key, u=u: jnp.float32(u))
    assert np.asarray(_draw(keys(2), logp)).tolist() == [token] * 2


@pytest.fixture(scope="module")
def model() -> Model:
  return Model(ModelConfig(Renderer().vocab_size, d_model=16, layers=2, heads=2, kv_heads=1, head_dim=8, mlp_dim=24))


@pytest.fixture(scope="module")
def params(model):
  return jax.jit(model.init)(jax.random.key(0, impl="unsafe_rbg"))


@pytest.fixture(scope="module")
def engine(model) -> Engine:
  """Half of all pieces end a turn, so that turns of an untrained student are short and seldom cut."""
  return Engine(model, rows=8, slots=128, max_turn=8, stop_ids=range(0, model.config.vocab_size, 2), chunk=8)


def prompts(n: int, seed: int = 0) -> list[list[int]]:
  rng = np.random.default_rng(seed)
  return [rng.integers(3, 300, rng.integers(3, 30)).tolist() for _ in range(n)]


def test_a_row_does_not_depend_on_its_neighbours_or_slot(engine, params):
  """Bitwise: in full company, alone in its own slot, and alone in another slot, over two turns."""
  decode, first, second = engine.decode_params(params), prompts(8), prompts(8, seed=1)

  def two_turns(where: dict[int, int]):
    """where: slot -> dialogue."""
    place = lambda parts: [parts[where[b]] if b in where else [] for b in range(8)]
    key = keys(8)[np.array([where.get(b, 0) for b in range(8)])]
    active, ones = np.array([b in where for b in range(8)]), np.ones(8, np.float32)
    rows, out = engine.start(), []
    for parts in (first, second):
      rows = engine.feed(decode, rows, place(parts), 128)
      rows, said = engine.sample(decode, rows, key, active, np.full(8, 8, np.int32), ones, 128)
      out.append(said)
    return {d: [(s.tokens[b], s.logprobs[b], s.counts[b]) for s in out] for b, d in where.items()}

  together = two_turns({b: b for b in range(8)})
  for where in ({3: 3}, {6: 3}, {0: 5, 7: 3}):
    for dialogue, turns in two_turns(where).items():
      for got, want in zip(turns, together[dialogue], strict=True):
        for a, b in zip(got, want, strict=True):
          np.testing.assert_array_equal(a, b)


def test_nothing_is_compiled_again_by_length_budget_or_temperature(model, params):
  engine = Engine(model, rows=4, slots=128, max_turn=6, stop_ids=(5,), chunk=8)
  decode = engine.decode_params(params)
  for seed in range(5):
    fed = prompts(4, seed)
    fed[seed % 4] = []
    active = np.arange(4) != seed % 4
    rows, _ = speak(engine, decode, fed, active=active, budgets=[seed] * 4, temperatures=seed, view=64)
    rows, _ = engine.score(decode, rows, [f[:seed] for f in fed], 64)
    rows = engine.rewind(rows, np.full(4, seed // 3))
  assert [f._cache_size() for f in (engine._feed, engine._sample, engine._score, engine._start)] == [1, 1, 1, 1]


def test_rewinding_equals_never_having_sampled(engine, params):
  decode, first, second = engine.decode_params(params), prompts(8), prompts(8, seed=1)
  rows, said = speak(engine, decode, first)
  counts = said.counts * (np.arange(8) % 2)  # every second row forgets its turn
  lengths = np.asarray(rows.lengths) - counts
  rows = engine.feed(decode, engine.rewind(rows, counts), second, 128)
  want = engine.feed(decode, engine.feed(decode, engine.start(), first, 128), second, 128)
  np.testing.assert_array_equal(rows.last[1::2], want.last[1::2])
  assert rows.lengths.tolist() == [n + len(s) for n, s in zip(lengths, second, strict=True)]
  assert not np.array_equal(rows.last[::2], want.last[::2])  # the others remember


def test_feeding_in_parts_is_feeding_at_once(engine, params):
  decode, fed = engine.decode_params(params), prompts(8)
  whole = engine.feed(decode, engine.start(), fed, 128)
  parts = engine.start()
  for cut in (slice(0, 2), slice(2, 11), slice(11, None)):
    parts = engine.feed(decode, parts, [f[cut] for f in fed], 128)
  assert parts.lengths.tolist() == whole.lengths.tolist() == [len(f) for f in fed]
  np.testing.assert_allclose(parts.last, whole.last, atol=1e-5)


def test_views_and_slots_are_multiples_of_the_step(engine):
  assert engine.slots == 128 and dataclasses.asdict(TokenBudget(32, 12, 20)) == {"problem": 32, "turn": 12, "reply": 20}
  assert [engine.view(n) for n in (1, 64, 65, 128, 500)] == [64, 64, 128, 128, 128]
  assert [TokenBudget(32, 12, 20).length(t) for t in (1, 2, 4)] == [44, 76, 140]
