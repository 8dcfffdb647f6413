"""What a process does to itself before it runs code that nobody trusts. Linux only; standard library only.

`isolate(spec)` with the backend's name in it: "namespaces" builds the whole sandbox, "bubblewrap" finds itself in
one, "rlimits" has none; all three then drop their rights, set the resource limits and load the system call filter.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_NS, NEW_UTS, NEW_IPC, NEW_USER, NEW_PID, NEW_NET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
MOUNT_SETATTR = 442
MNT_DETACH = 2
AT_RECURSIVE = 0x8000
SET_PDEATHSIG, SET_SECCOMP, SET_NO_NEW_PRIVS = 1, 22, 38
FILTER = 2
NOBODY = 65534
SCRATCH = "/tmp"

# System calls that are refused, (x86_64, aarch64): new processes and programs, signals to and memory of others,
# sockets, namespaces and mounts, memory that no resource limit counts, and the kernel's larger unused surfaces.
REFUSED = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "kill": (62, 129),
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272), "socket": (41, 198),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "shmget": (29, 194), "shmat": (30, 196),
    "shmctl": (31, 195), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "io_setup": (206, 0), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "userfaultfd": (323, 282), "bpf": (321, 280), "perf_event_open": (298, 241),
    "fanotify_init": (300, 262), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "personality": (135, 92), "init_module": (175, 105), "finit_module": (313, 273), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "quotactl": (179, 60),
    "bind": (49, 200), "connect": (42, 203), "setpriority": (141, 140), "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setattr": (314, 274), "migrate_pages": (256, 238), "move_pages": (279, 239), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187), "semop": (65, 193),
    "semtimedop": (220, 192), "semctl": (66, 191), "mq_unlink": (241, 181),
}
# Where there are no walls, whatever changes a file or a folder, besides opening one for it.
CHANGES = {
    "creat": (85, None), "openat2": (437, 437), "truncate": (76, 45), "rename": (82, None), "renameat": (264, 38),
    "renameat2": (316, 276), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None),
    "unlinkat": (263, 35), "link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36),
    "mknod": (133, None), "mknodat": (259, 33), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53),
    "fchmodat2": (452, 452), "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5),
    "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "fremovexattr": (199, 16), "setxattrat": (463, 463), "removexattrat": (466, 466), "file_setattr": (469, 469),
}
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


def isolate(spec: dict) -> None:
  """Returns in the process that is to run the code, all rights gone. Raises OSError if the machine forbids a step.

  Args:
    spec: backend; uid to run as where this is root; cpu_s, memory_mb, scratch_mb; binds (paths to show read-only),
      hides (folders among them to show empty).
  """
  die_with_parent()
  if spec["backend"] == "namespaces":
    enter_namespaces(spec)
  elif spec["backend"] == "bubblewrap" and os.getuid() == 0:
    # If bwrap is killed, it may signal none but its own user's processes: one stays that, and takes the others along.
    go_on_as_child()
  if spec["backend"] != "rlimits":
    # Without a limit on inodes, empty files would take memory that the limit on size does not count.
    size = f"size={spec['scratch_mb']}m,nr_inodes=1024,mode=1777"
    mount("tmpfs", SCRATCH, "tmpfs", MS_NOSUID | MS_NODEV, size)
    os.chdir(SCRATCH)
  drop_rights(spec)
  die_with_parent()
  set_limits(spec)
  refuse_calls(spec["backend"] == "rlimits")


def die_with_parent() -> None:
  prctl(SET_PDEATHSIG, signal.SIGKILL)  # a change of user clears it


def prctl(option: int, first: int, second: int = 0) -> None:
  check(LIBC.prctl(option, *map(ctypes.c_ulong, (first, second, 0, 0))), "prctl")


def check(result: int, what: str) -> None:
  if result < 0:
    code = ctypes.get_errno()
    raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
  texts = [text.encode() or None for text in (source, target, kind)]
  check(LIBC.mount(*texts, ctypes.c_ulong(flags), data.encode() or None), f"mount {target}")


def enter_namespaces(spec: dict) -> None:
  """Goes on as process 1 of namespaces of its own, with a read-only root of nothing but `binds`."""
  uid, gid = os.getuid(), os.getgid()
  kinds = NEW_NS | NEW_UTS | NEW_IPC | NEW_PID | NEW_NET
  check(LIBC.unshare(kinds if uid == 0 else kinds | NEW_USER), "unshare")
  if uid != 0:
    for name, text in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {uid} 1"), ("gid_map", f"{NOBODY} {gid} 1")):
      with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
  name = b"sandbox"
  check(LIBC.sethostname(name, len(name)), "sethostname")
  mount("", "/", "", MS_REC | MS_PRIVATE)
  mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID, "size=1m,mode=755")
  os.mkdir("/tmp/old")
  check(LIBC.syscall(155 if MACHINES[os.uname().machine][0] == 0 else 41, b"/tmp", b"/tmp/old"), "pivot_root")
  os.chdir("/")
  for path in spec["binds"]:
    show(path)
  for path in spec["hides"]:
    mount("tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, "size=4k")
  os.mkdir(SCRATCH)
  check(LIBC.umount2(b"/old", MNT_DETACH), "umount")
  os.rmdir("/old")
  mount("", "/", "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID)
  go_on_as_child()  # the first child is process 1; when it ends, the kernel ends whatever else is in there


def go_on_as_child() -> None:
  """Returns in a child; this process waits for it and ends in the same way, as a shell would say it."""
  child = os.fork()
  if child:
    for fd in (0, 1):
      os.close(fd)
    status = os.waitpid(child, 0)[1]
    os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
  die_with_parent()


def show(path: str) -> None:
  """Binds /old/PATH read-only at PATH; a link is made again as a link."""
  os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
  old = "/old" + path
  if os.path.islink(old):
    os.symlink(os.readlink(old), path)
    return
  if os.path.isdir(old):
    os.makedirs(path, 0o755, exist_ok=True)
  else:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
  mount(old, path, "", MS_BIND | MS_REC)
  device = path.startswith("/dev/")
  attributes = struct.pack("4Q", MS_NOSUID if device else MS_RDONLY | MS_NOSUID | MS_NODEV, 0, 0, 0)
  check(LIBC.syscall(MOUNT_SETATTR, -100, path.encode(), AT_RECURSIVE, attributes, len(attributes)), "mount_setattr")


def drop_rights(spec: dict) -> None:
  """An unprivileged user without capabilities, for good."""
  if os.getuid() == 0 and (spec["backend"] != "rlimits" or readable_by_all(os.__file__)):
    os.setgroups([])
    for uid in (spec["uid"], NOBODY):  # a container may map few users
      try:
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        break
      except OSError:
        if uid == NOBODY:
          raise
  header, data = struct.pack("Ii", 0x20080522, 0), struct.pack("6I", *[0] * 6)
  check(LIBC.capset(header, data), "capset")
  prctl(SET_NO_NEW_PRIVS, 1)


def readable_by_all(path: str) -> bool:
  while path != "/":
    path = os.path.dirname(path)
    if not os.stat(path).st_mode & 0o001:
      return False
  return True


def set_limits(spec: dict) -> None:
  files = 0 if spec["backend"] == "rlimits" else spec["scratch_mb"] << 20
  stack = 128 << 20  # for deep recursion; the kernel keeps this much room below the main thread's stack
  limits = {"CPU": spec["cpu_s"], "AS": spec["memory_mb"] << 20, "FSIZE": files, "NOFILE": 64, "CORE": 0,
            "STACK": stack, "MEMLOCK": 0, "MSGQUEUE": 0}
  if spec["backend"] != "rlimits":  # there the user's other processes would be counted too
    limits["NPROC"] = 64
  for name, most in limits.items():
    what = getattr(resource, f"RLIMIT_{name}")
    hard = resource.getrlimit(what)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def refuse_calls(changes: bool) -> None:
  """Loads the filter: threads, but no processes; nothing of REFUSED, and of CHANGES if `changes`; no sockets but a
  connected pair; no signals to others by way of a descriptor's owner; no other architecture's numbers."""
  if os.uname().machine not in MACHINES or sys.maxsize < 1 << 32:
    raise OSError(f"no system call filter for {os.uname().machine}")
  column, arch = MACHINES[os.uname().machine]
  load = lambda offset: struct.pack("HBBI", 0x20, 0, 0, offset)
  equal = lambda value, skip: struct.pack("HBBI", 0x15, 0, skip, value)  # goes on if equal, else skips
  answer = lambda action: struct.pack("HBBI", 0x06, 0, 0, action)
  allow, kill, eperm, enosys = 0x7FFF0000, 0x80000000, 0x50001, 0x50026
  number, first = load(0), load(16)
  program = [load(4), equal(arch, 1), struct.pack("HBBI", 0x05, 0, 0, 1), answer(kill), number]
  if column == 0:  # the x32 numbers
    program += [struct.pack("HBBI", 0x35, 0, 1, 0x40000000), answer(eperm)]
  for numbers in [*REFUSED.values(), *(CHANGES.values() if changes else ())]:
    if numbers[column] is not None:
      program += [equal(numbers[column], 1), answer(eperm)]
  program += [equal(435, 1), answer(enosys)]  # clone3 hides its flags; the C library then falls back on clone
  clone, tgkill, prlimit = ((56, 234, 302), (220, 131, 261))[column]
  program += [equal(clone, 4), first, struct.pack("HBBI", 0x45, 1, 0, 0x10000), answer(eperm), answer(allow)]
  program += [equal(tgkill, 4), first, equal(os.getpid(), 1), answer(allow), answer(eperm)]
  program += [equal(prlimit, 4), first, equal(0, 1), answer(allow), answer(eperm)]
  fcntl, ioctl, socketpair, openat, opens = ((72, 16, 53, 257, 2), (25, 29, 199, 56, None))[column]
  for call, values in ((fcntl, (8, 10, 15)), (ioctl, (0x8901, 0x8902))):  # the owner, and the signal that it gets
    refused = [step for value in values for step in (equal(value, 1), answer(eperm))]
    program += [equal(call, len(refused) + 2), load(24), *refused, answer(allow)]
  # One for datagrams could be sent to any address.
  program += [equal(socketpair, 5), load(24), struct.pack("HBBI", 0x54, 0, 0, 0xF), equal(1, 1), answer(allow),
              answer(eperm)]
  for call, offset in ((openat, 32), (opens, 24)) if changes else ():
    if call is not None:
      writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | 0o20000000  # the last is O_TMPFILE without a folder
      program += [equal(call, 4), load(offset), struct.pack("HBBI", 0x45, 0, 1, writes), answer(eperm), answer(allow)]
  program += [answer(allow)]
  code = ctypes.create_string_buffer(b"".join(program))
  header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))
  prctl(SET_SECCOMP, FILTER, ctypes.addressof(header))
