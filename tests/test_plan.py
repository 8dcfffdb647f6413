"""Plans: the arithmetic by hand, and a few tiny models compiled for TPU slices that are not here."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sml_jax import command_line, config_check, parallel, plan, plan_memory, plan_report, tpu_slice
from sml_jax import config as c
from sml_jax.errors import UserError
from sml_jax.models.lora import Lora
from sml_jax.models.transformer import ModelConfig
from sml_jax.plan_memory import WORK, Moment, suggest, together

TESTS = Path(__file__).parent
CONFIG = f"--config={TESTS / 'tiny_plan.py'}"
GIB = 2**30

HLO = """\
ENTRY %main {
  %a = bf16[8,128]{1,0:T(8,128)(2,1)} all-gather(%x), dimensions={0}, metadata={op_name="jit(f)/all-gather(y)"}
  %b = (f32[8]{0}, f32[16]{0}) all-gather-start(%a), replica_groups={{0,1}}
  %c = f32[16]{0} all-gather-done(%b)
  %d = f32[16]{0} all-reduce(%c), to_apply=%add
  %all-reduce.7 = (f32[2]{0}, f32[2]{0}) all-reduce(%d, %d), to_apply=%add
  %e = f32[4]{0} reduce-scatter(f32[16]{0} %all-reduce.7), dimensions={0}
  %f = (f32[4]{0}, f32[4]{0}, u32[], u32[]) collective-permute-start(%e), source_target_pairs={{0,1}}
  %g = f32[4]{0} collective-permute-done(%f)
  ROOT %h = f32[4]{0} all-to-all(%g), dimensions={0}
}
"""


def test_collectives_are_counted_once_each():
  wanted = {"all-gather": 2, "all-reduce": 2, "reduce-scatter": 1, "collective-permute": 1, "all-to-all": 1}
  assert plan.collectives(HLO) == wanted and not plan.collectives("%x = f32[2] add(%all-reduce.7, %b)")


def test_a_donated_output_is_not_counted_again():
  sizes = {"argument": 100, "output": 60, "alias": 40, "temp": 7, "generated_code": 3}
  analysis = types.SimpleNamespace(**{f"{k}_size_in_bytes": v for k, v in sizes.items()})
  assert plan_memory.program_bytes(analysis) == 100 + 20 + 7 + 3


@pytest.mark.parametrize("message, gib", [
    ("RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (25.44G) exceeds "
     "available HBM (15.75G).", 25.44),
    ("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 1.50T of 15.75G "
     "hbm. Exceeded hbm capacity by 1.48T.", 1536),
    ("RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used 130.00M of 128.00M vmem.", None),
    ("INTERNAL: Mosaic failed to compile TPU kernel", None),
])  # fmt: skip
def test_what_the_compiler_says_of_too_much(message, gib):
  assert plan_memory.exhausted_bytes(message) == (gib and pytest.approx(gib * GIB))


def test_bytes_on_a_device_by_hand():
  mesh = AbstractMesh((2, 4, 2), parallel.AXES)
  array = lambda shape, dtype, *spec: jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, P(*spec)))
  tree = {"w": array((3, 8, 4), jnp.bfloat16, None, "fsdp", "model"), "rows": array((16,), jnp.int32, ("data", "fsdp"))}
  assert plan_memory.device_bytes(tree) == 3 * 2 * 2 * 2 + 2 * 4


SHAPE = ModelConfig(
    vocab_size=65_536, d_model=1024, layers=4, heads=8, kv_heads=4, head_dim=128, mlp_dim=4096, dtype=jnp.bfloat16
)
MESH = {"data": 1, "fsdp": 4, "model": 1}


def gradient(**parts: float) -> Moment:
  parts = {k.replace("_", " "): round(v * GIB) for k, v in parts.items()}
  return Moment("mt_rl gradient", "gradient", parts, "mt_rl", rows=32, length=1024)


def decode(**parts: float) -> Moment:
  return Moment("sample", "decode", {k.replace("_", " "): round(v * GIB) for k, v in parts.items()})


def offered(moments, hbm, c=SHAPE, mesh=MESH, slices=1, engine_rows=64, head_chunk=16_384):
  found = suggest(moments, hbm * GIB, c, mesh=mesh, slices=slices, engine_rows=engine_rows, head_chunk=head_chunk)
  reliefs = [s.relief for s in found]
  assert reliefs == sorted(reliefs, reverse=True)
  return {s.keys: [s.change(m).peak / GIB for m in moments] for s in found}


def test_fewer_rows_are_suggested_as_far_as_it_takes():
  """Of 40 GiB of work at 32 rows, 24 may stay: 16 rows have 20, but then the gradients (2) are there twice."""
  moments = [gradient(parameters=2, gradients=2, activations_and_temporaries=40)]
  found = offered(moments, 28)
  assert found["stages.mt_rl.micro_batch_rows=16"] == [26]
  assert next(iter(found)) == "stages.mt_rl.micro_batch_rows=16"
  # Below one row a device nothing can be cut: 4 rows have 5 GiB.
  assert offered(moments, 6)["stages.mt_rl.micro_batch_rows=4"] == [2 + 4 + 5]


def test_suggestions_by_hand_the_best_first():
  moments = [
      gradient(parameters=8, optimizer_state=16, gradients=8, activations_and_temporaries=4),
      decode(parameters=8, optimizer_state=16, decode_copy=10, caches=20),
  ]
  peaks = offered(moments, 40)
  assert peaks["engine_rows=16"] == [36, 8 + 16 + 10 + 5]  # 32 rows do not fit either
  assert peaks["model.param_dtype=bfloat16 (less exact updates)"] == [20, 42]
  assert peaks["twice the chips"] == [18, 4 + 8 + 10 + 10]  # with half of the rows on each
  assert peaks["mesh.model=2"] == [36, 49]
  assert peaks["model.lora.rank=16"] == [pytest.approx(8 + 24 * 0.02 + 4), pytest.approx(8 + 16 * 0.02 + 30)]
  # What a plan has already, or what cannot be, is not suggested.
  tuned = dataclasses.replace(SHAPE, lora=Lora(8, 16.0), param_dtype=jnp.bfloat16, kv_heads=2, remat="full")
  rest = offered(moments, 30, c=tuned, mesh={"data": 1, "fsdp": 4, "model": 2}, engine_rows=4)
  assert set(rest) == {"twice the chips"}  # fewer rows would free 3.5 GiB and take 8 for the second gradients


def test_the_first_suggestions_that_fit_together():
  moments = [gradient(parameters=8, optimizer_state=16, gradients=8, activations_and_temporaries=40)]
  found = suggest(moments, 30 * GIB, SHAPE, mesh=MESH, slices=1, engine_rows=4, head_chunk=16_384)
  assert [s.keys for s in found][:2] == ["twice the chips", "stages.mt_rl.micro_batch_rows=4"]
  n, after = together(found, moments, 30 * GIB)
  assert (n, after[0].peak) == (2, (4 + 8 + 2 * 4 + 20 / 8) * GIB)
  assert together(found, moments, 80 * GIB) == (0, moments)


def test_remat_and_the_head_by_hand():
  """8 rows of 1,024 tokens on each of 4 devices."""
  moments = [gradient(activations_and_temporaries=40)]
  kept = 4 * 8192 * (2 * 1024 + 2 * 16 * 128 + 8 * 128 + 3 * 4096) * 2
  logits = 2 * 4 * 8192 * (65_536 - 16_384)
  found = offered(moments, 10, head_chunk=0)
  assert found["model.remat=full"] == [pytest.approx(40 - kept / GIB)]
  assert found["model.head_chunk=16384"] == [pytest.approx(40 - logits / GIB)]
  assert "model.head_chunk=16384" not in offered(moments, 10)


def test_two_slices_keep_their_data_axis():
  moments = [gradient(parameters=40)]
  found = offered(moments, 10, mesh={"data": 8, "fsdp": 1, "model": 1}, slices=2)
  assert found["mesh.data=2 mesh.fsdp=-1"] == [10]
  rest = offered(moments, 10, mesh={"data": 2, "fsdp": 4, "model": 1}, slices=2)
  assert rest and not any("mesh.data" in keys for keys in rest)


def test_rows_of_the_memory_table_sum_to_the_peak():
  moments = [gradient(parameters=8, optimizer_state=16, gradients=8, activations_and_temporaries=4)]
  table = plan_report.memory_table([*moments, decode(parameters=8, caches=2.25)], 40 * GIB)
  columns = [list(c.cells) for c in table.columns]
  assert columns[0] == ["parameters", "optimizer state", "gradients", "caches", WORK, "peak", "of the device"]
  assert columns[1] == ["8.00", "16.00", "8.00", "", "4.00", "36.00", "90%"]
  assert columns[2] == ["8.00", "", "", "2.25", "", "10.25", "26%"]


def work_of(**changes) -> plan.Work:
  """What tiny_plan.py does on the one device there is."""
  config = command_line.load(str(TESTS / "tiny_plan.py"), [("mesh.model", "1")]).unlock()
  config.update_from_flattened_dict(changes)
  return plan.Work(config, parallel.make_mesh())


COUNT, SCALES = 1024 * 256 + 2 * (256 * 128 * (4 + 2 + 2 + 4) + 3 * 256 * 512) + 1280, 1280
COPY = 2 * (COUNT - SCALES) + 4 * SCALES
CACHES = 2 * 2 * 8 * 2 * 192 * 128 * 2 + (8 + 4) * 256 * 2  # 140 tokens take 192 slots; hidden states, four lanes' too


def moments_of(work: plan.Work) -> dict[str, dict[str, int]]:
  """By name, the parts that are not nothing; each program is said to take 1 GiB besides its arguments."""
  names = [f"{t.name} {step}" for t in work.training for step in t.jobs()] + list(work.rollout_jobs())
  moments = work.moments({name: plan.Program(0, GIB) for name in names})
  assert all(m.peak == sum(m.parts.values()) for m in moments)
  return {m.name: {k: v for k, v in m.parts.items() if v} for m in moments}


def test_moments_by_hand():
  """8 dialogues of 140 tokens: 8 rows of 256, two micro-batches of 4, whose gradients add up."""
  found = moments_of(work_of())
  state = {"parameters": 4 * COUNT, "optimizer state": 8 * COUNT + 2 * 4}
  batches = 2 * 4 * 256 * 6 * 4  # tokens, segments, positions, weights, advantages, log-probabilities
  assert found == {
      "mt_rl gradient": state | {"gradients": 8 * COUNT, WORK: GIB - 4 * COUNT + batches},
      "mt_rl update": state | {"gradients": 4 * COUNT, WORK: GIB},
      "decode copy": state | {"decode copy": COPY, WORK: GIB - COPY},
      "feed": state | {"decode copy": COPY, "caches": CACHES, WORK: GIB},
      "sample": state | {"decode copy": COPY, "caches": CACHES, WORK: GIB},
      "score": state | {"decode copy": COPY, "caches": CACHES, WORK: GIB},
  }
  found = moments_of(work_of(**{"stages.mt_rl.eval_every": 0}))
  assert "sample" in found and "score" not in found  # only an evaluation scores answers


def test_a_frozen_teacher_and_a_reference_are_more_copies():
  """The teacher reads 512 tokens and 3 times 12 of the student and 20 of its own, each with roles: 656, 768 slots."""
  changes = {"dialogue.teacher": "model", "stages.mt_rl.kl_coef": 0.1}
  whole = moments_of(work_of(**changes))
  assert whole["mt_rl update"]["frozen teacher"] == COPY and whole["mt_rl update"]["reference policy"] == 4 * COUNT
  more = 2 * 2 * 8 * 2 * 768 * 128 * 2 + (8 + 4) * 256 * 2
  assert whole["sample"]["caches"] == CACHES + more
  asked = moments_of(work_of(**changes, **{"dialogue.questioner": "student"}))  # who writes in the student's engine
  assert asked["sample"]["frozen teacher"] == COPY and asked["sample"]["caches"] == 2 * more - 4 * 256 * 2 + more
  # Below an adapter the weights of student, teacher and reference are the same, and the two write in one batch.
  adapted = moments_of(work_of(**changes, **{"model.lora.rank": 8}))
  adapter = 4 * 2 * 8 * (2 * (256 + 512) + 2 * (256 + 256) + 3 * (256 + 512))
  assert "frozen teacher" not in adapted["sample"] and adapted["sample"]["caches"] == 2 * more - 4 * 256 * 2
  assert adapted["mt_rl update"] == {
      "parameters": adapter, "frozen weights": 4 * COUNT, "optimizer state": 2 * adapter + 8,
      "reference policy": adapter, "gradients": adapter, WORK: GIB,
  }  # fmt: skip


def test_the_largest_stage_of_each_kind_is_planned():
  config = command_line.load(str(TESTS / "tiny_plan.py"), [("mesh.model", "1")]).unlock()
  stages = {name: c.stage("sft", data="a/b", **keys) for name, keys in (
      ("short", {"row_length": 64, "batch_rows": 32}), ("long", {"row_length": 256, "batch_rows": 32}),
      ("cut", {"row_length": 256, "batch_rows": 64, "micro_batch_rows": 8}))}  # fmt: skip
  config.stages = c.to_config(stages | {"mt_rl": config.stages.mt_rl})
  config = config_check.validate(config)
  work = plan.Work(config, parallel.make_mesh())
  assert [(t.name, t.rows, t.micro_batches) for t in work.training] == [("long", 32, 1), ("mt_rl", 4, 2)]


@pytest.mark.parametrize("name", [
    "v5litepod-8", "v7x:2x2x1", "v5e", "v5e:3x5", "v5e:2x2x2", "v5p:4x4", "v6e:4x4*0", "v6e:4x4*", "",
])  # fmt: skip
def test_a_slice_that_is_not_known_is_one_line(name):
  with pytest.raises(UserError) as e:
    tpu_slice.find(name)
  assert "\n" not in str(e.value) and f"--plan={name}: no such slice; known: v5e and v6e with 1x1, 2x2" in str(e.value)


def test_without_libtpu_it_says_what_to_install(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(UserError, match=r'which is not installed: pip install "jax\[tpu\]"$'):
    tpu_slice.find("v5e:2x4")


CASES = {
    "one": ["--plan=v5p:2x2x1", CONFIG],
    "lora": ["--plan=v6e:2x2", f"{CONFIG}:sft", "--config.model.lora.rank=8"],
    "slices": ["--plan=v5p:2x2x1*2", f"{CONFIG}:sft", "--config.mesh.data=2"],
    "large": ["--plan=v5e:1x1", f"{CONFIG}:sft", "--config.mesh.model=1", "--config.model.vocab_size=4194304",
              "--config.stages.base.batch_rows=2"],
    "mesh": ["--plan=v5p:2x2x1", CONFIG, "--config.mesh.model=3"],
    "data": ["--plan=v5p:2x2x1*2", CONFIG],
    "rows": ["--plan=v5p:2x2x1", CONFIG, "--config.engine_rows=7"],
    "chips": ["--plan=v5p:3x3x3", CONFIG],
}  # fmt: skip


@pytest.fixture(scope="module")
def plans() -> dict[str, dict]:
  if importlib.util.find_spec("libtpu") is None:
    pytest.skip('libtpu is not installed (pip install "jax[tpu]")')
  done = subprocess.run(
      [sys.executable, TESTS / "planned.py"], input=json.dumps(list(CASES.values())), capture_output=True, text=True,
      timeout=900, env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  return dict(zip(CASES, json.loads(done.stdout.splitlines()[-1]), strict=True))


def test_a_plan_that_fits(plans):
  one = plans["one"]
  assert one["code"] == 0, one["printed"]
  assert list(one["steps"]) == ["mt_rl gradient", "mt_rl update", "decode copy", "feed", "sample", "score"]
  for step in one["steps"].values():  # what we say that arguments take is what XLA gives them
    assert step["ours"] == pytest.approx(step["xla"], rel=0.01)
  for made in ("decode copy", "rows"):  # what we take for granted is what XLA makes of it
    ours, theirs = one[made]
    assert ours == theirs
  assert one["steps"]["mt_rl gradient"]["collectives"]["all-gather"] > 0
  for said in ("v5p:2x2x1: chips 4, devices 4 (1 a chip) with 95.74 GiB", "optimizer state", "all-gather", "at 40% MFU",
               "a dialogue: at most 140 tokens in 4 turns", "fits: score takes the most"):
    assert said in one["printed"]


def test_gradients_lie_as_the_parameters(plans):
  ours, theirs = plans["one"]["gradients"]
  assert ours == theirs


def test_a_plan_of_an_adapter(plans):
  lora = plans["lora"]
  assert lora["code"] == 0 and "an adapter of 77,824 is trained" in lora["printed"], lora["printed"]
  assert "frozen weights" in lora["printed"] and lora["gradients"][0] == lora["gradients"][1]
  # A share of the adapter and its two moments and gradient: its weights are 8 x 5,888 for each of 2 layers, f32.
  assert lora["steps"]["base update"]["ours"] < 4 * 4 * (2 * 8 * 5888) < lora["steps"]["base gradient"]["ours"]


def test_a_plan_of_two_slices(plans):
  two = plans["slices"]
  assert two["code"] == 0 and "chips 8, devices 8" in two["printed"] and "data 2 x fsdp 2 x model 2" in two["printed"]
  assert list(two["steps"]) == ["base gradient", "base update"]  # nothing of it samples
  assert two["steps"]["base gradient"]["collectives"]["all-reduce"] > 0


def test_a_plan_that_does_not_fit(plans):
  """A table of 4 GiB, two moments and a gradient as large, and logits: it says what would help."""
  large = plans["large"]
  assert large["code"] == 2, large["printed"]
  assert "does not fit: base gradient takes" in large["printed"] and "GiB a device" in large["printed"]
  helps = large["printed"].partition("what would help")[2]
  assert helps.index("model.head_chunk=16384") and "model.lora.rank=16" in helps and "micro_batch_rows=1" in helps


@pytest.mark.parametrize("case, line", [
    ("mesh", "error: mesh: data x fsdp x model = 1 x -1 x 3 does not make the 4 devices there are\n"),
    ("data", "error: mesh.data is 1: over 2 slices it must be a multiple of 2\n"),
    ("rows", "error: engine_rows is 7: it must be a multiple of the 2 devices along data and fsdp of the mesh\n"),
    ("chips", 'error: --plan=v5p:3x3x3: INVALID_ARGUMENT: Topology layout "v5p:3x3x3" is not divisible by'),
])  # fmt: skip
def test_a_plan_that_cannot_be(plans, case, line):
  assert plans[case]["code"] == 1 and plans[case]["printed"].startswith(line)


@pytest.mark.parametrize("change, key", [
    ({"student": "api"}, "student"), ({"dialogue.teacher_checkpoint": "x"}, "dialogue.teacher_checkpoint")
])  # fmt: skip
def test_what_cannot_be_planned_is_said_at_once(change, key):
  config = c.get_default()
  config.update_from_flattened_dict(change)
  with pytest.raises(UserError, match=f"^{re.escape(key)}: --plan knows"):
    plan.plan(config, "v5e:1x1")
