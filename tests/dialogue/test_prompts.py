"""Prompts and their placeholders, and the parsing of the replies that they ask for."""

from __future__ import annotations

import hashlib
import json
import random
import string
import subprocess

import pytest
from api_server import start_server

from sml_jax.dialogue import prompts
from sml_jax.dialogue.api import ApiSettings, Client
from sml_jax.dialogue.prompts import FIELDS, load, numbered
from sml_jax.dialogue.reply_parsing import KINDS, feedback_of, kind_of, question_of, user_reply_of, visible
from sml_jax.errors import UserError

VALUES = {name: f"<the {name}>" for names in FIELDS.values() for name in names}
REQUIRED = {  # what each must speak of, whatever its wording
    "teacher": ("<feedback>", "</feedback>", "final answer", "hint", "mistake"),
    "teacher_no_private": ("<feedback>", "</feedback>", "hint", "mistake"),
    "teacher_code": ("<feedback>", "</feedback>", "expected", "solution", "first case"),
    "user": ('{"response":', '"shard_id"', "-1", "at most one"),
    "judge_kind": ('{"kind":', "<turn>", "</turn>", *KINDS),
    "question": ("<question>", "</question>", "one question"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_shipped_prompts_load_and_fill(name):
  prompt = load(name)
  filled = prompt.fill(**{f: VALUES[f] for f in prompt.fields})
  assert prompt.fields == FIELDS[name] and all(VALUES[f] in filled for f in prompt.fields)
  assert not prompts.PLACEHOLDER.search(filled) and filled == filled.strip()
  assert all(words.lower() in filled.lower() for words in REQUIRED[name])


def test_every_file_is_a_known_prompt():
  assert {f.stem for f in prompts.SHIPPED.iterdir()} == set(FIELDS) == set(REQUIRED)


def test_the_hash_is_that_of_the_file(tmp_path):
  file = prompts.SHIPPED / "user.txt"
  assert load("user").hash == subprocess.check_output(["sha256sum", str(file)], text=True)[:12]
  (tmp_path / "user.txt").write_bytes(b"{hidden}\r\n{revealed} \xc3\xa9")
  other = load(tmp_path / "user.txt")
  assert other.hash == hashlib.sha256(b"{hidden}\r\n{revealed} \xc3\xa9").hexdigest()[:12] != load("user").hash
  assert other.text == "{hidden}\r\n{revealed} é"


def test_braces_in_values_and_in_the_text_are_plain(tmp_path):
  (tmp_path / "own.txt").write_text('{turn} \\frac{1}{2} {"kind": 1} {} {A} {problem} {turn}\n')
  filled = load(tmp_path / "own.txt", like="judge_kind").fill(turn=r"{problem} \1 {0} {turn}", problem="{turn}}{")
  assert filled == r'{problem} \1 {0} {turn} \frac{1}{2} {"kind": 1} {} {A} {turn}}{ {problem} \1 {0} {turn}'
  assert load("teacher").fill(private="p", problem="q", words=120).count("at most 120 words") == 1


def test_a_value_too_many_or_too_few_is_an_error():
  for values in ({"problem": "p"}, {"problem": "p", "turn": "t", "words": 3}, {}):
    with pytest.raises(TypeError, match=r"fields are \['problem', 'turn'\]"):
      load("judge_kind").fill(**values)


@pytest.mark.parametrize("content, words", [
    ("{problem}", "missing placeholder {turn}; expected exactly {problem}, {turn}"),
    ("", "missing placeholder {problem}, {turn}; expected exactly {problem}, {turn}"),
    ("{problem} {turn} {words}", "unknown placeholder {words}; expected exactly {problem}, {turn}"),
    ("{problem} {trun}", "unknown placeholder {trun}; expected exactly {problem}, {turn}"),
    (b"\xff{problem} {turn}", "not UTF-8 text; the shipped ones are teacher, "),
])  # fmt: skip
def test_a_file_with_other_placeholders_is_refused(tmp_path, content, words):
  file = tmp_path / "judge_kind.txt"
  file.write_bytes(content if isinstance(content, bytes) else content.encode())
  with pytest.raises(UserError) as e:
    load(file)
  assert str(e.value).startswith(f"prompt {file}: {words}") and "\n" not in str(e.value)


def test_a_prompt_that_is_none_is_refused(tmp_path):
  with pytest.raises(UserError, match=r"^prompt techer: expected one of teacher, .*, or a file of one of these names$"):
    load("techer")
  with pytest.raises(UserError, match="No such file or directory; the shipped ones are"):
    load(tmp_path / "teacher.txt")
  with pytest.raises(UserError, match="Is a directory"):
    load(tmp_path, like="teacher")
  with pytest.raises(UserError, match="expected one of"):
    load("teacher", like="techer")


@pytest.mark.parametrize("text, seen", [
    ("plain", "plain"), ("<think>a</think> b ", "b"), ("a<think>b</think>c<think>d\n</think>e", "ace"),
    ("thoughts</think>\nb", "b"), ("<think>a <think>b</think> c</think>d", "d"), ("<think></think>", ""),
    ("<think>a", None), ("<think>a</think>b<think>c", None), ("b <thi", None), ("", ""), ("1 < 2", "1 < 2"),
])  # fmt: skip
def test_thinking_is_not_seen(text, seen):
  assert visible(text) == seen


@pytest.mark.parametrize("text, feedback", [
    ("<feedback>Look again.</feedback>", "Look again."),
    ("<think>It is 4. <feedback>4</feedback></think>\nSo:\n<feedback>\nLook\nagain.\n</feedback> Bye", "Look\nagain."),
    ("<feedback>a</feedback> no: <feedback>b</feedback>", "b"),
    ("<feedback>a</feedback> and <feedback>b", "a"),
    ("I write between <feedback> and so on: <feedback>a</feedback>", "a"),
    ("<Feedback>a</FEEDBACK>", "a"),
    ("hidden</think><feedback>a</feedback>", "a"),
    ("Look again.", "Look again."),
    ("<think>It is 4.</think> Look again.", "Look again."),
    ("<think>It is 4. <feedback>Look again.</feedback>", None),
    ("<think>It is 4.", None),
    ("<feedback>Look ag", None),
    ("<feedback>Look again.</feedb", None),
    ("Look again.</feedback>", None),
    ("It is 4. <feedb", None),
    ("<feedback> </feedback>", None),
    ("<think>It is 4.</think>", None),
    ("", None),
])  # fmt: skip
def test_feedback(text, feedback):
  assert feedback_of(text) == feedback


@pytest.mark.parametrize("text, question", [
    ("<question>Why 3?</question>", "Why 3?"), ("<think>4</think> <question>\nWhy 3?</question>", "Why 3?"),
    ("Why 3?", None), ("<question>Why", None), ("<think><question>4?</question>", None),
    ("<question></question>", None), ("<feedback>Why 3?</feedback>", None), ("", None),
])  # fmt: skip
def test_question(text, question):
  assert question_of(text) == question


@pytest.mark.parametrize("text, reply", [
    ('{"response": "there are 3 cats", "shard_id": 2}', ("there are 3 cats", 2)),
    ('{"shard_id": -1, "response": " no idea "}', ("no idea", -1)),
    ('Sure!\n```json\n{"response": "a {b} \\"c\\"", "shard_id": 4}\n```\nok', ('a {b} "c"', 4)),
    ('<think>{"response": "x", "shard_id": 4}</think>{"response": "y", "shard_id": 2}', ("y", 2)),
    ('{"response": "x", "shard_id": 4}\nBetter: {"response": "y", "shard_id": 2}', ("y", 2)),
    ('{"response": "x", "shard_id": 4} {"note": 1}', ("x", 4)),
    ('{x} {"response": "two\nlines", "shard_id": "2", "why": {"a": [1]}}', ("two\nlines", 2)),
    ('{"response": "x", "shard_id": 1}', None),  # told already
    ('{"response": "x", "shard_id": 0}', None),
    ('{"response": "x", "shard_id": 2.0}', None),
    ('{"response": "x", "shard_id": true}', None),
    ('{"response": "x", "shard_id": null}', None),
    ('{"response": "x"}', None),
    ('{"response": "", "shard_id": 2}', None),
    ('{"response": ["x"], "shard_id": 2}', None),
    ('[{"response": "x", "shard_id": 2', None),
    ('<think>{"response": "x", "shard_id": 2}', None),
    ("there are 3 cats", None),
    ("", None),
    ("{" * 5000, None),
    ('{"a":' * 5000, None),
])  # fmt: skip
def test_user_reply(text, reply):
  assert user_reply_of(text, {2, 4}) == reply


@pytest.mark.parametrize("kind", KINDS)
def test_kind(kind):
  for text in (json.dumps({"kind": kind}), f'```json\n{{"kind": "{kind.upper()} "}}\n```', f" **{kind}**.\n",
               f"`{kind}`", f'<think>{{"kind": "none"}}</think>{{"why": "so", "kind": "{kind}"}}'):  # fmt: skip
    assert kind_of(text) == kind


@pytest.mark.parametrize("text", [
    "", "{}", '{"kind": "other"}', '{"kind": 3}', "hedge or refuse", "<think>hedge", '{"kind": "hedge"',
    "answer attempt", '{"kind": "other"} hedge',
])  # fmt: skip
def test_no_kind(text):
  assert kind_of(text) is None


def test_any_text_is_parsed_without_an_error():
  rng = random.Random(0)
  pieces = ["<think>", "</think>", "<feedback>", "</feedback>", "<question>", "</question>", '{"response": ', '"x"',
            ", ", '"shard_id": ', "2", "}", "{", '"kind": ', '"hedge"', "\n", "\\", *string.ascii_letters]  # fmt: skip
  seen = set()
  for _ in range(5000):
    text = "".join(rng.choices(pieces, k=rng.randrange(12)))
    for parse in (feedback_of, question_of, kind_of, lambda t: user_reply_of(t, {2})):
      out = parse(text)
      seen.add(type(out))
      assert not isinstance(out, str) or (out and out == out.strip() and "<think>" not in out)
  assert str in seen


def test_prompts_and_parsers_meet_over_a_server():
  """What the prompts ask for is what a model that follows them says, and what is understood."""
  user = load("user").fill(revealed=numbered({1: "Count cats."}), hidden=numbered({3: "There are {4}.", 4: "No dogs."}))
  done = load("user").fill(revealed=numbered({1: "Count cats."}), hidden=numbered({}))
  judge = lambda turn: load("judge_kind").fill(problem="2 + 2 = ?", turn=turn)
  teacher = load("teacher").fill(problem="2 + 2 = ?", private="The answer is 4.", words=50)
  question = load("question").fill(attempt="It is 5.", private="The answer is 4.")
  with start_server() as server:
    def say(model: str, text: str) -> str:
      client = Client(ApiSettings(server.url, model))
      (reply,) = client.complete([client.settings.request([("system", text), ("user", "It is 5.")], seed=0)])
      return reply.text
    assert user_reply_of(say("user", user), {3, 4}) == ("oh, There are {4}.", 3)
    assert user_reply_of(say("user", done), ()) == ("oh, that's all I know", -1)
    for model in ("tutor", "tutor_thinks", "tutor_plain"):
      feedback = feedback_of(say(model, teacher))
      assert feedback.startswith("Not yet.") and "<" not in feedback
    assert "The answer is 4." in feedback_of(say("tutor_leaks", teacher))
    assert question_of(say("question", question)) == "Which of my steps goes wrong first?"
    client = Client(ApiSettings(server.url, "judge"))
    turns = {"It is 5.": "answer_attempt", "Which cats?": "clarification", "": "missing"}
    replies = client.complete([client.settings.request([("user", judge(t))], seed=0) for t in turns])
    assert [kind_of(r.text) for r in replies] == list(turns.values())
