"""What README.md tells people to type exists."""

from __future__ import annotations

import pathlib
import re
import shlex
import subprocess

import pytest
from toy import ROOT

from sml_jax import command_line

README = ROOT / "README.md"


def commands() -> list[str]:
  """The lines of the ```bash blocks, without comments, with continued lines joined."""
  text = README.read_text() if README.exists() else ""
  blocks = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
  lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
  return [line.split(" #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def targets() -> set[str]:
  return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))


@pytest.mark.skipif(not README.exists(), reason="no README yet")
def test_readme_commands_name_what_exists():
  found = [c for c in commands() if c.startswith(("make", "python -m sml_jax"))]
  assert found
  for command in found:
    words = shlex.split(command)
    if words[0] == "make":
      assert {w for w in words[1:] if "=" not in w} <= targets(), command
      continue
    module = ROOT / (words[2].replace(".", "/") + ".py")
    assert module.exists(), command
    for word in words:
      if word.startswith("--config="):
        file = word.removeprefix("--config=").split(":")[0]
        assert (ROOT / file).exists() or "NAME" in file, command


@pytest.mark.skipif(not README.exists(), reason="no README yet")
def test_readme_example_is_a_config(tmp_path):
  blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.M | re.S)
  examples = [b for b in blocks if "def get_config" in b]
  assert examples
  for i, example in enumerate(examples):
    file = tmp_path / f"example{i}.py"
    file.write_text(example)
    assert command_line.load(str(file), []).stages


def test_every_config_says_how_it_is_run():
  for file in (ROOT / "configs").glob("*.py"):
    assert f"python -m sml_jax.main --config=configs/{file.name}" in file.read_text(), file.name


def test_make_knows_the_commands():
  assert {"setup", "quickstart", "test", "lint", "unit", "integration", "experiments", "clean", "help"} <= targets()
  for target, says in (
      ("quickstart", "-m sml_jax.main --config=configs/quickstart.py --workdir=runs/quickstart"),
      ("test", "-m pytest"),
      ("lint", "ruff check"),
  ):
    plan = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert says in plan, plan
  assert "quickstart" in subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_ci_calls_make_test():
  script = ROOT / ".ci" / "run"
  assert script.stat().st_mode & 0o100
  assert script.read_text().splitlines()[-1] == "make test"


def test_old_python_is_refused(tmp_path):
  old = tmp_path / "python-old"
  old.write_text("#!/bin/sh\nexit 1\n")
  old.chmod(0o755)
  for name in ("Makefile", "requirements.txt", "requirements-dev.txt"):
    pathlib.Path(tmp_path / name).write_bytes((ROOT / name).read_bytes())
  done = subprocess.run(["make", "setup", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True, check=False)
  assert done.returncode and f"error: {old} is not Python 3.11 or newer" in done.stderr
  assert not (tmp_path / ".venv").exists()
