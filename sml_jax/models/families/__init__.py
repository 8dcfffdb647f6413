"""The model families: the shape by a Hugging Face config.json or by a preset's name, and the names of the weights."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

from sml_jax.errors import UserError
from sml_jax.models.families import gemma3, llama3, qwen3
from sml_jax.models.transformer import ModelConfig

FAMILIES = {"gemma3": gemma3, "qwen3": qwen3, "llama3": llama3}
MODEL_TYPES = {"gemma3": "gemma3", "gemma3_text": "gemma3", "qwen3": "qwen3", "llama": "llama3"}
"""A config.json's model_type -> the family."""
PRESETS: dict[str, dict[str, Any]] = gemma3.PRESETS | qwen3.PRESETS | llama3.PRESETS
"""Name -> config.json of the published model (text alone), less what does not matter for what is computed."""


@dataclasses.dataclass(frozen=True)
class Weight:
  """How one of our parameters lies in a Hugging Face checkpoint.

  Attributes:
    name: of the tensor, less the model's prefix; "{layer}" where each layer has its own.
    axes: for each axis of the tensor, the axes of ours (less that of the layers) which are laid out in it. A linear
      layer is [out, in] there; q, ours [D, H, E], is [H*E, D]: ((1, 2), (0,)).
  """

  name: str
  axes: tuple[tuple[int, ...], ...]

  def tensor_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the tensor for our parameter's shape without layers."""
    return tuple(math.prod(shape[a] for a in group) for group in self.axes)


_IN_OUT = ((1,), (0,))
_BLOCK = {
    "q": Weight("layers.{layer}.self_attn.q_proj.weight", ((1, 2), (0,))),
    "k": Weight("layers.{layer}.self_attn.k_proj.weight", ((1, 2), (0,))),
    "v": Weight("layers.{layer}.self_attn.v_proj.weight", ((1, 2), (0,))),
    "o": Weight("layers.{layer}.self_attn.o_proj.weight", ((2,), (0, 1))),
    "gate": Weight("layers.{layer}.mlp.gate_proj.weight", _IN_OUT),
    "up": Weight("layers.{layer}.mlp.up_proj.weight", _IN_OUT),
    "down": Weight("layers.{layer}.mlp.down_proj.weight", _IN_OUT),
}


def family_of(config: ModelConfig) -> ModuleType:
  """The family whose weights a shape has."""
  return gemma3 if config.post_norms else qwen3 if config.qk_norm else llama3


def weights(config: ModelConfig) -> dict[str, Weight]:
  """Our parameters' paths, such as "blocks/q", and how each lies in a checkpoint; without LoRA."""
  out = {
      "embedding/table": Weight("embed_tokens.weight", ((0,), (1,))),
      "final_norm/scale": Weight("norm.weight", ((0,),)),
      **{f"blocks/{name}": weight for name, weight in _BLOCK.items()},
  }
  for ours, theirs in family_of(config).NORMS.items():
    out[f"blocks/{ours}/scale"] = Weight(f"layers.{{layer}}.{theirs}.weight", ((0,),))
  if not config.tied_embeddings:
    out["embedding/head"] = Weight("lm_head.weight", _IN_OUT)
  return out


def preset(name: str) -> tuple[str, ModelConfig]:
  """Family and shape of a published model, without any file: "gemma3_12b".

  Raises:
    UserError: there is no such preset.
  """
  for family, module in FAMILIES.items():
    if name in module.PRESETS:
      return family, module.shape(module.PRESETS[name], f"preset {name}")
  close = difflib.get_close_matches(name, PRESETS, n=1)
  hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(PRESETS)}"
  raise UserError(f"no preset {name!r}; {hint}")


def read_shape(folder: str | Path) -> tuple[str, ModelConfig]:
  """Family and shape by FOLDER/config.json.

  Raises:
    UserError: the file is missing or damaged, of an unknown family, or has a key that is not supported.
  """
  file = Path(folder) / "config.json"
  try:
    hf = json.loads(file.read_text())
  except FileNotFoundError:
    raise UserError(f"{file}: there is no such file; a checkpoint folder in Hugging Face's format has one") from None
  except (OSError, ValueError) as e:
    raise UserError(f"{file}: cannot be read: {e}") from None
  if not isinstance(hf, dict):
    raise UserError(f"{file}: is not a JSON object")
  kind = hf.get("model_type")
  if kind not in MODEL_TYPES:
    raise UserError(f"{file}: model_type is {kind!r}; supported: {', '.join(MODEL_TYPES)}")
  family = MODEL_TYPES[kind]
  try:
    return family, FAMILIES[family].shape(hf, str(file))
  except UserError:
    raise
  except ValueError as e:  # The widths contradict each other.
    raise UserError(f"{file}: {e}") from None

