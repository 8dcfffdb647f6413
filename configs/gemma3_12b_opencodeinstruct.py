"""The paper's code run (arXiv:2602.16488, section 5): Gemma-3-12B-IT on OpenCodeInstruct; arms as gemma3_12b_omni_math.

  python -m sml_jax.main --config=configs/gemma3_12b_opencodeinstruct.py --plan=v5p:4x4x4
  python -m sml_jax.main --config=configs/gemma3_12b_opencodeinstruct.py --config.model.checkpoint=gemma-3-12b-it \\
      --config.tasks.source=PACKAGE.MODULE:FUNCTION --workdir=gs://BUCKET/opencodeinstruct

The plan is real; a run wants a task source of your own (see examples/own_task.py), since this repository has none for
OpenCodeInstruct and no executor that may be given the code of a strong model.

Not run: no TPU was at hand. Shapes, and so the plan for v5p:4x4x4, are those of gemma3_12b_omni_math: fits, with a
peak of 62.61 of 95.74 GiB a chip.
"""

from configs import gemma3_12b_omni_math as paper
from sml_jax import config as c


def get_config(arm="mt_rl"):
  config = c.get_default()
  config.model.name = "gemma3_12b"
  paper.set_up(config, "opencodeinstruct", arm)
  return config
