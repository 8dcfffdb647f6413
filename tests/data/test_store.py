"""The dialogue record: bytes, order, broken lines, and the ArrayRecord data set made from it."""

from __future__ import annotations

import gzip
import json
import pathlib
import subprocess
import sys

import pytest

from sml_jax.data.store import DialogueWriter, build_dataset, open_dataset, read_dialogues
from sml_jax.dialogue.record import Dialogue, Turn


def dialogue(name: str) -> Dialogue:
  turns = [
      Turn("teacher", "was ist 2 + 3?\u2028Zeile", tokens=[2, 10, 4]),
      Turn("student", "5", tokens=[15, 4], prompt=[3], logprobs=[-0.25, -1e-6], kind="answer_attempt",
           verdict="solved", answer_nll=0.5),
  ]
  return Dialogue(name, "math", 3, "try_again", turns, end="solved", bos=[1], reward=1.0, advantages=[0.5])


def names(folder, steps=None):
  return [d.task_id for d in read_dialogues(folder, steps)]


def test_reads_back_equal_and_in_order(tmp_path):
  writer = DialogueWriter(tmp_path)
  for step, process in ((100_000_000, 0), (2, 10), (2, 9), (10, 0), (2, 0)):
    writer.write(step, process, [dialogue(f"{step}.{process}.{i}") for i in range(2)])
  order = ["2.0", "2.9", "2.10", "10.0", "100000000.0"]  # By number, where names would put 10 before 9.
  assert names(tmp_path) == [f"{o}.{i}" for o in order for i in range(2)]
  assert names(tmp_path, steps={10}) == ["10.0.0", "10.0.1"]
  assert next(read_dialogues(tmp_path)) == dialogue("2.0.0")


def test_one_object_a_step_and_process_with_reproducible_bytes(tmp_path):
  path = DialogueWriter(tmp_path / "a").write(12, 3, [dialogue("x")])
  again = DialogueWriter(tmp_path / "b").write(12, 3, [dialogue("x")])
  assert path.name == "step_00000012.p3.jsonl.gz" and path.read_bytes() == again.read_bytes()
  assert path.read_bytes()[4:8] == bytes(4)  # gzip's time stamp
  assert [p.name for p in (tmp_path / "a").iterdir()] == [path.name]
  writer = DialogueWriter(tmp_path / "a")
  writer.write(12, 3, [dialogue("y")])  # A step that is done again replaces what it wrote before.
  assert names(tmp_path / "a") == ["y"]
  writer.write(13, 0, [])
  assert names(tmp_path / "a") == ["y"]


def test_discard_after_removes_later_steps_of_every_process(tmp_path):
  writer = DialogueWriter(tmp_path)
  for step in (1, 2, 3):
    for process in (0, 1):
      writer.write(step, process, [dialogue(f"{step}.{process}")])
  (tmp_path / ".step_00000002.p1.jsonl.gz.part").write_bytes(b"half")
  (tmp_path / "notes.txt").write_text("mine")
  assert writer.discard_after(2) == 2
  assert names(tmp_path) == ["1.0", "1.1", "2.0", "2.1"]
  assert (tmp_path / "notes.txt").exists() and not list(tmp_path.glob(".*"))


def good() -> dict:
  return json.loads(dialogue("x").to_json())


def changed(**fields) -> str:
  return json.dumps(good() | fields)


def without(name: str) -> str:
  return json.dumps({k: v for k, v in good().items() if k != name})


@pytest.mark.parametrize(("line", "message"), [
    ("{\"task_id\": ", "Expecting value"),
    ("[1]", "line: not a JSON object"),
    (without("task_id"), "task_id: missing"),
    (changed(colour="red"), "colour: unknown field"),
    (changed(sample="3"), 'sample: "3" is not int'),
    (changed(feedback="loud"), 'feedback: "loud" is not'),
    (changed(reward="1"), 'reward: "1" is not float | None'),
    (changed(bos=[1, 2.5]), "bos: [1, 2.5] is not list[int]"),
    (changed(turns=[{"role": "teacher", "text": "a"}, {"role": "student"}]), "turns[1].text: missing"),
    (changed(turns=[{"role": "judge", "text": "a"}]), 'turns[0].role: "judge" is not'),
    (changed(turns=[{"role": "student", "text": "a", "tokens": [1, "2"]}]), "turns[0].tokens: [1, \"2\"] is not list"),
    (changed(turns="none"), 'turns: "none" is not list[Turn]'),
])
def test_malformed_line_names_file_line_and_field(tmp_path, line, message):
  DialogueWriter(tmp_path / "record").write(1, 0, [dialogue("a")])
  path = tmp_path / "record" / "step_00000002.p0.jsonl.gz"
  path.write_bytes(gzip.compress(f"{dialogue('b').to_json()}\n{line}\n".encode()))
  expected = f"{path}, line 2: {message}"
  with pytest.raises(ValueError) as caught:
    list(read_dialogues(tmp_path / "record"))
  assert str(caught.value).startswith(expected)
  with pytest.raises(ValueError, match="line 2"):
    build_dataset(tmp_path / "record", tmp_path / "dataset")
  with pytest.raises(FileNotFoundError):
    open_dataset(tmp_path / "dataset")  # A build that failed leaves no data set.


def test_text_may_hold_any_line_separator(tmp_path):
  """A line of JSONL ends at a newline; Python's splitlines would also cut it at U+2028, which JSON allows."""
  line = json.dumps(good(), ensure_ascii=False)
  assert "\u2028" in line
  (tmp_path / "step_00000001.p0.jsonl.gz").write_bytes(gzip.compress(f"{line}\n{line}\n".encode()))
  assert list(read_dialogues(tmp_path)) == [dialogue("x")] * 2


def test_a_file_that_is_not_gzip_is_named(tmp_path):
  path = DialogueWriter(tmp_path).write(1, 0, [dialogue("a")])
  path.write_bytes(path.read_bytes()[:20])
  with pytest.raises(ValueError, match=r"step_00000001\.p0\.jsonl\.gz: not a gzip file"):
    list(read_dialogues(tmp_path))


def test_dataset_holds_the_record_in_its_order(tmp_path):
  writer = DialogueWriter(tmp_path / "record")
  for step in range(30):
    writer.write(step, 0, [dialogue(f"{step}.{i}") for i in range(50)])
  source = open_dataset(build_dataset(tmp_path / "record", tmp_path / "dataset"))
  expected = [f"{s}.{i}" for s in range(30) for i in range(50)]
  assert len(source) == 1500 and [d.task_id for d in source] == expected
  assert source[777] == dialogue(expected[777])
  assert list(tmp_path.glob("dataset/**/*.array_record*"))


def test_dataset_is_built_once_for_a_record(tmp_path, capfd):
  writer = DialogueWriter(tmp_path / "record")
  writer.write(1, 0, [dialogue("a")])
  build = lambda: build_dataset(tmp_path / "record", tmp_path / "dataset")
  stamp = lambda: next(tmp_path.glob("dataset/**/*.array_record*")).stat().st_mtime_ns
  (tmp_path / "dataset").mkdir()
  (tmp_path / "dataset" / "notes.txt").write_text("mine")
  build()
  first = stamp()
  build()
  assert stamp() == first
  writer.write(1, 0, [dialogue("b")])
  assert [d.task_id for d in open_dataset(build())] == ["b"]
  assert (tmp_path / "dataset" / "notes.txt").exists()
  assert "ownload" not in capfd.readouterr().out  # TFDS' banner about a download


def test_empty_record_is_refused(tmp_path):
  DialogueWriter(tmp_path / "record").write(1, 0, [])
  with pytest.raises(ValueError, match="holds no dialogues"):
    build_dataset(tmp_path / "record", tmp_path / "dataset")


def test_no_tensorflow(tmp_path):
  script = (
      "import sys\n"
      "from sml_jax.data.store import *\n"
      "from sml_jax.dialogue.record import Dialogue\n"
      f"DialogueWriter({str(tmp_path / 'r')!r}).write(1, 0, [Dialogue('a', 'math', 0, 'full')])\n"
      f"assert open_dataset(build_dataset({str(tmp_path / 'r')!r}, {str(tmp_path / 'd')!r}))[0].task_id == 'a'\n"
      "assert 'tensorflow_datasets' in sys.modules and 'tensorflow' not in sys.modules\n")
  subprocess.run([sys.executable, "-c", script], check=True, timeout=60, cwd=pathlib.Path(__file__).parents[2])
