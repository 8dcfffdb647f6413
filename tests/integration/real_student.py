"""A config of a real student's whole way, at toy size: LoRA on a checkpoint folder, its own base as the teacher."""

from sml_jax import config as c


def get_config():
  config = c.get_default()
  config.model.update({"max_length": 256, "lora": {"rank": 2, "alpha": 8.0, "targets": ("q", "v", "down")}})
  config.tasks.update({"source": "omni_math", "domains": ("omni_math",), "shares": (0.2, 0.2)})
  config.dialogue.update({"turns": 2, "max_problem_tokens": 80, "max_turn_tokens": 24, "max_reply_tokens": 40,
                          "teacher": "model", "max_teacher_prompt_tokens": 1000, "leaks": "resample",
                          "questioner": "student"})
  config.engine_rows = 8
  config.stages = c.to_config({
      "data": c.stage("synthesize", dialogues=16, keep="all", q_priming=0.75),
      "mt_sft": c.stage("sft", data="data", steps=2, batch_rows=4, optimizer={"learning_rate": 1e-2}),
      "mt_rl": c.stage("rl", init="mt_sft", steps=2, tasks_per_step=2, group_size=4, reward="toy_reward:reward",
                       micro_batch_rows=4, optimizer={"learning_rate": 1e-2}),
      "evaluation": c.stage("evaluate", arms=(c.PRETRAINED, "mt_rl"), suites=("omni_math", "omni_math_try_again"),
                            turns=2, tasks_per_suite=6, tries=2, greedy=False, comparisons=("mt_rl-pretrained",)),
  })
  return config
