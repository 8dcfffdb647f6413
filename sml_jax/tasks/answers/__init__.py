r"""The answer checker: is what a student gives the right answer? Wrongly yes is the worst that it can say.

Numbers are compared exactly; formulas first as text, then by exact arithmetic, and last in a process of their own by
two independent readers. An answer that is not wholly understood is "unparsable" and never right. The conventions are
those of formula_equal.equal: a unit may be left out, 60% is 60, 0.333 is not 1/3, closed forms are what they are worth
(2^{10} is 1024), a list without braces has no order.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import threading
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from sml_jax.tasks.answers import symbolic
from sml_jax.tasks.answers.formula_equal import NeedsSymbols, defined, exactly, texts_equal
from sml_jax.tasks.answers.formula_reader import read
from sml_jax.tasks.answers.formula_tokens import Unreadable
from sml_jax.tasks.answers.formula_value import Unsure
from sml_jax.tasks.answers.latex import box_answers, boxed, canonical, spoken, unboxed, undressed
from sml_jax.tasks.answers.numbers import denied, last_number, one_number, parse_number

Verdict = Literal["equal", "differs", "no_answer", "unparsable", "timeout"]
Kind = Literal["answer", "response"]

_MARK = re.compile(r"####|<answer>|\banswer(?:\s+is\b\s*:?|\s*:)|^[#* ]*(?:final )?answer[* ]*$",
                   re.IGNORECASE | re.MULTILINE)
# "I do not think that the answer is", "If the answer is"
_UNSAID = re.compile(r"(?:n't|\b(?:not|never|false|doubt|if|whether|unless))(?:\s+(?:think|believe|say|true|sure|"
                     r"certain|that|know|if|whether|the|case|final|correct|right|my|your))*\s*$", re.IGNORECASE)
_SENTENCE = re.compile(r"\n|\.(?=\s|$)|[;!?](?=\s|$)")
_DRESS = " \t\r\n*_:$"
_CUT = re.compile(r"(?:[-+*/^_=<>,(\[{\\]|\\(?:frac|sqrt|cdot|times|left|le|ge|leq|geq|binom|text))\s*$")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_MAX_WORDS = 8


@dataclasses.dataclass(frozen=True)
class Checked:
  """What became of an answer.

  Attributes:
    verdict: "equal" alone is right; "differs"; "no_answer" a response gives none, or several, or takes it back;
      "unparsable" it or the gold is not understood; "timeout" the comparison took too long.
    extracted: the answer that was compared.
  """

  verdict: Verdict
  extracted: str | None

  @property
  def correct(self) -> bool:
    return self.verdict == "equal"


def check(golds: Sequence[str], preds: Sequence[str], kinds: Sequence[Kind],
          comparer: symbolic.SymbolicComparer | None = None) -> list[Checked]:
  """Checks one answer a gold, in order.

  Args:
    golds: the right answers.
    preds: what is checked.
    kinds: "answer", an answer alone; or "response", a whole turn, which `extract` takes the answer from.
    comparer: the processes for what exact arithmetic does not decide; by default one pool for the program.

  Raises:
    UserError: such a comparison is needed, and Math-Verify is not installed.
  """
  checked, open_pairs = [], {}
  for i, (gold, pred, kind) in enumerate(zip(golds, preds, kinds, strict=True)):
    given = extract(pred, gold) if kind == "response" else pred.strip()
    verdict = _cheap(gold, given)
    checked.append(Checked(verdict or "unparsable", given))
    if verdict is None:
      open_pairs[i] = [(_bare(one), _bare(given)) for one in _alternatives(gold)]
  if open_pairs:
    verdicts = iter((comparer or _comparer()).compare([pair for pairs in open_pairs.values() for pair in pairs]))
    for i, pairs in open_pairs.items():
      found = [next(verdicts) for _ in pairs]
      checked[i] = Checked("equal" if "equal" in found else found[0], checked[i].extracted)
  return checked


def is_number(gold: str) -> bool:
  """Whether a gold is a number: an integer, decimal, fraction, amount of money or percentage."""
  gold = unboxed(gold)
  return isinstance(canonical(gold), Fraction) or parse_number(gold) is not None


@functools.lru_cache(maxsize=20_000)
def gold_problem(gold: str) -> str | None:
  """Why nothing can be compared with a gold, in one line; None if something can. See it before training, not after."""
  bare = _bare(unboxed(gold))
  if not bare:
    return "the answer is empty"
  if boxed(rf"\boxed{{{bare}}}") != [bare] or any(
      len(re.findall(rf"\\{a}(?![A-Za-z])", bare)) != len(re.findall(rf"\\{b}(?![A-Za-z])", bare))
      for a, b in (("left", "right"), ("begin", "end"))):
    return "the braces of the answer do not match: it is cut off"
  if _CUT.search(bare):
    return "the answer ends in the middle of a formula: it is cut off"
  if is_number(gold):
    return None
  if symbolic.too_big(bare):
    return f"the answer is longer than {symbolic.MAX_CHARACTERS} characters, or nested too deep"
  try:
    node = read(bare)
    defined(node)
    if node.op == "words" and len(node.value.split()) > _MAX_WORDS:
      return "the answer is prose, which can not be compared"
  except Unsure:
    return "the answer has no value"
  except Unreadable as e:
    if str(e).startswith("it ends"):
      return "the answer ends in the middle of a formula: it is cut off"
    if len(_WORD.findall(bare)) > _MAX_WORDS:
      return "the answer is prose, which can not be compared"
  return None


def extract(response: str, gold: str) -> str | None:
  r"""The answer that a turn gives, as it stands there, or None.

  Thinking (<think>...</think>) and quotations are not read; a turn in the middle of thinking has no answer. Then: the
  \boxed{}; if there is none, what stands behind the last "####"; else behind the last "answer is", "answer:", <answer>
  or a line "Answer", up to the end of the sentence; else, where the gold is a number, the last number. No answer is:
  several boxes that differ (but where the gold is a list), a number beside another ("5 or 6"), what is taken back
  ("not 5", "5 is wrong").
  """
  text = spoken(response)
  if text is None:
    return None
  boxes = box_answers(text)
  if boxes is None:
    return None
  if boxes:
    return boxes[0] if len(boxes) == 1 else ", ".join(boxes) if _is_list(gold) else None
  marks = list(_MARK.finditer(text))
  if marks:
    marks = [m for m in marks if not _UNSAID.search(text[max(0, m.start() - 80):m.start()])]
    if not marks:
      return None
    chosen = [m for m in marks if m[0] == "####"] or marks
    return _marked(text[chosen[-1].end():], is_number(gold))
  found = last_number(text) if is_number(gold) else None
  return found and found.text


def _marked(text: str, number: bool) -> str | None:
  """The answer that a text begins with, up to the end of the sentence."""
  text = re.split("</answer>", text, maxsplit=1, flags=re.IGNORECASE)[0]
  if number and (found := one_number(text)):
    return found.text
  text = text.strip(_DRESS).removeprefix("\\[").lstrip()
  end = _SENTENCE.search(text)
  span = (text[:end.start()] if end else text).strip(_DRESS)
  if not span or denied("", " " + span) or re.match(r"(?:not|never|n't|either)\b", span, re.IGNORECASE):
    return None
  if not number:
    return span
  try:
    node = read(span)
  except Unreadable:
    return None
  # Two numbers and no formula, such as "5 6" or "48+24", are no answer to what asks for a number.
  return span if re.search(r"[\\^]", span) and (node.scalar or node.op in ("unit", "rel")) else None


def _cheap(gold: str, given: str | None) -> Verdict | None:
  """The verdict, if it needs no process; None if it does."""
  if given is None or not given.strip(_DRESS):
    return "no_answer"
  if symbolic.too_big(given) or gold_problem(gold):
    return "unparsable"
  if canonical(gold) == canonical(given):
    return "equal"
  verdicts = [_cheap_one(one, given) for one in _alternatives(gold)]
  return next((v for v in ("equal", None, "unparsable") if v in verdicts), "differs")


def _cheap_one(gold: str, given: str) -> Verdict | None:
  a, b = canonical(gold), canonical(given)
  if a == b:
    return "equal"
  if isinstance(a, Fraction) and isinstance(b, Fraction):
    return "differs"
  try:
    return "equal" if texts_equal(_bare(gold), _bare(given), exactly) else "differs"
  except NeedsSymbols:
    return None
  except (Unreadable, Unsure):
    return "unparsable"


@functools.lru_cache(maxsize=20_000)
def _bare(answer: str) -> str:
  r"""An answer without its \[ \], dollar signs and box."""
  while True:
    before = answer
    answer = undressed(answer.strip(_DRESS))
    for opening, closing in (("\\[", "\\]"), ("\\(", "\\)")):
      if answer.startswith(opening) and answer.endswith(closing):
        answer = answer[2:-2]
    if answer == before:
      return answer


def _alternatives(gold: str) -> list[str]:
  """The answer of a gold, or all of them: one with an OR between two formulas is right in each of its forms."""
  gold = unboxed(gold)
  return re.split(r"\$\s+OR\s+\$", gold)


def _is_list(gold: str) -> bool:
  try:
    node = read(_bare(unboxed(gold)))
  except Unreadable:
    return False
  return node.op in ("list", "set") or "pm" in node.ops


_LOCK = threading.Lock()


def _comparer() -> symbolic.SymbolicComparer:
  with _LOCK:
    return _only_comparer()


@functools.cache
def _only_comparer() -> symbolic.SymbolicComparer:
  return symbolic.SymbolicComparer()
