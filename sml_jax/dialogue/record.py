"""A dialogue as it is kept: turns, verdicts and one end reason; everything a report needs, without a model."""

from __future__ import annotations

import dataclasses
import json
from typing import Literal

from sml_jax.tasks.task import Verdict

Role = Literal["teacher", "student"]
Kind = Literal["answer_attempt", "clarification", "interrogation", "discussion", "hedge", "refuse", "missing"]
End = Literal[
    "solved", "turn_limit", "context_full", "shards_done", "malformed", "hidden_failed", "teacher_failed",
    "verifier_failed", "student_failed",
]  # fmt: skip
"""hidden_failed: a program that passed the public tests, on which the dialogue stops, and not the hidden ones."""
Feedback = Literal["full", "no_private", "binary", "try_again", "shuffled", "none"]

INVALID_ENDS = ("teacher_failed", "verifier_failed", "student_failed")
"""The last: a served student that gave no reply."""
QUESTION_KINDS = ("clarification", "interrogation")


@dataclasses.dataclass
class Turn:
  """One utterance.

  Attributes:
    role: who speaks.
    text: what was said, without role and end-of-turn pieces.
    tokens: the ids as rendered (teacher: header, text, end of turn) or as sampled (student: text, end of turn).
    prompt: student turns: the ids between the previous turn and the first sampled token (the student's header).
    logprobs: student turns: one sampled log-probability a token (nats, of the temperature-scaled distribution);
      empty for a turn that was not sampled (scripted, or an injected question).
    kind: student turns: one of the seven kinds.
    verdict: student turns: what the verifier said.
    reason: student turns: why, in a word, such as differs, timeout or hidden_failed.
    hidden: student turns: shards still hidden when it spoke.
    cut: student turns: stopped by the token limit and not by an end of turn.
    injected: student turns: a question put in place of a wrong attempt by Q-priming.
    stripped: student turns: [start, stop) of prompt + tokens that later turns do not see (its thinking); empty = none.
    answer_nll: student turns, if measured: nats of the canonical answer turn (end of turn included) in its place.
    shard, leak, stopped: teacher turns: see `teacher.Reply`.
  """

  role: Role
  text: str
  tokens: list[int] = dataclasses.field(default_factory=list)
  prompt: list[int] = dataclasses.field(default_factory=list)
  logprobs: list[float] = dataclasses.field(default_factory=list)
  kind: Kind | None = None
  verdict: Verdict | None = None
  reason: str = ""
  hidden: int = 0
  cut: bool = False
  injected: bool = False
  stripped: list[int] = dataclasses.field(default_factory=list)
  answer_nll: float | None = None
  shard: int = 0
  leak: str = ""
  stopped: int = 0

  @property
  def context(self) -> list[int]:
    """The ids that later turns see of this one."""
    start, stop = self.stripped or (0, 0)
    whole = [*self.prompt, *self.tokens]
    return whole[:start] + whole[stop:]


@dataclasses.dataclass
class Dialogue:
  """The turns of one try at one task. The teacher speaks first.

  Attributes:
    task_id, domain: of the task.
    sample: which try at the task this is (0 to g-1 within a group).
    feedback: the feedback arm.
    turns: teacher and student in turn.
    end: why it ended.
    bos: ids before the first turn.
    reward: gamma^(n-1) if solved at student turn n, else 0; None where no reward was given.
    advantages: one number a student turn, as used by the update; empty where there was none.
    prompts: hashes of the prompt files that its teacher was given; "" = a scripted one.
  """

  task_id: str
  domain: str
  sample: int
  feedback: Feedback
  turns: list[Turn] = dataclasses.field(default_factory=list)
  end: End | None = None
  bos: list[int] = dataclasses.field(default_factory=list)
  reward: float | None = None
  advantages: list[float] = dataclasses.field(default_factory=list)
  prompts: str = ""

  @property
  def leaked(self) -> bool:
    """The student was shown a teacher turn that gives the answer away."""
    return any(t.leak for t in self.turns)

  @property
  def student_turns(self) -> list[Turn]:
    return [t for t in self.turns if t.role == "student"]

  @property
  def valid(self) -> bool:
    """False if the verifier or the teacher failed: it then leaves group statistics and success@t."""
    return self.end not in INVALID_ENDS

  @property
  def solved_at(self) -> int | None:
    """Student turn (from 1) that solved the task, or None."""
    return len(self.student_turns) if self.end == "solved" else None

  @property
  def sampled_tokens(self) -> int:
    return sum(len(t.logprobs) for t in self.turns)

  def to_json(self) -> str:
    """One line of JSON; fields at their defaults are left out, log-probabilities keep 6 decimals."""
    return json.dumps(_sparse(self), separators=(",", ":"))

  @staticmethod
  def from_json(line: str) -> Dialogue:
    """The inverse of `to_json`. Raises ValueError naming the field that is missing or unknown."""
    try:
      fields = json.loads(line)
      turns = [Turn(**t) for t in fields.pop("turns", [])]
      return Dialogue(turns=turns, **fields)
    except TypeError as e:
      raise ValueError(f"not a dialogue record: {e}") from None


def _sparse(record: Dialogue | Turn) -> dict:
  out = {}
  for f in dataclasses.fields(record):
    value = getattr(record, f.name)
    default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
    if value == default:
      continue
    if f.name == "turns":
      value = [_sparse(t) for t in value]
    elif f.name == "logprobs":
      value = [round(x, 6) for x in value]
    out[f.name] = value
  return out
