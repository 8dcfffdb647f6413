import json

import numpy as np
import pytest

from sml_jax.dialogue.record import Dialogue, Turn
from sml_jax.evaluate import reliability as r

A, C, D = "answer_attempt", "clarification", "discussion"


def runs(*successes, n=10):
  """[instructions, n] binary scores from the numbers of successes."""
  return np.array([[1.0] * k + [0.0] * (n - k) for k in successes])


def talk(kinds, end, task="t", sample=0, shards=5):
  """A sharded talk: one shard a teacher turn, so shards - 1 are hidden at the first student turn."""
  out = Dialogue(task, "lost_in_conversation", sample, "full", end=end)
  for i, kind in enumerate(kinds):
    out.turns += [Turn("teacher", "x"), Turn("student", "y", kind=kind, hidden=max(0, shards - 1 - i))]
  return out


def one_turn(end, task="t", sample=0):
  return talk([A], end, task, sample, shards=1)


@pytest.mark.parametrize("successes, a90, u", [
    (0, 0, 0), (1, 10, 10), (2, 100, 100), (3, 100, 100), (8, 100, 100), (9, 100, 10), (10, 100, 0),
])  # fmt: skip
def test_ten_binary_scores(successes, a90, u):
  each = r.by_instruction(runs(successes))
  assert each["P"] == pytest.approx(10 * successes)
  assert each["A90"] == pytest.approx(a90) and each["U90_10"] == pytest.approx(u)


@pytest.mark.parametrize("successes, expected", [
    ([10] * 9 + [0], (90, 90, 0)),  # the paper's Appendix E: FULL
    ([10] * 6 + [0] * 4, (60, 60, 0)),  # situation 1
    ([7] * 6 + [6] * 3 + [0], (60, 90, 90)),  # situation 2
    ([10] * 3 + [6] * 5 + [0] * 2, (60, 80, 50)),  # situation 3; the paper prints 60 against its own definition
])  # fmt: skip
def test_the_papers_situations(successes, expected):
  out = r.reliability(runs(*successes), draws=200)
  assert (out["P"], out["A90"], out["U90_10"]) == pytest.approx(expected)
  assert out["reliability"] == pytest.approx(100 - expected[2])
  assert out["n_instructions"] == 10 and out["percentile_rule"] == "linear"
  for name in ("P", "A90", "U90_10", "reliability"):
    lo, hi = out["ci95"][name]
    assert 0 <= lo <= out[name] <= hi <= 100


def test_another_percentile_rule_gives_other_numbers_and_is_named():
  out = r.reliability(runs(1), rule="lower", draws=50)
  assert (out["A90"], out["U90_10"], out["percentile_rule"]) == (0, 0, "lower")
  assert r.by_instruction(np.array([[0.0, 0.5, 1.0]]))["A90"] == pytest.approx(90)  # 0.5 + 0.8 of the way to 1
  with pytest.raises(ValueError):
    r.by_instruction(runs(1), rule="nonsense")


def test_missing_runs_leave_and_an_instruction_without_any_is_not_counted():
  scores = np.array([[1, 0, np.nan], [1, 1, 1], [np.nan] * 3])
  np.testing.assert_allclose(r.by_instruction(scores)["P"], [50, 100, np.nan])
  out = r.reliability(scores, draws=50)
  assert out["P"] == 75 and out["n_instructions"] == 2
  assert r.reliability(np.zeros((0, 10)), draws=50)["P"] is None
  with pytest.raises(ValueError, match="between 0 and 1"):
    r.by_instruction(np.array([[10.0]]))


def test_the_interval_is_that_of_the_mean_over_instructions():
  # Two instructions, P 0 and 100: a sample has mean 0, 50 or 100 with chances 1/4, 1/2, 1/4.
  assert r.reliability(runs(0, 10), draws=2000)["ci95"]["P"] == [0, 100]
  assert r.reliability(runs(5, 5), draws=50)["ci95"]["P"] == [50, 50]


@pytest.mark.parametrize("place, shards, fifth", [
    (1, 5, 0), (2, 5, 1), (5, 5, 4), (1, 10, 0), (2, 10, 0), (3, 10, 1), (10, 10, 4), (1, 4, 1), (4, 4, 4), (1, 7, 0),
    (2, 7, 1), (6, 7, 4), (9, 7, 4), (1, 2, 2),
])  # fmt: skip
def test_fifth_of_the_first_attempt(place, shards, fifth):
  assert r.first_attempt_fifth(talk([C] * (place - 1) + [A, A], "shards_done", shards=shards)) == fifth


def test_no_fifth_without_an_attempt_or_without_shards():
  assert r.first_attempt_fifth(talk([C, D], "shards_done")) is None
  assert r.first_attempt_fifth(one_turn("solved")) is None
  assert r.first_attempt_fifth(Dialogue("t", "x", 0, "full", end="context_full")) is None


def test_success_by_fifth_by_hand():
  groups = [
      [talk([A, A], "solved"), talk([A] * 5, "shards_done"), talk([A], "solved")],  # first fifth: 2 of 3
      [talk([C, C, C, C, A], "solved"), talk([C] * 5, "shards_done")],  # last fifth: 1 of 1; one without an attempt
      [one_turn("solved")],  # nothing was hidden: neither
  ]
  out = r.success_by_fifth(groups, draws=100)
  assert out["P"] == [pytest.approx(200 / 3), None, None, None, 100]
  assert out["n_dialogues"] == [3, 0, 0, 0, 1] and out["without_attempt"] == 1
  assert out["ci95"][1] == [None, None] and out["ci95"][4] == [100, 100]


def example():
  """Two instructions, two runs, three modes; one invalid dialogue."""
  full = [[one_turn("solved", t, s) for t in ("a", "b")] for s in (0, 1)]
  concat = [[one_turn("solved", "a", 0), one_turn("solved", "b", 0)],
            [one_turn("turn_limit", "a", 1), one_turn("solved", "b", 1)]]  # fmt: skip
  sharded = [
      [talk([A, C, A], "solved", "a", 0), talk([C] * 4 + [A], "shards_done", "b", 0)],
      [talk([A] * 5, "shards_done", "a", 1), talk([A], "verifier_failed", "b", 1)],
  ]
  return {"full": full, "concat": concat, "sharded": sharded}


def test_lic_metrics_by_hand():
  out = r.lic_metrics(example(), draws=200)
  modes = out["all"]["modes"]
  assert [modes[m]["P"] for m in modes] == [100, 75, 25]  # sharded: a 1 of 2, b 0 of 1
  assert [modes[m]["n_instructions"] for m in modes] == [2, 2, 2] and modes["full"]["runs"] == 2
  assert (modes["sharded"]["invalid"], modes["sharded"]["fewest_valid_runs"]) == (1, 1)
  assert modes["concat"]["A90"] == pytest.approx((90 + 100) / 2)
  assert modes["concat"]["U90_10"] == pytest.approx((90 - 10) / 2)
  ratios = out["all"]["ratios"]
  assert (ratios["concat/full"]["value"], ratios["sharded/full"]["value"]) == (75, 25)
  assert ratios["sharded/full"]["n_instructions"] == 2
  # While shards were hidden: a0 A C A (2 of 3), b0 C C C C (0 of 4), a1 A A A A (4 of 4).
  assert modes["sharded"]["premature_attempt_rate"]["value"] == pytest.approx(6 / 11)
  assert modes["sharded"]["clarification_rate"]["value"] == pytest.approx(5 / 13)
  assert modes["sharded"]["questions_per_dialogue"] == pytest.approx(5 / 3)
  assert modes["sharded"]["by_fifth"]["n_dialogues"] == [2, 0, 0, 0, 1]
  assert "premature_attempt_rate" not in modes["full"]
  assert out["without_known_issue"] is None and out["percentile_rule"] == "linear"
  json.dumps(out, allow_nan=False)


def test_runs_by_instruction_give_the_same_numbers():
  by_run = example()
  by_task = {mode: list(zip(*runs, strict=True)) for mode, runs in by_run.items()}
  assert r.lic_metrics(by_run, draws=50) == r.lic_metrics(by_task, draws=50)


def test_with_and_without_the_rows_known_to_be_defective():
  out = r.lic_metrics(example(), known_issue={"b", "elsewhere"}, draws=50)
  assert out["known_issue"] == ["b"]
  assert out["all"]["modes"]["sharded"]["P"] == 25
  assert out["without_known_issue"]["modes"]["sharded"]["P"] == 50
  assert out["without_known_issue"]["ratios"]["concat/full"]["value"] == 50
  long = {"full": [[one_turn("solved", "lic/x/b"), one_turn("solved", "lic/xx/b"), one_turn("solved", "b")]]}
  assert r.lic_metrics(long, known_issue=["x/b"], draws=50)["known_issue"] == ["lic/x/b"]


def test_a_ratio_is_of_the_instructions_that_both_modes_have():
  runs = {"full": [[one_turn("solved", "a"), one_turn("turn_limit", "b")]], "concat": [[one_turn("solved", "a")]]}
  assert r.lic_metrics(runs, draws=50)["all"]["ratios"]["concat/full"] == {
      "value": 100, "ci95": [100, 100], "n_instructions": 1}  # fmt: skip
  nothing = {"full": [[one_turn("turn_limit", "a")]], "concat": [[one_turn("solved", "a")]]}
  assert r.lic_metrics(nothing, draws=50)["all"]["ratios"]["concat/full"]["value"] is None
  assert r.lic_metrics({"sharded": []}, draws=50)["all"]["ratios"] == {}


def test_a_talk_that_is_not_over_or_comes_twice_is_refused():
  with pytest.raises(ValueError, match="full: dialogue of task t has no end reason"):
    r.lic_metrics({"full": [[one_turn(None)]]})
  with pytest.raises(ValueError, match="full: task t has two dialogues of sample 0"):
    r.lic_metrics({"full": [[one_turn("solved")], [one_turn("solved")]]})


def summary_of(metrics, arm="mt_rl"):
  return {"arms": {arm: {"eval": {"lic": {"lost_in_conversation": metrics}, "math": {"n_tasks": 3}}}}}


def test_table_shows_the_numbers_and_escapes():
  modes = example() | {"<b>mode": [[one_turn("verifier_failed")]]}
  html = r.lic_table(summary_of(r.lic_metrics(modes, known_issue={"b"}, draws=50), "<i>arm"))
  assert "<b>mode" not in html and "&lt;b&gt;mode" in html and "<i>arm" not in html and "&lt;i&gt;arm" in html
  assert "<td>25.0<small>" in html and "<td>25.0%<small>" in html and "linear" in html
  assert "without the 1 known to be defective" in html and "2 talks" in html and "1 talks" in html
  assert html.count("<table>") == html.count("</table>") == 2
  only_full = r.lic_table(summary_of(r.lic_metrics({"full": modes["full"]}, draws=50)))
  assert only_full.count("<table>") == 1


def test_no_table_without_lost_in_conversation():
  assert r.lic_table({"arms": {"base": {"eval": {"math": {"n_tasks": 3}}}}}) == ""
