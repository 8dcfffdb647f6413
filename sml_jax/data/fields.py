"""Checks a line of a dialogue record against the type hints of `Dialogue` and `Turn`."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import types
import typing
from collections.abc import Callable

from sml_jax.dialogue.record import Turn

Fits = Callable[[typing.Any], bool]


def check_fields(fields: object, record: type, prefix: str = "") -> None:
  """Raises ValueError naming the first field that is missing, unknown, or not of its type.

  Args:
    fields: a decoded line of JSON.
    record: Dialogue or Turn, whose type hints are the schema.
    prefix: where in the line it stands, such as "turns[3].".
  """
  if not isinstance(fields, dict):
    raise ValueError(f"{prefix.rstrip('.') or 'line'}: not a JSON object")
  schema = _schema(record)
  for name, (_, required, _) in schema.items():
    if required and name not in fields:
      raise ValueError(f"{prefix}{name}: missing")
  for name, value in fields.items():
    if name not in schema:
      raise ValueError(f"{prefix}{name}: unknown field")
    hint, _, fits = schema[name]
    if hint == list[Turn] and isinstance(value, list):
      for i, turn in enumerate(value):
        check_fields(turn, Turn, f"turns[{i}].")
    elif not fits(value):
      raise ValueError(f"{prefix}{name}: {json.dumps(value)[:60]} is not {_spell(hint)}")


@functools.cache
def _schema(record: type) -> dict[str, tuple[typing.Any, bool, Fits]]:
  """Each field's type hint, whether it must be there, and whether a value fits it."""
  hints, missing = typing.get_type_hints(record), dataclasses.MISSING
  return {
      f.name: (hints[f.name], f.default is missing and f.default_factory is missing, _fits(hints[f.name]))
      for f in dataclasses.fields(record)
  }


def _fits(hint: typing.Any) -> Fits:
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin is typing.Literal:
    return lambda value: type(value) is str and value in args
  if origin in (types.UnionType, typing.Union):
    options = [_fits(a) for a in args]
    return lambda value: any(fits(value) for fits in options)
  accepted = {int, float} if float in (hint, *args) else {args[0] if origin is list else hint}
  if origin is list:
    return lambda value: type(value) is list and accepted.issuperset(map(type, value))
  return lambda value: type(value) in accepted


def _spell(hint: typing.Any) -> str:
  return hint.__name__ if type(hint) is type else re.sub(r"\w+\.", "", str(hint))
