"""Real rows through the whole loop: GSM8K, MBPP, HumanEval and Lost in Conversation, in minutes on a laptop.

A tiny student with random parameters is shown canonical answers for a few steps, so that its turns end, and then talks
to the scripted teachers: word problems whose answer is a number, programs that are run in the sandbox, and
underspecified tasks, told a shard a turn and in the other ways of Lost in Conversation. It solves next to nothing, and
the report says so; what it shows is that every kind of real task goes through loading, the dialogue, judging, the leak
check, the metrics and the report. Nothing is claimed from its numbers.

  python -m sml_jax.main --config=configs/real_tasks_smoke.py --config.data_dir=../shared/data --workdir=runs/real_tasks

data_dir holds gsm8k/train.jsonl, mbpp/*.jsonl, humaneval/*.jsonl and lost_in_conversation/*verbatim*.jsonl (each may be
.gz). The tokenizer is the micro-world's, which spells most of these words in characters; problems longer than 768
tokens and programs longer than 96 end as context_full.
"""

from sml_jax import config as c

MODES = ("full", "concat", "shuffle_concat", "sharded", "recap", "snowball")


def get_config():
  config = c.get_default()
  config.model.update({"d_model": 48, "layers": 1, "head_dim": 24, "mlp_dim": 96, "max_length": 2560})
  config.tasks.update({"source": "gsm8k,mbpp,humaneval,lost_in_conversation", "domains": ("gsm8k", "mbpp"),
                       "shares": (0.2, 0.2), "on_bad_row": "skip_and_count"})
  config.dialogue.update({"max_problem_tokens": 768, "max_turn_tokens": 96, "max_reply_tokens": 192,
                          "reveal": "every_turn"})
  config.engine_rows = 16
  config.checkpoint_every = 20
  config.stages = c.to_config({
      "answers": c.stage("synthesize", author="reference", dialogues=256),
      "sft": c.stage("sft", data="answers", steps=40, batch_rows=4, row_length=1024,
                     optimizer={"learning_rate": 1e-2, "warmup_steps": 5}),
      "mt_rl": c.stage("rl", init="sft", steps=2, tasks_per_step=4, group_size=4, turns=3, row_length=1600,
                       optimizer={"learning_rate": 1e-4}),
      "evaluation": c.stage(
          "evaluate", arms=("mt_rl",), suites=("gsm8k", "mbpp", "humaneval", "lost_in_conversation_sharded"), turns=6,
          tasks_per_suite=4, tries=6, greedy=False, modes=MODES, runs=2),
  })
  return config
