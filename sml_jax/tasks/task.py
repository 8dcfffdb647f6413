"""A task: one problem, and what only the teacher may know about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, Protocol

Verdict = Literal["solved", "wrong", "no_attempt", "verifier_failed"]
"""`verifier_failed` is never the same as `wrong`: such a dialogue is invalid and leaves the statistics."""

Reveal = Literal["", "on_question", "every_turn", "recap", "snowball"]
"""How hidden shards come out: not sharded; a question reveals one; every teacher turn reveals one. With "recap" a last
teacher turn says all of it again; with "snowball" each one first repeats what was said before."""

Form = Literal["", "number", "latex", "code", "value"]
"""What kind of answer a task of a real data set wants, and so which checker judges it: a number, a formula in
\\boxed{}, a program, a Python literal."""


@dataclasses.dataclass(frozen=True)
class Task:
  """One problem.

  Attributes:
    id: unique and stable; randomness, splits and pairing are keyed by it.
    domain: the suite of verifiers and teachers it belongs to, such as "math" or "code".
    text: the whole problem as the teacher states it at turn 1 (for a sharded task: shards[0]).
    answer: the canonical student turn that solves it; scored by the answer NLL, never shown; "" = not known.
    private: JSON-able knowledge of the teacher alone: the reference answer, or the tests.
    shards: for an underspecified task the clauses, shards[0] stated at turn 1 and the rest hidden; else ().
    reveal: how the hidden shards come out.
    form: of the answer.
    system: instructions for the student before turn 1; "" = none but the renderer's.
    whole: an underspecified task as it reads when all is said at once; "" = its shards, the first one last.
  """

  id: str
  domain: str
  text: str
  answer: str
  private: Mapping[str, Any]
  shards: tuple[str, ...] = ()
  reveal: Reveal = ""
  form: Form = ""
  whole: str = ""
  system: str = ""

  @property
  def hidden(self) -> int:
    """Number of shards that turn 1 does not show."""
    return max(0, len(self.shards) - 1)

  @property
  def turn_cap(self) -> int | None:
    """Student turns an underspecified task allows; None if fully specified.

    In the micro-world one for each hidden shard and two more; of Lost in Conversation 10 or three a shard, whichever is
    more, as a fork of the reference has it (the reference itself has no cap, and may go on for ever).
    """
    if not self.shards:
      return None
    return max(10, 3 * len(self.shards)) if self.form else self.hidden + 2


class Verifier(Protocol):
  """Judges a whole batch of student turns, so that slow checks can run side by side."""

  def __call__(self, tasks: list[Task], texts: list[str]) -> list[Verdict]:
    ...
