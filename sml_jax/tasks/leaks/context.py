"""What the words around a number make of it: the answer stated, a quantity of the problem, a quote, a label."""

from __future__ import annotations

import re
from collections.abc import Collection
from fractions import Fraction

_I = re.IGNORECASE
_FILL = (r"(?:[\s*_`$\"'(\[{~|]|\\[(\[$]|\\(?:text\w*|math\w+|boxed|fbox|bm|emph|underline)\b|(?<=[a-z:=] )\+"
    r"|\b(?:exactly|just|only|about|simply|precisely|actually|really|indeed|then|now|a total of|the number|number"
    r"|value of|equal to|be|the|of|a|an|in fact|approximately|us|you|him|her|them|to)\b)*$")
_VERBS = (r"(?:be|been|get|have|equal|see|find|reach|obtain|give|yield|make|come|end|arrive|say|read|write|output"
    r"|leave|total|show|land|report|for|need|take)(?:\s+(?:out|up|to|as|with|at|on|down|being))*")
# Verbs and nouns that lead to any number, beside those of _RESULT.
_ASSERT = re.compile(
    r"(?:\b(?:value|number|amount|count|figure|cost|price)\b[^.!?;\n]{0,60}?(?:\b(?:is|are|be|equals?|was"
    r"|comes (?:out )?to|works out to)|'s|[=:]|->|-)|(?:\b(?:should|must|will|would|can|shall|ought|need|want|supposed"
    r"|has|have|could|expect|looking)|'ll)(?:'ve)?\s+(?:[\w']+\s+){0,4}?" + _VERBS + r"|\b(?:answer|makes|gives?|giving"
    r"|yields?|leaves?|com(?:es?|ing) (?:out )?as|work(?:s|ing)? out as|gets?|getting|obtain(?:s|ing)?|becomes?"
    r"|reach(?:es)?|produces?|returns?|got|mean(?:s|ing)?|have|has|(?:we|you) want|they are|is|are|was|were|be|try|put"
    r"|write(?: down)?|type|say|report)(?: that)?[,:]?)" + _FILL, _I)
# Stated whatever follows, and even if the problem has the same number.
_SURE = re.compile(
    r"(?:\b(?:answer|solution|outcome|target)\b(?! of\b)[^.!?;\n]{0,50}?(?:\b(?:is|are|be|equals?|was|says|reads"
    r"|comes (?:out )?to|works out to|to be)|'s|[=:]|->|-)|=|\bequals|\bequal to|\bcom(?:es?|ing) out (?:to|as)"
    r"|\bworks? out (?:to|as)|\barriv\w+ at|\b(?:answer|go with|settle on)|\b(?:final|correct|right|true|actual"
    r"|exact)(?: \w+){1,2}\s*(?:\b(?:is|of|are)|=|:)|\b(?:compare|check) (?:your|the) (?:answer|result|value"
    r"|total)\w* (?:with|against|to)|\b(?:correct|right) (?:would (?:have been|be)|with|if you (?:had )?(?:said"
    r"|written|answered))|\b(?:asked for|in question|required|requested|wanted|needed|sought)\b[^.!?,;\n]{0,15}\b(?:is"
    r"|are|equals)|\b(?:I|we|everyone|everybody|everyone else|others?|book|sheet|key"
    r"|class)\b[^.?!\n]{0,30}\b(?:replied|found|says?|answered|gives?|wrote)|\byou(?:'re| are)? (?:want|need"
    r"|looking for|after|seek)\w*(?: \w+)? (?:is|are|:)|\\boxed ?\{|####|\bbox(?:ed)?:?)" + _FILL, _I)
_GIVEN = re.compile(r"\b(?:let|set|with|if|when|suppose|where|for|use|using|try|given|plug\w*|put|says?"
    r"|case)\b[^.!?;,=]{0,12}=\s*\$?$", _I)
# What leads to a result and not to a quantity of the story ("Tom has 5", "each gets 5").
_RESULT = re.compile(
    r"(?:\b(?:answer|solution|outcome|result|total|sum|product|difference|quotient)\b[^.!?;\n]{0,50}?(?:\b(?:is|are|be"
    r"|equals?|was|of|as|to)|'s|[=:]|->|-)|\b(?:f|it|call|code|function|loop|program|method|trace|this|that|which"
    r"|slice|line)\b[^.!?\n,]{0,20}\b(?:returns?|prints?|outputs?|leaves|ends (?:up )?(?:with|as|at))|=|\bequals?"
    r"|\bequal to|->|\bcom(?:es?|ing) (?:out )?to|\bwork(?:s|ing)? out (?:to|as)|\badd(?:s|ing)? up to|\bamount(?:s"
    r"|ing)? to|\barriv\w+ at|\bend(?:s|ing)? (?:up )?(?:with|at|being|on|in)|\bresult(?:s|ing)? in|\bleft with"
    r"|\bland(?:s|ing|ed)? on|\bboils down to|\breduces? to|\bsimplif\w+ to|\byield\w*|\bgiving|\bleaving|\bmaking"
    r"|\btotal(?:s|ling)|\b(?:that|which|this|it|we|you|calculation|subtraction|addition|multiplication|division"
    r"|\w+ing\b[^.!?\n]{0,30}) (?:just |simply |finally |then |now )?(?:gives?|makes?|leaves?|gets?|obtains?"
    r"|reach(?:es)?|produces?|becomes|totals)|\b(?:should|must|will|would|supposed|expect|ought|has|need"
    r"|'ll)(?:'ve)?\s+(?:[\w']+\s+){0,3}?" + _VERBS +
    r"|\b(?:so|thus|hence|therefore|it's|it is|that's|that is|which is|yes|exactly|indeed|correct"
    r"|right)(?: that)?[,:!]*(?: it(?: i|')s)?|\b(?:go with|enter|submit|box|confirm|settle on|answer|namely|conclude"
    r"|in other words,?|i\.e\.,?|(?:just|simply) (?:say|write|put|type)|wr(?:ite|ote"
    r"|itten) down)(?: that)?:?)" + _FILL, _I)
_STORY = re.compile(r"\b(?:problem|story|text|question|statement|sentence|mentions?)\b", _I)
_STRICT_END = re.compile(r"[\s*_`$\"')\]}]*(?:[.!](?:\s|$)|$|\n|,? (?:but|so)\b)")
_OPERAND = re.compile(
    r"(?:\b(?:by|times|plus|minus|of|from|and|or|to|with|than|over|mod|modulo|factor|power|like|say|into|for|in|at|on"
    r"|between|per|number|numbers|the|your|a|an|add|subtract|multiply|divide|use|used|consider|try|case|every|each"
    r"|first|last|only|other|another|these|those|both|all|as|twice|about|around|without|part|value|values|digit|term)"
    r"|[-+*/^<>=(,&]|\\[a-z]+\{?)\s*[*_`$\"']*$", _I)
_VERB = re.compile(
    r"\b(?!minus|plus|times|this|its|steps|parts|adds|added|subtracts|subtracted|multiplies|multiplied|divides|divided"
    r"|was\b|less|numbers|values|across|always|perhaps|besides|unless|towards)[a-z]{2,}(?:[^s]s"
    r"|ed)\s+(?:\w+\s+)?" + _FILL, _I)
_SURE_BEHIND = re.compile(
    r"[\s*_`\"')\]}$%]*(?:\w+\s+){0,2}?,?\s*(?:(?:that|this|which)?\s*(?:is|would be|should be|must be|has to be|'s"
    r"|was|being|as|,|-|are)\s+)(?:(?:indeed|exactly|precisely|actually|simply|clearly|in fact|also|your|our|the|a"
    r"|really|spot|absolutely)\s+)*(?:(?:final|correct|right|whole|exact|true|actual|expected|only|desired|required"
    r"|requested)\s+)*(?:answer|solution|correct|right|result|on\b|what (?:you|we|the (?:question|problem))|it\b"
    r"|where you)|[\s*_`$%,\"')\]}]*(?:\w+ )?(?:in(?:to)? the (?:answer )?box|as (?:your|the|a) (?:final )?(?:answer"
    r"|solution|result)|for the final answer)|[\s*_`$%.,\"')\]}]*(?:and|then)\b,? (?:you|that)\b[^.?!\n]{0,12} (?:have"
    r"|got|get|is|are) (?:(?:the|your) (?:answer|solution|result)|done|finished)", _I)
_END = re.compile(
    r"[\s*_`$\"')\]}\\|%]*(?:[.,;:!?]|$|\n|-|->|\b(?:and|so|left|remain\w*|in (?:total|all)|altogether|overall|total"
    r"|as|because|since|when|if|which|not|for|once|after|rather|instead|here|there|again|finally|now|exactly|per|at|on"
    r"|in|with|by|but|too|or|to|is|would|that|after)\b)", _I)
_LEFTOVER = re.compile(
    r"[\s*_`$\"')\]}\\%-]*(?:more\s+)?(?:[A-Za-z-]+\s+){0,4}?(?:left|still|remain(?:ing|s)?|in (?:total|all)"
    r"|altogether|overall|all together|total|to spare|combined)\b", _I)
_DENIED = re.compile(
    r"(?:\bnot|n't|\bnever|\binstead of|\brather than|\bthan|\bexceed\w*|\babove|\bbelow|\bat (?:least|most)|\bbetween"
    r"|\bunder|\bover|\bnear|\bclose to|\baround|\broughly|\bwithout|\bminimum of"
    r"|\bmaximum of)\s*(?:\w+\s+){0,2}?" + _FILL, _I)
_WRONG = re.compile(
    r"[^.?!\n]{0,30}?\b(?:too\s+(?:high|low|big|small|large|much|many|few)|(?<!yours )(?<!you )(?:is|was|are|does|do)"
    r"(?:n't| not| never)\b(?! (?:it|we|you|they|he|she)\b)|incorrect|wrong|not (?:right|correct|quite|the)|seems? off"
    r"|a bit (?:high|low)|can't|cannot)\b", _I)
_RIGHT = re.compile(
    r"[^.?!\n]{0,30}?\b(?:is|was|looks|are|that's|that is|,|it's)\s+(?:\w+\s+){0,2}?(?:right|correct|spot on|perfect"
    r"|true|the answer|exactly right|it)\b(?! track| idea| direction)", _I)
_YES = re.compile(r"(?:\b(?:yes|yep|yeah|correct|exactly|indeed|perfect|confirm\w*|agree\w*|right that|is right"
    r"|are right|was right|were right|spot on|well done|you're right|you did it)\b[^?\n]{0,40})$", _I)
_QUOTED = re.compile(
    r"\b(?:you|your|you've|you'd|student|the student's)\b[^.?!;\n]{0,50}?\b(?:said|wrote|got|gave|have|had|used"
    r"|computed|calculated|found|answered|put|answer|result|value|attempt|response|claim\w*|total|is|was|took"
    r"|multiplied|added|subtracted|divided|proposed|suggest\w*|stopped|forgot|counted|mention\w*|started?"
    r"|with)\b[^.?!;,:\n]{0,20}?" + _FILL, _I)
_MINE = re.compile(r"\b(?:I|we)(?:'\w+)?\s+(?:\w+\s+){0,2}?(?:got|get|find|found|have|obtain\w*|calculated?|computed?"
    r"|counted?|see|end up with|expect|worked (?:it|this|that) out)(?: (?:it|this|that))?(?: (?:as|to be|at))?" + _FILL)
_MODAL = re.compile(
    r"'d\b|\b(?:compare|tell|told|show|give|promise|assure|if you|want|looking for|seek|after|should|must|will|would"
    r"|need|ought|supposed|actually|really|correct|right)\b|'ll\b", _I)
_LABEL = re.compile(
    r"(?:\b(?:step|line|part|turn|case|question|equation|eq|problem|section|chapter|page|figure|fig|hint|rule|row"
    r"|column|stage|point|item|option|level|round|attempt|method|approach|lemma|theorem|exercise|test|example"
    r"|iteration|index|note|day|week|grade|phase|try|sentence|paragraph|formula|shard|lines|steps|parts|equations|base"
    r"|mod|modulo)\.?\s*(?:#|no\.|number)?|#)\s*$", _I)
_META = re.compile(
    r"\s*-?(?:(?!(?:after|before|in|from|at|by|when|once|if|and|so|for|as|is|on|because"
    r"|with)\b)[\w-]+\s+){0,2}?(?:mistakes?|errors?|steps?|parts?|things?|ways?|cases?|pieces?|questions?|hints?"
    r"|numbers?|quantit\w+|operations?|values?|equations?|unknowns?|conditions?|facts?|details?|stages?|sentences?"
    r"|tries|attempts?|points?|places?|decimals?|significant|terms?|factors?|variables?|options?|possibilit\w+"
    r"|problems?|lines?|checks?|ideas?|reasons?|kinds?|types?|different|separate|other|calculations?|amounts?|prices?"
    r"|costs?|totals?|results?|expressions?|sides?|periods?|scenarios?|categor\w+|sums?|products?|more (?:step|time"
    r"|try|look|thing|hint)|choices?|of (?:the|these|those|your|them|its)|at a time|by one|groups?|people|person|half"
    r"|halves|equal|whole|step|digit|way|thing|place|detail|clue|rates?|sources?|unknown|pass|times?|chunks?|phases?"
    r"|sets?|sections?|bits?|contributions?|subtractions?|additions?|multiplications?|divisions?|moves?)\b", _I)
_LIST_MARK = re.compile(r"(?:^|\n)[\s*_#>-]*$")
_LIST_MARK_BEHIND = re.compile(r"[*_]*(?:[.):]|\s-)[*_]*\s+\S")
_ALONE = re.compile(r"(?:^|\n|[.!?]\s)[\s*_`$\"'(\[{\\#=>]*(?:boxed\{)?$")
_ALONE_BEHIND = re.compile(r"[\s*_`$\"')\]}\\%]*(?:[.!]+[\s*_`\"')]*)?(?:\n|$)")
_MONTH = re.compile(r"\b(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)[a-z]*\.?\s*$|\b(?:in|since"
    r"|year)\s*$", _I)
_NOT_UNITS = set(
    "more much many total of the did does do will are is were was can in a he she they it should would must have has "
    "different fewer less extra additional other new such there on to these".split())
_ASKED = re.compile(r"\b(?:how many|number of|what percent\w*|amount of)\s+((?:[a-z'-]+\s*){1,4})", _I)
# value: (units, of what): "60 minutes in an hour" says nothing about the answer 60.
_CONSTANTS = {
    2: ("pint", "quart"), 3: ("feet foot", "yard"), 4: ("quarter week quart side", "dollar month gallon year square"),
    5: ("day", "week nickel"), 7: ("day", "week"), 10: ("dime year", "dollar decade"),
    12: ("month inch egg item piece", "year foot feet dozen"), 16: ("ounce", "pound"), 20: ("nickel", "dollar"),
    24: ("hour", "day"), 26: ("letter", "alphabet"), 30: ("day", "month"), 31: ("day", "month"), 52: ("week", "year"),
    60: ("minute second", "hour minute"), 90: ("degree", "right"), 180: ("degree", "triangle line"),
    100: ("cent centimeter percent year cm", "dollar meter whole century"), 360: ("degree", "circle quadrilateral"),
    365: ("day", "year"), 1000: ("gram meter ml milliliter", "kilo liter kg km"), 2000: ("pound", "ton")}


class Context:
  """The text around one span; `units` are the nouns the problem asks for, in the singular."""

  def __init__(self, text: str, start: int, end: int, units: Collection[str]):
    self.left = text[max(0, start - 110) : start]
    self.right = text[end : end + 80]
    self.units = units
    sentence = max(self.left.rfind(c) for c in (". ", "! ", "? ", "\n"))
    self.clause = self.left[sentence + 1 :]

  def alone(self) -> bool:
    """The span is all there is in its line or sentence."""
    if not _ALONE.search(self.left):
      return False
    return bool(_ALONE_BEHIND.match(self.right)) or self.right[:1] == "!" or (
        self.right[:2] in (". ", "**") and self.right[2:3] != "." and not _LIST_MARK.search(self.left))

  def sure(self) -> bool:
    """Stated as the answer, whatever it counts."""
    if _DENIED.search(self.clause) or _GIVEN.search(self.clause) or (_WRONG.match(self.right)
        and not _SURE.search(self.clause)):
      return False
    return bool(_SURE.search(self.clause) or _MINE.search(self.clause) or _SURE_BEHIND.match(self.right))

  def stated(self, known: bool = False) -> bool:
    """A verb of result leads to the span, which ends its clause or counts what the problem asks for.

    known: the problem has the number too, so that a verb of its story says nothing.
    """
    if _DENIED.search(self.clause) or _WRONG.match(self.right) or _GIVEN.search(self.clause):
      return False
    lead = _RESULT.search(self.clause) or (not known and _ASSERT.search(self.clause))
    return bool((lead and (_END.match(self.right) or self.counts_asked())) or self.leftover())

  def told(self) -> bool:
    """Any verb of a story leads to the span, which ends its clause: "he needs 7 more"."""
    if _STORY.search(self.clause):
      return False
    return bool(_VERB.search(self.clause) and (re.match(r"\s+more\b(?!\s+(?:than|time|try|tries|step|thing|look"
        r"|hint))", self.right) or _END.match(self.right)))

  def ends_clause(self) -> bool:
    """The span ends a sentence, and no word before it makes it an operand or an index: "Let me be frank: 3." """
    return bool(_STRICT_END.match(self.right) and not _STORY.search(self.clause) and not _OPERAND.search(self.left)
        and not _DENIED.search(self.clause)
                and not _GIVEN.search(self.clause) and re.search(r"[A-Za-z:]", self.clause))

  def after_colon(self) -> bool:
    """ "So here it is: 8." """
    return self.ends_clause() and bool(re.search(r":[\s*_`$]*$", self.left))

  def determined(self) -> bool:
    """ "the 5 apples", which the reader is to know of """
    return bool(re.search(r"\b(?:the|those|these|his|her|their|its|all|both|each|every|other|your|first"
        r"|last)\s*[*_`$]*$", self.left, _I))

  def leftover(self) -> bool:
    """ "5 apples left", "5 in total" """
    return bool(_LEFTOVER.match(self.right)) and not _DENIED.search(self.clause)

  def counts_asked(self) -> bool:
    words = re.findall(r"[a-z]+", self.right[:40].lower())[:3]
    return bool(re.match(r"[\s*_`$)}\\-]*[A-Za-z]", self.right)) and any(singular(w) in self.units for w in words)

  def confirmed(self) -> bool:
    """What the student said is called right."""
    if _WRONG.match(self.right):
      return False
    return bool(_SURE_BEHIND.match(self.right) or _RIGHT.match(self.right) or _YES.search(self.left[-70:]) or (
        _SURE.search(self.clause) and not self.quoted()))

  def quoted(self) -> bool:
    """The student's own number: "you got 18", "your answer of 18"."""
    found = _QUOTED.search(self.clause)
    return bool(found) and not _MODAL.search(self.clause, max(0, found.start() - 15)) and not (
        _MINE.search(self.clause) or _SURE_BEHIND.match(self.right))

  def label(self, value: Fraction) -> bool:
    """ "step 3", "3. Divide" """
    return bool(_LABEL.search(self.left)) or bool(
        value <= 30 and _LIST_MARK.search(self.left) and _LIST_MARK_BEHIND.match(self.right))

  def counts_hints(self) -> bool:
    """ "2 mistakes", "one of the steps" """
    return bool(_META.match(self.right)) and not self.counts_asked() and not self.leftover()

  def date(self, value: Fraction) -> bool:
    """ "May 5", "in 2024" """
    found = _MONTH.search(self.left)
    return bool(found) and (1900 <= value <= 2100 or (value <= 31 and not found[0].lower().startswith(("in", "since",
        "year"))))

  def constant(self, value: int) -> bool:
    units, wholes = _CONSTANTS.get(value, ("", ""))
    near = f"{self.clause[-50:]} {self.right[:50]}".lower()
    return bool(units) and any(u in near for u in units.split()) and any(w in near for w in wholes.split())

  def in_formula(self) -> bool:
    """An exponent, an index, or the factor of a letter."""
    return bool(re.search(r"[\^_]\s*\{?\s*-?$|[A-Za-z]_?$|\\\w+\{?$|(?:[(\[]|\d\s*,)\s*$", self.left) and not re.search(
        r"\\(?:boxed|fbox|text\w*|math\w+|emph|bm|underline)\{$|\s\\?\($",
        self.left)) or bool(re.match(r"[a-z]\b(?<![msghlkt])|\s*[\^]|\\?[a-z]\(", self.right))


def units_of(problem: str) -> frozenset[str]:
  """The nouns behind "how many" in a problem."""
  found = set()
  for m in _ASKED.finditer(problem):
    words = [w for w in re.findall(r"[a-z]+", m[1].lower())]
    while words and words[0] in _NOT_UNITS:
      words.pop(0)
    for w in words[:2]:
      if w in _NOT_UNITS:
        break
      found.add(singular(w))
  if re.search(r"\$|dollar|how much", problem, _I):
    found |= {"dollar", "buck"}
  if re.search(r"how old|\bage\b", problem, _I):
    found |= {"year"}
  if re.search(r"how long|how much time", problem, _I):
    found |= {"hour", "minute", "day", "week", "year", "second"}
  found |= {singular(m) for m in re.findall(r"\bin (inches|feet|cm|meters|miles|kilometers|cents|hours|minutes|seconds"
      r"|days|weeks|years|pounds|grams|kilograms|gallons|liters|ounces|degrees)\b", problem.lower())}
  if re.search(r"percent|%", problem, _I):
    found |= {"percent"}
  return frozenset(found)


def singular(word: str) -> str:
  if word in ("inches", "boxes", "classes", "bushes", "dishes", "watches", "buses", "glasses", "dresses", "matches",
      "branches"):
    return word[:-2]
  if word.endswith("ies") and len(word) > 4:
    return word[:-3] + "y"
  return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 2 else word
