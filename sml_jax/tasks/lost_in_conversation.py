"""Lost in Conversation (Laban et al. 2025, arXiv 2505.06120): its instructions, and what its user says.

Pure functions. `compat` chooses what to do where the published program errs: "fixed" does what the paper says,
"reference" reproduces the program, defects included, so that numbers can be compared with others' runs of it.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sml_jax.tasks.answers.numbers import parse_number
from sml_jax.tasks.jsonl import DataError, bad_row
from sml_jax.tasks.task import Task

Compat = Literal["fixed", "reference"]

SYSTEM_PROMPTS = {
    "math": "You are good at mathematics. Solve the problem step by step and state the result as one number.",
    "code": (
        "You are an expert Python programmer. Answer with one top-level Python function in a fenced code block. "
        "The function returns its result; it reads no input, prints nothing, and is in no class."
    ),
}
"""One a task, in our own words. They do not say that more information may follow."""

_FENCE = re.compile(r"```(?:[A-Za-z0-9_+-]*[ \t]*\r?\n)?(.*?)(?:```|\Z)", re.DOTALL)
_CODE_LINE = re.compile(r"(?:async\s+)?def\s+\w+\s*\(|class\s+\w+|@\w|import\s+[\w., ]+$|from\s+[\w.]+\s+import\s")
_MAX_CODE = 20_000  # characters: no reply makes the parser slow or deep
_GOLD = re.compile(r"####\s*(\S.*?)\s*$")
_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)


class NotSupported(DataError):
  """A row of an official task other than math and code: to be counted and skipped."""


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One sharded instruction, without its answer or tests.

  Attributes:
    task_id: as published, such as "sharded-GSM8K/14".
    task: "math" or "code".
    shards: in the published order; the first is the intent and opens the talk.
    whole: the fully specified text, without the frame that `full` puts around it.
    starter: code an answer starts from (LiveCodeBench), or "".
    context: code whose imports an answer may use (HumanEval's prompt, which is `whole` too), or "".
    known_issue: why the row is known to be defective, if it says so.
  """

  task_id: str
  task: Literal["math", "code"]
  shards: tuple[str, ...]
  whole: str
  starter: str = ""
  context: str = ""
  known_issue: str | None = None


def read_instruction(row: Mapping[str, Any], path: object, line: int) -> Instruction:
  """An official row, or one of the same form. `path` and `line` (or the row's number) are for messages.

  Math: question, and answer with "#### n". Code: prompt and test (HumanEval), or question_content, starter_code and
  public_test_cases (LiveCodeBench). What the tests hold is not looked into.

  Raises:
    NotSupported: a row of another official task than math and code.
    DataError: a malformed row, with file, line and field.
  """
  task_id, task = _field(row, "task_id", str, path, line), _field(row, "task", str, path, line)
  if task not in ("math", "code"):
    raise NotSupported(f"{path}:{line}: task {task!r} is not supported: math and code only")
  issue = row.get("known_issue")
  known = {"task_id": task_id, "task": task, "shards": _shards(row, path, line),
           "known_issue": str(issue) if issue else None}  # fmt: skip
  if task == "math":
    gold = _GOLD.search(_field(row, "answer", str, path, line))
    if not gold or parse_number(gold[1]) is None:
      raise bad_row(path, line, "answer", 'text that ends in "#### " and a number', "... " + row["answer"][-30:])
    return Instruction(**known, whole=_field(row, "question", str, path, line))
  metadata = row.get("metadata")
  name = metadata.get("func_name") if isinstance(metadata, Mapping) else None
  if not isinstance(name, str) or not name.isidentifier():
    raise bad_row(path, line, "metadata", "an object whose func_name is the function's name", metadata)
  if "prompt" in row:
    _field(row, "test", str, path, line)
    prompt = _field(row, "prompt", str, path, line)
    return Instruction(**known, whole=prompt, context=prompt)
  _field(row, "public_test_cases", str, path, line)
  starter = row.get("starter_code") or ""
  if not isinstance(starter, str):
    raise bad_row(path, line, "starter_code", "str", starter)
  return Instruction(**known, whole=_field(row, "question_content", str, path, line), starter=starter)


def instruction_of(task: Task) -> Instruction:
  """The instruction that an underspecified task was made from."""
  code = task.form == "code"
  prompt = task.private.get("prompt", "") if code else ""
  in_whole = bool(prompt) and prompt == task.whole
  return Instruction(task.id, "code" if code else "math", task.shards, task.whole, starter="" if in_whole else prompt,
                     context=prompt if in_whole else "")  # fmt: skip


def _field(row: Mapping[str, Any], field: str, kind: type, path, line: int) -> Any:
  value = row.get(field)
  if type(value) is not kind or (kind is str and not value.strip()):
    raise bad_row(path, line, field, "some text" if kind is str else kind.__name__, row.get(field, "nothing"))
  return value


def _shards(row: Mapping[str, Any], path, line: int) -> tuple[str, ...]:
  """The shards' texts. The data spells the key `shard`, its documentation `shard_text`."""
  shards = _field(row, "shards", list, path, line)
  if len(shards) < 2:
    raise bad_row(path, line, "shards", "at least 2 shards", f"{len(shards)}")
  texts = []
  for i, shard in enumerate(shards, 1):
    if not isinstance(shard, dict):
      raise bad_row(path, line, "shards", "objects with shard_id and shard", shard)
    if type(shard.get("shard_id")) is not int or shard["shard_id"] != i:
      raise bad_row(path, line, f"shards[{i - 1}].shard_id", str(i), shard.get("shard_id", "nothing"))
    text = shard.get("shard", shard.get("shard_text", "nothing"))
    if not isinstance(text, str) or not text.strip() or not {"shard", "shard_text"} & shard.keys():
      raise bad_row(path, line, f"shards[{i - 1}].shard", "some text", text)
    texts.append(text.strip())
  return tuple(texts)


def full(instruction: Instruction) -> str:
  """The fully specified task in one turn."""
  text = instruction.whole.strip()
  return _framed(instruction, f"Complete this function:\n```python\n{text}\n```" if instruction.context else text)


def concat(instruction: Instruction) -> str:
  """All shards in one turn, in the frame of `full`. Code: the first shard, and the others as bullets."""
  return _joined(instruction, instruction.shards)


def shuffle_concat(instruction: Instruction, key: object, compat: Compat = "fixed") -> str:
  """`concat` with the shards in an order that (key, task_id) alone decides.

  fixed: the first shard stays first, as the paper says. reference: all are shuffled, as the program does.
  """
  place = lambda i: hashlib.sha256(f"{key}|{instruction.task_id}|{i}".encode()).digest()
  kept = 0 if compat == "reference" else 1
  order = sorted(range(kept, len(instruction.shards)), key=place)
  return _joined(instruction, [*instruction.shards[:kept], *(instruction.shards[i] for i in order)])


ALSO = "\n\nAlso,\n"
"""What stands between the repetition and the new part of a SNOWBALL turn."""


def snowball(said: Sequence[str], new: str) -> str:
  """A turn of the SNOWBALL user: all it said before (without the repetitions), then what is new."""
  return f"Just to repeat:\n{_bullets(said)}{ALSO}{new}" if said else new


def recap(said: Sequence[str], instruction: Instruction, compat: Compat = "fixed") -> str:
  """The last turn of RECAP, after a SHARDED talk.

  fixed: restates what the user said in this talk, as the paper says. reference: inserts the concatenated text,
  shards that nobody asked for included, as the program does (defect 5: for math it could not run at all).
  """
  whole = concat(instruction) if compat == "reference" else _bullets(said)
  return f"To sum up, this is the whole task:\n\n{whole}\n\nNow solve it with all of this in mind."


def utterance(shard: str, compat: Compat = "fixed") -> str:
  """How a user by rule reveals a shard. fixed: with a capital and a full stop. reference: word for word."""
  text = shard.strip()
  if compat == "reference":
    return text
  text = text[:1].upper() + text[1:]
  return text if text.endswith((*".!?:;", '."', ".'", "```")) else text + "."


def turn_cap(shards: int, compat: Compat = "fixed") -> int | None:
  """Most student turns of a talk. reference: none, so that a user who reveals nothing never ends it (defect 2).

  fixed: max(10, 3 x shards), the cap of a published fork: three turns a shard, so that no talk in which each turn
  reveals one (at most 12 shards) is ever cut.
  """
  return None if compat == "reference" else max(10, 3 * shards)


def _framed(instruction: Instruction, text: str) -> str:
  if instruction.task == "math":
    return f"Q: {text}\nA:"
  if instruction.starter:
    return f"{text}\n\nStart from this code:\n```python\n{instruction.starter.strip()}\n```"
  return text


def _joined(instruction: Instruction, shards: Sequence[str]) -> str:
  if instruction.task == "math":
    return _framed(instruction, _bullets(shards))
  return _framed(instruction, f"{shards[0]}\n{_bullets(shards[1:])}")


def _bullets(texts: Sequence[str]) -> str:
  return "\n".join(f"- {text}" for text in texts)


_STOP = frozenset(
    "a about above after again all also am an and any are as at be been before being both but by can could did do does "
    "each else ever every for from further get give given go had has have he help her here him his how i if in into is "
    "it its itself just know let like may me more most much many must my need next no not now of off on once one only "
    "or other our out over own per please provide same say she should so some such sure tell than thank that the their "
    "them then there these they this those to too two under until up us use very want was we were what when where "
    "which while who whom whose why will with without would yes you your question answer information detail problem "
    "number amount".split()
)


def choose_shard(hidden: Mapping[int, str], student_turn: str) -> int:
  """The id of the hidden shard (id -> text, not empty) that fits the student's last turn best.

  By the number of different words they share: first those of its questions, then those of the whole turn. Endings
  are cut, common words and numbers are left out, thinking is not read. Where none fits better: the lowest id.
  """
  turn = without_thinking(student_turn)
  asked = _stems(" ".join(re.findall(r"[^.?!\n]*\?", turn)))
  said = _stems(turn)
  fit = lambda i: (len(asked & _stems(hidden[i])), len(said & _stems(hidden[i])))
  return max(sorted(hidden), key=fit)


def without_thinking(text: str) -> str:
  """A turn without <think>...</think>; without its end if that is never closed, or its start if never opened."""
  return _THINKING.sub("", text).rpartition("</think>")[2]


@functools.lru_cache(maxsize=4096)
def _stems(text: str) -> frozenset[str]:
  words = re.findall(r"[a-z]+", text.lower().replace("'s", ""))
  return frozenset(_stem(word) for word in words if len(word) > 1 and word not in _STOP) - _STOP


def _stem(word: str) -> str:
  for endings in (("ies", "y"), ("es", ""), ("s", "")), (("ing", ""), ("ed", ""), ("e", "")):
    for ending, to in endings:
      if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
        word = word.removesuffix(ending) + to
        break
  return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


@dataclasses.dataclass(frozen=True)
class CodeAnswer:
  """A piece of code that can be tested: what it parses to, and its last top-level function or its class Solution."""

  tree: ast.Module
  node: ast.FunctionDef | ast.ClassDef


def code_answers(text: str) -> list[CodeAnswer]:
  """One a fenced block that has a function; of a text without fences, its lines of code are the only block."""
  text = text.replace("\r\n", "\n").replace("\r", "\n")
  blocks = [m[1] for m in _FENCE.finditer(text)] if "```" in text else [_bare_code(text)]
  trees = filter(None, map(_parsed, (block for block in blocks if "def " in block)))
  return [CodeAnswer(tree, node) for tree in trees if (node := _last_node(tree))]


def extract_function(reply: str, name: str, compat: Compat = "fixed", context: str = "") -> str | None:
  """The code of a reply that is tested, under the name that the tests call, `name`; None if there is none.

  Of the last fenced block with a top-level function its last one, with all the imports of the block and of
  `context`; helpers beside it are left out (the student is told to write one function).

  fixed: the true name is bound to the function (or the method of a class Solution), and no name in its code changes.
  reference: the first name behind a "def " is replaced wherever its letters stand, inside of longer names and of
  strings too; a class Solution without a fence, where the program raises, is no code (defect 4).
  """
  reply = without_thinking(reply)
  if compat == "reference":
    return _reference_code(reply, name, context)
  if not (found := code_answers(reply)):
    return None
  tree, node = found[-1].tree, found[-1].node
  imports = dict.fromkeys([*_imports(_parsed(context)), *_imports(tree)])
  parts = sorted(imports, key=lambda line: not line.startswith("from __future__"))
  try:
    code = "\n".join([*parts, "", ast.unparse(node)]).strip()
  except (RecursionError, ValueError):
    return None
  if isinstance(node, ast.ClassDef):
    methods = [n.name for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
    method = name if name in methods else methods[-1]
    return f"{code}\n\n{name} = Solution().{method}"
  return code if node.name == name else f"{code}\n\n{name} = {node.name}"


def reference_rename(code: str, name: str) -> str:
  """The program's renaming: by plain text, from the first "def " (defect 4)."""
  old = code.split("def ")[1].split("(")[0].strip()
  return code.replace(old, name)


def _reference_code(reply: str, name: str, context: str) -> str | None:
  blocks = re.findall(r"```(?:python)?\s*(.*?)\s*```", reply, re.DOTALL)
  code = ""
  if "class Solution" in reply:
    blocks = [block for block in blocks if "class Solution" in block]
    code = blocks[-1] if blocks else ""
  elif blocks:
    code = next(filter(None, map(_reference_function, reversed(blocks))), "")
  else:
    start = reply.rfind("import")
    start = reply.rfind("def") if start < 0 else start
    code = _reference_function(reply[start:] if start >= 0 else reply)
  if "def " not in code:
    return None
  imports = _imports(_parsed(context))
  return reference_rename("\n".join([*imports, "", code]) if imports else code, name)


def _reference_function(code: str) -> str:
  tree = _parsed(code) if "def " in code else None
  nodes = [n for n in tree.body if isinstance(n, ast.FunctionDef)] if tree else []
  if not nodes:
    return ""
  first = min([nodes[-1].lineno, *(d.lineno for d in nodes[-1].decorator_list)])
  lines = code.splitlines()[first - 1 : nodes[-1].end_lineno]
  return "\n".join([*_imports(tree), *([""] if _imports(tree) else []), *lines])


def _parsed(code: str) -> ast.Module | None:
  if len(code) > _MAX_CODE or not code.strip():
    return None
  indent = min((len(line) - len(line.lstrip()) for line in code.split("\n") if line.strip()), default=0)
  if indent:  # a block inside of a list
    code = "\n".join(line[indent:] for line in code.split("\n"))
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      return ast.parse(code)
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return None


def _last_node(tree: ast.Module) -> ast.FunctionDef | ast.ClassDef | None:
  for node in tree.body:
    if isinstance(node, ast.ClassDef) and node.name == "Solution":
      if any(isinstance(n, ast.FunctionDef) and not n.name.startswith("_") for n in node.body):
        return node
  return next((n for n in reversed(tree.body) if isinstance(n, ast.FunctionDef)), None)


def _imports(tree: ast.Module | None) -> list[str]:
  return [ast.unparse(n) for n in (ast.walk(tree) if tree else ()) if isinstance(n, ast.Import | ast.ImportFrom)]


def _bare_code(text: str) -> str:
  """The lines of a text without fences that are code: from a line that starts some, as long as they are indented."""
  kept, inside = [], False
  for line in text.split("\n"):
    inside = bool(_CODE_LINE.match(line)) or (inside and (not line.strip() or line[0] in " \t)]}#"))
    if inside:
      kept.append(line)
  return "\n".join(kept)


_REFERENCE_NUMBER = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")


def reference_number(reply: str) -> str | None:
  """The number that the program reads from a reply, normalised as it does; None if there is none.

  Defect 1: the last match counts ("12 apples in 2 baskets" is 2, "3/4" is 4), and of an amount that ends in ".00" all
  zeros and points at the end are cut: "$100.00" is 1. numbers.py is what the fixed protocol uses.
  """
  matches = _REFERENCE_NUMBER.findall(reply.strip())
  if not matches:
    return None
  number = matches[-1][0] or matches[-1][1]
  if "$" in number and number.endswith(".00"):
    number = number.rstrip(".00")  # noqa: B005
  return _reference_normal(number)


def reference_equal(reply: str, gold: str) -> bool:
  """The program's verdict: equality of text. `gold` is a number, or an answer that ends in "#### " and one."""
  return reference_number(reply) == _reference_normal(gold.rpartition("####")[2].strip().lower())


def _reference_normal(number: str) -> str:
  for pattern in (",", r"\$", r"(?s).*#### ", r"\.$"):
    number = re.sub(pattern, "", number)
  return number
