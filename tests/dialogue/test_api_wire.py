"""What the API's client sends, and how it reads what comes back."""

from __future__ import annotations

import contextlib
import json

import pytest
from api_calls import ask, client_of, texts

from sml_jax.dialogue.api import ApiSettings, Client, Completion, Failed
from sml_jax.dialogue.api_settings import base_url
from sml_jax.dialogue.api_wire import body_of, parse_reply, server_message
from sml_jax.errors import UserError


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
