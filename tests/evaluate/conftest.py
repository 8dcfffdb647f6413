"""A made-up run that looks like a real one: four arms, five suites, learning curves, words as tokens."""

from __future__ import annotations

import numpy as np
import pytest

from sml_jax.dialogue.record import Dialogue, Turn
from sml_jax.evaluate.summary import SuiteResult, build_summary

ARMS = {  # (first try, each later turn with real feedback, with try again, questions, repeats)
    "base": (0.27, 0.07, 0.03, 0.06, 0.55),
    "mt_sft": (0.30, 0.13, 0.05, 0.04, 0.45),
    "st_rl": (0.39, 0.02, 0.01, 0.01, 0.80),
    "mt_rl": (0.385, 0.17, 0.07, 0.01, 0.25),
}


class Words:
  """A tokenizer of whole words, spelt as SentencePiece spells its pieces."""

  def __init__(self):
    self.ids: dict[str, int] = {}

  def encode(self, text: str) -> list[int]:
    pieces = [w if w.startswith("<") else "▁" + w for w in text.split()]
    return [self.ids.setdefault(p, len(self.ids)) for p in pieces]

  def pieces(self, tokens: list[int]) -> list[str]:
    names = list(self.ids)
    return [names[t] for t in tokens]


WORDS = Words()


def teacher(text: str) -> Turn:
  return Turn("teacher", text, tokens=WORDS.encode(f"<teacher> {text} <end>"))


def student(text: str, **fields) -> Turn:
  tokens = WORDS.encode(f"{text} <end>")
  fields = {"kind": "answer_attempt", "verdict": "wrong"} | fields
  return Turn("student", text, tokens=tokens, prompt=WORDS.encode("<student>"), logprobs=[-0.3] * len(tokens), **fields)


def fake_dialogue(suite: str, i: int, arm: str, rng: np.random.Generator) -> Dialogue:
  """One dialogue of at most ten turns (four on underspecified suites) with the rates of the arm."""
  domain = suite.split("_")[0]
  first, later, again, asks, repeats = ARMS[arm]
  sharded, taught = suite.endswith("sharded"), not suite.endswith("try_again")
  hardness = np.random.default_rng([int(domain == "code"), i]).beta(2, 2) * 2  # one number a task, the same in all arms
  if domain == "math":
    problem, good = "Lena has 7 pens and a few more . How many pens has she ?", "She has 11 pens ."
    hint, tries = "No , 9 pens is too low .", ["She has 9 pens .", "She has 10 pens .", "She has 14 pens ."]
  else:
    problem, good = "Write f ( x ) : x times 3 , then less several .", "lambda x: x * 3 - 6"
    hint, tries = "No , f ( 2 ) should be less than 4 .", ["lambda x: x * 3 - 2", "lambda x: x * 3 - 4"]
  talk = Dialogue(f"{domain}-dev-{i:04d}", domain, 0, "full" if taught else "try_again", bos=[0], end="turn_limit")
  talk.turns.append(teacher("Lena has some pens and a few more ." if sharded else problem))
  last = None
  for turn in range(4 if sharded else 10):
    hidden = max(0, 2 - turn) if sharded else 0
    nll = max(0.2, 3.4 - (0.3 if arm == "mt_rl" and taught else 0.1) * turn + rng.normal(0, 0.8))
    chance = hardness * (first if turn == 0 else later if taught else again) * (0.2 if hidden else 1)
    if rng.random() < asks:
      talk.turns.append(
          student("What is a few ?", kind="clarification", verdict="no_attempt", hidden=hidden, answer_nll=nll)
      )
      talk.turns.append(teacher("A few is more than 3 ."))
    elif rng.random() < chance:
      talk.turns.append(student(good, verdict="solved", hidden=hidden, answer_nll=nll))
      talk.end, talk.reward = "solved", 0.7**turn
      return talk
    else:
      last = last if last and rng.random() < repeats else tries[rng.integers(len(tries))]
      talk.turns.append(student(last, hidden=hidden, cut=bool(rng.random() < 0.003), answer_nll=nll))
      talk.turns.append(teacher(hint if taught else "Please try again ."))
  talk.turns.pop()  # the student has the last word
  talk.end, talk.reward = ("shards_done" if sharded else "turn_limit"), 0.0
  return talk


def fake_results(n: int, arms=tuple(ARMS), seed: int = 0) -> dict[str, dict[str, SuiteResult]]:
  results: dict[str, dict[str, SuiteResult]] = {}
  for a, arm in enumerate(arms):
    for s, suite in enumerate(("math", "code", "math_sharded", "code_sharded", "math_try_again")):
      rng = np.random.default_rng([seed, a, s])
      dialogues = [fake_dialogue(suite, i, arm, rng) for i in range(n)]
      counts = None
      if not suite.endswith("sharded"):
        spread = 0.8 if arm.endswith("rl") else 2.0  # a sharpened student is sure, rightly or wrongly
        counts = rng.binomial(16, rng.beta(spread * ARMS[arm][0], spread * (1 - ARMS[arm][0]), size=n))
      greedy = [fake_dialogue(suite, i, arm, rng) for i in range(n)] if suite in ("math", "code") else None
      results.setdefault(arm, {})[suite] = SuiteResult(dialogues, counts, greedy, dialogues[0].feedback)
  return results


def fake_metrics(seed: int = 0) -> dict[str, list[dict]]:
  rng = np.random.default_rng(seed)
  out = {
      "base": [{"step": s, "loss": 0.3 + 2 * np.exp(-s / 60) + rng.normal(0, 0.03)} for s in range(0, 600, 5)],
      "mt_sft": [{"step": s, "loss": 0.28 + 0.1 * np.exp(-s / 20) + rng.normal(0, 0.01)} for s in range(80)],
  }
  for arm, end in (("st_rl", 0.42), ("mt_rl", 0.62)):
    rows = []
    for s in range(200):
      success = end - 0.15 * np.exp(-s / 60) + rng.normal(0, 0.03)
      rows.append({
          "step": s, "loss": rng.normal(0, 0.01), "success": success, "reward": 0.8 * success + rng.normal(0, 0.01),
          "degenerate": 0.2 + s / 800 + rng.normal(0, 0.04), "entropy": 0.6 * np.exp(-s / 150) + rng.normal(0, 0.02),
          "repeat_rate": (0.6 - 0.002 * s if arm == "mt_rl" else 0.6) + rng.normal(0, 0.04),
          "clock": {"seconds": 1.0},
      })  # fmt: skip
    out[arm] = rows
  return out


@pytest.fixture(scope="session")
def results():
  return fake_results(64)


@pytest.fixture(scope="session")
def summary(results):
  config = {"seed": 0, "gamma": 0.7, "group": 8, "stages": ["base", "mt_sft", "st_rl", "mt_rl"]}
  seconds = {"base": 215.0, "mt_sft": 45.0, "st_rl": 140.0, "mt_rl": 215.0, "evaluate": 70.0}
  tokens = {"base": 0, "mt_sft": 300_000, "st_rl": 845_000, "mt_rl": 852_000}
  return build_summary(results, config=config, seconds=seconds, sampled_student_tokens=tokens, draws=1000)


@pytest.fixture(scope="session")
def words():
  """The tokenizer of the made-up run."""
  return WORDS


@pytest.fixture(scope="session")
def metrics():
  """stage -> rows, as a run would log them."""
  return fake_metrics()
