"""The families' shapes against what was published, and against how transformers reads the same config.json."""

from __future__ import annotations

import json
import re

import pytest
import torch
import transformers

from sml_jax.errors import UserError
from sml_jax.models import families
from sml_jax.models.families import gemma3, llama3, preset, read_shape
from sml_jax.models.transformer import Model, RopeScaling, parameter_count

PUBLISHED = {  # parameters; of the larger Gemmas less vision tower and projector, of a tied model the table once
    "gemma3_270m": 268_098_176, "gemma3_1b": 999_885_952, "gemma3_4b": 4_300_079_472 - 419_816_304,
    "gemma3_12b": 12_187_325_040 - 421_290_864, "gemma3_27b": 27_432_406_640 - 423_060_336,
    "qwen3_0_6b": 751_632_384 - 151_936 * 1024, "qwen3_1_7b": 2_031_739_904 - 151_936 * 2048,
    "qwen3_4b": 4_022_468_096, "qwen3_8b": 8_190_735_360, "qwen3_14b": 14_768_307_200, "qwen3_32b": 32_762_123_264,
    "llama3_1b": 1_235_814_400, "llama3_3b": 3_212_749_824, "llama3_8b": 8_030_261_248,
}  # fmt: skip

# As the folders on the hub have it, in the old keys.
GEMMA_1B = {
    "architectures": ["Gemma3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "attn_logit_softcapping": None, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": [1, 106],
    "final_logit_softcapping": None, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152,
    "initializer_range": 0.02, "intermediate_size": 6912, "max_position_embeddings": 32768,
    "model_type": "gemma3_text", "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1,
    "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000,
    "rope_scaling": None, "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6,
    "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0", "use_cache": True, "vocab_size": 262144,
}  # fmt: skip
GEMMA_27B = {
    "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999, "eoi_token_index": 256000,
    "eos_token_id": [1, 106], "image_token_index": 262144, "initializer_range": 0.02, "mm_tokens_per_image": 256,
    "model_type": "gemma3",
    "text_config": {
        "head_dim": 128, "hidden_size": 5376, "intermediate_size": 21504, "model_type": "gemma3_text",
        "num_attention_heads": 32, "num_hidden_layers": 62, "num_key_value_heads": 16, "query_pre_attn_scalar": 168,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
    },
    "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0",
    "vision_config": {"hidden_size": 1152, "image_size": 896, "model_type": "siglip_vision_model"},
}  # fmt: skip
QWEN_8B = {
    "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 151643,
    "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
    "intermediate_size": 12288, "max_position_embeddings": 40960, "max_window_layers": 36, "model_type": "qwen3",
    "num_attention_heads": 32, "num_hidden_layers": 36, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
    "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": True, "use_sliding_window": False,
    "vocab_size": 151936,
}  # fmt: skip
LLAMA_1B = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048,
    "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": False,
    "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0", "use_cache": True, "vocab_size": 128256,
}  # fmt: skip
CASES = [("gemma3_1b", GEMMA_1B), ("gemma3_27b", GEMMA_27B), ("qwen3_8b", QWEN_8B), ("llama3_1b", LLAMA_1B)]


def write(folder, hf):
  (folder / "config.json").write_text(json.dumps(hf))
  return folder


@pytest.mark.parametrize("name", families.PRESETS)
def test_parameters_of_presets_are_those_published_and_those_transformers_makes(name):
  _, config = preset(name)
  assert parameter_count(Model(config).shapes) == PUBLISHED[name]
  hf = transformers.AutoConfig.for_model(**families.PRESETS[name])
  with torch.device("meta"):
    assert transformers.AutoModelForCausalLM.from_config(hf).num_parameters() == PUBLISHED[name]


@pytest.mark.parametrize("name, hf", CASES)
def test_a_published_config_is_the_preset(tmp_path, name, hf):
  assert read_shape(write(tmp_path, hf)) == preset(name)


@pytest.mark.parametrize("name, hf", CASES)
def test_new_keys_as_transformers_writes_them(tmp_path, name, hf):
  transformers.AutoConfig.for_model(**hf).save_pretrained(tmp_path)
  written = json.loads((tmp_path / "config.json").read_text())
  text = written.get("text_config", written)
  assert "rope_parameters" in text and not {"rope_theta", "rope_scaling", "rope_local_base_freq"} & text.keys()
  assert read_shape(tmp_path) == preset(name)


def test_a_shape_by_hand():
  """What a count of parameters does not see."""
  family, c = preset("gemma3_12b")
  assert (family, c.window, c.rope_theta, c.local_rope_theta) == ("gemma3", 1024, 1e6, 1e4)
  assert c.rope_scaling == RopeScaling("linear", 8.0) and c.query_scale == 1 / 16
  assert c.local_layers == ((True,) * 5 + (False,)) * 8
  assert c.norm_plus_one and c.post_norms and c.qk_norm and c.embed_scale and c.tied_embeddings
  assert c.activation == "gelu_tanh" and c.vocab_size == 262_208
  _, c = preset("gemma3_27b")
  assert c.query_scale == pytest.approx(168**-0.5) and sum(not local for local in c.local_layers) == 10
  assert preset("gemma3_1b")[1].rope_scaling is None and preset("gemma3_270m")[1].window == 512
  family, c = preset("qwen3_14b")
  assert (family, c.qk_norm, c.embed_scale, c.tied_embeddings, c.rope_theta) == ("qwen3", True, False, False, 1e6)
  family, c = preset("llama3_8b")
  assert (family, c.norm_eps, c.rope_scaling) == ("llama3", 1e-5, RopeScaling("llama3", 8.0, 1.0, 4.0, 8192))


def test_head_width_of_llama_defaults_to_an_equal_share():
  hf = {k: v for k, v in LLAMA_1B.items() if k != "head_dim"}
  assert llama3.shape(hf | {"num_attention_heads": 16}).head_dim == 128


def test_layer_types_win_over_the_pattern():
  types = ["full_attention", "sliding_attention", "sliding_attention"]
  hf = GEMMA_1B | {"num_hidden_layers": 3, "layer_types": types, "_sliding_window_pattern": 6}
  assert gemma3.shape(hf).local_layers == (False, True, True)
  hf = GEMMA_1B | {"num_hidden_layers": 3, "sliding_window_pattern": 2}
  assert gemma3.shape(hf).local_layers == (True, False, True)


REFUSED = [
    (GEMMA_1B, {"attention_bias": True}, "attention_bias is True; supported: False"),
    (GEMMA_1B, {"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0; supported: None"),
    (GEMMA_1B, {"hidden_activation": "gelu"}, "hidden_activation is 'gelu'; supported: 'gelu_pytorch_tanh'"),
    (GEMMA_1B, {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
    (GEMMA_1B, {"layer_types": ["full_attention"]}, "layer_types must be 26 times"),
    (GEMMA_1B, {"hidden_size": 11.5}, "hidden_size is 11.5; expected a positive integer"),
    (GEMMA_27B, {"text_config": {"num_experts": 8}}, "text_config.num_experts is not a known key"),
    (GEMMA_27B, {"audio_config": {}}, "audio_config is not a known key of this family"),
    (QWEN_8B, {"use_sliding_window": True}, "use_sliding_window is True; supported: False"),
    (QWEN_8B, {"layer_types": ["sliding_attention"] * 36}, "layer_types is .* supported: "),
    (QWEN_8B, {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
     "rope_scaling.rope_type is 'yarn'; supported: 'default', 'linear' or 'llama3'"),
    (QWEN_8B, {"quantization_config": {"bits": 4}}, "quantization_config is not a known key"),
    (QWEN_8B, {"num_hidden_layers": None}, "num_hidden_layers is missing; expected a positive integer"),
    (LLAMA_1B, {"mlp_bias": True}, "mlp_bias is True; supported: False"),
    (LLAMA_1B, {"rope_parameters": {"rope_type": "default"}}, "rope_parameters and rope_scaling are both there"),
    (LLAMA_1B, {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
     "rope_scaling.low_freq_factor is missing; expected a positive number"),
    (LLAMA_1B, {"rope_scaling": {"type": "linear", "factor": 2.0, "mrope_section": [1]}},
     "rope_scaling.mrope_section is not a known key"),
]  # fmt: skip


@pytest.mark.parametrize("hf, change, message", REFUSED)
def test_what_is_not_supported_is_one_line_that_names_the_key(tmp_path, hf, change, message):
  with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path))}/config.json: {message}") as e:
    read_shape(write(tmp_path, hf | change))
  assert "\n" not in str(e.value)


def test_files_that_are_no_config(tmp_path):
  with pytest.raises(UserError, match=r"config.json: there is no such file"):
    read_shape(tmp_path)
  with pytest.raises(UserError, match=r"model_type is 'mamba'; supported: gemma3, gemma3_text, qwen3, llama$"):
    read_shape(write(tmp_path, {"model_type": "mamba"}))
  with pytest.raises(UserError, match=r"kv_heads \(3\)"):
    read_shape(write(tmp_path, LLAMA_1B | {"num_key_value_heads": 3}))
  (tmp_path / "config.json").write_text('{"model_type": "lla')
  with pytest.raises(UserError, match=r"config.json: cannot be read: "):
    read_shape(tmp_path)
  (tmp_path / "config.json").write_text("[]")
  with pytest.raises(UserError, match=r"config.json: is not a JSON object"):
    read_shape(tmp_path)


def test_a_preset_that_is_not_there_is_answered_with_the_nearest():
  with pytest.raises(UserError, match=r"no preset 'gemma3-12b'; did you mean 'gemma3_12b'\?"):
    preset("gemma3-12b")


@pytest.mark.parametrize("scaling", [None, {"rope_type": "linear", "factor": 8.0}])
def test_what_transformers_writes_by_itself_is_read(tmp_path, scaling):
  """Given old keys, transformers 5 writes tables for each type of layer and, beside them, defaults that say nothing."""
  text = dict(hidden_size=16, num_hidden_layers=7, rope_theta=5e5, rope_local_base_freq=2e4, rope_scaling=scaling)
  for config in (transformers.Gemma3TextConfig(**text), transformers.Gemma3Config(text_config=text)):
    config.save_pretrained(tmp_path)
    family, shape = families.read_shape(tmp_path)
    assert (family, shape.rope_theta, shape.local_rope_theta) == ("gemma3", 5e5, 2e4)
    assert shape.rope_scaling == (RopeScaling("linear", 8.0) if scaling else None)
