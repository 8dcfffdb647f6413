"""The paper's maths run (arXiv:2602.16488, section 5): Gemma-3-12B-IT on Omni-MATH, with its arms as arguments.

  python -m sml_jax.main --config=configs/gemma3_12b_omni_math.py --plan=v5p:4x4x4
  python -m sml_jax.main --config=configs/gemma3_12b_omni_math.py --config.model.checkpoint=gemma-3-12b-it \\
      --config.data_dir=DATA --workdir=gs://BUCKET/omni_math
  ... --config=configs/gemma3_12b_omni_math.py:st_rl   (or another arm of ARMS)

From the paper: 2,000 problems, one epoch, g = 8, gamma = 0.7 over turns, no KL, 4 turns in training and 10 in
evaluation, a frozen copy of the student as the teacher, P_Q(t) = 0.75^t. Not published, and chosen here: everything
about the optimizer, 32 problems a step, temperature 1, the token limits, full fine-tuning, and that a reply which gives
the answer away is written again. Evaluated on dev; for the final figures --config.stages.evaluation.part=test. DATA
holds omni_math_rule/*.jsonl, of whose 2,821 rows tasks.shares leaves about 2,000 for training and 500 for the test.
Other domains are evaluated too by --config.tasks.eval_source=livecodebench,lost_in_conversation and
--config.stages.evaluation.suites=omni_math,livecodebench,lost_in_conversation_sharded.

Not run: no TPU was at hand. The plan for v5p:4x4x4 (64 chips; jax 0.10.2, libtpu 0.0.42.1): 22.12 GiB a chip in
the gradient, and with engine_rows=128 at most 95.56 of 95.74 GiB while sampling (10.96 of it the decode copy, as much
the frozen teacher, 56.25 caches), which is too tight: here it is 64, with half the caches. A step of mt_rl is at most
2.05e17 FLOP, 17.5 s at 40% MFU, after a rollout of at least 139 s if every turn takes all its tokens.
"""

from sml_jax import config as c

ARMS = ("mt_rl", "st_rl", "st_rl_g32", "mt_sft", "st_sft", "sft_mt_rl", "q_mt_rl")
"""Online SML; single-turn RL, with four times the group too; offline SML, and of one turn; online SML after SFT, and
after Q-priming, whose control that is."""


def get_config(arm="mt_rl"):
  config = c.get_default()
  config.model.name = "gemma3_12b"
  set_up(config, "omni_math", arm)
  return config


def set_up(config, domain, arm):
  """What a student of this size wants on a slice (bf16 activations on f32 weights, no logits kept), and the stages."""
  config.model.update({"max_length": 26_112, "dtype": "bfloat16", "scan_layers": True, "remat": "full",
                       "head_chunk": 16_384})
  config.mesh.model = 2
  config.dialogue.update({"turns": 4, "max_problem_tokens": 1024, "max_turn_tokens": 2048, "max_reply_tokens": 512,
                          "teacher": "model", "max_teacher_prompt_tokens": 1280, "leaks": "resample",
                          "questioner": "student"})
  config.tasks.update({"source": domain, "domains": (domain,), "shares": (0.1, 0.19), "on_bad_row": "skip_and_count"})
  config.engine_rows = 64
  config.checkpoint_every = 10
  config.eval_every = 20
  config.eval_suites = (domain,)
  config.eval_tasks = 64
  config.stages = stages(arm, suite=domain)


def stages(arm, suite):
  """The stages of one arm: what makes its data, its training, and its evaluation beside the untrained student."""
  if arm not in ARMS:
    raise c.ConfigError(f"no arm {arm!r}; known: {', '.join(ARMS)}")
  out = {}
  if arm in ("mt_sft", "st_sft", "sft_mt_rl", "q_mt_rl"):
    out["data"] = c.stage("synthesize", dialogues=2000, turns=1 if arm == "st_sft" else 4, keep="solved",
                          q_priming=0.75 if arm == "q_mt_rl" else 0.0)
    first = {"sft_mt_rl": "mt_sft", "q_mt_rl": "q_sft"}.get(arm, arm)
    out[first] = c.stage("sft", data="data", steps=40, batch_rows=32, row_length=11_264, micro_batch_rows=32,
                         optimizer={"learning_rate": 2e-6, "warmup_steps": 4})
  if arm.endswith(("_rl", "_rl_g32")):
    turns = {"turns": 1, "row_length": 3_072} if arm.startswith("st_") else {"turns": 4, "row_length": 11_264}
    out[arm] = c.stage("rl", init=next((s for s in out if s != "data"), ""), steps=62, tasks_per_step=32,
                       group_size=32 if arm == "st_rl_g32" else 8, gamma=0.7, micro_batch_rows=32,
                       optimizer={"learning_rate": 1e-6, "schedule": "constant", "warmup_steps": 5}, **turns)
  trained = [name for name, stage in out.items() if stage["kind"] != "synthesize"]
  last = trained[-1]
  out["evaluation"] = c.stage("evaluate", arms=(c.PRETRAINED, *trained), suites=(suite, f"{suite}_try_again"),
                              tasks_per_suite=200, turns=10, comparisons=(f"{last}-{c.PRETRAINED}",))
  return c.to_config(out)
