"""How the two talk: many dialogues in lock-step, one student turn and one reply at a time.

Only the verifier, the turn cap or a failure ends a dialogue; nothing the student says does.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from sml_jax.dialogue.record import Dialogue, End, Feedback, Turn
from sml_jax.dialogue.renderer import Renderer
from sml_jax.dialogue.teacher import Teacher, hidden_shards
from sml_jax.errors import UserError
from sml_jax.models.transformer import Params
from sml_jax.sampling.engine import Engine
from sml_jax.tasks.source import Source
from sml_jax.tasks.task import Task


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


class Teachers(Protocol):
  """Where another teacher than the source's comes from, for the arms whose replies it makes."""

  arms: Sequence[Feedback]

  def teacher(self, feedback: Feedback, key: jax.Array, student: Params) -> Teacher:
    """The teacher of one rollout, given its key and the decode copy of its student's parameters."""
    ...


class Table:
  """Where student and teacher meet: the engine's rows, the source's verifier and a teacher.

  Attributes:
    teachers: gives the teacher of its arms; that of the others, or of all if it is None, is the source's own.
  """

  def __init__(self, engine: Engine, renderer: Renderer, source: Source, budget: TokenBudget):
    self.engine, self.renderer, self.source, self.budget = engine, renderer, source, budget
    self._keys = jax.jit(jax.vmap(place_key, (None, 0, 0, None)))
    self.teachers: Teachers | None = None
    self._chances = jax.jit(jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 2**31 - 1))))

  def play(
      self, params: Params, tasks: Sequence[Task], samples: Sequence[int], rules: Rules, key: jax.Array
  ) -> list[Dialogue]:
    """One dialogue for each (task, sample), in that order.

    Args:
      params: of the student.
      tasks, samples: of equal length; any number, played in batches of the engine's rows.
      rules: of the rollout.
      key: of (seed, stage, step); the rest of a token's place is folded in here.
    """
    if (most := self.budget.length(rules.turns)) > self.engine.slots:
      raise ValueError(f"{rules.turns} turns may take {most} tokens, but the engine's rows have {self.engine.slots}")
    student = self.engine.decode_params(params)
    teacher = self._teacher(rules.feedback, key, student)
    out = []
    for start in range(0, len(tasks), self.engine.rows):
      stop = start + self.engine.rows
      out += self._play_batch(student, teacher, tasks[start:stop], samples[start:stop], rules, key)
    return out

  def _teacher(self, feedback: Feedback, key: jax.Array, student: Params) -> Teacher:
    if self.teachers is None or feedback not in self.teachers.arms:
      return self.source.teacher(feedback)
    return self.teachers.teacher(feedback, key, student)

  def recite(self, tasks: Sequence[Task]) -> list[Dialogue]:
    """Dialogues of one turn, in which the student says its task's canonical answer: a data set's own solutions.

    Judged as any other turn. What does not fit the budget ends as context_full, without a student turn.
    """
    rules = Rules(turns=1)
    dialogues = [self._open(t, 0, rules.feedback) for t in tasks]
    told = []
    for task, d in zip(tasks, dialogues, strict=True):
      turn = self.renderer.student_turn(task.answer)
      before = len(d.bos) + len(d.turns[0].tokens) + len(turn.prompt)
      if before > self.budget.problem or len(turn.tokens) > self.budget.turn:
        d.end, d.turns[0].tokens = "context_full", []
      else:
        d.turns.append(turn)
        told.append((task, d))
    self._judge([t for t, _ in told], [d for _, d in told], 1, rules)
    return dialogues

  def _play_batch(self, params, teacher: Teacher, tasks, samples, rules: Rules, key) -> list[Dialogue]:
    engine, renderer, b = self.engine, self.renderer, self.engine.rows
    dialogues = [self._open(t, s, rules.feedback) for t, s in zip(tasks, samples, strict=True)]
    feed = [[*d.bos, *d.turns[0].tokens, *renderer.student_prompt()] for d in dialogues]
    for d, tokens in zip(dialogues, feed, strict=True):
      if len(tokens) > self.budget.problem:
        d.end, d.turns[0].tokens = "context_full", []  # nobody reads it: in the record as text alone
    task_ids = padded([zlib.crc32(t.id.encode()) for t in tasks], b)
    sample_ids = padded(samples, b)
    answers = [list(renderer.student_turn(t.answer).tokens) for t in tasks] if rules.answer_nll else []
    rows = engine.start()
    for turn in range(1, rules.turns + 1):
      live = [i for i, d in enumerate(dialogues) if d.end is None]
      if not live:
        break
      view = engine.view(self.budget.length(turn))
      rows = engine.feed(params, rows, by_row(b, {i: feed[i] for i in live}), view)
      nll = None
      if answers:
        rows, nll = engine.score(params, rows, by_row(b, {i: answers[i] for i in live}), view)
      keys = self._keys(key, task_ids, sample_ids, turn)
      active = np.zeros(b, bool)
      active[live] = True
      budgets = np.full(b, self.budget.turn, np.int32)
      rows, said = engine.sample(params, rows, keys, active, budgets, np.full(b, rules.temperature, np.float32), view)
      for i in live:
        n = int(said.counts[i])
        dialogues[i].turns.append(renderer.sampled_turn(said.tokens[i, :n].tolist(), said.logprobs[i, :n].tolist()))
        if nll is not None:
          dialogues[i].turns[-1].answer_nll = float(nll[i])
      self._judge([tasks[i] for i in live], [dialogues[i] for i in live], min(turn, rules.turns), rules)
      in_cache = {i: dialogues[i].turns[-1] for i in live}
      self._ask_instead(live, tasks, dialogues, turn, rules, keys)
      live = [i for i in live if dialogues[i].end is None]
      rows, reread = self._rewind(rows, {i: (in_cache[i], dialogues[i].turns[-1]) for i in live})
      replies = teacher.reply([tasks[i] for i in live], [dialogues[i] for i in live])
      for i, reply in zip(live, replies, strict=True):
        self._answer(dialogues[i], reply)
        feed[i] = [*reread[i], *dialogues[i].turns[-1].tokens, *renderer.student_prompt()]
    return dialogues

  def _open(self, task: Task, sample: int, feedback: Feedback) -> Dialogue:
    problem = self.renderer.first_turn(task.text)
    return Dialogue(task.id, task.domain, sample, feedback, [problem], bos=list(self.renderer.bos))

  def _judge(self, tasks: list[Task], dialogues: list[Dialogue], turn: int, rules: Rules) -> None:
    """Kind, verdict and (where it ends here) end reason of each dialogue's last turn."""
    verdicts = self.source.verify(tasks, [d.turns[-1].text for d in dialogues])
    for task, dialogue, verdict in zip(tasks, dialogues, verdicts, strict=True):
      last = dialogue.turns[-1]
      last.hidden = len(hidden_shards(task, dialogue))
      last.kind = self.source.kind(task, last.text)
      last.verdict = "no_attempt" if last.cut else verdict
      dialogue.end = _end(task, last, turn, rules)

  def _ask_instead(self, live, tasks, dialogues, turn, rules: Rules, keys) -> None:
    """Q-priming: replaces wrong turns by questions with probability base^turn."""
    if not rules.q_priming:
      return
    chances = np.asarray(self._chances(keys))
    for i in live:
      last = dialogues[i].turns[-1]
      if last.verdict != "wrong" or dialogues[i].end not in (None, "turn_limit"):
        continue
      if chances[i] >= rules.q_priming**turn:
        continue
      question = self.renderer.student_turn(self.source.question(tasks[i], dialogues[i]))
      if (n := len(question.tokens)) > self.budget.turn:
        raise UserError(f"q_priming: a question of {n} tokens, more than dialogue.max_turn_tokens ({self.budget.turn})")
      question.injected, question.hidden, question.verdict = True, last.hidden, "no_attempt"
      question.kind = self.source.kind(tasks[i], question.text)
      dialogues[i].turns[-1] = question

  def _rewind(self, rows, turns: dict[int, tuple[Turn, Turn]]):
    """Forgets what later turns are not to see: a turn that a question replaced, and stripped thinking.

    Args:
      rows: of the engine.
      turns: by row: the turn in the cache, and the turn as it counts.

    Returns:
      The rows, and for each row the tokens of the turn that it must read again.
    """
    forget, reread = np.zeros(self.engine.rows, np.int32), {}
    for i, (cached, turn) in turns.items():
      whole = len(cached.prompt) + len(cached.tokens)
      keep = turn.stripped[0] if turn.stripped else whole if turn is cached else len(turn.prompt)
      forget[i], reread[i] = whole - keep, turn.context[keep:]
    return (self.engine.rewind(rows, forget) if forget.any() else rows), reread

  def _answer(self, dialogue: Dialogue, reply: str | None) -> None:
    if reply is None:
      dialogue.end = "teacher_failed"
      return
    turn = self.renderer.teacher_turn(reply)
    if len(turn.tokens) + len(self.renderer.student_prompt()) > self.budget.reply:
      dialogue.end, turn.tokens = "context_full", []  # as a problem that is too long
    dialogue.turns.append(turn)


def _end(task: Task, last: Turn, turn: int, rules: Rules) -> End | None:
  """Why a dialogue ends with student turn number `turn`; None if it goes on."""
  if last.cut:
    return "malformed"
  if last.verdict == "verifier_failed":
    return "verifier_failed"
  if last.verdict == "solved":
    return "solved"
  if task.reveal == "every_turn" and last.hidden == 0:
    return "shards_done"
  if turn >= min(rules.turns, task.turn_cap or rules.turns):
    return "turn_limit"
  return None


def place_key(key: jax.Array, task: jax.Array, sample: jax.Array, turn: jax.Array) -> jax.Array:
  """The key of a turn: what is sampled there is a function of the place alone."""
  for place in (task, sample, turn):
    key = jax.random.fold_in(key, jnp.asarray(place, jnp.uint32))
  return key


def padded(values: Sequence[int], rows: int) -> np.ndarray:
  """One number for each of the engine's rows, uint32."""
  return np.asarray([*values, *[0] * (rows - len(values))], np.uint32)


def by_row(rows: int, tokens: dict[int, Sequence[int]]) -> list[Sequence[int]]:
  return [tokens.get(i, ()) for i in range(rows)]


def solved_counts(dialogues: Sequence[Dialogue], tries: int) -> np.ndarray:
  """Solved tries at each task, [n], of dialogues ordered by (task, try). Invalid tries are failures of the control."""
  return np.array([d.end == "solved" for d in dialogues]).reshape(-1, tries).sum(1)
