"""The program: python -m sml_jax.main --config=configs/quickstart.py --workdir=runs/quickstart [--config.KEY=VALUE ...]

A config lists stages, which run in order, each in its own folder under the workdir:

  synthesize  dialogues: by a student and its teacher, by scripted authors, or of the tasks' canonical answers
  sft         masked cross-entropy on the student's turns of such dialogues (the base student, offline SML, Q-priming)
  rl          GRPO over whole dialogues (online SML; with one turn, single-turn RL)
  evaluate    success by turn with its controls, summary.json and report.html

In place of --workdir: --show_sharding[=DEVICES] prints where each parameter lies, without making any; --plan=SLICE
compiles the steps for a TPU slice that need not be there: v5e:2x4, v5p:4x4x4, v6e:16x16*2 (two slices), tpu7x:2x2x1.

The same command again goes on where it stopped: nothing done is done twice, and the numbers are those of a run that was
never stopped. --help says a line on every key.

Exit codes: 0 done, 1 bad input or a failed save, 2 the plan does not fit, 143 told to leave (saved).
"""

from __future__ import annotations

if __name__ == "__main__":
  from sml_jax.allocator import restart_with_tunables

  restart_with_tunables()

import signal
import sys
import time
import zlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from sml_jax import checkpoint, command_line, parallel, sharding_table
from sml_jax.checkpoint import CheckpointError
from sml_jax.config import describe
from sml_jax.data.packing import pack_all, pad_rows
from sml_jax.data.pipeline import task_batches, training_batches
from sml_jax.data.rows import token_row, token_rows
from sml_jax.data.store import DialogueWriter, build_dataset, open_dataset, read_dialogues
from sml_jax.dialogue.authors import Mixture, author_dialogue
from sml_jax.dialogue.conversation import Rules
from sml_jax.dialogue.record import Dialogue
from sml_jax.errors import UserError
from sml_jax.evaluate.figures import save_png, success_figure
from sml_jax.evaluate.metrics import leak_rate
from sml_jax.evaluate.progress import Progress, final_table, show_dialogue
from sml_jax.evaluate.report import write_report
from sml_jax.evaluate.suites import EVALUATORS, MODE, Setting, Suite, evaluators_of, runs_of, solved_counts, success
from sml_jax.evaluate.summary import SuiteResult, build_summary
from sml_jax.learn.groups import Group, credit_groups, group_metrics
from sml_jax.learn.losses import Objective, without_signal
from sml_jax.learn.meter import Meter
from sml_jax.learn.optimizer import make_optimizer
from sml_jax.learn.trainer import Trainer
from sml_jax.plan import plan
from sml_jax.run import Preempted, Run, TrainingStage
from sml_jax.tasks.task import Task
from sml_jax.workdir import write_json

PIECE = 4
"""Batches of the table in one object of an evaluation's record: what is lost at most when it is stopped."""
ENDLESS_TASKS = 1 << 20
"""How many tasks of an endless source one order of the Grain pipeline covers."""


def main(argv: list[str]) -> int:
  try:
    file, overrides, rest = command_line.split_argv(argv)
    if "--help" in rest or "-h" in rest:
      print(__doc__, describe(), sep="\n")
      return 0
    config = command_line.load(file, overrides)
    if (devices := command_line.show_sharding(rest)) is not None:
      sharding_table.show(config, devices or jax.device_count())
      return 0
    if name := command_line.slice_to_plan(rest):
      return plan(config, name)
    parallel.start()
    if jax.process_count() == 1:
      signal.signal(signal.SIGTERM, _leave)
    folder = command_line.workdir(rest)
    with Progress(enabled=jax.process_index() == 0) as progress:
      run = parallel.all_or_none(lambda: Run(config, folder, progress))
      for key, old, new in run.workdir.changes:
        progress.log(f"config.{key}: was {old!r}, now {new!r}")
      for line in (run.student.describe(), *run.source.describe()):
        progress.log(line)
      stages = {"synthesize": synthesize, "sft": sft, "rl": rl, "evaluate": evaluate}
      for name, stage in config.stages.items():
        if run.workdir.is_done(name):
          progress.log(f"{name}: done before")
        else:
          stages[stage.kind](run, name, stage)
          parallel.wait_for_all(name)
    return 0
  except Preempted as e:
    print(e, file=sys.stderr)
    return 143
  except (UserError, CheckpointError) as e:
    print(f"error: {e}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print("interrupted; run the same command again to go on", file=sys.stderr)
    return 130
  except OSError as e:
    print(f"error: {e.filename or 'input or output'}: {e.strerror or e}", file=sys.stderr)
    return 1


def _leave(signum: int, frame: Any) -> None:
  """What SIGTERM does where there is nothing to save: whatever is written is written whole, or not at all."""
  raise Preempted("left; run the same command again to go on")


def _leave_if_told() -> None:
  """The same where there are several processes, between two things that are written."""
  if checkpoint.told_to_leave():
    _leave(signal.SIGTERM, None)


# ---------------------------------------------------------------------------------------------------------------------
# Synthesis: dialogues for a later sft stage.


def synthesize(run: Run, name: str, stage: ConfigDict) -> None:
  """Plays `stage.dialogues` dialogues in chunks; a chunk whose file exists is not played again.

  Of several processes all play a chunk of the student's together; the others' are written by one process each.
  """
  folder = run.workdir.stage_dir(name)
  record = DialogueWriter(folder / "dialogues")
  since, size = time.monotonic(), run.config.engine_rows * (1 if stage.author == "student" else 8)
  chunks = -(-stage.dialogues // size)
  draw = _task_drawer(run, name, stage)
  params = run.initial_params(stage.init, name) if stage.author == "student" else None
  rules = Rules(stage.turns, stage.feedback, run.config.dialogue.temperature, stage.q_priming)
  written, process = parallel.by_first(record.steps), jax.process_index()
  run.progress.stage(name, chunks)
  for chunk in range(1, chunks + 1):
    _leave_if_told()
    first, count = (chunk - 1) * size, min(size, stage.dialogues - (chunk - 1) * size)
    tasks = None if stage.author == "scripted" else draw(count)
    writer = 0 if stage.author == "student" else chunk % jax.process_count()
    if chunk in written or (process != writer and stage.author != "student"):
      continue
    if stage.author == "scripted":
      dialogues = _authored(run, name, first, count)
    elif stage.author == "reference":
      dialogues = run.table.recite(tasks)
    else:
      dialogues = run.table.play(params, tasks, sample_numbers(tasks), rules, run.key(name, chunk))
    if process == writer:
      record.write(chunk, process, dialogues)
    run.progress.update(chunk, success=success(dialogues), leaks=leak_rate(dialogues))
  parallel.wait_for_all(f"{name} played")
  if process == 0:
    build_dataset(record.folder, folder / "dataset")
    run.workdir.mark_done(name, {"seconds": time.monotonic() - since, "dialogues": stage.dialogues})


def _authored(run: Run, name: str, first: int, count: int) -> list[Dialogue]:
  if run.config.tasks.source != "microworld":
    raise UserError(f'stages.{name}.author: "scripted" authors know the micro-world alone')
  seed = zlib.crc32(name.encode()) + run.config.seed
  return [author_dialogue(run.source.world, Mixture(), run.renderer, i, seed) for i in range(first, first + count)]


def _task_drawer(run: Run, name: str, stage: ConfigDict, batches: Any = None):
  """A function n -> the next n train tasks, drawn through Grain: all of the stage's domains, each task once before any
  comes again; those of an endless source take turns."""
  batches, domains = batches or _task_stream(run, name, stage), stage.domains
  sizes = [run.source.size(d, "train") for d in domains]

  def task(i: int) -> Task:
    if None in sizes:
      return run.source.task(domains[i % len(domains)], "train", i)
    ends = np.cumsum(sizes)
    which = int(np.searchsorted(ends, i, side="right"))
    return run.source.task(domains[which], "train", i - int(ends[which] - sizes[which]))

  return lambda n: [task(int(next(batches)[0])) for _ in range(n)]


def sample_numbers(tasks: list[Task], g: int = 1) -> list[int]:
  """The numbers of g dialogues of each task. One that comes twice, where a finite source begins anew, goes on counting,
  since the same (step, task, sample) is the same randomness."""
  seen: dict[str, int] = {}
  numbers = []
  for task in tasks:
    first = seen.get(task.id, 0)
    numbers += range(first, first + g)
    seen[task.id] = first + g
  return numbers


def _task_stream(run: Run, name: str, stage: ConfigDict):
  sizes = {d: run.source.size(d, "train") for d in stage.domains}
  if empty := [d for d, size in sizes.items() if size == 0]:
    raise UserError(f"stages.{name}.domains: there are no training tasks of the domain {empty[0]!r}")
  size = ENDLESS_TASKS if None in sizes.values() else sum(sizes.values())
  seed = (run.config.seed << 32) + zlib.crc32(name.encode())
  return task_batches(size, tasks_per_step=1, seed=seed)


# ---------------------------------------------------------------------------------------------------------------------
# SFT: the base student, offline SML and Q-priming differ only in their dialogues.


def sft(run: Run, name: str, stage: ConfigDict) -> None:
  dialogues = _training_dialogues(run, stage)
  rows = [r for d in dialogues for r in token_rows(d, train_on_injected=stage.train_on_injected)]
  part, parts = parallel.row_share(run.mesh)
  batches = training_batches(
      rows,
      batch_rows=stage.batch_rows,
      row_length=stage.row_length,
      seed=run.config.seed,
      process_index=part,
      process_count=parts,
      packing=stage.packing,
  )
  trainer = _trainer(run, stage, Objective(kind="sft"))
  loop = TrainingStage(run, name, trainer, batches)
  if loop.step == 0 and loop.first:
    shown = token_row(dialogues[0], train_on_injected=stage.train_on_injected)
    show_dialogue(dialogues[0], shown, run.renderer.pieces, run.progress.console)
  meter = Meter(run.model.config, run.peak, run.table.clock, parts)
  for step in loop.steps():
    with meter.part("data"):
      batch = next(batches)
    with meter.part("train"):
      loop.state, metrics = trainer.update(loop.state, batch)
      metrics = loop.fetch(step, metrics)
    lengths = np.concatenate([np.bincount(s)[1:] for s in batch["segments"]])
    meter.train(lengths)
    evaluation = _evaluate_in_loop(run, stage, loop, step)
    loop.log(step, {**metrics, **evaluation}, meter)
  tokens = sum(int((r["weights"] > 0).sum()) for r in rows)
  injected = sum(t.injected for d in dialogues for t in d.turns)
  run.progress.log(f"{name}: {len(dialogues):,} dialogues, {tokens:,} trained tokens, {injected:,} injected questions")
  loop.finish(dialogues=len(dialogues), trained_tokens=tokens, injected_questions=injected)


def _training_dialogues(run: Run, stage: ConfigDict) -> list[Dialogue]:
  """Those of a synthesize stage that its `keep` keeps."""
  if stage.data not in run.config.stages:
    return [d for d in read_dialogues(stage.data) if d.valid]
  keep = run.config.stages[stage.data].keep
  dialogues = open_dataset(run.workdir.path / stage.data / "dataset")
  kept = [d for d in dialogues if d.valid and (keep == "all" or d.end == "solved")]
  if not kept:
    raise UserError(f"stages.{stage.data}: none of its {len(dialogues)} dialogues was solved: nothing to train on")
  return kept


def _trainer(run: Run, stage: ConfigDict, objective: Objective) -> Trainer:
  try:
    tx, _ = make_optimizer(ConfigDict(stage.optimizer.to_dict() | {"total_steps": stage.steps}))
  except ValueError as e:
    raise UserError(f"optimizer of a {stage.kind} stage: {e}") from None
  return Trainer(run.model, objective, tx, run.mesh, stage.micro_batch_rows, run.config.model.head_chunk)


# ---------------------------------------------------------------------------------------------------------------------
# RL: GRPO over whole dialogues.


def rl(run: Run, name: str, stage: ConfigDict) -> None:
  part, parts = parallel.row_share(run.mesh)
  objective = Objective(
      "grpo", stage.clip_low, stage.clip_high, stage.kl_coef, run.config.dialogue.temperature, stage.loss_norm
  )
  trainer = _trainer(run, stage, objective)
  stream = _task_stream(run, name, stage)
  draw = _task_drawer(run, name, stage, stream)
  reference = run.initial_params(stage.init, name) if stage.kl_coef else None
  counters = {"sampled_student_tokens": 0, "groups": 0}
  loop = TrainingStage(run, name, trainer, stream, counters)
  targets = _tokens_by_step(run, stage.match_tokens) if stage.match_tokens else None
  rules = Rules(stage.turns, stage.feedback, run.config.dialogue.temperature)
  meter = Meter(run.model.config, run.peak, run.table.clock)
  for step in loop.steps():
    n = stage.tasks_per_step if targets is None else _groups_to_match(targets, step, stage, loop.counters)
    with meter.part("data"):
      tasks = draw(n)
    groups = _play_groups(run, stage, loop, tasks, rules, step)
    for _ in range(stage.refill):
      dead = [g for g in groups if g.degenerate]
      if not dead:
        break
      groups = [g for g in groups if not g.degenerate] + _play_groups(run, stage, loop, draw(len(dead)), rules, step)
    dialogues = [d for g in groups for d in g.dialogues]
    written = groups[jax.process_index() :: jax.process_count()]  # no process writes what another does
    loop.keep(step, [d for g in written for d in g.dialogues])
    rows, left_out = without_signal([r for g in groups for r in g.token_rows(stage.truncated)], objective)
    if step == 1 and loop.first:
      show_dialogue(dialogues[0], token_row(dialogues[0]), run.renderer.pieces, run.progress.console)
    with meter.part("train"):
      packed = pack_all(rows or [token_row(dialogues[0], mask_loss=True)], stage.row_length)
      packed = {k: v[part::parts] for k, v in pad_rows(packed, parts).items()}
      for _ in range(stage.inner_updates):
        loop.state, metrics = trainer.update(loop.state, packed, reference, left_out)
      metrics = loop.fetch(step, metrics)
      jax.block_until_ready(loop.state.params)
    meter.sample([len(token_row(d)["tokens"]) for d in dialogues])
    meter.train([len(r["tokens"]) for r in rows] * stage.inner_updates)
    evaluation = _evaluate_in_loop(run, stage, loop, step)
    metrics = {**metrics, **group_metrics(groups), "left_out_tokens": left_out["tokens"], **loop.counters, **evaluation}
    loop.log(step, metrics | run.api_stats(), meter, success=success(dialogues), leaks=metrics["leak_rate"])
  loop.finish()


def _play_groups(
    run: Run, stage: ConfigDict, loop: TrainingStage, tasks: list[Task], rules: Rules, step: int
) -> list[Group]:
  g = stage.group_size
  repeated = [t for t in tasks for _ in range(g)]
  dialogues = run.table.play(loop.params, repeated, sample_numbers(tasks, g), rules, run.key(loop.name, step))
  loop.counters["sampled_student_tokens"] += sum(d.sampled_tokens for d in dialogues)
  loop.counters["groups"] += len(tasks)
  own = run.rewards[loop.name]
  if own:  # it may ask the world outside, or chance
    given = parallel.by_first(lambda: list(map(own, dialogues)))
    rewards = {id(d): reward for d, reward in zip(dialogues, given, strict=True)}
    own = lambda d: rewards[id(d)]
  return credit_groups(dialogues, stage, own)


def _tokens_by_step(run: Run, name: str) -> list[float]:
  """Student tokens that a finished rl stage had sampled by each of its steps; interpolated between logged ones."""
  rows = run.metrics_of(name)
  known = [(0, 0), *((row["step"], row["sampled_student_tokens"]) for row in rows)]
  return np.interp(range(1, known[-1][0] + 1), *zip(*known, strict=True)).tolist()


def _groups_to_match(targets: list[float], step: int, stage: ConfigDict, counters: dict[str, int]) -> int:
  """How many groups bring the sampled student tokens up to what the matched stage had sampled by this step."""
  if step > len(targets):
    raise UserError(f"stages: {stage.match_tokens} has {len(targets)} steps to match, and this one wants step {step}")
  used, groups = counters["sampled_student_tokens"], counters["groups"]
  a_group = used / groups if groups else targets[0] / stage.tasks_per_step
  return max(1, round((targets[step - 1] - used) / a_group))


def _evaluate_in_loop(run: Run, stage: ConfigDict, loop: TrainingStage, step: int) -> dict[str, float]:
  """success at the last turn on dev tasks, every `eval_every` steps."""
  out, c = {}, run.config
  for name in c.eval_suites if loop.due(step, stage.eval_every) else ():
    suite = Suite.parse(name)
    tasks = suite.tasks(run.source, "dev", c.eval_tasks, c.dialogue.reveal)
    games = EVALUATORS["sampled"](Setting(tasks, suite.feedback, c.dialogue.turns))
    dialogues = run.table.play(loop.params, *games, run.key("evaluate", 0))
    out |= {f"dev_success_{name}": success(dialogues), f"dev_leak_rate_{name}": leak_rate(dialogues)}
  return out


# ---------------------------------------------------------------------------------------------------------------------
# Evaluation and report.


def evaluate(run: Run, name: str, stage: ConfigDict) -> None:
  """Success by turn of every arm on every suite; what is played already is not played again."""
  folder, since = run.workdir.stage_dir(name), time.monotonic()
  jobs = list(_evaluation_jobs(stage))
  run.progress.stage(name, len(jobs))
  params, loaded = None, ""
  for i, (arm, suite_name, evaluator) in enumerate(jobs, 1):
    record = DialogueWriter(folder / arm / suite_name / evaluator)
    suite = Suite.parse(suite_name)
    tasks = suite.tasks(run.source, stage.part, stage.tasks_per_suite, run.config.dialogue.reveal)
    setting = Setting(tasks, suite.feedback, stage.turns, stage.tries, stage.runs, run.config.tasks.compat)
    games, dialogues = EVALUATORS[evaluator](setting), []
    written, size = parallel.by_first(record.steps), run.table.rows * PIECE
    for piece, start in enumerate(range(0, len(games.tasks), size)):
      _leave_if_told()
      if piece in written:
        continue
      if loaded != arm:
        params, loaded = run.initial_params(arm, name), arm
      these = slice(start, start + size)
      played = run.table.play(params, games.tasks[these], games.samples[these], games.rules, run.key("evaluate", 1))
      dialogues += played
      if jax.process_index() == 0:
        record.write(piece, 0, played)
    if dialogues:
      note = f"{arm} {suite_name} {evaluator}"
      run.progress.update(i, success=success(dialogues), leaks=leak_rate(dialogues), note=note)
  if jax.process_index() == 0:
    seconds = time.monotonic() - since
    report(run, name, stage, seconds)
    run.workdir.mark_done(name, {"seconds": seconds})


def _evaluation_jobs(stage: ConfigDict) -> Iterator[tuple[str, str, str]]:
  for arm in stage.arms:
    for suite in stage.suites:
      for evaluator in evaluators_of(Suite.parse(suite), stage):
        yield arm, suite, evaluator


def report(run: Run, name: str, stage: ConfigDict, seconds: float) -> None:
  """summary.json, report.html and success.png from the record alone."""
  folder, workdir = run.workdir.path / name, run.workdir
  results: dict[str, dict[str, SuiteResult]] = {}
  played: dict[tuple[str, str], dict[str, list[Dialogue]]] = {}
  for arm, suite, evaluator in _evaluation_jobs(stage):
    played.setdefault((arm, suite), {})[evaluator] = list(read_dialogues(folder / arm / suite / evaluator))
  for (arm, suite), by in played.items():
    # The first turn does not depend on the teacher, so a suite under another teacher has the same control.
    tries = by.get("tries") or played.get((arm, Suite.parse(suite).domain), {}).get("tries")
    counts = solved_counts(tries, stage.tries) if tries and not Suite.parse(suite).sharded else None
    modes = {m: runs_of(by[f"{MODE}{m}"], stage.runs) for m in stage.modes if f"{MODE}{m}" in by}
    result = SuiteResult(by["sampled"], counts, by.get("greedy"), Suite.parse(suite).feedback, by.get("full"), modes)
    results.setdefault(arm, {})[suite] = result
  done = {s: workdir.done_info(s) for s in run.config.stages if workdir.is_done(s)}
  summary = build_summary(
      results,
      config=run.config.to_dict(),
      seconds={s: info["seconds"] for s, info in done.items()} | {name: seconds},
      checkpoints={arm: str(run.checkpoint_dir(arm)) if arm in run.config.stages else arm for arm in stage.arms},
      sampled_student_tokens={s: info.get("sampled_student_tokens", 0) for s, info in done.items()},
      trained={s: info for s, info in done.items() if "trained_tokens" in info},
      api=run.api_stats(),
      comparisons=[tuple(pair.split("-")) for pair in stage.comparisons],
      turns=stage.turns,
      tries=stage.tries,
  )
  write_json(workdir.path / "summary.json", summary)
  a_suite = -(-20 // len(stage.suites))
  to_read = {arm: [d for s in stage.suites for d in results[arm][s].dialogues[:a_suite]] for arm in stage.arms}
  metrics = {s: rows for s in run.config.stages if (rows := run.metrics_of(s))}
  write_report(workdir.path / "report.html", summary, metrics, to_read, run.renderer.pieces)
  save_png(success_figure(summary), workdir.path / "success.png")
  final_table(summary, run.progress.console)
  run.progress.log(f"report: {workdir.path / 'report.html'}")


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
