"""The decode engine: stops, budgets, temperature, draws; a row does not depend on its neighbours or its place."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sml_jax.dialogue.renderer import Renderer
from sml_jax.models import lora
from sml_jax.models.lora import Lora
from sml_jax.models.transformer import Model, ModelConfig
from sml_jax.sampling.engine import BURST, Engine, _draw, segments_of
from sml_jax.sampling.session import Request, Said, Session


class Chain:
  """A model whose next token depends on the last one alone: params [V, V] are its logits. No cache to get wrong."""

  def __init__(self, vocab_size: int):
    self.config = ModelConfig(vocab_size, d_model=1, layers=1, heads=1, kv_heads=1, head_dim=2, mlp_dim=1)

  def unstacked(self, params, turned):
    return params

  def init_cache(self, rows, segments):
    return (((jnp.zeros((rows, 1, 2, 2)),),) * 2,)

  def extend(self, params, cache, tokens, lengths, **where):
    return tokens[..., None].astype(jnp.float32), cache

  def logits(self, params, hidden):
    return params[hidden[..., 0].astype(jnp.int32)]


def key_data(seed: int = 0) -> np.ndarray:
  return np.asarray(jax.random.key_data(jax.random.key(seed)))


def keys(n: int, seed: int = 0) -> jax.Array:
  return jax.random.split(jax.random.key(seed), n)


def ask(session: Session, row: int, tokens, into: dict[int, Said], *, keep=0, budget=99, temperature=1.0, name=None,
        **more) -> None:
  """A turn of a row after `tokens`; it comes into `into` under `name`, by default the row."""
  name = row if name is None else name
  place = (7, name, 1)
  session.submit(Request(row, tokens, keep, key_data(), place, budget, temperature,
                         done=lambda said: into.__setitem__(name, said), **more))  # fmt: skip


def finish(session: Session) -> None:
  while session.busy:
    session.tick()


def speak(engine: Engine, params, fed, *, budgets=None, temperatures=1.0) -> tuple[Session, list[Said]]:
  """One turn of each row after `fed`."""
  session, said = Session(engine, params), {}
  for row, tokens in enumerate(fed):
    warm = temperatures if np.isscalar(temperatures) else temperatures[row]
    ask(session, row, tokens, said, budget=budgets[row] if budgets else 99, temperature=warm)
  finish(session)
  return session, [said[row] for row in range(len(fed))]


def counting(v: int) -> jax.Array:
  """After x comes x + 1 mod V, with probability .9."""
  return jnp.log(jnp.where(jnp.roll(jnp.eye(v), 1, axis=1) > 0, 0.9, 0.1 / (v - 1)))


@pytest.fixture(scope="module")
def counter() -> Engine:
  return Engine(Chain(32), rows=4, slots=64, max_turn=10, stop_ids=(9, 20))


def test_P14_greedy_counts_and_reports_ln_09(counter):
  """Shifted by one it could not: the logits after x are about x + 1."""
  session, said = speak(counter, counting(32), [[3, 21], [0, 9], [5, 5, 5], [30]], temperatures=0.0)
  assert [len(s.tokens) for s in said] == [10, 10, 4, 10]
  assert said[2].tokens == [6, 7, 8, 9]  # the stop id is kept
  assert said[0].tokens == list(range(22, 32)) and said[3].tokens == [31, *range(9)]
  np.testing.assert_allclose(said[0].logprobs, math.log(0.9), atol=1e-6)
  assert session.lengths.tolist() == [12, 12, 7, 11]


def test_P24_every_stop_id_ends_a_turn(counter):
  _, said = speak(counter, counting(32), [[7], [18], [9], [20]], temperatures=0.0)
  assert said[0].tokens == [8, 9] and said[1].tokens == [19, 20]
  assert [len(s.tokens) for s in said] == [2, 2, 10, 9 + 1]  # a stop id that was fed ends nothing


def test_each_row_has_its_own_stop_set(counter):
  session, said = Session(counter, counting(32)), {}
  for row, stops in enumerate([(13,), (11, 14), (), (12, 13)]):
    ask(session, row, [10], said, budget=6, temperature=0.0, stops=stops)
  finish(session)
  assert [len(said[row].tokens) for row in range(4)] == [3, 1, 6, 2]  # 11 12 13; 11; 11 to 16; 11 12


def test_budgets(counter):
  session, said = speak(counter, counting(32), [[21], [22], [24]], budgets=[3, 99, 0], temperatures=0.0)
  assert [s.tokens for s in said] == [[22, 23, 24], [*range(23, 32), 0], []]  # no more than max_turn
  assert session.lengths.tolist() == [4, 11, 1, 0]


def test_a_turn_may_be_longer_than_a_burst():
  engine = Engine(Chain(64), rows=2, slots=128, max_turn=3 * BURST, stop_ids=(60,))
  _, said = speak(engine, counting(64), [[1], [30]], budgets=[BURST + 3, 99], temperatures=0.0)
  assert said[0].tokens == list(range(2, BURST + 5)) and said[1].tokens == list(range(31, 61))


def test_P16_temperature_is_in_the_sampled_log_probability():
  """Logits [0, ln 3]: .75 at temperature 1 and .9 at .5, in the reported numbers and in what is drawn."""
  engine = Engine(Chain(2), rows=64, slots=256, max_turn=128, stop_ids=(7,))
  params = jnp.asarray([[0.0, math.log(3)]] * 2)
  _, said = speak(engine, params, [[0]] * 64, temperatures=[0.5] * 32 + [1.0] * 32, budgets=[128] * 64)
  for half, p in ((said[:32], 0.9), (said[32:], 0.75)):
    tokens, logprobs = (np.array([getattr(s, what) for s in half]) for what in ("tokens", "logprobs"))
    np.testing.assert_allclose(logprobs, np.where(tokens == 1, math.log(p), math.log(1 - p)), atol=1e-6)
    assert abs(tokens.mean() - p) < 4 * (p * (1 - p) / tokens.size) ** 0.5
  _, greedy = speak(engine, params, [[0]] * 64, temperatures=0.0)
  assert all(all(s.tokens) for s in greedy)
  np.testing.assert_allclose(greedy[0].logprobs, math.log(0.75), atol=1e-6)  # of temperature 1


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
  return Engine(model, rows=16, slots=300, max_turn=8, stop_ids=range(0, model.config.vocab_size, 2), chunk=8)


def prompts(n: int, seed: int = 0) -> list[list[int]]:
  rng = np.random.default_rng(seed)
  return [rng.integers(3, 300, rng.integers(3, 30)).tolist() for _ in range(n)]


def test_a_row_does_not_depend_on_its_neighbours_or_place(engine, params):
  """Bitwise, over two turns: in full company; alone, in its own row and in another; and beside rows that are so long
  that attention is over more slots, and that come and go while it speaks."""
  decode, first, second = engine.decode_params(params), prompts(16), prompts(16, seed=1)

  def two_turns(where: dict[int, int], long: int = 0) -> dict[int, list[Said]]:
    """where: row -> dialogue."""
    session, out = Session(engine, decode), {d: [] for d in where.values()}
    for n in range(long):
      ask(session, 15 - n, prompts(1, 5)[0] * 8, {}, name=99 + n)
      ask(session, 15 - n, [3, 4, 5], {}, name=199 + n, keep=40)
    for turn, parts in enumerate((first, second)):
      for row, d in where.items():
        ask(session, row, parts[d], said := {}, keep=None if not turn else int(session.lengths[row]), name=d)
        out[d].append(said)
      finish(session)
    return {d: [said[d] for said in turns] for d, turns in out.items()}

  together = two_turns({b: b for b in range(16)})
  assert len({len(t.tokens) for turns in together.values() for t in turns}) > 3
  for where, long in (({3: 3}, 0), ({6: 3}, 0), ({0: 5, 7: 3}, 0), ({1: 3, 9: 5}, 4)):
    for dialogue, turns in two_turns(where, long).items():
      assert turns == together[dialogue]


def test_what_a_neighbour_holds_is_not_computed_again_and_changes_nothing(engine, params):
  """A group's problem is fed once, then copied; bitwise, since chunks begin where they began."""
  decode, (problem,) = engine.decode_params(params), [prompts(1)[0] * 3]
  assert len(problem) > 3 * engine.chunk
  asked = {0: problem, 4: problem, 9: [*problem, 5, 6, 7], 2: problem[:20] + [9] * 9, 5: problem[:5]}
  alone = {}
  for row, tokens in asked.items():
    ask(session := Session(engine, decode), 1, tokens, said := {}, keep=None, name=row)
    finish(session)
    alone |= said
    assert (session.fed, session.shared) == (len(tokens), 0)
  session, said = Session(engine, decode), {}
  for row, tokens in asked.items():
    ask(session, row, tokens, said, keep=None)
  finish(session)
  assert said == alone
  shared = {4: (len(problem) - 1) // 8 * 8, 9: len(problem) // 8 * 8, 2: 16, 5: 0}
  assert session.shared == sum(shared.values())
  assert session.fed == sum(map(len, asked.values())) - session.shared
  # Later, from rows that have spoken, and into a row that has held something else; its own words are the nearest.
  fed = session.fed
  ask(session, 2, problem, later := {}, keep=None, name=0)
  ask(session, 0, problem, again := {}, keep=None)
  finish(session)
  assert later[0] == again[0] == alone[0]
  assert session.fed - fed == 2 * (len(problem) - shared[4])


def test_with_and_without_adapters_in_one_batch(model, params):
  """Rows without are those of the model that has none, and nothing is shared between the two."""
  adapted = Model(dataclasses.replace(model.config, lora=Lora(2, 8.0)))
  own = jax.tree.map(lambda a: a + 0.3, lora.split(adapted.init(jax.random.key(1)))[1])
  both = lora.join(params, own)
  how = {"rows": 8, "slots": 128, "max_turn": 8, "stop_ids": (1,)}
  plain, mixed = Engine(model, **how), Engine(adapted, **how)
  fed = [prompts(1)[0] * 2] * 8

  def all_rows(engine, params, adapted) -> list[Said]:
    session, said = Session(engine, engine.decode_params(params)), {}
    for row, tokens in enumerate(fed):
      ask(session, row, tokens, said, keep=None, name=row, adapted=adapted(row))
    finish(session)
    return [said[row] for row in range(8)]

  without, with_ = all_rows(plain, params, lambda row: True), all_rows(mixed, both, lambda row: True)
  merged = all_rows(plain, lora.merge(both, adapted.config.lora), lambda row: True)
  for a, b in zip(with_, merged, strict=True):
    np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)
  in_turn = all_rows(mixed, both, lambda row: row % 2 == 0)
  assert in_turn[::2] == with_[::2]
  for a, b in zip(in_turn[1::2], without[1::2], strict=True):
    assert a.tokens == b.tokens
    np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-5)
  assert np.abs(np.subtract(in_turn[0].logprobs[0], without[0].logprobs[0])) > 1e-3


def test_nothing_is_compiled_again_by_length_budget_or_temperature(model, params):
  engine = Engine(model, rows=4, slots=128, max_turn=6, stop_ids=(5,), chunk=8)
  decode, session, said = engine.decode_params(params), None, {}
  for seed in range(5):
    session = Session(engine, decode)
    for row, tokens in enumerate(prompts(4, seed)):
      if row != seed % 4:
        ask(session, row, tokens * (1 + seed), said, keep=None, budget=seed, temperature=seed, score=tokens[:seed])
        ask(session, row, tokens, said, keep=len(tokens) // 2)
    ask(session, seed % 4, prompts(4, seed)[(seed + 1) % 4], said, keep=None)
    finish(session)
  steps = (engine.feed, engine.fork, engine.score, engine.decode, engine._start)
  assert [f._cache_size() for f in steps] == [1] * 5


def test_keeping_less_equals_never_having_sampled(engine, params):
  decode, first, second = engine.decode_params(params), prompts(16), prompts(16, seed=1)
  session, _ = speak(engine, decode, first)
  after, lengths = {}, session.lengths.copy()
  for row in range(16):  # every second row forgets its turn
    ask(session, row, second[row], after, keep=len(first[row]) if row % 2 else int(lengths[row]))
  finish(session)
  session, want = Session(engine, decode), {}
  for row in range(16):
    ask(session, row, first[row], {}, budget=0)
    ask(session, row, second[row], want, keep=len(first[row]))
  finish(session)
  assert [after[row] for row in range(1, 16, 2)] == [want[row] for row in range(1, 16, 2)]
  assert all(after[row] != want[row] for row in range(0, 16, 2))  # the others remember


def test_feeding_in_parts_is_feeding_at_once(engine, params):
  decode, fed = engine.decode_params(params), prompts(16)
  _, whole = speak(engine, decode, fed, temperatures=0.0)
  session, said = Session(engine, decode), {}
  for cut, budget in ((slice(0, 2), 0), (slice(2, 11), 0), (slice(11, None), 99)):
    for row in range(16):
      ask(session, row, fed[row][cut], said, keep=int(session.lengths[row]), budget=budget, temperature=0.0)
    finish(session)
  assert session.lengths.tolist() == [len(f) + len(said[row].tokens) for row, f in enumerate(fed)]
  for row in range(16):
    np.testing.assert_allclose(said[row].logprobs, whole[row].logprobs, atol=1e-5)


def test_rows_wait_their_turn_and_never_overflow(engine, params):
  """Eight requests for each of two rows, from the inbox: one after the other, in their order."""
  session, order = Session(engine, engine.decode_params(params)), []
  for n in range(16):
    tokens = prompts(16)[n]
    done = lambda said, n=n: order.append(n)
    session.post(lambda n=n, tokens=tokens, done=done: (
        Request(n % 2, tokens, None, key_data(), (1, n, 1), 1 + n // 2, 1.0, done)))  # fmt: skip
  finish(session)
  assert [[n for n in order if n % 2 == row] for row in (0, 1)] == [list(range(row, 16, 2)) for row in (0, 1)]
  with pytest.raises(ValueError, match="row 3 would hold 385 tokens, and has 320 slots"):
    ask(session, 3, [4] * 385, {})
    finish(session)


def test_segments():
  assert segments_of(300) == (32, 32, 64, 128, 64) and segments_of(64) == (32, 32) and segments_of(65) == (32, 32, 64)
  assert segments_of(16_000) == (1024, 1024, 2048, 4096, 8192) and segments_of(1024) == (64, 64, 128, 256, 512)
