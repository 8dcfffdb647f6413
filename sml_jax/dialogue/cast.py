"""Who plays the teacher, the questioner of Q-priming and the judge of kinds in a run, as its config has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
from ml_collections import ConfigDict

from sml_jax.dialogue.api import Client
from sml_jax.dialogue.api_settings import ApiSettings
from sml_jax.dialogue.record import Feedback
from sml_jax.dialogue.served import ApiWriter
from sml_jax.dialogue.teacher import Teacher
from sml_jax.dialogue.tutor import KindJudge, Prompts, Questioner, Tutor, Writer
from sml_jax.errors import UserError
from sml_jax.sampling.session import Sessions

OWN_KEYS = ("words", "system")
"""Of the config's tables for servers: what is not the client's."""


class Writers(Protocol):
  """Makes the writer of each rollout."""

  def writer(self, key: jax.Array, sessions: Sessions) -> Writer: ...


class Served:
  """Writers that are a server: the same for every rollout."""

  def __init__(self, writer: Writer):
    self._writer = writer

  def writer(self, key: jax.Array, sessions: Sessions) -> Writer:
    return self._writer


class Cast:
  """See `conversation.Cast`.

  Args:
    table: for which they speak.
    config: `dialogue` of the run's.
    model: makes the writers that are a frozen model, where there are any.
    own: makes those that are the student as it is.
    served: makes those that are a server.
  """

  def __init__(
      self, table: Any, config: ConfigDict, *, model: Callable[[], Writers], own: Callable[[], Writers],
      served: Callable[[], Writers],
  ):
    self._table, self._config = table, config
    self._prompts = Prompts.load(dict(config.prompts))
    made: dict[str, Writers] = {}
    make = {"model": model, "api": served, "student": own}

    def writers(kind: str) -> Writers | None:
      if kind in make and kind not in made:
        made[kind] = make[kind]()
      return made.get(kind)

    self._teachers, self._questioners, self._judges = map(writers, (config.teacher, config.questioner, config.kinds))
    self.pace = "one_by_one" if "api" in made else "apart" if made else "together"

  def teacher(self, feedback: Feedback, key: jax.Array, sessions: Sessions) -> Teacher:
    source = self._table.source
    if self._teachers is None:
      return source.teacher(feedback)
    writer = self._teachers.writer(key, sessions)
    return Tutor(feedback, source, writer, self._prompts, self._table.fit, self._table.compat)

  def questioner(self, key: jax.Array, sessions: Sessions) -> Questioner | None:
    if self._questioners is None:
      return None
    writer = self._questioners.writer(jax.random.fold_in(key, 1), sessions)
    return Questioner(self._table.source, writer, self._prompts, self._table.fit_question)

  def judge(self, key: jax.Array, sessions: Sessions) -> KindJudge | None:
    if self._judges is None:
      return None
    return KindJudge(self._table.source, self._judges.writer(jax.random.fold_in(key, 2), sessions), self._prompts)


def make_client(config: ConfigDict, name: str, notify: Callable[[str], None]) -> Client:
  """The client of the table `name` of the config ("teacher_api" or "student_api"). Raises UserError."""
  keys = {key: value for key, value in config[name].items() if key not in OWN_KEYS}
  for key in ("url", "model"):
    if not keys[key]:
      raise UserError(f"{name}.{key}: give the server's, as in --config.{name}.url=http://127.0.0.1:8000/v1 "
                      f"--config.{name}.model=NAME")
  return Client(ApiSettings(**keys), notify)


def api_writers(config: ConfigDict, client: Client) -> Served:
  return Served(ApiWriter(client, config.teacher_api.words, config.seed))
