"""The paper's repetition (arXiv:2602.16488, appendix A): Qwen3-8B on Omni-MATH, with the arms of gemma3_12b_omni_math.

  python -m sml_jax.main --config=configs/qwen3_8b_omni_math.py --plan=v6e:8x8
  python -m sml_jax.main --config=configs/qwen3_8b_omni_math.py --config.model.checkpoint=Qwen3-8B \\
      --config.data_dir=DATA --workdir=gs://BUCKET/omni_math_qwen

Whether Qwen3 thought in the paper's runs is not published: here it does not. To let it, and drop what it thought from
later turns as its template does: --config.dialogue.enable_thinking=True --config.dialogue.thinking=strip, and more room
(dialogue.max_turn_tokens).

Not run: no TPU was at hand. The plan for v6e:8x8 (64 chips; jax 0.10.2, libtpu 0.0.42.1): fits; peak 22.32 of 31.25
GiB a chip while sampling, 16.28 in the gradient; a step of mt_rl is at most 1.51e17 FLOP, 6.43 s at 40% MFU, after a
rollout of at least 81.9 s if every turn takes all its tokens.
"""

from configs import gemma3_12b_omni_math as paper
from sml_jax import config as c


def get_config(arm="mt_rl"):
  config = c.get_default()
  config.model.name = "qwen3_8b"
  paper.set_up(config, "omni_math", arm)
  config.mesh.model = 4
  return config
