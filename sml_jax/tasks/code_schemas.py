"""Rows of data sets of programs: HumanEval, MBPP, OpenCodeInstruct and LiveCodeBench.

A task's private part has two sets of tests. The dialogue stops, and the teacher speaks, on the public ones; success is
scored on the hidden ones where there are any (`tasks.success_on`).
"""

from __future__ import annotations

import ast
import base64
import doctest
import json
import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from sml_jax.tasks.jsonl import DataError, bad_row
from sml_jax.tasks.task import Task

ASK_CODE = "Write the whole function in one ```python block."
ASK_PROGRAM = "Write a whole program in one ```python block. It reads standard input and prints the answer."
STDIN = "__program__"
"""The entry point of a program that reads standard input: see real_source.py."""


def tests(asserts: Sequence[str] = (), io_tests: Sequence[Mapping[str, Any]] = (), test: str = "") -> dict[str, Any]:
  """One set of tests: assert statements, calls with their results, or a function check(candidate)."""
  return {"asserts": list(asserts), "io_tests": list(io_tests), "test": test}


def has_tests(found: Mapping[str, Any]) -> bool:
  return bool(found["asserts"] or found["io_tests"] or found["test"])


def _task(domain: str, own: str, text: str, solution: str, entry_point: str, *, public, hidden=None, prompt: str = "",
          setup: str = "") -> Task:  # fmt: skip
  private = {"entry_point": entry_point, "prompt": prompt, "setup": setup, "solution": solution, "public": public,
             "hidden": hidden or tests()}  # fmt: skip
  answer = f"```python\n{solution.strip()}\n```" if solution else ""
  ask = ASK_PROGRAM if entry_point == STDIN else ASK_CODE
  return Task(f"{domain}/{own}", domain, f"{text.strip()}\n\n{ask}", answer, private, form="code")


def _humaneval(place: str, line: int, row: dict[str, Any]) -> Task:
  """Public: the examples of the docstring, where it has some that can be run; hidden: the tests."""
  _parsed(place, line, "prompt", _whole(row["prompt"]))
  _parsed(place, line, "test", row["test"])
  if f"def {row['entry_point']}(" not in row["prompt"]:
    raise bad_row(place, line, "entry_point", "a function that the prompt begins", row["entry_point"])
  examples, check = tests(docstring_asserts(row["prompt"], row["entry_point"])), tests(test=row["test"])
  public, hidden = (examples, check) if examples["asserts"] else (check, None)
  text = f"Complete this function.\n\n```python\n{row['prompt'].strip()}\n```"
  return _task("humaneval", row["task_id"].removeprefix("HumanEval/"), text, row["prompt"] + row["canonical_solution"],
               row["entry_point"], public=public, hidden=hidden, prompt=row["prompt"])  # fmt: skip


def docstring_asserts(prompt: str, entry_point: str) -> list[str]:
  """`>>> f(2)` and `4` in the function's docstring become "assert f(2) == 4"; what is no call with a literal result is
  left out."""
  try:
    functions = [n for n in ast.walk(_ast(_whole(prompt))) if isinstance(n, ast.FunctionDef)]
    text = next(ast.get_docstring(n) or "" for n in functions if n.name == entry_point)
    found = doctest.DocTestParser().get_examples(text)
  except (SyntaxError, ValueError, StopIteration):
    return []
  out = []
  for example in found:
    result = example.want.strip()
    try:
      call = _ast(example.source.strip(), mode="eval").body
      ast.literal_eval(result)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
      continue
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == entry_point:
      out.append(f"assert {ast.unparse(call)} == {result}")
  return out


def _mbpp(place: str, line: int, row: dict[str, Any]) -> Task:
  """The hand-checked version where there is one (challenge tests were not, and are left out then).

  Public: the first test, which the problem shows; hidden: all.
  """
  checked = row.get("sanitized")
  source = checked if isinstance(checked, Mapping) else row
  setup = "\n".join(source.get("test_imports") or ()) or row.get("test_setup_code") or ""
  text = source.get("prompt") or source.get("text")
  for field, value, kind in (("text", text, str), ("code", source.get("code"), str), ("test_list",
                             source.get("test_list"), list)):  # fmt: skip
    if not isinstance(value, kind) or not value:
      raise bad_row(place, line, field, kind.__name__, value)
  asserts = [*source["test_list"], *(source.get("challenge_test_list") or ())]
  for test in asserts:
    _parsed(place, line, "test_list", test)
  entry = called_function(asserts, source["code"])
  if entry is None:
    raise bad_row(place, line, "test_list", "tests that call a function of the code", asserts[0])
  shown = f"{text.strip()}\nYour function should pass this test:\n\n{asserts[0]}"
  return _task("mbpp", str(row["task_id"]), shown, source["code"].replace("\r\n", "\n"), entry,
               public=tests(asserts[:1]), hidden=tests(asserts), setup=setup)  # fmt: skip


def called_function(asserts: Sequence[str], code: str) -> str | None:
  """The function that the code defines and the first test calls; the outermost call wins."""
  try:
    defined = {n.name for n in _ast(code).body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))}
    calls = [n for n in ast.walk(_ast(asserts[0])) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
  except (SyntaxError, ValueError):
    return None
  return next((c.func.id for c in calls if c.func.id in defined), None)


def _opencodeinstruct(place: str, line: int, row: dict[str, Any]) -> Task | None:
  """Rows whose solution passed all of its tests; all of these are public, and there are no others."""
  try:
    score = float(row["average_test_score"])
  except ValueError:
    raise bad_row(place, line, "average_test_score", "a number", row["average_test_score"]) from None
  if score < 1:
    return None
  asserts = _strings(place, line, "unit_tests", row["unit_tests"])
  for test in asserts:
    _parsed(place, line, "unit_tests", test)
  from sml_jax.tasks.program import extract_code

  code = extract_code(row["output"])
  entry = called_function(asserts, code) if code else None
  if entry is None:
    raise bad_row(place, line, "output", "code with the function that the tests call", row["output"])
  return _task("opencodeinstruct", row["id"], row["input"], code, entry, public=tests(t.strip() for t in asserts))


def _livecodebench(place: str, line: int, row: dict[str, Any]) -> Task:
  public, private = (_cases(place, line, f"{part}_test_cases", row) for part in ("public", "private"))
  metadata = _json(place, line, "metadata", row.get("metadata") or "{}")
  name = metadata.get("func_name")
  if not public:
    raise bad_row(place, line, "public_test_cases", "at least one test", row["public_test_cases"])
  kinds = {case.get("testtype") for case in (*public, *private)}
  if kinds not in ({"stdin"}, {"functional"}) or (kinds == {"functional"} and not name):
    raise bad_row(place, line, "metadata", "func_name and tests of one type, stdin or functional", row.get("metadata"))
  entry = name if kinds == {"functional"} else STDIN
  read = _functional if kinds == {"functional"} else _stdin
  text = row["question_content"]
  if starter := row.get("starter_code"):
    text += f"\n\nStart from this:\n\n```python\n{starter.strip()}\n```"
  sets = [tests(io_tests=[read(place, line, case) for case in cases]) for cases in (public, private)]
  hidden = tests(io_tests=[*sets[0]["io_tests"], *sets[1]["io_tests"]]) if private else None
  return _task("livecodebench", str(row["question_id"]), text, "", entry, public=sets[0], hidden=hidden,
               prompt=row.get("starter_code") or "")  # fmt: skip


def humaneval_or_livecodebench(place: str, line: int, row: dict[str, Any]) -> Task:
  """The program of a Lost-in-Conversation row."""
  if isinstance(row.get("test"), str) and isinstance(row.get("prompt"), str):
    name = (row.get("metadata") or {}).get("func_name") if isinstance(row.get("metadata"), Mapping) else None
    entry = row.get("entry_point") or name
    if not isinstance(entry, str):
      raise bad_row(place, line, "metadata", "an object with func_name", row.get("metadata"))
    solution = row.get("canonical_solution") or ""
    # The tests of a row were made for the function as HumanEval calls it, whatever name the talk uses.
    entry = entry if f"def {entry}(" in row["prompt"] else _first_function(place, line, row["prompt"])
    found = row | {"entry_point": entry, "canonical_solution": solution, "task_id": row["task_id"]}
    return _humaneval(place, line, found)
  for field in ("question_content", "public_test_cases"):
    if not isinstance(row.get(field), str):
      raise bad_row(place, line, field, "str (or prompt and test, as HumanEval has)", row.get(field))
  metadata = row.get("metadata")
  found = row | {"metadata": json.dumps(metadata) if isinstance(metadata, Mapping) else metadata,
                 "question_id": row["task_id"]}
  return _livecodebench(place, line, found)


def _first_function(place: str, line: int, prompt: str) -> str:
  names = [n.name for n in _parsed(place, line, "prompt", _whole(prompt)).body
           if isinstance(n, ast.FunctionDef)]  # fmt: skip
  if not names:
    raise bad_row(place, line, "prompt", "a function", prompt)
  return names[-1]


def _cases(place: str, line: int, field: str, row: Mapping[str, Any]) -> list[dict[str, Any]]:
  """The tests of a field: JSON, or base64 of zlib of JSON.

  The published private tests are a *pickle* of JSON inside, and a pickle can run code when it is read; the JSON string
  is cut out of it without unpickling.
  """
  text = row.get(field) or "[]"
  if not text.lstrip().startswith("["):
    try:
      text = _unpacked(text)
    except (ValueError, zlib.error) as e:
      raise bad_row(place, line, field, f"JSON, or base64 of zlib of it ({e})", row[field]) from None
  cases = _json(place, line, field, text)
  if not isinstance(cases, list) or not all(isinstance(c, dict) and {"input", "output"} <= set(c) for c in cases):
    raise bad_row(place, line, field, "a list of objects with input and output", text)
  return cases


LARGEST_TESTS = 256 << 20
"""Bytes that the tests of one problem may unpack to."""


def _unpacked(text: str) -> str:
  unpacker = zlib.decompressobj()
  data = unpacker.decompress(base64.b64decode(text, validate=True), LARGEST_TESTS)
  if unpacker.unconsumed_tail:
    raise ValueError(f"more than {LARGEST_TESTS} bytes")
  return pickled_string(data) if data[:1] == b"\x80" else data.decode()


def pickled_string(data: bytes) -> str:
  """The one string that a pickle holds, read by its opcodes; nothing of the pickle is run.

  Raises:
    ValueError: the pickle is anything but one string.
  """
  import pickletools

  found = []
  for opcode, argument, _ in pickletools.genops(data):
    if opcode.name in ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"):
      found.append(argument)
    elif opcode.name not in ("PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP"):
      raise ValueError(f"a pickle with {opcode.name}, which is never run")
  if len(found) != 1:
    raise ValueError(f"a pickle of {len(found)} strings")
  return found[0]


def _functional(place: str, line: int, case: Mapping[str, Any]) -> dict[str, Any]:
  """Arguments are JSON, one a line."""
  try:
    arguments = [json.loads(part) for part in case["input"].splitlines() if part.strip()]
    return {"args": arguments, "expected": json.loads(case["output"])}
  except (ValueError, AttributeError) as e:
    raise DataError(f"{place}:{line}: a test of type functional: expected JSON, one value a line ({e})") from None


def _stdin(place: str, line: int, case: Mapping[str, Any]) -> dict[str, Any]:
  if not isinstance(case["input"], str) or not isinstance(case["output"], str):
    raise DataError(f"{place}:{line}: a test of type stdin: expected text as input and output")
  return {"args": [case["input"]], "expected": stripped(case["output"])}


def stripped(output: str) -> str:
  """What is compared of an output: its lines without space at their ends, and no empty lines at its own."""
  return "\n".join(part.rstrip() for part in output.strip().splitlines())


def _json(place: str, line: int, field: str, text: Any) -> Any:
  try:
    return json.loads(text)
  except (ValueError, TypeError, RecursionError) as e:
    raise bad_row(place, line, field, f"JSON ({e})", text) from None


def _strings(place: str, line: int, field: str, text: str) -> list[str]:
  """A list of strings, written as JSON or as Python."""
  for read in (json.loads, ast.literal_eval):
    try:
      found = read(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
      continue
    if isinstance(found, list) and found and all(isinstance(s, str) and s.strip() for s in found):
      return found
  raise bad_row(place, line, field, "a list of tests", text)


def _ast(code: str, mode: str = "exec") -> Any:
  """`ast.parse` without its warnings about the escapes in other people's strings."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    return ast.parse(code, mode=mode)


def _whole(prompt: str) -> str:
  """A prompt that ends in a function's head, with a body where it has not even a docstring."""
  try:
    _ast(prompt)
    return prompt
  except (SyntaxError, ValueError):
    return f"{prompt}\n    pass\n"


def _parsed(place: str, line: int, field: str, code: str) -> ast.Module:
  try:
    return _ast(code.strip("\n"))
  except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
    raise bad_row(place, line, field, f"Python ({type(e).__name__})", code) from None


_OCI = dict.fromkeys(("id", "input", "output", "unit_tests", "average_test_score"), str)
_LCB = dict.fromkeys(("question_content", "public_test_cases"), str)
_HUMANEVAL = dict.fromkeys(("task_id", "prompt", "entry_point", "canonical_solution", "test"), str)

SCHEMAS = {
    "humaneval": (_HUMANEVAL, _humaneval, ("humaneval/*.jsonl*",)),
    "mbpp": ({"task_id": int}, _mbpp, ("mbpp/*.jsonl*",)),
    "opencodeinstruct": (_OCI, _opencodeinstruct, ("opencodeinstruct/*.jsonl*",)),
    "livecodebench": (_LCB, _livecodebench, ("livecodebench/*.jsonl*",)),
}
"""Name -> fields, maker, files: see schemas.Schema."""
