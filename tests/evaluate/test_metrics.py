import numpy as np
import pytest

from sml_jax.dialogue.record import Dialogue, Turn
from sml_jax.evaluate import metrics as m

A, C = "answer_attempt", "clarification"


def talk(*turns, end, task="t", reply="no"):
  """A dialogue from student turns given as (text, kind, verdict, fields)."""
  out = Dialogue(task, "math", 0, "full", end=end)
  for text, kind, verdict, *fields in turns:
    out.turns.append(Turn("teacher", reply))
    out.turns.append(Turn("student", text, kind=kind, verdict=verdict, **(fields[0] if fields else {})))
  return out


DIALOGUES = [
    talk(("5", A, "solved", {"answer_nll": 1.0}), end="solved"),
    talk(("4", A, "wrong", {"answer_nll": 3.0}), (" 4  ", A, "wrong", {"answer_nll": 2.0}),
         ("5", A, "solved", {"answer_nll": 1.0}), end="solved"),
    talk(("4", A, "wrong", {"answer_nll": 5.0}), ("what?", C, "no_attempt", {"answer_nll": 4.0}),
         ("4", A, "wrong", {"answer_nll": 4.0, "cut": True}), end="turn_limit"),
    talk(("4", A, "wrong"), ("?", "interrogation", "no_attempt"), end="context_full"),
    talk(("4", A, "verifier_failed", {"answer_nll": 9.0}), end="verifier_failed"),
]  # fmt: skip


def test_solved_dialogues_stay_and_invalid_ones_leave_P43():
  out = m.dialogue_metrics(DIALOGUES, turns=5, draws=200)
  assert out["success_by_turn"] == [0.25, 0.25, 0.5, 0.5, 0.5]  # of the four valid ones
  assert out["n_tasks"] == 5
  assert out["invalid_rate"] == 0.2


def test_success_never_falls_and_ends_at_final_success_P43():
  rng = np.random.default_rng(0)
  dialogues = []
  for _ in range(100):
    n, solved = rng.integers(1, 11), rng.random() < 0.5
    turns = [("4", A, "wrong")] * (n - 1) + [("5", A, "solved" if solved else "wrong")]
    dialogues.append(talk(*turns, end="solved" if solved else "turn_limit"))
  curve = m.dialogue_metrics(dialogues, draws=50)["success_by_turn"]
  assert len(curve) == 10 and np.all(np.diff(curve) >= 0)
  assert curve[-1] == np.mean([d.end == "solved" for d in dialogues])


def test_small_turn_cap_carries_the_last_value_on():
  dialogues = [talk(("4", A, "wrong"), ("5", A, "solved"), end="solved"), talk(("4", A, "wrong"), end="shards_done")]
  assert m.dialogue_metrics(dialogues, turns=6, draws=50)["success_by_turn"] == [0, 0.5, 0.5, 0.5, 0.5, 0.5]


def test_rates_by_hand():
  out = m.dialogue_metrics(DIALOGUES, turns=5, draws=200)
  assert out["clarification_rate"] == 2 / 10  # ten student turns, one clarification, one interrogation
  assert out["questions_per_dialogue"] == 2 / 5
  # after a wrong attempt: " 4  " (repeats), "5" (does not), the "4" after the question (repeats)
  assert out["repeat_rate"] == pytest.approx(2 / 3)
  assert out["attempts_after_wrong"] == 3
  assert out["truncated_rate"] == 2 / 5  # a cut turn, a full context
  assert out["end_reasons"] == {"solved": 2, "turn_limit": 1, "context_full": 1, "verifier_failed": 1}
  assert out["premature_attempt_rate"] is None
  lo, hi = out["rates_ci95"]["repeat_rate"]
  assert lo <= 2 / 3 <= hi


def test_premature_attempts_are_pooled_over_dialogues():
  eager = talk(*[("4", A, "wrong", {"hidden": 2})] * 3, ("4", A, "wrong", {"hidden": 0}), end="shards_done")
  asking = talk(("?", C, "no_attempt", {"hidden": 1}), ("5", A, "solved", {"hidden": 0}), end="solved")
  assert m.dialogue_metrics([eager, asking], draws=50)["premature_attempt_rate"] == 3 / 4  # mean of rates: 1/2


def test_answer_nll_over_open_dialogues_and_over_the_never_solved():
  out = m.dialogue_metrics(DIALOGUES, turns=4, draws=50)
  assert out["answer_nll_by_turn"] == [pytest.approx((1 + 3 + 5 + 9) / 4), 3.0, 2.5, None]
  assert out["answer_nll_n"] == [4, 2, 2, 0]
  assert out["answer_nll_unsolved_by_turn"] == [5.0, 4.0, 4.0, None]  # neither solved nor invalid: one was measured
  assert out["answer_nll_unsolved_n"] == [1, 1, 1, 0]


def test_resampling_control_by_hand():
  by_task = m.resampling_by_task(np.array([0, 8, 16]), turns=2)
  np.testing.assert_allclose(by_task, [[0, 0], [1 / 2, 1 - (8 * 7) / (16 * 15)], [1, 1]])
  np.testing.assert_allclose(m.resampling_curve(np.array([0, 8, np.nan]), turns=2), by_task[:2].mean(0))


def test_a_dialogue_that_is_not_over_is_refused():
  with pytest.raises(ValueError, match="task t has no end reason"):
    m.dialogue_metrics([talk(("4", A, "wrong"), end=None)])


def test_no_dialogues_give_empty_numbers():
  out = m.dialogue_metrics([], turns=2)
  assert out["success_by_turn"] == [None, None] and out["n_tasks"] == 0


def test_a_repeat_counts_only_after_a_wrong_attempt():
  dialogue = talk(*[("?5", A, "no_attempt")] * 2, ("4", A, "wrong"), ("6", A, "wrong"), end="turn_limit")
  assert m.repeat_counts(dialogue) == (0, 1)
