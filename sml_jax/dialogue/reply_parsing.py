"""A model's reply, where its prompt asked for a form: tags, or a JSON object; None = it has not that form."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any, get_args

from sml_jax.dialogue.record import Kind

KINDS: tuple[Kind, ...] = get_args(Kind)
_THOUGHT = re.compile(r"<think>.*?</think>", re.S)


def visible(text: str) -> str | None:
  """The text without its thinking; None if the thinking has no end."""
  rest = _THOUGHT.sub("", text)
  rest = rest.rpartition("</think>")[2]  # of thinking whose beginning was part of the prompt
  return None if "<think>" in rest or _torn(rest, "<think>") else rest.strip()


def feedback_of(text: str) -> str | None:
  """What the student is to read of a teacher's reply: the last whole <feedback>, or all that is visible without a tag.

  None if it is empty or was cut off: thinking or feedback that has no end.
  """
  seen = visible(text)
  if seen is None:
    return None
  inside = _last_span(seen, "feedback")
  if inside is None and not _mentions(seen, "feedback"):
    return seen or None
  return inside or None


def question_of(text: str) -> str | None:
  """The last whole <question> of a reply. Without the tags it is None: it would go into training data."""
  seen = visible(text)
  return (_last_span(seen, "question") or None) if seen else None


def user_reply_of(text: str, ids: Collection[int]) -> tuple[str, int] | None:
  """(what the simulated user says, the shard it tells or -1), from JSON {"response", "shard_id"}.

  Args:
    text: of the reply; the object may be fenced, or stand between other words. The last one that fits counts.
    ids: of the shards that are still hidden: another id is no reply.
  """
  for fields in reversed(list(_objects(text))):
    said, shard = fields.get("response"), fields.get("shard_id")
    if isinstance(shard, str) and re.fullmatch(r"-?\d{1,9}", shard):
      shard = int(shard)
    if isinstance(said, str) and said.strip() and type(shard) is int:
      return (said.strip(), shard) if shard == -1 or shard in ids else None
  return None


def kind_of(text: str) -> Kind | None:
  """The kind of turn that a judge names, from JSON {"kind"} or as the only word."""
  named = [fields["kind"] for fields in _objects(text) if isinstance(fields.get("kind"), str)]
  word = named[-1] if named else (visible(text) or "").strip("`'\"*. \n")
  word = word.strip().lower()
  return word if word in KINDS else None


def _last_span(text: str, tag: str) -> str | None:
  """What stands between the last whole pair of tags."""
  spans = re.findall(rf"<{tag}>((?:(?!<{tag}>).)*?)</{tag}>", text, re.S | re.I)
  return spans[-1].strip() if spans else None


def _mentions(text: str, tag: str) -> bool:
  return re.search(rf"</?{tag}>", text, re.I) is not None or _torn(text, f"<{tag}>") or _torn(text, f"</{tag}>")


def _torn(text: str, tag: str) -> bool:
  """Whether the text ends within the tag."""
  return any(text.lower().endswith(tag[:n]) for n in range(2, len(tag)))


def _objects(text: str) -> Iterator[dict[str, Any]]:
  """The outermost JSON objects in what is visible, in order."""
  rest, decoder = visible(text) or "", json.JSONDecoder(strict=False)  # models write line breaks into strings
  at = rest.find("{")
  while at >= 0:
    try:
      value, end = decoder.raw_decode(rest, at)
      yield value
    except (ValueError, RecursionError):
      end = at + 1
    at = rest.find("{", end)
