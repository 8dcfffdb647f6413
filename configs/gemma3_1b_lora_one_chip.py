"""A pretrained student on one accelerator: Gemma-3-1B-IT with LoRA on GSM8K, offline and online SML.

  python -m sml_jax.main --config=configs/gemma3_1b_lora_one_chip.py --plan=v5e:1x1
  python -m sml_jax.main --config=configs/gemma3_1b_lora_one_chip.py --config.model.checkpoint=gemma-3-1b-it \\
      --config.data_dir=DATA --workdir=runs/gemma3_1b

For one v5e or v6e chip, or a GPU of 16 to 24 GB. bf16 weights, which the frozen teacher and the student share, and an
adapter of rank 16. The teacher is GSM8K's scripted one (too low, too high); for the student's own frozen copy:
--config.dialogue.teacher=model. GPU figures: none, no GPU was at hand.

Not run on an accelerator. The plan for v5e:1x1 (jax 0.10.2, libtpu 0.0.42.1): fits; peak 10.22 of 15.75 GiB while
sampling, 9.56 while answers are scored, 2.79 in the gradient; a step of mt_rl is at most 7.7e14 FLOP, 9.8 s at 40% MFU,
after a rollout of at least 10.1 s if every turn takes all its tokens.
"""

from sml_jax import config as c


def get_config():
  config = c.get_default()
  config.model.update({"name": "gemma3_1b", "max_length": 6656, "dtype": "bfloat16", "param_dtype": "bfloat16",
                       "scan_layers": True, "remat": "full", "head_chunk": 16_384})
  config.model.lora.rank = 16
  config.tasks.source = "gsm8k"
  config.tasks.domains = ("gsm8k",)
  config.dialogue.update({"turns": 4, "max_problem_tokens": 384, "max_turn_tokens": 512, "max_reply_tokens": 128})
  config.engine_rows = 32
  config.checkpoint_every = 10
  config.stages = c.to_config({
      "data": c.stage("synthesize", dialogues=1024, keep="solved"),
      "mt_sft": c.stage("sft", data="data", steps=50, batch_rows=8, row_length=2816, micro_batch_rows=1,
                        optimizer={"learning_rate": 1e-4, "warmup_steps": 5}),
      "mt_rl": c.stage("rl", init="mt_sft", steps=100, tasks_per_step=8, row_length=2816, micro_batch_rows=1,
                       optimizer={"learning_rate": 2e-5, "schedule": "constant", "warmup_steps": 5}),
      "evaluation": c.stage("evaluate", arms=(c.PRETRAINED, "mt_sft", "mt_rl"), suites=("gsm8k", "gsm8k_try_again"),
                            tasks_per_suite=128, turns=10,
                            comparisons=(f"mt_sft-{c.PRETRAINED}", "mt_rl-mt_sft")),
  })
  return config
