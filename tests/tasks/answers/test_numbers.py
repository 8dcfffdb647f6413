"""The number checker: what a turn's number is, what is none, and exact comparison."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest

from sml_jax.tasks.answers.numbers import extract_number, has_answer_mark, last_number, one_number, parse_number


@pytest.mark.parametrize("text, number", [
    ("5", 5), ("-5", -5), ("1,080", 1080), ("$14.50", Fraction("14.5")), ("50%", 50), ("3/4", Fraction(3, 4)),
    ("72.", 72),
    ("2 1/2", Fraction(5, 2)), ("-2 1/2", Fraction(-5, 2)), (".5", Fraction(1, 2)), ("05", 5), ("\\$5", 5),
    ("1{,}080", 1080),
    ("1\\,080", 1080), ("\u22124", -4), ("5 6", None), ("1/0", None), ("1e3", None), ("five", None), ("", None),
    ("2 3/2", None),
    ("1,08", None), ("1,2,3", None), ("5\u200b", None), ("\u0665", None), ("5\u00b2", None), ("9" * 41, None),
    ("x", None),
])  # fmt: skip
def test_parse_number(text, number):
  assert parse_number(text) == number


@pytest.mark.parametrize("text, number", [
    ("The answer is 5.", 5), ("so it costs $14,000", 14000), ("#### 14000.0", 14000), ("**72**", 72), ("50%", 50),
    ("The answer is:\n\n**$1,080.50**.", Fraction("1080.5")), ("The final answer is \\boxed{-3}.", -3),
    ("<<48/2=24>> half of 48 are left", 48), ("I got 5. The answer is 6.", 6), ("The answer is 5. So I say 9.", 5),
    ("The answer is 3 * 4 = 12.", 12), ("The answer is 1/2", Fraction(1, 2)), ("it is .5", Fraction(1, 2)),
    ("10-4", 4), ("10 - 4", 4), ("it is -4", -4), ("-$5", -5), ("$-5", -5), ("\u22124", -4), ("x2 is 7th", 7),
    ("12cm", 12), ("The answer is 6 and again 6.0", 6), ("The answer is - 5", -5), ("so x = - 5", -5),
    ("#### \n- 5 pens", 5),
    ("so 3 1/2 hours", Fraction(7, 2)), ("it is 12 cm^2", 12), ("It does not matter. So 5.", 5), ("5 or 5.0", 5),
    ("Is it 4 or 5? No, 6 it is", 6), ("12 apples in 2 baskets", 2), ("The answer is 5!", 5),
    ("so \\frac{3}{4}", Fraction(3, 4)), ("x = -\\dfrac{3}{4}", Fraction(-3, 4)), ("1\\frac{1}{2}", Fraction(3, 2)),
    ("it is \u20135", -5), ("16\u201318", 18), ("The answer is 14.000.", 14), ("5m", 5), ("5 x", 5),
    ("The answer is 18 (16 - 7 = 9 eggs at $2)", 18),
    ("The answer is **160** minutes (2 hours and 40 minutes).", 160),
    ("The answer is twelve (12)", 12), ("The answer is 2 (9) = 18", 18),
    ("0.30000000000000004", Fraction("0.30000000000000004")),
])  # fmt: skip
def test_extracts(text, number):
  assert extract_number(text) == number


@pytest.mark.parametrize("text", [
    "", "no idea", "I got 5. The answer is", "#### ", "The answer is 5 or 6.", "The answer is not 5.",
    "The answer is not 5, it is 6.", "The answer isn't 5", "1,2,3", "#### 1e3", "v1.2.3", "The answer is 1/0",
    "9" * 5000, "x2", "\u0663", "#### five", "It is 5 or 6", "It is not 5", "it can't be 5", "5 is wrong",
    "5 isn't right",
    "between 5 and 6", "The answer is \u00b15", "The answer is at least 5", "The answer is more than 5", "it is > 5",
    "10^5", "5^2",
    "2**5", "5\u00b2", "5\u00bd", "5\u200b0", "5 thousand", "the answer is 5 million", "5_0", "5? no.",
    "The answer is 5?", "#### 5x6", "either 5",
    "not equal to 5", "The answer is 5 (or 6)", "The answer is 5 (6).", "The answer is 5 (perhaps 6)",
    "The answer is 5(6)",
    "5 dozen", "$5k", "$5M", "3:5", "5:00", "5\\pi", "5\u03c0", "5x", "5i", "\\sqrt{5}", "sqrt(5)", "\\log 5",
    "5\\sqrt{2}",
    "\\frac{1}{2}\\pi", "\\frac{1}{2}x", "all except 5",
])  # fmt: skip
def test_hedges_denials_and_unreadable_numbers_are_no_answer(text):
  assert extract_number(text) is None


def test_a_found_number_says_where_it_stands():
  found = last_number("it is $1,080 now")
  assert (found.value, found.text) == (1080, "$1,080") and "it is $1,080 now"[found.start:found.end] == "$1,080"
  assert one_number(" 5 pens. Or 6?").text == "5" and one_number("") is None
  assert has_answer_mark("The ANSWER is") and not has_answer_mark("5")


def test_hostile_text_is_read_fast():
  start = time.process_time()
  for text in ("1," * 20_000, "<<" * 20_000, "-$" * 20_000, "answer is " * 5_000, "1/" * 20_000, "9" * 100_000,
               "5 or " * 20_000, "not " * 20_000, "1 1/2 " * 10_000, "5 is " * 20_000, "= - " * 20_000, "1\\," * 20_000,
               "-" * 50_000):  # fmt: skip
    extract_number(text)
    extract_number("The answer is " + text)
  assert time.process_time() - start < 30  # a quadratic pattern takes many minutes
