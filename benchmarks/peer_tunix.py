"""google-tunix's side of the comparisons (see worker.py)."""

from __future__ import annotations

import importlib.metadata
import threading

import jax
import numpy as np
import optax
from flax import nnx
from shapes import MODELS, PROBLEM, REPLY, ROWS, SCALE, TURN
from tunix.generate import sampler as sampler_lib
from tunix.models.llama3 import model as llama

MESH = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)


def versions() -> dict[str, str]:
  return {"google-tunix": importlib.metadata.version("google-tunix"), "jax beside tunix": jax.__version__}


class Numbers:
  """A tokenizer of texts that are numbers; no model ends a turn by itself, so that all turns are of full length."""

  encode = staticmethod(lambda text, **more: [int(n) for n in text.split()])
  decode = staticmethod(lambda ids, **more: " ".join(map(str, np.asarray(ids).tolist())))
  bos_id, eos_id, pad_id = (staticmethod(lambda n=n: n) for n in (1, -5, 0))


def model_of(size: str) -> llama.Llama3:
  s = MODELS[size]
  config = llama.ModelConfig(
      num_layers=s["layers"], vocab_size=s["vocab"], embed_dim=s["width"], hidden_dim=s["mlp"], num_heads=s["heads"],
      head_dim=s["head"], num_kv_heads=s["kv_heads"], rope_theta=10_000, norm_eps=1e-6, weight_tying=True,
  )  # fmt: skip
  return llama.Llama3(config, rngs=nnx.Rngs(0))


def sampler_of(size: str, slots: int) -> sampler_lib.Sampler:
  s = MODELS[size]
  cache = sampler_lib.CacheConfig(slots, s["layers"], s["kv_heads"], s["head"])
  return sampler_lib.Sampler(model_of(size), Numbers(), cache)


def random_text(rng, size: str, n: int) -> str:
  return " ".join(map(str, rng.integers(3, MODELS[size]["vocab"], n)))


def decode(size: str, batch: int, prompt: int, new: int):
  rng, sampler = np.random.default_rng(0), sampler_of(size, prompt + new + 8)
  texts = [random_text(rng, size, prompt - 1) for _ in range(batch)]

  def run():
    out = sampler(texts, max_generation_steps=new, max_prompt_length=prompt, eos_tokens=[-5])
    assert all(len(tokens) == new for tokens in out.tokens)

  return batch * new, run


def dialogues(size: str, turns: int):
  """As its agentic learner asks its own sampler: one conversation a call, read from the start before each turn."""
  rng, problem, turn, reply = np.random.default_rng(0), *(n // SCALE for n in (PROBLEM, TURN, REPLY))
  most = problem + turns * turn + (turns - 1) * reply
  sampler = sampler_of(size, most + 8)

  def run():
    for _ in range(ROWS // 8):
      text = random_text(rng, size, problem - 1)
      for _ in range(turns):
        out = sampler([text], max_generation_steps=turn, max_prompt_length=most - turn, eos_tokens=[-5])
        text = " ".join([text, Numbers.decode(out.tokens[0]), random_text(rng, size, reply)])

  return ROWS // 8, run


def grpo(size: str, prompts: int, group: int, prompt: int, new: int):
  """From one call of the reward function to the next: update, rollout and log-probabilities."""
  from tunix.rl import rl_cluster
  from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
  from tunix.rl.rollout.base_rollout import RolloutConfig

  rng, rewarded, go = np.random.default_rng(0), threading.Semaphore(0), threading.Semaphore(0)
  failed = []

  def reward(prompts, completions, **more):
    rewarded.release()
    go.acquire()
    return [float(sum(map(int, text.split())) % 7) for text in completions]

  role = rl_cluster.Role
  config = rl_cluster.ClusterConfig(
      role_to_mesh={role.ACTOR: MESH, role.REFERENCE: MESH, role.ROLLOUT: MESH}, rollout_engine="vanilla",
      training_config=rl_cluster.RLTrainingConfig(
          actor_optimizer=optax.adamw(1e-6), eval_every_n_steps=10**6, max_steps=10**6, mini_batch_size=prompts,
          train_micro_batch_size=prompts,
      ),
      rollout_config=RolloutConfig(
          max_tokens_to_generate=new, max_prompt_length=prompt, kv_cache_size=prompt + new + 8, temperature=1.0,
          top_p=1.0, top_k=None, eos_tokens=[-5],
      ),
  )  # fmt: skip
  cluster = rl_cluster.RLCluster(
      actor=model_of(size), reference=model_of(size), tokenizer=Numbers(), cluster_config=config
  )
  settings = GRPOConfig(num_generations=group, num_iterations=1, beta=0.04, epsilon=0.2)
  learner = GRPOLearner(rl_cluster=cluster, algo_config=settings, reward_fns=reward)
  steps = ({"prompts": np.array([random_text(rng, size, prompt - 1) for _ in range(prompts)])} for _ in range(10**6))

  def train():
    try:
      learner.train(steps)
    except BaseException as e:
      failed.append(e)
      rewarded.release()

  def until_rewarded():
    rewarded.acquire()
    if failed:
      raise failed[0]

  threading.Thread(target=train, daemon=True).start()
  until_rewarded()

  def run():
    go.release()
    until_rewarded()

  return 1, run


CASES = {"decode": decode, "dialogues": dialogues, "grpo": grpo}
