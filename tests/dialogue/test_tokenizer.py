"""The command that trains a tokenizer: the shipped file comes out of it, byte for byte."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from sml_jax.dialogue import tokenizer
from sml_jax.dialogue.renderer import END, SHIPPED, STUDENT, TEACHER, Renderer

ROOT = pathlib.Path(tokenizer.__file__).parents[2]


def command(*arguments: str) -> subprocess.CompletedProcess:
  run = [sys.executable, "-m", "sml_jax.dialogue.tokenizer", *arguments]
  return subprocess.run(run, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True)


def test_the_command_makes_the_shipped_file(tmp_path):
  out = tmp_path / "again.model"
  done = command(f"--out={out}")
  assert done.returncode == 0, done.stderr
  made, shipped = Renderer(str(out)), Renderer()
  pieces = [r.pieces(list(range(r.vocab_size))) for r in (made, shipped)]
  assert set(pieces[0]) == set(pieces[1])
  assert out.read_bytes() == SHIPPED.read_bytes()


def test_the_command_trains_on_a_text_of_one_s_own(tmp_path):
  text, out = tmp_path / "corpus.txt", tmp_path / "own.model"
  text.write_text("\n".join(f"the quick brown fox jumps over {n} lazy dogs" for n in range(200)))
  done = command(f"--out={out}", f"--text={text}", "--pieces=150")
  assert done.returncode == 0 and "150 pieces from 200 sentences" in done.stdout, done.stderr
  made = Renderer(str(out))
  assert made.vocab_size == 150
  sentence = "the quick brown fox jumps over 7 lazy dogs"
  assert made.decode(list(made.encode(sentence))) == sentence and len(made.encode(sentence)) < len(sentence) / 2


def test_a_tokenizer_needs_a_place_to_go():
  done = command()
  assert done.returncode != 0 and "--out" in done.stderr + done.stdout


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Renderer:
  path = tmp_path_factory.mktemp("tokenizer") / "toy.model"
  path.write_bytes(tokenizer.train(["seven pens and seven hats"] * 20, 140, ["\u2581seven", "\u258112"]))
  return Renderer(str(path))


def test_ids_of_special_pieces(model):
  names = [model.tokenizer._pieces.id_to_piece(i) for i in range(6)]
  assert names[:3] == ["<pad>", "<unk>", "<s>"] and set(names[3:]) == {TEACHER, STUDENT, END}
  assert model.pad_id == 0 and model.bos == [2]


def test_whole_words_are_never_split(model):
  assert " seven" in model.pieces(list(model.encode("seven pens")))
  assert " 12" in model.pieces(list(model.encode("give 12 pens")))


def test_every_printable_character_has_a_piece(model):
  text = "".join(chr(c) for c in range(33, 127))
  assert model.tokenizer._pieces.unk_id() not in model.encode(text)


def test_microworld_words_are_pieces_of_the_shipped_file():
  shipped = Renderer()
  assert all(shipped.tokenizer.id_of(w) is not None for w in tokenizer.microworld_words())
