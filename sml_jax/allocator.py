"""Settings of the allocator, for the CPU.

An update there frees and takes hundreds of MB. Left alone, glibc gives them back to the system and has them zeroed and
faulted in again, by pages of 4 KiB: that costs as much as computing.
"""

from __future__ import annotations

import os
import platform
import sys

TUNABLES = {
    "hugetlb": 1,  # huge pages
    "mmap_max": 0,  # large blocks come from the heap too,
    "trim_threshold": 2**36,  # which keeps what is freed,
    "arena_max": 1,  # and is the same for all threads
}
GLIBC_TUNABLES = ":".join(f"glibc.malloc.{name}={value}" for name, value in TUNABLES.items())


def restart_with_tunables() -> None:
  """Starts this process anew with GLIBC_TUNABLES set, which is read once, at the start; call it before any import.

  Does nothing where glibc is not the allocator, or GLIBC_TUNABLES is set already.
  """
  if sys.platform == "linux" and platform.libc_ver()[0] == "glibc" and "GLIBC_TUNABLES" not in os.environ:
    environment = os.environ | {"GLIBC_TUNABLES": GLIBC_TUNABLES}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
