"""A client of any server that speaks the OpenAI chat protocol (vLLM, llama.cpp, OpenAI ...).

  client = Client(ApiSettings("http://127.0.0.1:8000/v1", "my-model", cache_dir="/tmp/replies"))
  request = client.settings.request([("user", "What is 2 + 2?")], seed=0)
  client.complete([request])  # [Completion(text="4", finish_reason="stop", ...)]

The same command run again asks the server only for what is not in the cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import random
import threading
import time
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from typing import Any, TypeVar

from absl import logging

from sml_jax.dialogue.api_cache import Cache, request_key
from sml_jax.dialogue.api_settings import ApiSettings, base_url, checked_extra, is_loopback, read_key
from sml_jax.dialogue.api_wire import (
    Completion,
    Failed,
    Request,
    body_of,
    error_code,
    parse_reply,
    server_message,
)
from sml_jax.errors import UserError

BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 30.0
LONGEST_RETRY_AFTER_S = 60.0
CONNECT_S = 10.0
"""Most seconds until a connection stands: a reply may take minutes, a connection does not."""
GONE_AFTER = 3
"""Requests in a row that find no server even when tried again, until it is given up."""
GRACE_S = 2.0
"""Most seconds that open connections may take to close after Ctrl-C."""
AGAIN = (408, 409, 429)
"""Status codes worth another try, beside the server's own failures (5xx)."""
WRONG_SETTINGS = (401, 402, 403, 404, 405)
"""Status codes that every other request would get too."""

_T = TypeVar("_T")


class ServerGone(UserError):
  """The server can not be reached any more. What it replied before is in the cache."""


class Client:
  """Asks one model of one server. Threads that share a client take turns.

  Args:
    settings: of the server.
    notify: is given one line the first time that a kind of trouble leads to another try.

  Raises:
    UserError: the settings do not make sense, the key's variable is not set, or the package httpx is missing.
  """

  def __init__(self, settings: ApiSettings, notify: Callable[[str], None] = logging.warning):
    self.settings, self._notify, self._extra = settings, notify, checked_extra(settings)
    self._url, self._httpx = base_url(settings.url), _httpx()
    self._key = read_key(settings.key_env)
    self._cache = Cache(settings.cache_dir) if settings.cache_dir else None
    self._turn, self._told = threading.Lock(), set()
    self._unreachable = 0  # requests in a row
    self._counts = dict.fromkeys((
        "requests", "retries", "replies", "failures", "cache_hits", "prompt_tokens", "completion_tokens",
        "cached_prompt_tokens", "cached_completion_tokens", "wait_s",
    ), 0)  # fmt: skip

  def complete(self, requests: Sequence[Request]) -> list[Completion | Failed]:
    """One reply a request, in order; equal requests share one where there is a cache.

    Raises:
      ServerGone: it can not be reached any more. All replies so far are in the cache.
      UserError: the server refuses the key, or does not know the model or the path.
    """
    with self._turn:
      start = time.monotonic()
      try:
        bodies = [body_of(self.settings.model, r, self._extra) for r in requests]
        if self._cache is None:
          return list(self._fetch(dict(enumerate(bodies))).values())
        keys = [request_key(self._url, body, r.salt) for body, r in zip(bodies, requests, strict=True)]
        known = {key: reply for key in set(keys) if (reply := self._cache.get(key))}
        for reply in (known[key] for key in keys if key in known):
          self._count(
              cache_hits=1, cached_prompt_tokens=reply.prompt_tokens, cached_completion_tokens=reply.completion_tokens
          )
        known |= self._fetch({key: body for key, body in zip(keys, bodies, strict=True) if key not in known})
        return [known[key] for key in keys]
      finally:
        self._count(wait_s=time.monotonic() - start)

  def stats(self) -> dict[str, float]:
    """Sums since the client was made, so that the difference of two calls is what was used in between.

    requests (tries included), retries, replies, failures, cache_hits, prompt_tokens and completion_tokens of replies
    that were asked for, cached_prompt_tokens and cached_completion_tokens of those that were not, wait_s (clock seconds
    in `complete`), and cost where the settings have a price.
    """
    out, s = dict(self._counts), self.settings
    if s.price_in or s.price_out:
      out["cost"] = (out["prompt_tokens"] * s.price_in + out["completion_tokens"] * s.price_out) / 1e6
    return out

  def _fetch(self, bodies: Mapping[Hashable, dict]) -> dict[Hashable, Completion | Failed]:
    return _run(self._fetch_all(bodies)) if bodies else {}

  async def _fetch_all(self, bodies: Mapping[Hashable, dict]) -> dict[Hashable, Completion | Failed]:
    out, waiting, enough = dict.fromkeys(bodies), iter(bodies.items()), min(GONE_AFTER, len(bodies))

    async def work(http) -> None:
      for key, body in waiting:
        out[key] = reply = await self._ask(http, body, enough)
        if isinstance(reply, Failed):
          self._count(failures=1)
          continue
        self._count(replies=1, prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)
        if self._cache is not None:
          self._cache.put(key, reply)

    width = min(self.settings.concurrency, len(bodies))
    async with self._connections(width) as http:
      try:
        async with asyncio.TaskGroup() as group:  # the first error ends all of them
          for _ in range(width):
            group.create_task(work(http))
      except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return out

  def _connections(self, width: int):
    headers = {"Content-Type": "application/json"}
    if self._key:
      headers["Authorization"] = f"Bearer {self._key}"
    try:
      return self._httpx.AsyncClient(
          headers=headers,
          timeout=self._httpx.Timeout(None, connect=CONNECT_S),
          limits=self._httpx.Limits(max_connections=width, max_keepalive_connections=width),
          trust_env=not is_loopback(self._url),  # no proxy stands between this machine and itself
      )
    except (ImportError, ValueError, OSError) as e:
      raise UserError(f"{self._url}: the environment's proxies or certificates can not be used ({e})") from None

  async def _ask(self, http, body: dict, enough: int) -> Completion | Failed:
    """Tries until there is an answer or no try is left."""
    content = json.dumps(body).encode()
    for tries in range(1, self.settings.retries + 2):
      try:
        return await self._try(http, content)
      except _Trouble as e:
        trouble = e
      if tries <= self.settings.retries:
        self._tell(trouble)
        self._count(retries=1)
        await asyncio.sleep(max(backoff_s(tries), min(trouble.retry_after_s, LONGEST_RETRY_AFTER_S)))
    self._unreachable += trouble.unreachable
    if self._unreachable >= enough:
      raise ServerGone(self._gone(trouble))
    return Failed(f"{trouble.reason} ({tries} {'try' if tries == 1 else 'tries'})")

  async def _try(self, http, content: bytes) -> Completion | Failed:
    self._count(requests=1)
    seconds = self.settings.timeout_s
    try:
      async with asyncio.timeout(seconds):
        response = await http.post(f"{self._url}/chat/completions", content=content)
    except TimeoutError:
      raise _Trouble("timeout", f"no whole reply within {seconds:g} s") from None
    except self._httpx.RequestError as e:
      unreachable = isinstance(e, (self._httpx.NetworkError, self._httpx.ConnectTimeout))
      raise _Trouble(type(e).__name__, " ".join(str(e).split()) or "connection lost", unreachable=unreachable) from None
    self._unreachable = 0  # whatever it says, it is there
    if response.is_success:
      try:
        return parse_reply(response.content)
      except ValueError as e:
        raise _Trouble(str(e), server_message(response.content, self._key)) from None
    status, said = response.status_code, server_message(response.content, self._key)
    if status in WRONG_SETTINGS or response.is_redirect or error_code(response.content) == "insufficient_quota":
      raise UserError(f"{self._url}, model {self.settings.model!r}: HTTP {status} {said}{self._advice(status)}")
    if status in AGAIN or status >= 500:
      raise _Trouble(f"HTTP {status}", said, retry_after_s=retry_after_s(response.headers.get("Retry-After", "")))
    return Failed(f"HTTP {status}: {said}")

  def _advice(self, status: int) -> str:
    if status in (401, 403):
      has = f"is the key in the environment variable {self.settings.key_env} right?"
      return f"; {has if self.settings.key_env else 'does it want a key? (key_env names the variable that holds it)'}"
    return "; are url and model right?" if status in (404, 405) or status < 400 else ""

  def _gone(self, trouble: _Trouble) -> str:
    replies = self._counts["replies"]
    kept = f"are kept in {self._cache.folder}" if self._cache else "are lost, since there is no cache_dir"
    return (f"{self._url}: the server can not be reached ({trouble.reason}); {replies} replies were completed and "
            f"{kept}; start it, and run the same command again to go on")  # fmt: skip

  def _tell(self, trouble: _Trouble) -> None:
    if trouble.kind not in self._told:
      self._told.add(trouble.kind)
      self._notify(f"{self._url}: {trouble.reason}; trying again, at most {self.settings.retries} times a request "
                   "(said once)")  # fmt: skip

  def _count(self, **more: float) -> None:
    for name, n in more.items():
      self._counts[name] += n


class _Trouble(Exception):
  """A try failed in a way that may pass."""

  def __init__(self, kind: str, said: str, *, retry_after_s: float = 0.0, unreachable: bool = False):
    self.kind, self.reason = kind, f"{kind}: {said}" if said else kind
    self.retry_after_s, self.unreachable = retry_after_s, unreachable


def backoff_s(tries: int) -> float:
  """Seconds before the next try: exponential with full jitter, so that many clients do not come back at once."""
  return random.uniform(0, min(LONGEST_BACKOFF_S, BACKOFF_S * 2.0 ** (tries - 1)))


def retry_after_s(header: str) -> float:
  """Seconds that a Retry-After header asks for, given as seconds or as a date; 0 if it is neither."""
  try:
    return max(0.0, float(header))
  except ValueError:
    pass
  try:
    return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
  except ValueError:
    return 0.0


def _run(main: Coroutine[Any, Any, _T]) -> _T:
  """Like asyncio.run, but also where this thread has an event loop already (a notebook), and Ctrl-C is not held up."""
  loop = asyncio.new_event_loop()
  task, ended = loop.create_task(main), threading.Event()

  def drive() -> None:
    try:
      loop.run_until_complete(asyncio.wait([task]))
    finally:
      loop.close()
      ended.set()

  threading.Thread(target=drive, name="api", daemon=True).start()
  try:
    ended.wait()  # not Thread.join: Python 3.11 takes a thread for ended whose join was interrupted
  except BaseException:  # Ctrl-C, or what a signal's handler raises
    with contextlib.suppress(RuntimeError):  # it may have come to its end just now
      loop.call_soon_threadsafe(task.cancel)
    ended.wait(GRACE_S)
    raise
  return task.result()


def _httpx():
  try:
    import httpx
  except ImportError:
    raise UserError("an api model needs the package httpx: pip install httpx==0.28.1") from None
  return httpx
