"""--show_sharding: bytes by hand, and the real program on presets of which there is no file."""

from __future__ import annotations

import re

import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from sml_jax import main, parallel, sharding_table
from sml_jax.models.lora import Lora
from sml_jax.models.transformer import Model, ModelConfig

SHAPE = dict(vocab_size=48, d_model=16, layers=3, heads=4, kv_heads=2, head_dim=6, mlp_dim=20)


def test_bytes_by_hand():
  params = Model(ModelConfig(**SHAPE, lora=Lora(2, 4.0, ("q",)))).shapes
  found = sharding_table.shares(AbstractMesh((1, 2, 4), parallel.AXES), params, jnp.bfloat16)
  by_name = {name: (shape, t.spec, t.device_bytes, d.spec, d.device_bytes) for name, (shape, t, d) in found.items()}
  model, fsdp = "model", "fsdp"
  # 4 bytes when training, 2 when decoding (norms 4); fsdp 2 and model 4 divide, where they do.
  assert by_name["embedding/table"] == (
      (48, 16), P(model, fsdp), 48 * 16 * 4 // 8, P(model, None), 48 * 16 * 2 // 4)
  assert by_name["blocks/q"] == (
      (3, 16, 4, 6), P(None, fsdp, model, None), 3 * 16 * 4 * 6 * 4 // 8, P(None, None, model, None), 3 * 16 * 6 * 2)
  assert by_name["blocks/k"] == (  # 2 heads over 4: all have both
      (3, 16, 2, 6), P(None, fsdp, None, None), 3 * 16 * 2 * 6 * 4 // 2, P(None, None, None, None), 3 * 16 * 2 * 6 * 2)
  assert by_name["blocks/down"] == (
      (3, 20, 16), P(None, model, fsdp), 3 * 20 * 16 * 4 // 8, P(None, model, None), 3 * 20 * 16 * 2 // 4)
  assert by_name["blocks/attn_norm/scale"] == ((3, 16), P(None, None), 192, P(None, None), 192)
  assert by_name["blocks/lora_q/b"] == (
      (3, 2, 4, 6), P(None, None, model, None), 3 * 2 * 6 * 4, P(None, None, model, None), 3 * 2 * 6 * 2)


def shown(capsys, *args: str) -> dict[str, str]:
  assert main.main([f"--config={args[0]}", *args[1:]]) == 0
  return {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[3:] if line.strip()}


def test_a_preset_without_files_on_a_slice_that_is_not_here(capsys):
  lines = shown(capsys, "configs/quickstart.py", "--config.model.name=gemma3_12b", "--config.mesh.model=2",
                "--show_sharding=64", "--config.model.dtype=bfloat16", "--config.model.param_dtype=bfloat16")
  # 48 layers of 3840 x 15360 over fsdp 32 x model 2 when training, over model 2 when decoding; 2 bytes each
  whole = 48 * 3840 * 15360 * 2
  assert re.split(r"\s{2,}", lines["blocks/gate"].strip()) == [
      "blocks/gate", "48 3840 15360", "bfloat16", "- fsdp model", f"{whole // 64:,}", "bfloat16", "- - model",
      f"{whole // 2:,}"]
  # 11,766,034,176 is what the published config.json makes of it.
  assert "11,766,034,176 parameters" in lines["total"]


def test_the_micro_worlds_student_and_bad_arguments(capsys):
  lines = shown(capsys, "configs/quickstart.py", "--show_sharding")
  total = int(re.search(r"([\d,]+) parameters\s+([\d,]+)\s+([\d,]+)", lines["total"])[2].replace(",", ""))
  assert total == 4 * int(re.search(r"([\d,]+) parameters", lines["total"])[1].replace(",", ""))  # one device, f32
  for bad in (["--show_sharding=x"], ["--show_sharding="], ["--show_sharding", "--workdir=x"]):
    assert main.main(["--config=configs/quickstart.py", *bad]) == 1
    assert capsys.readouterr().err.startswith("error: --show_sharding[=DEVICES] stands alone")
  assert main.main(["--config=configs/quickstart.py", "--show_sharding=6", "--config.mesh.model=4"]) == 1
  wanted = "data x fsdp x model = 1 x -1 x 4"
  assert capsys.readouterr().err == f"error: mesh: {wanted} does not make the 6 devices there are\n"


@pytest.mark.parametrize("name", ["qwen3_8b", "llama3_8b"])
def test_other_families(capsys, name):
  lines = shown(capsys, "configs/quickstart.py", f"--config.model.name={name}", "--show_sharding=8")
  assert "blocks/q" in lines and "total" in lines
