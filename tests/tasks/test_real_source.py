"""Real data sets as a source: loading, parts, exclusions, judging, kinds, knowledge and the scripted teacher."""

from __future__ import annotations

import json
import pathlib

import pytest

from sml_jax import config as c
from sml_jax.dialogue.record import Dialogue, Turn
from sml_jax.dialogue.teacher import TRY_AGAIN, USUAL_WORDS, as_reply
from sml_jax.errors import UserError
from sml_jax.tasks.exclusions import known_issues, read_exclusions
from sml_jax.tasks.jsonl import DataError
from sml_jax.tasks.judge import Judge, value_of
from sml_jax.tasks.real_source import Loader, RealSource, divide
from sml_jax.tasks.schemas import SCHEMAS
from sml_jax.tasks.source import make_source

DATA = pathlib.Path(__file__).parents[2] / "../shared/data"
needs_data = pytest.mark.skipif(not (DATA / "mbpp").exists(), reason="the data folder ../shared/data is not here")
ARMS = ("full", "no_private", "binary", "try_again", "shuffled", "none")
NOUNS = "apples bears cups dogs eggs forks geese hats inks jars kites lamps".split()


def word(i: int) -> str:
  """Sentences with few runs of words in common: no near copies."""
  a, b, d = (NOUNS[(i * k) % len(NOUNS)] for k in (1, 5, 7))
  return f"{a} and {b}{i} by {d}{i} near {chr(97 + i % 26)}{i} of {b}s{i} with {a}{i}{i} how many {d} there"


def write(folder, name, rows):
  path = folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
  return path


def gsm8k_rows(n=30, first=500):
  return [{"question": f"{word(i)}?", "answer": f"so\n#### {first + i}"} for i in range(n)]


def lic_row(i=1, **changes):
  shards = [{"shard_id": n + 1, "shard": s} for n, s in enumerate(("how many pens?", "Ann has 3 pens", "Bob buys 4"))]
  return {"task_id": f"sharded-GSM8K/{i}", "task": "math", "shards": shards, "question": f"{word(i)}?",
          "answer": "7\n#### 7"} | changes  # fmt: skip


def config_of(folder, source, **changes):
  config = c.get_default()
  config.data_dir, config.tasks.source = str(folder), source
  config.tasks.update(changes)
  return config


def source_of(folder, source, **changes) -> RealSource:
  return make_source(config_of(folder, source, **changes))


def talk(task, *texts, arm="full", **last):
  turns = [Turn("teacher" if i % 2 == 0 else "student", text) for i, text in enumerate((task.text, *texts))]
  for name, value in last.items():
    setattr(turns[-1], name, value)
  return Dialogue(task.id, task.domain, 0, arm, turns)


def reply(source, arm, task, *texts):
  return as_reply(source.teacher(arm).reply([task], [talk(task, *texts, arm=arm)])[0])


def test_a_problem_that_comes_twice_is_kept_once_and_counted(tmp_path):
  write(tmp_path, "gsm8k/train.jsonl", [*gsm8k_rows(3), gsm8k_rows(1)[0]])
  source = source_of(tmp_path, "gsm8k")
  assert sum(source.size("gsm8k", part) for part in ("train", "dev", "test")) == 3
  assert source.describe()[0] == "gsm8k: 3 tasks, 1 copies left out"


def test_sources_by_name_location_and_several(tmp_path):
  write(tmp_path, "gsm8k/train.jsonl", gsm8k_rows())
  path = write(tmp_path, "mine/rows.jsonl", [{"problem": f"{word(i + 50)}?", "answer": str(i)} for i in range(20)])
  both = source_of(tmp_path, f"gsm8k, jsonl:{path}")  # its fields are omni_math's alone
  sizes = {d: sum(both.size(d, p) for p in ("train", "dev", "test")) for d in ("gsm8k", "omni_math", "mbpp")}
  assert sizes == {"gsm8k": 30, "omni_math": 20, "mbpp": 0}
  named = source_of(tmp_path, "jsonl:mine/rows.jsonl#omni_math")
  for i in range(3):
    assert named.task("omni_math", "train", i) == both.task("omni_math", "train", i)
  with pytest.raises(DataError, match="no tasks of the domain 'mbpp' \\(it has: gsm8k, omni_math\\)"):
    both.task("mbpp", "train", 0)


@pytest.mark.parametrize("name, row", [
    ("gsm8k", {"id": "gsm8k-train/0", **gsm8k_rows(1)[0], "solution": "so\n#### 3"}),
    ("svamp", {"id": "svamp/1", "question": "q", "answer": "3"}),
    ("lost_in_conversation", lic_row()),
    ("omni_math", {"problem": "p", "answer": "3", "solution": "s"}),
    ("mbpp", {"task_id": 1, "text": "t", "code": "def f(): return 1", "test_list": ["assert f() == 1"]}),
])  # fmt: skip
def test_a_location_tells_by_its_rows_what_it_holds(tmp_path, name, row):
  path = write(tmp_path, "rows.jsonl", [row])
  (task,) = Loader().load(f"jsonl:{path}").values()
  assert task.domain == name


@pytest.mark.parametrize("source, message", [
    ("gsm9k", "no data set 'gsm9k'; known: gsm8k, svamp"),
    ("jsonl:a.jsonl#nope", "no data set 'nope'"),
    ("jsonl:nothing.jsonl", "there is no such file: nothing.jsonl nor"),
    ("mbpp", r"holds none of mbpp/\*\.jsonl"),
    ("jsonl:odd.jsonl", "its first row has the fields x and fits no data set; name it behind the location"),
    ("jsonl:empty.jsonl#gsm8k", "holds no rows of gsm8k"),
    ("jsonl:empty.jsonl", "holds no rows"),
])  # fmt: skip
def test_what_is_no_source(tmp_path, source, message):
  write(tmp_path, "odd.jsonl", [{"x": 1}])
  write(tmp_path, "empty.jsonl", [""])
  with pytest.raises(UserError, match=message):
    source_of(tmp_path, source)


def test_without_a_folder(tmp_path):
  with pytest.raises(DataError, match=r"gsm8k is read from files; add --config\.data_dir=FOLDER"):
    source_of("", "gsm8k")
  with pytest.raises(DataError, match="there is no folder"):
    source_of(tmp_path / "no", "gsm8k")


def test_bad_rows_fail_or_are_counted(tmp_path):
  write(tmp_path, "gsm8k/train.jsonl", [*gsm8k_rows(5), {"question": "q", "answer": "7"}, "{", *["[1]"] * 4])
  with pytest.raises(DataError) as e:
    source_of(tmp_path, "gsm8k")
  assert "train.jsonl:6: field 'answer'" in str(e.value) and "on_bad_row=skip_and_count" in str(e.value)
  told = source_of(tmp_path, "gsm8k", on_bad_row="skip_and_count").describe()
  assert "gsm8k: 5 tasks, 6 bad rows skipped" in told and len([t for t in told if t.startswith("skipped: ")]) == 3


def test_a_test_that_cannot_fail_is_named_on_loading(tmp_path):
  row = {"task_id": 1, "text": "t", "code": "def f(): return 1", "test_list": ["assert (f() == 2, 'wrong')"]}
  write(tmp_path, "mbpp/a.jsonl", [row])
  with pytest.raises(DataError, match=r"mbpp/a\.jsonl:1: .*; tasks\.on_bad_row=skip_and_count"):
    Loader(str(tmp_path)).load("mbpp")


def test_exclusions_by_id_and_file(tmp_path):
  write(tmp_path, "lost_in_conversation/a_verbatim.jsonl", [lic_row(i) for i in (1, 2, 267, 9)])
  listed = write(tmp_path, "mine.txt", ["# a remark\n", "sharded-GSM8K/2  # bad\n", "\n"])
  loader = Loader(str(tmp_path), exclude=("known", str(listed), "lost_in_conversation/sharded-GSM8K/9"))
  assert list(loader.load("lost_in_conversation")) == ["lost_in_conversation/sharded-GSM8K/1"]
  assert loader.report == ["lost_in_conversation: 1 tasks, 3 excluded"]
  assert "HumanEval/113" in "".join(known_issues()) and len(known_issues()) == 6
  with pytest.raises(DataError, match=r"tasks\.exclude: there is no file /no/such\.txt"):
    read_exclusions(("/no/such.txt",))


def test_near_copies_stay_together_and_leave_training(tmp_path):
  bottle = "Danny collects bottle caps. He found {} caps at the park and has {} now. How many did he have before that?"
  copies = [{"question": bottle.format(i, 90 + i), "answer": f"#### {90}"} for i in range(12)]
  write(tmp_path, "gsm8k/train.jsonl", [*gsm8k_rows(40), *copies])
  tasks = list(Loader(str(tmp_path)).load("gsm8k").values())
  for salt in "0123456":
    parts = [p for p, found in divide(tasks, salt, (0.3, 0.3)).items() if any("Danny" in t.text for t in found)]
    assert len(parts) == 1
  # An evaluation set that has one of them takes them all out of training.
  write(tmp_path, "svamp/held.jsonl", [{"id": "held", "question": bottle.format(55, 66), "answer": "11"}])
  source = source_of(tmp_path, "gsm8k", eval_source="svamp", shares=(0.0, 0.0))
  assert source.size("gsm8k", "train") == 40
  assert source.describe()[-1].startswith("near copies: 66 pairs within a part; 12 training tasks left out")


def test_a_domain_of_both_sources_trains_on_one_and_is_tested_on_the_other(tmp_path):
  write(tmp_path, "gsm8k/train.jsonl", gsm8k_rows(30))
  rows = [{**r, "question": f"then {word(i + 70)}"} for i, r in enumerate(gsm8k_rows(20))]
  held = write(tmp_path, "held.jsonl", rows)
  source = source_of(tmp_path, "gsm8k", eval_source=f"jsonl:{held}#gsm8k")
  assert source.size("gsm8k", "train") == 30
  assert source.size("gsm8k", "dev") + source.size("gsm8k", "test") == 20 and source.size("gsm8k", "dev") > 3


def test_numbers_are_verified_and_kinds_named(tmp_path):
  write(tmp_path, "gsm8k/train.jsonl", gsm8k_rows())
  source = source_of(tmp_path, "gsm8k")
  task = source.task("gsm8k", "train", 0)
  gold = task.private["answer"]
  texts = [task.answer, f"Is it {gold}?", "The answer is 999.", "", "The answer is 1 or 2."]
  assert source.verify([task] * 5, texts) == ["solved", "no_attempt", "wrong", "no_attempt", "no_attempt"]
  kinds = [source.kind(task, t) for t in texts]
  assert kinds[:4] == ["answer_attempt", "clarification", "answer_attempt", "missing"]
  assert [source.reason(task, t) for t in texts] == ["equal", "", "differs", "", "no_answer"]
  with pytest.raises(DataError, match="gsm8k has whole tasks alone"):
    source.task("gsm8k", "train", 0, reveal="on_question")


def test_the_scripted_teacher_says_which_way_and_never_the_answer(tmp_path):
  write(tmp_path, "gsm8k/train.jsonl", gsm8k_rows())
  write(tmp_path, "omni_math/a.jsonl", [{"problem": f"{word(i + 30)}", "answer": f"y=x^{{{i + 7}}}"} for i in range(9)])
  source = source_of(tmp_path, "gsm8k,omni_math")
  task, curve = source.task("gsm8k", "train", 0), source.task("omni_math", "train", 0)
  gold = int(task.private["answer"])
  assert reply(source, "full", task, f"The answer is {gold - 1}.").text.endswith("It is too low.")
  assert reply(source, "full", task, f"The answer is {gold + 1}.").text.endswith("It is too high.")
  assert reply(source, "full", task, "hm").text == "Please answer with a number."
  assert reply(source, "full", curve, "hm").text == "Please put your answer in \\boxed{}."
  assert reply(source, "full", task, "Is it big?").text == "I can not say."
  assert reply(source, "none", task, "The answer is 1.").text == ""
  assert reply(source, "try_again", task, "The answer is 1.").text == TRY_AGAIN
  for arm in ARMS:
    for t in (task, curve):
      for text in ("The answer is \\boxed{1}.", "The answer is 9999.", "Is it big?", "hm"):
        words = reply(source, arm, t, text).text
        assert t.private["answer"] not in words
        if arm in ("no_private", "binary", "try_again"):
          assert "low" not in words and "high" not in words
  assert reply(source, "binary", curve, "\\boxed{y}").text in USUAL_WORDS


def test_a_lazy_user_by_rule_tells_a_shard_a_turn(tmp_path):
  write(tmp_path, "lost_in_conversation/a_verbatim.jsonl", [lic_row(i) for i in range(8)])
  source = source_of(tmp_path, "lost_in_conversation")
  task = source.task("lost_in_conversation", "train", 0, reveal="every_turn")
  first = reply(source, "full", task, "How many does Bob buy?")
  assert (first.text, first.shard) == ("Bob buys 4.", 3)  # what fits best
  dialogue = talk(task, "How many does Bob buy?", first.text, "Then 4.")
  dialogue.turns[2].shard = 3
  second = as_reply(source.teacher("try_again").reply([task], [dialogue])[0])
  assert (second.text, second.shard) == ("Ann has 3 pens.", 2)  # in every arm: it is the task and no feedback
  snow = source.task("lost_in_conversation", "train", 0, reveal="snowball")
  said = as_reply(source.teacher("full").reply([snow], [dialogue])[0])
  assert "how many pens?" in said.text and "Bob buys 4." in said.text and said.text.endswith("Ann has 3 pens.")
  asks = source.task("lost_in_conversation", "train", 0, reveal="on_question")
  assert reply(source, "full", asks, "The answer is 3.").shard == 0
  assert reply(source, "full", asks, "How many pens does Ann have?").shard == 2
  whole = source.task("lost_in_conversation", "train", 0)
  assert whole.text == whole.whole and not whole.shards and whole.turn_cap is None
  worded = source_of(tmp_path, "lost_in_conversation", compat="reference")
  assert reply(worded, "full", task, "Bob?").text == "Bob buys 4"


def test_compat_reference_judges_as_the_reference_does(tmp_path):
  """Its extraction strips "$100.00" to "1"."""
  rows = [lic_row(i, answer="so\n#### 100") for i in range(5)]
  write(tmp_path, "lost_in_conversation/a_verbatim.jsonl", rows)
  verdicts = {}
  for compat in ("fixed", "reference"):
    source = source_of(tmp_path, "lost_in_conversation", compat=compat)
    task = source.task("lost_in_conversation", "train", 0, reveal="every_turn")
    verdicts[compat] = source.verify([task], ["The answer is $100.00"])
  assert verdicts == {"fixed": ["solved"], "reference": ["wrong"]}


@pytest.mark.parametrize("text, value", [
    ("Answer: [1, 2]", [1, 2]), ("so\nThe answer is 'a b'", "a b"), ("Answer: `(1,)`.", (1,)),
    ("answer: {1: 'x'}", {1: "x"}),
    ("Answer: 1\nAnswer: 2", 2), ("**Answer: True**", True),
])  # fmt: skip
def test_values(text, value):
  assert value_of(text) == (value,)


@pytest.mark.parametrize("text", [
    "", "5", "Answer: f(1)", "Answer: ", "Answer: " + "[" * 5000, "Answer: __import__('os')",
    "Answer: " + "1" * 20_000, "Answer: " + "-" * 3000 + "1",
])  # fmt: skip
def test_no_values(text):
  assert value_of(text) is None


def test_code_reading_compares_values_by_type(tmp_path):
  rows = [{"code": f"def f(x):\n    return [x, {i}]", "input": "1", "output": o, "id": str(i)}
          for i, o in enumerate(("(1, 2)", "True", "{'b': 1, 'a': 2}", "1.0", "[float('nan')]")[:4])]  # fmt: skip
  write(tmp_path, "cruxeval/a.jsonl", rows)
  tasks = list(Loader(str(tmp_path)).load("cruxeval").values())
  judge = Judge(config_of(tmp_path, "cruxeval"))
  right = ["Answer: (1, 2)", "Answer: True", "Answer: {'a': 2, 'b': 1}", "Answer: 1.0"]
  wrong = ["Answer: [1, 2]", "Answer: 1", "Answer: {'a': 2}", "Answer: 1"]
  assert judge.verdicts(tasks, right) == ["solved"] * 4 and judge.verdicts(tasks, wrong) == ["wrong"] * 4
  assert judge.verdicts(tasks, ["no idea"] * 4) == ["no_attempt"] * 4


def test_what_judging_needs_is_missed_at_once(tmp_path, monkeypatch):
  write(tmp_path, "omni_math/a.jsonl", [{"problem": word(i), "answer": "y=x"} for i in range(9)])
  write(tmp_path, "mbpp/a.jsonl", [{"task_id": 1, "text": "t", "code": "def f(): return 1", "test_list":
                                    ["assert f() == 1"]}])  # fmt: skip
  monkeypatch.setattr("sml_jax.tasks.answers.symbolic.available", lambda: False)
  with pytest.raises(UserError, match="formulas are compared by Math-Verify: pip install"):
    source_of(tmp_path, "omni_math")
  monkeypatch.setattr("sml_jax.tasks.sandbox.works", lambda name, memory_mb: "not on this machine")
  with pytest.raises(UserError, match=r"no sandbox works here \(bubblewrap: not on this machine; namespaces"):
    source_of(tmp_path, "mbpp")


@needs_data
def test_every_shared_data_set_loads():
  sizes = {}
  for name in ("gsm8k", "svamp", "omni_math", "humaneval", "mbpp", "cruxeval", "lost_in_conversation"):
    sizes[name] = len(Loader(str(DATA), "skip_and_count").load(name))
  assert sizes == {"gsm8k": 7473, "svamp": 544, "omni_math": 1385, "humaneval": 84, "mbpp": 723, "cruxeval": 413,
                   "lost_in_conversation": 19}  # fmt: skip
  assert set(sizes) < set(SCHEMAS)


def test_the_references_snowball_user_forgets_what_it_told(tmp_path):
  write(tmp_path, "lost_in_conversation/a_verbatim.jsonl", [lic_row(i) for i in range(8)])
  heard = {}
  for compat in ("fixed", "reference"):
    source = source_of(tmp_path, "lost_in_conversation", compat=compat)
    task = source.task("lost_in_conversation", "train", 0, reveal="snowball")
    dialogue = talk(task, "And Bob?", "Bob buys 4", "And Bob?")
    dialogue.turns[2].shard = 3
    heard[compat] = as_reply(source.teacher("full").reply([task], [dialogue])[0]).shard
  assert heard == {"fixed": 2, "reference": 3}
