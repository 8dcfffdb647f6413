"""Gemma 3: text models, and the text half of the multimodal ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sml_jax.models.families.keys import Keys, rope_table, sizes
from sml_jax.models.transformer import ModelConfig

NORMS = {
    "attn_norm": "input_layernorm",
    "post_attn_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "post_mlp_norm": "post_feedforward_layernorm",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
}
PASS_THROUGH = r"(model\.)?(vision_tower|multi_modal_projector)\..+"
"""Tensors of a multimodal folder that are no part of the text model."""

# What published folders leave out: the defaults of transformers' Gemma3TextConfig.
DEFAULTS = {
    "vocab_size": 262_208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "rms_norm_eps": 1e-6,
    "query_pre_attn_scalar": 256, "sliding_window": 4096, "tie_word_embeddings": True,
}  # fmt: skip
THETA, LOCAL_THETA = 1_000_000.0, 10_000.0


def _preset(width: int, mlp: int, layers: int, heads: int, kv_heads: int, **more: Any) -> dict[str, Any]:
  return DEFAULTS | {
      "model_type": "gemma3_text", "hidden_size": width, "intermediate_size": mlp, "num_hidden_layers": layers,
      "num_attention_heads": heads, "num_key_value_heads": kv_heads, "rope_theta": THETA,
      "rope_local_base_freq": LOCAL_THETA, **more,
  }  # fmt: skip


_SMALL = {"vocab_size": 262_144, "sliding_window": 512}
_LARGE = {"sliding_window": 1024, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
PRESETS: dict[str, dict[str, Any]] = {
    "gemma3_270m": _preset(640, 2048, 18, 4, 1, **_SMALL),
    "gemma3_1b": _preset(1152, 6912, 26, 4, 1, **_SMALL),
    "gemma3_4b": _preset(2560, 10_240, 34, 8, 4, **_LARGE),
    "gemma3_12b": _preset(3840, 15_360, 48, 16, 8, **_LARGE),
    "gemma3_27b": _preset(5376, 21_504, 62, 32, 16, **_LARGE, head_dim=128, query_pre_attn_scalar=168),
}


def shape(hf: Mapping[str, Any], file: str = "config.json") -> ModelConfig:
  """The shape by a config.json, text-only or multimodal.

  Raises:
    UserError: a key is unknown, missing or asks for what is not supported.
  """
  if hf.get("model_type") != "gemma3":
    return _text(Keys(_filled(hf), file))
  outer = Keys(hf, file)
  outer.ignore("vision_config", "mm_tokens_per_image", "eoi_token_index", "boi_token_index", "image_token_index",
               "eoi_token_id", "boi_token_id", "image_token_id")  # fmt: skip
  text, tied = outer.take("text_config", dict, {}), outer.take("tie_word_embeddings", bool, None)
  outer.done()
  return _text(Keys(_filled(text) | ({} if tied is None else {"tie_word_embeddings": tied}), file, "text_config."))


def _filled(hf: Mapping[str, Any]) -> dict[str, Any]:
  return DEFAULTS | {k: v for k, v in hf.items() if v is not None}


def _text(keys: Keys) -> ModelConfig:
  fields = sizes(keys) | _rope(keys)
  keys.only("hidden_activation", "gelu_pytorch_tanh")
  keys.only("hidden_act", "gelu_pytorch_tanh")
  keys.only("use_bidirectional_attention", False)
  for name in ("attn_logit_softcapping", "final_logit_softcapping"):
    keys.only(name, None)
  every = keys.take("sliding_window_pattern", int, keys.take("_sliding_window_pattern", int, 6))
  usual = ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(fields["layers"])]
  types = keys.take("layer_types", list, usual)
  if len(types) != fields["layers"] or set(types) - {"full_attention", "sliding_attention"}:
    raise keys.error("layer_types", f"must be {fields['layers']} times 'full_attention' or 'sliding_attention'")
  window = keys.take("sliding_window", int)
  if "sliding_attention" in types:
    fields |= {"window": window, "local_layers": tuple(t == "sliding_attention" for t in types)}
  config = ModelConfig(
      **fields,
      norm_plus_one=True,
      post_norms=True,
      qk_norm=True,
      query_scale=keys.take("query_pre_attn_scalar", float) ** -0.5,
      activation="gelu_tanh",
      embed_scale=True,
      tied_embeddings=keys.take("tie_word_embeddings", bool),
  )
  keys.done()
  return config


def _rope(keys: Keys) -> dict[str, Any]:
  """New keys have a table for each type of layer, old ones `rope_local_base_freq` and what other families have."""
  theta, local = keys.take("rope_theta", float, THETA), keys.take("rope_local_base_freq", float, LOCAL_THETA)
  new, old = (keys.take(name, dict, None) for name in ("rope_parameters", "rope_scaling"))
  if new and old:
    raise keys.error("rope_parameters", "and rope_scaling are both there; keep one")
  if old:
    return rope_table(keys.below("rope_scaling"), theta, keys.values) | {"local_rope_theta": local}
  if not new:
    return {"rope_theta": theta, "rope_scaling": None, "local_rope_theta": local}
  tables = keys.below("rope_parameters")
  tables.only("rope_type", "default")  # beside the tables, as transformers 5 writes the defaults
  tables.only("rope_theta", None)
  far = rope_table(tables.below("full_attention"), theta, keys.values)
  near = tables.below("sliding_attention")
  near.only("rope_type", "default")
  near.only("type", "default")
  local = rope_table(near, local, keys.values)["rope_theta"]
  tables.done()
  return far | {"local_rope_theta": local}

