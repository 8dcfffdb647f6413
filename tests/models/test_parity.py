"""The same logits as transformers' for tiny random models of every family, in every way of running ours."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_hf
import torch

from sml_jax.models.transformer import Model

T = 30
"""Tokens of a row: the window is 8."""
ATOL = 1e-4


@pytest.fixture(autouse=True)
def precise():
  with jax.default_matmul_precision("highest"):
    yield


def make(name, folder):
  """(transformers' model, our model, its params)."""
  hf = tiny_hf.make(name)
  hf.save_pretrained(folder)
  return hf, *tiny_hf.read(folder)


@pytest.fixture(scope="module", params=["gemma3", "qwen3_untied", "llama3"])
def pair(request, tmp_path_factory):
  return make(request.param, tmp_path_factory.mktemp(request.param))


@functools.partial(jax.jit, static_argnums=0)
def forward(model, params, tokens, positions, segments):
  return model.logits(params, model.forward(params, tokens, positions, segments))


@functools.partial(jax.jit, static_argnums=0)
def extend(model, params, cache, tokens, lengths):
  hidden, cache = model.extend(params, cache, tokens, lengths)
  return model.logits(params, hidden), cache


def ours(model, params, tokens, mask) -> np.ndarray:
  """Rows of one segment each; mask 0 = padding."""
  positions = np.maximum(np.cumsum(mask, 1) - 1, 0)
  return np.asarray(forward(model, params, *map(jnp.asarray, (tokens, positions, mask))))


@pytest.mark.parametrize("scanned", [False, True])
def test_prefill(pair, scanned):
  hf, model, params = pair
  model = dataclasses.replace(model, config=dataclasses.replace(model.config, scan_layers=scanned))
  tokens = tiny_hf.draw_tokens(2, T)
  want = tiny_hf.logits(hf, tokens)
  assert np.std(want) > 0.3
  np.testing.assert_allclose(ours(model, params, tokens, np.ones_like(tokens)), want, atol=ATOL)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows(pair, side):
  hf, model, params = pair
  tokens, mask = tiny_hf.draw_tokens(2, T), np.ones((2, T), int)
  mask[0, slice(0, 11) if side == "left" else slice(-11, None)] = 0
  got, want = ours(model, params, tokens, mask), tiny_hf.logits(hf, tokens, mask)
  np.testing.assert_allclose(got[mask > 0], want[mask > 0], atol=ATOL)


def test_packed_rows(pair):
  hf, model, params = pair
  tokens, lengths = tiny_hf.draw_tokens(2, T), [(13, 3, 12), (1, 20, 9)]
  segments = np.stack([np.pad(np.repeat([1, 2, 3], n), (0, T - sum(n))) for n in lengths])
  positions = np.stack([np.pad(np.concatenate([np.arange(k) for k in n]), (0, T - sum(n))) for n in lengths])
  got = np.asarray(forward(model, params, *map(jnp.asarray, (tokens, positions, segments))))
  for row in range(2):
    for segment in (1, 2, 3):
      at = segments[row] == segment
      np.testing.assert_allclose(got[row, at], tiny_hf.logits(hf, tokens[row : row + 1, at])[0], atol=ATOL)


def test_decoding_through_the_cache_in_chunks_and_one_token_at_a_time(pair):
  """Row 1 takes but 2 tokens of the first chunk of 5, so that each row is at its own length from then on."""
  hf, model, params = pair
  tokens, params = tiny_hf.draw_tokens(2, T), model.unstacked(params)
  want, got = tiny_hf.logits(hf, tokens), np.full((2, T, tiny_hf.VOCAB), np.nan)
  cache, lengths = model.init_cache(2, (8, 8, T - 16)), np.zeros(2, int)
  for size, takes in [(5, (5, 2)), (5, (5, 5)), *[(1, (1, 1))] * 10, (5, (5, 5)), (5, (5, 5))]:
    chunk = np.stack([np.resize(tokens[b, n : n + size], size) for b, n in enumerate(lengths)])
    logits, cache = extend(model, params, cache, jnp.asarray(chunk), jnp.asarray(lengths))
    for b, n in enumerate(takes):
      got[b, lengths[b] : lengths[b] + n] = logits[b, :n]
    lengths = lengths + takes
  assert lengths.tolist() == [30, 27]
  np.testing.assert_allclose(got[0], want[0], atol=ATOL)
  np.testing.assert_allclose(got[1, :27], want[1, :27], atol=ATOL)


def test_transformers_decodes_as_it_prefills(pair):
  """So that the test above compares with transformers' decoding as well."""
  hf, tokens, cache = pair[0], tiny_hf.draw_tokens(1, T), None
  want = tiny_hf.logits(hf, tokens)
  for t in range(T):
    with torch.no_grad():
      out = hf(torch.tensor(tokens[:, t : t + 1]), past_key_values=cache, use_cache=True)
    cache = out.past_key_values
    np.testing.assert_allclose(out.logits[:, 0].numpy(), want[:, t], atol=ATOL)


@pytest.mark.parametrize("name", ["gemma3_multimodal", "qwen3_tied"])
def test_the_other_forms_of_the_families(tmp_path, name):
  hf, model, params = make(name, tmp_path)
  tokens = tiny_hf.draw_tokens(2, T)
  got, want = ours(model, params, tokens, np.ones_like(tokens)), tiny_hf.logits(hf, tokens)
  np.testing.assert_allclose(got, want, atol=ATOL)


def test_an_id_beyond_the_tokenizer_is_never_sampled_and_the_others_keep_their_logits(tmp_path):
  hf, model, params = make("llama3", tmp_path)
  model = Model(dataclasses.replace(model.config, usable_vocab=80))
  tokens = tiny_hf.draw_tokens(2, T)
  got, want = ours(model, params, tokens, np.ones_like(tokens)), tiny_hf.logits(hf, tokens)
  np.testing.assert_allclose(got[..., :80], want[..., :80], atol=ATOL)
  assert (got[..., 80:] < -1e29).all()
