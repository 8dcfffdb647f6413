"""How the two talk: what becomes of a student turn, and what ends a dialogue.

Only the verifier, the turn cap or a failure ends a dialogue; nothing the student says does. Who speaks when is the
matter of play.py, or where the students are a server's, of served.py.
"""

from __future__ import annotations

import collections
import dataclasses
import zlib
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import jax
import numpy as np

from sml_jax.dialogue.firewall import Firewall, Policy, leak_of
from sml_jax.dialogue.play import Doing, Play
from sml_jax.dialogue.record import Dialogue, End, Feedback
from sml_jax.dialogue.renderer import Renderer
from sml_jax.dialogue.rules import Rules, TokenBudget
from sml_jax.dialogue.teacher import ALL_SHARDS, Reply, Teacher, as_reply, hidden_shards, recap
from sml_jax.dialogue.tutor import KindJudge, Questioner
from sml_jax.errors import UserError
from sml_jax.models.transformer import Params
from sml_jax.sampling.engine import Engine, place_key
from sml_jax.sampling.session import Sessions
from sml_jax.tasks.lost_in_conversation import Compat
from sml_jax.tasks.source import Source, one_at_a_time
from sml_jax.tasks.task import Task

__all__ = ["Rules", "Table", "TokenBudget", "solved_counts"]


Pace = Literal["together", "apart", "one_by_one"]


class Cast(Protocol):
  """Who speaks and judges beside the students, in place of the source; each is made for one rollout, given its key and
  the sessions of its engines.

  Attributes:
    pace: how turns are given to them: "together" = all that have ended at a time; "apart" = each by itself, for writers
      whose rows go on as they come; "one_by_one" = all that have ended since the last are back, for a server, which is
      asked many things at a time.
  """

  pace: Pace

  def teacher(self, feedback: Feedback, key: jax.Array, sessions: Sessions) -> Teacher: ...

  def questioner(self, key: jax.Array, sessions: Sessions) -> Questioner | None: ...

  def judge(self, key: jax.Array, sessions: Sessions) -> KindJudge | None: ...


class Table:
  """Where student and teacher meet: the engine's rows, the source's verifier and a teacher.

  Args:
    engine, renderer: of the students.
    source: of the tasks.
    budget: of a dialogue.
    rows: dialogues that are played side by side; the engine has as many rows or twice as many, of which a writer has
      every second. 0 = the engine's.

  Attributes:
    cast: gives teacher, questioner and judge of kinds; None = the source is all of them.
    leaks: what is done about replies that give the answer away (firewall.Policy), and how often one is asked anew.
    compat: "reference" = recaps as the reference of Lost in Conversation makes them.
    clock: seconds of all rollouts so far: "prefill", "decode", and "teacher" and "verify" where they were waited for.
  """

  def __init__(self, engine: Engine, renderer: Renderer, source: Source, budget: TokenBudget, rows: int = 0):
    self.engine, self.renderer, self.source, self.budget = engine, renderer, source, budget
    self.rows = rows or engine.rows
    self.cast: Cast | None = None
    self.leaks: tuple[Policy, int] = ("mark", 0)
    self.compat: Compat = "fixed"
    self.clock: collections.Counter[str] = collections.Counter()

  @property
  def source(self) -> Source:
    return self._source

  @source.setter
  def source(self, source: Source) -> None:
    self._source = one_at_a_time(source)

  def row(self, seat: int) -> int:
    """The engine's row of a student."""
    return seat * (self.engine.rows // self.rows)

  def writer_rows(self) -> range:
    """The engine's rows beside the students'."""
    return range(1, self.engine.rows, 2)

  def play(
      self, params: Params, tasks: Sequence[Task], samples: Sequence[int], rules: Rules, key: jax.Array
  ) -> list[Dialogue]:
    """One dialogue for each (task, sample), in that order.

    Args:
      params: of the student.
      tasks, samples: of equal length; any number, of which `rows` are played at a time.
      rules: of the rollout.
      key: of (seed, stage, step); the rest of a token's place is folded in here.
    """
    sessions = self._sessions(params, rules)
    return self._run(Play(self, sessions, self.others(rules, key, sessions), tasks, samples, rules, key), sessions)

  def _sessions(self, params: Params, rules: Rules) -> Sessions:
    if (most := self.budget.length(rules.turns)) > self.engine.slots:
      raise ValueError(f"{rules.turns} turns may take {most} tokens, but the engine's rows have {self.engine.slots}")
    sessions = Sessions()
    sessions.of(self.engine, lambda: self.engine.decode_params(params))
    return sessions

  def _run(self, play: Play, sessions: Sessions) -> list[Dialogue]:
    dialogues = play.run()
    self.clock.update(play.seconds)
    for session in sessions:
      self.clock.update(session.seconds)
    return dialogues

  def others(self, rules: Rules, key: jax.Array, sessions: Sessions) -> Others:
    if self.cast is None:
      teacher, questioner, judge, pace = self.source.teacher(rules.feedback), None, None, "together"
    else:
      teacher = self.cast.teacher(rules.feedback, key, sessions)
      questioner = self.cast.questioner(key, sessions) if rules.q_priming else None
      judge, pace = self.cast.judge(key, sessions), self.cast.pace
    in_step = getattr(teacher, "in_step", False)
    if self.leaks[0] != "off":
      teacher = Firewall(teacher, self.source, *self.leaks)
    return Others(teacher, questioner, judge, pace, in_step)

  def open(self, tasks: Sequence[Task], samples: Sequence[int], rules: Rules, others: Others) -> list[Dialogue]:
    """Dialogues of which the problem alone is said; one that is too long has ended."""
    dialogues = [self._open(t, s, rules.feedback) for t, s in zip(tasks, samples, strict=True)]
    for d in dialogues:
      d.prompts = getattr(others.teacher, "hashes", "")
      if len(d.bos) + len(d.turns[0].tokens) + len(self.renderer.student_prompt()) > self.budget.problem:
        d.end, d.turns[0].tokens = "context_full", []  # nobody reads it: in the record as text alone
    return dialogues

  def chances(
      self, tasks: Sequence[Task], samples: Sequence[int], rules: Rules, key: jax.Array
  ) -> list[list[float]] | None:
    """Q-priming: the number in [0, 1) that each turn of each dialogue is given; None where there is no such thing."""
    if not rules.q_priming:
      return None
    out: list[list[float]] = []
    for start in range(0, len(tasks), self.rows):
      some = slice(start, start + self.rows)
      places = np.zeros((2, self.rows), np.uint32)
      places[0, : len(tasks[some])] = [zlib.crc32(t.id.encode()) for t in tasks[some]]
      places[1, : len(tasks[some])] = samples[some]
      out += np.asarray(_chances(key, *places, np.arange(1, rules.turns + 1)))[: len(tasks[some])].tolist()
    return out

  def answers(self, tasks: Sequence[Task]) -> dict[int, list[int]]:
    """The canonical answers as turns, by index; one that is longer than a turn is not the student's to say."""
    spoken = {i: self.renderer.student_turn(t.answer).tokens for i, t in enumerate(tasks) if t.answer}
    return {i: list(tokens) for i, tokens in spoken.items() if len(tokens) <= self.budget.turn}

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
    self._judge([t for t, _ in told], [d for _, d in told], rules)
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

  def respond(
      self, others: Others, tasks: Sequence[Task], dialogues: Sequence[Dialogue], rules: Rules,
      chances: Sequence[Sequence[float]] | None, doing: Callable[[Doing], None] = lambda what: None,
  ) -> None:
    """What comes of each dialogue's last turn: its verdict and kind, a question in its place, an end or a reply.

    chances: of each dialogue's turns, see `chances`. doing: is told what begins.
    """
    doing("verify")
    self._judge(tasks, dialogues, rules, others.judge)
    doing("teacher")
    if chances is not None:
      self._ask_instead(tasks, dialogues, rules, chances, others.questioner)
    live = [i for i, d in enumerate(dialogues) if d.end is None]
    replies = self._replies(others.teacher, [tasks[i] for i in live], [dialogues[i] for i in live])
    for i, reply in zip(live, replies, strict=True):
      self._answer(dialogues[i], reply)

  def _open(self, task: Task, sample: int, feedback: Feedback) -> Dialogue:
    problem = self.renderer.first_turn(task.text, system=task.system or None)
    return Dialogue(task.id, task.domain, sample, feedback, [problem], bos=list(self.renderer.bos))

  def _judge(
      self, tasks: Sequence[Task], dialogues: Sequence[Dialogue], rules: Rules, judge: KindJudge | None = None
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
      dialogue.end = _end(task, dialogue, rules, self.compat)

  def _ask_instead(
      self, tasks: Sequence[Task], dialogues: Sequence[Dialogue], rules: Rules, chances: Sequence[Sequence[float]],
      questioner: Questioner | None,
  ) -> None:
    """Q-priming: replaces wrong turns by questions with probability base^turn."""
    chosen = []
    for i, d in enumerate(dialogues):
      turn = len(d.student_turns)
      replaceable = d.turns[-1].verdict == "wrong" and d.end in (None, "turn_limit")
      if replaceable and chances[i][turn - 1] < rules.q_priming**turn:
        chosen.append(i)
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
  """Who besides the students speaks or judges in one rollout.

  Attributes:
    pace: see `Cast`.
    in_step: all dialogues take their turns at the same time, since what one hears depends on the others.
  """

  teacher: Teacher
  questioner: Questioner | None = None
  judge: KindJudge | None = None
  pace: Pace = "together"
  in_step: bool = False


def _wants_recap(task: Task, dialogue: Dialogue) -> bool:
  told = any(t.shard == ALL_SHARDS for t in dialogue.turns)
  return task.reveal == "recap" and not told and not hidden_shards(task, dialogue)


_chances = jax.jit(jax.vmap(jax.vmap(
    lambda *place: jax.random.uniform(jax.random.fold_in(place_key(*place), 2**31 - 1)), (None, None, None, 0)
), (None, 0, 0, None)))  # fmt: skip
"""key, tasks [B], samples [B], turns [T] -> [B, T]."""


def _end(task: Task, dialogue: Dialogue, rules: Rules, compat: Compat) -> End | None:
  """Why a dialogue ends with its last student turn; None if it goes on."""
  last, turn = dialogue.turns[-1], len(dialogue.student_turns)
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
