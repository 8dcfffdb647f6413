"""Real rows through the same loop: GSM8K, a few steps of everything.

Trains a tiny student from random parameters: SFT on the canonical answers ("The answer is 72.") of 2,000 problems, then
RL over dialogues with a teacher who only knows the gold number, then an evaluation on held-out problems. A student of
this size solves next to nothing here, and the report says so; what it shows is that real data go through. About a
minute and a half on one CPU core. Nothing is claimed from its numbers.

  python -m sml_jax.main --config=configs/gsm8k_smoke.py --config.data_dir=../shared/data --workdir=runs/gsm8k_smoke

data_dir holds gsm8k/train.jsonl or .jsonl.gz. The tokenizer is the micro-world's, which spells most of these words in
characters: the middle problem is 147 tokens long and 95% have fewer than 281. A longer one ends as context_full.
"""

from sml_jax import config as c


def get_config():
  config = c.get_default()
  config.model.update({"d_model": 64, "layers": 2, "head_dim": 32, "mlp_dim": 128, "max_length": 448})
  config.tasks.source = "gsm8k"
  config.tasks.domains = ("gsm8k",)
  # Answers take 9 to 18 tokens, the longest reply 21 with its role pieces; 288 + 4 x 20 + 3 x 24 = 440.
  config.dialogue.update({"max_problem_tokens": 288, "max_turn_tokens": 20, "max_reply_tokens": 24})
  config.engine_rows = 64
  config.checkpoint_every = 10
  config.eval_every = 0
  config.stages = c.to_config({
      "answers": c.stage("synthesize", author="reference", dialogues=2000),
      "sft": c.stage("sft", data="answers", steps=40, batch_rows=8,
                     optimizer={"learning_rate": 3e-3, "warmup_steps": 5}),
      "mt_rl": c.stage("rl", init="sft", steps=4, tasks_per_step=8, optimizer={"learning_rate": 3e-4}),
      "evaluation": c.stage("evaluate", arms=("sft", "mt_rl"), suites=("gsm8k", "gsm8k_try_again"), turns=4,
                            tasks_per_suite=64, tries=4, greedy=False, comparisons=("mt_rl-sft",)),
  })
  return config
