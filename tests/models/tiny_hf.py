"""Tiny random models of every family, made and saved by transformers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import PreTrainedModel

from sml_jax import parallel
from sml_jax.models import families
from sml_jax.models.transformer import Model, Params
from sml_jax.models.weights import flat, load

torch.set_num_threads(1)  # Two libraries that spin on the same cores wait for each other.
VOCAB = 97
SMALL = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, rms_norm_eps=1e-3, pad_token_id=0, eos_token_id=1, bos_token_id=2)  # fmt: skip
# Local and global layers, whose number is no multiple of the pattern's; scores not scaled by the head width.
GEMMA = SMALL | dict(
    num_hidden_layers=4, head_dim=16, sliding_window=8, query_pre_attn_scalar=24,
    layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
    rope_parameters={"full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0},
                     "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}},
)  # fmt: skip
VISION = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28,
              patch_size=14)  # fmt: skip
LLAMA_ROPE = dict(rope_type="llama3", rope_theta=1000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                  original_max_position_embeddings=64)  # fmt: skip


def _multimodal() -> PreTrainedModel:
  config = transformers.Gemma3Config(
      text_config=transformers.Gemma3TextConfig(**GEMMA), vision_config=VISION, mm_tokens_per_image=4,
      image_token_index=90, boi_token_index=91, eoi_token_index=92,
  )  # fmt: skip
  return transformers.Gemma3ForConditionalGeneration(config)


MAKERS = {
    "gemma3": lambda: transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**GEMMA)),
    "gemma3_multimodal": _multimodal,
    "qwen3_tied": lambda: transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(**SMALL, head_dim=16, tie_word_embeddings=True)
    ),
    "qwen3_untied": lambda: transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(**SMALL, head_dim=6, tie_word_embeddings=False)
    ),
    # All three bands of the scaling are met by its 6 frequencies.
    "llama3": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SMALL, head_dim=12, rope_parameters=LLAMA_ROPE, tie_word_embeddings=True)
    ),
}
NAMES = tuple(MAKERS)


def make(name: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
  """A model every parameter of which is drawn at random: a norm left at its first value could be forgotten unseen."""
  torch.manual_seed(NAMES.index(name))
  model = MAKERS[name]().eval()
  model.set_attn_implementation("eager")
  with torch.no_grad():
    for parameter_name, p in model.named_parameters():
      if "norm" in parameter_name:
        p.uniform_(-0.5, 0.5) if "gemma3" in name else p.uniform_(0.5, 2)
      else:
        p.normal_(0, 0.3 if "embed" in parameter_name else 1.5 * p.shape[-1] ** -0.5)
  return model.to(dtype)


def read(folder: Path, mesh=None, **changes) -> tuple[Model, Params]:
  """Our model of a folder."""
  _, config = families.read_shape(folder)
  model = Model(dataclasses.replace(config, **changes), mesh)
  return model, load(folder, model.config, mesh or parallel.make_mesh())


def logits(model: PreTrainedModel, tokens: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
  """transformers' logits [B, T, V]; mask 0 = padding, positions count real tokens."""
  mask = np.ones_like(tokens) if mask is None else mask
  positions = np.maximum(np.cumsum(mask, 1) - 1, 0)
  with torch.no_grad():
    out = model(*map(torch.tensor, (tokens,)), attention_mask=torch.tensor(mask), position_ids=torch.tensor(positions))
  return out.logits.float().numpy()


def draw_tokens(*shape: int) -> np.ndarray:
  return np.random.default_rng(0).integers(3, 80, shape)


def named(params: Params) -> dict[str, np.ndarray]:
  return {path: np.asarray(leaf) for path, leaf in flat(params).items()}
