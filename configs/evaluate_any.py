"""Does a model learn from feedback at all? Success by turn, with its controls, of any model, before any training.

  # a model that a server has (vLLM, llama.cpp, any OpenAI-compatible one), with the scripted teacher
  python -m sml_jax.main --config=configs/evaluate_any.py --config.student=api \\
      --config.student_api.url=http://127.0.0.1:8000/v1 --config.student_api.model=NAME \\
      --config.data_dir=DATA --workdir=runs/name

  # with a teacher of its own (or the same model) behind a server, who alone knows the answer
  ... --config.dialogue.teacher=api --config.teacher_api.url=URL --config.teacher_api.model=NAME \\
      --config.teacher_api.key_env=OPENAI_API_KEY

  # a checkpoint in this process, with itself as the teacher
  python -m sml_jax.main --config=configs/evaluate_any.py --config.model.checkpoint=gemma-3-1b-it \\
      --config.dialogue.teacher=model --config.data_dir=DATA --workdir=runs/gemma

GSM8K by default; --config.tasks.source=omni_math --config.stages.evaluation.suites=omni_math,omni_math_try_again for
others. The suites are the same tasks under the whole teacher, under one who only says "Please try again.", and under
one who knows nothing more than the student; dashed lines are the same student's independent tries. A student that
learns from feedback is above its tries and above the other two. Everything a server replied is kept in the workdir, so
that the same command asks for nothing twice. 100 tasks of 4 turns are at most 1,200 dialogues' turns and 400 tries.
"""

from sml_jax import config as c


def get_config():
  config = c.get_default()
  config.tasks.update({"source": "gsm8k", "domains": ("gsm8k",)})
  config.model.update({"max_length": 26_112, "dtype": "bfloat16", "head_chunk": 16_384})
  config.dialogue.update({"max_problem_tokens": 1024, "max_turn_tokens": 1024, "max_reply_tokens": 512,
                          "max_teacher_prompt_tokens": 1536})
  config.engine_rows = 32
  config.student_api.max_tokens = 1024
  config.stages = c.to_config({
      "evaluation": c.stage("evaluate", arms=(c.PRETRAINED,), suites=("gsm8k", "gsm8k_try_again", "gsm8k_no_private"),
                            tasks_per_suite=100, turns=4, tries=4, greedy=False),
  })
  return config
