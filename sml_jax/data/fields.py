"""Checks a line of a dialogue record against the type hints of `Dialogue` and `Turn`."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing

from sml_jax.dialogue.record import Turn


def check_fields(fields: object, record: type, prefix: str = "") -> None:
  """Raises ValueError naming the first field that is missing, unknown, or not of its type.

  Args:
    fields: a decoded line of JSON.
    record: Dialogue or Turn, whose type hints are the schema.
    prefix: where in the line it stands, such as "turns[3].".
  """
  if not isinstance(fields, dict):
    raise ValueError(f"{prefix.rstrip('.') or 'line'}: not a JSON object")
  hints, required = _hints(record)
  if missing := required - fields.keys():
    raise ValueError(f"{prefix}{min(missing)}: missing")
  for name, value in fields.items():
    if name not in hints:
      raise ValueError(f"{prefix}{name}: unknown field")
    if hints[name] == list[Turn] and isinstance(value, list):
      for i, turn in enumerate(value):
        check_fields(turn, Turn, f"turns[{i}].")
    elif not _fits(value, hints[name]):
      raise ValueError(f"{prefix}{name}: {json.dumps(value)[:60]} is not {_spell(hints[name])}")


@functools.cache
def _hints(record: type) -> tuple[dict[str, typing.Any], set[str]]:
  missing = dataclasses.MISSING
  required = {f.name for f in dataclasses.fields(record) if f.default is missing and f.default_factory is missing}
  return typing.get_type_hints(record), required


def _fits(value: object, hint: typing.Any) -> bool:
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin is typing.Literal:
    return value in args
  if origin in (types.UnionType, typing.Union):
    return any(_fits(value, a) for a in args)
  if origin is list:
    # By the set of types, since a dialogue has hundreds of tokens and this is read for every one of them.
    return isinstance(value, list) and set(map(type, value)) <= _accepted(args[0])
  return type(value) in _accepted(hint)


def _accepted(hint: typing.Any) -> set[type]:
  return {int, float} if hint is float else {hint}


def _spell(hint: typing.Any) -> str:
  return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
