"""The other arms, with the quickstart's base student and recipe: Q-priming, a teacher who only says "try again", code.

  python -m sml_jax.main --config=configs/experiments.py --workdir=runs/experiments

Trains, on top of what configs/quickstart.py trains (its base, mt_sft, mt_rl and st_rl):

  st_sft         offline, one turn: solved first tries
  q_sft, q_mt_rl Q-priming: a wrong turn t becomes a question with probability 0.75^t; then GRPO. mt_sft and mt_rl are
                 the control: the same without injected questions
  mt_rl_try_again  online SML with a teacher who only says "please try again": is it the content, or the practice?
  code_mt_sft, code_st_rl, code_mt_rl  offline and online SML on code alone; does it carry over to maths?

Every arm starts from the same base, has the quickstart's steps, and st_rl arms match the sampled tokens of their mt_rl.
"""

from configs import quickstart
from sml_jax import config as c


def get_config():
  config = quickstart.get_config()
  stages = config.stages.to_dict()
  evaluation = stages.pop("evaluation")
  stages |= {
      "st_sft_data": quickstart.rollouts(turns=1),
      "st_sft": quickstart.sft("st_sft_data"),
      "q_sft_data": quickstart.rollouts(q_priming=0.75),
      "q_sft": quickstart.sft("q_sft_data"),
      "q_mt_rl": quickstart.rl("q_sft"),
      "mt_rl_try_again": quickstart.rl("mt_sft", feedback="try_again"),
      "code_mt_sft_data": quickstart.rollouts(domains=("code",)),
      "code_mt_sft": quickstart.sft("code_mt_sft_data"),
      "code_mt_rl": quickstart.rl("code_mt_sft", domains=("code",)),
      "code_st_rl": quickstart.rl("code_mt_sft", 4e-4, domains=("code",), turns=1, match_tokens="code_mt_rl"),
  }
  arms = [name for name, stage in stages.items() if stage["kind"] in ("sft", "rl")]
  evaluation["arms"] = tuple(arms)
  evaluation["comparisons"] = (
      "mt_rl-st_rl",
      "mt_rl-mt_sft",
      "st_rl-mt_sft",
      "mt_sft-st_sft",
      "q_sft-mt_sft",
      "q_mt_rl-mt_rl",
      "mt_rl-mt_rl_try_again",
      "code_mt_rl-code_st_rl",
      "code_mt_rl-code_mt_sft",
  )
  config.stages = c.to_config(stages | {"evaluation": evaluation})
  return config
