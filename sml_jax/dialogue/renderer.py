"""Text -> tokens and role spans, once and incrementally: `render(h + m)` extends `render(h)`, nothing is re-encoded.

A dialogue is: bos, then for each turn its header, its text and the end-of-turn piece. A student's header is the prompt
it answers to; what it samples after that (end of turn included) is kept as sampled.
"""

from __future__ import annotations

import functools
import hashlib

import sentencepiece
from etils import epath

from sml_jax.dialogue.record import Dialogue, Turn
from sml_jax.errors import UserError

SHIPPED = epath.resource_path("sml_jax") / "dialogue" / "microworld.model"
TEACHER, STUDENT, END = "<teacher>", "<student>", "<end>"


class TokenizerError(UserError):
  """The tokenizer file is missing, unreadable, or lacks a piece that the renderer needs."""


class Renderer:
  """Renders dialogues with a SentencePiece model that has the pieces <teacher>, <student> and <end>.

  Attributes:
    vocab_size: number of pieces.
    stop_ids: ids that end a student turn.
    pad_id: id of padding, never trained and never attended to.
    file: the model file.
    fingerprint: of the file; checkpoints keep it, since ids mean nothing without it.
  """

  def __init__(self, path: str = ""):
    """Raises TokenizerError naming the file."""
    self.file = file = epath.Path(path) if path else SHIPPED
    if not file.exists():
      raise TokenizerError(f"tokenizer {file}: no such file")
    try:
      content = file.read_bytes()
    except OSError as e:
      raise TokenizerError(f"tokenizer {file}: {e.strerror}") from None
    if not content:  # SentencePiece would take it for a model without pieces
      raise TokenizerError(f"tokenizer {file}: the file is empty")
    try:
      self._pieces = sentencepiece.SentencePieceProcessor(model_proto=content)
    except RuntimeError as e:
      raise TokenizerError(f"tokenizer {file}: not a SentencePiece model ({str(e).splitlines()[0]})") from None
    self.fingerprint = hashlib.sha256(content).hexdigest()[:16]
    ids = {}
    for piece in (TEACHER, STUDENT, END):
      ids[piece] = self._pieces.piece_to_id(piece)
      if ids[piece] == self._pieces.unk_id():
        how = "train one with python -m sml_jax.dialogue.tokenizer"
        raise TokenizerError(f"tokenizer {file}: has no piece {piece}; {how}")
    self.vocab_size = self._pieces.vocab_size()
    self.bos = [self._pieces.bos_id()]
    self.pad_id = max(0, self._pieces.pad_id())
    self.stop_ids = (ids[END],)
    self._teacher, self._student, self._end = ids[TEACHER], ids[STUDENT], ids[END]
    self._never_in_text = {*ids.values(), *self.bos, self.pad_id}
    self.encode = functools.lru_cache(maxsize=100_000)(self._encode)

  def _encode(self, text: str) -> tuple[int, ...]:
    """Text -> ids. Role pieces spelled out in the text are encoded as plain characters, so nobody can forge a turn."""
    for piece in (TEACHER, STUDENT, END):
      text = text.replace(piece, piece.replace("<", "< "))
    return tuple(self._pieces.encode(text))

  def teacher_turn(self, text: str) -> Turn:
    return Turn("teacher", text, tokens=[self._teacher, *self.encode(text), self._end])

  def student_prompt(self) -> list[int]:
    return [self._student]

  def student_turn(self, text: str) -> Turn:
    """A student turn that was written and not sampled."""
    return Turn("student", text, tokens=[*self.encode(text), self._end], prompt=self.student_prompt())

  def sampled_turn(self, tokens: list[int], logprobs: list[float]) -> Turn:
    """A student turn as sampled; `cut` if it does not end in a stop id."""
    cut = not tokens or tokens[-1] not in self.stop_ids
    body = tokens if cut else tokens[:-1]
    text = self.decode([t for t in body if t not in self._never_in_text])
    return Turn("student", text, tokens, self.student_prompt(), logprobs, cut=cut)

  def decode(self, tokens: list[int]) -> str:
    return self._pieces.decode(tokens)

  def pieces(self, tokens: list[int]) -> list[str]:
    """Each id as it reads, for display."""
    return [self._pieces.id_to_piece(int(t)).replace("\u2581", " ") for t in tokens]

  def render(self, dialogue: Dialogue) -> list[int]:
    """All tokens of a dialogue, in order."""
    return [*dialogue.bos, *(i for turn in dialogue.turns for i in (*turn.prompt, *turn.tokens))]
