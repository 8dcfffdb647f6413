"""From the command line to a checked configuration: --config=FILE[:ARG] --config.KEY=VALUE ..."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import traceback
from typing import Any

from ml_collections import ConfigDict

from sml_jax import config as c
from sml_jax import config_check
from sml_jax.config import ConfigError, Key


def split_argv(argv: list[str]) -> tuple[str, list[tuple[str, str]], list[str]]:
  """(config file, [(dotted key, value as text)], the arguments that are not about the config).

  Raises:
    ConfigError: an argument about the config without a value.
  """
  file, overrides, rest = "", [], []
  arguments = iter(argv)
  for argument in arguments:
    match = re.fullmatch(r"--?config((?:\.[^=]+)?)(?:=(.*))?", argument, re.DOTALL)
    if not match:
      rest.append(argument)
      continue
    key, value = match[1][1:], match[2]
    if value is None:
      value = next(arguments, None)
      if value is None or value.startswith("--"):
        raise ConfigError(f"{argument}: has no value; write {argument}=VALUE")
    if key:
      overrides.append((key, value))
    else:
      file = value
  return file, overrides, rest


def load(file: str, overrides: list[tuple[str, str]] = ()) -> ConfigDict:
  """Runs `get_config()` of a file ("path.py", or "path.py:arg" to call it with arg), applies overrides, validates.

  Raises:
    ConfigError: in one line, whatever is wrong with the file, a key or a value.
  """
  tree = config_check.complete(config_check.plain(_get_config(file)))
  for path, text in overrides:
    _override(tree, path, text)
  return config_check.validate(c.to_config(tree))


def show_sharding(rest: list[str]) -> int | None:
  """The number of devices that --show_sharding[=DEVICES] names, 0 = those there are; None without the argument."""
  found = [a.partition("=")[2] for a in rest if a.partition("=")[0] == "--show_sharding"]
  if not found:
    return None
  if len(rest) > 1 or not (found[0] or "1").isdecimal() or "--show_sharding=" in rest:
    raise ConfigError(f"--show_sharding[=DEVICES] stands alone beside --config, got {' '.join(rest)}")
  return int(found[0] or 0)


def workdir(rest: list[str]) -> str:
  folder = ""
  for argument in rest:
    if not argument.startswith("--workdir="):
      raise ConfigError(f"unknown argument {argument!r}; known: --config=FILE, --config.KEY=VALUE, --workdir=DIR, "
                      "--plan=SLICE, --show_sharding, --help")
    folder = argument.removeprefix("--workdir=")
  if not folder:
    raise ConfigError("no --workdir=DIR: where the run's files go")
  return folder


def slice_to_plan(rest: list[str]) -> str:
  """The slice that --plan=SLICE names, which stands alone beside the config; "" without the argument."""
  found = [a.removeprefix("--plan=") for a in rest if a.startswith("--plan=")]
  if found and len(rest) > 1:
    raise ConfigError(f"--plan=SLICE stands alone beside --config, got {' '.join(rest)}")
  return found[0] if found else ""


def parse(path: str, key: Key, text: str) -> Any:
  """The value that a text on the command line means for a key, by the key's type.

  Raises:
    ConfigError: the text is not of that type.
  """
  kind = type(key.default)
  if kind is str:
    return text
  if kind is bool:
    if text.lower() not in ("true", "false", "1", "0"):
      raise ConfigError(f"{path}: expected bool, got {text!r}")
    return text.lower() in ("true", "1")
  try:
    value = float(text) if kind is float else ast.literal_eval(text)
  except (ValueError, SyntaxError):
    # Unquoted names, as in --config.tasks.domains=math,code.
    value = tuple(x for x in text.split(",") if x) if kind is tuple and key.item is str else text
  if kind is tuple and type(value) is key.item:
    value = (value,)
  return config_check.coerce(path, key, value)


def _override(tree: dict[str, Any], path: str, text: str) -> None:
  node, names = tree, path.split(".")
  for i, name in enumerate(names):
    where = ".".join(names[:i])
    if not isinstance(node, dict):
      raise ConfigError(f"{path}: no such key; {where} is a value and not a table of keys")
    if name not in node:
      raise c.unknown_key(where, name, node)
    parent, node = node, node[name]
  if isinstance(node, dict):
    raise ConfigError(f"{path}: is a table of keys; set one of them ({', '.join(node)})")
  if names[-1] == "kind" and names[0] == "stages":
    raise ConfigError(f"{path}: a stage's kind decides its keys; change it in the config file")
  parent[names[-1]] = parse(path, c.find_key(path, config_check.kinds(tree)), text)


def _get_config(file: str) -> ConfigDict:
  path, _, argument = file.partition(":")
  if not path:
    raise ConfigError("no config file; write --config=configs/NAME.py")
  spec = importlib.util.spec_from_file_location("sml_jax_user_config", os.path.abspath(path))
  if spec is None or spec.loader is None:
    raise ConfigError(f"--config={file}: expected a Python file (.py)")
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    config = module.get_config(argument) if ":" in file else module.get_config()
  except ConfigError as e:
    raise ConfigError(f"{_place(e, path)}: {e}") from None
  except FileNotFoundError as e:
    if e.filename != os.path.abspath(path):
      raise ConfigError(f"{_place(e, path)}: {e}") from e
    raise ConfigError(f"--config={file}: there is no such file") from None
  except Exception as e:
    raise ConfigError(f"{_place(e, path)}: {_one_line(e)}") from e
  if not isinstance(config, ConfigDict):
    raise ConfigError(f"{path}: get_config() must return a ConfigDict, got {type(config).__name__}")
  return config


def _place(error: BaseException, path: str) -> str:
  """path:line of the innermost frame that is in the config file."""
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == os.path.abspath(path)]
  return f"{path}:{lines[-1]}" if lines else path


def _one_line(error: Exception) -> str:
  # What a ConfigDict says of a missing attribute is its quoted name, and sometimes a second line with a guess.
  missing = re.match(r"\W*(\w+)\W*(?:$|n?Did you mean)", str(error))
  if isinstance(error, AttributeError) and missing:
    return f"no such key {missing[1]!r}; {c.nearest(missing[1], c.KEYS)}"
  return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
