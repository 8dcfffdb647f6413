"""Programs that do not solve the problem and try to pass, or to do harm. f(x) is to be 7 x + 3; none computes it unless
it has found it where it should not have looked."""

import os
import pathlib
import secrets
import socket
import threading
import time

import pytest

from sml_jax.tasks import sandbox as sandbox_module
from sml_jax.tasks.program import Problem, grade
from sml_jax.tasks.sandbox import BACKENDS, SAFE, Sandbox, works

TOKEN = secrets.token_hex(8)
PROBLEM = Problem(
    "Seven times x and three.", "f", asserts=(
        "assert f(1) == 10", "assert abs(f(2) - 17) < 1e-6", "for x in range(3, 6):\n  assert f(x) == 7 * x + 3",
        "assert f(6) in [45]", "assert sorted([f(7)]) == [52]", "assert not f(8) != 59"),
    io_tests=({"args": [9], "expected": 66},))
RIGHT = "def f(x): return 7 * x + 3"
FORGE = """
import os, json, gc, sys
def nonce():
  for o in gc.get_objects():
    if type(o).__name__ == 'Channel': return o._nonce
def spray(line):
  for fd in range(64):
    try: os.write(fd, line)
    except OSError: pass
"""
EVIL = """
class Evil({base}):
  def __eq__(self, other): return True
  def __ne__(self, other): return False
  def __lt__(self, other): return True
  def __gt__(self, other): return True
  def __sub__(self, other): return self
  def __rsub__(self, other): return self
  def __abs__(self): return self
  def __hash__(self): return 0
  def __contains__(self, x): return True
  def __bool__(self): return True
  def __float__(self): return 17.0
  def __index__(self): return 17
  def __repr__(self): return '10'
def f(x): return Evil()
"""
PASS = '{"passed": true, "verdict": "passed", "report": null, "ready": true, "value": true}'


def forge(line, then="return 0"):
  return FORGE + f"def f(x):\n  spray({line})\n  {then}"


def syscall(call):
  return f"import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\ndef f(x):\n  {call}\n  return 0"


# To get a verdict; that depends on no backend.
VERDICT = {
    "exit at import": "import sys\nsys.exit(0)",
    "exit in f": "import sys\ndef f(x): sys.exit(0)",
    "os._exit at import": "import os\nos._exit(0)",
    "os._exit in f": "import os\ndef f(x): os._exit(0)",
    "quit": "def f(x): quit()",
    "SystemExit from a thread": """
import threading, os
threading.Thread(target=lambda: os._exit(0)).start()
def f(x): return 0""",
    "KeyboardInterrupt": "def f(x): raise KeyboardInterrupt",
    "GeneratorExit": "def f(x): raise GeneratorExit",
    "AssertionError": "def f(x): raise AssertionError",
    "StopIteration": "def f(x): raise StopIteration",
    "atexit": f"import atexit\natexit.register(lambda: print('{PASS}'))\ndef f(x): return 0",
    "abort": "import os\ndef f(x): os.abort()",
    "kills itself": "import signal\ndef f(x): signal.raise_signal(9)",
    "an exception whose text exits": """
import os
class E(Exception):
  def __str__(self): os._exit(0)
def f(x): raise E""",
    **{f"equal to all: {base}": EVIL.format(base=base) for base in (
        "object", "int", "str", "float", "list", "tuple", "dict", "set", "bytes", "complex", "BaseException")},
    "claims another class": EVIL.format(base="object").replace(
        "def f(", "Evil.__class__ = property(lambda self: int)\ndef f("),
    "mock.ANY": "from unittest.mock import ANY\ndef f(x): return ANY",
    "MagicMock": "from unittest.mock import MagicMock\ndef f(x): return MagicMock()",
    "NaN": "def f(x): return float('nan')",
    "infinity": "def f(x): return float('inf')",
    "None": "def f(x): return None",
    "True": "def f(x): return True",
    "all numbers": "import itertools\ndef f(x): return itertools.count()",
    "many numbers": "def f(x): return list(range(1000))",
    "a view of many numbers": "def f(x): return dict.fromkeys(range(1000)).keys()",
    "a difference of 0": """
class E:
  def __sub__(self, y): return 0
  __rsub__ = __add__ = __neg__ = __abs__ = __sub__
def f(x): return E()""",
    "a class": "class f:\n  def __init__(self, x): pass\n  def __eq__(self, other): return True",
    "prints a verdict": f"import sys\ndef f(x):\n  print('{PASS}'); print('{PASS}', file=sys.stderr); return 0",
    "writes a verdict to all descriptors": forge(f"b'{PASS}\\n'"),
    "writes a verdict that has the nonce": forge(
        "json.dumps({'nonce': nonce(), 'report': None, 'ok': True}).encode() + b'\\n'"),
    "answers twice": forge("json.dumps({'nonce': nonce(), 'value': 0}).encode() + b'\\n'"),
    "answers with an error of the executor": forge("json.dumps({'nonce': nonce(), 'fault': 'x'}).encode() + b'\\n'"),
    "answers in advance": FORGE + "spray(b'{\"value\": 10}\\n' * 9)\ndef f(x): return 0",
    "answers with a handle": forge("json.dumps({'nonce': nonce(), 'value': {'h': 0}}).encode() + b'\\n'",
        "os._exit(0)"),
    "answers with a strange handle": forge(
        "json.dumps({'nonce': nonce(), 'value': {'h': {'code': ''}}}).encode() + b'\\n'", "os._exit(0)"),
    "answers with no value": forge("json.dumps({'nonce': nonce(), 'value': {'x': 1}}).encode() + b'\\n'",
        "os._exit(0)"),
    "answers with a bad tuple": forge("json.dumps({'nonce': nonce(), 'value': {'t': 1}}).encode() + b'\\n'",
        "os._exit(0)"),
    "answers with brackets": forge("b'[' * 100000 + b'\\n'", "os._exit(0)"),
    "answers with deep brackets that have the nonce": forge(
        "b'{\"nonce\": \"%s\", \"value\": %s}\\n' % (nonce().encode(), b'[' * 900 + b']' * 900)", "os._exit(0)"),
    "answers with a long number": forge("b'{\"nonce\": 1, \"value\": ' + b'9' * 10 ** 6 + b'}\\n'"),
    "answers without an end": FORGE + "def f(x):\n  while True: spray(b'x' * 10000)",
    "closes all descriptors": "import os\ndef f(x): os.closerange(0, 64)",
    "answers with keys of one hash": forge(
        "json.dumps({'nonce': nonce(), 'value': {'d': [[{'i': hex(i * (2 ** 61 - 1))}, 0] for i in range(1, 60000)]}})"
        ".encode() + b'\\n'", "os._exit(0)"),
    "excepthook": "import sys, os\nsys.excepthook = lambda *a: os._exit(0)\ndef f(x): raise ValueError",
    "audit hook": "import sys, os\nsys.addaudithook(lambda *a: None)\ndef f(x): return 0",
    "settrace": """
import sys, threading
def trace(frame, event, arg):
  for name in frame.f_locals: frame.f_locals[name] = True
  return trace
sys.settrace(trace)
sys._getframe(1).f_trace = trace
def f(x): return 0""",
    "other builtins": """
import builtins
for n in ('isinstance', 'type', 'len', 'repr', 'compile', 'exec', 'getattr', 'eval'):
  setattr(builtins, n, lambda *a, **k: True)
def f(x): return 0""",
    "other json": """
import json, pickle, marshal
for m in (json, pickle, marshal):
  m.dumps = m.loads = lambda *a, **k: 'true'
def f(x): return 0""",
    "other encode": """
import sys
for n, m in list(sys.modules.items()):
  if n.startswith('sml_jax'):
    m.encode = lambda *a: True
    m.decode = lambda *a: True
def f(x): return 0""",
    "other modules": "import sys\nclass M:\n  def __getattr__(self, n): return lambda *a, **k: True\n"
                     "for n in list(sys.modules): sys.modules[n] = M()\ndef f(x): return 0",
    "frames": """
import sys, gc
def f(x):
  for known in (7 * k + 3 for k in (x,)): pass
  frame = sys._getframe()
  while frame:
    for name, value in list(frame.f_locals.items()):
      if 'expected' in name or 'test' in name: return known
    frame = frame.f_back
  return 0""",
    "objects": """
import gc
def f(x):
  texts = [str(o)[:10000] for o in gc.get_objects() if isinstance(o, (dict, list, tuple)) and len(o) < 50]
  return 7 * x + 3 if any(f'assert f({x})' in t for t in texts) else 0""",
    "a payload that unpickles": """
import os, pickle
class E:
  def __reduce__(self): return os.system, ('touch /tmp/TOKEN',)
def f(x): return pickle.dumps(E())""",
    "an object that unpickles": """
import os
class E:
  def __reduce__(self): return os._exit, (0,)
def f(x): return [E()]""",
}
# To use up the host, which the same limits stop in every backend.
EXHAUST = {
    "fork bomb in f": "import os\ndef f(x):\n  while True:\n    try: os.fork()\n    except OSError: pass",
    "multiprocessing": "import multiprocessing\ndef f(x):\n  multiprocessing.Process(target=print).start()\n  return 0",
    "memory": "def f(x):\n  a = []\n  while True: a.append(bytearray(10 ** 7))",
    "memory at import": "a = []\nwhile True: a.append('x' * 10 ** 6)",
    "memory by mmap": """
import mmap
keep = []
def f(x):
  while True:
    m = mmap.mmap(-1, 1 << 24); m.write(bytes(1 << 24)); keep.append(m)""",
    "memory by pipes": """
import os
def f(x):
  while True:
    r, w = os.pipe(); os.set_blocking(w, False); os.write(w, bytes(1 << 16))""",
    "prints for ever": "def f(x):\n  while True: print('x' * 10000)",
    "prints for ever to stderr": "import sys\nwhile True: sys.stderr.write('x' * 10000)",
    "reads for ever": "import sys\ndef f(x):\n  sys.stdin.read()\n  return int(input())",
    "sleeps": "import time\ndef f(x): time.sleep(10 ** 6)",
    "loops in a text": "class E(Exception):\n  def __str__(self):\n    while True: pass\ndef f(x): raise E",
    "a regular expression that hangs": "import re\ndef f(x): return re.match('(a*)*b', 'a' * 50)",
    "recursion": "def f(x): return f(x)",
    "recursion without a limit": "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(x): return max(f(x), 1)",
    "stack by ctypes": "import ctypes\n@ctypes.CFUNCTYPE(None)\ndef again(): again()\ndef f(x): again()",
    "writes to address 0": "import ctypes\ndef f(x): ctypes.memset(0, 1, 1)",
    "bad code object": "def f(x): pass\nf.__code__ = f.__code__.replace(co_code=b'd\\xff' * 9, co_consts=())",
    "deep list": "def f(x):\n  a = []\n  for _ in range(10 ** 5): a = [a]\n  return a",
    "cyclic list": "def f(x):\n  a = []\n  a.append(a)\n  return a",
    "long list": "def f(x): return [0] * 10 ** 7",
    "long text": "def f(x): return 'x' * 10 ** 8",
    "long int": "def f(x): return 10 ** 10 ** 6",
    "long fraction": "from fractions import Fraction\ndef f(x): return Fraction(3 ** 100000, 2 ** 100000)",
    "long decimal": "from decimal import Decimal\ndef f(x): return Decimal('1e999999999')",
    "surrogates": "def f(x): return '\\ud800' * 1000",
    "guesses the next": "n = [0]\ndef f(x):\n  n[0] += 1\n  return n[0]",
}
# To harm the host.
HARM = {
    "fork": "import os\ndef f(x):\n  if os.fork() == 0: return 7 * x + 3\n  return 0",
    "fork bomb": "import os\nwhile True:\n  try: os.fork()\n  except OSError: break\nraise SystemExit",
    "thread bomb": """
import threading, time
def f(x):
  while True:
    try: threading.Thread(target=time.sleep, args=(99,)).start()
    except RuntimeError: return 0""",
    "daemon": """
import os, time
def f(x):
  if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
      time.sleep(3)
      open('/tmp/TOKEN', 'w')
    os._exit(0)
  return 0""",
    "subprocess": "import subprocess\ndef f(x):\n  subprocess.run(['sleep', '99'])",
    "shell": f"import os\ndef f(x):\n  os.system('touch /tmp/{TOKEN}')\n  return 0",
    "posix_spawn": "import os, sys\ndef f(x): os.posix_spawn(sys.executable, ['x', '-c', 'while 1: pass'], {})",
    "vfork by ctypes": syscall("libc.syscall(58); libc.syscall(57)"),
    "a thread that outlives": """
import threading, time
threading.Thread(target=time.sleep, args=(1000,)).start()
def f(x): return 0""",
    "memory by memfd": """
import os
def f(x):
  while True:
    fd = os.memfd_create('x')
    os.write(fd, bytes(1 << 24))""",
    "memory by shm": syscall("[libc.shmget(0, 1 << 24, 0o1600) for _ in range(1000)]"),
    "memory by multiprocessing": """
from multiprocessing import shared_memory
def f(x):
  keep = [shared_memory.SharedMemory(create=True, size=1 << 24) for _ in range(10000)]""",
    "sleeps at import, deaf": "import time, signal\nfor s in range(1, 65):\n  try: signal.signal(s, signal.SIG_IGN)\n"
                              "  except (OSError, ValueError): pass\nwhile True: time.sleep(1000)",
    "kills its parent": "import os\ndef f(x):\n  os.kill(os.getppid() or 1, 9)\n  return 0",
    "kills all": "import os\ndef f(x):\n  os.kill(-1, 9)\n  return 0",
    "kills its group": "import os\ndef f(x):\n  os.killpg(0, 9)\n  return 0",
    "kills by ctypes": syscall("[libc.syscall(n, p, 9) for n in (62, 200) for p in (os.getppid(), -1, PARENT)]; "
                               "libc.syscall(234, PARENT, PARENT, 9)"),
    "limits its parent": syscall("libc.prlimit(PARENT, 0, ctypes.byref((ctypes.c_ulong * 2)(0, 0)), None)"),
    "traces its parent": syscall("libc.ptrace(16, PARENT, 0, 0)"),
    "bad system calls": syscall("[libc.syscall(n, 0, 0, 0, 0) for n in range(300, 460) if n not in (302, 318)]"),
    "network": "import socket\ndef f(x):\n  with socket.create_connection(('127.0.0.1', PORT), 2) as s:\n"
               "    return 7 * x + 3 if s.recv(5) == b'hello' else 0",
    "name service": "import socket\ndef f(x): return 7 * x + 3 if socket.getaddrinfo('example.com', 80) else 0",
    "listens": "import socket\ndef f(x):\n  s = socket.socket(); s.bind(('0.0.0.0', 0)); s.listen(); return 7 * x + 3",
    "abstract socket": """
import socket
def f(x):
  s = socket.socket(socket.AF_UNIX); s.bind('\\0TOKEN'); return 7 * x + 3""",
    "virtual machine socket": "import socket\ndef f(x):\n  s = socket.socket(socket.AF_VSOCK); return 7 * x + 3",
    "environment": "import os\ndef f(x): return 7 * x + 3 if 'SML_SECRET' in os.environ else 0",
    "arguments": "import sys\ndef f(x): return 7 * x + 3 if 'assert' in str(sys.argv + sys.orig_argv) else 0",
    "signals its parent by a pipe": """
import fcntl, os
def f(x):
  r, w = os.pipe()
  for call in (lambda: fcntl.fcntl(r, fcntl.F_SETOWN, PARENT), lambda: fcntl.fcntl(r, 10, 9),
               lambda: fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK), lambda: os.write(w, b'x')):
    try: call()
    except OSError: pass
  return 0""",
    "slows its parent down": syscall("libc.setpriority(0, PARENT, 19); libc.setpriority(2, os.getuid(), 19); "
                                     "libc.sched_setaffinity(PARENT, 8, ctypes.byref(ctypes.c_ulong(1)))"),
}
# What needs walls: the rlimits backend has none and does not promise to stop these.
NEEDS_WALLS = {
    "reads the project": "import os\ndef f(x): return 7 * x + 3 if os.path.exists(HERE) else 0",
    "imports the project": """
import os, sys
sys.path.append(ROOT)
def f(x):
  import sml_jax.tasks.program
  return 7 * x + 3""",
    "reads shadow": "def f(x): return 7 * x + 3 if open('/etc/shadow').read() else 0",
    "reads passwd": "def f(x): return 7 * x + 3 if open('/etc/passwd').read() else 0",
    "reads its parent's environment": """
def f(x): return 7 * x + 3 if b'PATH' in open('/proc/PARENT/environ', 'rb').read() else 0""",
    "reads its own memory map": "def f(x): return 7 * x + 3 if open('/proc/self/maps').read() else 0",
    "lists processes": "import os\ndef f(x): return 7 * x + 3 if os.listdir('/proc') else 0",
    "reads a disk": "import os\ndef f(x): return 7 * x + 3 if os.listdir('/sys/block') else 0",
    "writes to shm": f"def f(x):\n  open('/dev/shm/{TOKEN}', 'w').write('x')\n  return 7 * x + 3",
    "fills the disk": """
def f(x):
  for i in range(1000):
    open(f'/tmp/TOKEN{i}', 'wb').write(bytes(1 << 20))
  return 7 * x + 3""",
    "fills the table of files": """
import os
def f(x):
  for i in range(10 ** 5): os.close(os.open(f'/tmp/TOKEN{i}', os.O_CREAT))
  return 7 * x + 3""",
    "a file that is sparse": """
import os
def f(x):
  os.truncate(os.open('/tmp/TOKEN', os.O_CREAT | os.O_RDWR), 1 << 40)
  return 7 * x + 3""",
    "changes the library": "import os\ndef f(x):\n  open(os.__file__, 'a').write('1')\n  return 7 * x + 3",
    "makes a device": "import os\ndef f(x):\n  os.mknod('/tmp/d', 0o20666, os.makedev(1, 1)); return 7 * x + 3",
    "leaves the root": "import os\ndef f(x):\n  os.chroot('.'); return 7 * x + 3",
}
BACKEND = next((name for name in BACKENDS if not works(name)), BACKENDS[0])  # that runs all


class Host:
  """What the attacks would change."""

  def __init__(self):
    self.mounts = pathlib.Path("/proc/self/mounts").read_text()
    self.sessions = set()
    self.priority, self.cores = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)

  def left(self):
    """Processes of the sandboxes' sessions, dead ones that nobody reaped included, and children of this process."""
    out = []
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
      try:
        fields = path.read_text().rsplit(")", 1)[1].split()
      except OSError:
        continue
      if int(fields[3]) in self.sessions or int(fields[1]) == os.getpid():
        out.append(path.parent.name)
    return out


@pytest.fixture(scope="module", params=[
    pytest.param(name, marks=pytest.mark.skipif(bool(works(name)),
        reason=f"{name}: {works(name)}")) for name in BACKENDS])
def outcome(request):
  """(backend, verdicts of all attacks by name, the host afterwards)."""
  os.environ["SML_SECRET"] = "secret"
  host = Host()
  once = {**VERDICT, **EXHAUST} if request.param == BACKEND else {}
  attacks = {**once, **HARM, **(NEEDS_WALLS if request.param in SAFE else {})}
  with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as server:
    threading.Thread(target=greet, args=(server,), daemon=True).start()
    start = sandbox_module.subprocess.Popen

    def popen(*args, **kwargs):
      process = start(*args, **kwargs)
      host.sessions.add(process.pid)
      return process
    patch.setattr(sandbox_module.subprocess, "Popen", popen)
    words = {"TOKEN": TOKEN, "PARENT": str(os.getpid()), "PORT": str(server.getsockname()[1]), "HERE": repr(__file__),
             "ROOT": repr(str(pathlib.Path(sandbox_module.__file__).parents[2]))}
    codes = [RIGHT, *attacks.values(), RIGHT]
    for word, value in words.items():
      codes = [code.replace(word, value) for code in codes]
    began = time.monotonic()
    with Sandbox(request.param, workers=4, cpu_s=1, wall_s=4.0, memory_mb=256) as sandbox:
      first, *reports, last = grade(sandbox, [(PROBLEM, code) for code in codes])
    host.seconds = time.monotonic() - began
    server.shutdown(socket.SHUT_RDWR)
  del os.environ["SML_SECRET"]
  assert first.verdict == last.verdict == "passed", (first, last)
  return request.param, dict(zip(attacks, reports, strict=True)), host


def greet(server):
  try:
    while True:
      server.accept()[0].sendall(b"hello")
  except OSError:
    pass


@pytest.mark.parametrize("name", [*VERDICT, *EXHAUST, *HARM, *NEEDS_WALLS])
def test_an_attack_does_not_pass(outcome, name):
  backend, reports, _ = outcome
  if name not in reports:
    pytest.skip(f"{backend} does not promise to stop it" if name in NEEDS_WALLS else f"run in {BACKEND} alone")
  report = reports[name]
  assert report.verdict in ("wrong", "error", "timeout"), report
  assert report.total_tests == 7 and report.passed_tests <= (name in ("many numbers", "a view of many numbers")), report


def test_the_host_is_as_it_was(outcome):
  _, _, host = outcome
  assert len(host.sessions) > 30 and host.left() == []
  assert (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)) == (host.priority, host.cores)
  assert pathlib.Path("/proc/self/mounts").read_text() == host.mounts
  for folder in ("/tmp", "/dev/shm", "/var/tmp", "/"):
    assert [path for path in os.listdir(folder) if TOKEN in path] == []


JUDGED = Problem("", "f", asserts=tuple(
    f"for x in [{x}]:\n  {test}" for x in (1, 2) for test in (
        "assert abs(f(x) - (7 * x + 3)) < 1e-6", "assert f(x) == 7 * x + 3", "assert not f(x) != 7 * x + 3",
        "assert f(x) - (7 * x + 3) == 0", "assert -f(x) in {-7 * x - 3}", "assert {f(x)} == {7 * x + 3}",
        "assert f(x) >= 7 * x + 3 and f(x) <= 7 * x + 3")))
TEXT = Problem("", "f", asserts=("s = f(1)\nassert s.startswith('ab') and s.lower().count('b') == 7 and s.isdigit()",
                                 "assert f(2).issubset({1}) and 3 in f(2) and f(2).pop() == 3"))
STAND_IN = """
class E:
  def __getattr__(self, name): return lambda *args: 7 if name == 'count' else 3 if name == 'pop' else self
  def __iter__(self): return iter(range(10))
  def __contains__(self, x): return True
  def __len__(self): return 1
  def __getitem__(self, i): return True
def f(x): return E()
"""


SORTED = Problem("", "f", asserts=("xs = [3, 1, 2]\nr = f(xs)\nassert sorted(r) == sorted(xs)\n"
                                   "assert all(a <= b for a, b in zip(r, list(r)[1:]))",))
FICKLE = """
class E:
  def __init__(self, xs): self.left = [xs]
  def __iter__(self): return iter(self.left.pop() if self.left else [])
def f(xs): return E(xs)
"""


def test_no_object_gives_the_verdict_in_the_process_of_the_test():
  codes = [code for name, code in VERDICT.items() if name.startswith(("equal", "answers", "a difference", "a class",
      "mock"))]
  with Sandbox(BACKEND, cpu_s=2, wall_s=10.0) as sandbox:
    right, *wrong = grade(sandbox, [(JUDGED, RIGHT), (TEXT, STAND_IN), (SORTED, FICKLE),
                                    *((JUDGED, code) for code in codes)])
  assert right.verdict == "passed"
  for code, report in zip([STAND_IN, FICKLE, *codes], wrong, strict=True):
    assert report.passed_tests == 0 and report.verdict in ("wrong", "error"), (code, report)


def test_the_whole_is_quick(outcome):
  _, reports, host = outcome
  assert max(report.seconds for report in reports.values()) < 30 and host.seconds < 300


def test_a_test_that_shares_its_values_gives_nothing_away():
  """Changes of arguments reach the test only from functions that return None."""
  problem = Problem("", "f", asserts=(
      "def poly(cs, x): return sum(c * x ** i for i, c in enumerate(cs))\n"
      "cs = [-6, 3]\nassert abs(poly(cs, f(cs))) < 1e-6",
      "want = [1, 2]\nassert f(want) == want"))
  code = "def f(cs):\n  for i in range(len(cs)): cs[i] = 0\n  return {}"
  with Sandbox(BACKEND, workers=2) as sandbox:
    zeros, empties = grade(sandbox, [(problem, code.format("0")), (problem, code.format("cs"))])
  assert (zeros.verdict, zeros.passed_tests, empties.passed_tests) == ("wrong", 0, 0)
