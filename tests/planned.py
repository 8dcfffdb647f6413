"""Plans several cases in one process, since libtpu is slow to start and changes the process it is in.

Reads a JSON list of lists of arguments of the program from standard input; prints a JSON list with, for each case, the
exit code, what was printed, and what was compiled.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys

import jax

from sml_jax import plan
from sml_jax.main import main
from sml_jax.plan_memory import device_bytes


def case(arguments: list[str]) -> dict:
  works, compiled = [], []
  make, compile_all = plan.Work, plan.compile_all
  plan.Work = lambda *a: works.append(make(*a)) or works[-1]
  plan.compile_all = lambda jobs, *a: compiled.append((jobs, compile_all(jobs, *a))) or compiled[-1][1]
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
    code = main(arguments)
  plan.Work, plan.compile_all = make, compile_all
  out = {"code": code, "printed": printed.getvalue(), "steps": {}}
  for jobs, programs in compiled:
    for name, program in programs.items():
      out["steps"][name] = {
          "ours": device_bytes(jobs[name].args),
          "xla": program.arguments,
          "work": program.work,
          "collectives": dict(program.collectives),
      }
    work = works[0]
    pairs = {"gradients": (work.training[0].state.params, programs[f"{work.training[0].name} gradient"])}
    if work.samples:
      pairs |= {"decode copy": (work.decode, programs["decode copy"]), "rows": (work.rows, programs["sample"])}
    for name, (arrays, program) in pairs.items():
      if program.shardings is not None:
        theirs = program.shardings if name == "decode copy" else program.shardings[0]
        out[name] = _shards(arrays, jax.tree.map(lambda a: a.sharding, arrays)), _shards(arrays, theirs)
  return out


def _shards(arrays, shardings) -> list[list[int]]:
  """The shape of each array's part on a device."""
  pairs = zip(jax.tree.leaves(arrays), jax.tree.leaves(shardings), strict=True)
  return [list(s.shard_shape(a.shape)) for a, s in pairs]


if __name__ == "__main__":
  print(json.dumps([case(arguments) for arguments in json.load(sys.stdin)]))
