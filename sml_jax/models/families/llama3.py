"""Llama 3.1 and 3.2, the text models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sml_jax.models.families.keys import Keys, rope, sizes
from sml_jax.models.transformer import ModelConfig

NORMS = {"attn_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
PASS_THROUGH = None


def _preset(width: int, mlp: int, layers: int, heads: int, head_dim: int, factor: float, tied: bool) -> dict[str, Any]:
  scaling = {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
             "original_max_position_embeddings": 8192}  # fmt: skip
  return {
      "model_type": "llama", "bos_token_id": 128_000, "eos_token_id": 128_001,
      "vocab_size": 128_256, "hidden_size": width, "intermediate_size": mlp, "num_hidden_layers": layers,
      "num_attention_heads": heads, "num_key_value_heads": 8, "head_dim": head_dim, "rms_norm_eps": 1e-5,
      "rope_theta": 500_000.0, "rope_scaling": scaling, "tie_word_embeddings": tied,
  }  # fmt: skip


PRESETS: dict[str, dict[str, Any]] = {
    "llama3_1b": _preset(2048, 8192, 16, 32, 64, 32.0, True),  # 3.2
    "llama3_3b": _preset(3072, 8192, 28, 24, 128, 32.0, True),  # 3.2
    "llama3_8b": _preset(4096, 14_336, 32, 32, 128, 8.0, False),  # 3.1
}


def shape(hf: Mapping[str, Any], file: str = "config.json") -> ModelConfig:
  """The shape by a config.json.

  Raises:
    UserError: a key is unknown, missing or asks for what is not supported.
  """
  keys = Keys(hf, file)
  keys.only("hidden_act", "silu")
  keys.only("mlp_bias", False)
  tied = keys.take("tie_word_embeddings", bool, False)
  config = ModelConfig(**sizes(keys), **rope(keys), embed_scale=False, tied_embeddings=tied)
  keys.done()
  return config

