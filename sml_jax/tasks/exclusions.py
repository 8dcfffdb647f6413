"""Tasks that are left out: by id, by files of ids, and the rows that others reported as defective."""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath

from sml_jax.tasks.jsonl import DataError

KNOWN_ISSUES = epath.resource_path("sml_jax") / "tasks" / "known_issues.txt"


def known_issues() -> set[str]:
  """Ids of the rows that are known to be defective."""
  return read_exclusions(("known",))


def read_exclusions(names: Sequence[str]) -> set[str]:
  """Ids, from a list of ids, files with one id a line (# begins a comment), and "known"."""
  out = set()
  for name in names:
    path = KNOWN_ISSUES if name == "known" else epath.Path(name)
    if name != "known" and not path.exists():
      if "/" in name and name.endswith(".txt"):
        raise DataError(f"tasks.exclude: there is no file {name}")
      out.add(name)
      continue
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    out |= {line for line in lines if line}
  return out
