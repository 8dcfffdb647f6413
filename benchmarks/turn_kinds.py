r"""How often the rules of sml_jax/tasks/turn_kinds.py agree with labels by hand:

  python benchmarks/turn_kinds.py [--labels=FILE] [--show] [--whole]

FILE has one JSON object a line (default: turn_kinds.jsonl beside this program, labelled by one person, its author):

  {"text": "How much is one pen?", "domain": "number", "kind": "clarification"}

text: a student turn. domain: the form of an answer: number, latex (in \boxed{}) or code. kind: answer_attempt,
clarification, interrogation, discussion, hedge, refuse or missing. "held_out": true marks rows that were written and
labelled after the rules were fixed; both halves are reported. Prints the share of rows that agree with its 95% Wilson
interval, Cohen's kappa, the same share of each kind, and who was taken for what.
"""

from __future__ import annotations

import argparse
import collections
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from sml_jax.dialogue.record import Kind
from sml_jax.errors import UserError
from sml_jax.evaluate.statistics import Z95
from sml_jax.tasks.jsonl import bad_row, read_rows
from sml_jax.tasks.turn_kinds import Domain, classify

KINDS = get_args(Kind)


def read_labels(path: str) -> list[dict[str, Any]]:
  """The rows of a file of labels. Raises DataError with file, line and field."""
  rows = []
  for line, row in read_rows(path, {"text": str, "domain": str, "kind": str}):
    for field, known in (("domain", get_args(Domain)), ("kind", KINDS)):
      if row[field] not in known:
        raise bad_row(path, line, field, f"one of {', '.join(known)}", row[field])
    if type(row.get("held_out", False)) is not bool:
      raise bad_row(path, line, "held_out", "true or false", row["held_out"])
    rows.append(row)
  return rows


def wilson(hits: int, n: int) -> tuple[float, float]:
  """95% interval of a share (Wilson 1927): it stays within 0 and 1, and has a width where all n agree."""
  share, z = hits / n, Z95 * Z95 / n
  middle, half = share + z / 2, Z95 * math.sqrt(share * (1 - share) / n + z / (4 * n))
  return (middle - half) / (1 + z), (middle + half) / (1 + z)


def kappa(pairs: Sequence[tuple[str, str]]) -> float:
  """Agreement beyond chance of (label, given) pairs (Cohen 1960); 1 where only one kind occurs on both sides."""
  n = len(pairs)
  labels, given = (collections.Counter(side) for side in zip(*pairs, strict=True))
  chance = sum(labels[kind] * given[kind] for kind in labels) / (n * n)
  return 1.0 if chance == 1 else (sum(a == b for a, b in pairs) / n - chance) / (1 - chance)


def report(title: str, pairs: Sequence[tuple[str, str]]) -> str:
  """The lines about one half."""
  counts, hits = collections.Counter(pairs), sum(a == b for a, b in pairs)
  lo, hi = wilson(hits, len(pairs))
  lines = [f"{title}: {hits} of {len(pairs)} agree, {hits / len(pairs):.3f} (Wilson 95% {lo:.3f} to {hi:.3f}), "
           f"Cohen's kappa {kappa(pairs):.3f}"]  # fmt: skip
  lines.append(f"{'label / given':<16}{''.join(f'{kind[:7]:>9}' for kind in KINDS)}   agree")
  for kind in KINDS:
    n = sum(counts[kind, other] for other in KINDS)
    share = "      -" if not n else "  {:5.3f} ({:.3f} to {:.3f})".format(counts[kind, kind] / n,
                                                                       *wilson(counts[kind, kind], n))  # fmt: skip
    lines.append(f"{kind:<16}{''.join(f'{counts[kind, other]:>9}' for other in KINDS)} {share}")
  return "\n".join(lines)


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument("--labels", default=str(Path(__file__).with_suffix(".jsonl")), metavar="FILE")
  parser.add_argument("--show", action="store_true", help="also print the turns on which they differ")
  parser.add_argument("--whole", action="store_true", help="judge the turns as of talks that hide nothing")
  args = parser.parse_args()
  try:
    rows = read_labels(args.labels)
    if not rows:
      raise UserError(f"{args.labels}: holds no rows")
  except UserError as e:
    print(f"error: {e}", file=sys.stderr)
    return 1
  blocks = []
  for title, held_out in (("rules made on these", False), ("held out", True)):
    half = [row for row in rows if row.get("held_out", False) is held_out]
    if not half:
      continue
    given = [classify(row["text"], domain=row["domain"], sharded=not args.whole) for row in half]
    lines = [report(title, [(row["kind"], kind) for row, kind in zip(half, given, strict=True)])]
    if args.show:
      lines += [f"  {row['domain']}, label {row['kind']}, given {kind}: {row['text']!r}"
                for row, kind in zip(half, given, strict=True) if kind != row["kind"]]  # fmt: skip
    blocks.append("\n".join(lines))
  print("\n\n".join(blocks))
  return 0


if __name__ == "__main__":
  sys.exit(main())
