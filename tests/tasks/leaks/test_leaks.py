import importlib
import pathlib
import subprocess
import sys
import time
from fractions import Fraction

import pytest

from sml_jax.tasks.leaks import Guarded, exact, find_leak
from sml_jax.tasks.leaks.expressions import evaluate
from sml_jax.tasks.leaks.numbers import in_words
from sml_jax.tasks.leaks.prose import Prose
from sml_jax.tasks.leaks.tokens import plain, tokens

CLIPS = Guarded("Ann sells clips to 48 friends in April and has some more. How many clips in all?", "42")
APPLES = Guarded("Bob has 5 apples and buys 3 more, then eats 3. How many apples does he have?", "5")
DAYS = Guarded("A boy eats 14 grapes on each of some days, 28 grapes in all. How many days?", "2")
SQUARE = Guarded("Write a function to compute the perimeter of a square.",
                 "def square_perimeter(a):\n  perimeter=4*a\n  return perimeter",
                 ("assert square_perimeter(10)==40", "assert square_perimeter(5)==20"))
EVEN = Guarded("Write a function that returns the sum of even numbers in a list.",
               "def sum_even(nums):\n    total = 0\n    for n in nums:\n        if n % 2 == 0:\n            total"
               " += n\n"
               "    return total",
               ("assert sum_even([1,2,3,4])==6", "assert sum_even([])==0", "assert not sum_even([1, 3])"))


def numbers(text):
  return [t.value for t in tokens(plain(text)[0]) if t.kind == "n"]


@pytest.mark.parametrize("text, values", [
    ("forty-two", [42]), ("forty two", [42]), ("one thousand and eighty", [1080]), ("1 thousand 80", [1080]),
    ("a dozen", [12]), ("two dozen", [24]), ("two and a half dozen", [30]), ("half a dozen", [6]),
    ("three quarters", [Fraction(3, 4)]), ("two thirds", [Fraction(2, 3)]), ("two-and-a-half", [Fraction(5, 2)]),
    ("2 1/2", [Fraction(5, 2)]), ("2½", [Fraction(5, 2)]), ("four point two", [Fraction(21, 5)]), ("1.08k", [1080]),
    ("a hundred and five", [105]), ("two hundred and six thousand and five", [206005]), ("the forty-second", [42]),
    ("42nd", [42]), ("1,080.50", [Fraction(2161, 2)]), ("1{,}080", [1080]), ("4.2e1", [42]), ("0b101010", [42]),
    ("0x2A", [42]), ("４２", [42]), ("⁴²", [42]), ("٤٢", [42]), ("4\u200b2", [42]), ("2¹⁰", [2, 10]),
    ("four two", [4, 2]), ("42 dollars and 50 cents", [Fraction(85, 2)]), ("1\u202f080", [1080]), ("no number", []),
])
def test_reads_numbers_in_every_form(text, values):
  assert numbers(text) == values


def test_every_whole_number_in_words_is_read_back():
  for n in [*range(1, 1200), 1_000_000, 2_345_678, 999_999, 10_010]:
    assert numbers(in_words(n)) == [n]


def test_places_in_a_plain_text_are_those_of_the_turn():
  turn = "Ça fait ４２ – done"
  leak = find_leak(CLIPS, turn)
  assert (leak.span, turn[leak.start : leak.end]) == ("４２", "４２")


@pytest.mark.parametrize("text", [
    "6 * 7", "6 x 7", "6×7", "$6 \\cdot 7$", "six times seven", "half of 84", "half as many as 84", "one more than 41",
    "the product of 6 and 7", "multiply 6 by 7", "\\frac{84}{2}", "\\dfrac{84}2", "subtract 2 from 44",
    "2 less than 44", "21 doubled", "twice the 21 pens", "6 boxes times the 7 pens", "25% of 168", "1/3 of 126",
    "add the 12 brownies to the 30 cookies", "take 50 and subtract 8", "from 50 take away 8", "\\sqrt{1764}",
    "start with 6. Then multiply by 7.", "Take the 30 from April and the 12 from May and add them together.",
    "30 (April) + 12 (May)", "30 in April, plus 12 in May", "the sum of 20, 12 and 10", "7^2 - 7", "2(20+1)",
    "30 and 12 together", "you have 105. Now take that away from 147", "2 goes into 84", "find the sum: 30 + 12",
    "52.5 minus 20%", "take 20% off the 52.5", "you have 52.5. Now knock 20% off that", "35 increased by 20%",
    "30 in April and 12 in May. Now put these together", "\\frac{1}{2}\\left(80+4\\right)",
    "subtract the 34-dollar discount from the 76-dollar price", "\\binom{9}{2} + 6", "seven groups of 6",
])
def test_values_of_expressions_in_prose(text):
  reader = Prose(tokens(plain(text)[0]), lambda value: value == 42)
  assert reader.read()


@pytest.mark.parametrize("text", [
    "6 and 7", "between 40 and 2", "40, 2", "6 of the 7 days", "a 6-day week with 7 pens", "from 6 to 7",
    "multiply the first by the second", "40 - then 2", "half of the 42", "see 6. 7 is next",
    "20% of the 52.5 is off", "put the 30 and the 12 into the formula",
])
def test_no_expression_where_nothing_is_done_with_the_numbers(text):
  reader = Prose(tokens(plain(text)[0]), lambda value: value == 42)
  assert not reader.read()


@pytest.mark.parametrize("a, b", [
    ("2\\sqrt{3}", "\\sqrt{12}"), ("n+1", "1+n"), ("\\frac{n(n+1)}{2}", "(n^2+n)/2"), ("2^{n}-1", "-1+2^n"),
    ("\\frac{3-\\sqrt{3}}{3}", "1-\\frac{\\sqrt3}{3}"), ("\\frac{1}{n-1}", "1/(n-1)"), ("\\frac12", "0.5"),
    ("1/(1+\\sqrt{2})", "\\sqrt2-1"), ("5!", "120"), ("e^{e}-1", "-1+e^e"), ("\\sqrt[3]{8}", "2"),
])
def test_equal_formulas_have_one_exact_value(a, b):
  assert evaluate(a) is not None and evaluate(a) == evaluate(b)


@pytest.mark.parametrize("a, b", [("2\\sqrt{3}", "3\\sqrt{2}"), ("n+1", "n-1"), ("2^n", "n^2"), ("1/3", "0.333")])
def test_different_formulas_differ(a, b):
  assert evaluate(a) is not None and evaluate(a) != evaluate(b)


@pytest.mark.parametrize("text", ["1/0", "9^9^9^9^9", "(" * 500, "2 +", "", "sin x + 1", "0^{-1}"])
def test_what_is_no_value_or_too_big_is_none(text):
  assert evaluate(text) is None


def test_the_value_of_roots_and_pi_as_a_float():
  assert exact.decimal(evaluate("2\\sqrt{3} + \\pi")) == pytest.approx(6.605694, abs=1e-6)
  assert exact.decimal(evaluate("n")) is None and exact.decimal(Fraction(10**400)) is None


@pytest.mark.parametrize("turn, kind", [
    ("The answer is 42.", "number"), ("42", "number"), ("**42**", "number"), ("x = 42", "number"),
    ("Once that is fixed, 42 clips come out.", "number"), ("\\boxed{42}", "number"), ("$42", "number"),
    ("You'd get forty two clips.", "words"), ("the forty-second", "words"), ("three and a half dozen", "words"),
    ("It's 42.0", "number"), ("so 84/2 clips", "expression"), ("42_{10}", "number"), ("The answer is XLII.", "form"),
    ("101010 in binary", "form"), ("0b101010", "form"), ("2A in hex", "form"), ("4 2", "digits"), ("4-2", "digits"),
    ("a 4, then a 2: 4, then 2", "digits"), ("The tens digit is 4 and the ones digit is 2.", "digits"),
    ("four tens and two ones", "digits"), ("24 backwards", "encoded"), ("NDI=", "encoded"),
    ("sbegl-gjb", "encoded"), ("decode Zm9ydHktdHdv", "encoded"), ("%34%32", "encoded"), ("&#52;&#50;", "encoded"),
    ("the number right after 41", "expression"), ("the integer between 41 and 43", "expression"),
    ("Add the 18 that are missing to the 24 from May.", "expression"),
    ("It is larger than 41 but smaller than 43.", "expression"), ("just above 41 and just below 43", "expression"),
    ('int("2a", 16)', "form"), ("Forty-two. That's what the last step gives.", "words"),
    ("42 - so look again.", "number"),
])
def test_a_number_stated_in_any_form(turn, kind):
  leak = find_leak(CLIPS, turn)
  assert leak and leak.kind == kind and leak.span == turn[leak.start : leak.end]


@pytest.mark.parametrize("turn", [
    "the answer is 5", "you should get 5", "= 5", "it equals 5", "so 5 is right", "He ends up with 5 apples.",
    "That leaves 5.", "**Final value:** 5", "5, that's it.", "it should've been 5", "Compare your result with 5.",
    "He has 5 more apples, doesn't he? So it's 5, isn't it?", "So he has 5 apples left.", "Yes, 5!", "5",
    "It's five.", "So 5 is the answer you want.",
])
def test_a_number_of_the_problem_called_the_answer(turn):
  assert find_leak(APPLES, turn)


@pytest.mark.parametrize("turn", [
    "you forgot the 5 apples", "In step 5, check the sum.", "Remember he starts with 5 apples.", "Let n = 5 and see.",
    "Did you use the 5 apples?", "5 is a number in the problem, how does it help?", "The problem says he has 5 apples.",
    "There are 5 numbers in the problem.", "45 = 5 * 9", "1. Read.\n2. Think.\n5. Solve.", "The answer is not 5.",
    "Your answer is too high.", "One of your steps is off.", "The answer is more than 5.", "You got 4, look again.",
    "It is larger than 3.", "Compare the 5 apples with the 3.", "We want more than 5 of them.",
])
def test_a_number_of_the_problem_as_a_quantity(turn):
  assert find_leak(APPLES, turn) is None


@pytest.mark.parametrize("turn", [
    "There are two parts to this problem.", "You made 2 mistakes.", "In step 2 you divided wrong.",
    "1. Read the problem.\n2. Divide.", "He does this twice.", "Look at both numbers.", "On line 2, x^2 is missing.",
    "Try again with one of the 2 values.", "This is turn 2.", "Multiply by 2 only if something is doubled.",
])
def test_small_numbers_of_ordinary_talk(turn):
  assert find_leak(DAYS, turn) is None


@pytest.mark.parametrize("turn", ["It takes 2 days.", "The answer is two.", "So it is two days.", "28/14",
                                  "divide 28 by 14", "The number of days is 2.", "Days: 2"])
def test_small_numbers_stated(turn):
  assert find_leak(DAYS, turn)


def test_what_only_restates_the_problem_is_clean_until_it_is_called_the_answer():
  task = Guarded("Tom has half of 84 marbles. What is the product of 2 and 3, plus 36?", "42")
  assert find_leak(task, "You know that he has half of 84 marbles.") is None
  assert find_leak(task, "The answer is half of 84.").kind == "expression"
  assert find_leak(task, "Divide 84 by 2.").kind == "expression"


def test_the_students_own_number_leaks_only_if_confirmed():
  said = ["I think it is 42"]
  for turn in ("You said 42. Why?", "Your 42 is too high.", "Where does the 42 come from?"):
    assert find_leak(CLIPS, turn, said) is None and find_leak(CLIPS, turn)
  for turn in ("Yes, 42 is right.", "You said 42, and that's correct.", "The answer is 42."):
    assert find_leak(CLIPS, turn, said)
  assert find_leak(CLIPS, "18 is too high.", ["18"]) is None
  assert find_leak(CLIPS, "You are 3 too low.", ["It is 39"]).kind == "expression"
  assert find_leak(CLIPS, "Check your 6 * 7 again.", ["6 * 7 = 40"]) is None


@pytest.mark.parametrize("answer, turn", [
    ("1,080", "1080"), ("1,080", "It is 1 080."), ("576", "It's 24 times itself."),
    ("33725", "Check: 33 725."), ("1080", "one thousand eighty"), ("$14.50", "14 dollars and 50 cents"),
    ("14.50", "14.5"), ("3/4", "0.75"), ("3/4", "75%"), ("3/4", "three quarters"), ("\\frac{3}{4}", "6/8"),
    ("0.42", "42%"), ("25%", "a quarter"), ("1/6", "one in six"), ("1/3", "0.333"), ("-7", "it is minus seven"),
    ("2\\sqrt{3}", "\\sqrt{12}"), ("2\\sqrt{3}", "2 times the square root of 3"), ("2\\sqrt{3}", "about 3.464"),
    ("\\frac{n(n+1)}{2}", "you get (n^2 + n)/2"), ("\\[x = \\frac{1}{2}\\]", "one half"), ("54^{\\circ}", "54 degrees"),
    ("Jupiter", "It's jupiter."), ("Jupiter", "Whcvgre"), ("(2, -1)", "so $(2,-1)$"), ("no", "The answer is no."),
    ("B", "It's (B)."), ("['a', 'b']", 'print gives ["a","b"]'), ("{}", "You end up with an empty dictionary."),
    ("{}", "It returns {}."),
    ("''", "f returns the empty string."), ("{1: 2}", "It prints {1:2}"), ("'no'", "f returns 'no' for this call."),
    ("'tr'", "My trace ends with 'tr', yours doesn't."), ("-5", "It returns -5."), ("1-2^{2012}", "-(2^{2012}-1)"),
])
def test_answers_of_other_kinds(answer, turn):
  assert find_leak(Guarded("What is it?", answer), turn)


@pytest.mark.parametrize("answer, turn", [
    ("1,080", "108"), ("3/4", "4/3"), ("0.42", "42 steps"), ("2\\sqrt{3}", "use \\sqrt{3}"), ("no", "No, try again."),
    ("\\frac{n(n+1)}{2}", "sum up n(n+1)"), ("Jupiter", "a gas giant"), ("B", "A good start, but look at B."),
    ("(2, -1)", "between 2 and -1"), ("1/3", "0.35"), ("{}", "Is the dictionary empty?"),
    ("''", "Try an empty string."),
])
def test_what_is_near_the_answer_is_clean(answer, turn):
  assert find_leak(Guarded("Is it so? Choose A or B.", answer), turn) is None


@pytest.mark.parametrize("turn", [
    "return 4*a", "```python\ndef f(x):\n    return x * 4\n```", "`4 * side`", "- pass\n+ return side * 4",
])
def test_a_tiny_program(turn):
  assert find_leak(SQUARE, turn).kind == "code"


@pytest.mark.parametrize("turn", [
    "```\ndef g(xs):\n  s = 0\n  for x in xs:\n    if x % 2 == 0:\n      s += x\n  return s\n```",
    "for k in values:\n    if k % 2 == 0:\n        acc += k", "Use `if n % 2 == 0: total += n` in the loop.",
    "```diff\n-    pass\n+    for n in nums:\n+        if n % 2 == 0:\n+            total = total + n\n```",
])
def test_a_program_with_other_names_in_parts_and_in_patches(turn):
  assert find_leak(EVEN, turn).kind == "code"


@pytest.mark.parametrize("answer, turn", [
    ("def f(xs, k):\n  return sum(x for x in xs[:k] if len(str(x)) <= 2)",
     "return sum(e for e in a[:k] if len(str(e)) < 3)"),
    ("def f(r, a):\n  return (math.pi*r**2) * (a/360)", "The area is `math.pi * r**2 * a / 360`."),
    ("def f(t):\n  p = re.compile('[a-c]+')\n  return p.sub('', t)", "re.sub('[a-c]+', '', text) will do."),
    ("def f(a, b, h):\n  return 0.5 * (a + b) * h", "area = (base1 + base2) / 2 * height"),
    ("def f(list):\n  n = 0\n  for x in list:\n    if x >= 0:\n      n += 1\n  return n",
     "`return sum(1 for x in lst if x >= 0)`"),
    ("def f(n):\n  if n % 2 == 1:\n    return False\n  return True", "It's enough to `return n % 2 == 0`."),
    ("def f(a, b, c):\n  if a > b:\n    a = b\n  return a if a < c else c", "return min(a, b, c) — it's built in!"),
    ("def f(n):\n  t = 0\n  while n > 0:\n    t += n % 10\n    n //= 10\n  return t",
     "def f(n):\n  \"\"\"Add up.\"\"\"\n  return sum(int(d) for d in str(n))"),
])
def test_the_same_program_written_otherwise(answer, turn):
  assert find_leak(Guarded("Write f.", answer, ("assert f(1) is not None",)), turn).kind == "code"


@pytest.mark.parametrize("turn", [
    "The line `return max(a, b, c)` gives the biggest.", "You wrote `return sum([a, b, c]) / 3`.", "return the least",
    "Your code is:\n```python\ndef f(a, b, c):\n  return sorted([b, a, c])[1]\n```", "def f(a, b, c):\n  ...",
])
def test_quoted_code_that_is_not_the_program_is_clean(turn):
  smallest = "def f(a, b, c):\n  if a > b:\n    a = b\n  return a if a < c else c"
  task = Guarded("Write f.", smallest, ("assert f(1, 2, 3) == 1",))
  assert find_leak(task, turn) is None


@pytest.mark.parametrize("turn, span", [
    ("sum_even([1, 2, 3, 4]) should be 6.", "6"), ("For the list [1,2,3,4] we expect six.", "six"),
    ("For an empty list it should return 0.", "0"), ("assert sum_even([]) == 0", "0"),
    ("sum_even([1, 3]) must be False", "False"), ("It gives 2 for [1, 2, 3, 4], whereas 6 is expected.", "6"),
])
def test_what_a_test_expects(turn, span):
  leak = find_leak(EVEN, turn)
  assert (leak.kind, leak.span) == ("test", span)


@pytest.mark.parametrize("turn", [
    "def sum_even(nums):", "`for n in nums:` is fine.", "Use the modulo operator.",
    "AssertionError on sum_even([1,2,3,4])",
    "What does your code do for an empty list?", "You got 10 for [1, 2, 3, 4], as odd numbers are added too.",
    "`return total` is inside the loop; move it out.", "Initialize `total = 0` first.", "NameError: name 'x'",
    "Your function returns None for [2,4].", "Line 6 is never reached.",
])
def test_hints_about_code_are_clean(turn):
  assert find_leak(EVEN, turn) is None


def test_a_test_with_a_tolerance():
  task = Guarded("Halve it.", "", ("assert abs(half(3) - 1.5) < 1e-6", "assert math.isclose(half(5), 2.5)"))
  assert [find_leak(task, t).span for t in ("half(3) should be 1.5", "for half(5) we expect 2.5")] == ["1.5", "2.5"]
  assert find_leak(task, "half(3) should not be 1.") is None


def test_a_case_that_the_problem_shows_is_clean():
  shown = Guarded("Sum the even numbers.\n>>> sum_even([1, 2, 3, 4])\n6", EVEN.answer, EVEN.tests)
  assert find_leak(shown, "sum_even([1, 2, 3, 4]) should be 6.") is None
  assert find_leak(shown, "sum_even([]) should be 0.").kind == "test"


def test_the_students_own_code_is_no_leak():
  mine = "def f(xs):\n  s = 0\n  for x in xs:\n    if x % 2 == 0:\n      s += x"
  assert find_leak(EVEN, "Why do you write `if x % 2 == 0` there?", [mine]) is None


def test_the_program_may_stand_in_the_solution():
  assert find_leak(Guarded("Perimeter?", "40", SQUARE.tests, SQUARE.answer), "return 4*a").kind == "code"


@pytest.mark.parametrize("text", [
    "(" * 100_000, "\\frac{" * 20_000, "1+" * 50_000, "9^" * 50_000, "-" * 100_000, "add 1 and " * 10_000,
    "4" * 100_000,
    "`" * 100_000, "```\nx=1\n" * 12_000, "x = [1, 2\n" * 9_000, "5 " * 50_000, "²" * 100_000, "$x$ " * 25_000,
    "XLII " * 20_000, "is " * 33_000, "\\boxed{" * 14_000, "f(" * 50_000, "QUJD" * 25_000, " " * 100_000,
])
def test_hostile_turns_take_bounded_time(text):
  began = time.process_time()
  for task in (CLIPS, APPLES, SQUARE, Guarded("Find it.", "\\frac{n+1}{2}")):
    find_leak(task, text)
  assert time.process_time() - began < 20  # without limits most of these would take minutes


def test_the_ends_of_a_long_turn_are_read():
  leak = find_leak(CLIPS, "blah " * 10_000 + "It is 42.")
  assert (leak.span, leak.start) == ("42", 50_006)
  assert find_leak(CLIPS, "It is 42." + "blah " * 10_000).start == 6


def test_the_check_needs_no_jax():
  root = pathlib.Path(__file__).parents[3]
  code = "import sys, sml_jax.tasks.check_leaks; sys.exit(bool({'jax', 'sympy'} & set(sys.modules)))"
  assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_the_table_counts_with_known_intervals():
  sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "benchmarks"))
  try:
    table = importlib.import_module("leak_table")
  finally:
    sys.path.pop(0)
  # Wilson's score interval, e.g. Brown, Cai and DasGupta 2001: 0 of 10 reaches up to z^2 / (10 + z^2).
  assert table.wilson(0, 10) == pytest.approx((0.0, 0.27753), abs=1e-4)
  assert table.wilson(5, 10) == pytest.approx((0.23659, 0.76341), abs=1e-4)
  for half in table.HALVES:
    texts = table.templates(half)
    leaks = {k: t for k, t in texts.items() if k not in ("open", "close") and not k.startswith("clean")}
    assert len(leaks) >= 6 and all(len(set(t)) >= 6 for t in leaks.values())
  assert not {t for ts in table.templates("dev").values() for t in ts if t} & {
      t for ts in table.templates("held_out").values() for t in ts}
