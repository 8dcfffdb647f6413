"""transformers with torch on its side of the comparisons (see worker.py)."""

from __future__ import annotations

import torch
import transformers
from shapes import MODELS, NEW, PROMPT, TRAIN

torch.set_num_threads(2)


def versions() -> dict[str, str]:
  return {"torch": torch.__version__, "transformers": transformers.__version__}


def model_of(size: str):
  s = MODELS[size]
  config = transformers.LlamaConfig(
      vocab_size=s["vocab"], hidden_size=s["width"], num_hidden_layers=s["layers"], num_attention_heads=s["heads"],
      num_key_value_heads=s["kv_heads"], head_dim=s["head"], intermediate_size=s["mlp"], tie_word_embeddings=True,
      attn_implementation="sdpa", eos_token_id=None, bos_token_id=None, pad_token_id=0,
  )  # fmt: skip
  torch.manual_seed(0)
  return transformers.LlamaForCausalLM(config)


def train(size: str):
  """With its fused AdamW."""
  model, shape = model_of(size).train(), TRAIN[size]
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
  tokens = torch.randint(3, MODELS[size]["vocab"], shape)

  def run():
    optimizer.zero_grad(set_to_none=True)
    model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
    optimizer.step()

  return tokens.numel(), run


def decode(size: str, batch: int, cache: str | None = None):
  model, tokens = model_of(size).eval(), torch.randint(3, MODELS[size]["vocab"], (batch, PROMPT))
  mask = torch.ones_like(tokens)

  def run():
    with torch.inference_mode():
      out = model.generate(
          tokens, attention_mask=mask, do_sample=False, min_new_tokens=NEW, max_new_tokens=NEW,
          cache_implementation=cache,
      )  # fmt: skip
    assert out.shape == (batch, PROMPT + NEW)

  return batch * NEW, run


CASES = {"train": train, "decode": decode}
