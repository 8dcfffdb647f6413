import json

import pytest
from etils import epath

from sml_jax import config as c
from sml_jax.config_check import validate
from sml_jax.workdir import Workdir, WorkdirError, read_json, write_json


def make(edit=None):
  config = c.get_default()
  config.stages.data = c.stage("synthesize", author="scripted")
  config.stages.mt_sft = c.stage("sft", data="data", steps=20)
  if edit:
    edit(config)
  return validate(config)


def change(path, value):
  def edit(config):
    *parents, name = path.split(".")
    for parent in parents:
      config = config[parent]
    config[name] = value
  return make(edit)


def test_a_new_folder_saves_the_resolved_config(tmp_path):
  workdir = Workdir(tmp_path / "runs" / "a", make())
  saved = json.loads((tmp_path / "runs" / "a" / "config.json").read_text())
  assert saved["stages"]["mt_sft"]["row_length"] == 512
  assert list(saved["stages"]) == ["data", "mt_sft"]
  assert workdir.changes == []
  assert Workdir(tmp_path / "runs" / "a", make()).changes == []
  assert not (tmp_path / "runs" / "a" / "config_changes.json").exists()


@pytest.mark.parametrize("path, value, old", [
    ("seed", 1, 0), ("model.layers", 4, 3), ("data_dir", "elsewhere", ""), ("tasks.split_salt", "1", "0"),
    ("dialogue.feedback", "binary", "full"), ("stages.mt_sft.optimizer.learning_rate", 2e-3, 1e-3),
    ("stages.data.dialogues", 5, 1000),
])
def test_another_experiment_is_refused_and_named(tmp_path, path, value, old):
  Workdir(tmp_path, make())
  before = (tmp_path / "config.json").read_text()
  with pytest.raises(WorkdirError) as e:
    Workdir(tmp_path, change(path, value))
  assert f"{path} was {old!r}, now {value!r}" in str(e.value)
  assert "another --workdir" in str(e.value) and "\n" not in str(e.value)
  assert (tmp_path / "config.json").read_text() == before


def test_what_may_change_is_logged_and_saved(tmp_path):
  Workdir(tmp_path, make())
  changes = Workdir(tmp_path, change("stages.mt_sft.micro_batch_rows", 4)).changes
  assert changes == [("stages.mt_sft.micro_batch_rows", 0, 4)]
  assert read_json(tmp_path / "config.json")["stages"]["mt_sft"]["micro_batch_rows"] == 4
  # Relative to the config saved last.
  changes = Workdir(tmp_path, change("mesh.data", 2)).changes
  assert sorted(changes) == [("mesh.data", 1, 2), ("stages.mt_sft.micro_batch_rows", 4, 0)]
  log = read_json(tmp_path / "config_changes.json")
  assert [len(entry["changes"]) for entry in log] == [1, 2]
  assert log[0]["changes"] == [{"key": "stages.mt_sft.micro_batch_rows", "old": 0, "new": 4}]


def test_total_steps_may_change_until_the_stage_is_done(tmp_path):
  workdir = Workdir(tmp_path, make())
  assert Workdir(tmp_path, change("stages.mt_sft.steps", 30)).changes == [("stages.mt_sft.steps", 20, 30)]
  workdir.mark_done("mt_sft", {"seconds": 1.5})
  with pytest.raises(WorkdirError, match=r"stages\.mt_sft\.steps was 30, now 20 \(the stage is done\)"):
    Workdir(tmp_path, make())


def test_an_inherited_change_is_named_once(tmp_path):
  Workdir(tmp_path, make())
  with pytest.raises(WorkdirError) as e:
    Workdir(tmp_path, change("dialogue.turns", 5))
  assert str(e.value).count(" was ") == 1


def test_stages_may_be_added_at_the_end_and_not_elsewhere(tmp_path):
  Workdir(tmp_path, make())
  added = change("stages.more", c.stage("rl", init="mt_sft"))
  assert Workdir(tmp_path, added).changes == [("stages.more", None, "rl")]
  with pytest.raises(WorkdirError, match=r"stages was \['data', 'mt_sft', 'more'\], now \['data', 'mt_sft'\]"):
    Workdir(tmp_path, make())


def test_a_key_newer_than_the_folder_had_its_default(tmp_path):
  Workdir(tmp_path, make())
  saved = read_json(tmp_path / "config.json")
  del saved["model"]["layers"], saved["stages"]["data"]["turns"]
  write_json(tmp_path / "config.json", saved)
  assert Workdir(tmp_path, make()).changes == []
  with pytest.raises(WorkdirError, match=r"model\.layers was 3, now 5"):
    Workdir(tmp_path, change("model.layers", 5))


def test_done_marks(tmp_path):
  workdir = Workdir(tmp_path, make())
  assert workdir.stage_dir("data").is_dir() and not workdir.is_done("data")
  workdir.mark_done("data", {"dialogues": 3})
  assert workdir.is_done("data") and not workdir.is_done("mt_sft")
  assert workdir.done_info("data") == {"dialogues": 3}


def test_only_the_writer_touches_the_folder(tmp_path):
  Workdir(tmp_path / "a", make(), write=False)
  assert not (tmp_path / "a").exists()


def test_damaged_and_impossible_folders(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(WorkdirError, match="is a file"):
    Workdir(tmp_path / "file", make())
  with pytest.raises(WorkdirError, match="cannot make"):
    Workdir(tmp_path / "file" / "below", make())
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(WorkdirError, match="cannot be read"):
    Workdir(tmp_path, make())


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / "x.json"
  write_json(path, {"a": 1})

  def full(self, text, *args, **kwargs):
    with open(self, "w") as f:
      f.write(text[:3])
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(type(epath.Path(path)), "write_text", full)
  with pytest.raises(WorkdirError, match="No space left on device"):
    write_json(path, {"a": 2})
  assert read_json(path) == {"a": 1}


def test_another_file_behind_the_same_name_is_refused(tmp_path):
  Workdir(tmp_path, make()).keep("tokenizer", "abc", "was begun with another tokenizer")
  Workdir(tmp_path, make()).keep("tokenizer", "abc", "was begun with another tokenizer")
  with pytest.raises(WorkdirError, match=f"{tmp_path}: was begun with another tokenizer; choose another --workdir"):
    Workdir(tmp_path, make(), write=False).keep("tokenizer", "xyz", "was begun with another tokenizer")
