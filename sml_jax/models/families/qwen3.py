"""Qwen3, the dense models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sml_jax.models.families.keys import Keys, rope, sizes
from sml_jax.models.transformer import ModelConfig

NORMS = {
    "attn_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
}
PASS_THROUGH = None


def _preset(width: int, mlp: int, layers: int, heads: int, tied: bool) -> dict[str, Any]:
  return {
      "model_type": "qwen3", "vocab_size": 151_936, "hidden_size": width, "intermediate_size": mlp,
      "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": 8, "head_dim": 128,
      "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0, "tie_word_embeddings": tied,
  }  # fmt: skip


PRESETS: dict[str, dict[str, Any]] = {
    "qwen3_0_6b": _preset(1024, 3072, 28, 16, True),
    "qwen3_1_7b": _preset(2048, 6144, 28, 16, True),
    "qwen3_4b": _preset(2560, 9728, 36, 32, True),
    "qwen3_8b": _preset(4096, 12_288, 36, 32, False),
    "qwen3_14b": _preset(5120, 17_408, 40, 40, False),
    "qwen3_32b": _preset(5120, 25_600, 64, 64, False),
}


def shape(hf: Mapping[str, Any], file: str = "config.json") -> ModelConfig:
  """The shape by a config.json.

  Raises:
    UserError: a key is unknown, missing or asks for what is not supported.
  """
  keys = Keys({"head_dim": 128} | {k: v for k, v in hf.items() if v is not None}, file)
  keys.only("hidden_act", "silu")
  keys.only("use_sliding_window", False)
  keys.ignore("sliding_window")  # Says nothing while it is not used.
  keys.only("layer_types", ["full_attention"] * keys.take("num_hidden_layers", int))
  tied = keys.take("tie_word_embeddings", bool, False)
  config = ModelConfig(**sizes(keys), **rope(keys), qk_norm=True, embed_scale=False, tied_embeddings=tied)
  keys.done()
  return config

