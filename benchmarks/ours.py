"""Our side of the comparisons (see worker.py)."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import shapes

from sml_jax import parallel
from sml_jax.command_line import load
from sml_jax.data.packing import pack_all
from sml_jax.data.rows import token_row
from sml_jax.dialogue.authors import Mixture, author_dialogue
from sml_jax.dialogue.renderer import Renderer
from sml_jax.learn.losses import Objective
from sml_jax.learn.trainer import Trainer
from sml_jax.models.transformer import Model, ModelConfig
from sml_jax.sampling.engine import Engine
from sml_jax.sampling.session import Request, Session
from sml_jax.tasks.microworld import World

KEY = np.asarray(jax.random.key_data(jax.random.key(0)))
Case = tuple[float, Callable[[], object]]


def versions() -> dict[str, str]:
  return {name: importlib.metadata.version(name) for name in ("jax", "flax", "optax")}


@functools.cache
def model_of(size: str) -> Model:
  s = shapes.MODELS[size]
  return Model(ModelConfig(
      s["vocab"], d_model=s["width"], layers=s["layers"], heads=s["heads"], kv_heads=s["kv_heads"], head_dim=s["head"],
      mlp_dim=s["mlp"],
  ))  # fmt: skip


def params_of(size: str):
  return jax.jit(model_of(size).init)(jax.random.key(0))


def rows_of(lengths, vocab: int, advantages: float = 0.0) -> list[dict[str, np.ndarray]]:
  rng = np.random.default_rng(0)
  full = lambda n, value: np.full(n, value, np.float32)
  return [
      {"tokens": rng.integers(3, vocab, n).astype(np.int32), "weights": full(n, 1), "advantages": full(n, advantages),
       "logprobs": full(n, -1)} for n in lengths
  ]  # fmt: skip


def updates(model: Model, params, batch, objective: str = "sft", **options) -> Callable[[], None]:
  trainer = Trainer(model, Objective(objective), optax.adamw(1e-4), parallel.make_mesh(), **options)
  state = [trainer.init(params)]

  def run():
    state[0], _ = trainer.update(state[0], batch)
    jax.block_until_ready(state[0].params)

  return run


def train(size: str) -> Case:
  rows, length = shapes.TRAIN[size]
  model = model_of(size)
  batch = pack_all(rows_of([length] * rows, model.config.vocab_size), length)
  return rows * length, updates(model, params_of(size), batch)


def speak(
    session: Session, asked: dict[int, tuple[list[int], int | None]], new: int, temperature: float = 0.0,
    adapted: Callable[[int], bool] = lambda row: True,
) -> dict:
  """One turn of `new` tokens of each row: row -> (what it reads, how many of its tokens stay before)."""
  said = {}
  for row, (tokens, keep) in asked.items():
    done = functools.partial(said.__setitem__, row)
    session.submit(Request(row, tokens, keep, KEY, (1, row, 1), new, temperature, done, (), adapted(row)))
  while session.busy:
    session.tick()
  return said


def decode(size: str, batch: int, prompt: int = shapes.PROMPT, new: int = shapes.NEW) -> Case:
  model, rng = model_of(size), np.random.default_rng(0)
  engine = Engine(model, rows=batch, slots=prompt + new, max_turn=new, stop_ids=(0,), chunk=32)
  params = engine.decode_params(params_of(size))
  prompts = rng.integers(3, model.config.vocab_size, (batch, prompt)).tolist()
  return batch * new, lambda: speak(Session(engine, params), {b: (p, 0) for b, p in enumerate(prompts)}, new) and None


def grpo(size: str, prompts: int, group: int, prompt: int, new: int) -> Case:
  """A rollout, its rewards and advantages, and the update with a reference policy."""
  model, params, rows = model_of(size), params_of(size), prompts * group
  engine = Engine(model, rows=rows, slots=prompt + new, max_turn=new, stop_ids=(0,), chunk=32)
  trainer = Trainer(model, Objective("grpo", kl_coef=0.04), optax.adamw(1e-6), parallel.make_mesh())
  state, rng = [trainer.init(params)], np.random.default_rng(0)
  texts = rng.integers(3, model.config.vocab_size, (prompts, prompt)).tolist()

  def run():
    session = Session(engine, engine.decode_params(state[0].params))
    said = speak(session, {b: (texts[b // group], None) for b in range(rows)}, new, temperature=1.0)
    rewards = np.array([sum(said[b].tokens) % 7 for b in range(rows)], np.float32).reshape(prompts, group)
    credit = (rewards - rewards.mean(1, keepdims=True)).reshape(-1)
    trained = [
        {"tokens": np.array(texts[b // group] + said[b].tokens, np.int32), "weights": np.repeat([0, 1], [prompt, new]),
         "advantages": np.full(prompt + new, credit[b]), "logprobs": np.array([0.0] * prompt + said[b].logprobs)}
        for b in range(rows)
    ]  # fmt: skip
    cast = lambda row: {k: v.astype(np.int32 if k == "tokens" else np.float32) for k, v in row.items()}
    state[0], _ = trainer.update(state[0], pack_all([cast(r) for r in trained], prompt + new), params)
    jax.block_until_ready(state[0].params)

  return 1, run


def dialogues(size: str, turns: int, again: bool = False, scale: int = shapes.SCALE, rows: int = shapes.ROWS) -> Case:
  """As many dialogues as rows; `again`: all of a dialogue is read before each of its turns."""
  problem, turn, reply = (n // scale for n in (shapes.PROBLEM, shapes.TURN, shapes.REPLY))
  model, rng = model_of(size), np.random.default_rng(0)
  most = problem + turns * turn + (turns - 1) * reply
  engine = Engine(model, rows=rows, slots=most, max_turn=turn, stop_ids=(0,))
  params = engine.decode_params(params_of(size))
  heard = [rng.integers(3, model.config.vocab_size, (rows, reply if t else problem)).tolist() for t in range(turns)]

  def run() -> int:
    session, history = Session(engine, params), [[] for _ in range(rows)]
    for t in range(turns):
      keep = 0 if again else int(session.lengths[0])
      asked = {b: (history[b] * again + heard[t][b], keep) for b in range(rows)}
      said = speak(session, asked, turn)
      for b in range(rows):
        history[b] += heard[t][b] + said[b].tokens
    return session.fed

  return rows, run


def prefilled(turns: int, again: bool = False) -> Case:
  """Tokens read for one dialogue at full scale, counted by a model of one small layer."""
  shapes.MODELS["tiny"] = {"vocab": 64, "width": 8, "layers": 1, "heads": 1, "kv_heads": 1, "head": 8, "mlp": 8}
  return 1, dialogues("tiny", turns, again, scale=1, rows=1)[1]


def by_turns(size: str, rows: int) -> Case:
  """The largest distance, in per cent, of the cost of a dialogue of 2, 4, 8 and 16 turns from a straight line."""
  import time

  turns, runs = np.array([2, 4, 8, 16]), [dialogues(size, int(n), rows=rows)[1] for n in (2, 4, 8, 16)]

  def run() -> float:
    cost = []
    for play in runs:
      since = time.perf_counter()
      play()
      cost.append(time.perf_counter() - since)
    line = np.polyval(np.polyfit(turns, cost, 1, w=1 / np.array(cost)), turns)
    return float(100 * np.abs(cost / line - 1).max())

  return 1, run


def packing(packed: bool) -> Case:
  """A step on 256 dialogues of the quickstart's scripted authors with the quickstart's model and rows."""
  config, renderer, world = load("configs/quickstart.py", []), Renderer(), World()
  written = [author_dialogue(world, Mixture(), renderer, i, 0) for i in range(256)]
  rows, m = [token_row(d) for d in written], config.model
  model = Model(ModelConfig(
      renderer.vocab_size, d_model=m.d_model, layers=m.layers, heads=m.heads, kv_heads=m.kv_heads, head_dim=m.head_dim,
      mlp_dim=m.mlp_dim,
  ))  # fmt: skip
  length = config.stages.base.row_length
  batch = pack_all(rows, length if packed else max(len(r["tokens"]) for r in rows), packing=packed)
  return sum(len(r["tokens"]) for r in rows), updates(model, jax.jit(model.init)(jax.random.key(0)), batch)


def memory(chunk: int) -> Case:
  """Bytes of the compiled gradient of an RL step, arguments and temporaries, at 262,144 pieces and 4,096 tokens."""
  model = Model(ModelConfig(262_144, d_model=256, layers=4, heads=4, kv_heads=2, head_dim=64, mlp_dim=1024))
  trainer = Trainer(model, Objective("grpo"), optax.adamw(1e-4), parallel.make_mesh(), head_chunk=chunk)
  batch = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, pack_all(rows_of([2048] * 2, 1000), 2048)))
  number = jax.ShapeDtypeStruct((), jnp.float32)
  lowered = trainer._gradient.lower(trainer.abstract_state().params, {}, None, batch, number)
  found = lowered.compile().memory_analysis()
  return 1, lambda: (found.argument_size_in_bytes + found.temp_size_in_bytes + found.output_size_in_bytes) / 2**20


CASES = {f.__name__: f for f in (train, decode, grpo, dialogues, prefilled, by_turns, packing, memory)}
