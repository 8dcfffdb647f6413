"""Checks a configuration against the table of config.py, and fills in what it leaves open."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from sml_jax import config as c
from sml_jax.config import ConfigError, Key


def validate(config: ConfigDict) -> ConfigDict:
  """A checked copy in which every key is present and every inherited value is filled in; no key can be added to it.

  Raises:
    ConfigError: an unknown key (with the nearest known name), a wrong type, a value out of range, a stage that
      names another one that does not come before it.
  """
  tree = complete(plain(config))
  _inherit(tree)
  for path, value in flatten(tree).items():
    _check_range(path, c.find_key(path, kinds(tree)), value)
  _check_model(tree)
  _check_stages(tree["stages"])
  _check_teacher(tree)
  _check_served(tree)
  stripped = tree["dialogue"]["thinking"] == "strip"
  for name, stage in tree["stages"].items():
    if stripped and stage.get("loss_norm") == "dialogue":
      raise ConfigError(f'stages.{name}.loss_norm: "dialogue" cannot count dialogues under dialogue.thinking="strip", '
                        "where each turn is a row of its own; choose token")
  return c.to_config(tree).lock()


def complete(tree: Mapping[str, Any]) -> dict[str, Any]:
  """Names and types checked, missing keys at their defaults; ranges, inheritance and references are left alone."""
  out = _fill({name: value for name, value in tree.items() if name != "stages"}, c.KEYS, "", extra="stages")
  out["stages"] = {}
  stages = tree.get("stages", {})
  if not isinstance(stages, Mapping):
    raise ConfigError(f"stages: expected stages by name, got {stages!r}")
  for name, stage in stages.items():
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):
      raise ConfigError(f"stages.{name}: a stage's name, which is also its folder's, has only letters, digits and _")
    if name == c.PRETRAINED:
      raise ConfigError(f"stages.{name}: this name stands for model.checkpoint before training; choose another")
    if not isinstance(stage, Mapping) or stage.get("kind") not in c.STAGE_KEYS:
      got = repr(stage["kind"]) if isinstance(stage, Mapping) and "kind" in stage else "none"
      raise ConfigError(f"stages.{name}.kind: expected one of {', '.join(c.STAGE_KEYS)}, got {got}")
    out["stages"][name] = _fill(stage, c.STAGE_KEYS[stage["kind"]], f"stages.{name}")
  return out


def coerce(path: str, key: Key, value: Any) -> Any:
  """The value in the key's type; an int passes for a float and a list for a tuple, nothing else is converted."""
  kind = type(key.default)
  if kind is tuple and isinstance(value, (tuple, list)):
    return tuple(_scalar(path, key.item, item, f"tuple of {key.item.__name__}", value) for item in value)
  return _scalar(path, kind, value, kind.__name__, value)


def plain(config: Any) -> Any:
  """A ConfigDict as nested dicts, keys in the order of assignment (a ConfigDict iterates them sorted)."""
  if isinstance(config, ConfigDict):
    return {name: plain(config[name]) for name in config._fields}
  if isinstance(config, Mapping):
    return {name: plain(value) for name, value in config.items()}
  return config


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """{"model.d_model": 96, ...} of nested dicts."""
  out = {}
  for name, value in tree.items():
    out.update(flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value})
  return out


def kinds(tree: Mapping[str, Any]) -> dict[str, str]:
  """Stage name -> kind, of a completed tree."""
  return {name: stage["kind"] for name, stage in tree["stages"].items()}


def _scalar(path: str, kind: type, value: Any, expected: str, whole: Any) -> Any:
  if kind is float and type(value) is int:
    return float(value)
  if type(value) is not kind:  # exact: a bool is not an int
    raise ConfigError(f"{path}: expected {expected}, got {whole!r}")
  return value


def _fill(tree: Mapping[str, Any], table: c.Table, where: str, extra: str = "") -> dict[str, Any]:
  for name in tree:
    if name not in table:
      raise c.unknown_key(where, name, [*table, extra] if extra else table)
  out = {}
  for name, node in table.items():
    path = f"{where}.{name}" if where else name
    if isinstance(node, Key):
      out[name] = coerce(path, node, tree.get(name, node.default))
    elif isinstance(sub := tree.get(name, {}), Mapping):
      out[name] = _fill(sub, node, path)
    else:
      raise ConfigError(f"{path}: is a table of keys ({', '.join(node)}), got {sub!r}")
  return out


def _inherit(tree: dict[str, Any]) -> None:
  # Stages come last in the tree, so that what they inherit is itself already filled in.
  for path, value in flatten(tree).items():
    key = c.find_key(path, kinds(tree))
    if key.inherit and value == key.default:
      _set(tree, path, _get(tree, key.inherit))


def _get(tree: Mapping[str, Any], path: str) -> Any:
  for name in path.split("."):
    tree = tree[name]
  return tree


def _set(tree: dict[str, Any], path: str, value: Any) -> None:
  parent, _, name = path.rpartition(".")
  (_get(tree, parent) if parent else tree)[name] = value


def _check_range(path: str, key: Key, value: Any) -> None:
  for item in value if isinstance(value, tuple) else (value,):
    if key.choices and item not in key.choices:
      raise ConfigError(f"{path}: expected one of {', '.join(key.choices)}, got {item!r}")
    wanted = [f"at least {key.low:g}"] if key.low is not None else []
    wanted += [f"above {key.above:g}"] if key.above is not None else []
    wanted += [f"at most {key.high:g}"] if key.high is not None else []
    # Written so that a nan fails too.
    inside = not wanted or (
        (key.low is None or item >= key.low)
        and (key.above is None or item > key.above)
        and (key.high is None or item <= key.high))
    if not inside:
      raise ConfigError(f"{path}: expected {' and '.join(wanted)}, got {item!r}")


def _check_model(tree: Mapping[str, Any]) -> None:
  model = tree["model"]
  if model["checkpoint"] == "random" and not model["name"]:
    raise ConfigError('model.checkpoint: "random" needs model.name, whose shape the weights have')
  if model["heads"] % model["kv_heads"]:
    raise ConfigError(f"model.heads: expected a multiple of kv_heads ({model['kv_heads']}), got {model['heads']}")
  if model["head_dim"] % 2:
    raise ConfigError(f"model.head_dim: expected an even number, got {model['head_dim']}")
  if tree["dialogue"]["max_length"] > model["max_length"]:
    raise ConfigError(f"dialogue.max_length: expected at most model.max_length ({model['max_length']}), "
                      f"got {tree['dialogue']['max_length']}")
  if list(tree["mesh"].values()).count(-1) > 1 or 0 in tree["mesh"].values():
    raise ConfigError(f"mesh: expected numbers of devices, at most one of them -1, got {tree['mesh']}")


def _check_teacher(tree: Mapping[str, Any]) -> None:
  d, model = tree["dialogue"], tree["model"]
  if d["teacher"] == "model" and not d["teacher_checkpoint"]:
    if tree["student"] == "api":
      raise ConfigError('dialogue.teacher: "model" beside student="api" needs dialogue.teacher_checkpoint')
    if not model["checkpoint"] and not model["name"]:  # a name alone can be planned
      raise ConfigError('dialogue.teacher: "model" needs model.checkpoint, whose weights speak for the teacher, or '
                        "dialogue.teacher_checkpoint")
  if d["teacher_checkpoint"] and d["teacher"] != "model" and d["kinds"] != "model":
    raise ConfigError(f'dialogue.teacher_checkpoint: nobody reads it with dialogue.teacher="{d["teacher"]}"')


def _check_served(tree: Mapping[str, Any]) -> None:
  """A student that a server has can be evaluated, and nothing else."""
  if tree["student"] != "api":
    return
  if tree["dialogue"]["teacher"] == "model" or tree["dialogue"]["kinds"] == "model":
    raise ConfigError('student: "api" has no engine beside which a model could teach or judge; choose api or scripted')
  for name, stage in tree["stages"].items():
    if stage["kind"] != "evaluate":
      raise ConfigError(f'stages.{name}.kind: student="api" can be evaluated alone, got {stage["kind"]}')
    if tuple(stage["arms"]) != (c.PRETRAINED,):
      raise ConfigError(f'stages.{name}.arms: student="api" is the one arm "{c.PRETRAINED}", got {stage["arms"]!r}')


def _check_stages(stages: Mapping[str, Any]) -> None:
  earlier: dict[str, str] = {}
  for name, stage in stages.items():
    path = f"stages.{name}"
    for sub, value in flatten(stage).items():
      if allowed := c.find_key(f"{path}.{sub}", {name: stage["kind"]}).stages:
        for other in value if isinstance(value, tuple) else (value,):
          known = [n for n, kind in earlier.items() if kind in allowed]
          _check_reference(f"{path}.{sub}", other, known + [c.PRETRAINED] * ("sft" in allowed))
    if stage["kind"] == "sft" and not stage["data"]:
      raise ConfigError(f"{path}.data: name the synthesize stage, or the folder, whose dialogues are trained on")
    if stage["kind"] == "evaluate":
      _check_comparisons(path, stage)
      if 0 < stage["tries"] < stage["turns"]:
        raise ConfigError(f"{path}.tries: expected 0, or at least as many as turns ({stage['turns']}), with which "
                          f"success by turn is compared, got {stage['tries']}")
      if stage["modes"] and not any("_sharded" in name for name in stage["suites"]):
        raise ConfigError(f"{path}.modes: tell underspecified tasks; no suite is one, such as "
                          "lost_in_conversation_sharded")
    earlier[name] = stage["kind"]


def _check_reference(path: str, name: str, known: list[str]) -> None:
  if name and "/" not in name and name not in known:
    raise ConfigError(f"{path}: {name!r} is no stage before this one that could be used here "
                      f"({', '.join(known) or 'there is none'}), nor a folder (which has a /)")


def _check_comparisons(path: str, stage: Mapping[str, Any]) -> None:
  arms = stage["arms"]
  if not arms:
    raise ConfigError(f"{path}.arms: name at least one stage or checkpoint folder")
  for text in stage["comparisons"]:
    left, _, right = text.rpartition("-")
    arm, _, feedback = left.partition(":")
    good = arm in arms and right in c.FEEDBACK and feedback in c.FEEDBACK if feedback else (
        left in arms and right in (*arms, "resampling"))
    if not good:
      raise ConfigError(f"{path}.comparisons: expected ARM_B-ARM_A, ARM-resampling or ARM:full-try_again "
                        f"with arms from ({', '.join(arms)}), got {text!r}")
