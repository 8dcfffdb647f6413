r"""The text around an answer: \boxed{}, thinking, quotations; and the one form in which equal texts are compared."""

from __future__ import annotations

import functools
import re
from fractions import Fraction

from sml_jax.tasks.answers.numbers import denied, one_number, parse_number

BOX = re.compile(r"\\boxed\s*\{")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace is a character of the formula
_THINK = re.compile(r"<(/?)(?:think(?:ing)?|thought|reasoning)>", re.IGNORECASE)
_QUOTED = re.compile(r'"[^"\n]{1,300}"|\u201c[^\u201d\n]{1,300}\u201d|^[ \t]*>[^\n]*', re.MULTILINE)
_DRESS = re.compile(r"\\[()\[\]]|[\s$.*]")
_OTHER = re.compile(r"[\s$.,;?!()\\\]*}]*\b(?:or|otherwise|alternatively)\b(?! (?:about|approximately|roughly)\b)",
                    re.IGNORECASE)
_NEGATED = re.compile(r"(?:[=($]\s*[-\u2212]|\\neq?|\u2260)\s*$")
_SAME = tuple((re.compile(pattern), to) for pattern, to in (
    (r"\{,\}|,\\!", ","),
    (r"\\%", "%"),
    (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
    (r"\\(?:text|textbf|textrm|mathrm|mbox)\s*\{([^{}]*)\}", r"\1"),
    (r"(?:\\?\$|\\[()\[\],;:! ]|~|\\(?:left|right|displaystyle|quad)(?![A-Za-z])|\s)+", " "),
    (r"\\frac ?(\d) ?(\d)", r"\\frac{\1}{\2}"),
    (r"_\{(\w)\}", r"_\1"),
))
# Where a space says nothing: behind a command and before a digit, and anywhere but between two letters or digits.
_SPACES = re.compile(r"(\\[A-Za-z]+) (?=\d)|(?<!\w) | (?!\w)")
_UNDRESSED = 10_000  # characters; no answer is longer


def boxed(text: str) -> list[str] | None:
  r"""What the \boxed{...} of a text hold, the outermost ones alone; None if one is never closed."""
  spans = _boxes(text)
  return None if spans is None else [text[start:end] for _, start, end in spans]


def unboxed(answer: str) -> str:
  """The inside of the only box of a text, or else the text; no space around it."""
  boxes = boxed(answer)
  return (boxes[0] if boxes and len(boxes) == 1 else answer).strip()


def undressed(answer: str) -> str:
  """`unboxed`, where there is nothing but dollar signs and the like around the box."""
  boxes = _boxes(answer) or []
  if len(boxes) == 1:
    (begin, start, end), = boxes
    if not _DRESS.sub("", answer[:begin] + answer[end + 1:]):
      return answer[start:end].strip()
  return answer.strip()


def spoken(text: str) -> str | None:
  """What a turn says itself: `visible`, less lines that are quoted (>) and "..." that quote a box with other words."""
  text = visible(text)
  return text if text is None else _QUOTED.sub(lambda m: m[0] if _own(m[0]) else " ", text)


def visible(text: str) -> str | None:
  """A turn without its thinking, <think>...</think>; None if it is never closed.

  A </think> alone closes a thinking that the prompt began, so all before it goes.
  """
  kept, depth, at = [], 0, 0
  for tag in _THINK.finditer(text):
    if depth == 0:
      kept.append(text[at:tag.start()])
    if tag[1] and depth == 0:
      kept.clear()
    depth = max(0, depth + (-1 if tag[1] else 1))
    at = tag.end()
  return None if depth else "".join(kept) + text[at:]


def box_answers(text: str) -> list[str] | None:
  r"""The different answers in the boxes of a turn, in order; None if it takes one back or offers another beside it.

  Empty boxes are left out. Never closed, with a "not" before it, "is wrong" or "or" behind it: None.
  """
  spans = _boxes(text)
  if spans is None:
    return None
  answers: dict[Fraction | str, str] = {}
  for begin, start, end in spans:
    inside = text[start:end].strip()
    if not inside:
      continue
    form, before, behind = canonical(inside), text[max(0, begin - 80):begin], text[end + 1:end + 81]
    other = None if BOX.search(behind) else _OTHER.match(behind)
    again = other and one_number(behind[other.end():])  # "or 0.75", behind \frac{3}{4}
    if denied(before, behind) or _NEGATED.search(before) or (other and not (again and again.value == form)):
      return None
    answers.setdefault(form, inside)
  return [inside for form, inside in answers.items() if form != ""]


@functools.lru_cache(maxsize=100_000)
def canonical(answer: str) -> Fraction | str:
  r"""An answer in the form in which answers are compared: a Fraction if it is a number ("1,080", "3/4", \frac{3}{4}).

  Else its text without what changes only the look: dollar signs, \left and \right, thin spaces and spaces that keep no
  words apart, the \text{} around words, a full stop at the end; \dfrac is \frac, and \frac12 is \frac{1}{2}. A percent
  sign stays: 60% is not 60.
  """
  answer = undressed(answer)
  if len(answer) > _UNDRESSED:
    return answer
  for pattern, to in _SAME:
    answer = pattern.sub(to, answer)
  answer = answer.strip().removesuffix(".").strip()
  number = None if "%" in answer else parse_number(answer)
  # After that: "3, 440" is two numbers.
  return _SPACES.sub(r"\1", answer) if number is None else number


def _boxes(text: str) -> list[tuple[int, int, int]] | None:
  """(where the command, its inside, its closing brace stand) of the outermost boxes; None if one is never closed."""
  found, position = [], 0
  while match := BOX.search(text, position):
    depth = 1
    for brace in _BRACES.finditer(text, match.end()):
      depth += {"{": 1, "}": -1}.get(brace[0], 0)
      if depth == 0:
        break
    else:
      return None
    found.append((match.start(), match.end(), brace.start()))
    position = brace.end()
  return found


def _own(quoted: str) -> bool:
  """Whether quotation marks are around no box, or a box alone, which is no quotation but a way to set it off."""
  if quoted.lstrip().startswith(">"):
    return False
  return not BOX.search(quoted) or bool(re.fullmatch(r'["\u201c\s$*]*\\boxed\s*\{[^{}]*\}["\u201d\s$.*]*', quoted))
