"""The score command against transformers' log-probabilities, and the export command on a run's checkpoints."""

from __future__ import annotations

import json
import re

import jax
import numpy as np
import pytest
import tiny_hf
import torch
import transformers

from sml_jax.checkpoint import Checkpoints
from sml_jax.models import export, lora, score


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
  folder = tmp_path_factory.mktemp("gemma3")
  tiny_hf.make("gemma3").save_pretrained(folder)
  (folder / "tokenizer.json").write_text("{}")
  return folder


@pytest.fixture(autouse=True)
def same_precision_afterwards():
  before = jax.config.jax_default_matmul_precision
  yield
  jax.config.update("jax_default_matmul_precision", before)


def run(folder, tokens, tmp_path, *more) -> int:
  np.save(tmp_path / "ids.npy", tokens)
  files = [f"--checkpoint={folder}", f"--tokens={tmp_path / 'ids.npy'}", f"--out={tmp_path / 'logp.npy'}"]
  return score.main([*files, *more])


def test_logprobs_are_transformers_own_with_padding_anywhere(gemma, tmp_path, monkeypatch, capsys):
  """Rows padded left, right, inside and wholly, past the window of 8; in batches of which the last is not full."""
  monkeypatch.setattr(score, "LOGITS", 2 * 4 * 23 * 23)  # two rows at once, and 21 places of the head
  tokens = tiny_hf.draw_tokens(7, 23).astype(np.int32)
  tokens[1, :9] = tokens[2, -4:] = tokens[3, 5:9] = tokens[4, ::2] = tokens[5] = tokens[6, 1:] = -1
  assert run(gemma, tokens, tmp_path) == 0
  got = np.load(tmp_path / "logp.npy")
  assert got.dtype == np.float32 and got.shape == tokens.shape
  hf = tiny_hf.make("gemma3")
  want = np.full(tokens.shape, np.nan, np.float32)
  for row, ids in enumerate(tokens):
    at = np.flatnonzero(ids >= 0)
    if len(at) > 1:
      logp = torch.log_softmax(torch.tensor(tiny_hf.logits(hf, ids[None, at])[0]), -1)
      want[row, at[1:]] = logp[np.arange(len(at) - 1), ids[at[1:]]]
  assert np.isfinite(want).sum() == 22 * 1 + 13 + 18 + 18 + 10
  np.testing.assert_allclose(got, want, atol=1e-4)  # NaN equals NaN
  assert f"{np.isfinite(want).sum()} log-probabilities" in capsys.readouterr().out


def test_bfloat16(gemma, tmp_path):
  tokens = tiny_hf.draw_tokens(2, 12)
  assert run(gemma, tokens, tmp_path, "--dtype=bfloat16") == 0
  exact = torch.log_softmax(torch.tensor(tiny_hf.logits(tiny_hf.make("gemma3"), tokens)), -1)[:, :-1]
  exact = exact.gather(2, torch.tensor(tokens)[:, 1:, None])[..., 0].numpy()
  assert 1e-4 < abs(np.load(tmp_path / "logp.npy")[:, 1:] - exact).max() < 0.3


@pytest.mark.parametrize("tokens, message", [
    (np.full((2, 3), 97, np.int32), "row 0, column 0 is 97; expected an id from 0 to 96, or -1 for padding"),
    (np.array([[3, 4], [-1, -2]], np.int32), "row 1, column 1 is -2; expected an id"),
    (np.zeros(3, np.int32), r"is int32 \[3\]; expected int32 \[rows, tokens\]"),
    (np.zeros((2, 3)), r"is float64 \[2, 3\]; expected int32"),
    (np.zeros((0, 3), np.int32), r"is int32 \[0, 3\]; expected int32"),
])  # fmt: skip
def test_tokens_that_cannot_be_scored(gemma, tmp_path, capsys, tokens, message):
  assert run(gemma, tokens, tmp_path) == 1
  error = capsys.readouterr().err
  assert error.startswith(f"error: {tmp_path / 'ids.npy'}: ") and error.count("\n") == 1
  assert re.search(message, error), error
  assert not (tmp_path / "logp.npy").exists()


def test_files_that_are_not_there(gemma, tmp_path, capsys):
  assert score.main([f"--checkpoint={gemma}", f"--tokens={tmp_path}/no.npy", f"--out={tmp_path}/out.npy"]) == 1
  assert "no.npy: cannot be read as .npy" in capsys.readouterr().err
  assert run(tmp_path, tiny_hf.draw_tokens(1, 4), tmp_path) == 1
  assert "config.json: there is no such file" in capsys.readouterr().err
  np.save(tmp_path / "ids.npy", tiny_hf.draw_tokens(1, 4))
  out = tmp_path / "no" / "logp.npy"
  assert score.main([f"--checkpoint={gemma}", f"--tokens={tmp_path / 'ids.npy'}", f"--out={out}"]) == 1
  assert f"{out}: there is no folder {out.parent}" in capsys.readouterr().err


def saved(folder, params):
  checkpoints = Checkpoints(folder)
  checkpoints.save(3, {"params": params}, {}, {})
  checkpoints.close()
  return f"--checkpoint={folder}"


def test_export_of_a_stage(gemma, tmp_path, capsys):
  _, params = tiny_hf.read(gemma)
  args = [saved(tmp_path / "run/sft/checkpoints", jax.tree.map(lambda a: a * 1.5, params)), f"--base={gemma}"]
  assert export.main([*args, f"--out={tmp_path / 'out'}"]) == 0
  assert "step 3" in capsys.readouterr().out and (tmp_path / "out/tokenizer.json").exists()
  hf = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
  for a, b in zip(hf.parameters(), tiny_hf.make("gemma3").parameters(), strict=True):
    assert torch.equal(a, b * 1.5)
  assert export.main([*args, f"--out={tmp_path / 'out'}"]) == 1
  assert "out: is there already" in capsys.readouterr().err
  assert export.main([f"--checkpoint={tmp_path / 'no'}", f"--base={gemma}", f"--out={tmp_path / 'new'}"]) == 1
  assert "no checkpoint in" in capsys.readouterr().err


def test_export_of_a_stage_that_trained_adapters(gemma, tmp_path, capsys):
  """Rank, factor and projections come from the run's config.json, two folders above."""
  model, base = tiny_hf.read(gemma, lora=lora.Lora(2, 3.0, ("q", "down")))
  rng = np.random.default_rng(0)
  adapter = jax.tree.map(lambda a: rng.normal(0, 0.1, a.shape).astype(np.float32), lora.split(model.shapes)[1])
  args = [saved(tmp_path / "run/mt_rl/checkpoints", adapter), f"--base={gemma}", f"--out={tmp_path / 'out'}"]
  config = tmp_path / "run/config.json"
  config.write_text(json.dumps({"model": {"lora": {"rank": 0}}}))
  assert export.main(args) == 1 and "says nothing of model.lora.rank" in capsys.readouterr().err
  config.write_text(json.dumps({"model": {"lora": {"rank": 2, "alpha": 3.0, "targets": ["q", "down"]}}}))
  assert export.main(args) == 0
  got, want = tiny_hf.named(tiny_hf.read(tmp_path / "out")[1]), tiny_hf.named(base)
  low = adapter["blocks"]["lora_down"]
  want["blocks/down"] = want["blocks/down"] + 1.5 * np.einsum("lfr,lrd->lfd", low["a"], low["b"])
  low = adapter["blocks"]["lora_q"]
  want["blocks/q"] = want["blocks/q"] + 1.5 * np.einsum("ldr,lrhe->ldhe", low["a"], low["b"])
  for path in want:
    np.testing.assert_allclose(got[path], want[path], atol=1e-6 if path in ("blocks/q", "blocks/down") else 0)


def test_a_checkpoint_of_another_model(gemma, tmp_path, capsys):
  _, params = tiny_hf.read(gemma)
  params = params | {"final_norm": {"scale": np.zeros(31, np.float32)}}
  args = [saved(tmp_path / "run/sft/checkpoints", params), f"--base={gemma}", f"--out={tmp_path / 'out'}"]
  assert export.main(args) == 1
  assert "final_norm/scale is [31], wanted [32]" in capsys.readouterr().err
