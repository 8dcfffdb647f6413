"""Train, dev and test: by problem, seeded by a salt, with near copies of a problem kept on one side."""

from __future__ import annotations

import collections
import hashlib
import re
from collections.abc import Sequence

PARTS = ("train", "dev", "test")
RUN = 5
"""Words of a run; numbers are masked, so that a problem and its variation with other numbers share their runs."""
SHARED = 0.5
"""Two problems are near copies if the smaller has at least this share of its runs in the larger."""
_COMMON = 50
"""A run that more problems have than this is a phrase, and finds nobody's copy."""


def normalise(text: str) -> str:
  """Words and numbers alone, in small letters: what two copies of a problem share."""
  return " ".join(re.findall(r"\w+", text.lower()))


def part_of(text: str, salt: str, dev: float = 0.1, test: float = 0.1) -> str:
  """train, dev or test as a function of the problem and the salt, so that no part shares one; shares of the two."""
  digest = hashlib.sha256(f"{salt}|{normalise(text)}".encode()).digest()
  u = int.from_bytes(digest[:8], "big") / 2**64
  return "dev" if u < dev else "test" if u < dev + test else "train"


def runs_of(text: str) -> frozenset[str]:
  words = ["#" if w[0].isdigit() else w for w in normalise(text).split()]
  return frozenset(" ".join(words[i : i + RUN]) for i in range(max(1, len(words) - RUN + 1)))


def near_copies(texts: Sequence[str]) -> list[tuple[int, int]]:
  """Pairs (i, j), i < j, of near copies (see SHARED), found by the runs that they share."""
  runs = [runs_of(t) for t in texts]
  having = collections.defaultdict(list)
  for i, found in enumerate(runs):
    for run in found:
      having[run].append(i)
  out = []
  for j, found in enumerate(runs):
    shared = collections.Counter(i for run in found if len(having[run]) <= _COMMON for i in having[run] if i < j)
    out += [(i, j) for i, n in sorted(shared.items()) if n >= SHARED * min(len(runs[i]), len(found))]
  return out


def representatives(texts: Sequence[str]) -> list[str]:
  """For each text the one that stands for it and all its near copies: the first in order of the alphabet."""
  parent = list(range(len(texts)))

  def root(i: int) -> int:
    while parent[i] != i:
      parent[i] = parent[parent[i]]
      i = parent[i]
    return i

  for i, j in near_copies(texts):
    a, b = root(i), root(j)
    if a != b:
      first, other = (a, b) if normalise(texts[a]) <= normalise(texts[b]) else (b, a)
      parent[other] = first
  return [texts[root(i)] for i in range(len(texts))]
