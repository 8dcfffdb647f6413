"""What dialogues are played by."""

from __future__ import annotations

import dataclasses

from sml_jax.dialogue.record import Feedback


@dataclasses.dataclass(frozen=True)
class Rules:
  """What one rollout plays by.

  Attributes:
    turns: most student turns (an underspecified task's own cap may be lower).
    feedback: the feedback arm.
    temperature: of sampling; 0 is greedy.
    q_priming: base of P_Q(t) = base^t, the probability that a wrong student turn t (from 1) is replaced by a question;
      0 = never.
    answer_nll: measure the nats of the canonical answer before every student turn.
  """

  turns: int
  feedback: Feedback = "full"
  temperature: float = 1.0
  q_priming: float = 0.0
  answer_nll: bool = False


@dataclasses.dataclass(frozen=True)
class TokenBudget:
  """Most tokens of a problem, a student turn and a teacher's reply, each with its role and end pieces.

  They bound a dialogue by its turn alone, so neither the cache's size nor what attention looks at depends on the
  neighbours.
  """

  problem: int
  turn: int
  reply: int

  def length(self, turns: int) -> int:
    """Most tokens of a dialogue that ends with student turn `turns`."""
    return self.problem + turns * self.turn + (turns - 1) * self.reply
