"""Both kinds of tokenizer file behind one interface, against transformers and by hand."""

from __future__ import annotations

import json
import random

import chat_folders
import pytest
from transformers import AutoTokenizer

from sml_jax.dialogue.tokenizer_files import TokenizerError, configured_stop_ids, open_tokenizer

TEXTS = ["Find x.\n\n12 pens", "  two  spaces ", "é 你好 😀\t", "", "def f(n):\n\n\n    return n", "<h1>a</h1>"]


@pytest.fixture(scope="module", params=["gemma3", "qwen3", "llama3", "gemma3 saved by transformers"])
def folder(request, tmp_path_factory):
  name, *saved = request.param.split(" ", 1)
  path = chat_folders.FAMILIES[name](tmp_path_factory.mktemp(name))
  if saved:  # such a folder has a tokenizer.json, and no SentencePiece model
    AutoTokenizer.from_pretrained(str(path), local_files_only=True).save_pretrained(path / "saved")
    path = path / "saved"
  return path


def test_ids_are_those_of_transformers_and_text_comes_back(folder):
  ours, theirs = open_tokenizer(folder), AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
  rng = random.Random(1)
  for text in [*TEXTS, *(chat_folders.random_text(rng) for _ in range(300))]:
    ids = ours.encode(text)
    assert ids == theirs.encode(text, add_special_tokens=False) and ours.decode(ids) == text
  assert ours.vocab_size >= len(theirs) - 1  # transformers adds a <mask> to Gemma's
  assert ours.encode("x" * 20_000) == theirs.encode("x" * 20_000, add_special_tokens=False)  # nothing is cut off


def test_pieces_read_as_text_and_bytes_as_bytes(folder):
  t = open_tokenizer(folder)
  ids = t.encode("x = 12\n")
  assert "".join(map(t.piece, ids)) in ("x = 12\n", "x = 12<0x0A>")
  spelled = "".join(map(t.piece, t.encode("😀")))
  assert spelled == "<0xF0><0x9F><0x98><0x80>"
  assert all(isinstance(t.piece(i), str) for i in range(t.vocab_size))
  assert t.piece(t.id_of("<h1>" if "gemma" in str(folder) else "<|im_end|>" if "qwen" in str(folder) else "<|eot_id|>"))


def test_special_pieces_and_ids_by_name(tmp_path):
  t = open_tokenizer(chat_folders.qwen3(tmp_path))
  assert t.special == {"<|endoftext|>": 700, "<|im_start|>": 701, "<|im_end|>": 702}
  assert t.id_of("</think>") == 704 and t.vocab_size == 705 and t.id_of("<|nothing|>") is None
  s = open_tokenizer(chat_folders.gemma3(tmp_path / "g"))
  assert [s.id_of(p) for p in ("<bos>", "<start_of_turn>", "<end_of_turn>", "\n")] == [2, 4, 5, 6]
  assert s.bos_id == 2 and s.pad_id == 0 and s.id_of("<|nothing|>") is None and s.vocab_size == 700


def test_a_file_may_be_named_and_the_fingerprint_is_of_its_content(tmp_path):
  folder = chat_folders.qwen3(tmp_path)
  assert open_tokenizer(folder / "tokenizer.json").fingerprint == open_tokenizer(str(folder)).fingerprint
  before = open_tokenizer(folder).fingerprint
  (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + " ")
  assert open_tokenizer(folder).fingerprint != before and len(before) == 16


def test_what_is_missing_or_broken_is_named_in_one_line(tmp_path):
  (tmp_path / "tokenizer.json").write_text("{}")
  (tmp_path / "none").mkdir()
  for path, message in {
      tmp_path: r"tokenizer.json: not a tokenizer.json \(",
      tmp_path / "none": "neither tokenizer.model nor tokenizer.json",
      tmp_path / "nowhere": "no such file or folder",
  }.items():
    with pytest.raises(TokenizerError, match=message) as e:
      open_tokenizer(path)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(("given", "ids"), [(7, [7]), ([1, 106], [1, 106]), (None, [])])
def test_stop_ids_of_a_folder(tmp_path, given, ids):
  (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": given}))
  (tmp_path / "config.json").write_text(json.dumps({"text_config": {"eos_token_id": 9}}))
  assert configured_stop_ids(tmp_path) == {"generation_config.json": ids, "config.json": [9]}
  (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": "</s>"}))
  with pytest.raises(TokenizerError, match="not token ids"):
    configured_stop_ids(tmp_path)
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(TokenizerError, match=r"config\.json: not JSON"):
    configured_stop_ids(tmp_path)
