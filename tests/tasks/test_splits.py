"""Parts by problem and salt, and near copies."""

from __future__ import annotations

import collections

import pytest

from sml_jax.tasks.splits import near_copies, normalise, part_of, representatives, runs_of

BOTTLES = "Danny collects bottle caps. He found {} caps at the park and has {} caps now. How many did he have before?"


def test_parts_depend_on_the_problem_and_the_salt_alone():
  texts = [f"problem number {i}" for i in range(5000)]
  counts = collections.Counter(part_of(t, "0") for t in texts)
  # Binomial(5000, .1): standard deviation 21.
  assert abs(counts["dev"] - 500) < 110 and abs(counts["test"] - 500) < 110
  assert part_of("Problem  number 7!", "0") == part_of("problem number 7", "0")
  assert any(part_of(t, "0") != part_of(t, "1") for t in texts)


def test_shares_of_the_parts():
  parts = [part_of(f"problem number {i}", "0", 0.1, 0.19) for i in range(5000)]
  # Binomial(5000, .1) and (5000, .19): standard deviations 21 and 28.
  assert abs(parts.count("dev") - 500) < 110 and abs(parts.count("test") - 950) < 140
  assert part_of("x", "0", 0, 1) == "test" and part_of("x", "0", 1, 0) == "dev" and part_of("x", "0", 0, 0) == "train"


def test_runs_by_hand():
  assert normalise(" Ann has 3 PENS.") == "ann has 3 pens"
  assert runs_of("Ann has 3 pens and 12 cups") == {"ann has # pens and", "has # pens and #", "# pens and # cups"}
  assert runs_of("Two words") == {"two words"}


@pytest.mark.parametrize("texts, pairs", [
    ([BOTTLES.format(3, 8), "What is the area of a disc whose radius is 2?", BOTTLES.format(22, 30)], [(0, 2)]),
    # The smaller one's runs are 4, of which 2 are shared: half.
    (["a b c d e f g h", "x a b c d e f y z q"], [(0, 1)]),
    (["a b c d e f g h i", "x a b c d e f y z q"], []),  # 2 of 5
    ([BOTTLES.format(3, 8)] * 2, [(0, 1)]),
    (["", ""], [(0, 1)]),
    (["one", "two"], []),
])  # fmt: skip
def test_near_copies(texts, pairs):
  assert near_copies(texts) == pairs


def test_a_phrase_that_many_share_makes_no_copies():
  texts = [f"write a function that returns word{i}" for i in range(60)]
  assert near_copies(texts) == []  # five of six words are the same, in more than 50 problems
  assert len(near_copies(texts[:10])) == 45


def test_one_stands_for_all_that_are_linked():
  a, b = BOTTLES.format(3, 8), BOTTLES.format(22, 30)
  texts = [b, "Something quite different that nobody else ever asks", a]
  assert representatives(texts) == [b, texts[1], b]  # "22" is before "3"
  assert representatives(texts[::-1]) == [b, texts[1], b]  # in any order
