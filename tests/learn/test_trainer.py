"""The train step: one update whatever the micro-batches, packing or mesh; on policy it is REINFORCE."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

import sml_jax
from sml_jax import parallel
from sml_jax.data.packing import pack_all
from sml_jax.learn import losses
from sml_jax.learn.losses import Objective
from sml_jax.learn.optimizer import make_optimizer
from sml_jax.learn.trainer import Trainer
from sml_jax.models.transformer import Model, ModelConfig

ROOT = pathlib.Path(sml_jax.__file__).parents[1]
MODEL = Model(ModelConfig(vocab_size=16, d_model=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp_dim=24))
OPTIMIZER = {
    "learning_rate": 1e-2, "schedule": "constant", "warmup_steps": 0, "total_steps": 100, "end_lr_fraction": 0.1,
    "b1": 0.9, "b2": 0.99, "eps": 1e-8, "weight_decay": 0.1, "clip_norm": 0.05,
}  # fmt: skip


@pytest.fixture(scope="module")
def params():
  return jax.jit(MODEL.init)(jax.random.key(0, impl="unsafe_rbg"))


@pytest.fixture(scope="module")
def mesh():
  return parallel.make_mesh()


@pytest.fixture(scope="module")
def descent(mesh) -> Trainer:
  """Plain gradient descent of rate 1, so that an update is the gradient."""
  return Trainer(MODEL, Objective("grpo"), optax.sgd(1.0), mesh)


@pytest.fixture(scope="module")
def imitation(mesh) -> Trainer:
  return Trainer(MODEL, Objective("sft"), optax.adam(0.02), mesh)


def adamw() -> optax.GradientTransformation:
  return make_optimizer(ConfigDict(OPTIMIZER))[0]


def dialogues(n: int = 9, seed: int = 0) -> list[dict]:
  """Token rows of 5 to 14 tokens, of which the later ones are trained, with advantages of either sign."""
  rng, rows = np.random.default_rng(seed), []
  for _ in range(n):
    length = int(rng.integers(5, 15))
    weights = (np.arange(length) >= rng.integers(2, 5)).astype(np.float32)
    rows.append({
        "tokens": rng.integers(1, 16, length).astype(np.int32), "weights": weights,
        "advantages": (weights * rng.normal()).astype(np.float32), "logprobs": -3 * weights,
    })  # fmt: skip
  return rows


def on_policy(trainer: Trainer, params, batch: dict) -> dict:
  return batch | {"logprobs": np.where(batch["weights"] > 0, trainer.score(params, batch), 0)}


def gradient(params, state, rate: float = 1.0):
  """What an update by plain gradient descent with this rate used."""
  return jax.tree.map(lambda a, b: (np.asarray(a) - np.asarray(b)) / rate, params, state.params)


def assert_close(a, b, **tolerance):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(np.asarray(x), np.asarray(y), **tolerance)


@pytest.mark.parametrize("kind", ["grpo", "sft"])
def test_P10_P42_micro_batches_make_no_difference(params, mesh, kind):
  """Clipping by the global norm, which binds here, sees the whole batch's gradient: the same update for any split."""
  batch, runs = pack_all(dialogues(5), 14, packing=False), []
  for rows in (0, 1, 2) if kind == "grpo" else (0, 2):  # 5 rows: the last micro-batch of 2 is padded
    trainer = Trainer(MODEL, Objective(kind), adamw(), mesh, micro_batch_rows=rows)
    runs.append(trainer.update(trainer.init(params), batch))
  for state, metrics in runs[1:]:
    assert_close(state.params, runs[0][0].params, atol=1e-6)
    assert set(metrics) == set(runs[0][1])
    for name in metrics:
      np.testing.assert_allclose(metrics[name], runs[0][1][name], rtol=1e-4, atol=1e-6, err_msg=name)
  assert runs[0][1]["grad_norm"] > OPTIMIZER["clip_norm"]
  assert runs[0][1]["tokens"] == batch["weights"].sum() and runs[0][1]["skipped"] == 0


@pytest.mark.parametrize("norm", ["token", "dialogue"])
def test_P11_packed_equals_unpacked(params, mesh, descent, norm):
  trainer = descent if norm == "token" else Trainer(MODEL, Objective("grpo", norm=norm), optax.sgd(1.0), mesh)
  grads = []
  for length, packing in ((14, False), (40, True)):
    state, metrics = trainer.update(trainer.init(params), pack_all(dialogues(), length, packing=packing))
    grads.append((gradient(params, state), float(metrics["loss"])))
  assert_close(grads[1][0], grads[0][0], atol=1e-6)
  assert grads[1][1] == pytest.approx(grads[0][1], abs=1e-6)
  assert max(np.abs(g).max() for g in jax.tree.leaves(grads[0][0])) > 1e-3


def test_P36_on_policy_the_loss_is_minus_the_mean_advantage_and_the_gradient_is_reinforce(params, descent):
  trainer = descent
  batch = on_policy(trainer, params, pack_all(dialogues(), 40))
  state, metrics = trainer.update(trainer.init(params), batch)
  w, a = batch["weights"], batch["advantages"]
  assert metrics["loss"] == pytest.approx(-(w * a).sum() / w.sum(), abs=1e-6)
  assert metrics["ratio"] == pytest.approx(1, abs=1e-6) and metrics["clip_fraction"] == 0

  def reinforce(p):
    """Written out: log-softmax of the logits one place to the left, no helper of the package but the model."""
    hidden = MODEL.forward(p, batch["tokens"], batch["positions"], batch["segments"])
    logp = jax.nn.log_softmax(MODEL.logits(p, hidden))[:, :-1]
    chosen = jnp.take_along_axis(logp, batch["tokens"][:, 1:, None], -1)[..., 0]
    return -(w * a)[:, 1:].reshape(-1) @ chosen.reshape(-1) / w.sum()

  assert_close(gradient(params, state), jax.jit(jax.grad(reinforce))(params), atol=1e-6)


def test_P34_the_ratio_is_to_what_was_sampled_over_inner_updates(params, descent):
  trainer = descent  # clips at .8 and 1.28
  batch = on_policy(trainer, params, pack_all(dialogues(), 40))
  batch["advantages"] = batch["advantages"] * 5
  state, first = trainer.update(trainer.init(params), batch)
  ratio = np.exp(trainer.score(state.params, batch) - batch["logprobs"])
  state, second = trainer.update(state, batch)
  w, a = batch["weights"], batch["advantages"]
  binds = ((a > 0) & (ratio > 1.28)) | ((a < 0) & (ratio < 0.8))
  assert first["ratio"] == pytest.approx(1, abs=1e-6) and first["clip_fraction"] == 0
  assert second["ratio"] == pytest.approx((w * ratio).sum() / w.sum(), abs=1e-5) and abs(second["ratio"] - 1) > 1e-3
  assert second["clip_fraction"] == pytest.approx((w * binds).sum() / w.sum(), abs=1e-6) and binds.any()


@pytest.mark.parametrize("norm", ["token", "dialogue"])
def test_rows_without_an_advantage_are_left_out_and_count(params, mesh, descent, norm):
  """The same gradient, loss and tokens as with them; the ratio is of the rows that are computed."""
  trainer = descent if norm == "token" else Trainer(MODEL, Objective("grpo", norm=norm), optax.sgd(1.0), mesh)
  rows = dialogues()
  for i in (0, 3, 4, 8):
    rows[i] |= {"advantages": np.zeros_like(rows[i]["advantages"])}
  kept, left_out = losses.without_signal(rows, trainer.objective)
  assert [id(r) for r in kept] == [id(rows[i]) for i in (1, 2, 5, 6, 7)]
  whole, want = trainer.update(trainer.init(params), pack_all(rows, 14, packing=False))
  part, got = trainer.update(trainer.init(params), pack_all(kept, 14, packing=False), left_out=left_out)
  assert_close(gradient(params, part), gradient(params, whole), atol=1e-6)
  assert max(np.abs(g).max() for g in jax.tree.leaves(gradient(params, part))) > 1e-3
  assert set(got) == set(want)
  for name in ("loss", "tokens", "grad_norm"):
    assert got[name] == pytest.approx(float(want[name]), abs=1e-6)
  _, alone = trainer.update(trainer.init(params), pack_all(kept, 14, packing=False))
  assert got["ratio"] == alone["ratio"] and got["logp_gap_max"] == alone["logp_gap_max"]
  sampled = sum(3 * rows[i]["weights"].sum() for i in (0, 3, 4, 8))  # whose log-probability was -3, each
  entropy = (alone["entropy"] * alone["tokens"] + sampled) / want["tokens"]
  assert got["entropy"] == pytest.approx(float(entropy), rel=1e-5)


def test_P39_without_signal_nothing_moves(params, mesh):
  trainer = Trainer(MODEL, Objective("grpo"), adamw(), mesh)
  batch = pack_all(dialogues(), 40)
  state, _ = trainer.update(trainer.init(params), batch)  # moments are not 0
  before = jax.tree.map(np.array, state)
  dead = batch | {"advantages": np.zeros_like(batch["advantages"])}
  for empty in (dead, batch | {"weights": np.zeros_like(batch["weights"])}):
    state, metrics = trainer.update(state, empty)
    assert metrics["skipped"] == 1 and metrics["grad_norm"] == 0
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(state), strict=True):
      np.testing.assert_array_equal(a, b)


def test_the_callers_parameters_survive_the_first_update(params, descent):
  before = jax.tree.map(np.array, params)
  descent.update(descent.init(params), pack_all(dialogues(), 40))
  assert_close(before, params, atol=0)


def test_P14_a_student_that_knows_nothing_has_a_loss_of_ln_v(params, imitation):
  uniform = params | {"embedding": {"table": jnp.zeros((16, 16))}}
  _, metrics = imitation.update(imitation.init(uniform), pack_all(dialogues(4), 40))
  assert metrics["loss"] == pytest.approx(np.log(16), abs=1e-6) and metrics["entropy"] == pytest.approx(np.log(16))


def test_sft_learns_the_trained_tokens(params, imitation):
  trainer = imitation
  batch = pack_all(dialogues(4), 40)
  state, values = trainer.init(params), []
  for _ in range(40):
    state, metrics = trainer.update(state, batch)
    values.append(float(metrics["loss"]))
  scores, w = trainer.score(state.params, batch), batch["weights"]
  assert values[-1] < 0.3 < 2 < values[0]
  assert -(w * scores).sum() / w.sum() < values[-1] + 0.05
  untrained = (w == 0) & (batch["positions"] > 0)
  assert scores[untrained].mean() < -1  # the teacher's tokens were not learnt


def test_the_kl_term_pulls_towards_the_reference(params, mesh):
  rng = np.random.default_rng(0)
  moved = jax.tree.map(lambda a: a + 0.1 * rng.normal(size=a.shape).astype(np.float32), params)
  batch = pack_all(dialogues(), 40)
  batch["advantages"] = np.zeros_like(batch["advantages"])
  trainer = Trainer(MODEL, Objective("grpo", kl_coef=1.0), optax.sgd(0.3), mesh)
  state, kls = trainer.init(moved), []
  for _ in range(30):
    state, metrics = trainer.update(state, batch, params)
    kls.append(float(metrics["kl"]))
  assert metrics["skipped"] == 0 and kls[0] > 0.01 and kls[-1] < 0.3 * kls[0]
  state, metrics = trainer.update(trainer.init(params), batch, params)
  assert metrics["kl"] == pytest.approx(0, abs=1e-7)
  assert_close(gradient(params, state, 0.3), jax.tree.map(np.zeros_like, params), atol=1e-6)


def test_score_is_in_the_order_of_the_rows(params, mesh, descent):
  batch = pack_all(dialogues(), 14, packing=False)
  want = descent.score(params, batch)
  got = Trainer(MODEL, Objective("grpo"), optax.sgd(1.0), mesh, micro_batch_rows=2).score(params, batch)
  assert got.shape == batch["tokens"].shape == (9, 14)
  np.testing.assert_allclose(got, want, atol=1e-6)
  assert not want[batch["segments"] == 0].any() and not want[:, 0].any() and (want[batch["positions"] > 0] < 0).all()


@pytest.mark.parametrize("scan", [False, True])
def test_remat_changes_nothing_but_what_is_kept(params, mesh, scan):
  batch, grads, counts = pack_all(dialogues(), 14, packing=False), {}, []
  for name in ("none", "dots", "full"):
    model = dataclasses.replace(MODEL, config=dataclasses.replace(MODEL.config, remat=name, scan_layers=scan))
    trainer = Trainer(model, Objective("grpo"), optax.sgd(1.0), mesh)
    grads[name] = gradient(params, trainer.update(trainer.init(params), batch)[0])
    text = str(jax.make_jaxpr(trainer._gradient)(params, {}, None, trainer._micro_batches(batch)[0], 1.0))
    counts.append(text.count("dot_general"))
  assert counts[0] <= counts[1] < counts[2]
  assert_close(grads["dots"], grads["none"], atol=1e-6)
  assert_close(grads["full"], grads["none"], atol=1e-6)


def test_an_update_hands_nothing_to_a_device_unasked(params, mesh):
  """The guard is on inside: a number that is not on the device yet is refused there, as the control shows."""
  trainer = Trainer(MODEL, Objective("grpo"), optax.sgd(1.0), mesh, micro_batch_rows=2)
  batch = pack_all(dialogues(), 14)
  state, _ = trainer.update(trainer.init(params), batch)
  trainer._gradient = lambda *args, inner=trainer._gradient: inner(*args[:-1], np.float32(1))
  with pytest.raises(Exception, match=r"isallowed host-to-device transfer"):
    trainer.update(state, batch)


ON_MESHES = """
import json, sys
import jax, numpy as np
from jax.sharding import AxisType
sys.path.insert(0, {tests!r})
import test_trainer as t
from sml_jax import parallel
from sml_jax.learn.losses import Objective
from sml_jax.learn.trainer import Trainer
from sml_jax.sampling.engine import Engine
from sml_jax.sampling.session import Request, Session

assert jax.device_count() == 8
params = jax.jit(t.MODEL.init)(jax.random.key(0, impl="unsafe_rbg"))
params = jax.tree.map(np.asarray, params)
batch = t.pack_all(t.dialogues(), 14, packing=False)

def run(mesh, sizes):
  trainer = Trainer(t.MODEL, Objective("grpo"), t.adamw(), mesh)
  state = trainer.init(params)
  for _ in range(2):
    state, metrics = trainer.update(state, batch)
  said = None
  if sizes in ("one", "2x2x2"):
    engine = Engine(t.MODEL, rows=8, slots=64, max_turn=6, stop_ids=(5,), mesh=mesh)
    session, turns = Session(engine, engine.decode_params(state.params)), {{}}
    key = np.asarray(jax.random.key_data(jax.random.key(0)))
    for i in range(8):
      done = lambda turn, i=i: turns.__setitem__(i, turn)
      session.submit(Request(i, [1 + i, 2, 3], None, key, (i, 0, 1), 6, 1.0, done))
    while session.busy:
      session.tick()
    said = [turns[i].tokens for i in range(8)], np.concatenate([turns[i].logprobs for i in range(8)])
  leaves = [np.asarray(a) for a in jax.tree.leaves(state.params)]
  return leaves, float(metrics["loss"]), len(state.params["blocks"]["q"].sharding.device_set), said

one = run(jax.make_mesh((1, 1, 1), parallel.AXES, axis_types=(AxisType.Auto,) * 3, devices=jax.devices()[:1]), "one")
out = {{}}
for sizes in ((8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 1, 8)):
  name = "x".join(map(str, sizes))
  leaves, loss, devices, said = run(parallel.make_mesh(*sizes), name)
  out[name] = {{"params": max(float(np.abs(a - b).max()) for a, b in zip(one[0], leaves, strict=True)),
               "loss": abs(loss - one[1]), "devices": devices}}
  if said:
    out[name] |= {{"tokens": said[0] == one[3][0], "logprobs": float(np.abs(said[1] - one[3][1]).max())}}
print(json.dumps(out))
"""


def test_P11_any_mesh_of_eight_devices_gives_the_same_update():
  env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
  env["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # compiles faster
  code = ON_MESHES.format(tests=str(pathlib.Path(__file__).parent))
  done = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr[-2000:]
  out = json.loads(done.stdout.splitlines()[-1])
  assert set(out) == {"8x1x1", "1x8x1", "2x2x2", "1x1x8"}
  for name, found in out.items():
    assert found["devices"] == 8 and found["loss"] < 1e-5 and found["params"] < 1e-5, (name, found)
  assert out["2x2x2"]["tokens"] and out["2x2x2"]["logprobs"] < 1e-5  # sampled there as on one device
