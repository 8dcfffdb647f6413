"""Trains a SentencePiece model with the renderer's role and end-of-turn pieces; numbers are single pieces.

  python -m sml_jax.dialogue.tokenizer --out=my.model                     # on micro-world text, as the shipped one
  python -m sml_jax.dialogue.tokenizer --out=my.model --text=corpus.txt --pieces=2000
"""

from __future__ import annotations

import io
import string

import sentencepiece
from absl import app, flags
from etils import epath

from sml_jax.dialogue.renderer import END, STUDENT, TEACHER
from sml_jax.tasks.microworld import LARGEST, LETTERS, NAMES, NOUNS, USUAL

_OUT = flags.DEFINE_string("out", None, "File to write.", required=True)
_TEXT = flags.DEFINE_string("text", "", "Text file to train on, one sentence a line; empty = micro-world text.")
_PIECES = flags.DEFINE_integer("pieces", 384, "Number of pieces.", lower_bound=150)


def train(sentences: list[str], pieces: int, whole: list[str] = ()) -> bytes:
  """A BPE model of `pieces` pieces; `whole` words are never split or merged. Returns the .model file's content."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(sentences),
      model_writer=model,
      vocab_size=pieces,
      model_type="bpe",
      pad_id=0,
      unk_id=1,
      bos_id=2,
      eos_id=-1,
      control_symbols=[TEACHER, STUDENT, END],
      user_defined_symbols=list(whole),
      required_chars="".join(c for c in string.printable if c.isprintable() and c != " "),
      normalization_rule_name="identity",
      split_by_unicode_script=False,
      split_by_whitespace=False,  # common phrases become one piece: shorter dialogues for a small student
      max_sentencepiece_length=24,
      hard_vocab_limit=False,
      num_threads=1,
      minloglevel=2,
  )
  return model.getvalue()


def microworld_sentences(dialogues: int = 6000) -> list[str]:
  """What is said in the base student's reading matter, each sentence on its own."""
  from sml_jax.dialogue.authors import Mixture, author_dialogue
  from sml_jax.tasks.microworld import World

  class Unrendered:
    """Keeps text only: there is no tokenizer yet."""

    bos = ()

    def teacher_turn(self, text):
      from sml_jax.dialogue.record import Turn
      return Turn("teacher", text)

    first_turn = teacher_turn

    def student_turn(self, text):
      from sml_jax.dialogue.record import Turn
      return Turn("student", text)

  said = (author_dialogue(World(), Mixture(), Unrendered(), i, seed=99).turns for i in range(dialogues))
  return [t.text for turns in said for t in turns if t.text]


def microworld_words() -> list[str]:
  """Pieces that must stay whole: the numbers, and the words that fill a slot."""
  nouns = [n for part in NOUNS.values() for n in part]
  code = ["factor", "constant", "limit"]
  # Held-out templates put these in new places.
  joints = ["the", "Now", "gets", "finds", "buys", "loses", "sells", "gives"]
  words = [*map(str, range(LARGEST + 1)), *NAMES, *nouns, *code, *joints, *LETTERS, *USUAL]
  return ["\u2581" + w.replace(" ", "\u2581") for w in words]


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}")
  if _TEXT.value:
    sentences, whole = epath.Path(_TEXT.value).read_text().splitlines(), []
  else:
    sentences, whole = microworld_sentences(), microworld_words()
  epath.Path(_OUT.value).write_bytes(train(sentences, _PIECES.value, whole))
  print(f"{_OUT.value}: {_PIECES.value} pieces from {len(sentences)} sentences")


if __name__ == "__main__":
  app.run(main)
