import gzip
import json
import math
import pathlib
import re
import time

import pytest

from sml_jax.errors import UserError
from sml_jax.tasks import program as program_module
from sml_jax.tasks.cases import Case, near
from sml_jax.tasks.program import Failure, Problem, extract_code, grade
from sml_jax.tasks.sandbox import BACKENDS, Ended, Sandbox, works
from sml_jax.tasks.sandbox_values import Iterated, decode, encode

DATA = pathlib.Path(__file__).parents[2] / "../shared/data"
BACKEND = next((name for name in BACKENDS if not works(name)), None)
pytestmark = pytest.mark.skipif(BACKEND is None, reason="no backend works here")


@pytest.fixture(scope="module")
def sandbox():
  with Sandbox(BACKEND, cpu_s=5, wall_s=30.0) as s:
    yield s


def one(sandbox, code, *asserts, entry="f", **more):
  return grade(sandbox, [(Problem(more.pop("prompt", ""), entry, asserts=asserts, **more), code)])[0]


def no_handle(value):
  raise TypeError


# Cases that are decided here: (assert, a value that passes, one that fails).
@pytest.mark.parametrize("text, right, wrong", [
    ("f(2, [3]) == 5", 5, 6), ("f(2, [3]) == 5", 5.0, None), ("5 == f(1)", 5, 4), ("f(1) == (1, 2)", (1, 2), [1, 2]),
    ("f(1) == [1.5]", [1.5], [1.5 + 1e-12]), ("f(1) == 1", True, "1"), ("f(1) is True", True, 1),
    ("f(1) is None", None, 0), ("f(1) is not None", 0, None), ("not f(1)", [], [0]), ("f(1)", "x", ""),
    ("abs(f(1) - 2.5) < 1e-6", 2.5000001, 2.51), ("abs(f(1) - 2.5) <= 10 ** -6", 2.5, math.nan),
    ("math.isclose(f(1), 3, rel_tol=0.1)", 3.1, 4), ("math.fabs(f(1)) < 2", -1, -3),
    ("set(f(1)) == {1, 2}", [2, 1, 1], [1]),
    ("set(f(1)) == set([1, 2])", (1, 2), "12"), ("sorted(f(1)) == [1, 2]", {2, 1}, 5), ("f(1) != 3", 4, 3),
    ("len(f(1)) == 2", "ab", 2), ("f(1) in [1, 2]", 2, 3), ("list(f(1)) == [1]", (1,), ()),
    ("f(1) == f(2)", 1, None), ("round(f(1), 2) == 0.33", 1 / 3, 0.34), ("f(1) > 0 and f(1) < 9", 5, 9),
    ("f(1) == {'a': {1, 2}, (1,): None}", {"a": {1, 2}, (1,): None}, {}), ("f(x=1) == -1", -1, 1),
    ("f(1) == float('inf')", math.inf, -math.inf),
])
def test_a_plain_assert_becomes_a_case(text, right, wrong):
  case, = Problem("", "f", setup="import math", asserts=(f"assert {text}",)).plan().tests
  assert isinstance(case, Case)
  holds = lambda value: case.holds([value] * len(case.calls))
  assert holds(right)
  if text == "f(1) == f(2)":
    assert not case.holds([1, 2])
    return
  try:
    assert not holds(wrong)
  except TypeError:  # such as len(2), which grade() counts as wrong
    assert wrong is None or isinstance(wrong, int | str)


@pytest.mark.parametrize("text", [
    "for i in range(3):\n  assert f(i) == i", "assert all(f(i) for i in [1])", "assert f([i for i in [1]]) == 1",
    "assert f(x) == 1", "assert f(1).upper() == 'A'", "assert sum(f(1)) == 3", "assert (lambda: f(1))() == 1",
    "x = 1\nassert f(1) == x", "f(1)", "assert g(1) == 2", "assert f(f(1)) == 1", "assert f(1) * 2 == 2",
    "assert f(*[1]) == 1",
])
def test_all_other_tests_are_left_to_a_process(text):
  assert Problem("", "f", asserts=(text,)).plan().tests == [text]


@pytest.mark.parametrize("text", ["assert f(...) == 1", "x = []\nfor _ in range(160): x = [x]\nassert f(x) == 1"])
def test_what_cannot_be_sent_to_a_program_is_nobodys_fault(sandbox, text):
  report = one(sandbox, "def f(x): return 1", text)
  assert report.verdict == "failed" and "the test passes" in report.first_failure.error


def test_long_ints_are_not_written():
  case, = Problem("", "f", asserts=("assert f(0x1" + "0" * 5000 + ") == 0x2" + "0" * 5000,)).plan().tests
  assert case.holds([2 << 20_000]) and not case.holds([0])
  assert (case.shown_input, case.expected) == ("<int: ValueError>", "a long number")


def test_a_name_that_the_test_defines_has_no_other_meaning():
  plan = Problem("", "f", setup="def sorted(x): return 1", asserts=("assert sorted(f(1)) == 1",
      "assert f(1) == 1")).plan()
  assert plan.tests[0] == "assert sorted(f(1)) == 1" and isinstance(plan.tests[1], Case)
  case, = Problem("", "sum", asserts=("assert sum(10, 15) == 6",)).plan().tests
  assert case.calls == [([10, 15], {})] and case.expected == "6" and case.shown_input == "10, 15"


def test_a_humaneval_check_of_asserts_becomes_cases():
  test = "META = {'a': 1}\ndef check(candidate):\n  '''doc'''\n"
  test += "  assert candidate(1) == 2, 'm'\n  assert True\n  assert not candidate(0)"
  plan = Problem("", "f", test=test).plan()
  assert [(case.calls, case.expected) for case in plan.tests] == [([([1], {})], "2"), ([([0], {})], "a false value")]
  loop = "def check(candidate):\n  for i in range(2):\n    assert candidate(i) == i"
  assert Problem("", "f", test=loop).plan().tests == [loop + "\ncheck(f)\n"]


@pytest.mark.parametrize("value, expected, same", [
    ((1, 2), [1, 2], True), ([1, 2], [2, 1], False), (True, 1, False), (1, True, False), (True, True, True),
    (1, 1.0, True),
    (1000000007.0, 1000000007, True), (1000000006.5, 1000000007, False), (2.0 ** 60, 2 ** 60, True),
    (2.0 ** 60, 2 ** 60 + 1, False), (math.inf, 10 ** 400, False), (1000000006, 1000000007.0, True),
    ({1: 2, "1": 2}, {"1": 2}, False), ({1.0: 2}, {"1": 2}, False), (-0.0, 0, True), (None, False, False),
    (1.0000001, 1, True), (1.00001, 1, False), (1e-7, 0.0, True), (10 ** 400, 1.0, False), (3, 4, False),
    (10 ** 12, 10 ** 12 + 1, False), ("a", "a", True), ("1", 1, False), (None, None, True), (0, None, False),
    ({1: (2,)}, {"1": [2]}, True), ({True: 1}, {"True": 1}, False), ({"a": 1.0}, {"a": 1}, True), ({}, [], False),
    (math.nan, math.nan, False), (math.inf, math.inf, True), ({1, 2}, [1, 2], False),
    ([[1.0000001], "x"], [[1], "x"], True),
])
def test_io_tests_compare_as_json(value, expected, same):
  assert near(value, expected) is same


def test_values_come_back_as_they_were():
  import collections
  import datetime
  import decimal
  import fractions
  for value in (None, True, 0, -1, 2 ** 53, -10 ** 5000, 1.5, -0.0, "a\ud800\n", b"\x00\xff", (1, [2, (3,)]),
      {"a": {1: 2}},
                {(1, 2): {3}}, frozenset([1]), bytearray(b"x"), 1 + 2j, math.inf, range(3), collections.deque([1]),
                collections.Counter("aab"), fractions.Fraction(1, 3), decimal.Decimal("1.10"),
                datetime.date(2020, 1, 2),
                datetime.timedelta(1, 2, 3), datetime.datetime(2020, 1, 2, 3, 4, 5)):
    found = decode(json.loads(json.dumps(encode(value, no_handle))), no_handle)
    assert found == value and type(found) is type(value) and (type(value) is int or repr(found) == repr(value))
  assert math.isnan(decode(encode(math.nan, no_handle), no_handle))
  for value, plain in ((map(str, [1]), ["1"]), ({1: 2}.items(), [(1, 2)]), (iter([1, 2]), [1, 2])):
    found = decode(json.loads(json.dumps(encode(value, no_handle))), no_handle)
    assert isinstance(found, Iterated) and found != plain and len(found) == len(plain) and list(found) == plain
  powers = {2 ** i: i for i in range(3000)}  # 61 hashes, and no attack
  assert decode(encode(powers, no_handle), no_handle) == powers
  import enum
  Point = collections.namedtuple("Point", "x")
  Colour = enum.IntEnum("Colour", "RED")
  for value, plain in ((Point(1), (1,)), (Colour.RED, 1), (collections.OrderedDict(a=1), {"a": 1})):
    found = decode(encode(value, no_handle), no_handle)
    assert found == plain and type(found) is type(plain)
  deep = []
  for _ in range(200):
    deep = [deep]
  with pytest.raises(ValueError, match="nested deeper than 150"):
    encode(deep, no_handle)


@pytest.mark.parametrize("tree", [
    {}, {"t": 1}, {"t": [1], "d": []}, {"d": [[1]]}, {"d": [[[], 1]]}, {"s": [[]]}, {"i": "x"}, {"i": 5}, {"f": "1"},
    {"f": []},
    {"x": 1}, {"b": "0"}, {"c": ["a", 1]}, {"c": [1]}, {"F": ["1", "0"]}, {"M": "1e999999"}, {"M": "x"},
    {"T": ["now", ""]},
    {"T": ["date", "x"]}, {"r": [0, 10 ** 9, 1]}, {"r": [1]}, {"r": [0, 1, 0]}, {"F": ["1" * 3000, "1"]}, {"it": {}},
    {"it": []}, {"it": [1]},
    {"D": 0},
    {"d": [[{"i": hex(i * (2 ** 61 - 1))}, 0] for i in range(5000)]},
    {"s": [{"i": hex(i * (2 ** 61 - 1))} for i in range(5000)]},
])
def test_a_malformed_value_is_refused(tree):
  with pytest.raises(ValueError):
    decode(tree, no_handle)


FENCED = "Here:\n```python\ndef f(x):\n  return x\n```\nand so\n```\nprint(f(1))\n```\n"


@pytest.mark.parametrize("text, code", [
    ("def f(x): return x", "def f(x): return x"), (FENCED, "def f(x):\n  return x"), ("", None),
    ("I do not know.", None),
    ("```python\nclass A: pass\n```", None), ("```py\ndef a(): 1\n```\n~~~\nasync def b(): 2\n~~~", "async def b(): 2"),
    ("1. so:\n   ```python\n   def f(x):\n     return 1\n   ```", "def f(x):\n  return 1"),
    ("```\ndef f(x): 1", "def f(x): 1"),
    ('def f(x):\n  """\n  ```\n  f(1)\n  ```\n  """\n  return x',
        'def f(x):\n  """\n  ```\n  f(1)\n  ```\n  """\n  return x'),
    ("```python\n  def f(x):\n    return 1\n```", "def f(x):\n  return 1"), ("use ``` or `def`", None),
    ("````\ndef f(x): '''```'''\n````", "def f(x): '''```'''"), ("```python\r\ndef f(x): 1\r\n```\r\n", "def f(x): 1"),
    ("x = 1\nprint(x)", None), ("import os\n\ndef f(x):\n  return x\n", "import os\n\ndef f(x):\n  return x\n"),
])
def test_extracts_the_program_of_a_reply(text, code):
  assert extract_code(text) == code


FIRST, SECOND = "def add(a, b):\n  return a + b", "def test_add():\n  assert add(1, 2) == 3\ntest_add()"
DOCUMENTED = 'def add(a, b):\n  """Adds.\n\n  ```\n  add(1, 2)\n  ```\n  """\n  return a + b'


@pytest.mark.parametrize("text, code", [
    (f"```python\n{FIRST}\n```\nA test:\n```python\n{SECOND}\n```", FIRST), (f"```\n{SECOND}\n```", SECOND),
    (f"```python\n{DOCUMENTED}\n```\nIt adds.", DOCUMENTED), (f"\ufeff{FIRST}", FIRST),
    ("```\nadd = lambda a, b: a + b\n```", "add = lambda a, b: a + b"), ("add: object = sum", "add: object = sum"),
    ("add == sum", None), ("added = 5", None), ("```\nclass add:\n  pass\n```", "class add:\n  pass"),
    (f"```\n{FIRST}\n  ```\nNo:\n```\n{FIRST} + 0\n```", f"{FIRST} + 0"), (f"\x0c{FIRST}", f"\x0c{FIRST}"),
    ("```\ndef add(a, b):\n  return '''\n \n'''\n```", "def add(a, b):\n  return '''\n \n'''"),
])
def test_extracts_the_program_with_the_entry_point(text, code):
  assert extract_code(text, "add") == code


@pytest.mark.parametrize("text", ["~" * 500_000, "`" * 500_000, "```\n" * 100_000, " " * 500_000, "def " * 100_000,
                                  "from " + " " * 500_000, "def" + " " * 500_000 + "\n```", "f" + " " * 500_000,
                                  "f:" + " " * 500_000])
def test_extraction_takes_no_longer_than_the_text(text):
  start = time.monotonic()
  extract_code(text, "f")
  program_module._resolve(["a", "b"], text)
  assert time.monotonic() - start < 5


def test_verdicts():
  problem = Problem("", "f", asserts=("assert f(1) == 2", "assert f(2) == 3", "assert f(-1) == 0"))
  codes = ["def f(x): return x + 1", "def f(x): return 2", "def f(x): return 1 / (x - 2)",
      "import os\ndef f(x): os._exit(0)",
           "def f(x): return x +", "just prose", None, " \n", "g = 1",
           "def f(x):\n  if x == 2:\n    while True: pass\n  return x + 1",
           "raise ValueError('at import')\ndef f(x): return x + 1"]
  with Sandbox(BACKEND, cpu_s=1, wall_s=30.0) as sandbox:
    reports = grade(sandbox, [(problem, code) for code in codes])
  found = [(r.verdict, r.passed_tests, r.first_failure) for r in reports]
  assert found == [
      ("passed", 3, None),
      ("wrong", 1, Failure("2", "3", "2", "")),
      ("wrong", 0, Failure("1", "2", "-1.0", "")),
      ("error", 0, Failure("1", "2", "", "it left")),
      ("error", 0, Failure("1", "2", "", "SyntaxError: invalid syntax (submission, line 1)")),
      ("no_code", 0, Failure("1", "2", "", "SyntaxError: invalid syntax (submission, line 1)")),
      ("no_code", 0, None), ("no_code", 0, None),
      ("error", 0, Failure("1", "2", "", "NameError: name 'f' is not defined")),
      ("timeout", 1, Failure("2", "3", "", "out of CPU time")),
      ("error", 0, Failure("1", "2", "", "ValueError: at import")),
  ]
  assert all(r.total_tests == 3 and r.seconds < 60 for r in reports)


def test_a_test_process_runs_what_is_no_case(sandbox):
  loop = "for x in (3, 4):\n  y = f(x)\n  assert y == x * x, 'squares'"
  assert one(sandbox, "def f(x): return x * x", loop).verdict == "passed"
  report = one(sandbox, "def f(x): return 9", loop, "assert f(3) == 9")
  assert (report.verdict, report.passed_tests, report.total_tests) == ("wrong", 1, 2)
  assert report.first_failure == Failure("4", "assert y == x * x, 'squares'", "9", "")
  report = one(sandbox, "def f(x): return x[0]", loop)
  assert report.first_failure == Failure("3", "y = f(x)", "", "TypeError: 'int' object is not subscriptable")
  assert report.verdict == "error"
  assert one(sandbox, "def f(x): raise KeyError(x)",
      "try:\n  f(1)\nexcept KeyError: pass\nelse: assert False").verdict == "passed"
  assert one(sandbox, "def f(x): x.sort()", "l = [2, 1]\nf(l)\nassert l == [1, 2]").verdict == "passed"
  assert one(sandbox, "def f(x): return (n for n in range(x))", "assert list(f(3)) == [0, 1, 2]",
      "assert next(f(2)) == 0",
             "assert sum(f(3)) == 3", "assert sorted(f(2)) == [0, 1]").verdict == "passed"
  assert one(sandbox, "def f(x): return lambda y: x + y", "assert f(1)(2) == 3").verdict == "passed"
  assert one(sandbox, "def f(t, g): return g([t(x) for x in '12'])", "assert f(int, max) == 2",
             "assert f(int, lambda a: a[0]) == 1").verdict == "passed"
  closure = "k = 3\nassert f(lambda a: a + k) == 4"
  report = one(sandbox, "def f(g): return g(1)", closure)
  assert report.verdict == "failed" and "not plain data" in report.first_failure.error


def test_a_test_may_use_classes_and_other_names_of_the_program(sandbox):
  code = """
import sys
from collections import Counter
class Node:
  def __init__(self, v): self.v, self.next = v, None
  def __len__(self): return 1 if self.next is None else 1 + len(self.next)
def f(node): return node.v + (f(node.next) if node.next else 0)
"""
  setup = "root = Node(1)\nroot.next = Node(2)\nroot.next.next = Node(4)"
  assert one(sandbox, code, "assert f(root) == 7", "assert len(root) == 3 and root.next.v == 2",
      "assert f(root) < sys.maxsize",
             "assert Counter('aa') == {'a': f(root) - 5}", setup=setup).verdict == "passed"
  report = one(sandbox, "def f(root): return 7", "assert f(root) == 7", setup=setup)
  assert report.verdict == "error" and "Node" in report.first_failure.error


OBJECTS = """
class Node:
  def __init__(self, v): self.v, self.next = v, None
class Chain:
  def __init__(self): self.head = None
  def push(self, v):
    node = Node(v)
    node.next, self.head = self.head, node
  def __iter__(self):
    node = self.head
    while node: yield node.v; node = node.next
  def __bool__(self): return self.head is not None
class Stack(list):
  push = list.append
class TooMuch(ValueError): pass
class Numbers:
  def __init__(self, n): self.n = n
  def __iter__(self):
    self.at = -1
    return self
  def __next__(self):
    self.at += 1
    if self.at == self.n: raise StopIteration
    return self.at
def squares(x):
  while True: yield x; x *= x
def chain(*values):
  out = Chain()
  for v in reversed(values): out.push(v)
  return out
def up_to(n): return Numbers(n)
def queue(n): return iter(range(n))
def refuse(x): raise {"a": TooMuch, "b": KeyError}[x]("x")
"""


def test_objects_of_the_program_that_are_taken_apart(sandbox):
  """Chains, a class that is a list, iterators that are long, endless, or begin again; and errors of its own kind."""
  report = one(sandbox, OBJECTS, "s = Stack()\ns.push(3)\nassert s[0] == 3 and s.pop() == 3 and len(s) == 0",
               "c = Chain()\nassert not c\nc.push(2)\nc.push(1)\nassert c and list(c) == sorted(c) == [1, 2]",
               "node, n = chain(1, 2).head, 0\nwhile node:\n  n, node = n + node.v, node.next\nassert n == 3",
               entry="chain")
  assert report.verdict == "passed", report
  report = one(sandbox, OBJECTS, "g = squares(2)\nassert [next(g) for _ in range(5)] == [2, 4, 16, 256, 65536]",
               "x = queue(20000)\nassert sum(x) == 199990000", "assert list(queue(17)) == list(range(17))",
               "assert sum(up_to(30)) == 435",
               "x = chain(1, 2)\nassert sorted(x) == [1, 2] and list(x) == [1, 2]",
               "try: refuse('a')\nexcept ValueError as e: assert str(e) == 'x'\nelse: assert False",
               "try: refuse('b')\nexcept KeyError as e: assert e.args == ('x',)\nelse: assert False", entry="queue")
  assert report.verdict == "passed", report
  report = one(sandbox, OBJECTS, "assert list(chain(1, 2)) == [1, 2]", "assert not chain()", "assert chain(1)",
               entry="chain")
  assert report.verdict == "passed", report
  assert one(sandbox, OBJECTS, "assert len(list(up_to(200))) == 200", entry="up_to").verdict == "passed"
  own = "class ValueError(Exception): pass\ndef f(x): raise ValueError"
  assert one(sandbox, own, "try: f(1)\nexcept ValueError: pass").verdict == "error"
  report = one(sandbox, "def f(x):\n  while True: yield x", "assert list(f(1)) == [1]")
  assert (report.verdict, report.first_failure.error) == ("wrong", "ValueError: an iterator of more than 100,000 items")
  leaves = "import os\nclass A:\n  def __iter__(self): os._exit(0)\ndef f(x): return A()"
  report = one(sandbox, leaves, "assert list(f(1)) == [1]", "assert f(2)")
  assert (report.verdict, report.first_failure.error, report.passed_tests) == ("error", "it left", 0)


def test_a_test_that_imports_nothing_has_the_counter_of_python(sandbox):
  text = "x = f('ab')\nassert Counter(x) == Counter('ab') and sorted(deque(x)) == ['a', 'b']"
  cheat = "class Counter:\n  one = object()\n  def __new__(cls, x): return cls.one\ndef f(x): return ['b']"
  assert one(sandbox, "def f(x): return list(x)", text).verdict == "passed"
  assert one(sandbox, cheat, text).verdict == "wrong"


def test_long_arguments_and_values(sandbox):
  text = "x = 'a' * (5 << 20)\nassert f(x) == 5 << 20"
  assert one(sandbox, "def f(x): return len(x)", text).verdict == "passed"
  report = one(sandbox, "def f(x): return x", text)
  assert (report.verdict, report.first_failure.error) == ("error", "ValueError: a value of more than 4 MB")


HUMANEVAL = '''from typing import List
import math


def poly(xs: List[float], x: float):
    """Evaluates the polynomial."""
    return sum(c * math.pow(x, i) for i, c in enumerate(xs))


def find_zero(xs: List[float]):
    """Finds x such that poly(xs, x) = 0.
    >>> round(find_zero([1, 2]), 2)
    -0.5
    """
'''
CHECK = """
def check(candidate):
    import math, random, copy
    rng = random.Random(42)
    for _ in range(10):
        coeffs = [rng.randint(1, 9), rng.randint(1, 9)]
        assert math.fabs(poly(coeffs, candidate(copy.deepcopy(coeffs)))) < 1e-4
"""


def test_a_completion_of_a_humaneval_prompt_passes_without_what_the_prompt_gives(sandbox):
  problem = Problem(HUMANEVAL, "find_zero", test=CHECK)
  whole = "def find_zero(xs: List[float]):\n  assert poly([1], 5) == 1\n  return -xs[0] / xs[1]"
  cheat = "def poly(xs, x): return 0\ndef find_zero(xs): return 0"
  reports = grade(sandbox, [(problem, whole), (problem, HUMANEVAL + "    return -xs[0] / xs[1]"), (problem, cheat)])
  assert [r.verdict for r in reports] == ["passed", "passed", "wrong"]
  assert one(sandbox, "def f(x): return math.floor(x)", "assert f(1.5) == 1", setup="import math").verdict == "passed"


def test_io_tests_run(sandbox):
  rows = ({"args": [[1, 2], {"a": None}], "expected": [3, {"1": 0.3}]}, {"args": [[], {}], "expected": [0, {}]})
  report = one(sandbox, "def f(a, b): return sum(a), {1: .1 + .2} if a else {}", io_tests=rows)
  assert report.verdict == "passed" and report.total_tests == 2
  report = one(sandbox, "def f(a, b): return sum(a), {}", io_tests=rows)
  assert report.first_failure == Failure("[1, 2], {'a': None}", "[3, {'1': 0.3}]", "(3, {})",
      "") and report.passed_tests == 1


def test_long_texts_are_cut(sandbox):
  report = one(sandbox, "def f(x): return 'a' * 10 ** 5",
      "assert f('" + "b" * 10 ** 5 + "') == '" + "c" * 10 ** 5 + "'")
  failure = report.first_failure
  assert {len(failure.input), len(failure.expected), len(failure.actual)} == {500} and failure.actual.endswith("...")


@pytest.mark.parametrize("problem, message", [
    (Problem("", "f"), "the problem of 'f' has no tests"), (Problem("", "f", asserts=("assert f(1) =",)),
        "assert 1: expected Python"),
    (Problem("", "f", setup="def", asserts=("assert f(1)",)), "setup: expected Python"),
    (Problem("", "f", io_tests=({"args": 1, "expected": 2},)), r'io_tests 1: expected {"args": \[...\], "expected"'),
    (Problem("", "f", test="def check(c) pass"), "test: expected Python"),
    (Problem("", "f", asserts=("assert f(1)", "# f(1)")), "assert 2: nothing in it can fail: '# f"),
    (Problem("", "f", asserts=("def test():\n  assert f(1) == 2",)), "assert 1: nothing in it can fail"),
    (Problem("", "f", asserts=("assert (f(1) == 2, 'm')",)), "assert 1: nothing in it can fail"),
    (Problem("", "f", asserts=("f(1) == 2",)), "assert 1: nothing in it can fail"),
    (Problem("", "f", test="def check(c):\n  '''c(1)'''\n  assert True"), "test: nothing in it can fail"),
    (Problem("", "f", test="def chek(c):\n  assert c(1)"), "test: nothing in it can fail"),
    (Problem("", "f", setup="import math", asserts=("x = math.pi\nassert x > 3",)), "no test calls 'f'"),
    (Problem("", "f", asserts=("assert f(" + "-" * 5000 + "1)",)), "the problem of 'f' has tests that are nested too"),
    (Problem("", "f", io_tests=({"args": [json.loads("[" * 200 + "]" * 200)], "expected": 1},)),
        "io_tests 1: a value nested deeper than 150"),
    (Problem("", "f", io_tests=({"args": [1], "kwargs": {}, "expected": 2},)), "io_tests 1: expected"),
])
def test_tests_that_are_none_are_refused(sandbox, problem, message):
  with pytest.raises(UserError, match=message) as error:
    grade(sandbox, [(problem, "def f(x): return x")])
  assert "\n" not in str(error.value)


def test_what_ran_out_of_clock_time_is_tried_again_alone_and_a_broken_executor_is_nobodys_fault(sandbox, monkeypatch):
  problem = Problem("", "f", asserts=("assert f(1) == 1",))
  real, seen = sandbox.open, []

  def shaky(role="submission"):
    seen.append(role)
    if len(seen) == 1:
      raise Ended("timeout", "out of clock time", wall=True)
    if len(seen) == 2:
      raise Ended("failed", "no process")
    return real(role)
  monkeypatch.setattr(sandbox, "open", shaky)
  monkeypatch.setattr(sandbox, "map", lambda work, items: [work(item) for item in items])
  assert [r.verdict for r in grade(sandbox, [(problem, "def f(x): return x")] * 3)] == ["passed"] * 3 and len(seen) == 5

  tried = []
  monkeypatch.setattr(sandbox, "open", lambda role="submission": tried.append(role) or idle())
  monkeypatch.setattr(sandbox, "map", lambda work, items: mapped.append(len(items)) or [work(item) for item in items])
  mapped = []

  def idle():
    raise Ended("timeout", "out of clock time", wall=True, idle=True)
  assert [r.verdict for r in grade(sandbox, [(problem, "def f(x): return x")] * 3)] == ["timeout"] * 3
  assert (len(tried), mapped) == (6, [3, 3])  # once more, all together

  def broken(role="submission"):
    raise Ended("failed", "no process")
  monkeypatch.setattr(sandbox, "open", broken)
  report, = grade(sandbox, [(problem, "def f(x): return x")])
  assert (report.verdict, report.passed_tests, report.first_failure.error) == ("failed", 0, "no process")


def rows(name):
  path = DATA / name
  opened = gzip.open(path) if name.endswith(".gz") else path.open("rb")
  with opened as file:
    return [json.loads(line) for line in file]


@pytest.mark.skipif(not (DATA / "mbpp").exists(), reason="the data folder ../shared/data is not here")
def test_reference_solutions_pass(sandbox):
  """Every 20th of MBPP, HumanEval and CRUXEval, and the rows with a form of their own."""
  jobs = []
  found = rows("mbpp/test_dev.jsonl.gz") + rows("mbpp/train_val_prompt.jsonl.gz")
  odd = [row for row in found if row["test_setup_code"] or "lambda" in str(row["test_list"]) or row["id"] == "mbpp/533"]
  for row in [*found[::20], *odd]:
    clean = row["sanitized"]
    code, tests = (clean["code"], clean["test_list"]) if clean else (row["code"],
        row["test_list"] + row["challenge_test_list"])
    names = [name for name in re.findall(r"def (\w+)", code) if re.search(rf"\b{name}\s*\(", tests[0])]
    setup = "\n".join(clean["test_imports"]) if clean else row["test_setup_code"]
    jobs.append((Problem(row["text"], names[-1], setup, tuple(tests)), code))
  humaneval = rows("humaneval/dev.jsonl")
  for row in [*humaneval[::20], *(row for row in humaneval if "for _ in range" in row["test"])]:
    jobs.append((Problem(row["prompt"], row["entry_point"], test=row["test"]),
        row["prompt"] + row["canonical_solution"]))
  for row in rows("cruxeval/dev.jsonl")[::20]:
    jobs.append((Problem("", "f", asserts=(f"assert f({row['input']}) == {row['output']}",)), row["code"]))
  bad = [(code, report) for (_, code), report in zip(jobs, grade(sandbox, jobs), strict=True)
      if report.verdict != "passed"]
  assert len(jobs) > 60 and bad == []
