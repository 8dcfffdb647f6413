"""Installs what sml_jax needs beside the jax that is there: Colab's and Kaggle's fit their chips, another may not.

  python launch/install_beside_jax.py

Uses nothing but the standard library and pip. Where there is no jax, pip takes the newest that fits.
"""

from __future__ import annotations

import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

KEPT = re.compile(r"jax|jaxlib|libtpu|jax-cuda\d+-(plugin|pjrt)")


def main() -> int:
  project = tomllib.loads((pathlib.Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
  found = {d.metadata["Name"].lower().replace("_", "-"): d.version for d in importlib.metadata.distributions()}
  kept = {name: version for name, version in found.items() if KEPT.fullmatch(name)}
  needed = next(r.removeprefix("jax>=") for r in project["dependencies"] if r.startswith("jax>="))
  if _numbers(kept.get("jax", needed)) < _numbers(needed):
    print(f"error: the jax of this machine is {kept['jax']}, and sml_jax needs {needed} or newer; to replace it: "
          "pip install --upgrade 'jax[tpu]' (or 'jax[cuda12]'), and restart the session", file=sys.stderr)
    return 1
  print("kept:", ", ".join(f"{name} {version}" for name, version in sorted(kept.items())) or "nothing")
  with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
    pins.writelines(f"{name}=={version}\n" for name, version in kept.items())
    pins.flush()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", f"--constraint={pins.name}"]
    return subprocess.run([*pip, *project["dependencies"]]).returncode


def _numbers(version: str) -> list[int]:
  return [int(n) for n in re.findall(r"\d+", version)[:3]]


if __name__ == "__main__":
  sys.exit(main())
