"""Which server and model are asked, and how; checked before anything is sent."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from sml_jax.dialogue.api_wire import Message, Request
from sml_jax.errors import UserError

OURS = ("messages", "model", "n", "stream")
"""Body fields that a setting must not change: one whole reply to the messages is what is read."""


@dataclasses.dataclass(frozen=True)
class ApiSettings:
  """Which server and model, and how they are asked.

  Attributes:
    url: such as http://127.0.0.1:8000/v1.
    model: as the server names it.
    key_env: name of the environment variable that holds the key; "" = no key. The key itself is nowhere else.
    timeout_s: most seconds of a try, from connecting to the reply's last byte.
    retries: most further tries of a request that fails in a way that may pass.
    concurrency: most requests at once.
    cache_dir: folder of replies to keep; "" = none are kept.
    max_tokens, temperature: of the requests that `request` makes.
    extra: more fields of the body, such as {"reasoning_effort": "low"}; None leaves a field out.
    price_in, price_out: of a million prompt and completion tokens, in any currency; 0 = unknown.
  """

  url: str
  model: str
  key_env: str = ""
  timeout_s: float = 300.0
  retries: int = 6
  concurrency: int = 16
  cache_dir: str = ""
  max_tokens: int = 1024
  temperature: float = 1.0
  extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  price_in: float = 0.0
  price_out: float = 0.0

  def request(self, messages: Sequence[Message], seed: int, salt: str = "") -> Request:
    return Request(messages, self.max_tokens, self.temperature, seed, salt)


def base_url(url: str) -> str:
  """`http://host:port`, with or without `/v1` or a slash at the end -> what the paths of the protocol are put behind.

  Raises:
    UserError: it has no scheme or host, or carries a password or a query.
  """
  try:
    parts = urlsplit(url)
    host, _ = parts.hostname, parts.port
  except ValueError:
    parts, host = urlsplit(""), None
  if parts.scheme not in ("http", "https") or not host or any(c.isspace() for c in url):
    raise UserError(f"api url: expected http://HOST:PORT/v1 or https://HOST/v1, got {url!r}")
  if parts.username is not None or parts.query or parts.fragment:
    raise UserError(f"api url of {host}: expected no user, password or query in it; a key is named by key_env")
  path = parts.path.rstrip("/").removesuffix("/chat/completions")
  return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


def checked_extra(settings: ApiSettings) -> dict[str, Any]:
  """The extra fields as plain JSON. Raises UserError naming a setting that makes no sense."""
  rules = {
      "timeout_s": ("more than 0", settings.timeout_s > 0),
      "retries": ("0 or more", settings.retries >= 0),
      "concurrency": ("1 or more", settings.concurrency >= 1),
      "max_tokens": ("1 or more", settings.max_tokens >= 1),
      "temperature": ("0 or more", settings.temperature >= 0),
      "model": ("a name", settings.model != ""),
  }
  for name, (expected, right) in rules.items():
    if not right:
      raise UserError(f"api {name}: expected {expected}, got {getattr(settings, name)!r}")
  try:
    extra = json.loads(json.dumps(settings.extra, default=dict, allow_nan=False))  # a ConfigDict becomes a dict
  except (TypeError, ValueError) as e:
    raise UserError(f"api extra: expected plain JSON ({e})") from None
  if taken := sorted(set(OURS) & set(extra)):
    raise UserError(f"api extra: {', '.join(taken)} can not be set there")
  return extra


def read_key(variable: str) -> str:
  """The key that an environment variable holds; "" without a name. Raises UserError naming the variable."""
  if not variable:
    return ""
  if not re.fullmatch(r"[A-Za-z_]\w*", variable):  # perhaps the key itself: not repeated
    raise UserError("api key_env: expected the name of an environment variable, such as OPENAI_API_KEY")
  key = os.environ.get(variable, "").strip()
  if not key:
    raise UserError(f"api key_env: the environment variable {variable} is not set: export {variable}=...")
  if not key.isascii() or not key.isprintable():
    raise UserError(f"api key_env: the environment variable {variable} holds characters that no key has")
  return key


def is_loopback(url: str) -> bool:
  """Whether it names this machine."""
  host = urlsplit(url).hostname
  try:
    address = ipaddress.ip_address(host)
    return address.is_loopback or address.is_unspecified
  except ValueError:
    return host == "localhost"
