"""The client of an API against a real server process: tries, failures, the cache, a server that is gone, the key."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import email.utils
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from api_server import start_server

from sml_jax.dialogue import api
from sml_jax.dialogue.api import ApiSettings, Client, Completion, Failed, Request, ServerGone
from sml_jax.dialogue.api_cache import Cache, request_key
from sml_jax.dialogue.api_settings import base_url
from sml_jax.dialogue.api_wire import body_of, parse_reply, server_message
from sml_jax.errors import UserError

KEY = "sk-s3cret/key+with=signs"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
  monkeypatch.setattr(api, "BACKOFF_S", 0.01)
  for name in list(os.environ):
    if name.lower().endswith("_proxy"):
      monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def shared():
  with start_server() as s:
    yield s


@pytest.fixture
def server(shared):
  shared.reset()
  return shared


@pytest.fixture
def mortal():
  """A server of one test alone."""
  with start_server() as s:
    yield s


def client_of(server, notify=lambda line: None, model="echo", **settings) -> Client:
  return Client(ApiSettings(server.url, model, **{"retries": 3, "concurrency": 4, **settings}), notify)


def ask(text: str, seed: int = 0, salt: str = "", max_tokens: int = 50) -> Request:
  return Request([("user", text)], max_tokens, 1.0, seed, salt)


def texts(replies) -> list[str]:
  """Without the hash that an echo begins with."""
  return [r.text.partition(" ")[2] if isinstance(r, Completion) else "FAILED" for r in replies]


def cached_files(folder) -> list[pathlib.Path]:
  return [f for f in pathlib.Path(folder).rglob("*") if f.is_file()]


# What is sent, and what comes back.


@pytest.mark.parametrize("url, base", [
    ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
    ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1"),
    ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
    ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1"),
    ("https://a.example/v1beta/openai/", "https://a.example/v1beta/openai"),
    ("http://[::1]:80/v1/chat/completions", "http://[::1]:80/v1"),
])  # fmt: skip
def test_url_with_and_without_its_end(url, base):
  assert base_url(url) == base


@pytest.mark.parametrize("url", [
    "127.0.0.1:8000/v1", "localhost:8000", "", "ftp://a/v1", "http://", "http:///v1", "http://a:port/v1",
    "http://a b/v1", "http://user:hush@a/v1", "http://a/v1?key=hush", "http://[::1/v1",
])  # fmt: skip
def test_a_url_that_is_none_is_refused_without_its_secrets(url):
  with pytest.raises(UserError, match=r"^api url") as e:
    base_url(url)
  assert "hush" not in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("settings, words", [
    ({"timeout_s": 0}, "api timeout_s: expected more than 0, got 0"),
    ({"retries": -1}, "api retries: expected 0 or more, got -1"),
    ({"concurrency": 0}, "api concurrency: expected 1 or more, got 0"),
    ({"max_tokens": 0}, "api max_tokens: expected 1 or more, got 0"),
    ({"temperature": float("nan")}, "api temperature: expected 0 or more, got nan"),
    ({"model": ""}, "api model: expected a name, got ''"),
    ({"extra": {"stream": True, "n": 2}}, "api extra: n, stream can not be set there"),
    ({"extra": {"f": print}}, "api extra: expected plain JSON"),
    ({"extra": {"top_p": float("nan")}}, "api extra: expected plain JSON"),
    ({"key_env": "NO_SUCH_VARIABLE"}, "api key_env: the environment variable NO_SUCH_VARIABLE is not set"),
    ({"cache_dir": __file__}, f"api cache_dir {__file__}: "),
])  # fmt: skip
def test_settings_without_sense_are_refused(settings, words):
  with pytest.raises(UserError) as e:
    Client(ApiSettings(**{"url": "http://127.0.0.1:1", "model": "m", **settings}))
  assert str(e.value).startswith(words)


def test_the_body_is_what_the_protocol_says(server):
  client = client_of(server, max_tokens=9, temperature=0.5, extra={"reasoning_effort": "low", "top_p": 0.9})
  said = [("system", "Be brief."), ("user", "Hi {x}"), ("assistant", "Hm"), ("user", "né 😀")]
  client.complete([client.settings.request(said, seed=7, salt="not sent")])
  assert server.bodies() == [{
      "model": "echo",
      "messages": [
          {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi {x}"},
          {"role": "assistant", "content": "Hm"}, {"role": "user", "content": "né 😀"},
      ],
      "max_tokens": 9, "temperature": 0.5, "seed": 7, "reasoning_effort": "low", "top_p": 0.9,
  }]  # fmt: skip


def test_extra_fields_replace_and_remove():
  body = lambda **extra: body_of("m", ask("x", max_tokens=9), extra)
  assert body()["max_tokens"] == 9 and "max_completion_tokens" not in body()
  assert "max_tokens" not in body(max_completion_tokens=30)
  assert body(max_completion_tokens=30)["max_completion_tokens"] == 30
  assert body(max_tokens=4)["max_tokens"] == 4
  assert body(seed=None, temperature=None).keys() == {"model", "messages", "max_tokens"}


def test_a_config_dict_can_be_the_extra_fields(server):
  from ml_collections import ConfigDict
  extra = ConfigDict({"chat_template_kwargs": {"enable_thinking": False}})
  client_of(server, extra=extra).complete([ask("x")])
  assert server.bodies()[0]["chat_template_kwargs"] == {"enable_thinking": False}


def test_text_finish_reason_tokens_and_reasoning(server):
  echo, cut = client_of(server).complete([ask("one two three"), ask("one two three", max_tokens=2)])
  assert texts([echo]) == ["one two three"] and echo.finish_reason == "stop" and not echo.cached
  assert (echo.prompt_tokens, echo.completion_tokens, echo.reasoning) == (3, 4, "")
  assert texts([cut]) == ["one"] and cut.finish_reason == "length" and cut.completion_tokens == 2
  (thought,) = client_of(server, model="tutor_thinks").complete([ask("x")])
  assert thought.reasoning == "I know the answer." and thought.reasoning not in thought.text


def test_null_content_is_an_empty_text(server):
  server.fault("null_content")
  assert client_of(server).complete([ask("x")]) == [Completion("", "length", reasoning="hm")]


def test_half_a_character_is_replaced_and_can_be_sent(server):
  (reply,) = client_of(server).complete([ask("a \ud83d b")])
  assert texts([reply]) == ["a ? b"]
  reply.text.encode()


def test_whatever_a_server_sends_is_a_reply_or_rubbish():
  whole = {"choices": [{"message": {"content": "hi", "reasoning": "r"}, "finish_reason": "stop"}],
           "usage": {"prompt_tokens": 1, "completion_tokens": 2}}  # fmt: skip
  assert parse_reply(json.dumps(whole).encode()) == Completion("hi", "stop", 1, 2, reasoning="r")
  strange = [None, True, 3, 1.5, "x", [], {}, [[]], [None], {"choices": []}, {"message": 1}]

  def variants(value):
    yield from strange
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
      for v in variants(value[key]):
        copy = value.copy()
        copy[key] = v
        yield copy
  seen = set()
  for variant in variants(whole):
    with contextlib.suppress(ValueError):
      reply = parse_reply(json.dumps(variant).encode())
      seen.add(type(reply))
      assert isinstance(reply, Failed) or (isinstance(reply.text, str) and type(reply.prompt_tokens) is int)
  assert seen == {Completion, Failed}
  for content in (b"", b"\xff\xfe", b"[" * 100_000, b"NaN", json.dumps(whole).encode()[:-1]):
    with pytest.raises(ValueError):
      parse_reply(content)


@pytest.mark.parametrize("content, line", [
    (b'{"error": {"message": "bad\\n  thing", "code": 1}}', "bad thing"),
    (b'{"error": "bad thing"}', "bad thing"),
    (b'{"object": "error", "message": "bad thing"}', "bad thing"),
    (b'{"detail": [{"msg": "bad"}]}', '[{"msg": "bad"}]'),
    (b"<html>\n\x1b[31mbad\x00thing</html>", "<html> [31mbad thing</html>"),
    (b"x" * 300, "x" * 197 + "..."),
    (b'{"error": {"message": "the key s3 is wrong"}}', "the key *** is wrong"),
    (b"a" * 196 + b"s3", "a" * 196 + "***"),
    (b"", ""),
])  # fmt: skip
def test_what_a_server_complains_about_is_one_line(content, line):
  assert server_message(content, "s3") == line


# How many at once, in which order.


def test_replies_are_in_order_and_as_many_at_once_as_allowed(server):
  server.fault("none", match="number 0", seconds=0.6)
  server.fault("none", times=-1, seconds=0.1, gather=4)
  replies = client_of(server, concurrency=4).complete([ask(f"number {n}") for n in range(12)])
  assert texts(replies) == [f"number {n}" for n in range(12)]
  assert server.stats() == {"requests": 12, "in_flight": 0, "max_in_flight": 4}


def test_threads_that_share_a_client_take_turns(server):
  client, out = client_of(server, concurrency=2), {}
  server.fault("none", times=-1, seconds=0.02)
  call = lambda i: out.update({i: texts(client.complete([ask(f"{i} {n}") for n in range(5)]))})
  threads = [threading.Thread(target=call, args=(i,)) for i in range(3)]
  for t in threads:
    t.start()
  for t in threads:
    t.join()
  assert out == {i: [f"{i} {n}" for n in range(5)] for i in range(3)}
  assert server.stats()["max_in_flight"] <= 2 and client.stats()["requests"] == client.stats()["replies"] == 15


def test_nothing_to_ask_is_nothing(server):
  assert client_of(server).complete([]) == [] and server.stats()["requests"] == 0


def test_it_works_where_an_event_loop_runs_already(server):
  async def notebook():
    return client_of(server).complete([ask("x")])
  assert texts(asyncio.run(notebook())) == ["x"]


def test_no_proxy_stands_before_this_machine(server, monkeypatch):
  for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
    monkeypatch.setenv(name, "http://127.0.0.1:9")
  assert texts(client_of(server).complete([ask("x")])) == ["x"]


# Tries.


def test_500_twice_is_three_requests(server):
  server.fault("status", status=500, times=2)
  said = []
  client = client_of(server, said.append)
  assert texts(client.complete([ask("x")])) == ["x"]
  assert server.stats()["requests"] == 3
  assert {k: client.stats()[k] for k in ("requests", "retries", "replies", "failures")} == {
      "requests": 3, "retries": 2, "replies": 1, "failures": 0}  # fmt: skip
  assert said == [f"{server.url}: HTTP 500: out of order; trying again, at most 3 times a request (said once)"]


@pytest.mark.parametrize("fault", [
    *({"kind": "status", "status": n} for n in (408, 409, 429, 500, 502, 503, 504, 529)),
    *({"kind": k} for k in ("html", "empty_body", "wrong_shape", "wrong_types", "error_with_200")),
    *({"kind": k} for k in ("cut", "close", "reset")),
], ids=lambda f: str(f.get("status", f["kind"])))  # fmt: skip
def test_what_may_pass_is_tried_again(server, fault):
  server.fault(**fault)
  client = client_of(server)
  assert texts(client.complete([ask("x")])) == ["x"]
  assert server.stats()["requests"] == 2 and client.stats()["retries"] == 1


def test_what_a_wrong_content_length_leaves_on_a_connection_is_no_reply(server):
  server.fault("wrong_length")
  assert texts(client_of(server, concurrency=1).complete([ask("x"), ask("y")])) == ["x", "y"]
  assert server.stats()["requests"] in (3, 4)  # the connection may be used once more before it is known to be broken


@pytest.mark.parametrize("fault, reason", [
    ({"kind": "status", "status": 503, "message": "busy\nnow"}, "HTTP 503: busy now (4 tries)"),
    ({"kind": "html"}, "not JSON: <html><body>It works!</body></html> (4 tries)"),
    ({"kind": "error_with_200"}, "JSON without choices: the worker is busy (4 tries)"),
    ({"kind": "reset"}, "ReadError: connection lost (4 tries)"),
])  # fmt: skip
def test_one_request_fails_for_good_and_the_others_go_on(server, fault, reason):
  server.fault(match="bad", times=-1, **fault)
  client = client_of(server)
  replies = client.complete([ask("a"), ask("bad"), ask("b"), ask("c")])
  assert replies[1] == Failed(reason) and texts(replies) == ["a", "FAILED", "b", "c"]
  assert server.stats()["requests"] == 7
  assert (client.stats()["failures"], client.stats()["replies"], client.stats()["retries"]) == (1, 3, 3)


@pytest.mark.parametrize("fault, reason", [
    ({"kind": "status", "status": 400, "message": "no"}, "HTTP 400: no"),
    ({"kind": "status", "status": 413, "message": "no"}, "HTTP 413: no"),
    ({"kind": "status", "status": 422, "message": "no"}, "HTTP 422: no"),
    ({"kind": "no_choices"}, "the reply has no choices, as after a content filter"),
    ({"kind": "content_filter"}, "the server's content filter stopped the reply"),
])  # fmt: skip
def test_what_will_not_pass_is_not_tried_again(server, fault, reason):
  server.fault(match="bad", times=-1, **fault)
  assert client_of(server).complete([ask("bad"), ask("good")])[0] == Failed(reason)
  assert server.stats()["requests"] == 2


def test_a_prompt_that_is_too_long_fails_alone():
  with start_server(context=5) as server:
    bad, good = client_of(server).complete([ask("one two three four five six"), ask("one")])
    assert bad == Failed("HTTP 400: maximum context length is 5 tokens, your messages have 6")
    assert texts([good]) == ["one"] and server.stats()["requests"] == 2


def test_a_strict_server_s_complaint_about_a_field_is_passed_on(server):
  assert client_of(server, extra={"frobnicate": 1}).complete([ask("x")]) == [
      Failed("HTTP 400: Unrecognized request argument supplied: frobnicate")]  # fmt: skip


@pytest.mark.parametrize("kind, seconds", [("none", 1.0), ("drip", 0.0)])
def test_the_timeout_is_for_the_whole_reply(server, kind, seconds):
  server.fault(kind, times=-1, match="slow", seconds=seconds)
  client = client_of(server, timeout_s=0.4, retries=1)
  replies = client.complete([ask("slow")])
  assert replies == [Failed("timeout: no whole reply within 0.4 s (2 tries)")]
  assert server.stats()["requests"] == 2


def test_retry_after_is_heeded_and_capped(server, monkeypatch):
  server.fault("status", status=429, retry_after="0.3")
  start = time.monotonic()
  assert texts(client_of(server).complete([ask("x")])) == ["x"]
  assert time.monotonic() - start >= 0.3
  monkeypatch.setattr(api, "LONGEST_RETRY_AFTER_S", 0.2)
  server.fault("status", status=503, retry_after="3600")
  start = time.monotonic()
  assert texts(client_of(server).complete([ask("y")])) == ["y"]
  assert 0.2 <= time.monotonic() - start < 600


def test_backoff_doubles_up_to_its_cap_with_full_jitter(monkeypatch):
  monkeypatch.setattr(api, "BACKOFF_S", 0.5)
  for tries, most in ((1, 0.5), (2, 1.0), (5, 8.0), (7, 30.0), (2000, 30.0)):
    draws = [api.backoff_s(min(tries, 1000)) for _ in range(300)]
    assert 0 <= min(draws) < most / 10 and most * 0.9 < max(draws) <= most


def test_retry_after_as_seconds_and_as_a_date():
  soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100)
  assert 90 < api.retry_after_s(email.utils.format_datetime(soon, usegmt=True)) <= 100
  assert api.retry_after_s("1.5") == 1.5
  for header in ("", "-3", "soon", "nan", "Wed, 21 Oct 2015 07:28:00 GMT", "inf seconds", "Wed, 99 Oct 2015"):
    assert api.retry_after_s(header) == 0


# What every request would suffer from.


@pytest.mark.parametrize("fault, words", [
    ({"status": 401, "message": "no\nentry"}, "HTTP 401 no entry; does it want a key?"),
    ({"status": 403}, "HTTP 403 out of order; does it want a key?"),
    ({"status": 404}, "HTTP 404 out of order; are url and model right?"),
    ({"status": 308}, "HTTP 308 out of order; are url and model right?"),
    ({"status": 429, "code": "insufficient_quota", "message": "You have no money"}, "HTTP 429 You have no money"),
])  # fmt: skip
def test_wrong_settings_stop_at_once(server, fault, words):
  server.fault("none", match="slow", seconds=60, times=-1)
  server.fault("status", times=-1, **fault)
  client, start = client_of(server, concurrency=2), time.monotonic()
  with pytest.raises(UserError) as e:
    client.complete([ask("slow"), *(ask(f"{n}") for n in range(20))])
  assert str(e.value).startswith(f"{server.url}, model 'echo': {words}") and "\n" not in str(e.value)
  assert not isinstance(e.value, ServerGone)
  assert time.monotonic() - start < 30  # nor is the one in flight waited for
  assert server.stats()["requests"] <= 2 and client.stats()["requests"] == 2 and client.stats()["retries"] == 0


def test_an_unknown_model_and_an_unknown_path_say_so(server):
  with pytest.raises(UserError, match="model 'gpt-9': HTTP 404 The model `gpt-9` does not exist; are url and"):
    client_of(server, model="gpt-9").complete([ask("x")])
  with pytest.raises(UserError, match="HTTP 404 no such path: /v2/chat/completions"):
    Client(ApiSettings(server.url.replace("v1", "v2"), "echo")).complete([ask("x")])


# The cache.


def test_the_second_run_asks_for_nothing(server, tmp_path):
  requests = [ask(f"q{n}") for n in range(6)]
  first = client_of(server, cache_dir=str(tmp_path)).complete(requests)
  client = client_of(server, cache_dir=str(tmp_path))
  assert client.complete(requests) == [dataclasses.replace(r, cached=True) for r in first]
  assert server.stats()["requests"] == 6
  stats = client.stats()
  assert (stats["requests"], stats["cache_hits"], stats["prompt_tokens"], stats["cached_prompt_tokens"]) == (0, 6, 0, 6)
  assert stats["cached_completion_tokens"] == 12
  files = cached_files(tmp_path)
  assert len(files) == 6 and all(f.parent.name == f.name[:2] and f.parent.parent == tmp_path for f in files)


def test_a_cache_needs_no_server(mortal, tmp_path):
  first = client_of(mortal, cache_dir=str(tmp_path)).complete([ask("x")])
  mortal.kill()
  assert texts(client_of(mortal, cache_dir=str(tmp_path)).complete([ask("x")])) == texts(first)


def test_without_a_folder_nothing_is_kept(server):
  client = client_of(server)
  client.complete([ask("x"), ask("x")])
  client.complete([ask("x")])
  assert server.stats()["requests"] == 3


def test_samples_differ_by_salt_and_equal_requests_are_one(server, tmp_path):
  client = client_of(server, cache_dir=str(tmp_path))
  replies = client.complete([ask("x", salt="t1|0|1"), ask("x", salt="t1|1|1"), ask("x", salt="t1|0|1")])
  assert server.stats()["requests"] == 2 and replies[0] == replies[2]
  assert client.stats()["replies"] == 2


def test_every_part_of_a_request_is_in_its_key():
  base = dict(messages=[("user", "a"), ("assistant", "b")], max_tokens=5, temperature=1.0, seed=1, salt="s")

  def key(url="http://a/v1", model="m", extra=(), **change):
    request = Request(**{**base, **change})
    return request_key(url, body_of(model, request, dict(extra)), request.salt)
  others = [
      key(url="http://b/v1"), key(model="n"), key(extra={"top_p": 0.5}), key(extra={"top_p": 0.6}),
      key(messages=[("assistant", "b"), ("user", "a")]), key(messages=[("user", "a"), ("user", "b")]),
      key(messages=[("user", "ab")]), key(max_tokens=6), key(temperature=0.0), key(seed=2), key(salt=""),
  ]  # fmt: skip
  assert len({key(), *others}) == 12
  assert key() == key(messages=(("user", "a"), ("assistant", "b")), temperature=1) and len(key()) == 64
  assert key(extra={"a": 1, "b": {"c": 1, "d": 2}}) == key(extra={"b": {"d": 2, "c": 1}, "a": 1})


def test_a_key_is_the_same_on_every_machine_and_day():
  """Another key would throw away caches that people have paid for."""
  canonical = ('["http://a/v1",{"max_tokens":50,"messages":[{"content":"x","role":"user"}],"model":"m","seed":0,'
               '"temperature":1.0},"s"]')  # fmt: skip
  digest = subprocess.run(["sha256sum"], input=canonical.encode(), capture_output=True, check=True).stdout.split()[0]
  assert request_key("http://a/v1", body_of("m", ask("x"), {}), "s") == digest.decode()


@pytest.mark.parametrize("damage", [
    lambda whole: "", lambda whole: whole[:-5], lambda whole: "null", lambda whole: "[" * 100_000,
    lambda whole: whole.replace('"prompt_tokens": 1', '"prompt_tokens": "1"'),
    lambda whole: whole.replace('"key": "', '"key": "0'), lambda whole: whole.replace('"text"', '"test"'),
    lambda whole: b"\xff\xfe\x00",
])  # fmt: skip
def test_a_damaged_entry_is_replaced(server, tmp_path, damage):
  client = client_of(server, cache_dir=str(tmp_path))
  client.complete([ask("x")])
  (file,) = cached_files(tmp_path)
  whole = file.read_text()
  bad = damage(whole)
  assert bad != whole
  file.write_bytes(bad if isinstance(bad, bytes) else bad.encode())
  assert texts(client.complete([ask("x")])) == ["x"]
  assert server.stats()["requests"] == 2 and file.read_text() == whole and cached_files(tmp_path) == [file]


def test_a_failure_is_not_kept(server, tmp_path):
  client = client_of(server, cache_dir=str(tmp_path), retries=0)
  for kind in ("no_choices", "html"):
    server.fault(kind)
    assert texts(client.complete([ask("x")])) == ["FAILED"] and cached_files(tmp_path) == []
  assert texts(client.complete([ask("x")])) == ["x"]


def test_a_cache_that_can_not_be_written_stops_the_run(server, tmp_path):
  client = client_of(server, cache_dir=str(tmp_path / "c"))
  (tmp_path / "c").rmdir()
  with pytest.raises(UserError, match="a reply can not be kept"):
    client.complete([ask("x")])


SCRIPT = """
import sys
from sml_jax.dialogue import api
api.BACKOFF_S = 0.01
url, folder = sys.argv[1:3]
client = api.Client(api.ApiSettings(url, "echo", cache_dir=folder, concurrency=4, timeout_s=600))
print("ready", flush=True)
client.complete([api.Request([("user", f"q{n}")], 50, 1.0, 0) for n in range(30)])
"""


def test_processes_share_a_cache(server, tmp_path):
  server.fault("none", times=-1, seconds=0.01)
  command = [sys.executable, "-c", SCRIPT, server.url, str(tmp_path)]
  processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
  assert [p.wait(timeout=120) for p in processes] == [0, 0]
  assert 30 <= server.stats()["requests"] <= 60
  assert len(cached_files(tmp_path)) == 30  # nor is anything half written left
  client = client_of(server, cache_dir=str(tmp_path))
  assert texts(client.complete([ask(f"q{n}") for n in range(30)])) == [f"q{n}" for n in range(30)]
  assert client.stats()["requests"] == 0


def test_threads_write_the_same_entry(tmp_path):
  cache, replies = Cache(tmp_path), [Completion(f"{n} " + "x" * 5000, "stop", n, n) for n in range(8)]
  key, seen, done = "ab" * 32, [], threading.Event()

  def read():
    while not done.is_set():
      seen.append(cache.get(key))
  cache.put(key, replies[0])
  reader = threading.Thread(target=read)
  reader.start()
  writers = [threading.Thread(target=lambda r=r: [cache.put(key, r) for _ in range(30)]) for r in replies]
  for t in writers:
    t.start()
  for t in writers:
    t.join()
  done.set()
  reader.join()
  assert seen and all(dataclasses.replace(r, cached=False) in replies for r in seen if r) and None not in seen
  assert len(cached_files(tmp_path)) == 1


# A server that is gone, and Ctrl-C.


def test_a_server_that_dies_is_given_up_and_only_the_missing_is_asked_for_again(mortal, tmp_path):
  requests = [ask(f"q{n}.") for n in range(20)]
  mortal.fault("exit", match="q10.")
  client, start = client_of(mortal, cache_dir=str(tmp_path), concurrency=2, timeout_s=600), time.monotonic()
  with pytest.raises(ServerGone) as e:
    client.complete(requests)
  assert time.monotonic() - start < 60
  kept = len(cached_files(tmp_path))
  assert 9 <= kept < 20 and client.stats()["replies"] == kept
  line = str(e.value)
  assert line.startswith(f"{mortal.url}: the server can not be reached (ConnectError: ") and "\n" not in line
  assert f"; {kept} replies were completed and are kept in {tmp_path}; " in line
  assert line.endswith("start it, and run the same command again to go on")
  with start_server(port=mortal.port) as again:
    client = client_of(again, cache_dir=str(tmp_path))
    assert texts(client.complete(requests)) == [f"q{n}." for n in range(20)]
    assert again.stats()["requests"] == client.stats()["requests"] == 20 - kept


def free_port() -> int:
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    return s.getsockname()[1]


@pytest.mark.parametrize("requests, tries", [(1, 4), (2, 8), (40, 12)])
def test_a_server_that_never_was_is_gone(requests, tries):
  client = Client(ApiSettings(f"http://127.0.0.1:{free_port()}", "echo", retries=3, concurrency=1), lambda line: None)
  with pytest.raises(ServerGone, match=r"0 replies were completed and are lost, since there is no cache_dir"):
    client.complete([ask(f"{n}") for n in range(requests)])
  assert client.stats()["requests"] == tries  # three requests are enough to know


def test_a_name_without_an_address_is_gone(monkeypatch):
  def unknown(*unused, **more):
    raise socket.gaierror(-2, "Name or service not known")
  monkeypatch.setattr(socket, "getaddrinfo", unknown)
  with pytest.raises(ServerGone, match="Name or service not known"):
    Client(ApiSettings("http://gpu7.example/v1", "echo", retries=1), lambda line: None).complete([ask("x")])


def test_a_machine_that_does_not_answer_is_gone(monkeypatch):
  monkeypatch.setattr(api, "CONNECT_S", 0.1)
  with socket.socket() as deaf, contextlib.ExitStack() as stack:
    deaf.bind(("127.0.0.1", 0))
    deaf.listen(0)
    for _ in range(4):  # what it has room for; later ones get no answer at all
      other = stack.enter_context(socket.socket())
      other.setblocking(False)
      other.connect_ex(deaf.getsockname())
    url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
    with pytest.raises(ServerGone, match="can not be reached \\(ConnectTimeout"):
      Client(ApiSettings(url, "echo", retries=1), lambda line: None).complete([ask("x")])


def test_a_reply_in_between_shows_that_the_server_is_there(server):
  server.fault("reset", times=-1, match="bad")
  requests = [ask(f"{'bad' if n % 2 else 'good'} {n}") for n in range(10)]
  replies = client_of(server, retries=1, concurrency=1).complete(requests)
  assert [isinstance(r, Failed) for r in replies] == [False, True] * 5


def test_a_server_that_answers_with_errors_is_there(server):
  server.fault("reset", times=-1, match="bad")
  server.fault("status", times=-1, status=500)
  requests = [ask(f"{'bad' if n % 2 else 'worse'} {n}") for n in range(10)]
  assert texts(client_of(server, retries=1, concurrency=1).complete(requests)) == ["FAILED"] * 10


def test_ctrl_c_stops_promptly_and_keeps_what_is_complete(mortal, tmp_path):
  mortal.fault("none", times=-1, match="q3", seconds=300)
  command = [sys.executable, "-c", SCRIPT, mortal.url, str(tmp_path)]
  process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  try:
    deadline = time.monotonic() + 60
    while len(cached_files(tmp_path)) < 29 and time.monotonic() < deadline:  # q3 alone is missing
      time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
  finally:
    process.kill()
  assert process.returncode in (-signal.SIGINT, 1) and errors.rstrip().endswith("KeyboardInterrupt")
  assert "Task was destroyed" not in errors and "never retrieved" not in errors
  assert len(cached_files(tmp_path)) == 29


def test_ctrl_c_ends_what_goes_on_behind_it(server):
  server.fault("none", times=-1, seconds=0.1)
  client, main = client_of(server, concurrency=2), threading.get_ident()

  def interrupt():
    while server.stats()["requests"] < 4:
      time.sleep(0.01)
    signal.pthread_kill(main, signal.SIGINT)
  threading.Thread(target=interrupt, daemon=True).start()
  with pytest.raises(KeyboardInterrupt):
    client.complete([ask(f"{n}") for n in range(1000)])
  asked, deadline = client.stats()["requests"], time.monotonic() + 60
  assert asked < 1000
  while "api" in [t.name for t in threading.enumerate()] and time.monotonic() < deadline:
    time.sleep(0.01)
  assert time.monotonic() < deadline and client.stats()["requests"] == asked
  assert texts(client.complete([ask("on we go")])) == ["on we go"]


# The key.


def test_the_key_lets_in_and_is_nowhere_else(tmp_path, monkeypatch, caplog, capfd):
  monkeypatch.setenv("MY_KEY", f" {KEY}\n")
  lines, shown = [], []
  with start_server(key=KEY) as server:
    client = client_of(server, lines.append, key_env="MY_KEY", cache_dir=str(tmp_path), retries=1)
    server.fault("status", status=500, message=f"you said Bearer {KEY}", match="bad", times=-1)
    server.fault("status", status=400, message="x" * 190 + KEY, match="long")
    good, bad, long = client.complete([ask("good"), ask("bad"), ask("long")])
    assert texts([good]) == ["good"] and bad == Failed("HTTP 500: you said Bearer *** (2 tries)")
    shown += [repr(client), repr(client.settings), repr(vars(client.settings)), repr(long), bad.reason, *lines]
    shown += [repr(client.stats()), caplog.text, *capfd.readouterr()]
    shown += [f.read_text() for f in cached_files(tmp_path)]
    server.kill()
    with pytest.raises(ServerGone) as gone:
      client.complete([ask("new")])
    shown.append(str(gone.value))
  assert len(lines) == 2 and len(cached_files(tmp_path)) == 1
  assert not any(KEY in s or KEY[:8] in s for s in shown)


def test_a_wrong_key_stops_at_once_and_is_not_repeated(monkeypatch):
  monkeypatch.setenv("MY_KEY", KEY)
  with start_server(key="another") as server:
    with pytest.raises(UserError) as e:
      client_of(server, key_env="MY_KEY").complete([ask("x")])
    assert "HTTP 401 Incorrect API key provided: ***; is the key in the environment variable MY_KEY" in str(e.value)
    assert KEY not in str(e.value) and server.stats()["requests"] == 1
    with pytest.raises(UserError, match=r"HTTP 401 .* does it want a key\? \(key_env names"):
      client_of(server).complete([ask("x")])


def test_a_key_in_the_place_of_its_variable_s_name_is_not_repeated(monkeypatch):
  for bad in ("sk-abc", "hush hush"):
    with pytest.raises(UserError, match="name of an environment variable") as e:
      Client(ApiSettings("http://127.0.0.1:1", "m", key_env=bad))
    assert bad not in str(e.value)
  for bad in ("clé", "a\nb"):
    monkeypatch.setenv("MY_KEY", bad)
    with pytest.raises(UserError, match="MY_KEY holds characters that no key has") as e:
      Client(ApiSettings("http://127.0.0.1:1", "m", key_env="MY_KEY"))
    assert bad not in str(e.value)


# The counters.


def test_stats_are_sums_and_money(server, tmp_path):
  client = client_of(server, cache_dir=str(tmp_path), price_in=2.0, price_out=8.0)
  client.complete([ask("one two three")])
  before = client.stats()
  assert before["cost"] == pytest.approx((3 * 2 + 4 * 8) / 1e6) and before["wait_s"] > 0
  client.complete([ask("one two three"), ask("four")])
  delta = {k: v - before[k] for k, v in client.stats().items()}
  assert delta.pop("wait_s") > 0
  assert delta.pop("cost") == pytest.approx((1 * 2 + 2 * 8) / 1e6)
  assert delta == {
      "requests": 1, "retries": 0, "replies": 1, "failures": 0, "cache_hits": 1, "prompt_tokens": 1,
      "completion_tokens": 2, "cached_prompt_tokens": 3, "cached_completion_tokens": 4,
  }  # fmt: skip
  assert all(type(v) in (int, float) for v in client.stats().values())
  assert "cost" not in client_of(server).stats()


# What it needs.


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, "httpx", None)
  with pytest.raises(UserError, match=r"^an api model needs the package httpx: pip install httpx==[\d.]+$"):
    Client(ApiSettings("http://127.0.0.1:1", "m"))


def test_the_module_loads_without_jax_and_httpx():
  code = "import sys, sml_jax.dialogue.api; print([m for m in ('jax', 'httpx', 'openai', 'numpy') if m in sys.modules])"
  assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_many_requests_and_faults_at_random_end_in_their_own_replies(server, tmp_path):
  rng = random.Random(0)
  for kind in ("html", "cut", "close", "wrong_length", "empty_body", "wrong_types"):
    for _ in range(8):
      server.fault(kind, match=f"number {rng.randrange(150)}.")
  client = client_of(server, cache_dir=str(tmp_path), concurrency=16, retries=10)
  assert texts(client.complete([ask(f"number {n}.") for n in range(150)])) == [f"number {n}." for n in range(150)]
  assert client.stats()["requests"] == server.stats()["requests"] == 150 + client.stats()["retries"]
  assert 48 <= client.stats()["retries"] <= 56  # of the 8 wrong lengths, see above
