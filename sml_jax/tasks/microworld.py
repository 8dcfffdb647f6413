"""The micro-world: two families of small tasks with one feedback language, made from a seed without end.

A problem has two slots, each `base plus or minus amount`. An amount is a number, or a word such as "lots" whose value
in this problem only the teacher knows (a hidden convention, drawn anew for every problem around its usual value).
Maths asks for the two values; code asks for a small Python function of which they are the coefficients.

Parts are disjoint: a hash of the numbers, signs and words decides whether a problem is train, dev or test, and dev and
test each have sentence templates and nouns of their own that no problem of another part uses.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from typing import Literal

import numpy as np

from sml_jax.tasks.task import Reveal, Task

Part = Literal["train", "dev", "test"]
PARTS: tuple[Part, ...] = ("train", "dev", "test")

USUAL = {"a few": 2, "some": 3, "several": 4, "many": 5, "plenty": 6, "lots": 7}
"""The usual value of each word; the one that counts is drawn around it."""
LARGEST = 24
"""Every value a student writes or a clause states lies in 0..LARGEST."""

NAMES = ("Ann", "Bob", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana")
NOUNS = {
    "train": ("pens", "hats", "cups", "keys", "maps", "nuts", "bags", "figs", "coins", "balls", "books", "plums"),
    "dev": ("rings", "drums", "kites", "ropes"),
    "test": ("boats", "lamps", "seeds", "masks"),
}
LETTERS = ("K", "Q", "V", "X", "Y", "Z")

# {p} a name, {n} the base, {s} the noun, {m} the amount.
STORY_PLUS = {
    "train": (
        "{p} has {n} {s} and gets {m} more.",
        "{p} had {n} {s} and finds {m} more.",
        "{p} owns {n} {s} and buys {m} more.",
        "There are {n} {s} and {m} more come in.",
    ),
    "dev": ("{p} had {n} {s} and buys {m} more.", "There are {n} {s} and {p} gets {m} more."),
    "test": ("{p} owns {n} {s} and finds {m} more.", "{p} has {n} {s} and {m} more come in."),
}
STORY_MINUS = {
    "train": (
        "{p} has {n} {s} and loses {m}.",
        "{p} had {n} {s} and sells {m}.",
        "{p} owns {n} {s} and gives away {m}.",
        "There are {n} {s} and {m} go away.",
    ),
    "dev": ("{p} has {n} {s} and gives away {m}.", "There are {n} {s} and {p} loses {m}."),
    "test": ("{p} owns {n} {s} and sells {m}.", "{p} has {n} {s} and {m} go away."),
}
SUM = {
    "train": (
        "Let {s} be {n} {sign} {m}.",
        "We know {s} is {n} {sign} {m}.",
        "Here {s} is {n} {sign} {m}.",
        "Take {s} to be {n} {sign} {m}.",
    ),
    "dev": ("{s} is {n} {sign} {m}.",),
    "test": ("Now {s} is {n} {sign} {m}.",),
}
SPEC = {
    "train": (
        "The {s} is {n} {sign} {m}.",
        "Let the {s} be {n} {sign} {m}.",
        "Use {n} {sign} {m} as the {s}.",
    ),
    "dev": ("We know the {s} is {n} {sign} {m}.",),
    "test": ("Now the {s} is {n} {sign} {m}.",),
}
ASK_STORY = ("How many {a} and {b} now?", "Now count the {a} and the {b}.")
ASK_ONE = {"story": "How many {s} now?", "sum": "What is {s}?"}
ASK_SUM = ("What are {a} and {b}?", "Now find {a} and {b}.")
FORMS = {"line": ("factor", "constant"), "floor": ("limit", "constant")}
ASK_FORM = {
    "line": ("Write f(x), factor times x plus constant.",),
    "floor": ("Write f(x), max of x and limit, plus constant.",),
}
INPUTS = {"line": (0, 1, 2, 5, 10), "floor": (-50, 0, 7, 30, 50)}
"""Where each form is tested; the first and the last two inputs are enough to read the two slots off the outputs."""


@dataclasses.dataclass(frozen=True)
class Slot:
  """One unknown: `base sign amount`; `word` is the hidden convention in place of the amount, or ""."""

  noun: str
  base: int
  sign: int
  amount: int
  word: str
  clause: str

  @property
  def value(self) -> int:
    return self.base + self.sign * self.amount

  def text(self, *, exact: bool) -> str:
    """The clause as stated (`exact` False) or with the number in place of the word."""
    return self.clause.replace("{m}", str(self.amount) if exact or not self.word else self.word)

  @property
  def article(self) -> str:
    """The noun with its article; letters have none."""
    return self.noun if self.noun in LETTERS else f"the {self.noun}"


@dataclasses.dataclass(frozen=True)
class World:
  """The difficulty keys and the split.

  Attributes:
    one_convention: share of problems with one hidden convention; the others have two.
    spread: chance of a convention's usual value, then of each value that is 1, 2, ... away from it.
    salt: of the hash that splits the parts; a new one draws new dev and test problems.
  """

  one_convention: float = 0.75
  spread: tuple[float, ...] = (0.36, 0.16, 0.1, 0.06)
  salt: str = "0"

  def __post_init__(self):
    if abs(self.spread[0] + 2 * sum(self.spread[1:]) - 1) > 1e-6:
      raise ValueError(f"tasks.convention_spread {self.spread}: the first and twice the others must add up to 1")

  def draw_value(self, rng: np.random.Generator, word: str) -> int:
    """A value for `word`, at least 0."""
    u, side = rng.random() - self.spread[0], 0
    while u >= 0 and side < 2 * (len(self.spread) - 1):
      u -= self.spread[side // 2 + 1]
      side += 1
    shift = (side + 1) // 2 * (1 if side % 2 else -1)
    return max(0, USUAL[word] + shift)

  def task(
      self, domain: str, part: Part, index: int, *, seed: int = 0, reveal: Reveal = "", plain: bool = False,
      all_nouns: bool = False,
  ) -> Task:
    """Task number `index` of an endless stream.

    Args:
      domain: "math" or "code".
      part: which of the disjoint parts to draw from.
      index: any non-negative integer; the same arguments always give the same task.
      seed: of the stream.
      reveal: "" states everything at turn 1; otherwise the clauses (with numbers, no conventions) come out one by one.
      plain: no hidden conventions.
      all_nouns: draw from the nouns of all parts, as the base student's reading matter does.

    Raises:
      ValueError: for an unknown domain or part.
    """
    if domain not in ("math", "code") or part not in PARTS:
      raise ValueError(f"the micro-world has domains math, code and parts {PARTS}, not {domain!r}, {part!r}")
    stream = (seed, index, PARTS.index(part), int(domain == "code"), int(bool(reveal)), int(plain))
    rng = np.random.default_rng(stream)
    while True:
      style, slots, question = self._problem(rng, domain, part, plain or bool(reveal), all_nouns)
      key = "|".join(f"{s.base}{s.sign}{s.word or s.amount}" for s in slots)
      if _part_of(f"{self.salt}|{style}|{key}") == part:
        break
    tag = f"{domain}-{part}-{seed}-{index}" + (f"-{reveal}" if reveal else "-plain" if plain else "")
    private = {"style": style, "slots": [dataclasses.asdict(s) for s in slots]}
    shards = (question, *(s.text(exact=True) for s in slots)) if reveal else ()
    text = question if reveal else " ".join([*(s.text(exact=False) for s in slots), question])
    return Task(tag, domain, text, answer_text(style, slots), private, shards, reveal)

  def _problem(
      self, rng: np.random.Generator, domain: str, part: Part, plain: bool, all_nouns: bool
  ) -> tuple[str, list[Slot], str]:
    pick = lambda options: options[int(rng.integers(len(options)))]
    if domain == "code":
      style = pick(tuple(FORMS))
      nouns, question = FORMS[style], pick(ASK_FORM[style])
    else:
      style = "story" if rng.random() < 0.6 else "sum"
      if style == "story":
        # One noun of a held-out problem is held out; the other is an ordinary one.
        every = sum(NOUNS.values(), ())
        first, second = pick(every if all_nouns else NOUNS[part]), pick(every if all_nouns else NOUNS["train"])
        while second == first:
          second = pick(every if all_nouns else NOUNS["train"])
        nouns = (first, second) if rng.random() < 0.5 else (second, first)
      else:
        i, j = sorted(rng.choice(len(LETTERS), 2, replace=False))
        nouns = (LETTERS[i], LETTERS[j])
      question = pick(ASK_STORY if style == "story" else ASK_SUM).format(a=nouns[0], b=nouns[1])
    both = rng.random() >= self.one_convention
    vague = (False, False) if plain else (True, True) if both else pick(((True, False), (False, True)))
    slots = [self._slot(rng, style, part, noun, v) for noun, v in zip(nouns, vague, strict=True)]
    return style, slots, question

  def _slot(self, rng: np.random.Generator, style: str, part: Part, noun: str, vague: bool) -> Slot:
    pick = lambda options: options[int(rng.integers(len(options)))]
    sign = 1 if rng.random() < 0.6 else -1
    word = pick(tuple(USUAL)) if vague else ""
    amount = self.draw_value(rng, word) if vague else int(rng.integers(1, 10))
    # The same bases whatever the amount is: the base must not tell the convention.
    base = int(rng.integers(1, 13)) if sign > 0 else int(rng.integers(10, 19))
    if style == "story":
      clause = pick((STORY_PLUS if sign > 0 else STORY_MINUS)[part])
    else:
      clause = pick((SUM if style == "sum" else SPEC)[part])
    fixed = clause.replace("{p}", pick(NAMES)).replace("{n}", str(base)).replace("{s}", noun)
    return Slot(noun, base, sign, amount, word, fixed.replace("{sign}", "plus" if sign > 0 else "minus"))


def slots_of(task: Task) -> list[Slot]:
  return [Slot(**s) for s in task.private["slots"]]


def _part_of(key: str) -> Part:
  bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 10
  return "test" if bucket == 0 else "dev" if bucket == 1 else "train"


def answer_text(style: str, slots: list[Slot], values: tuple[int, int] | None = None) -> str:
  """The student turn that states `values` (default: the true ones)."""
  a, b = values or (slots[0].value, slots[1].value)
  if style == "line":
    return f"def f(x): return {a} * x + {b}"
  if style == "floor":
    return f"def f(x): return max(x, {a}) + {b}"
  if style == "sum":
    return f"{slots[0].noun} is {a} and {slots[1].noun} is {b}."
  return f"{a} {slots[0].noun} and {b} {slots[1].noun}."


def stated_values(task: Task, text: str) -> tuple[int, int] | None:
  """The two values a maths turn states, or None: a noun needs exactly one number, so listing guesses is no answer."""
  values = []
  for slot in slots_of(task):
    if slot.noun in LETTERS:
      found = re.findall(rf"\b{slot.noun} is (\d+)\b", text)
    else:
      found = re.findall(rf"\b(\d+) {slot.noun}\b", text)
    if len(found) != 1 or len(found[0]) > 6:
      return None
    values.append(int(found[0]))
  return values[0], values[1]


def expected_outputs(task: Task) -> list[int]:
  """What the asked function returns at INPUTS[style]."""
  style, (a, b) = task.private["style"], slots_of(task)
  if style == "line":
    return [a.value * x + b.value for x in INPUTS[style]]
  return [max(x, a.value) + b.value for x in INPUTS[style]]


def slots_from_outputs(style: str, outputs: list) -> tuple[int, int] | None:
  """Reads the two slots off a function's outputs at INPUTS[style]; None if no function of that form gives them."""
  if not all(type(y) is int for y in outputs):
    return None
  if style == "line":
    b, a = outputs[0], outputs[1] - outputs[0]
    fits = [a * x + b for x in INPUTS[style]]
  else:
    b = outputs[-1] - INPUTS[style][-1]
    a = outputs[0] - b
    fits = [max(x, a) + b for x in INPUTS[style]]
  return (a, b) if fits == outputs else None
