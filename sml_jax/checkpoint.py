"""Checkpoints: the only place that knows Orbax.

One checkpoint holds the training state (any pytree of arrays with `params` at its top), a JSON of the caller's, the
state of the data iterator, and a checksum of every array. Saving is asynchronous; a checkpoint appears under its step's
name only when it is whole, and older ones are deleted only after that.
"""

from __future__ import annotations

import base64
import functools
import itertools
import logging as python_logging
import os
import re
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from sml_jax.checksums import checksums, named_arrays
from sml_jax.errors import UserError

_CALLS = itertools.count(1)
"""Counts the questions of whether to leave. JAX picks the number at which all processes do, so it must never fall back,
as the steps do from stage to stage."""
PyTree = Any
Notify = Callable[[str], None]


class CheckpointError(Exception):
  """A checkpoint could not be saved or read; the message is one line that says which, where and why."""


class Checkpoints:
  """The checkpoints of one stage, in one folder. Every process makes one and calls the same methods.

  Args:
    folder: made if it is missing.
    keep: how many of the newest are kept; one more is on the disk while the newest is being written.
    notify: is given one line whenever a checkpoint cannot be read and an older one is taken.

  Example:
    checkpoints = Checkpoints(workdir / "sft" / "checkpoints")
    if restored := checkpoints.restore(state):
      step, state, meta, data_state = restored
    ...
    checkpoints.save(step, state, {"seed": 0}, batches.get_state())
    ...
    checkpoints.close()
  """

  def __init__(self, folder: epath.PathLike, keep: int = 2, *, notify: Notify = logging.warning):
    _quiet_orbax()
    self.folder = _absolute(folder)
    self._notify = notify
    self._saving: int | None = None
    self.sigterm = False  # Whether one came since `watch_sigterm`.
    self._before = None  # What a SIGTERM did before `watch_sigterm`.
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, cleanup_tmp_directories=True)
    self._manager = ocp.CheckpointManager(self.folder, options=options)
    # Orbax asks too, whenever it saves, and would count steps where `told_to_leave` counts questions.
    self._told = False
    self._manager.reached_preemption = lambda step: self._told

  def save(self, step: int, state: PyTree, meta: dict, data_state: dict | bytes) -> None:
    """Starts saving a checkpoint; does nothing if that step already has one.

    Returns when the arrays are copied, so that the caller may donate them; `wait` tells when they are written.

    Args:
      step: later than the newest checkpoint's.
      state: pytree of arrays with `params` at its top: a dict, a NamedTuple or a dataclass.
      meta: whatever else the caller needs to go on, as JSON.
      data_state: of the data iterator; the same on every process.

    Raises:
      CheckpointError: this save or the one before it failed. The newest complete checkpoint is untouched.
    """
    self.wait()
    if step in self._manager.all_steps():
      return
    if isinstance(data_state, bytes):
      data = {"bytes": base64.b64encode(data_state).decode()}
    else:
      data = {"json": data_state}
    record = {"meta": meta, "data": data, "arrays": _describe(state), "checksums": checksums(state)}
    self._saving = step
    try:
      args = ocp.args.Composite(state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record))
      self._manager.save(step, args=args, force=True)
    except Exception as e:
      raise self._failed(e) from e

  def wait(self) -> None:
    """Returns when the save under way is on the disk.

    Raises:
      CheckpointError: it failed.
    """
    try:
      self._manager.wait_until_finished()
    except Exception as e:
      raise self._failed(e) from e

  def latest(self) -> int | None:
    """The step of the newest complete checkpoint, or None."""
    return max(self._manager.all_steps(read=True), default=None)

  def restore(self, target: PyTree) -> tuple[int, PyTree, dict, dict | bytes] | None:
    """Reads the newest checkpoint that is sound, whatever mesh and number of processes wrote it.

    If the newest is not sound, the one before it is taken, the caller is notified, and the bad one is renamed to
    `corrupt-STEP`, since its step will be saved again.

    Args:
      target: the structure wanted: arrays, or ShapeDtypeStructs with shardings.

    Returns:
      (step, state, meta, data_state), or None if there is no checkpoint.

    Raises:
      CheckpointError: the newest holds other arrays than the target (names the first), or there are checkpoints and
        none can be read (all are left as they are), or the save under way failed.
    """
    def read(step: int):
      record = self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore())).record
      _match(target, record["arrays"], f"the checkpoint of step {step} in {self.folder}")
      args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
      state = self._manager.restore(step, args=args).state
      _verify(state, record["checksums"])
      return state, record

    self.wait()
    steps = self._manager.all_steps(read=True)
    if not steps:
      return None
    step, (state, record), failed = _newest_sound(steps, read, self.folder, self._notify)
    self._set_aside(failed)
    data = record["data"]
    data_state = base64.b64decode(data["bytes"]) if "bytes" in data else data["json"]
    return step, state, record["meta"], data_state

  def reached_preemption(self) -> bool:
    """True at the step at which every process must save and leave. Call it at every step on every process."""
    self._told = told_to_leave()
    return self._told or self.sigterm

  def watch_sigterm(self) -> None:
    """Makes `reached_preemption` true after a SIGTERM, which then no longer ends this process; a second one does.

    With several processes JAX's preemption service watches already. Main thread only.
    """
    def note(signum, frame):
      del frame
      self.sigterm = True
      signal.signal(signum, signal.SIG_DFL)

    if jax.process_count() == 1:
      self._before = signal.signal(signal.SIGTERM, note)

  def close(self) -> None:
    """Waits for the save under way, ends the threads, and lets SIGTERM do what it did before.

    Raises:
      CheckpointError: the save under way failed.
    """
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)
    self.wait()
    self._manager.close()

  def _failed(self, error: Exception) -> CheckpointError:
    if jax.process_index() == 0:
      for part in self.folder.glob(f"{self._saving}.orbax-checkpoint-tmp*"):
        _remove(part)  # Else it fills what little room there is.
    self._manager.reload()
    kept = self.latest()
    rest = "there is no earlier checkpoint" if kept is None else f"the checkpoint of step {kept} is intact"
    what = f"could not save checkpoint at step {self._saving} in {self.folder}"
    return CheckpointError(f"{what}: {_reason(error)}; {rest}")

  def _set_aside(self, steps: list[int]) -> None:
    if not steps:
      return
    if jax.process_index() == 0:
      for step in steps:
        aside = self.folder / f"corrupt-{step}"
        if aside.exists():
          aside.rmtree()
        (self.folder / str(step)).rename(aside)
    multihost_utils.sync_global_devices("corrupt checkpoints set aside")
    self._manager.reload()


def told_to_leave() -> bool:
  """With several processes: whether all are to leave here, since one got a SIGTERM. Call it on all, equally often."""
  return jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(next(_CALLS))


def restore_params(
    folder: epath.PathLike, step: int | None = None, *, place: Callable[[PyTree], PyTree] | None = None,
    notify: Notify = logging.warning,
) -> tuple[int, PyTree, dict]:
  """Reads the parameters alone, without optimizer or a target, for evaluation and for the next stage.

  Args:
    folder: of a Checkpoints; only read.
    step: which one; None takes the newest that is sound, with a line to `notify` if that is not the newest.
    place: parameters as things with a shape -> their shardings, onto which they are read, each process its part; None
      gives NumPy arrays. What it raises as UserError is raised.
    notify: see Checkpoints.

  Returns:
    (step, params as nested dicts of arrays, meta).

  Raises:
    CheckpointError: there is no such checkpoint, or it cannot be read.
  """
  _quiet_orbax()
  folder = _absolute(folder)
  if not folder.exists():
    raise CheckpointError(f"no checkpoint in {folder}: no such folder")
  handlers = {"state": ocp.PyTreeCheckpointHandler(), "record": ocp.JsonCheckpointHandler()}
  options = ocp.CheckpointManagerOptions(read_only=True)
  with ocp.CheckpointManager(folder, options=options, item_handlers=handlers) as manager:
    def read(step: int):
      metadata = manager.item_metadata(step)["state"]
      if metadata is None:
        raise ValueError("its metadata is missing")
      wanted = {"params": metadata.tree["params"]}
      if place is None:
        how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
      else:
        how = {"params": jax.tree.map(lambda s: ocp.ArrayRestoreArgs(sharding=s), place(wanted["params"]))}
      state = ocp.args.PyTreeRestore(item=wanted, restore_args=how, partial_restore=True)
      restored = manager.restore(step, args=ocp.args.Composite(state=state, record=ocp.args.JsonRestore()))
      params = {"params": restored.state["params"]}
      _verify(params, restored.record["checksums"])
      return params["params"], restored.record["meta"]

    steps = manager.all_steps()
    if step is not None:
      steps = [s for s in steps if s == step]
    if not steps:
      raise CheckpointError(f"no checkpoint{'' if step is None else f' of step {step}'} in {folder}")
    found, (params, meta), _ = _newest_sound(steps, read, folder, notify)
    return found, params, meta


def _remove(folder: epath.Path) -> None:
  """Removes a half-written checkpoint until it stays away, or 3 seconds: Orbax's threads may still be adding to it."""
  gone = 0
  for _ in range(60):
    try:
      gone = 0 if folder.exists() else gone + 1
      folder.rmtree(missing_ok=True)
    except OSError:
      gone = 0
    if gone == 5:
      return
    time.sleep(0.05)


def _absolute(folder: epath.PathLike) -> epath.Path:
  """Orbax refuses paths that depend on the current folder."""
  folder = epath.Path(folder)
  return folder if "://" in str(folder) else folder.resolve()


def _newest_sound(
    steps: Iterable[int], read: Callable[[int], Any], folder: epath.Path, notify: Notify
) -> tuple[int, Any, list[int]]:
  """(step, what `read` gave, newer steps that could not be read); all processes agree on the step."""
  failed: dict[int, str] = {}
  for step in sorted(steps, reverse=True):
    result = None
    try:
      result, reason = read(step), ""
    except (CheckpointError, UserError):
      raise
    except Exception as e:  # Orbax and TensorStore raise whatever they like: ValueError, KeyError, plain Exception.
      reason = _reason(e)
    if jax.process_count() > 1 and multihost_utils.process_allgather(np.asarray(bool(reason))).any():
      reason = reason or "another process could not read it"
    if not reason:
      for bad, why in failed.items():
        notify(f"the checkpoint of step {bad} in {folder} cannot be read ({why}); using step {step}")
      return step, result, list(failed)
    failed[step] = reason
  tried = "; ".join(f"step {s}: {why}" for s, why in failed.items())
  raise CheckpointError(f"no checkpoint in {folder} can be read: {tried}")


def _verify(state: PyTree, saved: dict[str, int]) -> None:
  for name, value in checksums(state).items():
    if value != saved[name]:
      raise ValueError(f"{name} is not what was saved")


def _describe(state: PyTree) -> dict[str, str]:
  """The dtype and shape of each array by its path: {"params.embed": "float32[512,128]"}."""
  types = {name: x if hasattr(x, "dtype") else np.asarray(x) for name, x in named_arrays(state).items()}
  return {name: f"{x.dtype}{list(x.shape)}".replace(" ", "") for name, x in types.items()}


def _match(target: PyTree, saved: dict[str, str], where: str) -> None:
  wanted = _describe(target)
  for name in sorted(wanted.keys() | saved.keys()):
    if wanted.get(name) != saved.get(name):
      raise CheckpointError(f"{where} has {name} {saved.get(name, 'missing')}; wanted {wanted.get(name, 'without it')}")


def _reason(error: BaseException) -> str:
  """One line of why, without the depths of the libraries."""
  text = str(error).strip()
  if code := re.search(r"os_error_code='(\d+)'", text):  # TensorStore's way of passing on an errno.
    return os.strerror(int(code[1]))
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  if status := re.match(r"([A-Z]+(?:_[A-Z]+)*): ", text):  # TensorStore's kinds of failure, such as DATA_LOSS.
    return status[1].lower().replace("_", " ")
  return re.split(r"\n|\. See ", text)[0][:100] or type(error).__name__


@functools.cache
def _quiet_orbax() -> None:
  """Orbax and TensorStore report a failure as hundreds of lines, and we raise it as one; verbosity 1 shows all."""
  def wanted(text: str) -> bool:
    return not re.search("orbax|tensorstore|OCDBT|Event loop is closed", text) or logging.vlog_is_on(1)

  logging.get_absl_logger().addFilter(lambda record: wanted(record.pathname))
  python_logging.getLogger("asyncio").addFilter(lambda record: wanted(record.getMessage()))
  warnings.filterwarnings("ignore", "coroutine '(Store|_read_array).* was never awaited", RuntimeWarning)
  show = sys.unraisablehook

  def hook(unraisable):
    if wanted("".join(traceback.format_exception(unraisable.exc_value))):
      show(unraisable)

  sys.unraisablehook = hook
