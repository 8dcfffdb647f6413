"""The student of a config: its shape, its renderer, and the parameters that a stage begins with."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sml_jax import checkpoint, parallel
from sml_jax.dialogue.renderer import Renderer, make_renderer
from sml_jax.dialogue.served import PlainText
from sml_jax.errors import UserError
from sml_jax.models import families, lora, weights
from sml_jax.models.transformer import Model, ModelConfig, Params, parameter_count

RUNTIME = ("scan_layers", "remat", "attention")
"""Keys of `model` that say how it is computed, and not which model it is."""


def model_config(config: ConfigDict) -> tuple[str, ModelConfig]:
  """(family, shape) by model.checkpoint, else model.name, else the keys below; family is "" for the last.

  Raises:
    UserError: no such preset or folder, a checkpoint that is plainly another model than model.name, or keys that do not
      make a model.
  """
  m = config.model
  how = {key: m[key] for key in RUNTIME} | {key: jax.numpy.dtype(m[key]) for key in ("dtype", "param_dtype")}
  how["lora"] = lora.Lora(m.lora.rank, m.lora.alpha, tuple(m.lora.targets)) if m.lora.rank else None
  family, shape = families.preset(m.name) if m.name else ("", None)
  if m.checkpoint not in ("", "random"):
    family, found = families.read_shape(m.checkpoint)
    for field in ("layers", "d_model", "mlp_dim"):
      has, wanted = getattr(found, field), getattr(shape or found, field)
      if has != wanted:
        raise UserError(f"model.checkpoint: {m.checkpoint} has {field} {has}, but model.name {m.name} has {wanted}")
    shape = found
  if shape is None:
    own = {f.name for f in dataclasses.fields(ModelConfig)} & set(m) - set(how) - {"lora"}
    shape = ModelConfig(**{key: m[key] for key in own})
  return family, dataclasses.replace(shape, **how)


class Student:
  """One model with its renderer and mesh.

  Attributes:
    family: of its chat format and weight names; "" for the micro-world's.
    model, renderer, mesh.

  Raises:
    UserError: what the config names is not there or does not fit.
  """

  def __init__(self, config: ConfigDict, mesh: Mesh):
    self.config, self.mesh = config, mesh
    self.family, shape = model_config(config)
    folder = config.model.checkpoint if config.model.checkpoint != "random" else ""
    if self.family and not folder and not config.model.checkpoint:
      raise UserError(f"model.checkpoint: give the folder with {config.model.name}'s weights "
                      '(or "random" for random weights of its shape)')
    talk = {key: config.dialogue[key] for key in ("thinking", "enable_thinking")}
    file = config.tokenizer or folder
    # Random weights know no language, so the micro-world's will do.
    self.renderer: Renderer = make_renderer(file, self.family if file else "", **talk)
    self.model = Model(_with_vocabulary(shape, self.renderer, folder or "model.vocab_size"), mesh)

  def describe(self) -> str:
    """One line: how large the student is and what it runs on."""
    _, adapter = lora.split(self.model.shapes)
    size = f"{parameter_count(self.model.shapes) - parameter_count(adapter):,} parameters"
    if adapter:
      size += f", of which none is trained but an adapter of {parameter_count(adapter):,}"
    mesh = " x ".join(f"{axis} {size}" for axis, size in self.mesh.shape.items())
    return f"student: {size}; {self.mesh.devices.flat[0].device_kind}, mesh {mesh}"

  def initial_params(self, init: epath.PathLike, key: jax.Array, notify: checkpoint.Notify) -> Params:
    """The parameters that a stage begins with, on the mesh.

    Args:
      init: a folder of our checkpoints; "" for the weights that model.checkpoint has, or random ones.
      key: of random weights and fresh adapters.
      notify: is given one line where a checkpoint could not be read and an older one was taken.
    """
    if not init:
      return self._first(key)
    folder = epath.Path(init)
    _, params, meta = checkpoint.restore_params(folder, place=functools.partial(self._place, folder), notify=notify)
    if meta.get("tokenizer") not in (None, self.renderer.fingerprint):
      raise UserError(f"{folder}: was trained with another tokenizer than {self.renderer.file}")
    return params if not self.model.config.lora else lora.join(self._base, params)

  def _first(self, key: jax.Array) -> Params:
    if not self.model.config.lora:
      return self._weights(key)
    # Compiled, the weights that are not asked for are never made.
    adapter = jax.jit(lambda k: lora.split(self.model.init(k))[1], out_shardings=lora.split(self._shardings)[1])
    return lora.join(self._base, adapter(key))

  @functools.cached_property
  def _base(self) -> Params:
    """With LoRA: what all students of the run share, and so read once and the same for all."""
    return self._weights(jax.random.key(self.config.seed))

  def _weights(self, key: jax.Array) -> Params:
    if self.config.model.checkpoint not in ("", "random"):
      return weights.load(self.config.model.checkpoint, self.model.config, self.mesh)
    make = lambda key: lora.split(self.model.init(key))[0]
    return jax.jit(make, out_shardings=lora.split(self._shardings)[0])(key)

  @functools.cached_property
  def _shardings(self) -> Params:
    return parallel.param_shardings(self.mesh, self.model.shapes)

  def _place(self, folder: epath.Path, found: Any) -> Any:
    """The shardings of a checkpoint's parameters; raises UserError if they are not this student's."""
    wanted = lora.split(self.model.shapes)[1] if self.model.config.lora else self.model.shapes
    if jax.tree.structure(found) != jax.tree.structure(wanted):
      raise UserError(f"{folder}: holds another model than config.model (other parameters)")
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(wanted), strict=True):
      if tuple(a.shape) != b.shape:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        raise UserError(f"{folder}: {name} is {list(a.shape)}, but config.model makes it {list(b.shape)}")
    return parallel.param_shardings(self.mesh, wanted)


class ServedStudent:
  """The student that a server has: nothing to compute here."""

  model = None

  def __init__(self, config: ConfigDict):
    self.config, self.renderer = config, PlainText()

  def describe(self) -> str:
    api = self.config.student_api
    return f"student: {api.model} at {api.url}"

  def initial_params(self, init: epath.PathLike, key: jax.Array, notify: checkpoint.Notify) -> Params:
    return {}


def other_student(config: ConfigDict, folder: str, mesh: Mesh) -> Student:
  """Another checkpoint beside the student's, such as a stronger teacher. Raises UserError."""
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.model.update({"checkpoint": folder, "name": ""})
    config.model.lora.rank = 0
    config.tokenizer = ""
  return Student(config, mesh)


def _with_vocabulary(shape: ModelConfig, renderer: Renderer, where: str) -> ModelConfig:
  """The shape with as many ids as the tokenizer has; surplus ones of a padded vocabulary are never sampled."""
  size, pieces = shape.vocab_size or renderer.vocab_size, renderer.vocab_size
  if size < pieces:
    raise UserError(f"{renderer.file}: has {pieces} pieces, more than the {size} rows of the embedding ({where})")
  return dataclasses.replace(shape, vocab_size=size, usable_vocab=pieces)
