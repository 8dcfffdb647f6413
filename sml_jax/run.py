"""What all stages of a run share, and how a stage goes on where it stopped."""

from __future__ import annotations

import functools
import time
import zlib
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from sml_jax import checkpoint, parallel
from sml_jax.data.store import DialogueWriter
from sml_jax.dialogue.conversation import Table, TokenBudget
from sml_jax.dialogue.record import Dialogue
from sml_jax.dialogue.renderer import Renderer
from sml_jax.errors import UserError
from sml_jax.evaluate.metrics_log import MetricsLog
from sml_jax.evaluate.progress import Progress
from sml_jax.learn.flops import peak_flops
from sml_jax.learn.trainer import TrainState
from sml_jax.models.transformer import Model, ModelConfig, Params, parameter_count
from sml_jax.sampling.engine import Engine
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
    self.mesh = parallel.make_mesh(**config.mesh)
    self.renderer = Renderer(config.tokenizer)
    self.model = Model(model_config(config, self.renderer.vocab_size))
    self.budget = TokenBudget(*(config.dialogue[f"max_{part}_tokens"] for part in ("problem", "turn", "reply")))
    self.source = make_source(config)
    own = {name: s.reward for name, s in config.stages.items() if s.kind == "rl"}
    self.rewards = {name: load(path, f"stages.{name}.reward") if path else None for name, path in own.items()}
    self.table = self._table()
    # Last: a config that asks for what is not there has not claimed the folder, and may be mended.
    self.workdir = Workdir(folder, config, write=jax.process_index() == 0)
    other = f"was begun with another tokenizer than {self.renderer.file}"
    self.workdir.keep("tokenizer", self.renderer.fingerprint, other)

  def _table(self) -> Table:
    """The one engine of the run, with room for the longest dialogue that any stage plays."""
    c = self.config
    turns = max([c.dialogue.turns, *(s.turns for s in c.stages.values() if "turns" in s)])
    slots = self.budget.length(turns)
    if slots > c.model.max_length:
      raise UserError(
          f"{turns} turns of dialogue.max_turn_tokens and max_reply_tokens are {slots} tokens, more than "
          f"model.max_length ({c.model.max_length})"
      )
    engine = Engine(
        self.model,
        rows=c.engine_rows,
        slots=slots,
        max_turn=self.budget.turn,
        stop_ids=self.renderer.stop_ids,
        mesh=self.mesh,
    )
    return Table(engine, self.renderer, self.source, self.budget)

  def describe(self) -> str:
    """One line: how large the student is and what it runs on."""
    like = jax.eval_shape(self.model.init, jax.random.key(0))
    mesh = " x ".join(f"{axis} {size}" for axis, size in self.mesh.shape.items())
    return f"student: {parameter_count(like):,} parameters; {jax.devices()[0].device_kind}, mesh {mesh}"

  @functools.cached_property
  def peak(self) -> float | None:
    """FLOP/s of all devices at their best, against which MFU is stated."""
    return peak_flops()

  def key(self, stage: str, step: int) -> jax.Array:
    """The root of all randomness of one step of one stage."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(self.config.seed), zlib.crc32(stage.encode())), step)

  def initial_params(self, init: str, stage: str) -> Params:
    """Random ones ("" as `init`), those of a finished stage, or those of a checkpoint folder."""
    like = jax.eval_shape(self.model.init, jax.random.key(0))
    if not init:
      shardings = parallel.param_shardings(self.mesh, like)
      return jax.jit(self.model.init, out_shardings=shardings)(self.key(stage, 0))
    folder = epath.Path(init) if init not in self.config.stages else self.checkpoint_dir(init)
    _, params, meta = checkpoint.restore_params(folder, notify=self.progress.log)
    self._check_fits(params, like, meta, folder)
    return jax.device_put(params, parallel.param_shardings(self.mesh, like))

  def _check_fits(self, params: Any, like: Any, meta: Mapping[str, Any], folder: epath.Path) -> None:
    if meta.get("tokenizer") not in (None, self.renderer.fingerprint):
      raise UserError(f"{folder}: was trained with another tokenizer than {self.renderer.file}")
    if jax.tree.structure(params) != jax.tree.structure(like):
      raise UserError(f"{folder}: holds another model than config.model (other parameters)")
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(like), strict=True):
      if a.shape != b.shape:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        raise UserError(f"{folder}: {name} is {list(a.shape)}, but config.model makes it {list(b.shape)}")

  def checkpoint_dir(self, stage: str) -> epath.Path:
    return self.workdir.path / stage / "checkpoints"

  def metrics_of(self, stage: str) -> list[dict[str, Any]]:
    """The rows that a training stage has logged, [] if it has none."""
    folder = self.workdir.path / stage
    return MetricsLog(folder, stage).rows if (folder / "metrics.jsonl").exists() else []


def model_config(config: ConfigDict, pieces: int) -> ModelConfig:
  """The model of a config; raises UserError if its vocabulary is smaller than the tokenizer's."""
  shape = {k: v for k, v in config.model.items() if k != "max_length"}
  shape["vocab_size"] = shape["vocab_size"] or pieces
  if shape["vocab_size"] < pieces:
    raise UserError(f"model.vocab_size is {shape['vocab_size']}, but the tokenizer has {pieces} pieces")
  return ModelConfig(**shape | {"dtype": jax.numpy.dtype(shape["dtype"])})


class TrainingStage:
  """Checkpoints, metrics and the record of one stage, which always tell the same story: that of the last checkpoint.

  Example:
    stage = TrainingStage(run, name, state, batches)
    for step in stage.steps():
      stage.state, metrics = trainer.update(stage.state, next(batches))
      stage.log(step, metrics)
    stage.finish()
  """

  def __init__(self, run: Run, name: str, state: TrainState, batches: Any, counters: dict[str, int] | None = None):
    """`batches` has get_state and set_state; `counters` are numbers that grow with the steps and are kept with them."""
    self.run, self.name, self.config, self.batches = run, name, run.config.stages[name], batches
    self.folder = run.workdir.stage_dir(name)
    self.first = jax.process_index() == 0
    self.metrics = MetricsLog(self.folder, name, enabled=self.first)
    self.record = DialogueWriter(self.folder / "dialogues")
    keep = run.config.keep_checkpoints
    self.checkpoints = checkpoint.Checkpoints(run.checkpoint_dir(name), keep, notify=run.progress.log)
    self.checkpoints.watch_sigterm()
    self.state, self.step, self.counters = state, 0, dict(counters or {})
    self.seconds, self.leaving = 0.0, False
    if restored := self.checkpoints.restore(state):
      self.step, self.state, meta, data_state = restored
      self.counters, self.seconds = meta["counters"], meta["seconds"]
      batches.set_state(data_state)
    if self.first:
      self.record.discard_after(self.step)
      self.metrics.discard_after(self.step)
    run.progress.stage(name, self.config.steps, self.step)

  def steps(self):
    """The steps still to do, from 1; checkpoints between them, and leaves with Preempted when told to."""
    since = time.monotonic()
    while self.step < self.config.steps:
      yield self.step + 1
      self.step += 1
      now = time.monotonic()
      self.seconds, since = self.seconds + now - since, now
      self.leaving = self.checkpoints.reached_preemption(self.step)
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

  def log(self, step: int, metrics: Mapping[str, Any], **shown: Any) -> None:
    """A row of metrics (device values are fetched here, and only here), and the live line."""
    if self.due(step, self.run.config.log_every):
      metrics = jax.device_get(dict(metrics))
      self.metrics.write(step, metrics)
      clock = metrics.get("clock", {})
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
