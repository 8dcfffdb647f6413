"""A server that is gone, Ctrl-C, and where the key goes."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from api_calls import SCRIPT, ask, cached_files, client_of, texts
from api_server import start_server

from sml_jax.dialogue import api
from sml_jax.dialogue.api import ApiSettings, Client, Failed, ServerGone
from sml_jax.errors import UserError

KEY = "sk-s3cret/key+with=signs"
pytestmark = pytest.mark.usefixtures("no_waiting")

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
