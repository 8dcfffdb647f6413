"""One rollout as it is played: dialogues take seats as seats come free, and what the world outside has to do (verify,
reply, ask) goes on beside the decoding.

What a dialogue becomes does not depend on when anything of it arrives: not on its seat, its neighbours, or the order in
which errands come back.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import queue
import threading
import time
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import jax
import numpy as np

from sml_jax.dialogue.record import Dialogue, Turn
from sml_jax.dialogue.rules import Rules
from sml_jax.sampling.session import Request, Said, Sessions
from sml_jax.tasks.task import Task

if TYPE_CHECKING:
  from sml_jax.dialogue.conversation import Others, Table

Doing = Literal["verify", "teacher"]
PATIENCE_S = 0.005
"""So long decoding waits for errands that are usually back by then: their rows go on with the others."""


@dataclasses.dataclass
class Errand:
  """Some dialogues whose student has spoken, while they are with verifier and teacher."""

  dialogues: list[int]
  doing: Doing = "verify"
  seconds: float = 0.0
  error: BaseException | None = None


class Play:
  """Plays one dialogue for each (task, sample), in `dialogues`.

  Args:
    table: with a seat for every dialogue that is played at a time.
    sessions: of the table's engine, and of the engines of writers.
    others: who else speaks.
    tasks, samples, rules, key: as in `Table.play`.

  Attributes:
    seconds: in which no row could go on, while somebody was at "verify" or "teacher".
  """

  def __init__(
      self, table: Table, sessions: Sessions, others: Others, tasks: Sequence[Task], samples: Sequence[int],
      rules: Rules, key: jax.Array,
  ):
    self.table, self.others, self.tasks, self.rules = table, others, tasks, rules
    self.dialogues = table.open(tasks, samples, rules, others)
    self.seconds = {"verify": 0.0, "teacher": 0.0}
    self._students, self._sessions = sessions.of(table.engine), sessions
    self._key = np.asarray(jax.random.key_data(key))
    self._chances = table.chances(tasks, samples, rules, key)
    self._answers = table.answers(tasks) if rules.answer_nll else {}
    self._waiting = collections.deque(i for i, d in enumerate(self.dialogues) if d.end is None)
    self._free = collections.deque(range(table.rows))
    self._seat: dict[int, int] = {}
    self._spoken: dict[int, Turn] = {}
    self._ended: list[int] = []
    self._away: list[Errand] = []
    self._news: queue.SimpleQueue[Errand | None] = queue.SimpleQueue()
    self._quick = True

  def run(self) -> list[Dialogue]:
    """Raises what a verifier or teacher raised."""
    for session in self._sessions:
      session.wake = functools.partial(self._news.put, None)
    try:
      while self._waiting or self._seat:
        self._admit()
        self._send()
        self._hear()
        for session in self._sessions:
          if session.busy:
            session.tick()
    finally:
      for session in self._sessions:
        session.close()
    return self.dialogues

  def _admit(self) -> None:
    if self.others.in_step and self._seat:
      return
    while self._waiting and self._free:
      i = self._waiting.popleft()
      self._seat[i], d = self._free.popleft(), self.dialogues[i]
      self._ask(i, [*d.bos, *d.turns[0].tokens, *self.table.renderer.student_prompt()], None)

  def _ask(self, i: int, tokens: list[int], keep: int | None) -> None:
    task, d = self.tasks[i], self.dialogues[i]
    place = zlib.crc32(task.id.encode()), d.sample, len(d.student_turns) + 1
    self._students.submit(Request(
        self.table.row(self._seat[i]), tokens, keep, self._key, place, self.table.budget.turn, self.rules.temperature,
        done=functools.partial(self._spoke, i), score=self._answers.get(i, ()),
    ))  # fmt: skip

  def _spoke(self, i: int, said: Said | None) -> None:
    if said is None:
      return  # the rollout has failed
    turn = self.table.renderer.sampled_turn(said.tokens, said.logprobs)
    turn.answer_nll = said.nats
    self.dialogues[i].turns.append(turn)
    self._spoken[i] = turn
    self._ended.append(i)

  def _send(self) -> None:
    """Off with the turns that have ended."""
    if not self._ended or (self.others.pace == "one_by_one" and self._away):
      return
    if self.others.in_step and len(self._ended) < len(self._seat):
      return
    ended, self._ended = sorted(self._ended), []
    apart = self.others.pace == "apart" and not self.others.in_step
    for dialogues in [[i] for i in ended] if apart else [ended]:
      self._away.append(errand := Errand(dialogues))
      threading.Thread(target=self._run, args=(errand,), daemon=True, name="errand").start()

  def _run(self, errand: Errand) -> None:
    """In a thread of its own, which alone touches these dialogues meanwhile."""
    since = time.monotonic()
    of = lambda values: [values[i] for i in errand.dialogues]
    chances = self._chances and of(self._chances)
    try:
      self.table.respond(
          self.others, of(self.tasks), of(self.dialogues), self.rules, chances,
          doing=lambda what: setattr(errand, "doing", what),
      )  # fmt: skip
    except BaseException as e:
      errand.error = e
    errand.seconds = time.monotonic() - since
    self._news.put(errand)

  def _hear(self) -> None:
    """Takes back the errands that are done; waits for one where there is nothing else to do."""
    idle = not any(session.busy for session in self._sessions)
    until = time.monotonic() + (PATIENCE_S if self._quick else 0)
    while self._away:
      since, doing = time.monotonic(), [errand.doing for errand in self._away]
      try:
        news = self._news.get(timeout=None if idle else max(0.0, until - since))
      except queue.Empty:
        return
      for what in doing:
        self.seconds[what] += (time.monotonic() - since) / len(doing)
      idle = False
      if news is not None:
        self._take_back(news)

  def _take_back(self, errand: Errand) -> None:
    self._away.remove(errand)
    if errand.error is not None:
      raise errand.error
    self._quick = errand.seconds < PATIENCE_S
    for i in errand.dialogues:
      d, spoken = self.dialogues[i], self._spoken.pop(i)
      if d.end is not None:
        self._free.append(self._seat.pop(i))
        continue
      counts, heard = d.turns[-2:]
      # What later turns are not to see is forgotten: a turn that a question replaced, and stripped thinking.
      whole = len(spoken.prompt) + len(spoken.tokens)
      stays = counts.stripped[0] if counts.stripped else whole if counts is spoken else len(counts.prompt)
      held = int(self._students.lengths[self.table.row(self._seat[i])])
      more = [*counts.context[stays:], *heard.tokens, *self.table.renderer.student_prompt()]
      self._ask(i, more, held - whole + stays)
