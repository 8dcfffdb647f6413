"""The whole method in miniature, from nothing: base student, offline SML, multi-turn and single-turn RL, evaluation.

  python -m sml_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

A student of 341,664 parameters; RL sees maths alone. 13.6 minutes on two CPU cores, install included. On 512 held-out
maths tasks, seeds 0, 1, 2 (results/quickstart): mt_rl solves 44.9%, 76.6%, 62.3% by turn 4, st_rl 28.5%, 48.8%, 48.8%.
The recipe was chosen on dev: turn-level credit beat trajectory credit, and each RL arm has the better of two learning
rates.
"""

from sml_jax import config as c


def get_config():
  config = c.get_default()
  config.model.max_length = 384
  config.eval_every = 50
  config.eval_tasks = 256
  config.stages = c.to_config({
      "base_data": c.stage("synthesize", author="scripted", dialogues=60_000, keep="all"),
      "base": c.stage("sft", data="base_data", steps=2400, batch_rows=10, row_length=200, eval_every=0,
                      checkpoint_every=600,
                      optimizer={"learning_rate": 3e-3, "warmup_steps": 100, "end_lr_fraction": 0.02}),
      "mt_sft_data": rollouts(),
      "mt_sft": sft("mt_sft_data"),
      "mt_rl": rl("mt_sft"),
      "st_rl": rl("mt_sft", learning_rate=4e-4, turns=1, match_tokens="mt_rl"),
      "evaluation": c.stage("evaluate", arms=("base", "mt_sft", "st_rl", "mt_rl"), part="test",
                            suites=("math", "code", "math_sharded", "code_sharded", "math_try_again"),
                            comparisons=("mt_rl-st_rl", "mt_rl-mt_sft", "st_rl-mt_sft")),
  })
  return config


def rollouts(**keys):
  """Dialogues of the base student with its teacher; the solved ones are kept."""
  return c.stage("synthesize", init="base", dialogues=12_800, keep="solved", **keys)


def sft(data, **keys):
  """About one pass over them."""
  return c.stage("sft", init="base", data=data, steps=200, batch_rows=12, row_length=128, eval_every=0,
                 optimizer={"learning_rate": 5e-4, "warmup_steps": 5}, **keys)


def rl(init, learning_rate=1e-3, **keys):
  """GRPO: 32 tasks a step (arms with match_tokens: as many as it takes), 8 dialogues each.

  Multi-turn and single-turn RL were both tried at 4e-4 and 1e-3; each has the one that was better on dev.
  """
  return c.stage("rl", init=init, steps=140, tasks_per_step=32, credit="turn_return", row_length=128,
                 optimizer={"learning_rate": learning_rate, "schedule": "linear", "warmup_steps": 5}, **keys)
