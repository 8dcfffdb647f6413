"""google-tunix's side of the comparisons (see worker.py)."""

from __future__ import annotations

import asyncio
import importlib.metadata

import jax
import numpy as np
import optax
from flax import nnx
from paced import Paced
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
  dedup_bos_ids = staticmethod(lambda ids: ids)
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


def cluster_of(size: str, reference: bool, rollout: dict, **training):
  """Actor and its own sampler, and a frozen copy as the reference where asked for; all on one mesh."""
  from tunix.rl import rl_cluster
  from tunix.rl.rollout.base_rollout import RolloutConfig

  role = rl_cluster.Role
  config = rl_cluster.ClusterConfig(
      role_to_mesh={role.ACTOR: MESH, role.REFERENCE: MESH, role.ROLLOUT: MESH}, rollout_engine="vanilla",
      training_config=rl_cluster.RLTrainingConfig(
          actor_optimizer=optax.adamw(1e-6), eval_every_n_steps=10**6, max_steps=10**6, **training
      ),
      rollout_config=RolloutConfig(temperature=1.0, top_p=1.0, top_k=None, eos_tokens=[-5], **rollout),
  )  # fmt: skip
  return rl_cluster.RLCluster(
      actor=model_of(size), reference=model_of(size) if reference else None, tokenizer=Numbers(), cluster_config=config
  )


def dialogues(size: str, turns: int):
  """The rollouts of its agentic GRPO learner, as it makes them: each conversation asks the sampler by itself."""
  from tunix.rl.agentic.agentic_grpo_learner import GRPOConfig, GRPOLearner
  from tunix.rl.agentic.environments.base_environment import BaseTaskEnv, EnvStepResult

  rng, problem, turn, reply = np.random.default_rng(0), *(n // SCALE for n in (PROBLEM, TURN, REPLY))
  most, group = problem + turns * turn + (turns - 1) * reply, 8

  class Chat:
    """A chat of numbers, without headers."""

    @staticmethod
    def parse(messages, **more):
      return " ".join(m["content"] for m in messages if m["content"])

  class Replies(BaseTaskEnv):
    """Says `reply` tokens to every turn."""

    def __init__(self, example, **more):
      super().__init__(example, max_steps=turns, **more)

    def _initial_observation(self):
      return str(self.task["prompts"])

    def _step_impl(self, action):
      return EnvStepResult(random_text(rng, size, reply), 0.0, False, {})

  class Learner(GRPOLearner):
    """Turns have a length; its own bounds the whole conversation."""

    def _model_call(self, chat_lists, env=None, max_generation_steps=None):
      out = super()._model_call(chat_lists, env, turn)
      assert len(out.tokens[0]) == turn
      return out

  cluster = cluster_of(size, False, {
      "max_tokens_to_generate": most, "max_prompt_length": most - turn, "kv_cache_size": most + 8,
      "return_logprobs": True,
  })  # fmt: skip
  settings = GRPOConfig(num_generations=group, beta=0.0, max_response_length=most)
  learner = Learner(cluster, settings, reward_fns=lambda **_: [0.0], chat_parser=Chat, env_class=Replies)

  async def roll_out() -> int:
    prompts = [{"prompts": random_text(rng, size, problem - 1)} for _ in range(ROWS // group)]
    groups = learner._orchestrator_producer(learner._build_orchestrator(), prompts, group)
    return sum([len(g) async for g in groups])

  def run():
    assert asyncio.run_coroutine_threadsafe(roll_out(), learner.loop).result() == ROWS

  return ROWS, run


def grpo(size: str, prompts: int, group: int, prompt: int, new: int):
  """Update, rollout and log-probabilities, with a reference policy."""
  from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner

  rng, paced = np.random.default_rng(0), Paced()
  cluster = cluster_of(
      size, True, {"max_tokens_to_generate": new, "max_prompt_length": prompt, "kv_cache_size": prompt + new + 8},
      mini_batch_size=prompts, train_micro_batch_size=prompts,
  )  # fmt: skip
  settings = GRPOConfig(num_generations=group, num_iterations=1, beta=0.04, epsilon=0.2)
  learner = GRPOLearner(rl_cluster=cluster, algo_config=settings, reward_fns=paced.reward)
  steps = ({"prompts": np.array([random_text(rng, size, prompt - 1) for _ in range(prompts)])} for _ in range(10**6))
  return 1, paced.start(lambda: learner.train(steps))


CASES = {"decode": decode, "dialogues": dialogues, "grpo": grpo}
