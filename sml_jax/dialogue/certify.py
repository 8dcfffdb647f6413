"""Whether a tokenizer and a chat format do what training relies on: one line a check, then the verdict.

  python -m sml_jax.dialogue.certify --tokenizer=DIR --family=qwen3 --thinking=strip

Exit codes: 0 certified, 1 a check failed, 2 bad input. The comparison with the family's own chat template needs the
package transformers, and a template in the folder; it is skipped without them.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sml_jax.data.rows import token_rows
from sml_jax.dialogue.chat import FAMILIES
from sml_jax.dialogue.record import Dialogue
from sml_jax.dialogue.renderer import Renderer, make_renderer
from sml_jax.dialogue.tokenizer_files import configured_stop_ids, read_json
from sml_jax.errors import UserError

DIALOGUES, SEQUENCES = 60, 2000
WORDS = (
    "Find", " x", " =", " 12", "345", "6.5", ", and", " so", "\n", "\n\n", "\n\n\n", "  ", "\t", "def f(n):\n    n",
    "né", " naïve", " 你好", "😀", " Ω≈", "'s", " don't", "$\\frac{1}{2}$", "?", ".", " </b>", "<", "user", "model",
)  # fmt: skip

Outcome = tuple[str, str]
"""PASS, FAIL or SKIP, and why."""
Sample = tuple[str, list[str]]
"""A system text ("" = none) and the turns' texts, teacher first, teacher last."""


def certify(make: Callable[..., Renderer]) -> Iterator[tuple[str, Outcome]]:
  """Every check's name and outcome, one after the other.

  Args:
    make: `make_renderer` with its tokenizer and family, which takes the other arguments; see main.
  """
  renderer = make()
  samples = _samples(renderer, np.random.default_rng(0))
  yield "text comes back", _text_comes_back(renderer, samples)
  yield "header and text join", _header_and_text_join(renderer, samples)
  yield "renders extend", _renders_extend(renderer, samples)
  yield "end of turn is in the loss", _end_is_trained(renderer, samples)
  yield "mask counts student tokens", _mask_counts(renderer, samples)
  yield "all stop ids are known", _stops_are_known(renderer)
  yield "ids stay as sampled", _ids_stay(renderer)
  yield "text can not forge a role", _no_forging(renderer)
  yield "equals the chat template", _equals_template(make, samples)


def _samples(renderer: Renderer, rng: np.random.Generator) -> list[Sample]:
  text = lambda: "".join(rng.choice(WORDS, rng.integers(0, 12)))
  # What a written student turn begins with is encoded apart from its header: no line break there.
  said = lambda: text().lstrip()
  if renderer.enable_thinking:
    said = lambda: f"<think>\n{text().strip()}.\n</think>\n\n{text().lstrip()}"
  return [
      ("Be brief.\n\nBe kind." * (n % 2), [said() if i % 2 else text() for i in range(2 * (n % 4) + 1)])
      for n in range(DIALOGUES)
  ]


def build(renderer: Renderer, sample: Sample) -> Dialogue:
  """The dialogue of written turns."""
  system, (first, *rest) = sample
  turns = [renderer.student_turn(t) if n % 2 == 0 else renderer.teacher_turn(t) for n, t in enumerate(rest)]
  return Dialogue("t", "d", 0, "full", [renderer.first_turn(first, system), *turns], bos=renderer.bos)


def _text_comes_back(renderer: Renderer, samples: Sequence[Sample]) -> Outcome:
  texts = {t for _, turns in samples for t in turns}
  for text in texts:
    if (back := renderer.decode(list(renderer.encode(text)))) != text:
      return "FAIL", f"{text[:60]!r} comes back as {back[:60]!r}: the tokenizer changes what is said"
  return "PASS", f"{len(texts)} texts"


def _header_and_text_join(renderer: Renderer, samples: Sequence[Sample]) -> Outcome:
  """The ids of header and text, each by itself, are those of both in one string."""
  header = (renderer.chat.student + renderer.chat.thought * (not renderer.enable_thinking)).rpartition(">")[2]
  for _, turns in samples:
    for text in turns[1::2]:
      apart, whole = (*renderer.encode(header), *renderer.encode(text)), renderer.encode(header + text)
      if apart != whole:
        return "FAIL", f"{header!r} and {text[:40]!r}: {list(apart)[:12]} apart, {list(whole)[:12]} together"
  return "PASS", f"{header!r} before {sum(len(turns) // 2 for _, turns in samples)} texts"


def _renders_extend(renderer: Renderer, samples: Sequence[Sample]) -> Outcome:
  strip, think = renderer.thinking == "strip", {renderer.special.get(p) for p in ("<think>", "</think>")}
  for sample in samples:
    d = build(renderer, sample)
    cut = lambda n, d=d: renderer.render(Dialogue("t", "d", 0, "full", d.turns[:n], bos=d.bos))
    # With stripping, what a student sees grows from teacher turn to teacher turn.
    lengths = range(1, len(d.turns) + 1, 2 if strip else 1)
    for shorter, longer in itertools.pairwise(lengths):
      if cut(longer)[: len(cut(shorter))] != cut(shorter):
        return "FAIL", f"turns 1 to {longer} do not begin with turns 1 to {shorter}: {sample[1]!r:.80}"
    if strip and think & set(cut(len(d.turns))):
      return "FAIL", "thinking is left in the context of a later turn"
  why = "from one teacher turn to the next; what was thought between them is cut out" if strip else "turn by turn"
  return "PASS", f"{len(samples)} dialogues, {why}"


def _end_is_trained(renderer: Renderer, samples: Sequence[Sample]) -> Outcome:
  ends = 0
  for sample in samples:
    d = build(renderer, sample)
    for row in token_rows(d):
      last = np.flatnonzero((row["weights"] > 0) & (np.append(row["weights"][1:], 0) == 0))
      if not set(row["tokens"][last].tolist()) <= set(renderer.stop_ids):
        return "FAIL", f"a student turn's last trained token is none of the stop ids {renderer.stop_ids}"
      ends += len(last)
    ends -= len(d.student_turns)
  return ("FAIL", f"{abs(ends)} ends of turn are not in the loss") if ends else ("PASS", "once a student turn")


def _mask_counts(renderer: Renderer, samples: Sequence[Sample]) -> Outcome:
  """Against the tokenizer alone, which knows nothing of turns."""
  total = 0
  for sample in samples:
    masked = sum(int(row["weights"].sum()) for row in token_rows(build(renderer, sample)))
    said = [t.strip() if renderer.chat.trim else t for t in sample[1][1::2]]
    counted = sum(len(renderer.tokenizer.encode(t)) + 1 for t in said)
    if masked != counted:
      return "FAIL", f"{masked} tokens are trained, {counted} were said: {sample[1]!r:.80}"
    total += masked
  return "PASS", f"{total} tokens, ends of turn included"


def _stops_are_known(renderer: Renderer) -> Outcome:
  known, folder = renderer.stop_ids, renderer.file.parent
  wanted = {f"{name}'s eos_token_id": ids for name, ids in configured_stop_ids(folder).items()}
  missing = [p for p in renderer.chat.stops if renderer.tokenizer.id_of(p) is None]
  if (folder / "tokenizer_config.json").exists():
    eos = read_json(folder / "tokenizer_config.json").get("eos_token") or []
    eos = eos.get("content") if isinstance(eos, dict) else eos
    wanted["tokenizer_config.json's eos_token"] = [renderer.tokenizer.id_of(eos)] if eos else []
  for where, ids in wanted.items():
    if unknown := set(ids) - set(known):
      return "FAIL", f"{where} has {unknown}, which do not end a turn here; those that do: {known}"
  if missing and not any(wanted.values()):
    return "FAIL", f"the tokenizer has no {' and no '.join(missing)}, and no file beside it says what ends a turn"
  names = ", ".join(f"{i} {p}" for i, p in zip(known, renderer.pieces(known), strict=True))
  return "PASS", names + "".join(f"; the tokenizer has no {p}" for p in missing)


def _ids_stay(renderer: Renderer) -> Outcome:
  rng, changed = np.random.default_rng(1), 0
  opening = renderer.first_turn("Find x.")
  for _ in range(SEQUENCES):
    ids = [*rng.integers(0, renderer.vocab_size, rng.integers(1, 13)).tolist(), renderer.stop_ids[0]]
    turn = renderer.sampled_turn(list(ids), [-1.0] * len(ids))
    (row,) = token_rows(Dialogue("t", "d", 0, "full", [opening, turn], bos=renderer.bos))
    if row["tokens"][row["weights"] > 0].tolist() != ids or turn.tokens != ids:
      return "FAIL", f"{ids} became {row['tokens'][row['weights'] > 0].tolist()}"
    changed += [*renderer.encode(turn.text), renderer.stop_ids[0]] != ids
  return "PASS", f"{SEQUENCES} random sequences; decoding and encoding would have changed {changed} of them"


def _no_forging(renderer: Renderer) -> Outcome:
  spelled = sorted(renderer.special)
  for piece in spelled:
    for text in (piece, f"x{piece}{piece}y", f"<{piece}", f"{piece[:-1]}{piece}"):
      ids = renderer.encode(text)
      if renderer.never_in_text & set(ids) or renderer.decode(list(ids)) != text:
        return "FAIL", f"{text!r} becomes {renderer.pieces(ids)}"
  return "PASS", f"{len(spelled)} pieces spelled out in text stay plain, such as {spelled[0]}"


def _equals_template(make: Callable[..., Renderer], samples: Sequence[Sample]) -> Outcome:
  renderer = make()
  folder = renderer.file.parent
  try:
    from transformers import AutoTokenizer
  except ImportError:
    return "SKIP", "the package transformers is not installed"
  if not (folder / "tokenizer_config.json").exists():
    return "SKIP", f"{folder} has no tokenizer_config.json"
  try:
    theirs = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
  except Exception as e:  # whatever a foreign library raises on a broken folder
    return "FAIL", f"transformers does not read {folder}: {str(e).splitlines()[0]}"
  if not theirs.chat_template:
    return "SKIP", f"{folder} has no chat template"

  def template(sample: Sample) -> list[int]:
    roles = [{"role": "system", "content": sample[0]}] * bool(sample[0])
    roles += [{"role": ("user", "assistant")[n % 2], "content": t} for n, t in enumerate(sample[1])]
    return list(theirs.apply_chat_template(
        roles, tokenize=True, add_generation_prompt=True, return_dict=False, enable_thinking=renderer.enable_thinking
    ))  # fmt: skip

  ours = lambda r, sample: [*r.render(build(r, sample)), *r.student_prompt()]
  expected = [template(s) for s in samples]
  first_difference = lambda r, samples: next((i for i, s in enumerate(samples) if ours(r, s) != expected[i]), None)
  if (wrong := first_difference(renderer, samples)) is None:
    return "PASS", f"the same ids before every student turn of {len(samples)} dialogues"
  if renderer.chat.thought:
    other = "keep" if renderer.thinking == "strip" else "strip"
    if first_difference(make(thinking=other), samples) is None:
      does = ("drops", "keeps") if other == "strip" else ("keeps", "drops")
      return "PASS", (f"documented difference: the template {does[0]} the thinking of past turns, "
                      f'thinking="{renderer.thinking}" {does[1]} it; else the same')  # fmt: skip
  if system := _own_system_text(renderer, template(("", ["x"])), ours(renderer, ("", ["x"]))):
    if first_difference(renderer, [(system + s.rstrip(), turns) for s, turns in samples]) is None:
      return "PASS", (f"documented difference: the template begins with a system text of its own, {system!r}, which "
                      "here is written only if it is given as the system text; else the same")  # fmt: skip
  got, want = ours(renderer, samples[wrong]), expected[wrong]
  at = next((i for i, (a, b) in enumerate(zip(got, want, strict=False)) if a != b), min(len(got), len(want)))
  show = lambda ids: "".join(renderer.pieces(ids[max(0, at - 3) : at + 8]))
  return "FAIL", f"from token {at}: {show(got)!r} here, {show(want)!r} in the template"


def _own_system_text(renderer: Renderer, theirs: list[int], ours: list[int]) -> str:
  """The system text in `theirs`, if that is what it has more than `ours`; else ""."""
  start = len(renderer.bos)
  block = theirs[start : len(theirs) - len(ours) + start]
  header = renderer.chat.system
  text = renderer.decode(block)
  if not header or not text.startswith(header) or not text.endswith(renderer.chat.end + renderer.chat.between):
    return ""
  return text[len(header) : -len(renderer.chat.end + renderer.chat.between)]


def main(argv: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
      prog="python -m sml_jax.dialogue.certify", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--tokenizer", required=True, help="folder of a checkpoint, or its tokenizer file")
  parser.add_argument("--family", required=True, choices=sorted(FAMILIES), help="chat format")
  parser.add_argument("--thinking", default="keep", choices=["keep", "strip"], help="thinking policy (default: keep)")
  parser.add_argument("--enable_thinking", action="store_true", help="let the student think (Qwen3)")
  given = parser.parse_args(argv)

  def make(**changed) -> Renderer:
    policy = {"thinking": given.thinking, "enable_thinking": given.enable_thinking}
    return make_renderer(given.tokenizer, given.family, **policy | changed)

  try:
    renderer, outcomes = make(), []
    print(f"{renderer.file} ({renderer.fingerprint}): {renderer.vocab_size} ids, format {renderer.chat.name}")
    for name, (outcome, why) in certify(make):
      outcomes.append(outcome)
      print(f"  {outcome}  {name:<27} {why}", flush=True)
  except UserError as e:
    print(f"error: {e}", file=sys.stderr)
    return 2
  failed, skipped = outcomes.count("FAIL"), outcomes.count("SKIP")
  if failed:
    print(f"NOT certified: {failed} of {len(outcomes)} checks failed")
  else:
    print(f"certified: {len(outcomes) - skipped} checks passed, {skipped} skipped")
  return 1 if failed else 0


if __name__ == "__main__":
  sys.exit(main())
