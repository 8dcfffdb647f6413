"""Groups: what a failed or cut dialogue does to the others' advantages, and which rows are trained."""

from __future__ import annotations

import types

import numpy as np
import pytest

from sml_jax.dialogue.record import Dialogue, Turn
from sml_jax.learn.groups import credit_groups, group_metrics, is_cut


def stage(**changes):
  defaults = {"group_size": 4, "gamma": 0.7, "adv_norm": "none", "credit": "trajectory", "truncated": "keep"}
  return types.SimpleNamespace(**defaults | changes)


def dialogue(end: str, turns: int = 1, sample: int = 0, *, cut: bool = False, texts=None, kinds=None) -> Dialogue:
  out = [Turn("teacher", "t", tokens=[1, 9, 3])]
  for n in range(turns):
    last = n == turns - 1
    verdict = "solved" if last and end == "solved" else "no_attempt" if last and cut else "wrong"
    kind = kinds[n] if kinds else "answer_attempt"
    text = texts[n] if texts else f"{n}"
    tokens = [5, 6] if last and cut else [5, 6, 3]
    logprobs = [-1.0] * len(tokens)
    out.append(Turn("student", text, tokens, [2], logprobs, kind, verdict, cut=last and cut))
    if not last:
      out.append(Turn("teacher", "t", tokens=[1, 8, 3]))
  return Dialogue("task", "math", sample, "full", out, end, [0])


def four() -> list[Dialogue]:
  """Solved at 1, unsolved after 2 turns, cut, solved at 2: rewards 1, 0, 0, .7."""
  return [dialogue("solved"), dialogue("turn_limit", 2), dialogue("malformed", cut=True), dialogue("solved", 2)]


def advantages(group) -> list[float]:
  for d in group.dialogues:
    assert len(d.advantages) == len(d.student_turns) and len(set(d.advantages)) <= 1  # one number a dialogue
  return [d.advantages[0] if d.advantages else None for d in group.dialogues]


def test_P31_keep_trains_a_cut_dialogue_as_any_other():
  (group,) = credit_groups(four(), stage(truncated="keep"))
  assert advantages(group) == pytest.approx([0.575, -0.425, -0.425, 0.275])  # minus the mean, .425
  assert [r["weights"].sum() for r in group.token_rows("keep")] == [3, 6, 2, 6]
  assert [d.reward for d in group.dialogues] == pytest.approx([1, 0, 0, 0.7]) and not group.degenerate
  (group,) = credit_groups(four(), stage(truncated="keep", adv_norm="std"))
  assert advantages(group) == pytest.approx([1.312680, -0.970242, -0.970242, 0.627803], abs=1e-6)


def test_P31_mask_loss_keeps_it_in_the_baseline_alone():
  (group,) = credit_groups(four(), stage(truncated="mask_loss"))
  assert advantages(group) == pytest.approx([0.575, -0.425, -0.425, 0.275])
  assert [r["weights"].sum() for r in group.token_rows("mask_loss")] == [3, 6, 0, 6]


def test_P31_drop_leaves_it_out_of_both():
  (group,) = credit_groups(four(), stage(truncated="drop"))
  assert advantages(group) == pytest.approx([13 / 30, -17 / 30, 0, 2 / 15])  # minus the mean of 1, 0, .7
  assert [r["weights"].sum() for r in group.token_rows("drop")] == [3, 6, 6]
  assert group.counted == [True, True, False, True]


def test_P31_what_counts_as_cut():
  assert is_cut(dialogue("malformed", cut=True)) and is_cut(dialogue("context_full"))
  assert not is_cut(dialogue("turn_limit", 3)) and not is_cut(dialogue("solved"))


@pytest.mark.parametrize("end", ["verifier_failed", "teacher_failed"])
@pytest.mark.parametrize("adv_norm", ["none", "rloo", "std"])
def test_P32_an_invalid_dialogue_is_in_nothing_but_the_record(end, adv_norm):
  """The others get what they would get without it."""
  rest = [dialogue("solved"), dialogue("turn_limit", 2), dialogue("solved", 2)]
  (group,) = credit_groups([rest[0], dialogue(end), *rest[1:]], stage(adv_norm=adv_norm))
  with_it = [a for a, d in zip(advantages(group), group.dialogues, strict=True) if d.valid]
  fresh = [dialogue("solved"), dialogue("turn_limit", 2), dialogue("solved", 2)]
  (without,) = credit_groups(fresh, stage(group_size=3, adv_norm=adv_norm))
  assert with_it == advantages(without)
  assert group.dialogues[1].reward is None and group.dialogues[1].advantages == [0.0]
  assert len(group.token_rows("keep")) == 3 and group.counted == [True, False, True, True]
  assert group_metrics([group])["invalid_rate"] == 0.25 and group_metrics([group])["success"] == pytest.approx(2 / 3)


def test_P32_a_group_with_one_valid_dialogue_is_skipped():
  (group,) = credit_groups([dialogue("solved"), *[dialogue("verifier_failed") for _ in range(3)]], stage())
  assert group.degenerate and group.token_rows("keep") == [] and advantages(group) == [0, 0, 0, 0]


def test_P4_degenerate_groups_have_exactly_no_advantage_but_count_in_the_denominator():
  groups = credit_groups(
      [dialogue("solved", 3) for _ in range(4)] + [dialogue("turn_limit", 2) for _ in range(4)]
      + [dialogue("solved", 1 + i % 2) for i in range(4)],
      stage(adv_norm="std"),
  )  # fmt: skip
  assert [g.degenerate for g in groups] == [True, True, False]
  assert advantages(groups[0]) == advantages(groups[1]) == [0.0] * 4
  rows = groups[0].token_rows("keep")
  assert len(rows) == 4 and all(r["weights"].sum() == 9 and not r["advantages"].any() for r in rows)
  metrics = group_metrics(groups)
  assert metrics["degenerate"] == pytest.approx(2 / 3) and metrics["all_solved_groups"] == pytest.approx(1 / 3)


def test_groups_are_consecutive_and_apart():
  """P9: a group of all solved and one of none have no advantage; a batch-wide baseline would give some."""
  groups = credit_groups([dialogue("solved"), dialogue("solved"), dialogue("turn_limit"), dialogue("turn_limit")],
                         stage(group_size=2))  # fmt: skip
  assert [advantages(g) for g in groups] == [[0, 0], [0, 0]]


def test_a_reward_of_one_s_own():
  shorter = lambda d: -float(len(d.student_turns))
  (group,) = credit_groups(four(), stage(adv_norm="none"), shorter)
  assert [d.reward for d in group.dialogues] == [-1, -2, -1, -2]
  assert advantages(group) == pytest.approx([0.5, -0.5, 0.5, -0.5]) and not group.degenerate
  (flat,) = credit_groups(four(), stage(adv_norm="std"), lambda d: 0.3)
  assert flat.degenerate and advantages(flat) == [0.0] * 4
  (dropped,) = credit_groups(four(), stage(truncated="drop"), shorter)
  assert advantages(dropped) == pytest.approx([2 / 3, -1 / 3, 0, -1 / 3])
  (lonely,) = credit_groups([dialogue("verifier_failed") for _ in range(4)], stage(), shorter)
  assert lonely.degenerate and [d.reward for d in lonely.dialogues] == [None] * 4


def test_turn_returns_reach_the_tokens_of_their_turn():
  """gamma^(n-t) minus the mean of those that reached turn t: one solved at 2 beside one unsolved after 2."""
  pair = [dialogue("solved", 2), dialogue("turn_limit", 2)]
  (group,) = credit_groups(pair, stage(group_size=2, credit="turn_return"))
  solved, unsolved = group.dialogues
  assert solved.advantages == pytest.approx([0.35, 0.5]) and unsolved.advantages == pytest.approx([-0.35, -0.5])
  row = group.token_rows("keep")[0]
  np.testing.assert_allclose(row["advantages"][row["weights"] == 1], [0.35] * 3 + [0.5] * 3, rtol=1e-6)


def test_injected_questions_are_never_trained_by_rl():
  primed = dialogue("solved", 2)
  primed.student_turns[0].injected, primed.student_turns[0].logprobs = True, []
  (group,) = credit_groups([primed, dialogue("turn_limit")], stage(group_size=2))
  assert group.token_rows("keep")[0]["weights"].sum() == 3


def test_a_dialogue_without_a_student_turn_is_a_failure_of_the_student():
  """Its problem did not fit: reward 0, in the group's mean, and nothing to train."""
  empty = Dialogue("task", "math", 1, "full", [Turn("teacher", "much too long")], "context_full", [0])
  (group,) = credit_groups([dialogue("solved"), empty], stage(group_size=2))
  assert [d.reward for d in group.dialogues] == [1, 0] and advantages(group) == pytest.approx([0.5, None])
  assert group.token_rows("keep")[1]["weights"].tolist() == [0]
  assert group_metrics([group])["truncated_rate"] == 0.5


def test_metrics_by_hand():
  asked = dialogue("turn_limit", 3, texts=["8", "?", "8"], kinds=["answer_attempt", "clarification", "answer_attempt"])
  asked.turns[3].verdict = "no_attempt"
  groups = credit_groups([dialogue("solved", 2, texts=["7", "8"]), asked, *four()], stage(group_size=2))
  metrics = group_metrics(groups)
  rewards = [0.7, 0, 1, 0, 0, 0.7]
  assert metrics["reward"] == pytest.approx(np.mean(rewards)) and metrics["success"] == pytest.approx(3 / 6)
  assert metrics["success_turn_1"] == pytest.approx(1 / 6) and metrics["turns"] == pytest.approx(11 / 6)
  assert metrics["question_rate"] == pytest.approx(1 / 11) and metrics["truncated_rate"] == pytest.approx(1 / 6)
  assert metrics["tasks"] == 3 and metrics["invalid_rate"] == 0
