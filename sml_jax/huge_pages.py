"""Asks the allocator for huge pages.

On a CPU an update frees and takes hundreds of MB, and faulting them in by pages of 4 KiB costs as much as computing.
"""

from __future__ import annotations

import os
import platform
import sys


def restart_with_huge_pages() -> None:
  """Starts this process anew with glibc's tunable set, which is read once, at the start; call it before any import.

  Does nothing where glibc is not the allocator, or GLIBC_TUNABLES is set already.
  """
  if sys.platform == "linux" and platform.libc_ver()[0] == "glibc" and "GLIBC_TUNABLES" not in os.environ:
    environment = os.environ | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
