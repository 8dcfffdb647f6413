"""The grammar of sums, products and powers, and of the brackets around them, over the tokens of an answer."""

from __future__ import annotations

from fractions import Fraction

from sml_jax.tasks.answers.formula import Node, negative, num, product, total
from sml_jax.tasks.answers.formula_tokens import UNITS, Token, Unreadable

MAX_DEPTH = 40
_FUNCTIONS = "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp".split()
_CONSTANTS = {"\\pi": "pi", "\\infty": "inf"}
_GREEK = ("alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta kappa lambda mu nu xi rho sigma tau phi "
          "varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell").split()
FUNCTION_NAMES = "fghFGPQ"
_ENDS = "it ends in the middle"
_CLOSING = {"(": ")]", "[": "])", "\\{": ("\\}",)}
# A plural noun behind a number is what was counted, but these change the number or add another.
_NO_NOUNS = frozenset(
    "plus minus times less is was as thousands hundreds millions billions trillions dozens tens pairs scores grosses "
    "halves thirds quarters fourths fifths sixths sevenths eighths ninths tenths hundredths thousandths millionths "
    "factors powers others versus unless squares cubes roots sometimes perhaps always squareroots ones".split())
_ADJECTIVES = frozenset("distinct different positive possible ordered real total".split())
_POWERS = {"square": "^2", "sq": "^2", "cubic": "^3"}


class Terms:
  """Recursive descent; every method leaves `self.at` behind what it read."""

  def __init__(self, tokens: list[Token]):
    self.tokens, self.at, self.depth = [*tokens, Token("end", "")], 0, 0

  def _measured(self) -> Node:
    """A sum with its unit, which must end the item."""
    x = self._sum()
    unit = self._unit(x.op == "num")
    degrees, x = _split_degrees(x)
    if degrees:
      unit = f"deg {unit}".strip()
    if unit and not x.scalar:
      raise Unreadable("a unit behind what is no number")
    return Node("unit", (x,), unit) if unit else x

  def _unit(self, plain: bool) -> str:
    if self._here().kind == "%":
      self._next()
      return "%"
    names, power = [], ""
    while self._here().kind == "word" and self._here().text not in ("and", "or"):
      word = self._next().text
      if word in _POWERS or (plain and word in _ADJECTIVES):  # of the word behind it
        if self._here().kind != "word":
          raise Unreadable("a unit that is cut off")
        power = power or _POWERS.get(word, "")
        continue
      noun = plain and not names and len(word) > 3 and word.endswith("s") and word not in _NO_NOUNS
      if word not in UNITS and not noun:
        raise Unreadable(f"the word {word!r}")
      if self._peek("^"):
        self._next()
        exponent = self._argument()
        if exponent.op != "num" or exponent.value not in (2, 3):
          raise Unreadable("the power of a unit")
        power = f"^{exponent.value}"
      names.append(UNITS.get(word, word) + power)
      power = ""
      if self._peek("/"):
        self._next()
        names.append("/")
    if names[-1:] == ["/"]:
      raise Unreadable("a unit that is cut off")
    return " ".join(n for n in names if n)

  # Sums, products, powers.

  def _sum(self) -> Node:
    self.depth += 1
    if self.depth > MAX_DEPTH:
      raise Unreadable(f"nested more than {MAX_DEPTH} deep")
    terms, sign = [], "+"
    if self._here().kind in ("+", "-", "\\pm", "\\mp"):
      sign = self._next().kind
    while True:
      terms.append(_signed(sign, self._term()))
      if self._here().kind not in ("+", "-", "\\pm", "\\mp"):
        break
      sign = self._next().kind
    self.depth -= 1
    if len(terms) > 1:
      _need_scalars(*terms)
    return total(*terms)

  def _term(self) -> Node:
    x = self._factor()
    last, slashed = x, False
    while True:
      here = self._here().kind
      if here in ("*", "/"):
        self._next()
        y = self._factor()
        _need_scalars(x, y)
        x, slashed = (product(x, y) if here == "*" else Node("div", (x, y))), here == "/"
      elif self._starts_factor():
        if slashed:
          raise Unreadable("a product behind a slash")
        first, apart = self._here(), self._here().spaced or self.tokens[self.at - 1].kind in ")!"
        y = self._factor()
        _need_scalars(x, y)
        # 2 3, x2 and \frac{1}{2}\frac{1}{3} could be meant otherwise; 2(3) could not.
        glued = (y.op == "num" and not apart) or (_numeral(last) and not y.op == last.op in ("pow", "fn"))
        if first.kind == "number" and glued:
          raise Unreadable("a number right behind another factor")
        if first.text == "\\frac" and last.op in ("num", "div") and _numeral(last) and _numeral(y):
          raise Unreadable("a fraction right behind a number")
        x = product(x, y)
      else:
        return x
      last = y

  def _starts_factor(self) -> bool:
    kind = self._here().kind
    return kind in ("number", "letter", "command", "(", "[", "{", "\\lfloor", "\\lceil", "\\lvert")

  def _factor(self) -> Node:
    x = self._atom()
    done = ""
    while self._here().kind in ("^", "!"):
      _need_scalars(x)
      if self._next().kind == "!":
        if done:
          raise Unreadable("a factorial of a power or of a factorial")
        x, done = Node("fn", (x,), "factorial"), "!"
      elif done == "^":
        raise Unreadable("a power of a power without braces")
      elif self._degree():
        x, done = product(x, Node("const", (), "deg")), "^"
      else:
        x, done = Node("pow", (x, self._exponent())), "^"
    return x

  def _degree(self) -> bool:
    texts = [t.text for t in self.tokens[self.at:self.at + 3]]
    length = 1 if texts[0] == "\\circ" else 3 if texts == ["{", "\\circ", "}"] else 0
    self.at += length
    return length > 0

  def _exponent(self) -> Node:
    if self._peek("-") and self.tokens[self.at + 1].kind == "number":
      self._next()
      return negative(self._atom())
    if self._here().kind in ("number", "("):
      return self._atom(number_alone=True)
    return self._argument()

  def _atom(self, number_alone: bool = False) -> Node:
    token = self._next()
    kind, text = token.kind, token.text
    if kind == "number":
      x = num(Fraction(text))
      return x if number_alone else self._mixed(x, text)
    if kind == "letter":
      return self._letter(text)
    if kind in ("(", "[", "\\{"):
      return self._bracket(kind)
    if kind == "{":
      x = self._sum()
      self._expect("}")
      return x
    if kind in ("\\lfloor", "\\lceil", "\\lvert"):
      x = self._sum()
      self._expect(kind.replace("\\l", "\\r"))
      _need_scalars(x)
      return Node("fn", (x,), {"\\lfloor": "floor", "\\lceil": "ceil", "\\lvert": "abs"}[kind])
    if kind == "command":
      return self._command(text)
    raise Unreadable(f"{text!r} where a number or a letter is wanted" if text else _ENDS)

  def _mixed(self, whole: Node, text: str) -> Node:
    r"""7\frac{1}{3} and "7 1/3" are 7 + 1/3."""
    tokens, part = self.tokens[self.at:self.at + 3], None
    if self._here().text == "\\frac":
      before = self.at
      self._next()
      part = self._fraction()
      if not all(a.op == "num" for a in part.args):
        self.at = before
        return whole
    elif [t.kind for t in tokens] == ["number", "/", "number"] and tokens[0].spaced:
      part = Node("div", (num(Fraction(tokens[0].text)), num(Fraction(tokens[2].text))))
      self.at += 3
    if part is None:
      return whole
    above, below = (a.value for a in part.args)
    if not (text.isdigit() and above.denominator == below.denominator == 1 and 0 < above < below):
      raise Unreadable("a number and a fraction side by side")
    return num(whole.value + above / below)

  def _letter(self, text: str) -> Node:
    if self._peek("_"):
      self._next()
      return Node("sym", (), f"{text}_{self._argument().key}")
    if text in ("e", "i"):
      return Node("const", (), text)
    if text in FUNCTION_NAMES and self._peek("("):
      raise Unreadable(f"the function {text}")
    return Node("sym", (), text)

  def _bracket(self, opening: str) -> Node:
    items, start = [], self.at - 1
    self.depth += 1
    if self.depth > MAX_DEPTH:
      raise Unreadable(f"nested more than {MAX_DEPTH} deep")
    if not (opening == "\\{" and self._peek("\\}")):
      items.append(self._measured())
      while self._here().kind in (",", ";") or (opening == "\\{" and self._here().text == "and"):
        self._next()
        items.append(self._measured())
    self.depth -= 1
    closing = self._next().kind
    if closing not in _CLOSING[opening]:
      raise Unreadable(_ENDS if closing == "end" else "brackets that do not match")
    if opening == "\\{":
      return Node("set", tuple(items))
    # [x] alone may be a floor or an interval that is cut off; inside a formula it is a bracket like any other.
    whole = opening == "[" and start == 0 and self.at == len(self.tokens) - 1
    if len(items) == 1 and opening + closing in ("()", "[]") and not whole:
      return items[0]
    if len(items) == 1 and not whole:
      raise Unreadable("brackets that do not match")
    return Node("tuple", tuple(items), opening + closing)

  def _argument(self) -> Node:
    r"""What a command takes: {...}, or one digit, letter or command."""
    token = self._here()
    if token.kind == "{":
      self._next()
      x = self._sum()
      self._expect("}")
      _need_scalars(x)
      return x
    if token.kind == "number" and len(token.text) == 1:
      self._next()
      return num(int(token.text))
    if token.kind == "number" and token.text.isdigit() and len(token.text) == 2 and self._behind("\\frac"):
      self.tokens[self.at] = Token("number", token.text[1])  # \frac12
      return num(int(token.text[0]))
    if token.kind == "letter" or token.text in _CONSTANTS:
      self._next()
      return self._letter(token.text) if token.kind == "letter" else Node("const", (), _CONSTANTS[token.text])
    raise Unreadable("a command without its braces" if token.text else _ENDS)

  def _fraction(self) -> Node:
    return Node("div", (self._argument(), self._argument()))

  def _command(self, text: str) -> Node:
    name = text[1:]
    if text in _CONSTANTS:
      return Node("const", (), _CONSTANTS[text])
    if name in _GREEK:
      return self._letter(text)
    if text == "\\frac":
      return self._fraction()
    if text == "\\binom":
      return Node("fn", (self._argument(), self._argument()), "binom")
    if text == "\\sqrt":
      return self._root()
    if text in ("\\emptyset", "\\varnothing"):
      return Node("set")
    if name in _FUNCTIONS:
      return self._function(name)
    if text == "\\begin":
      return self._matrix()
    raise Unreadable(f"the command {text}")

  def _root(self) -> Node:
    degree = 2
    if self._peek("["):
      self._next()
      index = self._next()
      self._expect("]")
      if not (index.kind == "number" and index.text.isdigit() and 2 <= int(index.text[:9]) <= 1000):
        raise Unreadable("the index of a root")
      degree = int(index.text)
    if self._peek("("):  # sqrt(3), as plain text has it
      x = self._atom()
      _need_scalars(x)
    else:
      x = self._argument()
    return Node("root", (x,), degree)

  def _function(self, name: str) -> Node:
    power = base = None
    if name == "log" and self._peek("_"):
      self._next()
      base = self._argument()
    if self._peek("^"):
      self._next()
      power = self._argument()
      if power.op != "num" or power.value < 1:
        raise Unreadable("the power of a function")
    if self._here().kind in ("(", "{", "[") or self._here().text in ("\\frac", "\\sqrt"):
      x = self._factor()
    else:
      factors = []
      while self._here().kind in ("number", "letter") or self._here().text in _CONSTANTS:
        factors.append(self._factor())
      if not factors or len(factors) > 2 or (len(factors) == 2 and not _numeral(factors[0])):
        raise Unreadable(f"what \\{name} is of")
      x = product(*factors)
    if self._starts_factor() and self._here().text[1:] not in _FUNCTIONS:
      raise Unreadable(f"where what \\{name} is of ends")
    _need_scalars(x)
    y = Node("fn", (x,), name) if base is None else Node("div", (Node("fn", (x,), "ln"), Node("fn", (base,), "ln")))
    return y if power is None else Node("pow", (y, power))

  def _matrix(self) -> Node:
    name = self._next().text
    if name not in ("pmatrix", "bmatrix"):
      raise Unreadable(f"the environment {name}")
    rows: list[list[Node]] = [[]]
    while True:
      x = self._sum()
      _need_scalars(x)
      rows[-1].append(x)
      token = self._next()
      if token.kind == "\\\\":
        if self._here().kind == "end-matrix":  # a line break behind the last row
          token = self._next()
        else:
          rows.append([])
          continue
      if token.kind == "end-matrix" and token.text == name:
        break
      if token.kind != "&":
        raise Unreadable("a matrix that does not end")
    if len({len(row) for row in rows}) != 1:
      raise Unreadable("a matrix with rows of different lengths")
    return Node("matrix", tuple(x for row in rows for x in row), len(rows[0]))

  # Tokens.

  def _here(self) -> Token:
    return self.tokens[self.at]

  def _peek(self, kind: str) -> bool:
    return self.tokens[self.at].kind == kind

  def _behind(self, text: str) -> bool:
    return self.at > 0 and self.tokens[self.at - 1].text == text

  def _next(self) -> Token:
    token = self.tokens[self.at]
    self.at = min(self.at + 1, len(self.tokens) - 1)
    return token

  def _expect(self, kind: str) -> None:
    token = self._next()
    if token.kind != kind:
      wanted = "the end" if kind == "end" else repr(kind)
      raise Unreadable(f"{token.text!r} where {wanted} is wanted" if token.text else _ENDS)


def _signed(sign: str, x: Node) -> Node:
  if sign == "+":
    return x
  _need_scalars(x)
  if sign == "-":
    return negative(x)
  both = Node("pm", (), 1 if sign == "\\pm" else -1)
  return product(both, x)


def _numeral(x: Node) -> bool:
  """Whether a factor is written as a number, so that another one right behind it would read as one with it."""
  return x.op == "num" or (x.op == "div" and all(a.op == "num" for a in x.args)) or (
      x.op in ("pow", "fn") and bool(x.args) and x.args[0].op == "num" and x.value in (None, "factorial"))


def _split_degrees(x: Node) -> tuple[bool, Node]:
  """(True, the number of degrees) of an angle in degrees, such as 12^\\circ or \\frac{1170^\\circ}{19}."""
  degree = Node("const", (), "deg")
  if x.op == "div" and x.args[0].op == "mul" and degree in x.args[0].args:
    found, above = _split_degrees(x.args[0])
    return found, Node("div", (above, x.args[1]))
  if x.op == "mul" and x.args.count(degree) == 1:
    return True, product(*(a for a in x.args if a != degree))
  return False, x


def _need_scalars(*nodes: Node) -> None:
  for node in nodes:
    if not node.scalar:
      raise Unreadable(f"arithmetic with a {node.op}")
