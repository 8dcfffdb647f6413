"""The paper's code run (arXiv:2602.16488, section 5): Gemma-3-12B-IT on OpenCodeInstruct, evaluated on LiveCodeBench.

  python -m sml_jax.main --config=configs/gemma3_12b_opencodeinstruct.py --plan=v5p:4x4x4
  python -m sml_jax.main --config=configs/gemma3_12b_opencodeinstruct.py --config.model.checkpoint=gemma-3-12b-it \\
      --config.data_dir=DATA --workdir=gs://BUCKET/opencodeinstruct

Arms as gemma3_12b_omni_math. DATA holds opencodeinstruct/*.jsonl (rows whose average_test_score is not 1 are left out;
2,000 to 3,000 are enough) and livecodebench/*.jsonl; rows also come from the Hub, as by
--config.tasks.source=hf:nvidia/OpenCodeInstruct/train[:4000]#opencodeinstruct. The teacher knows what the public tests
said of the last program, and nothing before the first; the dialogue stops on the public tests, and success is scored on
the hidden ones of LiveCodeBench (OpenCodeInstruct has none). Programs run in the sandbox of each host: README, "What
the executor promises".

Not run: no TPU was at hand, and neither data set. Shapes, and so the plan for v5p:4x4x4, are those of
gemma3_12b_omni_math.
"""

from configs import gemma3_12b_omni_math as paper
from sml_jax import config as c


def get_config(arm="mt_rl"):
  config = c.get_default()
  config.model.name = "gemma3_12b"
  paper.set_up(config, "opencodeinstruct", arm)
  config.tasks.eval_source = "livecodebench"
  config.stages.evaluation.suites = ("livecodebench", "livecodebench_try_again")
  return config
