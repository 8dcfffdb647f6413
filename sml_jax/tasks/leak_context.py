"""What the words around a number make of it: the answer stated, a quantity of the problem, a quote, a label."""

from __future__ import annotations

import re
from collections.abc import Collection
from fractions import Fraction

_I = re.IGNORECASE
_FILL = (r"(?:[\s*_`$\"'(\[{~|]|\\[(\[$]|\\(?:text\w*|math\w+|boxed|fbox|bm|emph|underline)\b|(?<=[a-z:=] )\+"
    r"|\b(?:exactly|just|only|about|simply|precisely|actually|really|indeed|then|now|"
         r"a total of|the number|number|value of|equal to|be|the|of|a|an|in fact|approximately|us|you|him|her"
         r"|them|to)\b)*$")
_ASSERT = re.compile(
    r"(?:\b(?:answer|solution|outcome|result|total|sum|product|difference|value|number|amount|count|figure|cost"
    r"|price|quotient)\b"
    r"[^.!?;\n]{0,60}?(?:\b(?:is|are|be|equals?|was|comes (?:out )?to|works out to)|'s|[=:]|->|-)"
    r"|\banswer|\banswer (?:here )?(?:of|as)"
    r"|(?:\b(?:should|must|will|would|can|shall|ought|need|want|supposed|has|have|could|expect|looking)"
    r"|'ll)(?:'ve)?\s+(?:[\w']+\s+){0,4}?"
    r"(?:be|been|get|have|equal|see|find|reach|obtain|give|yield|make|come|end|arrive|say|read|write|output|leave|total"
    r"|for|need|take|"
    r"show|land|report)(?:\s+(?:out|up|to|as|with|at|on|down|being))*"
    r"|=|\bequals?|\bequal to|->|\bmakes|\bgives|\bgiving|\bgive|\byields?|\byielding|\bleaves|\bleaving|\bleave"
    r"|\bmaking|"
    r"\bcom(?:es?|ing) (?:out )?(?:to|as)|\bwork(?:s|ing)? out (?:to|as)|\badds? up to|\badding up to|\btotals?"
    r"|\btotall?ing|"
    r"\bamount(?:s|ing)? to|\barriv\w+ at|\bend(?:s|ing)? (?:up )?(?:with|at|being|on)|\bresult(?:s|ing)? in|\bgets?|"
    r"\bgetting|\bobtain(?:s|ing)?|\bbecomes?|\breach(?:es)?|\bproduces?|\breturns?|\bleft with|\bland(?:s|ing|ed)? on|"
    r"\bgot|\bboils down to|\bmean(?:s|ing)?(?: that)?|\breduces? to|\bsimplif\w+ to|\bhave|\bhas|\b(?:we|you) want"
    r"|\b(?:so|thus|hence|therefore|it's|it is|that's|that is|which is|they are|is|are|was|were|be|it's)(?: that)?,?"
    r"|\b(?:try|go with|put|write(?: down)?|enter|submit|box|type|confirm|settle on|answer|say|report|namely"
    r"|conclude)(?: that)?:?"
    r")" + _FILL, _I)
# Stated whatever follows, and even if the problem has the same number.
_SURE = re.compile(
    r"(?:\b(?:answer|solution|outcome|target)\b(?! of\b)[^.!?;\n]{0,50}?(?:\b(?:is|are|be|equals?|was|says|reads"
    r"|comes (?:out )?to|works out to|to be)|'s|"
    r"[=:]|->|-)|=|\bequals|\bequal to|\bcom(?:es?|ing) out (?:to|as)|\bworks? out (?:to|as)|\barriv\w+ at"
    r"|\b(?:answer|go with|settle on)|"
    r"\b(?:final|correct|right|true|actual|exact)(?: \w+){1,2}\s*(?:\b(?:is|of|are)|=|:)"
    r"|\b(?:compare|check) (?:your|the) (?:answer|result|value|total)\w* (?:with|against|to)"
    r"|\b(?:correct|right) (?:would (?:have been|be)|with|if you (?:had )?(?:said|written|answered))"
    r"|\b(?:asked for|in question|required|requested|wanted|needed|sought)\b[^.!?,;\n]{0,15}\b(?:is|are|equals)"
    r"|\b(?:I|we|everyone|everybody|everyone else|others?|book|sheet|key|class)\b[^.?!\n]{0,30}\b(?:replied"
    r"|found|says?|answered|gives?|wrote)"
    r"|\byou(?:'re| are)? (?:want|need|looking for|after|seek)\w*(?: \w+)? (?:is|are|:)|\\boxed ?\{|####"
    r"|\bbox(?:ed)?:?)" + _FILL, _I)
_GIVEN = re.compile(r"\b(?:let|set|with|if|when|suppose|where|for|use|using|try|given|plug\w*|put|says?"
    r"|case)\b[^.!?;,=]{0,12}=\s*\$?$", _I)
# What leads to a result and not to a quantity of the story ("Tom has 5", "each gets 5").
_RESULT = re.compile(
    r"(?:\b(?:answer|solution|outcome|result|total|sum|product|difference|quotient)\b[^.!?;\n]{0,50}?(?:\b(?:is"
    r"|are|be|equals?|was|of|as|to)|'s|[=:]|->|-)"
    r"|\b(?:f|it|call|code|function|loop|program|method|trace|this|that|which|slice|line)\b[^.!?\n,]{0,20}"
    r"\b(?:returns?|prints?|outputs?|leaves|ends (?:up )?(?:with|as|at))"
    r"|=|\bequals?|\bequal to|->|\bcom(?:es?|ing) (?:out )?to|\bwork(?:s|ing)? out (?:to|as)|\badd(?:s"
    r"|ing)? up to|\bamount(?:s|ing)? to|"
    r"\barriv\w+ at|\bend(?:s|ing)? (?:up )?(?:with|at|being|on|in)|\bresult(?:s|ing)? in|\bleft with|\bland(?:s"
    r"|ing|ed)? on|\bboils down to|"
    r"\breduces? to|\bsimplif\w+ to|\byield\w*|\bgiving|\bleaving|\bmaking|\btotal(?:s|ling)|"
    r"\b(?:that|which|this|it|we|you|calculation|subtraction|addition|multiplication|division|\w+ing\b[^.!?\n]{0,30}) "
    r"(?:just |simply |finally |then |now )?(?:gives?|makes?|leaves?|gets?|obtains?|reach(?:es)?|produces?"
    r"|becomes|totals)|"
    r"\b(?:should|must|will|would|supposed|expect|ought|has|need|'ll)(?:'ve)?\s+(?:[\w']+\s+){0,3}?(?:be|been|get|have|equal"
    r"|see|find|reach|obtain|give|yield|make|come|end|"
    r"arrive|say|read|write|output|leave|total|show|land|report)(?:\s+(?:out|up|to|as|with|at|on|down|being))*"
    r"|\b(?:so|thus|hence|therefore|it's|it is|that's|that is|which is|yes|exactly|indeed|correct"
    r"|right)(?: that)?[,:!]*(?: it(?: i|')s)?"
    r"|\b(?:go with|enter|submit|box|confirm|settle on|answer|namely|conclude|in other words,?|i\.e\.,?|(?:just"
    r"|simply) (?:say|write|put|type)|wr(?:ite|ote|itten) down)"
    r"(?: that)?:?)" + _FILL, _I)
_STORY = re.compile(r"\b(?:problem|story|text|question|statement|sentence|mentions?)\b", _I)
_STRICT_END = re.compile(r"[\s*_`$\"')\]}]*(?:[.!](?:\s|$)|$|\n|,? (?:but|so)\b)")
_OPERAND = re.compile(
    r"(?:\b(?:by|times|plus|minus|of|from|and|or|to|with|than|over|mod|modulo|factor|power|like|say|into|for|in"
    r"|at|on|between|per|"
    r"number|numbers|the|your|a|an|add|subtract|multiply|divide|use|used|consider|try|case|every|each|first|last"
    r"|only|other|another|"
    r"these|those|both|all|as|twice|about|around|without|part|value|values|digit|term)|[-+*/^<>=(,&]"
    r"|\\[a-z]+\{?)\s*[*_`$\"']*$", _I)
_COMPARED = re.compile(r"\s*(?:[a-z]+\s+)?(?:taller|shorter|older|younger|faster|slower|longer|heavier|lighter"
    r"|farther|further|higher|lower|"
                       r"deeper|wider|cheaper|bigger|larger|smaller|earlier|later)\b", _I)
_VERB = re.compile(
    r"\b(?!minus|plus|times|this|its|steps|parts|adds|added|subtracts|subtracted|multiplies|multiplied|divides"
    r"|divided|was\b|less|"
    r"numbers|values|across|always|perhaps|besides|unless|towards)[a-z]{2,}(?:[^s]s|ed)\s+(?:\w+\s+)?" + _FILL, _I)
_SURE_BEHIND = re.compile(
    r"[\s*_`\"')\]}$%]*(?:\w+\s+){0,2}?,?\s*(?:(?:that|this|which)?\s*(?:is|would be|should be|must be|has to be|'s|was"
    r"|being|as|,|-|are)\s+)"
    r"(?:(?:indeed|exactly|precisely|actually|simply|clearly|in fact|also|your|our|the|a|really|spot|absolutely)\s+)*"
    r"(?:(?:final|correct|right|whole|exact|true|actual|expected|only|desired|required|requested)\s+)*"
    r"(?:answer|solution|correct|right|result|on\b|what (?:you|we|the (?:question|problem))|it\b|where you)"
    r"|[\s*_`$%,\"')\]}]*(?:\w+ )?(?:in(?:to)? the (?:answer )?box|as (?:your|the|a) (?:final )?(?:answer|solution"
    r"|result)|for the final answer)"
    r"|[\s*_`$%.,\"')\]}]*(?:and|then)\b,? (?:you|that)\b[^.?!\n]{0,12} (?:have|got|get|is|are) (?:(?:the|your)"
    r" (?:answer|solution|result)|done|finished)", _I)
_END = re.compile(
    r"[\s*_`$\"')\]}\\|%]*(?:[.,;:!?]|$|\n|-|->|\b(?:and|so|left|remain\w*|in (?:total|all)|altogether|overall"
    r"|total|as|because|since|when|"
    r"if|which|not|for|once|after|rather|instead|here|there|again|finally|now|exactly|per|at|on|in|with|by|but"
    r"|too|or|to|is|would|that|after)\b)", _I)
_LEFTOVER = re.compile(
    r"[\s*_`$\"')\]}\\%-]*(?:more\s+)?(?:[A-Za-z-]+\s+){0,4}?(?:left|still|remain(?:ing|s)?|in (?:total|all)"
    r"|altogether|"
                       r"overall|all together|total|to spare|combined)\b", _I)
_DENIED = re.compile(
    r"(?:\bnot|n't|\bnever|\binstead of|\brather than|\bthan|\bexceed\w*|\babove|\bbelow|\bat (?:least|most)|\bbetween|"
    r"\bunder|\bover|\bnear|\bclose to|\baround|\broughly|\bwithout|\bminimum of"
    r"|\bmaximum of)\s*(?:\w+\s+){0,2}?" + _FILL, _I)
_WRONG = re.compile(
    r"[^.?!\n]{0,30}?\b(?:too\s+(?:high|low|big|small|large|much|many|few)|(?<!yours )(?<!you )(?:is|was|are|does|do)(?:n't| not| never)\b(?! (?:it|we|you|they|he|she)\b)|"
    r"incorrect|wrong|not (?:right|correct|quite|the)|seems? off|a bit (?:high|low)|can't|cannot)\b", _I)
_RIGHT = re.compile(
    r"[^.?!\n]{0,30}?\b(?:is|was|looks|are|that's|that is|,|it's)\s+(?:\w+\s+){0,2}?(?:right|correct|spot on"
    r"|perfect|true|the answer|"
    r"exactly right|it)\b(?! track| idea| direction)", _I)
_YES = re.compile(r"(?:\b(?:yes|yep|yeah|correct|exactly|indeed|perfect|confirm\w*|agree\w*|right that|is right"
    r"|are right|was right|"
                  r"were right|spot on|well done|you're right|you did it)\b[^?\n]{0,40})$", _I)
_QUOTED = re.compile(
    r"\b(?:you|your|you've|you'd|student|the student's)\b[^.?!;\n]{0,50}?\b(?:said|wrote|got|gave|have|had|used"
    r"|computed|calculated|found|"
    r"answered|put|answer|result|value|attempt|response|claim\w*|total|is|was|took|multiplied|added|subtracted|divided|"
    r"proposed|suggest\w*|stopped|forgot|counted|mention\w*|started?|with)\b[^.?!;,:\n]{0,20}?" + _FILL, _I)
_MINE = re.compile(r"\b(?:I|we)(?:'\w+)?\s+(?:\w+\s+){0,2}?(?:got|get|find|found|have|obtain\w*|calculated?"
    r"|computed?|counted?|see|"
                   r"end up with|expect|worked (?:it|this|that) out)(?: (?:it|this|that))?(?: (?:as|to be"
                   r"|at))?" + _FILL)
_MODAL = re.compile(r"'d\b|\b(?:tell|told|show|give|promise|assure|if you|want|looking for|seek|after|should"
    r"|must|will|would|need|ought|supposed|actually|really|correct|right)\b|'ll\b", _I)
_LABEL = re.compile(
    r"(?:\b(?:step|line|part|turn|case|question|equation|eq|problem|section|chapter|page|figure|fig|hint|rule"
    r"|row|column|"
    r"stage|point|item|option|level|round|attempt|method|approach|lemma|theorem|exercise|test|example|iteration|index|"
    r"note|day|week|grade|phase|try|sentence|paragraph|formula|shard|lines|steps|parts|equations|base|mod|modulo)\.?\s*"
    r"(?:#|no\.|number)?|#)\s*$", _I)
_META = re.compile(
    r"\s*-?(?:(?!(?:after|before|in|from|at|by|when|once|if|and|so|for|as|is|on|because"
    r"|with)\b)[\w-]+\s+){0,2}?(?:mistakes?|errors?|steps?|parts?|things?|ways?|cases?|pieces?|questions?|hints?"
    r"|numbers?|"
    r"quantit\w+|operations?|values?|equations?|unknowns?|conditions?|facts?|details?|stages?|sentences?|tries"
    r"|attempts?|"
    r"points?|places?|decimals?|significant|terms?|factors?|variables?|options?|possibilit\w+|problems?|lines?|checks?|"
    r"ideas?|reasons?|kinds?|types?|different|separate|other|calculations?|amounts?|prices?|costs?|totals?|results?|"
    r"expressions?|sides?|periods?|scenarios?|categor\w+|sums?|products?|more (?:step|time|try|look|thing|hint)"
    r"|choices?|"
    r"of (?:the|these|those|your|them|its)|at a time|by one|groups?|people|person|half|halves|equal|whole|step"
    r"|digit|way|"
    r"thing|place|detail|clue|rates?|sources?|unknown|pass|times?|chunks?|phases?|sets?|sections?|bits?|contributions?|"
    r"subtractions?|additions?|multiplications?|divisions?|moves?)\b", _I)
_LIST_MARK = re.compile(r"(?:^|\n)[\s*_#>-]*$")
_LIST_MARK_BEHIND = re.compile(r"[*_]*(?:[.):]|\s-)[*_]*\s+\S")
_ALONE = re.compile(r"(?:^|\n|[.!?]\s)[\s*_`$\"'(\[{\\#=>]*(?:boxed\{)?$")
_ALONE_BEHIND = re.compile(r"[\s*_`$\"')\]}\\%]*(?:[.!]+[\s*_`\"')]*)?(?:\n|$)")
_MONTH = re.compile(r"\b(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)[a-z]*\.?\s*$|\b(?:in|since"
    r"|year)\s*$", _I)
_SMALL = {"one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"}
_NOT_UNITS = {"more", "much", "many", "total", "of", "the", "did", "does", "do", "will", "are", "is", "were", "was",
              "can", "in", "a", "he", "she", "they", "it", "should", "would", "must", "have", "has", "different",
              "fewer", "less", "extra", "additional", "other", "new", "such", "there", "on", "to", "these"}
_ASKED = re.compile(r"\b(?:how many|number of|what percent\w*|amount of)\s+((?:[a-z'-]+\s*){1,4})", _I)
# value: (units, of what): "60 minutes in an hour" says nothing about the answer 60.
_CONSTANTS = {
    60: ("minute second", "hour minute"), 24: ("hour", "day"), 7: ("day", "week"), 52: ("week", "year"),
    12: ("month inch egg item piece", "year foot feet dozen"), 365: ("day", "year"), 30: ("day", "month"),
    31: ("day", "month"),
    100: ("cent centimeter percent year cm", "dollar meter whole century"), 1000: ("gram meter ml milliliter",
    "kilo liter kg km"),
    16: ("ounce", "pound"), 3: ("feet foot", "yard"), 4: ("quarter week quart side", "dollar month gallon year square"),
    10: ("dime year", "dollar decade"), 20: ("nickel", "dollar"), 180: ("degree", "triangle line"),
    360: ("degree", "circle quadrilateral"), 90: ("degree", "right"), 2000: ("pound", "ton"), 2: ("pint", "quart"),
    5: ("day", "week nickel"), 26: ("letter", "alphabet")}


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
    lead = (_RESULT if known else _ASSERT).search(self.clause)
    return bool((lead and (_END.match(self.right) or self.counts_asked())) or self.leftover())

  def number_of_asked(self) -> bool:
    """ "so the number of boys is 8", "Boys: 8" """
    found = re.search(r"\bnumber of (?:\w+ )?(\w+)\b[^.!?;,\n]{0,25}(?:\b(?:is|are|be|equals?)"
        r"|[=:])[\s*_`$]*$", self.clause, _I) or re.search(
        r"(?:^|[.!?]\s+|\n)[\s*_-]*(\w+)\s*[:=][\s*_`$]*$", self.left, _I)
    return bool(found) and singular(found[1].lower()) in self.units and bool(_END.match(self.right))

  def told(self) -> bool:
    """Any verb of a story leads to the span, which ends its clause: "he needs 7 more"."""
    if _STORY.search(self.clause):
      return False
    if _COMPARED.match(self.right) and re.search(r"\b(?:is|are|was|were|be|'s)\s+(?:\w+\s+)?$", self.clause):
      return True
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

  def label(self) -> bool:
    return bool(_LABEL.search(self.left)) or bool(
        _LIST_MARK.search(self.left) and _LIST_MARK_BEHIND.match(self.right))

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

  def restated(self, problem: str) -> bool:
    """The words around the span stand in the problem (in `flat` form)."""
    if re.search(r"\banswer\b", self.clause, _I):
      return False
    left, right = flat(self.clause).split(), flat(self.right).split()
    return (len(left) > 2 and f" {' '.join(left[-3:])} # " in problem) or (len(left) > 1 and len(right) > 1 and (
        f" {' '.join(left[-2:])} # {' '.join(right[:2])} " in problem))


def flat(text: str) -> str:
  """Words and signs with single spaces; every number is #."""
  words = re.findall(r"[a-z]+|\d+(?:\.\d+)?|[=+/*-]", text.lower().replace(",", ""))
  return f" {' '.join('#' if w[0].isdigit() or w in _SMALL else w for w in words)} "


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
  found |= {singular(m) for m in re.findall(r"\bin (inches|feet|cm|meters|miles|kilometers|cents|hours|minutes"
      r"|seconds|days|weeks|years|pounds|"
                                            r"grams|kilograms|gallons|liters|ounces|degrees)\b", problem.lower())}
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
