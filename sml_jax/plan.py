"""Plan before you rent: --plan=v5p:4x4x4 compiles a config's steps for a TPU slice on a machine that has none.

The steps are those of the run at their real shapes and shardings: the gradient of a micro-batch, the update, the decode
copy, a chunk fed, a turn sampled and an answer scored. Nothing is allocated, read from files or run. A rollout is
planned beside the largest train state, with the longest dialogue of any stage. Not compiled: the steps of a frozen
teacher, whose weights and caches are counted and whose temporaries are taken to be the student's.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import os
import re
import time
from collections import Counter
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict
from rich.console import Console

from sml_jax import parallel, plan_report, run, tpu_slice
from sml_jax.config import to_config
from sml_jax.config_check import plain
from sml_jax.data.packing import pack_all
from sml_jax.dialogue.model_writer import Room
from sml_jax.dialogue.renderer import make_renderer
from sml_jax.dialogue.rules import TokenBudget
from sml_jax.errors import UserError
from sml_jax.learn.losses import Objective
from sml_jax.learn.optimizer import make_optimizer
from sml_jax.learn.trainer import Trainer
from sml_jax.models.transformer import Model
from sml_jax.plan_memory import WORK, Moment, device_bytes, exhausted_bytes, program_bytes
from sml_jax.sampling.engine import Engine, Rows
from sml_jax.student import model_config

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
STOP_IDS = (0, 1)
"""In place of the tokenizer's; only how many they are is part of a shape."""
ROLE_PIECES = 16
"""What roles and ends of a turn of student and teacher are taken to be in a frozen teacher's transcript, tokens."""


def plan(config: ConfigDict, text: str) -> int:
  """Compiles for the slice that `text` names and prints the table.

  Returns:
    The exit code: 0, or 2 where a step does not fit the memory; then it says which keys would help.

  Raises:
    UserError: there is no such slice or no compiler for it, the mesh does not divide it, or a step does not compile for
      another reason than memory; or the config computes nothing, or has a teacher that is no copy of the student.
  """
  if config.student == "api" or config.dialogue.teacher_checkpoint:
    key = "student" if config.student == "api" else "dialogue.teacher_checkpoint"
    raise UserError(f"{key}: --plan knows the student and its own frozen copy alone")
  place = tpu_slice.find(text)
  mesh = parallel.make_mesh(**config.mesh, devices=place.devices)
  console = Console(highlight=False, soft_wrap=True)
  work = Work(config, mesh)
  console.print(plan_report.heading(place, mesh, work))
  jobs = {f"{t.name} {step}": job for t in work.training for step, job in t.jobs().items()} | work.rollout_jobs()
  programs = compile_all(jobs, text, console)
  return plan_report.show(console, place, mesh, work, programs, work.moments(programs))


@dataclasses.dataclass(frozen=True)
class Job:
  """A jitted step and the shapes, with shardings, of its arguments."""

  step: Any
  args: tuple[Any, ...]
  static: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled step.

  Attributes:
    bytes: on a device, its arguments included; where that was too much for the compiler, what it says it would take.
    work: those that are not its arguments' own: outputs, temporaries, code, and what the layout of arguments adds.
    arguments: those of its arguments, layout included; 0 where it was too much.
    collectives: how many of each kind it has; one in a loop over layers or tokens counts once.
    shardings: of its outputs; None where it was too much.
  """

  bytes: int
  work: int
  arguments: int = 0
  collectives: Counter[str] = dataclasses.field(default_factory=Counter)
  shardings: Any = None


def compile_all(jobs: dict[str, Job], text: str, console: Console) -> dict[str, Program]:
  """Compiles side by side, with a line for each step and every half minute. Raises UserError (see `plan`)."""
  since, out = time.monotonic(), {}
  console.print(f"compiling {len(jobs)} steps: {', '.join(jobs)}")
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    running = {pool.submit(_compile, name, job, text): name for name, job in jobs.items()}
    while running:
      done, _ = concurrent.futures.wait(running, 30, concurrent.futures.FIRST_COMPLETED)
      for future in done:
        out[name := running.pop(future)] = future.result()
        console.print(f"  {name}: compiled after {time.monotonic() - since:.0f} s")
      if not done:
        console.print(f"  {len(running)} to go after {time.monotonic() - since:.0f} s")
  return {name: out[name] for name in jobs}


def _compile(name: str, job: Job, text: str) -> Program:
  arguments = device_bytes(job.args)
  try:
    compiled = job.step.lower(*job.args, **job.static).compile()
  except jax.errors.JaxRuntimeError as e:
    if (needed := exhausted_bytes(str(e))) is None:
      raise UserError(f"--plan={text}: {name} does not compile: {str(e).splitlines()[0]}") from None
    return Program(needed, max(0, needed - arguments))
  memory = compiled.memory_analysis()
  needed, found = program_bytes(memory), collectives(compiled.as_text())
  work = max(0, needed - arguments)
  return Program(needed, work, memory.argument_size_in_bytes, found, compiled.output_shardings)


def collectives(hlo: str) -> Counter[str]:
  """How many collectives of each kind a program's text has; a pair of -start and -done counts once."""
  return Counter(re.findall(rf"\s({'|'.join(COLLECTIVES)})(?:-start)?\(", hlo))


class Work:
  """What a config does on a mesh, as shapes.

  Attributes:
    config, mesh, model.
    budget, turns: of the longest dialogue that any stage plays.
    training: the sft and the rl stage whose micro-batch is the largest.
    samples: whether any stage decodes.
    decode: the copy of the parameters that decoding reads; rows: what the engine remembers.

  Raises:
    UserError: as `run.Run` does for what can be known without files.
  """

  def __init__(self, config: ConfigDict, mesh: Mesh):
    tree = plain(config)
    if config.model.name:
      tree["model"]["checkpoint"] = ""  # its shape is known, and its files need not be here
    self.config, self.mesh = config, mesh = to_config(tree), mesh
    _, shape = model_config(config)
    if not shape.vocab_size:
      shape = dataclasses.replace(shape, vocab_size=make_renderer(config.tokenizer, "").vocab_size)
    self.model = Model(shape, mesh)
    self.budget, self.turns = run.token_budget(config), run.most_turns(config)
    run.check_rows(config, mesh)
    self.engine = run.student_engine(config, self.model, config.engine_rows, STOP_IDS, self._writer_room)
    self.training = self._largest_stages()
    self.samples = any(_samples(s) for s in config.stages.values())

  def _largest_stages(self) -> list[Training]:
    found: dict[str, Training] = {}
    for name, stage in self.config.stages.items():
      if stage.kind in ("sft", "rl"):
        this = Training(self, name, stage)
        if stage.kind not in found or this.size > found[stage.kind].size:
          found[stage.kind] = this
    return list(found.values())

  @functools.cached_property
  def params(self) -> Any:
    """All of the model's, as training holds them."""
    return placed(self.model.shapes, parallel.param_shardings(self.mesh, self.model.shapes))

  @functools.cached_property
  def decode(self) -> Any:
    return placed(jax.eval_shape(self.engine._unstacked, self.params), self.engine.decode_shardings(self.params))

  @functools.cached_property
  def rows(self) -> Rows:
    return self._rows(self.engine)

  def _rows(self, engine: Engine) -> Rows:
    made = jax.eval_shape(engine._empty)
    lie = lambda spec: lambda a: placed(a, parallel.fitting(self.mesh, spec, a.shape))
    return Rows(jax.tree.map(lie(parallel.CACHE), made.cache), *map(lie(parallel.ROWS), (made.last, made.scored)))

  def whole(self, value: Any) -> Any:
    """Arrays that every device has, of the shapes and types of these."""
    lie = parallel.replicated(self.mesh)
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(np.shape(a), a.dtype, sharding=lie), value)

  def rollout_jobs(self) -> dict[str, Job]:
    if not self.samples:
      return {}
    engine, lanes = self.engine, self.whole(self.engine.no_lanes())
    jobs = {
        "decode copy": Job(engine._unstack, (self.params,)),
        "feed": Job(engine.feed, (self.decode, self.rows, lanes)),
        "sample": Job(engine.decode, (self.decode, self.rows, self.whole(engine.no_turns()))),
    }
    if any(s.kind == "evaluate" or s.get("eval_every", 0) for s in self.config.stages.values()):
      jobs["score"] = Job(engine.score, (self.decode, self.rows, lanes, self.whole(np.bool_(True))))
    return jobs

  def moments(self, programs: dict[str, Program]) -> list[Moment]:
    """What a device holds at each step of the run."""
    out, copy, caches, teacher = [], device_bytes(self.decode), device_bytes(self.rows), 0
    if self.samples and run.writes_apart(self.config):
      caches, teacher = caches + self._teacher_caches(), copy
    for t in self.training:
      out += t.moments(programs, teacher)
    if self.samples:
      held = [t.held(teacher) for t in self.training if _samples(t.stage)]
      held = max(held, key=lambda h: sum(h.values())) if held else _parts(self.params, teacher)
      made = {"decode copy": copy, WORK: max(0, programs["decode copy"].work - copy)}
      out.append(Moment("decode copy", "copy", held | made))
      for name in [n for n in ("feed", "sample", "score") if n in programs]:
        out.append(Moment(name, "decode", held | {"decode copy": copy, "caches": caches, WORK: programs[name].work}))
    return out

  def _writer_room(self) -> Room:
    d = self.config.dialogue
    reply = max(d.max_teacher_turn_tokens, self.budget.reply)
    transcript = TokenBudget(d.max_teacher_prompt_tokens, self.budget.turn + ROLE_PIECES, reply)
    return Room(transcript, reply, words=0)

  def _teacher_caches(self) -> int:
    room = self._writer_room()
    return device_bytes(self._rows(Engine(
        self.model, rows=self.config.engine_rows, slots=room.slots(self.turns - 1), max_turn=room.max_turn,
        stop_ids=STOP_IDS, mesh=self.mesh,
    )))  # fmt: skip


class Training:
  """One training stage, as shapes.

  Attributes:
    name, stage: of the config.
    rows, length: of a micro-batch, tokens.
    lengths: of the dialogues of a step at most, tokens; of sft, rows that one dialogue fills.
    micro_batches: of a step, at most.
  """

  def __init__(self, work: Work, name: str, stage: ConfigDict):
    self.work, self.name, self.stage, self.length = work, name, stage, stage.row_length
    kl = stage.get("kl_coef", 0.0)
    try:
      tx, _ = make_optimizer(ConfigDict(stage.optimizer.to_dict() | {"total_steps": stage.steps}))
    except ValueError as e:
      raise UserError(f"optimizer of a {stage.kind} stage: {e}") from None
    objective = Objective("sft") if stage.kind == "sft" else Objective("grpo", kl_coef=kl)
    self.trainer = Trainer(
        work.model, objective, tx, work.mesh, stage.micro_batch_rows, work.config.model.head_chunk
    )  # fmt: skip
    if stage.kind == "sft":
      self.lengths, rows = [stage.row_length] * stage.batch_rows, stage.batch_rows
    else:
      # Stripped thinking makes a row of each turn, behind all that came before it.
      turns = range(1, stage.turns + 1) if work.config.dialogue.thinking == "strip" else [stage.turns]
      self.lengths = [work.budget.length(t) for t in turns] * stage.tasks_per_step * stage.group_size
      rows = -(-len(self.lengths) // max(1, stage.row_length // max(self.lengths)))
    shards = parallel.row_shards(work.mesh)
    self.rows = self.trainer.micro_batch_rows or -(-rows // shards) * shards
    self.micro_batches = -(-rows // self.rows)
    self.state = self.trainer.abstract_state()
    self.frozen = self.trainer.partition(work.params)[0]
    self.reference = work.params if kl else None
    self.size = (self.rows * self.length * (2 if kl else 1), self.micro_batches)

  @functools.cached_property
  def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
    one = np.ones(1, np.float32)
    row = {"tokens": one.astype(np.int32), "weights": one, "advantages": one, "logprobs": one}
    lie = NamedSharding(self.work.mesh, parallel.ROWS)
    packed = pack_all([row], self.length)
    return {k: jax.ShapeDtypeStruct((self.rows, self.length), v.dtype, sharding=lie) for k, v in packed.items()}

  def jobs(self) -> dict[str, Job]:
    number, flag = self.work.whole(np.float32(0)), self.work.whole(np.bool_(True))
    state = self.state
    return {
        "gradient": Job(self.trainer._gradient, (state.params, self.frozen, self.reference, self.batch, number)),
        "update": Job(self.trainer._apply, (state.params, state.opt_state, state.params, flag)),
    }

  def held(self, teacher: int) -> dict[str, int]:
    """What stays on a device all through the stage."""
    reference = device_bytes(self.reference)
    if self.frozen and self.reference is not None:
      reference -= device_bytes(self.frozen)  # the weights below the adapter are the same arrays
    return _parts(self.state.params, teacher) | {
        "frozen weights": device_bytes(self.frozen),
        "optimizer state": device_bytes(self.state.opt_state),
        "reference policy": reference,
    }

  def moments(self, programs: dict[str, Program], teacher: int) -> list[Moment]:
    held, gradients = self.held(teacher), device_bytes(self.state.params)
    several = self.micro_batches > 1
    at = {"stage": self.name, "rows": self.rows, "length": self.length, "accumulates": several}
    gradient, update = (programs[f"{self.name} {step}"].work for step in ("gradient", "update"))
    # All micro-batches of a step are put on the devices at once.
    work = max(0, gradient - gradients) + self.micro_batches * device_bytes(self.batch)
    first = held | {"gradients": gradients * (2 if several else 1), WORK: work}
    second = held | {"gradients": gradients, WORK: update}
    return [
        Moment(f"{self.name} gradient", "gradient", first, **at), Moment(f"{self.name} update", "update", second, **at)
    ]  # fmt: skip


def placed(shapes: Any, shardings: Any) -> Any:
  lie = jax.tree.broadcast(shardings, shapes)
  return jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, lie)


def _parts(params: Any, teacher: int) -> dict[str, int]:
  return {"parameters": device_bytes(params), "frozen teacher": teacher}


def _samples(stage: ConfigDict) -> bool:
  if stage.kind == "synthesize":
    return stage.author == "student"
  return stage.kind in ("rl", "evaluate") or stage.eval_every > 0
