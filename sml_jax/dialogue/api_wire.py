"""The OpenAI chat protocol: requests and replies as values, and as the JSON that travels. Knows no network."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Message = tuple[Literal["system", "user", "assistant"], str]
"""Who speaks, and what is said."""


@dataclasses.dataclass(frozen=True)
class Request:
  """One reply that is wanted.

  Attributes:
    messages: what was said so far.
    max_tokens: most tokens of the reply, thinking included.
    temperature: of sampling.
    seed: sent to the server, which may or may not heed it.
    salt: not sent, but part of the cache's key: independent samples of equal messages differ in it.
  """

  messages: Sequence[Message]
  max_tokens: int
  temperature: float
  seed: int
  salt: str = ""


@dataclasses.dataclass(frozen=True)
class Completion:
  """A reply.

  Attributes:
    text: what was said; "" where the server sent none, as when thinking took all the tokens.
    finish_reason: the server's: "stop", "length" (cut at max_tokens) or another.
    prompt_tokens, completion_tokens: as the server counted; 0 where it did not.
    cached: taken from the cache; nothing was asked of the server.
    reasoning: what the model thought, where the server tells it apart from the text.
  """

  text: str
  finish_reason: str
  prompt_tokens: int = 0
  completion_tokens: int = 0
  cached: bool = False
  reasoning: str = ""


@dataclasses.dataclass(frozen=True)
class Failed:
  """No reply to this request; the reason is one line. Others are not concerned."""

  reason: str


def body_of(model: str, request: Request, extra: Mapping[str, Any]) -> dict[str, Any]:
  """The JSON object that is sent. `extra` wins over the request; a None in it leaves the field out."""
  body = {
      "model": model,
      "messages": [{"role": role, "content": text} for role, text in request.messages],
      "max_tokens": int(request.max_tokens),
      "temperature": float(request.temperature),
      "seed": int(request.seed),
  }
  if "max_completion_tokens" in extra:
    del body["max_tokens"]
  return {k: v for k, v in (body | extra).items() if v is not None}


def parse_reply(content: bytes) -> Completion | Failed:
  """What a successful response says.

  Raises:
    ValueError: it is no reply at all; a few words that say what is wrong with it.
  """
  fields = _json(content)
  choices = fields.get("choices") if isinstance(fields, dict) else None
  if not isinstance(choices, list):
    raise ValueError("not JSON" if fields is None else "JSON without choices")
  if not choices:
    return Failed("the reply has no choices, as after a content filter")
  first = _checked(choices[0], dict, "choices[0]")
  message = _checked(first.get("message"), dict, "message")
  # Half a character, as a cut token leaves it, would break whoever encodes the text.
  string = lambda name: _checked(message.get(name) or "", str, name).encode(errors="replace").decode()
  finish = _checked(first.get("finish_reason") or "", str, "finish_reason")
  if finish == "content_filter":
    return Failed("the server's content filter stopped the reply")
  usage = _checked(fields.get("usage") or {}, dict, "usage")
  prompt, completion = (
      _checked(usage.get(name) or 0, int, name) for name in ("prompt_tokens", "completion_tokens")
  )
  text, reasoning = string("content"), string("reasoning_content") or string("reasoning")
  return Completion(text, finish, prompt, completion, reasoning=reasoning)


def server_message(content: bytes, secret: str = "", most: int = 200) -> str:
  """What a server says went wrong, in one line of at most `most` characters, without the secret."""
  fields = _json(content)
  said = fields
  for name in ("error", "message", "detail"):
    said = said[name] if isinstance(said, dict) and said.get(name) else said
  if fields is None:
    said = content[:100_000].decode(errors="replace")
  elif not isinstance(said, str):
    said = json.dumps(said)
  said = said.replace(secret, "***") if secret else said
  line = " ".join("".join(c if c.isprintable() else " " for c in said).split())
  return line if len(line) <= most else line[: most - 3] + "..."


def error_code(content: bytes) -> str:
  """The `code` of an error object, such as "insufficient_quota"; "" without one."""
  fields = _json(content)
  error = fields.get("error") if isinstance(fields, dict) else None
  return str(error.get("code") or "") if isinstance(error, dict) else ""


def _json(content: bytes) -> Any:
  """None if it is no JSON."""
  try:
    return json.loads(content)
  except (ValueError, RecursionError):
    return None


def _checked(value: Any, kind: type, name: str) -> Any:
  if type(value) is not kind:
    raise ValueError(f"JSON with a {name} that is {type(value).__name__}, not {kind.__name__}")
  return value
