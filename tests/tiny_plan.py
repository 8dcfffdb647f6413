"""A config to be planned: dimensions that tile a TPU's memory exactly, so that arrays take what their elements take."""

from sml_jax import config as c


def get_config(which="rl"):
  config = c.get_default()
  config.model.update({
      "vocab_size": 1024, "d_model": 256, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 128, "mlp_dim": 512,
      "dtype": "bfloat16", "max_length": 256, "scan_layers": True, "remat": "full",
  })  # fmt: skip
  config.mesh.model = 2
  config.engine_rows = 8
  config.stages = c.to_config({
      "rl": {"mt_rl": c.stage("rl", steps=9, tasks_per_step=2, group_size=4, micro_batch_rows=4, eval_every=3)},
      "sft": {"base": c.stage("sft", data="somewhere/else", steps=9, batch_rows=8)},
  }[which])
  return config
