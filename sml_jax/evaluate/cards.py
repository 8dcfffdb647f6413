"""A dialogue as HTML to read: bubbles, trained tokens marked, verdicts and the end reason. All text is escaped."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from html import escape

import numpy as np

from sml_jax.data.rows import TokenRow, token_row
from sml_jax.dialogue.record import Dialogue, Turn

Pieces = Callable[[list[int]], list[str]]
"""Token ids -> one piece of text each, as SentencePiece spells them ("▁" for a space)."""

_SPECIAL = re.compile(r"<[^<>\s]+>")
_BYTES = re.compile(r"(?:<0x[0-9A-Fa-f]{2}>)+")

VERDICTS = {"solved": "good", "wrong": "bad", "no_attempt": "quiet", "verifier_failed": "warn"}
KINDS = {"answer_attempt": "attempt"}


def turn_weights(dialogue: Dialogue, row: TokenRow) -> list[np.ndarray]:
  """The loss weights of each turn's own tokens: one array a turn (a student's header is left out)."""
  out, at = [], len(dialogue.bos)
  for turn in dialogue.turns:
    at += len(turn.prompt)
    out.append(row["weights"][at : at + len(turn.tokens)])
    at += len(turn.tokens)
  return out


def runs(pieces: list[str], weights: np.ndarray) -> list[tuple[str, bool, bool]]:
  """Neighbouring pieces joined to (text, trained, special): special are pieces such as an end of turn."""
  special_pieces = [bool(_SPECIAL.fullmatch(p)) and not _BYTES.fullmatch(p) for p in pieces]
  kinds = [(bool(w > 0), s) for w, s in zip(weights, special_pieces, strict=True)]
  out = []
  for (trained, special), group in itertools.groupby(zip(kinds, pieces, strict=True), key=lambda x: x[0]):
    out.append((_spell("".join(p for _, p in group)), trained, special))
  return out


def dialogue_card(
    arm: str, dialogue: Dialogue, tokens_to_pieces: Pieces, *, row: TokenRow | None = None, open_: bool = False
) -> str:
  """One collapsible card. `row` is what the trainer would eat; by default the usual token row."""
  weights = turn_weights(dialogue, token_row(dialogue) if row is None else row)
  turns = "".join(_turn(t, w, tokens_to_pieces) for t, w in zip(dialogue.turns, weights, strict=True))
  outcome = "solved" if dialogue.end == "solved" else "failed" if dialogue.valid else "invalid"
  end = f"solved at turn {dialogue.solved_at}" if dialogue.end == "solved" else words(dialogue.end or "not over")
  colour = {"solved": "good", "failed": "bad", "invalid": "warn"}[outcome]
  first = dialogue.turns[0].text if dialogue.turns else ""
  problem = first if len(first) <= 110 else first[:109].rstrip() + "…"
  meta = f"{escape(dialogue.domain)} · teacher: {escape(words(dialogue.feedback))} · {escape(dialogue.task_id)}"
  reward = "" if dialogue.reward is None else f" · reward {dialogue.reward:.3g}"
  return (
      f'<details class="card" data-arm="{escape(arm)}" data-outcome="{outcome}" data-domain="{escape(dialogue.domain)}"'
      f"{' open' if open_ else ''}><summary>{chip(escape(end), colour)}<b>{escape(arm)}</b> "
      f'<span class="problem">{escape(problem)}</span></summary>'
      f'<div class="talk">{turns}</div><p class="meta">{meta}{reward} · ended: {escape(end)}</p></details>'
  )


def words(name: str) -> str:
  """turn_limit -> turn limit."""
  return name.replace("_", " ")


def _turn(turn: Turn, weights: np.ndarray, tokens_to_pieces: Pieces) -> str:
  if turn.tokens and (turn.role == "student" or np.any(weights > 0)):
    parts = runs(tokens_to_pieces(turn.tokens), weights)
    body = "".join(_run(text.lstrip(" ") if i == 0 else text, t, s) for i, (text, t, s) in enumerate(parts))
  else:
    body = escape(turn.text) or '<i class="quiet">says nothing</i>'
  chips = ""
  if turn.role == "student":
    if turn.kind:
      chips += chip(escape(words(KINDS.get(turn.kind, turn.kind))), "quiet")
    if turn.verdict and turn.verdict != "no_attempt":
      chips += chip(escape(words(turn.verdict)), VERDICTS[turn.verdict])
    if turn.hidden:
      chips += chip(f"{turn.hidden} shard{'s' if turn.hidden > 1 else ''} hidden", "quiet")
    if turn.reason and turn.verdict != "solved":
      chips += chip(escape(words(turn.reason)), "quiet")
    if turn.cut:
      chips += chip("cut at the token limit", "warn")
    if turn.injected:
      chips += chip("injected question", "warn")
    if turn.answer_nll is not None:
      chips += (
          f'<span class="nll" title="nats of the right answer in this place">answer NLL {turn.answer_nll:.2f}</span>'
      )
  if turn.leak:
    chips += chip(f"leak: {escape(words(turn.leak))}", "bad")
  if turn.stopped:
    chips += chip(f"{turn.stopped} leaking repl{'ies' if turn.stopped > 1 else 'y'} not shown", "warn")
  if turn.shard > 0:
    chips += chip(f"shard {turn.shard}", "quiet")
  who = f'<span class="who">{turn.role}</span>'
  return f'<div class="turn {turn.role}">{who}<div class="bubble">{body}</div><span>{chips}</span></div>'


def _run(text: str, trained: bool, special: bool) -> str:
  body = f'<span class="sp">{escape(text)}</span>' if special else escape(text)
  return f"<mark>{body}</mark>" if trained else body


def chip(text: str, kind: str) -> str:
  """A small label; `text` is HTML."""
  return f'<span class="chip {kind}">{text}</span>'


def _spell(text: str) -> str:
  """SentencePiece's spelling -> plain text; runs of byte pieces become the characters they spell."""
  text = _BYTES.sub(lambda m: bytes(int(h, 16) for h in re.findall(r"<0x(..)>", m[0])).decode("utf-8", "replace"), text)
  return text.replace("▁", " ")
