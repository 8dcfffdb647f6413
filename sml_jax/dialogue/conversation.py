"""How the two talk: many dialogues in lock-step, one student turn and one reply at a time.

Only the verifier, the turn cap or a failure ends a dialogue; nothing the student says does. Who the students are is
seats.py's: rows of the engine, or a server's.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import jax
import numpy as np

from sml_jax.dialogue.firewall import Firewall, Policy, leak_of
from sml_jax.dialogue.record import Dialogue, End, Feedback, Turn
from sml_jax.dialogue.renderer import Renderer
from sml_jax.dialogue.seats import EngineSeats, Rules, TokenBudget, padded, place_keys
from sml_jax.dialogue.teacher import ALL_SHARDS, Reply, Teacher, as_reply, hidden_shards, recap
from sml_jax.dialogue.tutor import KindJudge, Questioner
from sml_jax.errors import UserError
from sml_jax.models.transformer import Params
from sml_jax.sampling.engine import Engine
from sml_jax.tasks.lost_in_conversation import Compat
from sml_jax.tasks.source import Source
from sml_jax.tasks.task import Task

__all__ = ["Rules", "Table", "TokenBudget", "solved_counts"]


class Cast(Protocol):
  """Who speaks and judges beside the students, in place of the source; each is made for one rollout, given its key and
  the decode copy of its student's parameters."""

  def teacher(self, feedback: Feedback, key: jax.Array, student: Params) -> Teacher: ...

  def questioner(self, key: jax.Array, student: Params) -> Questioner | None: ...

  def judge(self, key: jax.Array, student: Params) -> KindJudge | None: ...


class Seats(Protocol):
  """The students of a batch of dialogues."""

  def speak(self, live: Sequence[int], turn: int) -> None:
    """Appends a student turn to each live dialogue, or ends it as student_failed."""
    ...

  def settle(self, turns: Mapping[int, tuple[Turn, Turn]]) -> None:
    """Told, for each dialogue that goes on, the turn that its student spoke and the one that counts in its place."""
    ...

  def hear(self, index: int) -> None:
    """Told that a dialogue has a new teacher turn."""
    ...


class Table:
  """Where student and teacher meet: the engine's rows, the source's verifier and a teacher.

  Attributes:
    cast: gives teacher, questioner and judge of kinds; None = the source is all of them.
    leaks: what is done about replies that give the answer away (firewall.Policy), and how often one is asked anew.
    compat: "reference" = recaps as the reference of Lost in Conversation makes them.
  """

  def __init__(self, engine: Engine, renderer: Renderer, source: Source, budget: TokenBudget):
    self.engine, self.renderer, self.source, self.budget = engine, renderer, source, budget
    self.cast: Cast | None = None
    self.leaks: tuple[Policy, int] = ("mark", 0)
    self.compat: Compat = "fixed"
    self._chances = jax.jit(jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 2**31 - 1))))

  @property
  def rows(self) -> int:
    """Dialogues that are played side by side."""
    return self.engine.rows

  def play(
      self, params: Params, tasks: Sequence[Task], samples: Sequence[int], rules: Rules, key: jax.Array
  ) -> list[Dialogue]:
    """One dialogue for each (task, sample), in that order.

    Args:
      params: of the student.
      tasks, samples: of equal length; any number, played in batches of `rows`.
      rules: of the rollout.
      key: of (seed, stage, step); the rest of a token's place is folded in here.
    """
    student = self._student(params, rules)
    others = self._others(student, rules, key)
    out = []
    for start in range(0, len(tasks), self.rows):
      stop = start + self.rows
      out += self._play_batch(student, others, tasks[start:stop], samples[start:stop], rules, key)
    return out

  def _others(self, student: Params, rules: Rules, key: jax.Array) -> Others:
    if self.cast is None:
      teacher, questioner, judge = self.source.teacher(rules.feedback), None, None
    else:
      teacher = self.cast.teacher(rules.feedback, key, student)
      questioner = self.cast.questioner(key, student) if rules.q_priming else None
      judge = self.cast.judge(key, student)
    if self.leaks[0] != "off":
      teacher = Firewall(teacher, self.source, *self.leaks)
    return Others(teacher, questioner, judge)

  def _student(self, params: Params, rules: Rules) -> Params:
    """The decode copy."""
    if (most := self.budget.length(rules.turns)) > self.engine.slots:
      raise ValueError(f"{rules.turns} turns may take {most} tokens, but the engine's rows have {self.engine.slots}")
    return self.engine.decode_params(params)

  def seats(self, student: Params, tasks, dialogues: list[Dialogue], rules: Rules, key: jax.Array) -> Seats:
    return EngineSeats(self.engine, self.renderer, self.budget, student, tasks, dialogues, rules, key)

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

  def fit(self, text: str) -> str:
    """What of a teacher's text fits a student's context."""
    most = self.budget.reply - len(self.renderer.student_prompt())
    while text and len(self.renderer.teacher_turn(text).tokens) > most:
      text = text[:-1]
    return text.strip()

  def fit_question(self, text: str) -> str:
    """The same of a question that stands in a student's place."""
    while text and len(self.renderer.student_turn(text).tokens) > self.budget.turn:
      text = text[:-1]
    return text.strip()

  def _play_batch(self, student, others: Others, tasks, samples, rules: Rules, key) -> list[Dialogue]:
    dialogues = [self._open(t, s, rules.feedback) for t, s in zip(tasks, samples, strict=True)]
    for d in dialogues:
      d.prompts = getattr(others.teacher, "hashes", "")
      if len(d.bos) + len(d.turns[0].tokens) + len(self.renderer.student_prompt()) > self.budget.problem:
        d.end, d.turns[0].tokens = "context_full", []  # nobody reads it: in the record as text alone
    of = lambda live: ([tasks[i] for i in live], [dialogues[i] for i in live])
    seats = self.seats(student, tasks, dialogues, rules, key)
    for turn in range(1, rules.turns + 1):
      live = [i for i, d in enumerate(dialogues) if d.end is None]
      if not live:
        break
      seats.speak(live, turn)
      live = [i for i in live if dialogues[i].end is None]
      self._judge(*of(live), turn, rules, others.judge)
      spoken = {i: dialogues[i].turns[-1] for i in live}
      self._ask_instead(live, tasks, dialogues, turn, rules, key, others.questioner)
      live = [i for i in live if dialogues[i].end is None]
      seats.settle({i: (spoken[i], dialogues[i].turns[-1]) for i in live})
      for i, reply in zip(live, self._replies(others.teacher, *of(live)), strict=True):
        self._answer(dialogues[i], reply)
        seats.hear(i)
    return dialogues

  def _open(self, task: Task, sample: int, feedback: Feedback) -> Dialogue:
    problem = self.renderer.first_turn(task.text, system=task.system or None)
    return Dialogue(task.id, task.domain, sample, feedback, [problem], bos=list(self.renderer.bos))

  def _judge(
      self, tasks: list[Task], dialogues: list[Dialogue], turn: int, rules: Rules, judge: KindJudge | None = None
  ) -> None:
    """Kind, verdict and (where it ends here) end reason of each dialogue's last turn."""
    texts = [d.turns[-1].text for d in dialogues]
    verdicts = self.source.verify(tasks, texts)
    kinds = judge.kinds(tasks, dialogues) if judge else map(self.source.kind, tasks, texts)
    for task, dialogue, verdict, kind in zip(tasks, dialogues, verdicts, kinds, strict=True):
      last = dialogue.turns[-1]
      last.hidden = len(hidden_shards(task, dialogue))
      last.kind, last.reason = kind, self.source.reason(task, last.text)
      last.verdict = "no_attempt" if last.cut else verdict
      dialogue.end = _end(task, dialogue, turn, rules, self.compat)

  def _ask_instead(
      self, live, tasks, dialogues, turn, rules: Rules, key, questioner: Questioner | None
  ) -> None:
    """Q-priming: replaces wrong turns by questions with probability base^turn."""
    if not rules.q_priming:
      return
    places = [zlib.crc32(tasks[i].id.encode()) for i in live], [dialogues[i].sample for i in live]
    keys = place_keys(key, *(padded(p, self.rows) for p in places), turn)
    chances = np.asarray(self._chances(keys))
    chosen = [
        i for i, chance in zip(live, chances, strict=False)
        if dialogues[i].turns[-1].verdict == "wrong" and dialogues[i].end in (None, "turn_limit")
        and chance < rules.q_priming**turn
    ]  # fmt: skip
    for i, text in zip(chosen, self._questions(tasks, dialogues, chosen, questioner), strict=True):
      if text is None:
        continue  # nothing that could be asked without the answer: the turn stays as it is
      question, last = self.renderer.student_turn(text), dialogues[i].turns[-1]
      if (n := len(question.tokens)) > self.budget.turn:
        raise UserError(f"q_priming: a question of {n} tokens, more than dialogue.max_turn_tokens ({self.budget.turn})")
      question.injected, question.hidden, question.verdict = True, last.hidden, "no_attempt"
      question.kind = self.source.kind(tasks[i], question.text)
      dialogues[i].turns[-1] = question

  def _questions(self, tasks, dialogues, chosen: list[int], questioner: Questioner | None) -> list[str | None]:
    """One question each, that does not give the answer away."""
    if questioner is None:
      return [self.source.question(tasks[i], dialogues[i]) for i in chosen]
    found: dict[int, str] = {}
    for again in range(1 + self.leaks[1]):
      left = [i for i in chosen if i not in found]
      if not left:
        break
      asked = questioner.ask([tasks[i] for i in left], [dialogues[i] for i in left], again)
      for i, text in zip(left, asked, strict=True):
        if text and not leak_of(self.source, tasks[i], dialogues[i], text):
          found[i] = text
    return [found.get(i) for i in chosen]

  def _replies(self, teacher: Teacher, tasks: list[Task], dialogues: list[Dialogue]) -> list[Reply | None]:
    """The teacher's, but for a talk that is to be told again as a whole."""
    recaps = [i for i, (t, d) in enumerate(zip(tasks, dialogues, strict=True)) if _wants_recap(t, d)]
    asked = [i for i in range(len(tasks)) if i not in recaps]
    said = teacher.reply([tasks[i] for i in asked], [dialogues[i] for i in asked])
    out = dict(zip(asked, map(as_reply, said), strict=True))
    out |= {i: recap(tasks[i], dialogues[i], self.compat) for i in recaps}
    return [out[i] for i in range(len(tasks))]

  def _answer(self, dialogue: Dialogue, reply: Reply | None) -> None:
    if reply is None:
      dialogue.end = "teacher_failed"
      return
    turn = self.renderer.teacher_turn(reply.text)
    turn.shard, turn.leak, turn.stopped = reply.shard, reply.leak, reply.stopped
    if reply.dropped:
      dialogue.end, turn.tokens = "teacher_failed", []
    elif len(turn.tokens) + len(self.renderer.student_prompt()) > self.budget.reply:
      dialogue.end, turn.tokens = "context_full", []  # as a problem that is too long
    dialogue.turns.append(turn)


@dataclasses.dataclass(frozen=True)
class Others:
  """Who besides the students speaks or judges in one rollout."""

  teacher: Teacher
  questioner: Questioner | None = None
  judge: KindJudge | None = None


def _wants_recap(task: Task, dialogue: Dialogue) -> bool:
  told = any(t.shard == ALL_SHARDS for t in dialogue.turns)
  return task.reveal == "recap" and not told and not hidden_shards(task, dialogue)


def _end(task: Task, dialogue: Dialogue, turn: int, rules: Rules, compat: Compat) -> End | None:
  """Why a dialogue ends with student turn number `turn`; None if it goes on."""
  last = dialogue.turns[-1]
  if last.cut:
    return "malformed"
  if last.verdict == "verifier_failed":
    return "verifier_failed"
  if last.verdict == "solved":
    return "solved"
  if last.reason == "hidden_failed":
    return "hidden_failed"
  if task.reveal not in ("", "on_question") and last.hidden == 0 and not _wants_recap(task, dialogue):
    return "shards_done"
  # The reference of Lost in Conversation has no cap; here the stage's is left.
  capped = task.turn_cap is not None and not (task.form and compat == "reference")
  if turn >= (min(rules.turns, task.turn_cap) if capped else rules.turns):
    return "turn_limit"
  return None


def solved_counts(dialogues: Sequence[Dialogue], tries: int) -> np.ndarray:
  """Solved tries at each task, [n], of dialogues ordered by (task, try). Invalid tries are failures of the control."""
  return np.array([d.end == "solved" for d in dialogues]).reshape(-1, tries).sum(1)
