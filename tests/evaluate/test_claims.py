import copy

import pytest

from sml_jax.evaluate.claims import claims, notes, points, sentences


def entry(difference, lo, hi):
  return {"difference_by_turn": [difference] * 10, "ci95": [[lo, hi]] * 10, "n_tasks": 512}


@pytest.fixture
def good():
  curve = {
      "success_by_turn": [0.4, 0.5, 0.55, 0.594, 0.6, 0.61, 0.62, 0.63, 0.64, 0.658],
      "resampling": None,
      "n_tasks": 9,
  }
  return {
      "arms": {"mt_rl": {"eval": {"math": curve}}},
      "paired": {
          "mt_rl-st_rl": {"math": entry(0.186, 0.14, 0.23), "code": entry(0.2, 0.15, 0.25)},
          "mt_rl-mt_sft": {"math": entry(0.102, 0.04, 0.16)},
          "st_rl-mt_sft": {"math": entry(-0.02, -0.06, 0.02), "code": entry(0.0, -0.03, 0.03)},
          "mt_rl-resampling": {"math": entry(0.15, 0.1, 0.2)},
          "mt_rl-base_resampling": {"math": entry(0.04, 0.01, 0.08)},
          "mt_rl:full-try_again": {"math": entry(0.13, 0.08, 0.18)},
      },
  }


def test_all_met(good):
  found = claims(good)
  assert [(c["claim"], c["turn"], c["demanded"]) for c in found] == [
      ("a", 4, 0.1), ("a", 10, 0.1), ("b", 4, 0.05), ("c", 4, 0.05), ("c", 4, None), ("d", 4, 0.08), ("e", 10, 0.08),
  ]  # fmt: skip
  assert [c["met"] for c in found] == [True, True, True, True, None, True, True]
  assert notes(good) == []
  text = " ".join(sentences(good))
  assert "NOT" not in text and "59.4%" in text and "+18.6 points [+14.0, +23.0]" in text


@pytest.mark.parametrize("difference, lo", [(0.04, 0.01), (0.2, -0.01), (0.2, 0.0)])
def test_a_claim_needs_the_size_and_the_interval(good, difference, lo):
  good["paired"]["mt_rl-mt_sft"]["math"] = entry(difference, lo, 0.5)
  assert next(c["met"] for c in claims(good) if c["claim"] == "b") is False
  assert "claim a met, claim b NOT met" in sentences(good)[0]


def test_exactly_the_demanded_difference_meets(good):
  good["paired"]["mt_rl-mt_sft"]["math"] = entry(0.05, 0.01, 0.1)
  assert next(c["met"] for c in claims(good) if c["claim"] == "b") is True


def test_failed_controls_are_said_first(good):
  good["paired"]["mt_rl-resampling"]["math"] = entry(-0.1, -0.2, 0.0)
  assert sentences(good)[1].startswith("Whether it gains from what the teacher says is only half shown")
  good["paired"]["mt_rl:full-try_again"]["math"] = entry(0.0, -0.1, 0.1)
  assert sentences(good)[1].startswith("It is not shown")
  assert sentences(good)[1].endswith("(claim c NOT met, claim d NOT met).")


def test_lost_ground_of_the_other_arm_is_said(good):
  good["paired"]["st_rl-mt_sft"]["code"] = entry(-0.1, -0.15, -0.05)
  assert len(notes(good)) == 1
  assert "st_rl lost ground to mt_sft" in notes(good)[0] and "code −10.0 points" in notes(good)[0]
  assert "math" not in notes(good)[0]
  assert "ground that single-turn RL lost" in sentences(good)[2]


def test_plain_resampling_that_does_as_well_is_said(good):
  good["paired"]["mt_rl-base_resampling"]["math"] = entry(0.03, -0.01, 0.07)
  assert "not shown that four turns of mt_rl beat four independent tries of the base student" in notes(good)[0]


def test_always_three_sentences(good, summary):
  assert len(sentences(good)) == len(sentences(summary)) == 3
  without = copy.deepcopy(good)
  without["paired"] = {}
  assert len(sentences(without)) == 3 and claims(without) == []
  only_code = {**good, "paired": {"mt_rl-st_rl": {"code": entry(0.2, 0.1, 0.3)}}}
  assert sentences(only_code)[0].startswith("Nothing can be said")
  assert len(sentences({"arms": {}, "paired": {}})) == 3


def test_points():
  assert points(-0.0312, [-0.05, None]) == "−3.1 points [−5.0, ?]"
