"""Tokenizer files, behind one small interface: a SentencePiece `.model`, or the `tokenizer.json` of Hugging Face."""

from __future__ import annotations

import codecs
import hashlib
import json

import sentencepiece
from etils import epath

from sml_jax.errors import UserError

NAMES = ("tokenizer.model", "tokenizer.json")
"""Looked for in a folder, in this order."""


class TokenizerError(UserError):
  """The tokenizer file is missing, unreadable, or lacks a piece that the renderer needs."""


class SentencePieceFile:
  """Ids and pieces of a SentencePiece model.

  Attributes:
    file, fingerprint: of the file; ids mean nothing without it.
    vocab_size: number of ids, the largest plus one.
    bos_id, pad_id: None where the file has none.
    unk_id: what characters become that no piece covers; None where that can not be.
    special: pieces that text must not become, with their ids, as far as the file says; control pieces never do anyway.
  """

  def __init__(self, file: epath.Path, content: bytes):
    self.file, self.fingerprint = file, _fingerprint(content)
    try:
      self._pieces = sentencepiece.SentencePieceProcessor(model_proto=content)
    except RuntimeError as e:
      raise TokenizerError(f"tokenizer {file}: not a SentencePiece model ({str(e).splitlines()[0]})") from None
    self.vocab_size = self._pieces.vocab_size()
    self.bos_id, self.pad_id = (i if i >= 0 else None for i in (self._pieces.bos_id(), self._pieces.pad_id()))
    self.unk_id, self.special = self._pieces.unk_id(), {}

  def encode(self, text: str) -> list[int]:
    """Text -> ids; pieces that are spelled out in it may become what they spell."""
    return self._pieces.encode(text)

  def decode(self, tokens: list[int]) -> str:
    return self._pieces.decode(tokens)

  def id_of(self, piece: str) -> int | None:
    index = self._pieces.piece_to_id(piece)
    return None if index == self.unk_id else index

  def piece(self, token: int) -> str:
    """One id as it reads; a byte that is no character by itself is spelled <0xE2>."""
    return self._pieces.id_to_piece(token).replace("\u2581", " ")


class JsonFile:
  """The same for a `tokenizer.json`; ids of added tokens are counted."""

  def __init__(self, file: epath.Path, content: bytes):
    try:
      from tokenizers import Tokenizer
    except ImportError:
      raise TokenizerError(f"tokenizer {file}: needs the package tokenizers: pip install tokenizers") from None
    self.file, self.fingerprint = file, _fingerprint(content)
    try:
      self._pieces = Tokenizer.from_buffer(content)
      fields = json.loads(content)
    except Exception as e:  # the library raises bare exceptions
      raise TokenizerError(f"tokenizer {file}: not a tokenizer.json ({str(e).splitlines()[0]})") from None
    self._pieces.no_truncation()
    self._pieces.no_padding()
    self.vocab_size = max(self._pieces.get_vocab(with_added_tokens=True).values()) + 1
    self._added = {i: t.content for i, t in self._pieces.get_added_tokens_decoder().items()}
    self.special = {t.content: i for i, t in self._pieces.get_added_tokens_decoder().items() if t.special}
    self.bos_id = self.pad_id = None
    unknown = fields["model"].get("unk_token")
    self.unk_id = None if unknown is None else self.id_of(unknown)
    self._bytes = _byte_alphabet() if '"ByteLevel"' in json.dumps(fields["decoder"]) else {}

  def encode(self, text: str) -> list[int]:
    return self._pieces.encode(text, add_special_tokens=False).ids

  def decode(self, tokens: list[int]) -> str:
    return self._pieces.decode(tokens, skip_special_tokens=False)

  def id_of(self, piece: str) -> int | None:
    return self._pieces.token_to_id(piece)

  def piece(self, token: int) -> str:
    text = self._added.get(token, self._pieces.id_to_token(token)) or ""
    if token in self._added or not all(c in self._bytes for c in text):
      return text.replace("\u2581", " ")
    return bytes(self._bytes[c] for c in text).decode("utf-8", "spell_bytes")


def open_tokenizer(path: epath.PathLike) -> SentencePieceFile | JsonFile:
  """Opens a file, or the tokenizer of a folder.

  Raises:
    TokenizerError: naming the file, or what was looked for.
  """
  file = epath.Path(path)
  if not file.exists():
    raise TokenizerError(f"tokenizer {file}: no such file or folder")
  if file.is_dir():
    found = [file / name for name in NAMES if (file / name).exists()]
    if not found:
      raise TokenizerError(f"tokenizer {file}: the folder has neither {' nor '.join(NAMES)}")
    file = found[0]
  try:
    content = file.read_bytes()
  except OSError as e:
    raise TokenizerError(f"tokenizer {file}: {e.strerror}") from None
  if not content:  # SentencePiece would take it for a model without pieces
    raise TokenizerError(f"tokenizer {file}: the file is empty")
  return (JsonFile if file.suffix == ".json" else SentencePieceFile)(file, content)


def configured_stop_ids(folder: epath.Path) -> dict[str, list[int]]:
  """What generation_config.json and config.json of a checkpoint folder, where present, give as eos_token_id.

  Raises:
    TokenizerError: one of them is not JSON, or its eos_token_id is neither an id nor a list of ids.
  """
  out = {}
  for name in ("generation_config.json", "config.json"):
    if not (folder / name).exists():
      continue
    fields = read_json(folder / name)
    ids = fields.get("eos_token_id", (fields.get("text_config") or {}).get("eos_token_id"))
    ids = [] if ids is None else ids if isinstance(ids, list) else [ids]
    if not all(type(i) is int for i in ids):
      raise TokenizerError(f"{folder / name}: eos_token_id is {json.dumps(ids)}, which are not token ids")
    out[name] = ids
  return out


def read_json(file: epath.Path) -> dict:
  """Raises TokenizerError if it is not a JSON object."""
  try:
    fields = json.loads(file.read_text())
  except ValueError as e:
    raise TokenizerError(f"{file}: not JSON ({e})") from None
  if not isinstance(fields, dict):
    raise TokenizerError(f"{file}: not a JSON object")
  return fields


def _fingerprint(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()[:16]


def _byte_alphabet() -> dict[str, int]:
  """The characters that byte-level BPE writes for bytes: printable ones for themselves, the rest from U+0100."""
  printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
  rest = [b for b in range(256) if b not in printable]
  return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(rest)}


def _spell_bytes(error: UnicodeDecodeError) -> tuple[str, int]:
  return "".join(f"<0x{b:02X}>" for b in error.object[error.start : error.end]), error.end


codecs.register_error("spell_bytes", _spell_bytes)
