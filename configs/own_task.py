"""Your own task, verifier and reward by import path (examples/own_task.py): adding two numbers.

The student first reads a few steps of right answers, too few to know them by heart, and then meets a teacher who says
"12 is too low.". A minute on one CPU core; with 20 held-out sums nothing is claimed from its numbers.

  python -m sml_jax.main --config=configs/own_task.py --workdir=runs/own_task
"""

from sml_jax import config as c


def get_config():
  config = c.get_default()
  config.model.update({"d_model": 64, "layers": 2, "head_dim": 32, "mlp_dim": 128, "max_length": 128})
  config.tasks.source = "examples.own_task:make_source"
  config.tasks.verifier = "examples.own_task:verify_last"
  config.tasks.domains = ("sums",)
  config.dialogue.update({"max_problem_tokens": 12, "max_turn_tokens": 8, "max_reply_tokens": 12})
  config.engine_rows = 128
  config.stages = c.to_config({
      "answers": c.stage("synthesize", author="reference", dialogues=512),
      "sft": c.stage("sft", data="answers", steps=100, batch_rows=8,
                     optimizer={"learning_rate": 3e-3, "warmup_steps": 5}),
      "mt_rl": c.stage("rl", init="sft", steps=40, tasks_per_step=16, reward="examples.own_task:reward",
                       optimizer={"learning_rate": 1e-3, "schedule": "constant"}),
      "evaluation": c.stage("evaluate", arms=("sft", "mt_rl"), suites=("sums", "sums_try_again"), turns=4, tries=4,
                            tasks_per_suite=20, greedy=False, comparisons=("mt_rl-sft",)),
  })
  return config
