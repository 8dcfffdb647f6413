import os
import pathlib
import subprocess
import sys
import time

import pytest

from sml_jax.errors import UserError
from sml_jax.tasks import sandbox as sandbox_module
from sml_jax.tasks.sandbox import BACKENDS, SAFE, Ended, Process, Sandbox, choose, works

BACKEND = [pytest.param(name, marks=pytest.mark.skipif(bool(works(name)), reason=f"{name}: {works(name)}"))
           for name in BACKENDS]
ISOLATED = [param for param in BACKEND if param.values[0] in SAFE]
ROOT = pathlib.Path(sandbox_module.__file__).parents[2]


def call(backend, code, *args, cpu_s=5, wall_s=20.0, memory_mb=512):
  """What f(*args) of the code answers in a process of its own."""
  with Process(backend, "submission", cpu_s, wall_s, memory_mb) as process:
    answer = process.ask({"op": "load", "prelude": "", "code": code})
    if "error" in answer:
      return answer
    return process.ask({"op": "call", "target": "f", "args": list(args), "kwargs": {}})


@pytest.mark.parametrize("backend", BACKEND)
def test_calls_functions_of_a_program_that_keeps_its_state(backend):
  code = "n = []\ndef f(x):\n  n.append(x)\n  return len(n), {'x': x}"
  with Process(backend, "submission", 5, 20.0, 512) as process:
    assert process.ask({"op": "load", "prelude": "", "code": code}) == {"value": None}
    ask = {"op": "call", "target": "f", "args": [7], "kwargs": {}}
    assert process.ask(ask) == {"value": {"t": [1, {"d": [["x", 7]]}]}}
    assert process.ask(ask)["value"]["t"][0] == 2
    assert process.ask({**ask, "target": "g"}) == {"error": ["NameError", "name 'g' is not defined", "NameError"]}


@pytest.mark.parametrize("backend", BACKEND)
def test_gives_an_honest_program_what_it_needs(backend):
  code = """
from __future__ import annotations
import sys, threading, random, math, collections, decimal, sqlite3, hashlib, zlib, datetime, asyncio, functools, heapq
import concurrent.futures, dataclasses, enum, json, statistics, typing, unicodedata, multiprocessing, subprocess, socket
@dataclasses.dataclass
class Point:
  x: int
@functools.lru_cache(None)
def down(n): return 0 if n == 0 else 1 + down(n - 1)
async def later(): return 5
def f(x):
  with concurrent.futures.ThreadPoolExecutor(32) as pool:
    together = threading.Barrier(32)
    squares = list(pool.map(lambda n: (n * n, together.wait())[0], range(32)))[:4]
  print('x' * 100000)
  sys.stderr.write('x' * 100000)
  data = sqlite3.connect(':memory:').execute('select 1 + 1').fetchone()[0]
  return [squares, Point(3).x, down(3000), asyncio.run(later()), data, hashlib.md5(b'a').hexdigest()[:4],
          len(str(2 ** 90000))]
if __name__ == "__main__":
  print(f(input()))
"""
  assert call(backend, code, 1) == {"value": [[0, 1, 4, 9], 3, 3000, 5, 2, "0cc1", 27093]}


@pytest.mark.parametrize("backend", BACKEND)
def test_is_the_same_in_every_run(backend):
  code = "import random\ndef f(): return [random.random(), hash('a'), list({'a', 'b', 'c', 'd'})]"
  assert call(backend, code) == call(backend, code)


@pytest.mark.parametrize("backend", BACKEND)
def test_a_deep_recursion_is_no_crash(backend):
  code = """
import sys
sys.setrecursionlimit(10 ** 6)
def f(n): return 0 if n == 0 else max(f(n - 1), n)
"""
  assert call(backend, code, 20000) == {"value": 20000}
  assert call(backend, "def f(): return f()")["error"][0] == "RecursionError"


@pytest.mark.parametrize("backend", BACKEND)
def test_ends_by_cpu_and_by_clock_and_by_memory(backend):
  with pytest.raises(Ended) as ended:
    call(backend, "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", cpu_s=1)
  assert (ended.value.kind, ended.value.wall, str(ended.value)) == ("timeout", False, "out of CPU time")
  start = time.monotonic()
  with pytest.raises(Ended) as ended:
    call(backend, "import time\ndef f(): time.sleep(1000)", wall_s=0.5)
  assert (ended.value.kind, ended.value.wall, ended.value.idle) == ("timeout", True, True)
  assert time.monotonic() - start < 10
  assert call(backend, "def f(): return len(bytearray(10 ** 10))") == {"error": ["MemoryError", "", "MemoryError"]}
  with pytest.raises(Ended) as ended:
    call(backend, "import ctypes\ndef f(): ctypes.string_at(0)")
  assert (ended.value.kind, str(ended.value)) == ("died", "it died of SIGSEGV")
  with pytest.raises(Ended) as ended:
    call(backend, "import os\ndef f(): os._exit(0)")
  assert (ended.value.kind, str(ended.value)) == ("died", "it left")


@pytest.mark.parametrize("backend", ISOLATED)
def test_what_can_be_seen_from_inside(backend):
  code = """
import os, socket
def f(paths):
  return [sorted(os.listdir('/')), os.getcwd(), os.listdir('.'), sorted(os.environ), os.getpid(), socket.gethostname(),
          [p for p in paths if os.path.exists(p)], os.getuid() in (0, None), os.listdir('/dev')]
"""
  hidden = [str(ROOT), str(ROOT / "sml_jax"), "/etc/passwd", "/etc/shadow", "/proc/self", "/sys/kernel", "/dev/shm",
            "/home", "/root/.ssh", "/usr/bin/env", "/var", "/old"]
  top, cwd, files, names, pid, host, found, root, devices = call(backend, code, hidden)["value"]
  allowed = {"dev", "etc", "lib", "lib64", "tmp", "usr", sandbox_module.PYTHON[0].split("/")[1]}
  assert set(top) <= allowed and (cwd, files, found) == ("/tmp", [], []) and (pid < 3, host, root) == (True, "sandbox",
      False)
  assert set(names) - {"LC_CTYPE", "PWD"} == set(sandbox_module.ENVIRONMENT)
  assert set(devices) == {"null", "zero", "full", "random", "urandom"}


@pytest.mark.parametrize("backend", ISOLATED)
def test_the_scratch_folder_is_writable_small_and_private(backend):
  code = """
import os, tempfile
def f():
  out = []
  with tempfile.TemporaryDirectory() as folder:
    open(folder + '/a', 'w').write('x')
    out.append(open(folder + '/a').read())
  for path in ('/a', '/usr/lib/a', '/dev/a', os.__file__, '/etc/a'):
    try: open(path, 'w'); out.append(path)
    except OSError: pass
  size = 0
  try:
    for i in range(100):
      with open(f'/tmp/{i}', 'wb', 0) as file:
        size += file.write(bytes(1 << 20))
  except OSError: pass
  files = 0
  try:
    while True: os.close(os.open(f'/tmp/e{files}', os.O_CREAT)); files += 1
  except OSError: pass
  return [out, size <= 16 << 20, files < 1100]
"""
  assert call(backend, code) == {"value": [["x"], True, True]}
  assert not os.path.exists("/tmp/e0")


@pytest.mark.parametrize("backend", ISOLATED)
def test_has_no_rights_left(backend):
  code = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def f():
  out = {}
  for name, call in (
      ('mount', lambda: libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None)),
      ('unshare', lambda: libc.unshare(0x10000000)),
      ('chroot', lambda: libc.chroot(b'/tmp')), ('setuid', lambda: libc.setuid(0)),
      ('ptrace', lambda: libc.ptrace(0, 0, 0, 0)),
      ('fork', lambda: libc.fork()), ('kill', lambda: libc.kill(-1, 9)),
      ('shmget', lambda: libc.shmget(0, 4096, 0o1600)),
      ('memfd', lambda: libc.memfd_create(b'x', 0)), ('vsock', lambda: libc.socket(40, 1, 0)),
      ('execve', lambda: libc.execve(b'/usr/lib/x', None, None)), ('sethostname', lambda: libc.sethostname(b'x', 1)),
      ('prlimit', lambda: libc.prlimit(2, 0, None, None)), ('x32', lambda: libc.syscall(0x40000000 + 39))):
    ctypes.set_errno(0)
    out[name] = (call(), ctypes.get_errno())
  return sorted(name for name, (value, code) in out.items() if value != -1 or code != 1)
"""
  assert call(backend, code) == {"value": []}


@pytest.mark.parametrize("backend", BACKEND)
def test_reaches_no_other_process(backend):
  """Signals by way of a descriptor's owner, priorities, and sockets for datagrams, which need no connection."""
  code = """
import asyncio, ctypes, fcntl, os, socket
def f(parent):
  out = []
  r, w = os.pipe()
  a, b = socket.socketpair()
  affinity = os.sched_getaffinity(0)
  for name, call in (
      ('owner', lambda: fcntl.fcntl(r, fcntl.F_SETOWN, parent)), ('signal', lambda: fcntl.fcntl(r, 10, 9)),
      ('owner_ex', lambda: fcntl.fcntl(r, 15, bytes(8))), ('ioctl', lambda: fcntl.ioctl(a, 0x8901, bytes(4))),
      ('ioctl too', lambda: fcntl.ioctl(a, 0x8902, bytes(4))), ('bind', lambda: b.bind('\\0x')),
      ('connect', lambda: b.connect('\\0x')), ('datagrams', lambda: socket.socketpair(type=socket.SOCK_DGRAM)),
      ('priority', lambda: os.setpriority(os.PRIO_PROCESS, parent, 19)),
      ('user', lambda: os.setpriority(os.PRIO_USER, 0, 19)),
      ('cores', lambda: os.sched_setaffinity(parent, affinity)),
      ('scheduler', lambda: os.sched_setscheduler(parent, os.SCHED_OTHER, os.sched_param(0)))):
    try: out.append((name, call()))
    except PermissionError: pass
  fcntl.fcntl(r, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
  a.send(b'x')
  return out, b.recv(1), asyncio.run(asyncio.sleep(0, 5))
"""
  assert call(backend, code, os.getpid()) == {"value": {"t": [[], {"b": "78"}, 5]}}


@pytest.mark.skipif(bool(works("rlimits")), reason=f"rlimits: {works('rlimits')}")
def test_without_walls_a_program_changes_no_file(tmp_path):
  path = tmp_path / "file"
  path.write_text("kept")
  path.chmod(0o666)
  for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
    folder.chmod(0o777)
  before = path.stat()
  code = """
import os
def f(folder):
  path, new, out = folder + '/file', folder + '/new', []
  for name, call in (
      ('w', lambda: open(path, 'w')), ('a', lambda: open(path, 'a')), ('r+', lambda: open(path, 'r+')),
      ('new', lambda: open(new, 'w')), ('shm', lambda: open('/dev/shm/sml_new', 'w')),
      ('truncating', lambda: os.open(path, os.O_RDONLY | os.O_TRUNC)),
      ('unnamed', lambda: os.open(folder, os.O_TMPFILE | os.O_RDWR)),
      ('truncate', lambda: os.truncate(path, 0)), ('unlink', lambda: os.unlink(path)),
      ('rename', lambda: os.rename(path, new)), ('link', lambda: os.link(path, new)),
      ('symlink', lambda: os.symlink(path, new)), ('mkdir', lambda: os.mkdir(new)), ('rmdir', lambda: os.rmdir(folder)),
      ('mkfifo', lambda: os.mkfifo(new)), ('chmod', lambda: os.chmod(path, 0)), ('utime', lambda: os.utime(path)),
      ('chown', lambda: os.chown(path, os.getuid(), -1)), ('xattr', lambda: os.setxattr(path, 'user.x', b'1'))):
    try: out.append((name, call()))
    except PermissionError: pass
  return [out, open(path).read()]
"""
  assert call("rlimits", code, str(tmp_path)) == {"value": [[], "kept"]}
  after = path.stat()
  assert (after.st_mode, after.st_mtime_ns, os.listdir(tmp_path)) == (before.st_mode, before.st_mtime_ns, ["file"])


@pytest.mark.skipif(bool(works("rlimits")), reason=f"rlimits: {works('rlimits')}")
def test_an_exception_ends_what_still_runs():
  pids, began = [], time.monotonic()

  def sleep(_):
    with sandbox.open() as process:
      process.ask({"op": "load", "prelude": "", "code": "import time\ndef f(): time.sleep(1000)"})
      pids.append(process._pid)
      process.ask({"op": "call", "target": "f", "args": [], "kwargs": {}})
  with pytest.raises(KeyboardInterrupt), Sandbox("rlimits", workers=1) as sandbox:
    futures = [sandbox._pool.submit(sleep, i) for i in range(3)]
    while not pids and time.monotonic() - began < 30:
      time.sleep(0.01)
    raise KeyboardInterrupt
  assert len(pids) == 1 and not running(pids[0]) and time.monotonic() - began < 30
  assert isinstance(futures[0].exception(), Ended) and all(future.cancelled() for future in futures[1:])


def test_the_python_of_another_user_can_be_the_parent_too():
  """Without root there is a user namespace, and the interpreter must be readable: this one's copy is made so."""
  if os.getuid() != 0 or works("namespaces"):
    pytest.skip("the tests are not run by root, or namespaces do not work: the other tests show the same, or cannot")
  if not os.access("/usr/bin/python3", os.X_OK):
    pytest.skip("no interpreter at /usr/bin/python3 that another user could run")
  version = subprocess.run(["/usr/bin/python3", "-c", "import sys; print(sys.version_info >= (3, 11))"],
                           capture_output=True, text=True)
  if "True" not in version.stdout:
    pytest.skip("/usr/bin/python3 is older than 3.11")
  script = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from sml_jax.tasks import sandbox, program
[sandbox.modules('judge'), sandbox.modules('submission'), __import__("_posixsubprocess"), __import__("encodings.idna")]
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for name in sandbox.SAFE:
  print(name, sandbox.works(name))
  if not sandbox.works(name):
    with sandbox.Sandbox(name, 2) as pool:
      problem = program.Problem("", "f", asserts=("assert f(1) == 2",))
      jobs = [(problem, "def f(x): return x + 1"), (problem, "def f(x): return x")]
      print([r.verdict for r in program.grade(pool, jobs)])
"""
  out = subprocess.run(["/usr/bin/python3", "-s", "-c", script], capture_output=True, text=True, timeout=120)
  assert "namespaces \n['passed', 'wrong']\n" in out.stdout, out.stdout + out.stderr[-2000:]


@pytest.mark.parametrize("backend", BACKEND)
def test_nothing_is_left_when_the_parent_is_killed(backend):
  script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from sml_jax.tasks.sandbox import Process
process = Process({backend!r}, "submission", 5, 60.0, 512)
process.ask({{"op": "load", "prelude": "", "code": "import time\\ndef f(): time.sleep(1000)"}})
print(process._pid, flush=True)
process.ask({{"op": "call", "target": "f", "args": [], "kwargs": {{}}}})
"""
  parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
  pid = int(parent.stdout.readline())
  children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
  time.sleep(0.5)  # the call is under way: the end of its input alone would not end it
  parent.kill()
  parent.wait()
  end = time.monotonic() + 10
  alive = lambda: [p for p in [str(pid), *children] if running(p)]
  while alive() and time.monotonic() < end:
    time.sleep(0.02)
  assert alive() == []


def running(pid):
  try:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
  except OSError:
    return False


def test_refuses_in_one_line_what_does_not_work(monkeypatch):
  with pytest.raises(UserError, match=r"unknown backend 'docker': expected one of auto, bubblewrap, namespaces"):
    choose("docker", 512)
  monkeypatch.setattr(sandbox_module, "works", lambda name, memory_mb: {
      "bubblewrap": "bwrap is not installed", "namespaces": "unshare: Operation not permitted", "rlimits": ""}[name])
  with pytest.raises(UserError) as refused:
    Sandbox("auto")
  assert str(refused.value) == (
      "no sandbox works here (bubblewrap: bwrap is not installed; namespaces: unshare: Operation not "
      "permitted); only backend=rlimits, by name, runs without isolation")
  assert choose("rlimits", 512) == "rlimits"
  monkeypatch.setattr(sandbox_module, "works", lambda name, memory_mb: "" if name == "namespaces" else "no")
  assert choose("auto", 512) == "namespaces"
  with pytest.raises(UserError, match="bubblewrap: no"):
    choose("bubblewrap", 512)


def test_the_probe_really_runs(monkeypatch):
  monkeypatch.setattr(sandbox_module, "PYTHON", ("/nonexistent/python",))
  assert "No such file" in works.__wrapped__("namespaces")
  monkeypatch.setattr(sandbox_module, "PYTHON", ("/bin/false",))
  assert works.__wrapped__("rlimits") != ""
  monkeypatch.setattr(sandbox_module.shutil, "which", lambda *a, **k: None)
  assert works.__wrapped__("bubblewrap") == "bwrap is not installed"
