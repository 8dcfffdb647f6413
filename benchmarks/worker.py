"""One environment's side of a comparison: worker.py MODULE, told line by line on standard input what to do.

{"prepare": CASE, ...} makes CASES[CASE](**rest), runs it once and answers {"units": ...}; {"run": 1} runs it once and
answers {"seconds": ...} with what the case returned. A case is a function that returns (units of work, run).
"""

import importlib
import json
import os
import sys
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")


def main(module: str) -> None:
  answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
  cases, run = importlib.import_module(module), None
  for line in sys.stdin:
    told, out = json.loads(line), {}
    try:
      if "versions" in told:
        out = cases.versions()
      elif "prepare" in told:
        run = None
        units, run = cases.CASES[told.pop("prepare")](**told)
        run()
        out = {"units": units}
      else:
        since = time.perf_counter()
        value = run()
        out = {"seconds": time.perf_counter() - since, "value": value}
    except Exception as e:
      out = {"error": f"{type(e).__name__}: {e}"[:300]}
    print(json.dumps(out), file=answers, flush=True)


if __name__ == "__main__":
  sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
  main(sys.argv[1])
