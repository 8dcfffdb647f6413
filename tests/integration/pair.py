"""A config whose stages of all kinds are over in seconds, for one process or two; with LoRA.

Its engine has room for what one process plays of a step.
"""

from toy import TINY

from sml_jax import config as c


def get_config(first: str = ""):
  """All stages, or those up to the one that is named."""
  config = c.get_default()
  config.model.update({**TINY, "heads": 4, "kv_heads": 2, "max_length": 256})
  config.model.lora = c.to_config({"rank": 2, "alpha": 8.0, "targets": ("q", "o", "down")})
  config.dialogue.update({"turns": 2})
  config.update({"engine_rows": 16, "checkpoint_every": 2, "eval_every": 2, "eval_tasks": 4})
  config.stages = c.to_config({
      "data": c.stage("synthesize", author="scripted", dialogues=200, keep="all"),
      "base": c.stage("sft", data="data", steps=3, batch_rows=8, eval_every=0),
      "said": c.stage("synthesize", init="base", dialogues=20, keep="all", q_priming=0.5),
      "mt_rl": c.stage("rl", init="base", steps=2, tasks_per_step=3, group_size=4, reward="toy_reward:reward"),
      "evaluation": c.stage("evaluate", arms=("mt_rl",), tasks_per_suite=5, turns=2, tries=2, greedy=False),
  })
  names = list(config.stages._fields)
  for name in names[names.index(first) + 1 :] if first else ():
    del config.stages[name]
  return config
