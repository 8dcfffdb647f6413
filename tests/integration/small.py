"""A config that is over in seconds: scripted dialogues, a few steps of SFT, a few of RL."""

from toy import TINY

from sml_jax import config as c


def get_config():
  config = c.get_default()
  config.model.update({**TINY, "max_length": 384})
  config.engine_rows = 16
  config.checkpoint_every = 2
  config.stages = c.to_config({
      "data": c.stage("synthesize", author="scripted", dialogues=128, keep="all"),
      "base": c.stage("sft", data="data", steps=4, batch_rows=8, row_length=256),
      "mt_rl": c.stage("rl", init="base", steps=3, tasks_per_step=2, reward="toy_reward:reward"),
  })
  return config
