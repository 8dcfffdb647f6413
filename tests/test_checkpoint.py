"""Checkpoints: exact round trips on any mesh, and what happens when the disk or a file lets us down."""

from __future__ import annotations

import functools
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sml_jax import checkpoint
from sml_jax.checkpoint import CheckpointError, Checkpoints, restore_params
from sml_jax.checksums import checksums

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))


class State(NamedTuple):
  params: Any
  opt_state: Any
  step: Any


def make_state(seed: int) -> State:
  rng = np.random.default_rng(seed)
  params = {
      "embed": jnp.asarray(rng.normal(size=(256, 64)), jnp.float32),
      "layers": {"0": {"wq": jnp.asarray(rng.normal(size=(64, 64)), jnp.bfloat16)}},
  }
  opt_state = OPTIMIZER.init(params)
  _, opt_state = OPTIMIZER.update(params, opt_state, params)  # So that its moments are not zeros.
  return State(params, opt_state, jnp.int32(seed))


def same(a: Any, b: Any) -> bool:
  return jax.tree.structure(a) == jax.tree.structure(b) and all(
      x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def largest_file(folder: pathlib.Path) -> pathlib.Path:
  return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def data_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """All files of array data: which arrays share a file is up to Orbax's threads."""
  return [p for p in folder.rglob("*") if p.is_file() and p.parent.name == "d"]


def truncate(folder: pathlib.Path) -> None:
  for file in data_files(folder):
    file.write_bytes(file.read_bytes()[:16])


def flip_bits(folder: pathlib.Path, every: int = 64) -> None:
  file = largest_file(folder)
  data = bytearray(file.read_bytes())
  for i in range(every // 2, len(data), every):
    data[i] ^= 1
  file.write_bytes(bytes(data))


def delete_manifest(folder: pathlib.Path) -> None:
  (folder / "state" / "manifest.ocdbt").unlink()


def test_round_trip_is_exact(tmp_path):
  checkpoints = Checkpoints(tmp_path / "run")
  assert checkpoints.restore(make_state(0)) is None and checkpoints.latest() is None
  checkpoints.save(10, make_state(1), {"seed": 7, "stage": "sft"}, {"next_index": 10})
  checkpoints.save(20, make_state(2), {"seed": 8}, b"\x00\xffstate")
  checkpoints.close()
  again = Checkpoints(tmp_path / "run")
  step, state, meta, data = again.restore(make_state(0))
  assert (step, meta, data) == (20, {"seed": 8}, b"\x00\xffstate") and same(state, make_state(2))
  step, params, meta = restore_params(tmp_path / "run", 10)
  assert (step, meta) == (10, {"seed": 7, "stage": "sft"}) and same(params, make_state(1).params)
  assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(params))
  again.close()


def test_a_folder_may_be_named_relative_to_the_current_one(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with_relative = Checkpoints("run/checkpoints")
  with_relative.save(3, make_state(1), {}, {})
  with_relative.close()
  step, params, _ = restore_params("run/checkpoints")
  assert step == 3 and same(params, jax.tree.map(np.asarray, make_state(1).params))


def test_keeps_the_newest_and_saves_a_step_once(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep=2)
  for step in (1, 2, 3):
    checkpoints.save(step, make_state(step), {}, {})
  checkpoints.save(3, make_state(99), {}, {})
  checkpoints.wait()
  assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3"]
  assert same(checkpoints.restore(make_state(0))[1], make_state(3))
  checkpoints.close()


def test_saved_arrays_may_be_donated_at_once(tmp_path):
  advance = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
  state = {"params": {str(i): jnp.full((512, 512), float(i)) for i in range(8)}}
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, state, {}, {})
  for _ in range(20):
    state = advance(state)
  _, restored, _, _ = checkpoints.restore(jax.block_until_ready(state))
  assert all((restored["params"][str(i)] == i).all() for i in range(8))
  checkpoints.close()


def flip_bits_everywhere(folder: pathlib.Path) -> None:
  for file in data_files(folder):
    data = bytearray(file.read_bytes())
    data[::7] = bytes(b ^ 1 for b in data[::7])
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip_bits_everywhere, delete_manifest])
def test_corrupt_newest_falls_back_and_says_so(tmp_path, damage, capfd):
  said = []
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, make_state(1), {}, {"next_index": 1})
  checkpoints.save(2, make_state(2), {}, {"next_index": 2})
  checkpoints.close()
  damage(tmp_path / "2")
  assert restore_params(tmp_path, notify=said.append)[0] == 1
  with pytest.raises(CheckpointError, match="step 2"):
    restore_params(tmp_path, 2)
  checkpoints = Checkpoints(tmp_path, notify=said.append)
  step, state, _, data = checkpoints.restore(make_state(0))
  assert (step, data) == (1, {"next_index": 1}) and same(state, make_state(1))
  assert len(said) == 2
  for line in said:
    assert line.startswith(f"the checkpoint of step 2 in {tmp_path} cannot be read (") and line.endswith("using step 1")
    assert "\n" not in line
  assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "corrupt-2"]
  checkpoints.save(2, make_state(22), {}, {})  # The run comes to step 2 again.
  assert same(checkpoints.restore(make_state(0))[1], make_state(22))
  checkpoints.close()
  assert "Traceback" not in capfd.readouterr().err


def test_one_wrong_bit_in_the_arrays_is_noticed(tmp_path):
  """Orbax reads such a file without complaint: only our checksums tell."""
  checkpoints = Checkpoints(tmp_path, notify=lambda line: None)
  checkpoints.save(1, make_state(1), {}, {})
  checkpoints.save(2, make_state(2), {}, {})
  checkpoints.wait()
  flip_bits(tmp_path / "2", every=largest_file(tmp_path / "2").stat().st_size)
  assert checkpoints.restore(make_state(0))[0] == 1
  checkpoints.close()


def test_nothing_readable_is_one_line_and_leaves_the_files(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, make_state(1), {}, {})
  checkpoints.wait()
  truncate(tmp_path / "1")
  with pytest.raises(CheckpointError, match=r"^no checkpoint in .* can be read: step 1: [^\n]*$"):
    checkpoints.restore(make_state(0))
  assert [p.name for p in tmp_path.iterdir()] == ["1"]
  checkpoints.close()


def test_another_model_is_not_a_corrupt_checkpoint(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, make_state(1), {}, {})
  wider = jax.tree.map(lambda x: jnp.zeros((*x.shape[:-1], 128)) if x.ndim else x, make_state(0))
  with pytest.raises(CheckpointError, match=r"step 1 .* opt_state\.1\.0\.mu\.embed float32\[256,64\]; wanted .*128"):
    checkpoints.restore(wider)
  with pytest.raises(CheckpointError, match=r"has params\.extra missing; wanted float32\[3\]"):
    checkpoints.restore(make_state(0)._replace(params=make_state(0).params | {"extra": jnp.zeros(3)}))
  assert checkpoints.latest() == 1
  checkpoints.close()


def test_missing_checkpoints_are_named(tmp_path):
  with pytest.raises(CheckpointError, match=r"no checkpoint in .*/nowhere: no such folder"):
    restore_params(tmp_path / "nowhere")
  with pytest.raises(CheckpointError, match="no checkpoint of step 5 in"):
    restore_params(tmp_path, 5)


def test_failing_write_leaves_the_earlier_checkpoint(tmp_path, capfd):
  """A real failing write: the kernel refuses files over 32 KiB, as it would refuse any on a full disk."""
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, make_state(1), {}, {})
  checkpoints.wait()
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (32 * 1024, limits[1]))
  try:
    with pytest.raises(CheckpointError) as caught:
      checkpoints.save(2, make_state(2), {}, {})
      checkpoints.wait()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert str(caught.value) == (
      f"could not save checkpoint at step 2 in {tmp_path}: File too large; the checkpoint of step 1 is intact")
  assert [p.name for p in tmp_path.iterdir()] == ["1"]  # No half-written files on what may be a full disk.
  assert same(checkpoints.restore(make_state(0))[1], make_state(1))
  checkpoints.save(3, make_state(3), {}, {})  # And once there is room, saving works again.
  checkpoints.close()
  assert restore_params(tmp_path)[0] == 3
  assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("error", [
    OSError(28, "No space left on device"),
    ValueError("RESOURCE_EXHAUSTED: Error writing \"params.1/0.0\" in OCDBT database: Failed to write 1558877 bytes to "
               "file 15: No space left on device [os_error_code='28']"),
])
def test_full_disk_is_called_that(tmp_path, monkeypatch, error):
  checkpoints = Checkpoints(tmp_path)

  def full(*args, **kwargs):
    raise error

  monkeypatch.setattr(checkpoint.ocp.CheckpointManager, "save", full)
  with pytest.raises(CheckpointError, match=r"No space left on device; there is no earlier checkpoint$"):
    checkpoints.save(1, make_state(1), {}, {})


def test_half_written_checkpoint_is_ignored(tmp_path):
  """What kill -9 leaves: a folder under Orbax's temporary name."""
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, make_state(1), {}, {})
  checkpoints.close()
  half = tmp_path / "2.orbax-checkpoint-tmp"
  (half / "state").mkdir(parents=True)
  (half / "state" / "data").write_bytes(b"half")
  assert restore_params(tmp_path)[0] == 1
  checkpoints = Checkpoints(tmp_path)
  assert checkpoints.restore(make_state(0))[0] == 1 and not half.exists()
  checkpoints.close()


def test_sigterm_is_seen_at_the_next_step(tmp_path):
  previous = signal.getsignal(signal.SIGTERM)
  checkpoints = Checkpoints(tmp_path)
  try:
    checkpoints.watch_sigterm()
    assert not checkpoints.reached_preemption()
    os.kill(os.getpid(), signal.SIGTERM)
    assert checkpoints.reached_preemption()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # A second one ends the process.
    checkpoints.close()
    assert signal.getsignal(signal.SIGTERM) == previous and checkpoints.sigterm
  finally:
    signal.signal(signal.SIGTERM, previous)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool", "uint8"])
def test_checksum_sees_every_element(dtype):
  array = np.random.default_rng(0).integers(0, 2, size=(3, 4, 5)).astype(jnp.dtype(dtype))
  want = checksums({"a": array})
  assert checksums({"a": jnp.asarray(array)}) == want
  for i in range(array.size):
    wrong = array.copy()
    wrong.reshape(-1)[i] = 1 - wrong.reshape(-1)[i].astype(np.int32)
    assert checksums({"a": wrong}) != want
  assert checksums({"a": np.swapaxes(array, 0, 1)}) != want


WORKER = """
import sys
import jax
folder, process, port = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", 2, process)
from jax.sharding import NamedSharding, PartitionSpec as P
import numpy as np
import tests_state
from sml_jax.checkpoint import Checkpoints, restore_params
mesh = jax.make_mesh((4, 2), ("fsdp", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
shard = lambda x: jax.ShapeDtypeStruct(
    x.shape, x.dtype, sharding=NamedSharding(mesh, P("fsdp", "model") if len(x.shape) == 2 else P()))
target = jax.tree.map(shard, jax.eval_shape(lambda: tests_state.make_state(0)))
said = []
checkpoints = Checkpoints(folder, notify=said.append)
step, state, meta, data = checkpoints.restore(target)
assert (step, data, len(said)) == (1, {"next_index": 1}, 1), (step, data, said)
assert len(state.params["embed"].sharding.device_set) == 8
checkpoints.save(5, jax.jit(lambda s: jax.tree.map(lambda x: x * 2, s))(state), meta, data)
assert not checkpoints.reached_preemption()
checkpoints.close()
place = lambda params: jax.tree.map(lambda x: shard(x).sharding, params)
step, params, _ = restore_params(folder, place=place)
want = jax.tree.map(lambda x: 2 * np.asarray(x), tests_state.make_state(1).params)
assert step == 5 and params["embed"].sharding.shard_shape((256, 64)) == (64, 32)
for array, whole in zip(jax.tree.leaves(params), jax.tree.leaves(want), strict=True):
  assert len(array.addressable_shards) == 4
  assert all((np.asarray(s.data) == whole[s.index]).all() for s in array.addressable_shards)
"""


def test_another_mesh_and_number_of_processes(tmp_path):
  """One process and device saves; two processes with 8 devices go on (past a corrupt newest); one reads theirs."""
  folder = tmp_path / "run"
  checkpoints = Checkpoints(folder)
  checkpoints.save(1, make_state(1), {}, {"next_index": 1})
  checkpoints.save(2, make_state(2), {}, {"next_index": 2})
  checkpoints.close()
  flip_bits(folder / "2")
  (tmp_path / "worker.py").write_text(WORKER)
  (tmp_path / "tests_state.py").write_bytes(pathlib.Path(__file__).read_bytes())
  root = str(pathlib.Path(__file__).parents[1])
  env = os.environ | {
      "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
      "PYTHONPATH": os.pathsep.join([root, str(tmp_path)])}
  start = functools.partial(subprocess.Popen, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = str(free.getsockname()[1])
  workers = [start([sys.executable, str(tmp_path / "worker.py"), str(folder), str(p), port]) for p in range(2)]
  outputs = [worker.communicate(timeout=120)[0] for worker in workers]
  assert [worker.returncode for worker in workers] == [0, 0], "\n".join(outputs)
  checkpoints = Checkpoints(folder)
  step, state, _, _ = checkpoints.restore(make_state(0))
  assert step == 5 and same(state, jax.tree.map(lambda x: x * 2, make_state(1)))
  checkpoints.close()
