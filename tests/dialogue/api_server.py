"""A server of the OpenAI chat protocol for tests: a real process on loopback, strict about what it is sent.

  python tests/dialogue/api_server.py --port=0     # prints the port, serves until killed

  with start_server(answers={"2 + 2": "It is 4."}) as server:   # in a test
    settings = ApiSettings(server.url, "student")
    server.fault("status", status=500, times=2)
    assert server.stats()["requests"] == 3

It has POST /v1/chat/completions, GET /v1/models, GET /_stats (counts), GET /_requests (bodies, in order of arrival),
POST /_fault and POST /_reset (no faults, no counts). The model's name is the policy that makes the reply from the
messages:

  echo               the last message's beginning and a hash of all messages and the seed
  student            `wrong` first; the answer once it has been told more than "Please try again."
  student_stubborn   always `wrong`
  student_asks       a question first, then the answer
  tutor              <feedback>...</feedback>, with the number of student turns it has heard
  tutor_thinks       the same, with thoughts in `reasoning_content` and in <think> tags
  tutor_plain        the same without any tags
  tutor_leaks        feedback that states the answer (one that is not in `answers`: the whole first message)
  tutor_leaks_once   the same, but another request with equal messages gets that of `tutor`
  user               JSON {"response", "shard_id"}: the first shard under the heading `Still to tell` ("2: text" a line)
  judge              JSON {"kind"}: what stands between <turn> and </turn> is a clarification if it has a question mark,
                     missing if it is empty, else an answer attempt
  question           <question>...</question>

`answers` maps a piece of a problem's text to its answer; `wrong` is what a student says that has none.
Tokens are words: `max_tokens` cuts the reply, `context` limits the messages (400, as for a prompt that is too long).
More policies: --policies=FILE.py, whose functions NAME(messages, body, options) return the reply.

A fault hits the next `times` requests (-1 = all) whose messages contain `match`: see `Control.fault`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.server
import json
import os
import re
import runpy
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request

TRY_AGAIN = "Please try again."
FIELDS = {
    "model": str, "messages": list, "max_tokens": int, "max_completion_tokens": int, "temperature": float, "seed": int,
    "top_p": float, "stop": list, "reasoning_effort": str, "chat_template_kwargs": dict,
}  # fmt: skip
RUBBISH = {
    "html": b"<html><body>It works!</body></html>",
    "empty_body": b"",
    "wrong_shape": b'{"choices": "none"}',
    "wrong_types": b'{"choices": [{"message": {"role": "assistant", "content": 7}, "finish_reason": "stop"}]}',
    "error_with_200": b'{"error": {"message": "the worker\\nis busy", "code": 503}}',
    "no_choices": b'{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 0}}',
    "content_filter": b'{"choices": [{"message": {"content": null}, "finish_reason": "content_filter"}]}',
    "null_content": b'{"choices": [{"message": {"content": null, "reasoning": "hm"}, "finish_reason": "length"}]}',
}


def answer_to(messages, options) -> str | None:
  return next((a for piece, a in options.answers.items() if any(piece in m["content"] for m in messages)), None)


def echo(messages, body, options):
  digest = hashlib.sha256(json.dumps([messages, body.get("seed")]).encode()).hexdigest()
  return f"{digest[:8]} {messages[-1]['content'][:60]}"


def student(messages, body, options):
  told = [m["content"] for m in messages if m["role"] == "user"][1:]
  heard = any(t.strip() not in ("", TRY_AGAIN) for t in told)
  return (heard and answer_to(messages, options)) or options.wrong


def student_stubborn(messages, body, options):
  return options.wrong


def student_asks(messages, body, options):
  asked = any(m["role"] == "assistant" for m in messages)
  return (answer_to(messages, options) or options.wrong) if asked else "What does the problem mean by that?"


def tutor_plain(messages, body, options):
  turns = sum(m["role"] == "user" for m in messages)
  return f"Not yet. After your turn {turns}, look at the first step again. Hint: which number did you not use?"


def tutor(messages, body, options):
  return f"<feedback>{tutor_plain(messages, body, options)}</feedback>"


def tutor_thinks(messages, body, options):
  return "I know the answer.", f"<think>I must not say it.</think>\n{tutor(messages, body, options)}"


def tutor_leaks(messages, body, options):
  return f"<feedback>Not yet. {answer_to(messages, options) or re.sub('[<>]', '', messages[0]['content'])}</feedback>"


def tutor_leaks_once(messages, body, options, seen=set()):  # noqa: B006
  first = (place := json.dumps(messages)) not in seen
  seen.add(place)
  return (tutor_leaks if first else tutor)(messages, body, options)


def user(messages, body, options):
  whole = "\n".join(m["content"] for m in messages)
  hidden = re.search(r"^Still to tell.*\n((?:\d+: .*\n?)*)", whole, re.M)
  shards = re.findall(r"(\d+): (.*)", hidden[1]) if hidden else []
  n, text = shards[0] if shards else (-1, "that's all I know")
  return json.dumps({"response": f"oh, {text}", "shard_id": int(n)})


def judge(messages, body, options):
  turn = re.findall(r"<turn>\n?(.*?)\n?</turn>", messages[-1]["content"], re.S)[-1]
  return json.dumps({"kind": "clarification" if "?" in turn else "answer_attempt" if turn.strip() else "missing"})


def question(messages, body, options):
  return "<question>Which of my steps goes wrong first?</question>"


POLICIES = {
    f.__name__: f for f in (
        echo, student, student_stubborn, student_asks, tutor, tutor_thinks, tutor_plain, tutor_leaks, tutor_leaks_once,
        user, judge, question,
    )
}  # fmt: skip


def complaint(body, options) -> tuple[int, str, str] | None:
  """(status, message, code) for a body that a strict server refuses."""
  if not isinstance(body, dict):
    return 400, "the body is not a JSON object", "invalid_body"
  for name, value in body.items():
    if name not in FIELDS:
      return 400, f"Unrecognized request argument supplied: {name}", "unknown_parameter"
    kinds = (int, float) if FIELDS[name] is float else (FIELDS[name],)
    if type(value) not in kinds:
      return 400, f"Invalid type for '{name}': expected {FIELDS[name].__name__}", "invalid_type"
  messages = body.get("messages")
  if not messages or not all(
      isinstance(m, dict) and m.keys() == {"role", "content"} and m["role"] in ("system", "user", "assistant")
      and isinstance(m["content"], str) for m in messages
  ):  # fmt: skip
    return 400, "Invalid 'messages'", "invalid_type"
  if body.get("max_tokens", 1) < 1 or {"max_tokens", "max_completion_tokens"} <= body.keys():
    return 400, "Invalid 'max_tokens'", "invalid_value"
  if not 0 <= body.get("temperature", 1) <= 2:
    return 400, "Invalid 'temperature'", "invalid_value"
  if body.get("model") not in options.policies:
    return 404, f"The model `{body.get('model')}` does not exist", "model_not_found"
  if (n := words(messages)) > options.context:
    return 400, f"maximum context length is {options.context} tokens, your messages have {n}", "context_length_exceeded"
  return None


def words(messages) -> int:
  return sum(len(m["content"].split()) for m in messages)


class Handler(http.server.BaseHTTPRequestHandler):
  """One connection; what is shared is in `self.server`."""

  protocol_version = "HTTP/1.1"
  inside = None  # the counts that it is part of, until it is replied to

  def do_GET(self):
    s = self.server
    if self.path == "/v1/models":
      self.send({"object": "list", "data": [{"id": name, "object": "model"} for name in s.options.policies]})
    elif self.path == "/_stats":
      self.send(s.counts)
    elif self.path == "/_requests":
      self.send(s.bodies)
    else:
      self.send_error_object(404, f"no such path: {self.path}")

  def do_POST(self):
    s, content = self.server, self.rfile.read(int(self.headers["Content-Length"]))
    if self.path in ("/_fault", "/_reset"):
      with s.lock:
        s.faults.append(json.loads(content)) if self.path == "/_fault" else s.reset()
      return self.send({})
    if self.path != "/v1/chat/completions":
      return self.send_error_object(404, f"no such path: {self.path}")
    try:
      body = json.loads(content)
    except ValueError:
      body = None
    with s.lock:
      s.counts["requests"] += 1
      s.counts["in_flight"] += 1
      s.counts["max_in_flight"] = max(s.counts["max_in_flight"], s.counts["in_flight"])
      s.bodies.append(body)
      fault = s.next_fault(content.decode())
      s.changed.notify_all()
      self.inside = s.counts
    try:
      self.reply(body, fault)
    finally:
      self.leave()

  def leave(self):
    with self.server.lock:
      if self.inside:
        self.inside["in_flight"] -= 1
      self.inside = None

  def reply(self, body, fault):
    s = self.server
    given = self.headers.get("Authorization", "")
    if s.options.key and given != f"Bearer {s.options.key}":
      said = f"Incorrect API key provided: {given.removeprefix('Bearer ')}"
      return self.send_error_object(401, said, "invalid_api_key")
    if bad := complaint(body, s.options):
      return self.send_error_object(*bad)
    kind = fault.get("kind")
    with s.lock:  # enough requests are here at the same time
      s.changed.wait_for(lambda: s.counts["max_in_flight"] >= fault.get("gather", 0), timeout=20)
    time.sleep(fault.get("seconds", 0))
    if kind == "exit":
      os._exit(3)
    if kind == "status":
      extra = {"Retry-After": fault["retry_after"]} if "retry_after" in fault else {}
      return self.send_error_object(fault["status"], fault.get("message", "out of order"), fault.get("code"), extra)
    if kind in RUBBISH:
      return self.send_bytes(RUBBISH[kind])
    if kind in ("close", "reset"):
      if kind == "reset":
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
      self.close_connection = True
      return None
    policy = s.options.policies[body["model"]]
    with s.lock:
      said = policy(body["messages"], body, s.options)
    reasoning, text = said if isinstance(said, tuple) else (None, said)
    most = body.get("max_tokens", body.get("max_completion_tokens", 10**9))
    cut = len(text.split()) > most
    text = " ".join(text.split()[:most]) if cut else text
    message = {"role": "assistant", "content": text} | ({"reasoning_content": reasoning} if reasoning else {})
    usage = {"prompt_tokens": words(body["messages"]), "completion_tokens": len(text.split())}
    choice = {"index": 0, "message": message, "finish_reason": "length" if cut else "stop"}
    content = json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode()
    if kind == "cut":
      self.close_connection = True
      return self.send_bytes(content[: len(content) // 2], length=len(content))
    if kind == "drip":
      self.send_bytes(b"", length=400 + len(content))
      for _ in range(400):  # 20 s, and never a pause
        self.wfile.write(b" ")
        time.sleep(0.05)
      return self.wfile.write(content)
    return self.send_bytes(content, length=len(content) - 9 if kind == "wrong_length" else None)

  def send_error_object(self, status, message, code=None, extra=()):
    kind = "server_error" if status >= 500 else "invalid_request_error"
    self.send({"error": {"message": message, "type": kind, "param": None, "code": code}}, status, extra)

  def send(self, fields, status=200, extra=()):
    self.send_bytes(json.dumps(fields).encode(), status, extra)

  def send_bytes(self, content, status=200, extra=(), length=None):
    self.leave()  # before the client can send the next one
    length = len(content) if length is None else length
    head = {"Content-Type": "application/json", "Content-Length": length, **dict(extra)}
    lines = [f"HTTP/1.1 {status} as said", *(f"{k}: {v}" for k, v in head.items()), "", ""]
    with contextlib.suppress(OSError):  # a client that has given up
      self.wfile.write("\r\n".join(lines).encode() + content)

  def log_message(self, *unused):
    pass


class ChatServer(http.server.ThreadingHTTPServer):
  daemon_threads = True
  request_queue_size = 256

  def __init__(self, options):
    super().__init__(("127.0.0.1", options.port), Handler)
    self.options, self.lock = options, threading.RLock()
    self.changed = threading.Condition(self.lock)
    self.reset()

  def reset(self) -> None:
    self.counts = {"requests": 0, "in_flight": 0, "max_in_flight": 0}
    self.bodies, self.faults = [], []

  def next_fault(self, content: str) -> dict:
    for fault in self.faults:
      if fault["times"] != 0 and json.dumps(fault["match"])[1:-1] in content:
        fault["times"] -= 1
        return fault
    return {}

  def handle_error(self, request, client_address):
    if not isinstance(sys.exc_info()[1], OSError):
      super().handle_error(request, client_address)


class Control:
  """A running server, as a test sees it: `url`, `port`, `process`."""

  def __init__(self, process: subprocess.Popen, port: int):
    self.process, self.port, self.url = process, port, f"http://127.0.0.1:{port}/v1"

  def fault(self, kind: str, *, times: int = 1, match: str = "", **more) -> None:
    """What goes wrong with the next `times` requests (-1 = all) that contain `match`.

    Args:
      kind: "none" (as usual, after `seconds` and `gather`), "status" (`status`, `message`, `code`, `retry_after`),
        "cut" (half of the body), "drip" (a blank now and then, for 20 s), "wrong_length" (Content-Length is too small),
        "close", "reset" (no reply at all),
        "exit" (of the process), or a key of RUBBISH.
      times, match: see above.
      **more: of the kind; `seconds` to sleep before; `gather`: wait until so many requests were here at once.
    """
    self._ask("/_fault", {"kind": kind, "times": times, "match": match, **more})

  def stats(self) -> dict[str, int]:
    """Counts of chat requests: requests, in_flight, max_in_flight."""
    return self._ask("/_stats")

  def bodies(self) -> list[dict]:
    """The chat requests' bodies, in order of arrival."""
    return self._ask("/_requests")

  def reset(self) -> None:
    """No faults are left, and all counts are 0."""
    self._ask("/_reset", {})

  def kill(self) -> None:
    self.process.send_signal(signal.SIGKILL)
    self.process.wait()

  def _ask(self, path: str, fields: dict | None = None):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    data = None if fields is None else json.dumps(fields).encode()
    with opener.open(self.url.removesuffix("/v1") + path, data, timeout=30) as response:
      return json.loads(response.read())


@contextlib.contextmanager
def start_server(**options):
  """Runs the server as a process, with options as on its command line; yields its Control."""
  options = {k: json.dumps(v) if isinstance(v, dict) else v for k, v in options.items()}
  arguments = [f"--{k.replace('_', '-')}={v}" for k, v in options.items()]
  process = subprocess.Popen(
      [sys.executable, __file__, "--with-parent", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
  )
  try:
    yield Control(process, int(process.stdout.readline()))
  finally:
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def main() -> None:
  p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  p.add_argument("--port", type=int, default=0, help="0 = any that is free")
  p.add_argument("--key", default="", help="the only key that is let in; empty = none is wanted")
  p.add_argument("--answers", type=json.loads, default={}, help='JSON: {"piece of the problem": "answer"}')
  p.add_argument("--wrong", default=r"I guess it is \boxed{0}. The answer is 0.", help="a student without an answer")
  p.add_argument("--context", type=int, default=10**9, help="most words of the messages")
  p.add_argument("--policies", default="", help="a Python file with more policies")
  p.add_argument("--with-parent", action="store_true", help="end when standard input does")
  options = p.parse_args()
  more = runpy.run_path(options.policies) if options.policies else {}
  options.policies = POLICIES | {k: f for k, f in more.items() if callable(f)}
  server = ChatServer(options)
  if options.with_parent:
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
  print(server.server_address[1], flush=True)
  server.serve_forever()


if __name__ == "__main__":
  main()
