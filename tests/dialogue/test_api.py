"""The API's client against a real server process: order, tries, failures, the counters."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import random
import subprocess
import sys
import threading
import time

import pytest
from api_calls import ask, client_of, texts
from api_server import start_server

from sml_jax.dialogue import api
from sml_jax.dialogue.api import ApiSettings, Client, Failed, ServerGone
from sml_jax.errors import UserError

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
