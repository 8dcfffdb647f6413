"""Replies on disk: what is asked for again and what is not."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading

import pytest
from api_calls import SCRIPT, ask, cached_files, client_of, texts

from sml_jax.dialogue.api import Completion, Request
from sml_jax.dialogue.api_cache import Cache, request_key
from sml_jax.dialogue.api_wire import body_of
from sml_jax.errors import UserError


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
