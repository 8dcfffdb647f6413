"""What the checkers' commands share."""

from __future__ import annotations

import os

import pytest

from sml_jax.errors import UserError
from sml_jax.tasks import commands


def test_the_output_is_whole_or_not_there(tmp_path):
  path = tmp_path / "out.jsonl"
  path.write_text("old")
  with pytest.raises(UnicodeEncodeError):
    commands.write_whole(path, "new \udc80")  # fails half-way
  assert path.read_text() == "old" and os.listdir(tmp_path) == ["out.jsonl"]
  commands.write_whole(path, "new \u00e9")
  assert path.read_text(encoding="utf-8") == "new \u00e9" and os.listdir(tmp_path) == ["out.jsonl"]
  assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error, code, said", [
    (UserError("which file"), 1, "error: which file\n"),
    (OSError("disk"), 1, "error: disk\n"),
    (KeyboardInterrupt(), 130, "error: interrupted; nothing is written\n"),
])  # fmt: skip
def test_exit_codes(error, code, said, capsys):
  def work():
    raise error

  assert commands.run(work) == code and capsys.readouterr().err == said
  assert commands.run(lambda: None) == 0
