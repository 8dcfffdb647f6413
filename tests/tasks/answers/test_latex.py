r"""Boxes, thinking, quotations, and the one form of equal texts."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest

from sml_jax.tasks.answers.latex import box_answers, boxed, canonical, spoken, unboxed, undressed, visible


@pytest.mark.parametrize("text, boxes", [
    ("none", []), ("\\boxed{5}", ["5"]), ("a \\boxed{\\frac{1}{2}} b", ["\\frac{1}{2}"]), ("\\boxed {5}", ["5"]),
    ("\\boxed{\\{1,2\\}}", ["\\{1,2\\}"]), ("\\boxed{\\left\\{1\\right\\}}", ["\\left\\{1\\right\\}"]),
    ("\\boxed{1} \\boxed{2}", ["1", "2"]), ("\\boxed{\\boxed{5}}", ["\\boxed{5}"]), ("\\boxed{}", [""]),
    ("\\boxed{5", None), ("\\boxed{5} \\boxed{\\frac{1}{2}", None), ("\\boxed{5\\}", None), ("} \\boxed{5}", ["5"]),
    ("\\boxed 5", []), ("\\boxed{a\\\\}", ["a\\\\"]),
])  # fmt: skip
def test_boxes(text, boxes):
  assert boxed(text) == boxes


def test_unboxed_and_undressed():
  assert unboxed("The answer is \\boxed{ 6 }.") == "6"
  assert undressed("The answer is \\boxed{6}.") == "The answer is \\boxed{6}."
  assert unboxed("\\[\n\\boxed{6}\n\\]") == undressed("\\[\n\\boxed{6}.\n\\]") == "6"
  assert undressed("5\\boxed{6}") == "5\\boxed{6}"
  for text in ("\\boxed{5}\\boxed{6}", "5", "\\boxed{5"):
    assert unboxed(text) == undressed(text) == text


@pytest.mark.parametrize("text, seen", [
    ("a", "a"), ("<think>a</think>b", "b"), ("a<think>b</think>c", "ac"), ("a</think>b", "b"), ("<think>a", None),
    ("a<think>", None),
    ("<think>a<think>b</think>c", None), ("<think>a<think>b</think>c</think>d", "d"), ("a</think>b</think>c", "c"),
    ("<Thinking>a</THINKING>b", "b"), ("<thought>a</thought>b", "b"), ("<think>a</think>b<think>c", None), ("", ""),
])  # fmt: skip
def test_visible(text, seen):
  assert visible(text) == seen


def test_quotations_are_not_spoken():
  assert spoken('You said "it is \\boxed{5}". No.').split() == ["You", "said", ".", "No."]
  assert spoken('It is "\\boxed{5}".') == 'It is "\\boxed{5}".' and spoken('"five" \\boxed{5}') == '"five" \\boxed{5}'
  assert spoken("> \\boxed{5}\n\\boxed{6}").split() == ["\\boxed{6}"]
  assert spoken("\u201cso \\boxed{5}\u201d").split() == []
  assert spoken("<think>") is None


@pytest.mark.parametrize("text, answers", [
    ("\\boxed{5}", ["5"]), ("\\boxed{5} \\boxed{ 5.0 }", ["5"]), ("\\boxed{5} \\boxed{6}", ["5", "6"]),
    ("\\boxed{}", []), ("5", []),
    ("\\boxed{\\text{}}", []), ("\\boxed{5", None), ("not \\boxed{5}", None), ("never be $\\boxed{5}$", None),
    ("\\boxed{5} is wrong", None),
    ("\\boxed{5} or 6", None), ("\\boxed{5}? Or 6?", None), ("It does not matter, \\boxed{5}", ["5"]),
    ("\\boxed{5} or \\boxed{6}", ["5", "6"]),
    ("\\boxed{5} is right", ["5"]), ("\\boxed{5}. It was not easy.", ["5"]),
])  # fmt: skip
def test_box_answers(text, answers):
  assert box_answers(text) == answers


@pytest.mark.parametrize("a, b", [
    ("115440", "115{,}440"), ("115440", "115,\\!440"), ("1,080", "$1080.0$."), ("0.75", "\\dfrac34"),
    ("-\\frac{1}{2}", "-0.5"),
    ("\\frac{-1}{2}", "-1/2"), ("\\$5", "5"), ("60\\%", "60%"), ("\u22124", "-4"), ("\\sqrt 2", "\\sqrt2"),
    ("2 \\pi", "2\\pi"), ("\\left( 1, 2 \\right)", "(1,2)"), ("\\[\n\\boxed{n^2}\n\\]", "n^2."), ("\\text{Yes}", "Yes"),
    ("\\tfrac{\\sqrt{3}}{2}", "\\frac{\\sqrt{3}}{2}"), ("4 \\cdot 3^{2011}", "4\\cdot3^{2011}"), ("1 - x", "1-x"),
    ("(\\frac12, 1)", "(\\frac{1}{2},1)"), ("1620 \\mathrm{~mm}^{2}", "1620\\text{ mm}^{2}"),
])  # fmt: skip
def test_the_same(a, b):
  assert canonical(a) == canonical(b)


@pytest.mark.parametrize("a, b", [
    ("1\\frac12", "11/2"), ("1\\frac12", "\\frac{11}{2}"), ("3440", "3, 440"), ("12", "1 2"), ("12", "1 ~2"),
    ("60", "60%"), ("0.6", "60%"),
    ("1/3", "0.3333"), ("5", "-5"), ("5", "5^{\\circ}"), ("5", "5\\text{ cm}"), ("5", "x=5"), ("5", "5!"),
    ("5", "\\sqrt{5}"),
    ("10", "1e1"), ("\\pi r", "\\pir"), ("\\{1,2\\}", "(1,2)"), ("(1,2)", "(2,1)"), ("n+1", "n-1"), ("2^{10}", "2^10"),
    ("\\frac{1}{23}", "\\frac123"), ("5", ""), ("5", "five"), ("5", "1.5"), ("15", "1. 5"), ("1/2", "1/2/1"),
    ("6", "5\\boxed{6}"),
    ("\\sqrt{2}+1", "\\sqrt{2+1}"), ("5", "5\\pm1"), ("2", "1,2"), ("1/2", "\\frac{1}{2}\\frac{1}{1}"),
])  # fmt: skip
def test_not_the_same(a, b):
  assert canonical(a) != canonical(b)


def test_canonical_numbers_are_fractions():
  assert canonical("\\frac{3}{4}") == Fraction(3, 4) and isinstance(canonical("1,080"), Fraction)
  assert canonical("2\\pi") == "2\\pi"


def test_hostile_texts_are_read_fast():
  start, n = time.process_time(), 20_000
  for piece in ("\\boxed{", "\\text{", "not ", "\\frac", "{", "\\", "\\boxed{5}", " ", "\\text ", ",", "9",
  "$", '"', ">", "<think>", "\u201c"):
    for text in (piece * n, "\\boxed{" + piece.replace("{", "(") * n + "}"):
      spoken(text)
      box_answers(text)
      canonical(text)
  assert time.process_time() - start < 30  # a quadratic pattern takes many minutes
