"""The certificate: given to the three families, refused for each thing that may be wrong, with the exit codes."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys

import chat_folders
import pytest

from sml_jax.dialogue import certify
from sml_jax.dialogue.renderer import Renderer, make_renderer


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
  path = tmp_path_factory.mktemp("families")
  out = {name: str(make(path / name)) for name, make in chat_folders.FAMILIES.items()}
  return out | {"dated": str(chat_folders.llama3(path / "dated", dated=True))}


def outcomes(capsys, *arguments: str) -> tuple[int, dict[str, str], str]:
  """Exit code, outcome by check, and all that was printed."""
  code = certify.main(arguments)
  text = capsys.readouterr().out
  lines = [line.split(None, 1) for line in text.splitlines() if line.startswith("  ")]
  return code, {rest[:27].strip(): outcome for outcome, rest in lines}, text


@pytest.mark.parametrize(("name", "family", "more", "says"), [
    ("gemma3", "gemma3", (), "the same ids before every student turn"),
    ("llama3", "llama3", (), "the same ids before every student turn"),
    ("dated", "llama3", (), "the template begins with a system text of its own, 'Cutting Knowledge"),
    ("qwen3", "qwen3", (), 'drops the thinking of past turns, thinking="keep" keeps it'),
    ("qwen3", "qwen3", ("--enable_thinking",), 'drops the thinking of past turns, thinking="keep" keeps it'),
    ("qwen3", "qwen3", ("--thinking=strip",), "the same ids before every student turn"),
    ("qwen3", "qwen3", ("--thinking=strip", "--enable_thinking"), "the same ids before every student turn"),
])  # fmt: skip
def test_the_families_are_certified(capsys, folders, name, family, more, says):
  code, by_check, text = outcomes(capsys, f"--tokenizer={folders[name]}", f"--family={family}", *more)
  assert code == 0 and set(by_check.values()) == {"PASS"} and len(by_check) == 9, text
  assert says in text and "certified: 9 checks passed, 0 skipped" in text


def refused(capsys, folder, family="qwen3", *more) -> dict[str, str]:
  code, by_check, text = outcomes(capsys, f"--tokenizer={folder}", f"--family={family}", *more)
  assert code == 1 and "NOT certified" in text, text
  return {check for check, outcome in by_check.items() if outcome == "FAIL"}


def test_an_end_of_text_that_ends_no_turn_is_refused(capsys, tmp_path):
  folder = chat_folders.qwen3(tmp_path, special=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|done|>"))
  config = json.loads((folder / "tokenizer_config.json").read_text()) | {"eos_token": "<|done|>"}
  (folder / "tokenizer_config.json").write_text(json.dumps(config))
  assert refused(capsys, folder) == {"all stop ids are known"}


def test_a_missing_stop_piece_is_refused_unless_a_file_says_what_ends_a_turn(capsys, tmp_path):
  folder = chat_folders.qwen3(tmp_path, template="", special=("<|im_start|>", "<|im_end|>"))
  assert refused(capsys, folder) == {"all stop ids are known"}
  (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 701}))
  code, _, text = outcomes(capsys, f"--tokenizer={folder}", "--family=qwen3")
  assert code == 0 and "701 <|im_end|>; the tokenizer has no <|endoftext|>" in text


def test_a_tokenizer_that_changes_text_is_refused(capsys, tmp_path):
  assert "text comes back" in refused(capsys, chat_folders.qwen3(tmp_path, normalize=True))


def test_a_tokenizer_that_puts_a_space_before_text_is_refused(capsys, tmp_path):
  folder = chat_folders.gemma3(tmp_path, template="", add_dummy_prefix=True)
  assert "header and text join" in refused(capsys, folder, "gemma3")


@pytest.mark.parametrize("change", [
    ("{{ '<|im_start|>assistant\\n' }}", "{{ '<|im_start|>model\\n' }}"),
    ("m.content + '<|im_end|>", "m.content | trim + '<|im_end|>"),
    ("'<|im_end|>\\n' }}\n  {%- endif", "'<|im_end|>' }}\n  {%- endif"),
])  # fmt: skip
def test_another_template_is_refused(capsys, tmp_path, change):
  assert chat_folders.QWEN3.count(change[0]) == 1
  folder = chat_folders.qwen3(tmp_path, template=chat_folders.QWEN3.replace(*change))
  for policy in ("keep", "strip"):
    assert refused(capsys, folder, "qwen3", f"--thinking={policy}") == {"equals the chat template"}


class Forgeable(Renderer):
  def _encode(self, text):
    return tuple(self.tokenizer.encode(text))


class Reencoding(Renderer):
  def sampled_turn(self, tokens, logprobs):
    return self.student_turn(super().sampled_turn(tokens, logprobs).text)


class Endless(Renderer):
  """The end of turn belongs to the next turn."""

  def student_turn(self, text):
    turn = super().student_turn(text)
    turn.tokens.pop()
    return turn


class TrainsHeader(Renderer):
  def _by_student(self, text, tokens, **fields):
    turn = super()._by_student(text, tokens, **fields)
    turn.prompt, turn.tokens = [], [*turn.prompt, *turn.tokens]
    return turn


class Forgetful(Renderer):
  """Renders as a template that drops past thinking, and says that it keeps it."""

  def render(self, dialogue):
    if dialogue.turns and dialogue.turns[-1].role == "student":
      return super().render(dialogue)
    return [t for t in super().render(dialogue) if t not in self._think]


@pytest.mark.parametrize(("kind", "check"), [
    (Forgeable, "text can not forge a role"), (Reencoding, "ids stay as sampled"), (Forgetful, "renders extend"),
    (Endless, "end of turn is in the loss"), (TrainsHeader, "mask counts student tokens"),
])  # fmt: skip
def test_each_check_finds_what_it_is_there_for(folders, kind, check):
  chat = make_renderer(folders["qwen3"], "qwen3").chat
  found = dict(certify.certify(functools.partial(kind, folders["qwen3"], chat)))
  assert found[check][0] == "FAIL", found


def test_without_transformers_or_a_template_the_comparison_is_skipped(capsys, folders, tmp_path, monkeypatch):
  bare = chat_folders.qwen3(tmp_path, template="")
  code, by_check, _ = outcomes(capsys, f"--tokenizer={bare}", "--family=qwen3")
  assert code == 0 and by_check["equals the chat template"] == "SKIP"
  monkeypatch.setitem(sys.modules, "transformers", None)
  code, by_check, text = outcomes(capsys, f"--tokenizer={folders['qwen3']}", "--family=qwen3")
  assert code == 0 and by_check["equals the chat template"] == "SKIP" and "transformers is not installed" in text
  assert "certified: 8 checks passed, 1 skipped" in text


def test_the_command(folders, tmp_path):
  """Help, and exit code 2 with one line for bad input."""
  def run(*arguments):
    command = [sys.executable, "-m", "sml_jax.dialogue.certify", *arguments]
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, cwd=chat_folders.ROOT, env=env, capture_output=True, text=True)

  done = run("--help")
  assert done.returncode == 0 and "--thinking {keep,strip}" in done.stdout
  done = run(f"--tokenizer={tmp_path}", "--family=qwen3")
  assert done.returncode == 2 and done.stderr.startswith("error: tokenizer ") and len(done.stderr.splitlines()) == 1
  assert certify.main([f"--tokenizer={folders['qwen3']}", "--family=gemma3"]) == 2
  assert certify.main([f"--tokenizer={folders['gemma3']}", "--family=gemma3", "--thinking=strip"]) == 2
  with pytest.raises(SystemExit, match="2"):
    certify.main(["--tokenizer=x", "--family=gpt2"])
