"""The keys of a config.json. Each must be known: one passed over in silence could change what the model computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sml_jax.errors import UserError
from sml_jax.models.transformer import RopeScaling

HARMLESS = frozenset(
    "model_type architectures transformers_version use_cache cache_implementation initializer_range torch_dtype dtype "
    "bos_token_id eos_token_id pad_token_id max_position_embeddings max_window_layers pretraining_tp tokenizer_class "
    "_name_or_path name_or_path _attn_implementation _attn_implementation_autoset output_attentions id2label label2id "
    "output_hidden_states return_dict is_encoder_decoder problem_type chunk_size_feed_forward task_specific_params "
    "unsloth_fixed unsloth_version".split()
)
"""Keys that say nothing of what is computed, or only what else is said by others."""

_KINDS = {int: "a positive integer", float: "a positive number", bool: "true or false", str: "a string",
          list: "a list", dict: "an object"}  # fmt: skip


class Keys:
  """Takes the keys of one JSON object, and knows at the end which were left.

  Example:
    keys = Keys(json_object, "MODEL/config.json")
    layers = keys.take("num_hidden_layers", int)
    keys.only("attention_bias", False)
    keys.done()
  """

  def __init__(self, values: Mapping[str, Any], file: str, prefix: str = ""):
    """`prefix` stands before the keys in messages."""
    self.values, self.file, self.prefix = values, file, prefix
    self._seen = set(HARMLESS)

  def error(self, name: str, what: str) -> UserError:
    return UserError(f"{self.file}: {self.prefix}{name} {what}")

  def take(self, name: str, kind: type, *default: Any) -> Any:
    """The value of a key; if it is absent or null, the default.

    Raises:
      UserError: it is of another kind, or absent and there is no default.
    """
    self._seen.add(name)
    value = self.values.get(name)
    if value is None and default:
      return default[0]
    if kind is float and type(value) is int:
      value = float(value)
    if type(value) is not kind or (kind in (int, float) and value <= 0):
      found = f"is {value!r}" if name in self.values else "is missing"
      raise self.error(name, f"{found}; expected {_KINDS[kind]}")
    return value

  def only(self, name: str, *supported: Any) -> None:
    """Refuses a key that is there and asks for something else than what is supported (null asks for nothing)."""
    self._seen.add(name)
    value = self.values.get(name)
    if value is not None and value not in supported:
      raise self.error(name, f"is {value!r}; supported: {' or '.join(repr(s) for s in supported)}")

  def ignore(self, *names: str) -> None:
    self._seen.update(names)

  def below(self, name: str) -> Keys:
    """The keys of an object within."""
    return Keys(self.take(name, dict), self.file, f"{self.prefix}{name}.")

  def done(self) -> None:
    """Raises UserError if a key is left that nobody took."""
    left = sorted(k for k, v in self.values.items() if v is not None and k not in self._seen)
    if left:
      raise self.error(left[0], "is not a known key of this family, and could change what the model computes")


def sizes(keys: Keys) -> dict[str, Any]:
  """The fields of ModelConfig that all families name alike."""
  heads, width = keys.take("num_attention_heads", int), keys.take("hidden_size", int)
  keys.only("attention_bias", False)
  keys.only("attention_dropout", 0.0)
  return {
      "vocab_size": keys.take("vocab_size", int),
      "d_model": width,
      "layers": keys.take("num_hidden_layers", int),
      "heads": heads,
      "kv_heads": keys.take("num_key_value_heads", int, heads),
      "head_dim": keys.take("head_dim", int, width // heads),
      "mlp_dim": keys.take("intermediate_size", int),
      "norm_eps": keys.take("rms_norm_eps", float),
  }


def rope(keys: Keys) -> dict[str, Any]:
  """rope_theta and rope_scaling: new keys have both in `rope_parameters`, old ones `rope_theta` and `rope_scaling`."""
  new, old = (keys.take(name, dict, None) for name in ("rope_parameters", "rope_scaling"))
  if new and old:
    raise keys.error("rope_parameters", "and rope_scaling are both there; keep one")
  theta = keys.take("rope_theta", float, 10_000.0)
  if not (new or old):
    return {"rope_theta": theta, "rope_scaling": None}
  return rope_table(keys.below("rope_parameters" if new else "rope_scaling"), theta, keys.values)


def rope_table(table: Keys, theta: float, config: Mapping[str, Any]) -> dict[str, Any]:
  """rope_theta and rope_scaling from one table of rotary keys; `theta` if it has none."""
  kind = table.take("rope_type", str, table.take("type", str, "default"))
  theta = table.take("rope_theta", float, theta)
  table.only("partial_rotary_factor", 1.0)
  if kind == "default":
    scaling = None
  elif kind == "linear":
    scaling = RopeScaling("linear", table.take("factor", float))
  elif kind == "llama3":
    factors = (table.take(name, float) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    fallback = [n for n in (config.get("max_position_embeddings"),) if n]
    length = table.take("original_max_position_embeddings", int, *fallback)
    scaling = RopeScaling("llama3", *factors, length)
  else:
    raise table.error("rope_type", f"is {kind!r}; supported: 'default', 'linear' or 'llama3'")
  table.done()
  return {"rope_theta": theta, "rope_scaling": scaling}

