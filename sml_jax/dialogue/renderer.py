"""Text -> tokens and role spans, once and incrementally: `render(h + m)` extends `render(h)`, nothing is re-encoded.

A dialogue is: the ids before it (bos), then for each turn its header, its text and the end of turn. A student's header
is the prompt it answers to; what it samples after that (end of turn included) is kept as sampled.

Where a family thinks before it answers, a turn's text leaves the thinking out, and the policy says what later turns
see of it: everything as it was sampled ("keep"), or nothing ("strip": it is cut out at token boundaries once the turn
has ended; the record keeps it, and says what was cut).
"""

from __future__ import annotations

import functools
import itertools
import re
from typing import Literal

from etils import epath

from sml_jax.dialogue.chat import END, FAMILIES, MICROWORLD, STUDENT, TEACHER, Chat
from sml_jax.dialogue.record import Dialogue, Turn
from sml_jax.dialogue.tokenizer_files import TokenizerError, configured_stop_ids, open_tokenizer
from sml_jax.errors import UserError

__all__ = ["END", "SHIPPED", "STUDENT", "TEACHER", "Renderer", "TokenizerError", "make_renderer"]

SHIPPED = epath.resource_path("sml_jax") / "dialogue" / "microworld.model"
THINKING = ("keep", "strip")

_PIECE = re.compile(r"(<[^<>\s]+>)")


class Renderer:
  """Renders dialogues in one chat format.

  Attributes:
    chat: the format.
    vocab_size: number of ids that the tokenizer can decode, the largest plus one; the model needs as many.
    stop_ids: ids that end a student turn: the format's, and what a checkpoint folder's configuration adds.
    pad_id: id of padding, never trained and never attended to.
    bos: ids before the first turn.
    thinking: the policy, "keep" or "strip".
    enable_thinking: whether the student's header leaves room for thinking.
    special: pieces that text can not become by spelling them (of roles, ends of turn, thinking, control), with ids.
    never_in_text: their ids, and those of bos and stop_ids.
    file: the tokenizer file.
    fingerprint: of the file; checkpoints keep it, since ids mean nothing without it.
  """

  def __init__(
      self, path: epath.PathLike = "", chat: Chat = MICROWORLD, *, thinking: Literal["keep", "strip"] = "keep",
      enable_thinking: bool = False, system: str = "",
  ):
    """Raises TokenizerError naming the file. Arguments as for `make_renderer`."""
    self.chat, self.thinking, self.enable_thinking, self.system = chat, thinking, enable_thinking, system
    self.tokenizer = t = open_tokenizer(path or SHIPPED)
    self.file, self.fingerprint = t.file, t.fingerprint
    written = "".join((chat.teacher, chat.student, chat.end, chat.begin or "", chat.system, chat.thought))
    pieces = {p: self._id(p) for p in _PIECE.findall(written)}
    self.bos = self._markup(chat.begin) if chat.begin is not None else [t.bos_id] * (t.bos_id is not None)
    self._between, self._end = self._markup(chat.between), self._markup(chat.end)
    stops = {p: i for p in chat.stops if (i := t.id_of(p)) is not None}
    self.stop_ids = tuple(dict.fromkeys([*self._end, *stops.values(), *self._configured_stops()]))
    pads = [t.pad_id, *(t.id_of(p) for p in chat.pad)]
    self.pad_id = next((i for i in pads if i is not None), 0)
    unused = {t.id_of(p) for p in chat.unused}
    self.vocab_size = t.vocab_size
    while self.vocab_size - 1 in unused:
      self.vocab_size -= 1
    self._student = [*self._between, *self._markup(chat.student)]
    self._no_thought = [] if enable_thinking else self._markup(chat.thought)
    self._think = tuple(pieces[p] for p in _PIECE.findall(chat.thought))  # () or (<think>, </think>)
    self.special = {**pieces, **stops, **t.special}
    self.never_in_text = {*self.special.values(), *self.bos, *self.stop_ids} - {t.unk_id}
    self._spelled = re.compile("|".join(re.escape(p) for p in sorted(self.special, key=len, reverse=True)))
    self._left_out = {*self.never_in_text, self.pad_id}
    self.encode = functools.lru_cache(maxsize=100_000)(self._encode)

  def _id(self, piece: str) -> int:
    index = self.tokenizer.id_of(piece)
    if index is None:
      how = "train one with python -m sml_jax.dialogue.tokenizer" if self.chat is MICROWORLD else (
          f"the {self.chat.name} format needs it")  # fmt: skip
      raise TokenizerError(f"tokenizer {self.file}: has no piece {piece}; {how}")
    return index

  def _markup(self, text: str) -> list[int]:
    """A format's own text: its pieces are what they spell."""
    parts = _PIECE.split(text)
    return [i for n, p in enumerate(parts) if p for i in ([self._id(p)] if n % 2 else self.tokenizer.encode(p))]

  def _configured_stops(self) -> list[int]:
    if self.chat is MICROWORLD:
      return []
    out = []
    for name, ids in configured_stop_ids(self.file.parent).items():
      if wrong := [i for i in ids if not 0 <= i < self.tokenizer.vocab_size]:
        raise TokenizerError(f"{self.file.parent / name}: eos_token_id {wrong[0]} is none of the "
                             f"{self.tokenizer.vocab_size} ids of {self.file.name}")  # fmt: skip
      out += ids
    return out

  def _encode(self, text: str) -> tuple[int, ...]:
    """Text -> ids. Pieces that are spelled out in it (of roles, control, thinking) are plain text: nobody can forge a
    turn. They are cut behind their first character, and the two halves encoded each by itself."""
    cuts = [0, *(m.start() + 1 for m in self._spelled.finditer(text)), len(text)]
    ids = []
    for start, stop in itertools.pairwise(cuts):
      part = self.tokenizer.encode(text[start:stop])
      # A normaliser, or merges, may make a piece of what was spelled differently.
      if not self.never_in_text.isdisjoint(part):
        part = [i for c in text[start:stop] for i in self.tokenizer.encode(c)]
      ids += part
    return tuple(ids)

  def _trimmed(self, text: str) -> str:
    return text.strip() if self.chat.trim else text

  def _headed(self, header: str, text: str) -> list[int]:
    """A whole turn. Text is encoded together with the last words of its header, as a template would be."""
    pieces, last, words = header.rpartition(">")
    return [*self._markup(pieces + last), *self.encode(words + text), *self._end]

  def first_turn(self, text: str, system: str | None = None) -> Turn:
    """The teacher's first turn, after a system text: that of the renderer, or another."""
    system = self.system if system is None else system
    said, opening = self._trimmed(text), []
    if system and self.chat.system:
      opening = [*self._headed(self.chat.system, system), *self._between]
    elif system:
      said = f"{system}\n\n{said}"
    return Turn("teacher", text, tokens=[*opening, *self._headed(self.chat.teacher, said)])

  def teacher_turn(self, text: str) -> Turn:
    """Any other turn of the teacher."""
    return Turn("teacher", text, tokens=[*self._between, *self._headed(self.chat.teacher, self._trimmed(text))])

  def student_prompt(self) -> list[int]:
    """What a student answers to: its header."""
    return [*self._student, *self._no_thought]

  def student_turn(self, text: str) -> Turn:
    """A student turn that was written and not sampled; <think> and </think> in it are what they spell."""
    said = self._trimmed(text)
    if not self._think:
      return self._by_student(text, [*self.encode(said), *self._end])
    parts = re.split("(<think>|</think>)", said)
    tokens = [i for n, p in enumerate(parts) for i in ([self._id(p)] if n % 2 else self.encode(p))]
    return self._by_student(said.rpartition("</think>")[2].lstrip("\n"), [*tokens, *self._end])

  def sampled_turn(self, tokens: list[int], logprobs: list[float]) -> Turn:
    """A student turn as sampled; `cut` if it does not end in a stop id."""
    cut = not tokens or tokens[-1] not in self.stop_ids
    body = tokens if cut else tokens[:-1]
    text = self.decode([t for t in body[self._thought(body) :] if t not in self._left_out])
    return self._by_student(text, tokens, logprobs=logprobs, cut=cut)

  def _by_student(self, text: str, tokens: list[int], **fields) -> Turn:
    prompt = self.student_prompt()
    body = tokens[:-1] if tokens and tokens[-1] in self.stop_ids else tokens
    span = [len(self._student), len(prompt) + self._thought(body)]
    stripped = span if self.thinking == "strip" and span[0] < span[1] else []
    return Turn("student", text, tokens, prompt, stripped=stripped, **fields)

  def _thought(self, body: list[int]) -> int:
    """How many tokens, from the first, are thinking: up to the last </think> and the line breaks behind it; all of
    them if it was never closed."""
    if not self._think or self._think[1] not in body:
      return len(body) if self._think and self._think[0] in body else 0
    n = len(body) - body[::-1].index(self._think[1])
    while n < len(body) and set(self.tokenizer.piece(body[n])) == {"\n"}:
      n += 1
    return n

  def decode(self, tokens: list[int]) -> str:
    return self.tokenizer.decode(tokens)

  def pieces(self, tokens: list[int]) -> list[str]:
    """Each id as it reads, for display."""
    return [self.tokenizer.piece(int(t)) for t in tokens]

  def render(self, dialogue: Dialogue) -> list[int]:
    """A dialogue up to its last turn, as the model sees it: earlier turns are what the thinking policy left of them."""
    if not dialogue.turns:
      return list(dialogue.bos)
    *earlier, last = dialogue.turns
    return [*dialogue.bos, *(i for turn in earlier for i in turn.context), *last.prompt, *last.tokens]


def make_renderer(
    tokenizer: str, family: str = "", *, thinking: str = "keep", enable_thinking: bool = False, system: str = ""
) -> Renderer:
  """The renderer of a run.

  Args:
    tokenizer: a SentencePiece `.model`, a `tokenizer.json`, or a folder with one of them; "" = the shipped one.
    family: the chat format, one of `chat.FAMILIES`; "" = that of the micro-world, with <teacher>, <student> and <end>.
    thinking: what later turns see of a turn's thinking: "keep" or "strip".
    enable_thinking: False writes an empty block of thinking into the student's header, where the family thinks.
    system: a text before the first turn of every dialogue.

  Raises:
    UserError: an unknown family, or a thinking policy for one that does not think.
    TokenizerError: files or pieces are missing.
  """
  if family and family not in FAMILIES:
    raise UserError(f"unknown chat format {family!r}: one of {', '.join(FAMILIES)}")
  if family and not tokenizer:
    raise UserError(f"the chat format {family} needs the family's tokenizer: a folder or file")
  if thinking not in THINKING:
    raise UserError(f"thinking is {thinking!r}: one of {', '.join(THINKING)}")
  chat = FAMILIES[family] if family else MICROWORLD
  if not chat.thought and (thinking == "strip" or enable_thinking):
    what = 'thinking="strip"' if thinking == "strip" else "enable_thinking"
    raise UserError(f"{what}: the chat format {chat.name} has no thinking")
  return Renderer(tokenizer, chat, thinking=thinking, enable_thinking=enable_thinking, system=system)
