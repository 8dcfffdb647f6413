"""What the user got wrong: one clear line, and the program leaves with exit code 1."""

from __future__ import annotations


class UserError(ValueError):
  """Bad input. Its text is one line that says where, what was expected, and what to do."""
