"""Import and export of Hugging Face folders: bit for bit there and back, and bad folders in one line."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import struct
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_hf
import torch
import transformers
from safetensors.torch import load, save_file

from sml_jax import parallel
from sml_jax.errors import UserError
from sml_jax.models import families, lora, weights
from sml_jax.models.export import export
from sml_jax.models.families import read_shape
from sml_jax.models.transformer import Model
from sml_jax.models.weights import Source

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def save(name, folder, dtype="float32", shards=False):
  tiny_hf.make(name, DTYPES[dtype]).save_pretrained(folder, max_shard_size="20KB" if shards else "5GB")
  (folder / "tokenizer.json").write_text("{}")
  (folder / "chat_template.jinja").write_text("{{ x }}")
  return folder


def load_file(file):
  """Not safetensors' own: that maps the file, which is then written anew here."""
  return load(file.read_bytes())


def files(folder):
  return {f.name: f.read_bytes() for f in folder.iterdir()}


def logits(model, params, tokens):
  positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
  forward = lambda p: model.logits(p, model.forward(p, tokens, positions, np.ones_like(tokens)))
  with jax.default_matmul_precision("highest"):
    return np.asarray(jax.jit(forward)(params))


@pytest.fixture
def qwen(tmp_path):
  return save("qwen3_tied", tmp_path / "qwen", shards=True)


def test_each_parameter_is_transformers_own_in_our_axes(tmp_path):
  """By hand for every kind of parameter, of Gemma, which has all but a head of its own."""
  folder = save("gemma3", tmp_path / "hf")
  hf, got = load_file(folder / "model.safetensors"), tiny_hf.named(tiny_hf.read(folder)[1])
  layer = lambda i, name: hf[f"model.layers.{i}.{name}.weight"].numpy()
  assert np.array_equal(got["embedding/table"], hf["model.embed_tokens.weight"])
  assert np.array_equal(got["final_norm/scale"], hf["model.norm.weight"])
  for i in range(4):
    for name, heads in (("q", 4), ("k", 2), ("v", 2)):
      want = layer(i, f"self_attn.{name}_proj").reshape(heads, 16, 32)
      assert np.array_equal(got[f"blocks/{name}"][i], np.einsum("hed->dhe", want))
    assert np.array_equal(got["blocks/o"][i], np.einsum("dhe->hed", layer(i, "self_attn.o_proj").reshape(32, 4, 16)))
    for name in ("gate", "up", "down"):
      assert np.array_equal(got[f"blocks/{name}"][i], layer(i, f"mlp.{name}_proj").T)
    for ours, theirs in (
        ("attn_norm", "input_layernorm"), ("post_attn_norm", "post_attention_layernorm"),
        ("mlp_norm", "pre_feedforward_layernorm"), ("post_mlp_norm", "post_feedforward_layernorm"),
        ("q_norm", "self_attn.q_norm"), ("k_norm", "self_attn.k_norm"),
    ):  # fmt: skip
      assert np.array_equal(got[f"blocks/{ours}/scale"][i], layer(i, theirs))
  assert len(got) == 2 + 7 + 6


@pytest.mark.parametrize("dtype, shards", [("float32", False), ("bfloat16", True)])
@pytest.mark.parametrize("name", tiny_hf.NAMES)
def test_import_then_export_is_the_same_folder(tmp_path, name, dtype, shards):
  """Every file byte for byte, vision tensors, config and tokenizer included (the index: its content)."""
  folder = save(name, tmp_path / "hf", dtype, shards)
  model, params = tiny_hf.read(folder)
  assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(params))
  export(params, model.config, folder, tmp_path / "out")
  want, got = files(folder), files(tmp_path / "out")
  assert want.keys() == got.keys()
  assert (sum(f.endswith(".safetensors") for f in got) > 1) == shards
  for file in want:
    if file.endswith("index.json"):
      assert json.loads(got[file])["weight_map"] == json.loads(want[file])["weight_map"]
    else:
      assert got[file] == want[file], file
  kind = transformers.AutoModelForImageTextToText if "multimodal" in name else transformers.AutoModelForCausalLM
  loaded = kind.from_pretrained(tmp_path / "out", dtype=DTYPES[dtype])
  for (where, a), b in zip(loaded.named_parameters(), tiny_hf.make(name, DTYPES[dtype]).parameters(), strict=True):
    assert torch.equal(a, b), where


def test_both_forms_of_multimodal_names(tmp_path):
  """`language_model.model.` as published, and `model.language_model.` as transformers has it since."""
  old = save("gemma3_multimodal", tmp_path / "old")
  tensors = load_file(old / "model.safetensors")
  assert "language_model.model.embed_tokens.weight" in tensors and any(n.startswith("vision_tower.") for n in tensors)
  new = shutil.copytree(old, tmp_path / "new")
  rename = lambda n: "model." + n.replace("language_model.model.", "language_model.")
  save_file({rename(n): t for n, t in tensors.items()}, new / "model.safetensors", {"format": "pt"})
  (config, a), (_, b) = (tiny_hf.read(f) for f in (old, new))
  assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
  export(jax.tree.map(lambda x: x + 1, b), config.config, new, tmp_path / "out")
  out = load_file(tmp_path / "out" / "model.safetensors")
  for name, tensor in load_file(new / "model.safetensors").items():
    text = name.startswith("model.language_model.")
    assert torch.equal(out[name], tensor + 1 if text else tensor), name


def test_a_tied_head_that_is_written_out(tmp_path):
  """As Qwen3-0.6B has it: read if it equals the embedding, and written again with the embedding's new values."""
  folder = save("qwen3_tied", tmp_path / "hf")
  tensors = load_file(folder / "model.safetensors")
  head = tensors["model.embed_tokens.weight"].clone()
  save_file(tensors | {"lm_head.weight": head}, folder / "model.safetensors", {"format": "pt"})
  model, params = tiny_hf.read(folder)
  export(jax.tree.map(lambda x: x * 2, params), model.config, folder, tmp_path / "out")
  out = load_file(tmp_path / "out" / "model.safetensors")
  assert torch.equal(out["lm_head.weight"], head * 2) and torch.equal(out["model.embed_tokens.weight"], head * 2)
  head[96, 31] += 1
  save_file(tensors | {"lm_head.weight": head}, folder / "model.safetensors", {"format": "pt"})
  with pytest.raises(UserError, match=r"model.safetensors: lm_head.weight differs from the embedding"):
    tiny_hf.read(folder)


def test_parameters_may_be_stored_in_bfloat16(tmp_path):
  folder = save("llama3", tmp_path / "hf", "bfloat16")
  model, params = tiny_hf.read(folder, param_dtype=jnp.bfloat16)
  assert all(a.dtype == jnp.bfloat16 for a in jax.tree.leaves(params))
  export(params, model.config, folder, tmp_path / "out")
  assert files(folder) == files(tmp_path / "out")


def test_adapters_are_merged_and_may_come_alone(tmp_path):
  """The exported model's logits are those of the unmerged one; an adapter alone takes its weights from the base."""
  folder = save("qwen3_untied", tmp_path / "hf")
  model, base = tiny_hf.read(folder, lora=lora.Lora(2, 6.0))
  rng = np.random.default_rng(0)
  adapter = jax.tree.map(lambda a: rng.normal(0, 0.1, a.shape).astype(np.float32), lora.split(model.shapes)[1])
  params = lora.join(base, adapter)
  export(params, model.config, folder, tmp_path / "a")
  export(adapter, model.config, folder, tmp_path / "b")
  assert files(tmp_path / "a") == files(tmp_path / "b") != files(folder)
  tokens = tiny_hf.draw_tokens(2, 9)
  hf = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "a")
  np.testing.assert_allclose(logits(model, params, tokens), tiny_hf.logits(hf, tokens), atol=5e-5)


def test_a_model_without_a_folder_takes_its_preset_form(tmp_path, monkeypatch):
  tiny = tiny_hf.SMALL | {"model_type": "llama", "rms_norm_eps": 1e-5, "head_dim": 8, "tie_word_embeddings": False}
  monkeypatch.setitem(families.PRESETS, "tiny", tiny)
  monkeypatch.setattr("sml_jax.models.export.SHARD_BYTES", 30_000)
  model = Model(families.llama3.shape(tiny))
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda a: rng.normal(0, 0.2, a.shape).astype(np.float32), model.shapes)
  export(params, model.config, "tiny", tmp_path / "out")
  assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
  for file in (tmp_path / "out").glob("*.safetensors"):
    assert file.stat().st_size < 33_000
  again = tiny_hf.read(tmp_path / "out")[1]
  assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(again), strict=True))
  hf, tokens = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out"), tiny_hf.draw_tokens(1, 5)
  np.testing.assert_allclose(logits(model, params, tokens), tiny_hf.logits(hf, tokens), atol=1e-5)


def test_a_part_is_read_as_it_would_be_cut_from_the_whole(qwen):
  """For the cuts that a mesh of 2 x 2 makes of every parameter, and each layer alone."""
  source = Source(qwen, read_shape(qwen)[1])
  for path, like in source.shapes.items():
    whole = source.read(path, tuple(slice(None) for _ in like.shape))
    for axis, size in enumerate(like.shape):
      if size % 2 or (path in ("blocks/q", "blocks/k", "blocks/v") and axis == 3) or (path == "blocks/o" and axis == 2):
        continue
      cut = tuple(slice(size // 2, None) if a == axis else slice(None) for a in range(len(like.shape)))
      assert np.array_equal(source.read(path, cut), whole[cut]), (path, cut)


SHARDED = """
import sys
from sml_jax import parallel
from sml_jax.models import weights
from sml_jax.models.export import export
from sml_jax.models.families import read_shape

read, asked = weights.Source.read, {}
def counted(self, path, index):
  asked.setdefault(path, []).append(index)
  return read(self, path, index)
weights.Source.read = counted
for folder, out in zip(sys.argv[1::2], sys.argv[2::2]):
  _, config = read_shape(folder)
  for use in ("train", "decode"):
    asked.clear()
    params = weights.load(folder, config, parallel.make_mesh(data=2, fsdp=2, model=2), use)
    for path, a in weights.flat(params).items():
      shards = {str(s.index) for s in a.addressable_shards}
      assert len(asked[path]) == len(shards), (path, asked[path])  # none is read for two devices
    q, norm = params["blocks"]["q"].sharding.spec, params["final_norm"]["scale"].sharding.spec
    assert tuple(q) == (None, "fsdp" if use == "train" else None, "model", None) and tuple(norm) == (None,)
    export(params, config, folder, out + use)
"""


def test_onto_eight_devices_and_back_is_the_same_folder(tmp_path):
  args = []
  for name, dtype in (("gemma3_multimodal", "bfloat16"), ("qwen3_untied", "float32"), ("llama3", "bfloat16")):
    args += [save(name, tmp_path / name, dtype, shards=True), tmp_path / f"{name}-"]
  flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
  env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
  command = [sys.executable, "-c", SHARDED, *map(str, args)]
  done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
  assert done.returncode == 0, done.stderr[-3000:]
  for folder, out in zip(args[::2], args[1::2], strict=True):
    index = "model.safetensors.index.json"
    wanted, *got = (files(path) for path in (folder, tmp_path / f"{out.name}train", tmp_path / f"{out.name}decode"))
    for found in got:
      assert found | {index: wanted[index]} == wanted


def broken(folder, name="model.safetensors"):
  """(file, header, offset of the data, bytes)."""
  file = folder / name
  data = file.read_bytes()
  (n,) = struct.unpack("<Q", data[:8])
  return file, json.loads(data[8 : 8 + n]), 8 + n, data


def refuse(folder, message, **changes):
  _, config = read_shape(folder)
  with pytest.raises(UserError, match=message) as e:
    weights.load(folder, dataclasses.replace(config, **changes), parallel.make_mesh())
  assert "\n" not in str(e.value) and str(folder) in str(e.value)


def test_truncated_and_damaged_files(tmp_path):
  folder = save("llama3", tmp_path / "hf")
  file, header, start, data = broken(folder)
  last = max((n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"])
  file.write_bytes(data[:-1])
  refuse(folder, f"truncated: tensor {re.escape(last)} ends at byte {len(data)}, the file has {len(data) - 1}")
  file.write_bytes(data[:100])
  refuse(folder, f"truncated, or no safetensors file: 100 bytes, and a header of {start - 8} announced")
  file.write_bytes(data[:5])
  refuse(folder, "truncated, or no safetensors file: 5 bytes")
  file.write_bytes(data + b"\0")
  refuse(folder, f"damaged: its tensors end at byte {len(data)}, the file has {len(data) + 1}")
  file.write_bytes(data[:8] + b"x" + data[9:])
  refuse(folder, "its header is damaged: JSONDecodeError")
  header["model.norm.weight"]["shape"] = [31]
  text = json.dumps(header).encode()
  file.write_bytes(struct.pack("<Q", len(text)) + text + data[start:])
  refuse(folder, r"its header is damaged: tensor model.norm.weight \(F32 \[31\]\) is said to be bytes")


def test_shards_that_are_missing_or_contradict_the_index(qwen):
  index = qwen / "model.safetensors.index.json"
  good = index.read_text()
  shard = sorted(qwen.glob("*.safetensors"))[1]
  other = sorted(qwen.glob("*.safetensors"))[0].name
  shard.rename(qwen / "away")
  refuse(qwen, f"{shard.name}: this shard is missing; model.safetensors.index.json places [0-9]+ tensors in it")
  (qwen / "away").rename(shard)
  tensor = next(n for n, f in json.loads(good)["weight_map"].items() if f == shard.name)
  index.write_text(good.replace(f'"{tensor}": "{shard.name}"', f'"{tensor}": "{other}"'))
  refuse(qwen, f"{other}: has no tensor {re.escape(tensor)}, which model.safetensors.index.json places there")
  index.write_text(re.sub(f'"{tensor}": "{shard.name}",?', "", good))
  refuse(qwen, f"{shard.name}: has a tensor {re.escape(tensor)}, which \\S+.index.json does not place there")
  index.write_text("{}")
  refuse(qwen, "is not an index of shards: KeyError")
  index.unlink()
  refuse(qwen, "has neither model.safetensors nor model.safetensors.index.json")


def test_tensors_that_are_missing_unexpected_or_of_another_shape(tmp_path):
  folder = save("qwen3_untied", tmp_path / "hf")
  tensors, file = load_file(folder / "model.safetensors"), folder / "model.safetensors"
  put = lambda t: save_file(t, file, {"format": "pt"})
  refuse(folder, r"tensor model.layers.2.\S+q_proj.weight \[24, 32\] is missing; the model has 3 layers", layers=3)
  refuse(folder, r"unexpected tensor model.layers.1.\S+ \[.*; the model has 1 layers and untied", layers=1)
  name = "model.layers.1.mlp.up_proj.weight"
  put({n: t for n, t in tensors.items() if n != name})
  refuse(folder, rf"tensor {re.escape(name)} \[48, 32\] is missing")
  put(tensors | {name: tensors[name][:47].clone()})
  refuse(folder, rf"tensor {re.escape(name)} is \[47, 32\], but .*config.json makes it \[48, 32\]")
  put(tensors | {"model.layers.1.self_attn.q_proj.bias": torch.zeros(24)})
  refuse(folder, r"unexpected tensor model.layers.1.self_attn.q_proj.bias \[24\]")
  put(tensors | {"vision_tower.x": torch.zeros(2)})
  refuse(folder, r"unexpected tensor vision_tower.x \[2\]")
  put(tensors | {name: tensors[name].to(torch.int8)})
  refuse(folder, rf"tensor {re.escape(name)} is I8; supported: BF16, F16, F32")


def test_an_export_that_fails_leaves_nothing(qwen, tmp_path, monkeypatch):
  model, params = tiny_hf.read(qwen)
  before, out = files(qwen), tmp_path / "out"
  with pytest.raises(UserError, match=r"blocks/gate is missing, wanted \[2, 32, 48\]"):
    blocks = {k: v for k, v in params["blocks"].items() if k != "gate"}
    export(params | {"blocks": blocks}, model.config, qwen, out)
  def full(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr("sml_jax.models.export.write", full)
  with pytest.raises(UserError, match=r"out: cannot be written: No space left on device"):
    export(params, model.config, qwen, out)
  assert sorted(p.name for p in tmp_path.iterdir()) == ["qwen"] and files(qwen) == before
  out.mkdir()
  with pytest.raises(UserError, match="out: is there already"):
    export(params, model.config, qwen, out)
