"""A model that a server has, measured with all controls; with a teacher behind a server; and what a server may do."""

from __future__ import annotations

import json
import pathlib
import sys

import pytest
from toy import read_json

from sml_jax.data.store import read_dialogues

sys.path.append(str(pathlib.Path(__file__).parents[1] / "dialogue"))
from api_server import start_server

NOUNS = "apples bears cups dogs eggs forks geese hats inks jars kites lamps".split()
# No near copies: every word but the last belongs to one of them.
QUESTIONS = [f"Case{i} of{i} {n}{i} near{i} the{i} {n}s{i} with{i} some{i} how many?" for i, n in enumerate(NOUNS * 4)]
ANSWERS = {q: f"The answer is {700 + i}." for i, q in enumerate(QUESTIONS)}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("data")
  rows = [{"question": q, "answer": f"so\n#### {700 + i}"} for i, q in enumerate(QUESTIONS)]
  (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  return folder


def arguments(data, workdir, student, teacher=None, **more) -> list[str]:
  more = {
      "student": "api", "student_api.url": student.url, "student_api.model": "student", "data_dir": str(data),
      "student_api.retries": "1", "teacher_api.retries": "1", "engine_rows": "4",
      "tasks.shares": "0.5,0.3", "stages.evaluation.tasks_per_suite": "8", "stages.evaluation.tries": "4",
  } | more  # fmt: skip
  if teacher:
    more = {"dialogue.teacher": "api", "teacher_api.url": teacher.url, "teacher_api.model": "tutor"} | more
  keys = [f"--config.{key.replace('__', '.')}={value}" for key, value in more.items()]
  return ["--config=configs/evaluate_any.py", *keys, f"--workdir={workdir}"]


def last_line(program, arguments) -> str:
  """Of what a run says that ends with exit code 1."""
  done = program(*arguments)
  assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
  return done.stderr.strip().splitlines()[-1]


def suites(workdir) -> dict:
  return read_json(workdir / "summary.json")["arms"]["pretrained"]["eval"]


def test_a_student_that_learns_from_feedback_is_told_from_one_that_tries_again(program, data, tmp_path):
  """The served student is wrong until it hears more than "Please try again."."""
  run = tmp_path / "run"
  with start_server(answers=ANSWERS, wrong="The answer is 5.") as server:
    printed = program.ok(*arguments(data, run, server))
    found, asked = suites(run), server.stats()["requests"]
    assert found["gsm8k"]["success_by_turn"] == [0, 1, 1, 1] and found["gsm8k"]["resampling"] == [0, 0, 0, 0]
    assert found["gsm8k_try_again"]["success_by_turn"] == [0, 0, 0, 0]
    assert found["gsm8k_no_private"]["success_by_turn"] == [0, 1, 1, 1]  # "Are you sure?" is more than "try again"
    assert found["gsm8k"]["answer_nll_n"] == [0] * 4 and found["gsm8k"]["repeat_rate"] == 0
    assert f"student at {server.url}" in printed and "gsm8k: train" in printed
    # The same command again asks for nothing; nor does another workdir that has the replies.
    program.ok(*arguments(data, run, server))
    program.ok(*arguments(data, tmp_path / "other", server, **{"student_api.cache_dir": str(run / "api_cache")}))
    assert server.stats()["requests"] == asked and suites(tmp_path / "other") == found
  # 8 tasks: 2 turns under two teachers, 4 under the third, 4 tries; first turns are shared by the suites.
  assert asked == 8 * (1 + 1 + 1 + 3 + 4)
  summary = read_json(run / "summary.json")
  assert summary["api"]["student_api_requests"] == asked and summary["api"]["student_api_failures"] == 0
  report = (run / "report.html").read_text()
  assert "What servers were asked for" in report and "The answer is 5." in report
  record = "".join(p.name for p in run.rglob("*"))
  assert "checkpoints" not in record


def test_a_served_teacher_that_leaks_is_found_and_stopped(program, data, tmp_path):
  with start_server(answers=ANSWERS, wrong="The answer is 5.") as server:
    one = {"stages.evaluation.suites": "gsm8k", "stages.evaluation.tries": "0"}
    leaks = {"teacher_api.model": "tutor_leaks", **one}
    program.ok(*arguments(data, tmp_path / "mark", server, server, **leaks))
    program.ok(*arguments(data, tmp_path / "resample", server, server, **{
        **one, "teacher_api.model": "tutor_leaks_once", "dialogue.leaks": "resample",
    }))  # fmt: skip
    program.ok(*arguments(data, tmp_path / "drop", server, server, **leaks, **{"dialogue.leaks": "drop"}))
    program.ok(*arguments(data, tmp_path / "clean", server, server, **one))
  mark, again, drop, clean = (suites(tmp_path / n)["gsm8k"] for n in ("mark", "resample", "drop", "clean"))
  assert mark["leak_rate"] == 1 and mark["leaked_dialogues"] == 8
  assert mark["success_by_turn"][1] == 1 and mark["success_leaked_failed_by_turn"] == [0] * 4
  assert again["leak_rate"] == 0.5 and again["leaked_dialogues"] == 0 and again["success_by_turn"][1] == 1
  assert drop["invalid_rate"] == 1 and drop["end_reasons"] == {"teacher_failed": 8} and drop["leak_rate"] == 1
  assert clean["leak_rate"] == 0 and clean["success_by_turn"] == [0, 1, 1, 1]
  records = {p.name: p for p in (tmp_path / "clean" / "evaluation" / "pretrained" / "gsm8k" / "sampled").iterdir()}
  assert len(records) == 1  # 8 tasks of 4 rows: within one piece
  report = (tmp_path / "mark" / "report.html").read_text()
  assert "leaked = failed" in report and "leak:" in report
  assert read_json(tmp_path / "mark" / "summary.json")["notes"] == [
      "pretrained on gsm8k: in 8 of 8 dialogues the teacher gave the answer away. With those as failures 0.0% are "
      "solved by the last turn, and not 100.0%."
  ]
  assert "gave the answer away" in report
  assert "gave the answer away" not in (tmp_path / "clean" / "report.html").read_text()


def test_a_server_that_goes_and_comes_back(program, data, tmp_path):
  """It stops with one line and exit code 1; the same command goes on and asks for nothing twice."""
  run = tmp_path / "run"
  few = {"stages.evaluation.suites": "gsm8k", "stages.evaluation.tries": "4", "student_api.concurrency": "1"}
  with start_server(answers=ANSWERS, wrong="The answer is 5.") as server:
    port = server.port
    server.fault("exit", times=1, match="The answer is 5.")  # with the first second turn
    said = last_line(program, arguments(data, run, server, **few))
    assert said.startswith("error: ") and server.url in said
  with start_server(answers=ANSWERS, wrong="The answer is 5.", port=port) as server:
    program.ok(*arguments(data, run, server, **few))
    assert suites(run)["gsm8k"]["success_by_turn"] == [0, 1, 1, 1]
    whole = 8 * (2 + 4)
    assert server.stats()["requests"] == whole - 4  # the first turns of the first four were kept


def test_what_is_missing_is_said_at_once(program, data, tmp_path):
  for keys, message in (
      ({"student_api.url": ""}, "student_api.url: give the server's"),
      ({"student_api.model": ""}, "student_api.model: give the server's"),
      ({"student_api.key_env": "NO_SUCH_KEY_HERE"}, "NO_SUCH_KEY_HERE"),
      ({"student_api.url": "http://127.0.0.1:9/v1", "student_api.retries": "0"}, "127.0.0.1:9"),
      ({"dialogue.teacher": "api"}, "teacher_api.url: give the server's"),
  ):  # fmt: skip
    class Nowhere:
      url = "http://127.0.0.1:9/v1"

    assert message in last_line(program, arguments(data, tmp_path / "run", Nowhere, **keys))


CAST = '''
"""One served model in every role: it looks at what it is asked to be."""
import re


def everybody(messages, body, options):
  system = messages[0]["content"]
  if "Still to tell" in system:
    told = re.search(r"Still to tell[^\\n]*\\n(\\d+): ([^\\n]*)", system)
    return '{"response": "oh, ' + told[2] + '", "shard_id": ' + told[1] + "}"
  if "<turn>" in system:
    turn = re.search(r"<turn>\\n(.*)\\n</turn>", system, re.S)[1]
    return '{"kind": "' + ("clarification" if turn.endswith("?") else "answer_attempt") + '"}'
  return "<feedback>Look again.</feedback>"


def curious(messages, body, options):
  heard = [m["content"] for m in messages if m["role"] == "user"]
  return "The answer is 7." if any("bob" in text for text in heard) else "How many more?"
'''


def test_a_served_lazy_user_and_judge_on_underspecified_tasks(program, tmp_path):
  """The student asks until it has heard of Bob, who comes last."""
  (tmp_path / "cast.py").write_text(CAST)
  shards = ("how many pens?", "ann has 3", "bob has 4")
  rows = [{
      "task_id": f"sharded-GSM8K/{i}", "task": "math", "question": f"{q} Ann has 3, Bob has 4.", "answer": "7\n#### 7",
      "shards": [{"shard_id": n + 1, "shard": s} for n, s in enumerate(shards)],
  } for i, q in enumerate(QUESTIONS)]  # fmt: skip
  (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  with start_server(policies=str(tmp_path / "cast.py")) as server:
    more = {
        "teacher_api.model": "everybody", "student_api.model": "curious", "dialogue.kinds": "api",
        "dialogue.reveal": "every_turn", "tasks.source": f"jsonl:{tmp_path / 'rows.jsonl'}",
        "stages.evaluation.suites": "lost_in_conversation_sharded", "stages.evaluation.tasks_per_suite": "4",
        "stages.evaluation.modes": "sharded,snowball", "stages.evaluation.runs": "2",
    }  # fmt: skip
    program.ok(*arguments(tmp_path, tmp_path / "run", server, server, **more))
  found = suites(tmp_path / "run")["lost_in_conversation_sharded"]
  assert found["success_by_turn"] == [0, 0, 1, 1] and found["questions_per_dialogue"] == 2
  assert found["premature_attempt_rate"] == 0 and found["clarification_rate"] == pytest.approx(2 / 3)
  modes = found["lost_in_conversation"]["all"]["modes"]
  assert modes["sharded"]["P"] == modes["snowball"]["P"] == 100
  folder = tmp_path / "run/evaluation/pretrained/lost_in_conversation_sharded"
  dialogues = list(read_dialogues(folder / "sampled"))
  assert {d.turns[2].text for d in dialogues} == {"oh, ann has 3"} and {d.turns[4].shard for d in dialogues} == {3}
  assert all(len(d.prompts.split()) == 4 for d in dialogues)
  assert {d.turns[4].text.count("\n- ") for d in read_dialogues(folder / "mode_snowball")} == {2}
