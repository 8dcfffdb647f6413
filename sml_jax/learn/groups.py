"""From the dialogues of a step to what the update eats: groups, rewards, advantages, and what of it to log."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from sml_jax.data.rows import TokenRow, Truncated, token_rows
from sml_jax.dialogue.record import Dialogue
from sml_jax.evaluate.metrics import leak_rate, repeat_counts
from sml_jax.learn import credit


@dataclasses.dataclass(frozen=True)
class Group:
  """The g dialogues of one task, with rewards and advantages filled in.

  Attributes:
    dialogues: in the order of their samples.
    degenerate: nothing to learn from: all solved at the same turn, none solved, or fewer than two valid.
    counted: which dialogues are in the group's statistics.
  """

  dialogues: list[Dialogue]
  degenerate: bool
  counted: list[bool]

  def token_rows(self, truncated: Truncated) -> list[TokenRow]:
    """Rows of the dialogues that are trained on; degenerate groups still count in the loss's denominator."""
    return [
        row
        for d, counted in zip(self.dialogues, self.counted, strict=True)
        if counted and sum(self.counted) > 1
        for row in token_rows(d, train_on_injected=False, mask_loss=truncated == "mask_loss" and is_cut(d))
    ]


def is_cut(dialogue: Dialogue) -> bool:
  """Whether a token limit, of a turn or of the dialogue, ended it."""
  return dialogue.end == "context_full" or any(t.cut for t in dialogue.turns)


def credit_groups(dialogues: Sequence[Dialogue], stage: Any, reward: Any = None) -> list[Group]:
  """Groups of `stage.group_size` consecutive dialogues, credited by stage.gamma, adv_norm, credit and truncated.

  Args:
    dialogues: ordered by (task, sample).
    stage: the config of an rl stage.
    reward: function Dialogue -> float in place of gamma^(n-1), or None.
  """
  g, groups = stage.group_size, []
  for start in range(0, len(dialogues), g):
    members = list(dialogues[start : start + g])
    counted = [d.valid and not (stage.truncated == "drop" and is_cut(d)) for d in members]
    solved_at = [d.solved_at for d in members]
    n_turns = [len(d.student_turns) for d in members]
    if reward is None:
      rewards = credit.rewards(solved_at, stage.gamma)
      degenerate = credit.is_degenerate(solved_at, counted, gamma=stage.gamma)
      advantages = credit.group_advantages(
          solved_at, n_turns, counted, gamma=stage.gamma, adv_norm=stage.adv_norm, credit=stage.credit
      )
    else:
      rewards = np.array([reward(d) for d in members], float)
      degenerate = credit.too_small(counted) or len(set(rewards[np.array(counted)])) == 1
      advantages = credit.reward_advantages(rewards, n_turns, counted, adv_norm=stage.adv_norm)
    for d, r, a in zip(members, rewards, advantages, strict=True):
      d.reward, d.advantages = (float(r) if d.valid else None), [float(x) for x in a]
    groups.append(Group(members, degenerate, counted))
  return groups


def group_metrics(groups: Sequence[Group]) -> dict[str, float]:
  """What a step's dialogues were like; rates are over all of them, pooled."""
  dialogues = [d for g in groups for d in g.dialogues]
  valid = [d for d in dialogues if d.valid]
  repeats = np.sum([repeat_counts(d) for d in dialogues], axis=0)
  turns = [t for d in dialogues for t in d.student_turns]
  mean = lambda values: float(np.mean(values)) if len(values) else float("nan")
  return {
      "reward": mean([d.reward for d in valid]),
      "success": mean([d.end == "solved" for d in valid]),
      "success_turn_1": mean([d.solved_at == 1 for d in valid]),
      "degenerate": mean([g.degenerate for g in groups]),
      # All solved, only at different turns: what gamma alone decides about.
      "all_solved_groups": mean([not g.degenerate and all(d.end == "solved" for d in g.dialogues) for g in groups]),
      "repeat_rate": float(repeats[0] / repeats[1]) if repeats[1] else float("nan"),
      "question_rate": mean([t.kind in ("clarification", "interrogation") for t in turns]),
      "truncated_rate": mean([is_cut(d) for d in dialogues]),
      "invalid_rate": mean([not d.valid for d in dialogues]),
      "leak_rate": leak_rate(dialogues),
      "success_leaked_failed": mean([d.end == "solved" and not d.leaked for d in valid]),
      "verifier_timeout_rate": mean([t.reason == "timeout" for t in turns]),
      "turns": mean([len(d.student_turns) for d in dialogues]),
      "tasks": len(groups),
  }
