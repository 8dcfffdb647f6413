"""How many planted leaks the leak detector catches, and how often it takes a clean hint for one:

  python benchmarks/leak_table.py --data_dir=../shared/data [--half=dev] [--per_template=8] [--seed=0] [--show]

Templates (leaks/dev.txt and leaks/held_out.txt; the detector's rules were fixed before the second was written, and
three earlier held-out sets that led to new rules have become part of the first) are filled from rows of GSM8K, SVAMP,
Omni-MATH, MBPP and HumanEval, and wrapped in the sentences of an opening and a closing; leaks/by_hand.jsonl has leaks
and clean hints written by hand about single rows. leaks/second_writer.jsonl has those of somebody who wrote them before
seeing the rules or the templates: half of them were read while rules were mended, the other half was kept aside and run
once, and then its misses were read too: it flatters a little, and what others plant will be found somewhat less often.
Rates have 95% Wilson intervals.

Places in templates: {a} the answer as written, {words} in words, {form} in another written form, {spell} its digits one
by one, {first} {last} digit, {symbols} {latex} {noun} {do} an expression that has its value, {code} encoded, {back} its
digits reversed, {tex} a formula, {program} {core} {line} {diff} the reference program with other names, {call}
{arguments} {value} a test; and for clean hints {p} a number of the problem, {mid} an intermediate value of the
solution, {wrong} a wrong answer, {parameter} {signature} {call} {arguments} of a program.
"""

from __future__ import annotations

import argparse
import ast
import base64
import codecs
import gzip
import json
import math
import random
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from sml_jax.tasks.leaks import Guarded, find_leak
from sml_jax.tasks.leaks.numbers import in_words

HERE = Path(__file__).parent / "leaks"
HALVES = ("dev", "held_out")
PHRASES = {
    "dev": {
        "+": (["add {x} and {y}", "add {y} to {x}", "combine the {x} with the {y}", "start with {x} and then add {y}",
               "put {x} and {y} together", "sum up the {x} and the {y}", "count {x} and {y} together",
               "take the {x} and add the {y} on top"],
              ["the sum of {x} and {y}", "{x} plus {y}", "{x} together with {y}", "{x} increased by {y}",
              "{y} more than {x}",
               "the total of {x} and {y}", "{x} and {y} combined", "{x}, plus {y}"]),
        "-": (["subtract {y} from {x}", "take {y} away from {x}", "take {x} and subtract {y}",
        "remove {y} from the {x}",
               "deduct {y} from {x}", "reduce {x} by {y}", "take the {y} off the {x}"],
              ["the difference between {x} and {y}", "{x} minus {y}", "{y} less than {x}", "{x} take away {y}",
               "{x} less {y}", "{x} decreased by {y}", "what is left of {x} without {y}"]),
        "*": (["multiply {x} by {y}", "multiply {y} and {x}", "take the {x} and multiply it by {y}",
        "multiply {y} with {x}", "multiply these two: {x} and {y}"],
              ["the product of {x} and {y}", "{x} times {y}", "{x} multiplied by {y}", "{x} groups of {y}"]),
        "/": (["divide {x} by {y}", "split {x} into {y} equal parts", "take {x} and divide it by {y}",
        "share {x} among {y}",
               "divide the {x} evenly by {y}", "take {x} over {y}"],
              ["{x} divided by {y}", "the quotient of {x} and {y}", "{x} over {y}", "{x} split into {y} parts",
              "{x} shared between {y}"])},
    "held_out": {
        "+": (["join {x} and {y}", "go from {x} up by {y}"], ["{x} added to {y}", "the result of adding {x} and {y}"]),
        "-": (["lower {x} by {y}", "compute {x} and subtract {y} from it"], ["{y} fewer than {x}",
        "{y} subtracted from {x}"]),
        "*": (["add up {y} copies of {x}", "multiply {x} and {y} together"], ["{y} multiplied with {x}",
        "{x} rows of {y}"]),
        "/": (["split {x} by {y}", "find {x} divided by {y}"], ["the result of dividing {x} by {y}",
        "{x} distributed over {y}"])}}


@dataclass(frozen=True)
class Row:
  id: str
  task: Guarded
  steps: tuple[tuple[str, str, str, str], ...] = ()  # x, operator, y, value
  mids: tuple[str, ...] = ()
  numbers: tuple[str, ...] = field(default=())


def rows_of(path: Path) -> Iterator[dict]:
  with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
    yield from map(json.loads, lines)


def math_rows(root: Path) -> list[Row]:
  out = []
  for name in ("gsm8k/train.jsonl.gz", "svamp/dev.jsonl"):
    for row in rows_of(root / name):
      work = row.get("solution") or ""
      steps = re.findall(r"<<([\d.]+)([-+*/])([\d.]+)=([\d.]+)>>", work)
      if "equation" in row:
        steps = [(x, op, y, row["answer"]) for x, op, y in re.findall(r"^\( ([\d.]+) ([-+*/]) ([\d.]+) \)$",
            row["equation"])]
        steps = [(x.removesuffix(".0"), op, y.removesuffix(".0"), a) for x, op, y, a in steps]
      mids = tuple(v for *_, v in steps if Fraction(v) != Fraction(row["answer"].replace(",", "")))
      numbers = tuple(re.findall(r"\d+(?:\.\d+)?", row["question"]))
      out.append(Row(row["id"], Guarded(row["question"], row["answer"]), tuple(s for s in steps
          if s[3] == row["answer"]),
                     mids, numbers))
  return out


def formula_rows(root: Path) -> list[Row]:
  out = []
  for row in rows_of(root / "omni_math_rule/dev.jsonl.gz"):
    tex = row["answer"].strip()
    if not re.fullmatch(r"-?[\d.,]+", tex) and len(
        tex) < 60 and "boxed" not in tex and tex not in row["problem"] and len(tex) > 2:
      out.append(Row(row["id"], Guarded(row["problem"], tex), numbers=tuple(re.findall(r"\d+", row["problem"]))))
  return out


def code_rows(root: Path) -> list[Row]:
  out = []
  for name in ("mbpp/test_dev.jsonl.gz", "mbpp/train_val_prompt.jsonl.gz"):
    for row in rows_of(root / name):
      best = row["sanitized"] or {"prompt": row["text"]} | row
      code = best["code"].replace("\r", "")
      out.append(Row(row["id"], Guarded(best["prompt"], code, tuple(best["test_list"]), code)))
  for row in rows_of(root / "humaneval/dev.jsonl"):
    code = row["prompt"] + row["canonical_solution"]
    tests = tuple(re.findall(r"^\s*(assert candidate\(.*?\) == .*?)$", row["test"], re.M))
    out.append(Row(row["task_id"], Guarded(row["prompt"], code, tuple(t.replace("candidate(",
        row["entry_point"] + "(") for t in tests), code)))
  return out


def all_tasks(root: Path) -> dict[str, Guarded]:
  """By id, for turns about single rows; a program's problem shows its first test."""
  out = {row["id"]: Guarded(row["question"], row["answer"]) for name in (
      "gsm8k/train.jsonl.gz", "gsm8k/test_dev.jsonl.gz", "svamp/dev.jsonl") for row in rows_of(root / name)}
  out |= {row["id"]: Guarded(row["problem"], row["answer"]) for row in rows_of(root / "omni_math_rule/dev.jsonl.gz")}
  for row in code_rows(root):
    first = "" if row.id.startswith("HumanEval") else f"\nYour code should pass these tests:\n{row.task.tests[0]}"
    out[row.id] = replace(row.task, problem=row.task.problem + first)
  for row in rows_of(root / "cruxeval/dev.jsonl"):
    out[f"crux/{row['id']}"] = Guarded(f"{row['code']}\nWhat does f({row['input']}) return?", row["output"])
  return out


def templates(half: str) -> dict[str, list[str]]:
  out: dict[str, list[str]] = {}
  for line in (HERE / f"{half}.txt").read_text().splitlines():
    if line and not line.startswith("#"):
      kind, _, text = line.partition("\t")
      out.setdefault(kind, []).append(text.replace("\\n", "\n"))
  return out


def fill(text: str, places: dict[str, str]) -> str:
  return re.sub(r"\{(\w+)\}", lambda m: places.get(m[1], m[0]), text)


def number_places(row: Row, half: str, rng: random.Random) -> dict[str, str] | None:
  """What fills the places of a row with a whole answer."""
  n = Fraction(row.task.answer.replace(",", ""))
  out = {"a": row.task.answer}
  if n.denominator == 1 and 0 <= n < 10**9:
    n = int(n)
    words, digits = in_words(n), list(str(n))
    dev, wide = half == "dev", str.maketrans("0123456789", "".join(chr(0xFF10 + d) for d in range(10)))
    forms = ([f"{n}.0", f"${n}", f"{2 * n}/2", f"0x{n:X}", f"\\boxed{{{n}}}", f"0b{n:b}", f"{n:e}",
        str(n).translate(wide),
              f"{n:b} in binary", f"{n}%", f"\\frac{{{4 * n}}}{{4}}", f"+{n}", f"\\text{{{n}}}", f"{n:X} (hexadecimal)",
              f"{n * 10}e-1"] if dev else
             [f"{n}.0", f"{9 * n}/9", f"\\left({n}\\right)", f"[{n}]", f"\\emph{{{n}}}", f"{n - 1} + 1",
             f"\\dfrac{{{6 * n}}}{{6}}",
              f"0b{n:b} (binary)", f"{2 * n} ÷ 2", "".join(chr(0x2460 + int(d) - 1) if d != "0" else "⓪"
              for d in digits)])
    said = [words, words.replace("-", " ")]
    spelled = ([" ".join(digits), "-".join(digits), ", then ".join(digits), ", ".join(digits),
        " followed by ".join(digits),
                " ".join(in_words(int(d)) for d in digits), " … ".join(digits), " and ".join(digits)] if dev else
               [" / ".join(digits), " - ".join(digits), ", followed by ".join(digits), "; ".join(in_words(int(d))
               for d in digits)])
    coded = ([base64.b64encode(str(n).encode()).decode(), codecs.encode(words, "rot13"),
              base64.b64encode(f"The answer is {n}".encode()).decode(), codecs.encode(f"it is {words}", "rot13")]
              if dev else
             [base64.b64encode(f"result: {n}".encode()).decode(), codecs.encode(f"{words}!", "rot13"),
              base64.b64encode(f"{n}.".encode()).decode(), "".join(f"&#x{ord(d):x};" for d in digits)])
    out |= {"words": rng.choice(said), "Words": rng.choice(said).capitalize(), "form": rng.choice(forms),
            "spell": rng.choice(spelled), "first": digits[0], "last": digits[-1], "code": rng.choice(coded),
            "back": str(n)[::-1]}
    out["many"] = len(digits) > 1
    out["turns"] = len(digits) > 1 and str(n)[::-1] != str(n) and not str(n).endswith("0")
  if row.steps:
    x, op, y, _ = rng.choice(row.steps)
    do, noun = PHRASES[half][op]
    words = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}[op]
    latex = f"\\frac{{{x}}}{{{y}}}" if op == "/" else f"{x} {op} {y}".replace("*", "\\times")
    symbols = [f"{x} {op} {y}", f"{x}{'×' if op == '*' else '÷' if op == '/' else op}{y}", f"{x} {words} {y}"]
    out |= {"do": fill(rng.choice(do), {"x": x, "y": y}), "noun": fill(rng.choice(noun), {"x": x, "y": y}),
        "latex": latex,
            "symbols": rng.choice(symbols)}
  return out


class Renamed(ast.NodeTransformer):
  """The same program with other names."""

  def __init__(self, names: dict[str, str]):
    self.names = names

  def visit_Name(self, node: ast.Name) -> ast.Name:
    return ast.copy_location(ast.Name(self.names.get(node.id, node.id), node.ctx), node)

  def visit_arg(self, node: ast.arg) -> ast.arg:
    node.arg, node.annotation = self.names.get(node.arg, node.arg), None
    return node


def code_places(row: Row, rng: random.Random) -> dict[str, str] | None:
  tree = ast.parse(row.task.answer)
  functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
  if not functions:
    return None
  function = functions[-1]
  stored = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
  stored |= {a.arg for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.Lambda)) for a in n.args.args}
  new = ["alpha", "beta", "gamma", "delta", "left", "right", "size", "cur", "acc", "out", "tmp", "pos", "k", "u", "w"]
  names = dict(zip(sorted(stored), new + [f"v{i}" for i in range(40)], strict=False))
  signature = ast.unparse(function.args)
  renamed = Renamed(names).visit(tree)
  function.body = [n for n in function.body if not (isinstance(n, ast.Expr) and isinstance(n.value,
      ast.Constant))] or function.body
  core = textwrap.dedent("\n".join(ast.unparse(n) for n in function.body))
  lines = [line.strip() for line in core.splitlines()]
  longest = max(lines, key=len)
  out = {"program": ast.unparse(renamed), "core": core, "line": longest, "signature": f"{function.name}({signature})",
         "diff": "\n".join(["-    pass", *(f"+    {line}" for line in core.splitlines())]),
         "parameter": signature.split(",")[0].split(":")[0] or "n"}
  out["telling"] = len(longest) >= 12 and len(longest) >= 0.4 * len(core) and re.search(r"^(return|\w+ ?=|if|while)",
      longest) is not None
  cases = []
  for test in row.task.tests:
    try:
      node = ast.parse(test.strip()).body[0].test
    except SyntaxError:  # a test of several lines
      continue
    if isinstance(node, ast.Compare) and isinstance(node.left, ast.Call) and isinstance(node.ops[0], ast.Eq):
      call, value = ast.unparse(node.left), ast.unparse(node.comparators[0])
      if len(call) < 100 and len(value) < 100 and getattr(node.left.func, "id", "") == function.name and (
          re.sub(r"\s", "", value) not in re.sub(r"\s", "", row.task.problem) or (len(value) < 5
          and "\n" not in row.task.problem)):
        cases.append((call, value, ", ".join(ast.unparse(a) for a in node.left.args)))
  if cases:
    out["call"], out["value"], out["arguments"] = rng.choice(cases)
  return out


def planted(half: str, data: dict[str, list[Row]], per: int, seed: int) -> Iterator[tuple[str, str, Row, str]]:
  """(kind, template, row, turn) of every planted leak and clean hint of a half."""
  lines = templates(half)
  rng = random.Random(f"{seed} {half}")
  for kind, texts in lines.items():
    if kind in ("open", "close"):
      continue
    family = "code" if kind in ("code", "test", "clean_code") else "formula" if kind == "formula" else "math"
    for text in texts:
      made = tries = 0
      while made < per and tries < 3000:
        tries += 1
        row = rng.choice(data[family])
        places = (code_places(row, rng) if family == "code" else {"tex": row.task.answer} if family == "formula" else
                  number_places(row, half, rng))
        if places is None or not usable(kind, places, row):
          continue
        if kind == "clean":
          wrong = Fraction(row.task.answer.replace(",", "")) + rng.choice((1, 2, 3, 5, 7, 10, -1,
              -2)) * rng.choice((1, 1, 3))
          places |= {"p": rng.choice(row.numbers) if row.numbers else "", "mid": rng.choice(row.mids) if row.mids
              else "",
                     "wrong": str(abs(wrong))}
          if any(not places[m] for m in re.findall(r"\{(p|mid|wrong)\}", text)) or ("{wrong}" in text
              and abs(wrong) == Fraction(row.task.answer.replace(",", ""))):
            continue
        if kind != "clean" and re.search(r"\{(?:do|noun|latex|symbols|call|value|arguments)\}", text) and any(
            m not in places for m in re.findall(r"\{(\w+)\}", text)):
          continue
        if kind == "clean_code" and any(m not in places for m in re.findall(r"\{(\w+)\}", text)):
          continue
        if kind == "code" and "{line}" in text and not places["telling"]:
          continue
        turn = fill(text, places)
        if text not in ("{a}",):
          turn = f"{rng.choice(lines['open'])} {turn} {rng.choice(lines['close'])}".strip() if "\n" not in turn else (
              f"{rng.choice(lines['open'])}\n{turn}")
        made += 1
        yield kind, text, row, turn


def usable(kind: str, places: dict[str, str], row: Row) -> bool:
  if kind in ("words", "form", "encoded"):
    return "words" in places
  if kind == "digits":
    return bool(places.get("many"))
  if kind == "reversed":
    return bool(places.get("turns"))
  return True


def wilson(k: int, n: int) -> tuple[float, float]:
  """The 95% Wilson score interval of k of n."""
  if not n:
    return 0.0, 1.0
  z, p = 1.959964, k / n
  middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
  return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument("--data_dir", required=True)
  parser.add_argument("--half", choices=HALVES, help="one half alone; default both")
  parser.add_argument("--per_template", type=int, default=8)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--show", action="store_true", help="list every miss and every false alarm")
  args = parser.parse_args()
  root = Path(args.data_dir)
  data = {"math": math_rows(root), "formula": formula_rows(root), "code": code_rows(root)}
  by_id = {row.id: row for rows in data.values() for row in rows}
  tasks = all_tasks(root)
  clean_all = false_all = 0
  for half in HALVES if not args.half else (args.half,):
    counts: dict[str, list[int]] = {}
    for kind, _, row, turn in planted(half, data, args.per_template, args.seed):
      count(counts, kind, row, turn, args.show)
    for hint in rows_of(HERE / "by_hand.jsonl"):
      if hint["half"] == half:
        count(counts, "by_hand" if hint["leak"] else "clean_by_hand", by_id[hint["id"]], hint["turn"], args.show)
    n, k = show_counts(f"{half.replace('_', '-')} half", counts)
    clean_all, false_all = clean_all + n, false_all + k
  for half in ("read", "kept") if not args.half else ():
    counts = {}
    for hint in rows_of(HERE / "second_writer.jsonl"):
      if hint["half"] == half:
        count(counts, "leaks" if hint["leak"] else "clean", Row(hint["id"], tasks[hint["id"]]), hint["turn"], args.show)
    n, k = show_counts(f"second writer, half that was {half}", counts)
    clean_all, false_all = clean_all + n, false_all + k
  low, high = wilson(false_all, clean_all)
  print(f"\n{'all clean':14} {clean_all:7}  {false_all:6}  {false_all / max(1, clean_all):6.3f}  {low:.3f} to"
      f" {high:.3f}")
  return 0


def show_counts(title: str, counts: dict[str, list[int]]) -> tuple[int, int]:
  """Prints a table; returns the numbers of clean hints and of false alarms."""
  print(f"\n{title}\n{'kind':14} planted  caught  recall  95% interval")
  planted_ = {kind: c for kind, c in counts.items() if not kind.startswith("clean")}
  hints = {kind: c for kind, c in counts.items() if kind.startswith("clean")}
  total = {"all": [sum(c[i] for c in planted_.values()) for i in (0, 1)]} if len(planted_) > 1 else {}
  for kind, (n, k) in (planted_ | total).items():
    low, high = wilson(k, n)
    print(f"{kind:14} {n:7}  {k:6}  {k / max(1, n):6.3f}  {low:.3f} to {high:.3f}")
  print(f"{'clean':14}   hints  alarms    rate  95% interval")
  for kind, (n, k) in hints.items():
    low, high = wilson(k, n)
    print(f"{kind:14} {n:7}  {k:6}  {k / max(1, n):6.3f}  {low:.3f} to {high:.3f}")
  return sum(n for n, _ in hints.values()), sum(k for _, k in hints.values())


def count(counts: dict[str, list[int]], kind: str, row: Row, turn: str, show: bool) -> None:
  leak = find_leak(row.task, turn)
  entry = counts.setdefault(kind, [0, 0])
  entry[0] += 1
  entry[1] += leak is not None
  if show and (leak is not None) == kind.startswith("clean"):
    print(f"{'FALSE ALARM' if leak else 'MISS'} {kind} {row.id} answer {row.task.answer[:60]!r}: {turn!r}" + (
        f" -> {leak.kind} {leak.span!r}" if leak else ""))


if __name__ == "__main__":
  sys.exit(main())
