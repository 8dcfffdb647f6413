import json

import numpy as np
import pytest

from sml_jax.dialogue.record import Dialogue, Turn
from sml_jax.evaluate.summary import SuiteResult, build_summary, rounded

EVAL_KEYS = {
    "feedback", "n_tasks", "success_by_turn", "ci95", "resampling", "premature_attempt_rate", "clarification_rate",
    "questions_per_dialogue", "answer_nll_by_turn", "end_reasons", "repeat_rate", "truncated_rate", "invalid_rate",
}  # fmt: skip


def solved_at(turn, task, end=None):
  """A dialogue solved at a student turn, or (None) not at all in ten."""
  turns = [Turn("student", str(i), kind="answer_attempt", verdict="wrong") for i in range(turn or 10)]
  return Dialogue(task, "math", 0, "full", turns=turns, end=end or ("solved" if turn else "turn_limit"))


def suite(turns, counts=None, feedback="full"):
  dialogues = [solved_at(t, f"t{i}") for i, t in enumerate(turns)]
  return SuiteResult(dialogues, None if counts is None else np.array(counts), feedback=feedback)


def test_schema(summary):
  assert set(summary) >= {"config", "seconds", "arms", "paired"}
  assert list(summary["arms"]) == ["base", "mt_sft", "st_rl", "mt_rl"]
  assert summary["arms"]["mt_rl"]["sampled_student_tokens"] == 852_000
  for arm in summary["arms"].values():
    assert set(arm) == {"checkpoint", "eval", "sampled_student_tokens"}
    assert set(arm["eval"]) == {"math", "code", "math_sharded", "code_sharded", "math_try_again"}
    for name, e in arm["eval"].items():
      assert set(e) >= EVAL_KEYS
      assert len(e["success_by_turn"]) == len(e["ci95"]) == 10
      assert (e["resampling"] is None) == name.endswith("sharded")
      assert (e["premature_attempt_rate"] is None) != name.endswith("sharded")
      assert all(lo <= x <= hi for x, (lo, hi) in zip(e["success_by_turn"], e["ci95"], strict=True))
  for suites in summary["paired"].values():
    for found in suites.values():
      assert len(found["difference_by_turn"]) == len(found["ci95"]) == 10


def test_every_comparison_is_there(summary):
  assert set(summary["paired"]) == {
      "mt_rl-st_rl", "mt_rl-mt_sft", "st_rl-mt_sft",
      "base-resampling", "mt_sft-resampling", "st_rl-resampling", "mt_rl-resampling",
      "mt_rl-base_resampling", "mt_rl-mt_sft_resampling",
      "base:full-try_again", "mt_sft:full-try_again", "st_rl:full-try_again", "mt_rl:full-try_again",
  }  # fmt: skip
  assert set(summary["paired"]["mt_rl-resampling"]) == {"math", "code", "math_try_again"}
  assert set(summary["paired"]["mt_rl:full-try_again"]) == {"math"}


def test_signs_and_sides_by_hand():
  results = {
      "st_rl": {"math": suite([1, None, None, None], [8, 8, 8, 8])},
      "mt_rl": {
          "math": suite([1, 2, 2, None], [16, 0, 0, 0]),
          "math_try_again": suite([1] + [None] * 3, None, "try_again"),
      },
  }
  paired = build_summary(results, resampling=[("mt_rl", "st_rl")], draws=100)["paired"]
  assert paired["mt_rl-st_rl"]["math"]["difference_by_turn"][:2] == [0, 0.5]
  assert paired["mt_rl-resampling"]["math"]["difference_by_turn"][:2] == [0, 0.5]
  two_tries = 1 - (8 * 7) / (16 * 15)
  assert paired["mt_rl-st_rl_resampling"]["math"]["difference_by_turn"][:2] == pytest.approx(
      [-0.25, 0.75 - two_tries], abs=1e-6
  )
  assert paired["mt_rl:full-try_again"]["math"]["difference_by_turn"][:2] == [0, 0.5]


def test_pairs_need_both_valid():
  a, b = suite([1, None, None]), suite([1, 1, 1])
  a.dialogues[1].end = "teacher_failed"
  b.dialogues[2].end = "verifier_failed"
  found = build_summary({"a": {"math": a}, "b": {"math": b}}, comparisons=[("b", "a")], draws=50)["paired"]["b-a"][
      "math"
  ]
  assert found["n_tasks"] == 1 and found["difference_by_turn"][0] == 0


def test_other_tasks_cannot_be_paired():
  a, b = suite([1, None]), suite([1, None])
  b.dialogues.reverse()
  with pytest.raises(ValueError, match=r"b-a on math.*same tasks"):
    build_summary({"a": {"math": a}, "b": {"math": b}}, comparisons=[("b", "a")])


def test_any_set_of_arms_works():
  out = build_summary({"q_sft": {"math": suite([1, 3, None])}}, draws=50)
  assert out["paired"] == {} and out["claims"] == [] and out["notes"] == []


def test_it_is_plain_json_and_the_same_every_time(results, summary):
  text = json.dumps(summary, allow_nan=False)
  assert len(text) < 100_000
  again = build_summary(
      results, config=summary["config"], seconds=summary["seconds"], draws=1000,
      sampled_student_tokens={a: e["sampled_student_tokens"] for a, e in summary["arms"].items()},
  )  # fmt: skip
  assert json.dumps(again) == text


def test_rounded():
  given = {"a": np.float32(0.5), "b": [float("nan"), np.int64(3)], "c": (0.123456789, None, True)}
  assert rounded(given) == {"a": 0.5, "b": [None, 3], "c": [0.123457, None, True]}
