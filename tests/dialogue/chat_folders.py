"""Checkpoint folders of the three families with small tokenizers trained on the spot, and chat templates that say what
the families' own say."""

from __future__ import annotations

import functools
import io
import json
import pathlib
import random

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

ROOT = pathlib.Path(__file__).parents[2]

GEMMA3 = """{{ bos_token }}{% set lead = '' %}{% set said = messages %}
{%- if messages[0].role == 'system' %}
  {%- set lead = messages[0].content + '\\n\\n' %}{% set said = messages[1:] %}
{%- endif %}
{%- for m in said %}
{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + (lead if loop.first else '') }}
{{- m.content | trim }}{{ '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""  # fmt: skip

QWEN3 = """{%- set ns = namespace(asked=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.asked = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
  {%- if m.role != 'assistant' %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
  {%- else %}
    {%- set said = m.content %}{% set thought = '' %}
    {%- if '</think>' in m.content %}
      {%- set said = m.content.split('</think>')[-1].lstrip('\\n') %}
      {%- set thought = m.content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if loop.index0 > ns.asked and (loop.last or thought) %}
      {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + said.lstrip('\\n') }}
    {%- else %}{{ said }}{% endif %}
    {{- '<|im_end|>\\n' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}
  {%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}
{%- endif %}"""

LLAMA3 = """{%- macro turn(role, text) %}
  {{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' + text + '<|eot_id|>' }}
{%- endmacro %}{{- bos_token }}
{%- if dated %}{% set text = '' %}{% set said = messages %}
  {%- if messages[0].role == 'system' %}
    {%- set text = messages[0].content | trim %}{% set said = messages[1:] %}
  {%- endif %}
  {{- turn('system', 'Cutting Knowledge Date: December 2023\\nToday Date: 26 Jul 2024\\n\\n' + text) }}
{%- else %}{% set said = messages %}{% endif %}
{%- for m in said %}{{ turn(m.role, m.content | trim) }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""  # fmt: skip

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@functools.cache
def corpus() -> tuple[str, ...]:
  text = (ROOT / "README.md").read_text() + (ROOT / "sml_jax" / "main.py").read_text()
  return tuple(line for line in text.splitlines() if line.strip())


def sentencepiece_model(**changes) -> bytes:
  """As Gemma's: whole characters or bytes, no space before the text, line breaks and role pieces found in the text."""
  model = io.BytesIO()
  how = dict(
      vocab_size=700, model_type="bpe", pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>",
      bos_piece="<bos>", byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=False,
      remove_extra_whitespaces=False, split_digits=True,
      user_defined_symbols=["<start_of_turn>", "<end_of_turn>", "\n", "\n\n", "\n\n\n", "<h1>"],
  )  # fmt: skip
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(corpus()), model_writer=model, num_threads=1, minloglevel=2, **how | changes
  )
  return model.getvalue()


@functools.cache
def byte_level(special: tuple[str, ...], added: tuple[str, ...] = (), normalize: bool = False) -> str:
  """Byte-level BPE, as Qwen3's and Llama's; `special` and `added` pieces are found in the text."""
  bpe = Tokenizer(models.BPE())
  parts = [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
  bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.Sequence(parts), decoders.ByteLevel()
  bpe.normalizer = normalizers.Sequence([normalizers.NFC(), *[normalizers.Lowercase()] * normalize])
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=sorted(alphabet), show_progress=False)
  bpe.train_from_iterator(corpus(), trainer)
  bpe.add_special_tokens(list(special))
  bpe.add_tokens(list(added))
  return bpe.to_str()


def folder(path: pathlib.Path, tokenizer: str | bytes, template="", eos=None, **config) -> pathlib.Path:
  """Writes a folder: the tokenizer, its configuration, and generation_config.json with `eos`."""
  path.mkdir(parents=True, exist_ok=True)
  if isinstance(tokenizer, bytes):
    (path / "tokenizer.model").write_bytes(tokenizer)
  else:
    (path / "tokenizer.json").write_text(tokenizer)
  if template:
    (path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, **config}))
  if eos is not None:
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
  return path


def gemma3(path: pathlib.Path, template: str = GEMMA3, **changes) -> pathlib.Path:
  names = dict(bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")
  return folder(path, sentencepiece_model(**changes), template, [1, 5], tokenizer_class="GemmaTokenizer", **names)


def qwen3(path: pathlib.Path, template: str = QWEN3, special=("<|endoftext|>", "<|im_start|>", "<|im_end|>"), eos=None,
          **changes) -> pathlib.Path:  # fmt: skip
  names = dict(eos_token="<|im_end|>", pad_token="<|endoftext|>")
  pieces = byte_level(tuple(special), ("<think>", "</think>"), **changes)
  return folder(path, pieces, template, eos, tokenizer_class="PreTrainedTokenizerFast", **names)


def llama3(path: pathlib.Path, dated: bool = False) -> pathlib.Path:
  names = ("begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eom_id", "eot_id")
  special = tuple(f"<|{name}|>" for name in names)
  template = "{% set dated = " + str(dated).lower() + " %}" + LLAMA3
  names = dict(bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
  return folder(path, byte_level(special), template, None, tokenizer_class="PreTrainedTokenizerFast", **names)


FAMILIES = {"gemma3": gemma3, "qwen3": qwen3, "llama3": llama3}

WORDS = (
    "x", " is", " 12", "34", "\n", "\n\n", "\n \n", " ", "  ", "\t", "é", " 你好", "😀", "Ω", "'s", "**bold**", "}",
    "$x^2$", "<", ">", "|", "<b>", "</b>", "</", "im_end", "user", "\r\n",
)  # fmt: skip


def random_text(rng: random.Random) -> str:
  """Unicode, line breaks, space at both ends, often empty; no special piece."""
  return "".join(rng.choice(WORDS) for _ in range(rng.randrange(9)))
