"""Prompts are text files with placeholders in braces, such as {problem}; other braces are plain text.

A file of one's own may take the place of a shipped one (sml_jax/dialogue/prompts/NAME.txt) if it has the same
placeholders.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping

from etils import epath

from sml_jax.errors import UserError

SHIPPED = epath.resource_path("sml_jax") / "dialogue" / "prompts"
FIELDS: dict[str, frozenset[str]] = {
    "teacher": frozenset({"private", "problem", "words"}),
    "teacher_no_private": frozenset({"problem", "words"}),
    "teacher_code": frozenset({"private", "problem", "words"}),
    "user": frozenset({"revealed", "hidden"}),
    "judge_kind": frozenset({"problem", "turn"}),
    "question": frozenset({"attempt", "private"}),
}
"""The shipped prompts and their placeholders."""
PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@dataclasses.dataclass(frozen=True)
class Prompt:
  """A prompt as it was loaded.

  Attributes:
    text: of the file, with its placeholders.
    fields: names of the placeholders.
    hash: first 12 hexadecimal digits of the text's SHA-256: what a record names a prompt by.
  """

  text: str
  fields: frozenset[str]
  hash: str

  def fill(self, **values: object) -> str:
    """The text with a value for each placeholder; braces in a value stay as they are.

    Raises:
      TypeError: a value is missing, or has no placeholder.
    """
    if values.keys() != self.fields:
      raise TypeError(f"the prompt's fields are {sorted(self.fields)}, got {sorted(values)}")
    return PLACEHOLDER.sub(lambda found: str(values[found[1]]), self.text.strip())


def load(name_or_path: epath.PathLike, like: str = "") -> Prompt:
  """Loads a shipped prompt by its name, or a text file.

  Args:
    name_or_path: a key of FIELDS, or a path.
    like: the shipped prompt whose placeholders the file must have; "" = the one of the same name.

  Raises:
    UserError: there is no such file, or its placeholders are not those that are filled in.
  """
  shipped = str(name_or_path) in FIELDS
  path = SHIPPED / f"{name_or_path}.txt" if shipped else epath.Path(name_or_path)
  like = like or path.stem
  if like not in FIELDS:
    raise UserError(f"prompt {name_or_path}: expected one of {', '.join(FIELDS)}, or a file of one of these names")
  try:
    text = path.read_bytes().decode()
  except (OSError, UnicodeDecodeError) as e:
    why = e.strerror if isinstance(e, OSError) else "not UTF-8 text"
    raise UserError(f"prompt {path}: {why}; the shipped ones are {', '.join(FIELDS)}") from None
  found, known = set(PLACEHOLDER.findall(text)), FIELDS[like]
  for names, problem in ((found - known, "unknown placeholder"), (known - found, "missing placeholder")):
    if names:
      listed = ", ".join(f"{{{name}}}" for name in sorted(names))
      expected = ", ".join(f"{{{name}}}" for name in sorted(known))
      raise UserError(f"prompt {path}: {problem} {listed}; expected exactly {expected}")
  return Prompt(text, known, hashlib.sha256(text.encode()).hexdigest()[:12])


def numbered(shards: Mapping[int, str]) -> str:
  """Shards by id as the `user` prompt shows them."""
  return "\n".join(f"{n}: {text}" for n, text in shards.items()) or "(nothing)"
