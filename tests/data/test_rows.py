"""Which tokens are trained: hand-made dialogues with every id known (field.md, P24 to P27)."""

from __future__ import annotations

import numpy as np
import pytest

from sml_jax.data.rows import token_row, token_rows
from sml_jax.dialogue.record import Dialogue, Turn

BOS, TEACHER, STUDENT, END = 1, 2, 3, 4


def teacher(*ids: int) -> Turn:
  return Turn("teacher", "t", tokens=[TEACHER, *ids, END])


def student(*ids: int, end: int = END, logprobs: bool = True, **fields) -> Turn:
  tokens = [*ids, end]
  return Turn("student", "s", tokens=tokens, prompt=[STUDENT], logprobs=[-0.5] * len(tokens) * logprobs, **fields)


def dialogue(*turns: Turn, **fields) -> Dialogue:
  return Dialogue("task", "math", 0, "full", list(turns), bos=[BOS], **fields)


TWO_TURNS = dialogue(teacher(10, 11), student(20, 21), teacher(12), student(22), advantages=[0.5, -2.0])


def test_layout_by_hand():
  row = token_row(TWO_TURNS)
  np.testing.assert_array_equal(row["tokens"], [1, 2, 10, 11, 4, 3, 20, 21, 4, 2, 12, 4, 3, 22, 4])
  np.testing.assert_array_equal(row["weights"], [0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1])
  np.testing.assert_array_equal(row["advantages"], [0, 0, 0, 0, 0, 0, .5, .5, .5, 0, 0, 0, 0, -2, -2])
  np.testing.assert_array_equal(row["logprobs"], [0, 0, 0, 0, 0, 0, -.5, -.5, -.5, 0, 0, 0, 0, -.5, -.5])
  assert {name: array.dtype.name for name, array in row.items()} == {
      "tokens": "int32", "weights": "float32", "advantages": "float32", "logprobs": "float32"}


@pytest.mark.parametrize("stop", [0, 4, 5])
def test_p24_every_stop_id_is_trained_and_the_next_token_is_not(stop):
  """0 is also the padding id: the mask comes from the turns, so that does not matter."""
  row = token_row(dialogue(teacher(10), student(20, end=stop), teacher(11), student(21, end=stop)))
  ends = np.flatnonzero(np.diff(row["weights"]) < 0)  # Last trained token of a turn that something follows.
  np.testing.assert_array_equal(row["tokens"][ends], [stop])
  assert row["weights"][-1] == 1 and row["tokens"][-1] == stop
  assert row["weights"].sum() == 4


def test_p25_the_mask_covers_student_text_and_end_of_turn():
  row = token_row(TWO_TURNS)
  np.testing.assert_array_equal(row["tokens"][row["weights"] == 1], [20, 21, END, 22, END])


def test_p26_the_mask_counts_the_student_tokens():
  """Counted from turns drawn at random, without looking at how a row is laid out."""
  rng = np.random.default_rng(0)
  for _ in range(50):
    turns, expected = [], 0
    for _ in range(rng.integers(1, 6)):
      n = int(rng.integers(1, 9))
      turns += [teacher(*rng.integers(5, 99, rng.integers(1, 9))), student(*rng.integers(5, 99, n))]
      expected += n + 1
    row = token_row(dialogue(*turns))
    assert row["weights"].sum() == expected == dialogue(*turns).sampled_tokens
    assert 0 < expected < len(row["tokens"])


def test_p27_the_header_is_context():
  row = token_row(TWO_TURNS)
  starts = np.flatnonzero(np.diff(row["weights"]) > 0) + 1  # First trained token of each student turn.
  np.testing.assert_array_equal(row["tokens"][starts], [20, 22])
  np.testing.assert_array_equal(row["tokens"][starts - 1], [STUDENT, STUDENT])


def test_a_cut_turn_has_no_end_and_is_trained_as_sampled():
  cut = Turn("student", "s", tokens=[20, 21], prompt=[STUDENT], logprobs=[-1.0, -1.0], cut=True)
  row = token_row(dialogue(teacher(10), cut))
  np.testing.assert_array_equal(row["weights"], [0, 0, 0, 0, 0, 1, 1])


def test_injected_questions_can_be_context():
  question = student(30, 31, logprobs=False, injected=True)
  primed = dialogue(teacher(10), question, teacher(11), student(20))
  assert token_row(primed)["weights"].sum() == 5
  row = token_row(primed, train_on_injected=False)
  np.testing.assert_array_equal(row["tokens"][row["weights"] == 1], [20, END])
  assert row["logprobs"][row["tokens"] == 30] == 0


def test_mask_loss_keeps_everything_else():
  row, masked = token_row(TWO_TURNS), token_row(TWO_TURNS, mask_loss=True)
  assert not masked["weights"].any()
  for name in ("tokens", "advantages", "logprobs"):
    np.testing.assert_array_equal(row[name], masked[name])


def test_without_stripped_tokens_there_is_one_row():
  (row,) = token_rows(TWO_TURNS)
  assert all((row[name] == array).all() for name, array in token_row(TWO_TURNS).items())


def thinker(*ids: int, stripped: int, **fields) -> Turn:
  """A turn of which the first `stripped` tokens leave the context."""
  return student(*ids, stripped=[1, 1 + stripped], **fields)


def test_each_turn_stands_behind_what_was_left_of_the_dialogue_when_it_spoke():
  """By hand: 20 and 21 are thought in turn 1, 24 in turn 3; turn 2 did not think, so turn 3 shares its row."""
  d = dialogue(
      teacher(10), thinker(20, 21, 22, stripped=2), teacher(11), student(23), teacher(12), thinker(24, 25, stripped=1),
      teacher(13), thinker(26, 27, stripped=1), advantages=[1.0, 2.0, 3.0, 4.0],
  )  # fmt: skip
  rows = token_rows(d)
  assert [r["tokens"].tolist() for r in rows] == [
      [1, 2, 10, 4, 3, 20, 21, 22, 4],
      [1, 2, 10, 4, 3, 22, 4, 2, 11, 4, 3, 23, 4, 2, 12, 4, 3, 24, 25, 4],
      [1, 2, 10, 4, 3, 22, 4, 2, 11, 4, 3, 23, 4, 2, 12, 4, 3, 25, 4, 2, 13, 4, 3, 26, 27, 4],
  ]
  trained = [r["tokens"][r["weights"] == 1].tolist() for r in rows]
  assert trained == [[20, 21, 22, 4], [23, 4, 24, 25, 4], [26, 27, 4]]
  assert [sorted({*r["advantages"].tolist()}) for r in rows] == [[0, 1], [0, 2, 3], [0, 4]]
  for r in rows:
    assert ((r["logprobs"] != 0) == (r["weights"] == 1)).all()
  assert sum(r["weights"].sum() for r in rows) == d.sampled_tokens == token_row(d)["weights"].sum()
  assert len(token_row(d)["tokens"]) == 29  # whole, with all that was thought


def test_a_header_s_own_block_of_thinking_can_be_stripped_too():
  """Prompt 3 8 9, of which 8 and 9 go once the turn has ended."""
  turns = [Turn("student", "s", tokens=[i, END], prompt=[STUDENT, 8, 9], stripped=[1, 3]) for i in (20, 21)]
  first, second = token_rows(dialogue(teacher(10), turns[0], teacher(11), turns[1]))
  assert first["tokens"].tolist() == [1, 2, 10, 4, 3, 8, 9, 20, 4]
  assert second["tokens"].tolist() == [1, 2, 10, 4, 3, 20, 4, 2, 11, 4, 3, 8, 9, 21, 4]
  assert second["weights"].tolist() == [0] * 13 + [1, 1]


def test_masks_reach_every_row_and_no_tokens_are_no_row():
  d = dialogue(teacher(10), thinker(20, 21, stripped=1, injected=True), teacher(11), thinker(22, 23, stripped=1))
  assert [r["weights"].sum() for r in token_rows(d, train_on_injected=False)] == [0, 3]
  assert [r["weights"].sum() for r in token_rows(d, mask_loss=True)] == [0, 0]
  assert token_rows(Dialogue("t", "d", 0, "full", [Turn("teacher", "too long")], "context_full")) == []
