r"""Which of the seven kinds a student turn is, by rules: after the definitions of Lost in Conversation (Laban et al.
2025, arXiv 2505.06120), where a language model decides. benchmarks/turn_kinds.py measures how often the rules agree
with hand labels.

Where the definitions leave room:
- Thinking is not read. A turn of nothing but thinking is missing.
- An answer in a form of its own (a number after "####" or "answer is", a \boxed{}, a function) stays an attempt if a
  question follows. A number in a plain sentence, or one under a stated assumption ("assuming 5 apples each, it is
  20"), is an attempt only if the turn asks for nothing: otherwise the student itself does not hold it for final.
- One answer under an "if" is discussion; several are a hedge, unless a later one is given without an "if".
- Offers ("Would you like me to explain?") and checks ("Is that right?") are no questions; a request ("Please tell me
  the price.") is one; a request for "more information" is vague, and so discussion.
- A function without a body, or with a placeholder for one, is no attempt.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Literal

from sml_jax.dialogue.record import Kind
from sml_jax.tasks.answers.latex import boxed
from sml_jax.tasks.answers.numbers import extract_number, has_answer_mark
from sml_jax.tasks.lost_in_conversation import code_answers, without_thinking

Domain = Literal["number", "latex", "code"]

_SHORT = 100  # words: a longer turn that asks one thing is discussion
_BRIEF = 40  # words: a longer turn that cannot do something still tells something else
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_SENTENCE = re.compile(r"[^\n]*?(?:[?!.](?=[\s*_\"')\]]|$)[*_\"')\]]*|\n|$)")
_BULLET = re.compile(r"\s*(?:[-*•]|\(?[a-z\d]{1,2}[.)])\s+\S")


def _words(*alternatives: str) -> re.Pattern:
  return re.compile("|".join(rf"(?:{a})" for a in alternatives), re.IGNORECASE)


_OFFER = _words(
    r"\b(?:would you like|do you want|want) (?:me|us)\b", r"\b(?:shall|should|may|can|could) (?:i|we) "
    r"(?:also |now |please )?(?:explain|continue|proceed|go on|help|show|elaborate|clarify|assist|walk|do anything)\b",
    r"\b(?:does|do|did) (?:that|this|it|my \w+) (?:help|make sense|answer)", r"\bmakes? sense\?",
    r"\b(?:any|other|further|more) (?:questions?|doubts?)\b", r"\banything else\b", r"\bwhat else\b",
    r"\bwhat (?:would you like|do you want) (?:to do|me to do|next)\b", r"\bneed (?:any )?(?:more |further )?help\b",
    r"\bhow (?:can|may|else can|could) i (?:help|assist)", r"\bwhat (?:specifically|exactly) (?:would|do|can)\b",
    r"\bhow (?:do|does|can|could|would|should) (?:we|that sound)\b", r"\bclear (?:now|so far|enough)?\s*\?",
    r"\bwhat (?:can|do|should|could|would) we\b", r"\bready\b.{0,60}\?", r"\bor something else\?", r"\bsound good\?",
)  # fmt: skip
_CHECK = _words(
    r"\bis (?:that|this|it|my \w+) (?:right|correct|ok(?:ay)?|fine|what you|better)\b",
    r"(?:,|-) ?(?:right|correct|ok(?:ay)?|yes|no)\s*\?", r"^\s*(?:right|correct|ok(?:ay)?)\s*\?",
    r"\bam i (?:right|correct)\b", r"\bdoes (?:that|this|it) (?:look|seem|sound|match)\b",
)  # fmt: skip
_REQUEST = _words(
    r"\b(?:please|kindly) (?:also |just |first )?(?:tell|give|provide|share|specify|clarify|confirm|state|supply|send|"
    r"let me know|indicate|describe|explain|mention|say|add|include)\b",
    r"\blet me know (?:what|how|which|whether|when|where|who|the|about|your)\b", r"^\W*tell me\b",
    r"\bi(?:'d| would| will|'ll)? (?:still |also |just |first )?need to know\b",
    r"\b(?:can|could|would|will) you (?:please |also |first |kindly )?(?:tell|give|provide|share|specify|clarify|"
    r"confirm|state)\b",
)  # fmt: skip
_VAGUE = _words(
    r"\b(?:more|further|additional|missing|rest of|full|complete|some|necessary|other|relevant|specific|following|"
    r"remaining|the|any) (?:of )?(?:the |other |specific )*(?:information|info|details?|context|problem(?: statement)?|"
    r"question|data|specifics|story|task)\b(?! (?:is|are|was|of the (?!problem|question|task))\b)(?!,? (?:about|on|"
    r"regarding) (?!(?:the|your|this) (?:problem|question|task|situation|request)|what|it\b|this|that\b))"
)  # fmt: skip
_MORE_QUESTIONS = re.compile(
    r"(?<=[\w)])[,;]? (?:and|also|or)[, ]+(?:also )?(?:how|what|when|where|which|who|whether|why)\b", re.IGNORECASE
)
_REFUSAL = _words(
    r"\b(?:can't|cannot|can not|could not|couldn't|unable to|not able to|not possible to|impossible to|won't|will not|"
    r"don't know how to|do not know how to|not comfortable) (?:\w+ly )?(?:be )?(?:\w+ly )?(?:answer|solve|determine|"
    r"help|assist|write|say|tell|calculat|comput|do\b|provid|prov|give|find|work|complete|continu|create|produce|fulfil|"
    r"figure|comply|generat|know|proceed|finish|respond|deduce|derive|implement)",
    r"\b(?:not enough|insufficient|too little|lack(?:s|ing)? (?:the )?(?:necessary )?) ?(?:info|data|detail|context)",
    r"\bi (?:really |just |honestly )?(?:don't|do not|dont|didn't) (?:know|understand|have (?:enough|the))",
    r"\bno (?:idea|clue)\b", r"\bi give up\b", r"\b(?:isn't|is not|aren't|are not) enough (?:info|data|detail)",
    r"^\W*(?:no|nope|idk|pass|skip|sorry|n/?a|none)\W*$", r"\bi(?:'d| would) rather not\b", r"\bi must decline\b",
    r"\bi(?:'m| am) (?:not sure|afraid not|unsure|stuck|lost)\b", r"\bbeyond (?:my|what i)\b", r"\bimpossible\b",
    r"\b(?:can't|cannot|can not) be (?:solved|determined|answered|found|computed|calculated|known)",
)  # fmt: skip
_HYPOTHETICAL = _words(
    r"\b(?:if|otherwise|suppos(?:e|ing)|would be|could be|might be|may be|for (?:example|instance)|say,|imagine|"
    r"hypothetical\w*|depend(?:s|ing)|unless|whereas|in case|case \w+ ?:|(?:option|scenario) \w+)(?!\w)", r"\be\.g\.",
)  # fmt: skip
_BRANCH = _words(
    r"\b(?:if|otherwise|else|assuming|suppos(?:e|ing)|case|with|or|option|scenario|interpretation|when)\b"
)
_IF = _words(r"\b(?:if|assuming|suppos(?:e|ing))\b")
_CASE = re.compile(r"\W*(?:case|option|scenario|interpretation|if|assuming|otherwise|with)\b", re.IGNORECASE)
_CHOICE = _words(
    r"\b(?:either|otherwise|depend(?:s|ing) on|(?:case|option|scenario|interpretation) (?:\d|[a-c]\b|one|two)|"
    r"two (?:ways|possib|cases|interpret|readings)|alternatively|on the other hand)",
    r"\b(?:could|might|may) (?:be|mean)\b",
)
_CODE_CHOICE = re.compile(
    r"\bif (?:you|the|it|your|this)\b.{0,80}\b(?:want|need|mean|prefer|meant|should|is|are)\b|\bdepending on\b|"
    r"\b(?:option|case|version|scenario|interpretation|variant) (?:\d|[a-c]\b|one|two)|\beither\b|^\s*or\b",
    re.IGNORECASE | re.MULTILINE)  # fmt: skip
_ASSUMING = _words(r"\b(?:assum(?:e|ing|ption)|let's say|suppos(?:e|ing)|guess)\b")
_UNFINISHED = _words(
    r"\b(?:so far|not enough|isn't enough|once (?:we|you|i)|still (?:need|missing|have to)|need to know|needs? more|"
    r"without knowing|(?:hasn't|haven't|not|isn't|aren't) (?:been )?(?:yet )?(?:given|known|said|stated)|unknown|we "
    r"(?:would|will|can|could|need|have to|must|should)|until|to (?:find|get|calculate|determine)|multiply|will need|"
    r"remains to|next(?:,| step)|formula|keep (?:that|this) in mind|noted|got it|thanks?|let's|start by)\b"
)
_CONCLUDES = _words(
    r"\b(?:so|thus|therefore|hence|total(?:s|ling)?|altogether|in all|finally|answer|result|in sum|overall|final|"
    r"which (?:gives|means|makes|is)|(?:that|this|it)(?:'s|s| is| gives| makes| comes| means| equals)|comes to|adds up|"
    r"equals|we get|i get|i got|i think|i believe|left|remain(?:s|ing)?)\b", "=",
)  # fmt: skip
_NUMBER = r"(?<![\d.,])\d[\d,]*+(?:\.\d++)?"
_ONE_OR_OTHER = re.compile(rf"{_NUMBER}[^.;\n\d]{{0,30}}\bor\b[^.;\n\d]{{0,30}}{_NUMBER}", re.IGNORECASE)
_CLAUSE = re.compile(r";|\n|, (?=otherwise|else|with|if|for)|:\s+(?=with|if|for)", re.IGNORECASE)
_LOOKS = re.compile(r"\s|\$|\\[,;! ]|\\(?:left|right)(?![A-Za-z])|(?<=\\)[dt](?=frac)")
_ANSWER_LINE = _words(r"^\W*(?:a|ans|(?:the |my )?(?:final |correct )?answer|(?:final )?result|total)\W*:")
_CALCULATION = re.compile(r"\d[^=\n]{0,80}[-+*/×x÷−%][^=\n]{0,80}=\s*-?\$?(?:<<[^<>\n]*>>)?\s*-?\d")
_SUPPOSED = _words(
    r"\b(?:would be|could be|might be|for (?:example|instance)|suppos(?:e|ing)|so far|once (?:we|you|i))\b"
)
_EQUALS = re.compile(r"=\s*([^=\s]+)")
_ACKNOWLEDGES = _words(r"^\W*(?:okay|ok|sure|great|understood|alright|i see|right|yes|so you|you said)\b(?! so\b)")
_CLOSING = _words(r"\b(?:feel free|let me know|happy to help|hope (?:this|that|it) helps|good luck)\b")


def classify(text: str, *, domain: Domain, sharded: bool = False) -> Kind:
  """The kind of a student turn.

  Args:
    text: the turn.
    domain: the form of an answer: a number, a formula in a LaTeX box, or Python code.
    sharded: whether the talk hides a part of the task. A number then has to be stated as a result, since such talks
      repeat what is given; in a talk about a whole task the last number is an answer, as for the verifier.
  """
  text = without_thinking(text)
  if not text.strip():
    return "missing"
  prose = _FENCED.sub("\n", text) if domain == "code" else text
  sentences = [s for m in _SENTENCE.finditer(prose) if (s := m[0].strip())]
  asked = _questions(prose, sentences)
  answer = {"number": _number_answer, "latex": _latex_answer, "code": _code_answer}[domain]
  found = answer(text, sentences, asked, sharded)
  if found:
    return found
  if asked >= 2:
    return "interrogation"
  if asked == 1:
    return "clarification" if len(prose.split()) < _SHORT else "discussion"
  requests = any(s.endswith("?") or _REQUEST.search(s) for s in sentences)
  if not requests and len(text.split()) <= _BRIEF and any(map(_REFUSAL.search, sentences)):
    return "refuse"
  return "discussion"


def _questions(prose: str, sentences: Sequence[str]) -> int:
  """Specific questions to the other: sentences that ask or request, and the points of a list that one opens."""
  listed = _listed(prose)
  if listed >= 2:
    return listed
  count = 0
  for sentence in sentences:
    asks = sentence.rstrip("*_\"')] ").endswith("?")
    if not asks and not _REQUEST.search(sentence):
      continue
    if _OFFER.search(sentence) or _CHECK.search(sentence) or _VAGUE.search(sentence):
      continue
    count += 1 + len(_MORE_QUESTIONS.findall(sentence))
  return count


def _listed(prose: str) -> int:
  """Points of a list that are asked for: the line before it ends in a colon and asks, or the points are questions."""
  most, points, asking, before = 0, 0, False, ""
  for line in prose.split("\n"):
    if _BULLET.match(line):
      opened = before.rstrip().endswith((":", "?")) and (
          before.rstrip().endswith("?") or _REQUEST.search(before) or re.search(
              r"\b(?:questions?|need|know|information|details|clarif\w+)\b", before, re.IGNORECASE))  # fmt: skip
      points, asking = points + 1, asking or bool(opened) or line.rstrip("* ").endswith("?")
      most = max(most, points if asking else 0)
    elif line.strip():
      points, asking, before = 0, False, line
  return most


def _number_answer(text: str, sentences: Sequence[str], asked: int, sharded: bool) -> Kind | None:
  told = [s for s in sentences if not s.endswith("?") or has_answer_mark(s)]
  told = [s for s in told if not _OFFER.search(s) and not _CLOSING.search(s)]
  marked = [s for s in told if has_answer_mark(s) and not _HYPOTHETICAL.search(s)]
  final = marked and extract_number(text) is not None and extract_number(marked[-1]) is not None
  if final or (told and _ANSWER_LINE.match(told[-1]) and extract_number(told[-1]) is not None):
    return None if asked and _ASSUMING.search(text) else "answer_attempt"
  checked = any(s.endswith("?") and _CHECK.search(s) for s in sentences)
  stated = _states_a_result(told, checked)
  if _number_hedge(text, told) and not (stated and _CONCLUDES.search(told[-1]) and not _BRANCH.search(told[-1])):
    return "hedge"
  if asked or not told or (len(text.split()) <= _BRIEF and any(map(_REFUSAL.search, told))):
    return None
  if not sharded and extract_number(text) is not None and not _HYPOTHETICAL.search(told[-1]):
    return "answer_attempt"
  return "answer_attempt" if stated else None


def _states_a_result(told: Sequence[str], checked: bool) -> bool:
  """One of the last two sentences gives a number as the result: by its words, because it was calculated there or
  before, or because the student then asks whether it is right; and nothing about it is open."""
  for sentence in reversed(told[-2:]):
    number = extract_number(sentence)
    if number is not None and _CALCULATION.search(sentence) and not _SUPPOSED.search(sentence):
      return sentence is told[-1] or not _UNFINISHED.search(told[-1])
    if _UNFINISHED.search(sentence) or _HYPOTHETICAL.search(sentence):
      return False
    if number is not None:
      calculated = {extract_number(part) for s in told for part in _EQUALS.findall(s)}
      alone = len(told) == 1 and not _ACKNOWLEDGES.match(sentence)
      return alone or checked or number in calculated or "**" in sentence or bool(_CONCLUDES.search(sentence))
  return False


def _number_hedge(text: str, told: Sequence[str]) -> bool:
  """Different numbers under ifs or cases: "5 or 6", a clause each, a paragraph each.

  A worked solution also says "if". Without words of choice the turn has to end in two ifs, the second of which does not
  go on from the first one's number.
  """
  choice = _CHOICE.search(text)
  if any(_ONE_OR_OTHER.search(s) and (has_answer_mark(s) or choice) for s in told):
    return True
  clauses = [clause for s in told for clause in _CLAUSE.split(s)]
  if choice:
    units = [clause for clause in clauses if _BRANCH.search(clause)]
    units += [line for line in text.split("\n") if _CASE.match(line)]
    return len({extract_number(unit) for unit in units} - {None}) >= 2
  ends = [clause for clause in clauses if extract_number(clause) is not None][-2:]
  if len(ends) < 2 or not all(map(_IF.search, ends)):
    return False
  first, second = map(extract_number, ends)
  return first != second and all(extract_number(number) != first for number in re.findall(_NUMBER, ends[1]))


def _latex_answer(text: str, sentences: Sequence[str], asked: int, sharded: bool) -> Kind | None:
  del sentences, asked, sharded
  boxes = {_LOOKS.sub("", box) for box in boxed(text) or ()} - {""}
  if not boxes:
    return None
  return "answer_attempt" if len(boxes) == 1 else "hedge"


def _code_answer(text: str, sentences: Sequence[str], asked: int, sharded: bool) -> Kind | None:
  del asked, sharded
  found = [a for a in code_answers(text) if not _is_stub(a.node)]
  if len({ast.dump(a.node) for a in found}) >= 2 and any(_CODE_CHOICE.search(s) for s in sentences):
    return "hedge"
  return "answer_attempt" if found else None


def _is_stub(node: ast.FunctionDef | ast.ClassDef) -> bool:
  """Every function of it does nothing: only pass, ..., a text, or a "not implemented"."""
  functions = [n for n in ast.walk(node) if isinstance(n, ast.FunctionDef)]
  return all(all(map(_is_nothing, f.body)) for f in functions)


def _is_nothing(statement: ast.stmt) -> bool:
  if isinstance(statement, ast.Raise):
    return "NotImplemented" in ast.dump(statement)
  return isinstance(statement, ast.Pass) or (
      isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
