"""A TPU slice that need not be there: what its name means, and its devices as the compiler sees them."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from sml_jax.errors import UserError
from sml_jax.learn.flops import device_peak

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")


ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # another process may be compiling too
    "TPU_SKIP_MDS_QUERY": "1",
    # What these two say has no effect; without them libtpu complains in the terminal.
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
}


@dataclasses.dataclass(frozen=True)
class Chip:
  """One kind of TPU, by its devices: a v5e, v5p or v6e chip is one device, a tpu7x chip two.

  Attributes:
    hbm: bytes that libtpu's compiler lets one program have of a device's memory.
    bandwidth: of a device's memory, bytes/s, as its maker states it.
    layouts: of a slice; () = three dimensions, whatever the compiler knows.
  """

  hbm: float
  bandwidth: float
  layouts: tuple[str, ...] = ()


CHIPS = {
    "v5e": Chip(15.75 * 2**30, 819e9, _FLAT),
    "v5p": Chip(95.74 * 2**30, 2765e9),
    "v6e": Chip(31.25 * 2**30, 1638e9, _FLAT),
    "tpu7x": Chip(94.75 * 2**30, 3690e9),
}
KNOWN = (f"known: v5e and v6e with {', '.join(_FLAT)}; v5p and tpu7x with AxBxC, such as 2x2x1 or 4x4x4; "
         "behind it *N for N slices, as in v6e:16x16*2")


@dataclasses.dataclass(frozen=True)
class Slice:
  """Attributes: name, as given; chip; slices and chips, how many; devices, of all slices."""

  name: str
  chip: Chip
  slices: int
  chips: int
  devices: tuple[Any, ...]

  @property
  def peak_flops(self) -> float:
    """FLOP/s of all devices at their best."""
    return len(self.devices) * device_peak(self.devices[0].device_kind)


def find(text: str) -> Slice:
  """The slice of a name such as "v5p:4x4x4", or of several as in "v6e:16x16*2".

  Raises:
    UserError: there is no such slice, or no compiler for it is installed.
  """
  match = re.fullmatch(r"(\w+):(\d+(?:x\d+)+)(?:\*(\d+))?", text)
  if not match or match[1] not in CHIPS:
    raise UserError(f"--plan={text}: no such slice; {KNOWN}")
  kind, layout, slices = match[1], match[2], int(match[3] or 1)
  sizes, chip = [int(n) for n in layout.split("x")], CHIPS[kind]
  if slices < 1 or (layout not in chip.layouts if chip.layouts else len(sizes) != 3):
    raise UserError(f"--plan={text}: no such slice; {KNOWN}")
  if importlib.util.find_spec("libtpu") is None:
    raise UserError('--plan compiles for TPUs with libtpu, which is not installed: pip install "jax[tpu]"')
  jax.config.update("jax_platforms", "cpu")  # nothing here may look for a TPU
  for name, value in ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  options = {"num_slices": slices} if slices > 1 else {}
  if layout == "1x1":
    options["chips_per_host_bounds"] = (1, 1, 1)  # a host has 2x2 chips unless it is said
  try:
    found = topologies.get_topology_desc(platform="tpu", topology_name=f"{kind}:{layout}", **options)
  except Exception as e:  # libtpu has its own kinds of errors
    raise UserError(f"--plan={text}: {str(e).splitlines()[0]}; {KNOWN}") from None
  devices = tuple(found.devices)
  return Slice(text, chip, slices, len({(getattr(d, "slice_index", 0), *d.coords) for d in devices}), devices)
