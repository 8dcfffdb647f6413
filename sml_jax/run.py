"""What all stages of a run share, and how a stage goes on where it stopped."""

from __future__ import annotations

import dataclasses
import functools
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sml_jax import checkpoint, parallel
from sml_jax.config import PRETRAINED
from sml_jax.data.store import DialogueWriter
from sml_jax.dialogue.api import Client
from sml_jax.dialogue.cast import Cast, Served, api_writers, make_client
from sml_jax.dialogue.conversation import Table, TokenBudget
from sml_jax.dialogue.model_writer import ModelWriters, Room
from sml_jax.dialogue.record import Dialogue
from sml_jax.dialogue.renderer import Renderer
from sml_jax.dialogue.rollout import OneTable, OwnTables
from sml_jax.dialogue.served import ServedTable
from sml_jax.errors import UserError
from sml_jax.evaluate.metrics_log import MetricsLog
from sml_jax.evaluate.progress import Progress
from sml_jax.learn.flops import peak_flops
from sml_jax.learn.meter import Meter
from sml_jax.learn.trainer import Trainer
from sml_jax.models.transformer import Model, Params
from sml_jax.sampling.engine import Engine
from sml_jax.student import ServedStudent, Student, other_student
from sml_jax.tasks.source import load, make_source
from sml_jax.workdir import Workdir


class Preempted(Exception):
  """The stage was asked to leave and has saved: run the same command again to go on."""


class Run:
  """The things of a run that its config decides.

  Raises:
    UserError: whatever the config asks for that is not there or does not fit.
  """

  def __init__(self, config: ConfigDict, folder: epath.PathLike, progress: Progress):
    self.config, self.progress = config, progress
    self.folder = epath.Path(folder)
    self.mesh = parallel.make_mesh(**config.mesh)
    self.student = Student(config, self.mesh) if config.student == "model" else ServedStudent(config)
    self.renderer, self.model = self.student.renderer, self.student.model
    self.budget = token_budget(config)
    self.source = make_source(config)
    own = {name: s.reward for name, s in config.stages.items() if s.kind == "rl"}
    self.rewards = {name: load(path, f"stages.{name}.reward") if path else None for name, path in own.items()}
    self.clients: dict[str, Client] = {}
    self.table = self._table() if config.student == "model" else self._served_table()
    self.table.compat = config.tasks.compat
    self.table.leaks = (config.dialogue.leaks, config.dialogue.leak_resamples)
    self.table.cast = Cast(
        self.table, config.dialogue, model=self._model_writers, own=self._writers_beside, served=self._api_writers
    )
    # Last: a config that asks for what is not there has not claimed the folder, and may be mended.
    self.workdir = Workdir(folder, config, write=jax.process_index() == 0)
    other = f"was begun with another tokenizer than {self.renderer.file}"
    self.workdir.keep("tokenizer", self.renderer.fingerprint, other)

  def _table(self) -> Table:
    """The one engine of the run, with room for the longest dialogue that any stage plays."""
    c = self.config
    local = parallel.local_mesh(self.mesh) if c.rollout != "global" else None
    if local is None and c.rollout == "local":
      raise UserError(f'rollout="local": mesh.model is {self.mesh.shape["model"]}, more than the devices of a process '
                      "or no divisor of them; use auto")
    check_rows(c, self.mesh)
    processes = jax.process_count()
    rows = c.engine_rows // processes if local else c.engine_rows
    mesh = local or self.mesh
    engine = student_engine(
        c, dataclasses.replace(self.model, mesh=mesh), rows, self.renderer.stop_ids,
        lambda: writer_room(c, self.renderer), home=self.mesh,
    )  # fmt: skip
    kind = Table if processes == 1 else OwnTables if local else OneTable
    return kind(engine, self.renderer, self.source, self.budget, rows)

  def _served_table(self) -> ServedTable:
    c = self.config
    return ServedTable(self.client("student_api"), self.source, c.engine_rows, c.seed, c.student_api.system)

  def client(self, name: str) -> Client:
    """The client of "student_api" or "teacher_api", made once. Raises UserError."""
    if name not in self.clients:
      config = self.config.copy_and_resolve_references()
      with config.unlocked():
        config[name].cache_dir = config[name].cache_dir or str(self.folder / "api_cache")
      self.clients[name] = make_client(config, name, self.progress.log)
    return self.clients[name]

  def api_stats(self) -> dict[str, float]:
    """What this process has asked of servers so far, {} if there are none."""
    return {f"{name}_{key}": value for name, client in self.clients.items() for key, value in client.stats().items()}

  def _api_writers(self) -> Served:
    return api_writers(self.config, self.client("teacher_api"))

  def _model_writers(self) -> ModelWriters:
    """A frozen model: the student before any training, or another checkpoint."""
    c, key = self.config, jax.random.key(self.config.seed)
    if folder := c.dialogue.teacher_checkpoint:
      own = other_student(c, folder, self.mesh)
      weights = lambda: own.initial_params("", key, self.progress.log)
      return self._writers_apart(weights, own.renderer, own.model)
    if self.model.config.lora:
      return self._writers_beside(adapted=False)
    return self._writers_apart(lambda: self.student.initial_params("", key, self.progress.log), self.renderer)

  def _writers_beside(self, adapted: bool = True) -> ModelWriters:
    """In every second row of the students' engine."""
    table, room = self.table, writer_room(self.config, self.renderer)
    return ModelWriters(table.engine, table.writer_rows(), room, self.renderer, adapted=adapted)

  def _writers_apart(self, weights: Any, renderer: Any, model: Any = None) -> ModelWriters:
    table, room = self.table, writer_room(self.config, self.renderer)
    replies = most_turns(self.config) - 1
    return ModelWriters.apart(table.engine, table.rows, room, renderer, weights, replies=replies, model=model)

  @functools.cached_property
  def peak(self) -> float | None:
    """FLOP/s of all devices at their best, against which MFU is stated."""
    return peak_flops()

  def key(self, stage: str, step: int) -> jax.Array:
    """The root of all randomness of one step of one stage."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(self.config.seed), zlib.crc32(stage.encode())), step)

  def initial_params(self, init: str, stage: str) -> Params:
    """Those before any training ("" or "pretrained"), of a finished stage, or of a folder of our checkpoints."""
    folder = self.checkpoint_dir(init) if init in self.config.stages else init if init != PRETRAINED else ""
    return self.student.initial_params(folder, self.key(stage, 0), self.progress.log)

  def checkpoint_dir(self, stage: str) -> epath.Path:
    return self.workdir.path / stage / "checkpoints"

  def metrics_of(self, stage: str) -> list[dict[str, Any]]:
    """The rows that a training stage has logged, [] if it has none."""
    folder = self.workdir.path / stage
    return MetricsLog(folder, stage).rows if (folder / "metrics.jsonl").exists() else []


def token_budget(config: ConfigDict) -> TokenBudget:
  return TokenBudget(*(config.dialogue[f"max_{part}_tokens"] for part in ("problem", "turn", "reply")))


def most_turns(config: ConfigDict) -> int:
  """Most student turns of a dialogue that any stage plays."""
  return max([config.dialogue.turns, *(s.turns for s in config.stages.values() if "turns" in s)])


def longest_dialogue(config: ConfigDict) -> int:
  """Its tokens at most. Raises UserError if they are more than model.max_length."""
  turns = most_turns(config)
  most = token_budget(config).length(turns)
  if most > config.model.max_length:
    raise UserError(
        f"{turns} turns of dialogue.max_turn_tokens and max_reply_tokens are {most} tokens, more than "
        f"model.max_length ({config.model.max_length})"
    )
  return most


def writes_beside(config: ConfigDict) -> bool:
  """Whether somebody writes with the student's weights, with or without its adapters: in rows of the same engine."""
  d = config.dialogue
  return (config.model.lora.rank > 0 and _frozen_writes(d)) or "student" in (d.teacher, d.questioner, d.kinds)


def writes_apart(config: ConfigDict) -> bool:
  """Whether the student's frozen copy writes with weights of its own, in an engine of its own."""
  return config.model.lora.rank == 0 and _frozen_writes(config.dialogue)


def _frozen_writes(dialogue: ConfigDict) -> bool:
  return "model" in (dialogue.teacher, dialogue.kinds) and not dialogue.teacher_checkpoint


def writer_room(config: ConfigDict, renderer: Renderer) -> Room:
  """Raises UserError if there is no room for a word."""
  d = config.dialogue
  return Room.beside(
      renderer, token_budget(config), prompt=d.max_teacher_prompt_tokens, max_turn=d.max_teacher_turn_tokens
  )


def student_engine(
    config: ConfigDict, model: Model, rows: int, stop_ids: Sequence[int], room: Callable[[], Room],
    home: Mesh | None = None,
) -> Engine:
  """The students' engine for so many dialogues at a time, on the model's mesh, and beside them the rows of those who
  write with the same weights and have that much room."""
  slots, max_turn = longest_dialogue(config), token_budget(config).turn
  if writes_beside(config):
    beside, rows = room(), 2 * rows
    slots, max_turn = max(slots, beside.slots(most_turns(config) - 1)), max(max_turn, beside.max_turn)
  chunk = 64 if token_budget(config).problem >= 512 else 16
  return Engine(
      model, rows=rows, slots=slots, max_turn=max_turn, stop_ids=stop_ids, mesh=model.mesh, home=home, chunk=chunk
  )


def check_rows(config: ConfigDict, mesh: Mesh) -> None:
  """Raises UserError if the engine's rows cannot be cut evenly."""
  if config.engine_rows % (shards := parallel.row_shards(mesh)):
    raise UserError(f"engine_rows is {config.engine_rows}: it must be a multiple of the {shards} devices along data "
                    "and fsdp of the mesh")


class TrainingStage:
  """Checkpoints, metrics and the record of one stage, which always tell the same story: that of the last checkpoint.

  Example:
    stage = TrainingStage(run, name, trainer, batches)
    for step in stage.steps():
      stage.state, metrics = trainer.update(stage.state, next(batches))
      stage.log(step, metrics, meter)
    stage.finish()
  """

  def __init__(self, run: Run, name: str, trainer: Trainer, batches: Any, counters: dict[str, int] | None = None):
    """`batches` has get_state and set_state; `counters` are numbers that grow with the steps and are kept with them."""
    self.trainer = trainer
    self.run, self.name, self.config, self.batches = run, name, run.config.stages[name], batches
    self.folder = run.workdir.stage_dir(name)
    self.first = jax.process_index() == 0
    self.metrics = MetricsLog(self.folder, name, enabled=self.first)
    self.record = DialogueWriter(self.folder / "dialogues")
    keep = run.config.keep_checkpoints
    self.checkpoints = checkpoint.Checkpoints(run.checkpoint_dir(name), keep, notify=run.progress.log)
    self.checkpoints.watch_sigterm()
    self.step, self.counters = 0, dict(counters or {})
    self.seconds, self.leaving = 0.0, False
    if restored := self.checkpoints.restore(trainer.abstract_state()):
      self.step, self.state, meta, data_state = restored
      self.counters, self.seconds = meta["counters"], meta["seconds"]
      batches.set_state(data_state)
      if run.model.config.lora:
        trainer.freeze(run.initial_params(self.config.init, name))
    else:
      self.state = trainer.init(run.initial_params(self.config.init, name))
    if self.first:
      self.record.discard_after(self.step)
      self.metrics.discard_after(self.step)
    run.progress.stage(name, self.config.steps, self.step)

  @property
  def params(self) -> Params:
    """The student as it is now, whole."""
    return self.trainer.whole(self.state.params)

  def steps(self):
    """The steps still to do, from 1; checkpoints between them, and leaves with Preempted when told to."""
    since = time.monotonic()
    while self.step < self.config.steps:
      yield self.step + 1
      self.step += 1
      now = time.monotonic()
      self.seconds, since = self.seconds + now - since, now
      self.leaving = self.checkpoints.reached_preemption()
      every = self.config.checkpoint_every
      if self.leaving or self.step == self.config.steps or (every and self.step % every == 0):
        self._save()
      if self.leaving and self.step < self.config.steps:
        self.checkpoints.close()
        self.metrics.close()
        raise Preempted(f"{self.name}: saved step {self.step} and left; run the same command again to go on")

  def _save(self) -> None:
    self.metrics.flush()
    meta = {"counters": self.counters, "seconds": self.seconds, "tokenizer": self.run.renderer.fingerprint}
    self.checkpoints.save(self.step, self.state, meta, self.batches.get_state())

  def due(self, step: int, every: int) -> bool:
    return bool(every) and (step % every == 0 or step == self.config.steps)

  def fetch(self, step: int, metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """Metrics of an update, from the devices where a row of them is due; only here the loop waits for them."""
    return jax.device_get(dict(metrics)) if self.due(step, self.run.config.log_every) else metrics

  def log(self, step: int, metrics: Mapping[str, Any], meter: Meter, **shown: Any) -> None:
    """A row of metrics, `fetch`ed, with the clock of all steps since the last row, and the live line."""
    if self.due(step, self.run.config.log_every):
      clock = meter.read()
      self.metrics.write(step, {**metrics, "clock": clock})
      shown.setdefault("loss", float(metrics["loss"]))
      self.run.progress.update(step, tokens_per_second=clock.get("tokens_per_second"), mfu=clock.get("mfu"), **shown)

  def keep(self, step: int, dialogues: list[Dialogue]) -> None:
    self.record.write(step, jax.process_index(), dialogues)

  def finish(self, **info: Any) -> None:
    """Writes what is left and marks the stage done."""
    self.checkpoints.close()
    self.metrics.close()
    if self.first:
      self.run.workdir.mark_done(self.name, {"seconds": self.seconds, **self.counters, **info})
    if self.leaving or self.checkpoints.sigterm:
      raise Preempted(f"{self.name}: done, and left; run the same command again to go on")
