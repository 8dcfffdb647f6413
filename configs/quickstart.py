"""The whole method in miniature."""

from sml_jax import config as c


def get_config():
  config = c.get_default()
  config.model.max_length = 384
  config.eval_every = 50
  rl = {"turns": 4, "steps": 200, "tasks_per_step": 32, "row_length": 128, "optimizer": {"learning_rate": 1.5e-4, "schedule": "constant", "warmup_steps": 5}}
  config.stages = c.to_config({
      "base_data": c.stage("synthesize", author="scripted", dialogues=60_000, keep="all", turns=10),
      "base": c.stage("sft", data="base_data", steps=900, batch_rows=40, row_length=200,
                      optimizer={"learning_rate": 2e-3, "warmup_steps": 50, "end_lr_fraction": 0.05}),
      "mt_sft_data": c.stage("synthesize", init="base", dialogues=12_800, keep="solved"),
      "mt_sft": c.stage("sft", init="base", data="mt_sft_data", steps=80, batch_rows=40, row_length=200,
                        optimizer={"learning_rate": 5e-4, "warmup_steps": 5}),
      "mt_rl": c.stage("rl", init="mt_sft", **rl),
      "st_rl": c.stage("rl", init="mt_sft", **{**rl, "turns": 1, "match_tokens": "mt_rl"}),
      "evaluation": c.stage("evaluate", arms=("base", "mt_sft", "st_rl", "mt_rl"),
                            suites=("math", "code", "math_sharded", "code_sharded", "math_try_again"),
                            comparisons=("mt_rl-st_rl", "mt_rl-mt_sft", "st_rl-mt_sft")),
  })
  return config
