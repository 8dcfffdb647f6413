"""Trains and samples the same on one device and on meshes of eight; prints what came out, one line of JSON a case.

A case: {"mesh": [data, fsdp, model], "lora": bool, "steps": [metrics of each], "parameters": largest difference to one
device's, and where it sampled "tokens" and "logprobs" [rows][tokens]}.
"""

from __future__ import annotations

import json

import jax
import numpy as np
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict

from sml_jax import parallel
from sml_jax.config import stage
from sml_jax.data.packing import pack_all
from sml_jax.learn.losses import Objective
from sml_jax.learn.optimizer import make_optimizer
from sml_jax.learn.trainer import Trainer
from sml_jax.models.lora import Lora
from sml_jax.models.transformer import Model, ModelConfig
from sml_jax.sampling.engine import Engine
from sml_jax.sampling.session import Request, Session

SHAPE = dict(vocab_size=48, d_model=16, layers=1, heads=4, kv_heads=2, head_dim=8, mlp_dim=24)
CASES = (  # mesh, with LoRA, objective, whether to sample
    ((1, 1, 1), False, "sft", True), ((8, 1, 1), False, "sft", False), ((1, 8, 1), False, "sft", False),
    ((1, 2, 4), False, "sft", True),  # fewer key-value heads than `model`
    ((1, 1, 1), True, "grpo", False), ((2, 2, 2), True, "grpo", False),
)  # fmt: skip
STEPS = 3


def mesh_of(*sizes: int) -> Mesh:
  devices = np.array(jax.devices()[: int(np.prod(sizes))]).reshape(sizes)
  return Mesh(devices, parallel.AXES, axis_types=(AxisType.Auto,) * 3)


def rows(count: int) -> list[dict]:
  rng, out = np.random.default_rng(0), []
  for _ in range(count):
    n = int(rng.integers(6, 24))
    w = (np.arange(n) >= 3).astype(np.float32)
    advantages = (w * rng.normal()).astype(np.float32)
    out.append({"tokens": rng.integers(1, 48, n).astype(np.int32), "weights": w, "advantages": advantages,
                "logprobs": -3.8 * w})  # fmt: skip
  return out


def case(mesh: Mesh, lora: bool, kind: str, sample: bool) -> tuple[dict, list[np.ndarray]]:
  """(what is printed, the parameters after it)."""
  model = Model(ModelConfig(**SHAPE, lora=Lora(2, 8.0) if lora else None), mesh)
  start = jax.device_put(initial(model), parallel.param_shardings(mesh, model.shapes))
  tx, _ = make_optimizer(ConfigDict(stage("sft").optimizer.to_dict() | {"total_steps": 10}))
  trainer = Trainer(model, Objective(kind, kl_coef=0.1 if kind == "grpo" else 0.0), tx, mesh, micro_batch_rows=8)
  batch, state, steps = pack_all(rows(13), 32), trainer.init(start), []
  for _ in range(STEPS):
    state, metrics = trainer.update(state, batch, start if kind == "grpo" else None)
    steps.append({name: float(value) for name, value in metrics.items()})
  params = trainer.whole(state.params)
  out = {"mesh": list(mesh.shape.values()), "lora": lora, "steps": steps}
  if sample:
    engine = Engine(model, rows=8, slots=64, max_turn=6, stop_ids=(47,), mesh=mesh)
    session, said = Session(engine, engine.decode_params(params)), {}
    key = np.asarray(jax.random.key_data(jax.random.key(7)))
    for row in range(8):
      done = lambda turn, row=row: said.__setitem__(row, turn)
      session.submit(Request(row, [1 + row // 2, 2, 3] * 8, None, key, (row, 1, 1), 6, 1.0, done, score=[4, 5]))
    while session.busy:
      session.tick()
    turns = [said[row] for row in range(8)]
    out |= {"tokens": [t.tokens for t in turns], "logprobs": [[*t.logprobs, t.nats] for t in turns]}
    out["shared"] = session.shared
  return out, [np.asarray(a) for a in jax.tree.leaves(params)]


def initial(model: Model):
  """The same on every mesh; NumPy's, since threefry takes long to compile."""
  rng = np.random.default_rng(1)
  return jax.tree.map(lambda a: 0.3 * rng.normal(size=a.shape).astype(a.dtype), model.shapes)


def main() -> None:
  alone = {}
  for sizes, lora, kind, sample in CASES:
    out, params = case(mesh_of(*sizes), lora, kind, sample)
    one = alone.setdefault(lora, params)
    out["parameters"] = max(float(np.abs(a - b).max()) for a, b in zip(params, one, strict=True))
    print(json.dumps(out), flush=True)


if __name__ == "__main__":
  main()
