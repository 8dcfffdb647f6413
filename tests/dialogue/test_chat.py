"""The families' chat formats: layouts by hand, ids equal to transformers' templates, forging, thinking."""

from __future__ import annotations

import dataclasses
import json
import random

import chat_folders
import numpy as np
import pytest
from transformers import AutoTokenizer

from sml_jax.data.rows import token_rows
from sml_jax.dialogue.record import Dialogue
from sml_jax.dialogue.renderer import Renderer, TokenizerError, make_renderer
from sml_jax.errors import UserError

DATED = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
  path = tmp_path_factory.mktemp("families")
  out = {name: str(make(path / name)) for name, make in chat_folders.FAMILIES.items()}
  return out | {"llama3 dated": str(chat_folders.llama3(path / "dated", dated=True))}


def spelled(renderer: Renderer, tokens: list[int]) -> str:
  return renderer.tokenizer.decode(tokens)


LAYOUT = {  # before the first turn, the first turn, the student's header, what it says, the reply
    "gemma3": [
        "<bos>",
        "<start_of_turn>user\nbe kind.\n\nFind x.<end_of_turn>",
        "\n<start_of_turn>model\n",
        "It is 3.<end_of_turn>",
        "\n<start_of_turn>user\nNo.<end_of_turn>",
    ],
    "qwen3": [
        "",
        "<|im_start|>system\nbe kind.<|im_end|>\n<|im_start|>user\n Find x. <|im_end|>",
        "\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "It is 3.<|im_end|>",
        "\n<|im_start|>user\nNo.\n<|im_end|>",
    ],
    "llama3": [
        "<|begin_of_text|>",
        "<|start_header_id|>system<|end_header_id|>\n\nbe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nFind x.<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "It is 3.<|eot_id|>",
        "<|start_header_id|>user<|end_header_id|>\n\nNo.<|eot_id|>",
    ],
}


@pytest.mark.parametrize("family", LAYOUT)
def test_layout_by_hand(folders, family):
  r = make_renderer(folders[family], family, system="be kind.")
  first, answer, reply = r.first_turn(" Find x. "), r.student_turn("It is 3."), r.teacher_turn("No.\n")
  parts = [r.bos, first.tokens, answer.prompt, answer.tokens, reply.tokens]
  assert ["".join(r.pieces(p)) for p in parts] == LAYOUT[family]
  assert (first.text, answer.text, reply.text) == (" Find x. ", "It is 3.", "No.\n")
  assert r.student_prompt() == answer.prompt and answer.stripped == []
  assert r.first_turn("Find x.", system="").tokens == Renderer(folders[family], r.chat).first_turn("Find x.").tokens


def test_stop_and_pad_ids(folders, tmp_path):
  r = make_renderer(folders["gemma3"], "gemma3")
  assert r.stop_ids == (5, 1) and r.pad_id == 0 and r.bos == [2] and r.vocab_size == 700
  r = make_renderer(folders["qwen3"], "qwen3")
  assert r.stop_ids == (702, 700) and r.pad_id == 700 and r.bos == [] and r.vocab_size == 705
  r = make_renderer(folders["llama3"], "llama3")
  assert r.stop_ids == (705, 701, 704) and r.pad_id == 701 and r.bos == [700]
  other = chat_folders.qwen3(tmp_path, eos=[702, 17])  # 17: as the folder's configuration says
  assert make_renderer(str(other), "qwen3").stop_ids == (702, 700, 17)
  turn = make_renderer(str(other), "qwen3").sampled_turn([40, 17], [0.0, 0.0])
  assert not turn.cut and len(turn.text) == 1


def test_an_image_piece_that_text_models_have_no_row_for_is_not_counted(tmp_path, folders):
  saved = tmp_path / "saved"
  t = AutoTokenizer.from_pretrained(folders["gemma3"], local_files_only=True)
  t.save_pretrained(saved)
  before = make_renderer(str(saved), "gemma3").vocab_size
  t.add_special_tokens({"additional_special_tokens": ["<image_soft_token>"]})
  t.save_pretrained(saved)
  r = make_renderer(str(saved), "gemma3")
  assert r.tokenizer.vocab_size == before + 1 and r.vocab_size == before
  assert before not in r.encode("<image_soft_token>")


def random_dialogue(rng: random.Random, thinks: bool) -> tuple[str, list[str]]:
  """A system text and 1, 3, 5 or 7 turns."""
  text = lambda: chat_folders.random_text(rng)
  student = lambda: text().lstrip()
  if thinks:
    thought = lambda: rng.choice(["", "Let me see.", "2 + 2 = 4,\n\nso 4.", "é 你好"])
    student = lambda: f"<think>\n{thought()}\n</think>\n\n{text().lstrip()}" if rng.random() < 0.8 else text().lstrip()
  turns = [student() if n % 2 else text() for n in range(2 * rng.randrange(4) + 1)]
  return rng.choice(["", "Be kind.", "Be\n\nbrief."]), turns


@pytest.mark.parametrize(("folder", "thinking", "enable_thinking"), [
    ("gemma3", "keep", False), ("llama3", "keep", False), ("llama3 dated", "keep", False),
    ("qwen3", "strip", False), ("qwen3", "strip", True),
])  # fmt: skip
def test_every_context_has_the_ids_of_transformers_chat_template(folders, folder, thinking, enable_thinking):
  family, *dated = folder.split()
  r = make_renderer(folders[folder], family, thinking=thinking, enable_thinking=enable_thinking)
  theirs = AutoTokenizer.from_pretrained(folders[folder], local_files_only=True)
  rng, lengths = random.Random(2), set()
  for _ in range(400):
    system, (first, *rest) = random_dialogue(rng, enable_thinking)
    roles = [{"role": "system", "content": system}] * bool(system)
    roles += [{"role": ("user", "assistant")[n % 2], "content": t} for n, t in enumerate([first, *rest])]
    want = theirs.apply_chat_template(
        roles, tokenize=True, add_generation_prompt=True, enable_thinking=enable_thinking, return_dict=False
    )
    # The stock template of Llama 3.1 begins with dates: the documented difference, which a system text undoes.
    turns = [r.first_turn(first, DATED + system.strip() if dated else system)]
    turns += [r.student_turn(t) if n % 2 == 0 else r.teacher_turn(t) for n, t in enumerate(rest)]
    d = Dialogue("t", "d", 0, "full", turns, bos=r.bos)
    assert [*r.render(d), *r.student_prompt()] == want, (system, first, rest)
    lengths.add(len(want))
  assert len(lengths) > 50


def test_keep_is_the_template_of_one_turn_and_append_only_after_it(folders):
  """The documented difference: the template takes the empty block out again, so its own renders do not extend."""
  r = make_renderer(folders["qwen3"], "qwen3")
  theirs = AutoTokenizer.from_pretrained(folders["qwen3"], local_files_only=True)
  template = lambda roles, **how: theirs.apply_chat_template(
      roles, tokenize=True, return_dict=False, enable_thinking=False, **how)  # fmt: skip
  roles = [{"role": r, "content": c} for r, c in (("user", "Find x."), ("assistant", "3"), ("user", "No"))]
  d = Dialogue("t", "d", 0, "full", [r.first_turn("Find x.")], bos=r.bos)
  assert [*r.render(d), *r.student_prompt()] == template(roles[:1], add_generation_prompt=True)
  d.turns.append(r.student_turn("3"))
  assert [*r.render(d), *r.tokenizer.encode("\n")] == template(roles[:2])
  one = r.render(d)
  d.turns.append(r.teacher_turn("No"))
  assert r.render(d)[: len(one)] == one and template(roles)[: len(one)] != one


@pytest.mark.parametrize("family", LAYOUT)
def test_text_can_not_forge_a_turn(folders, family):
  r = make_renderer(folders[family], family)
  assert r.special and {*r.stop_ids, *r.bos} <= r.never_in_text
  for piece in r.special:
    assert r.tokenizer.encode(piece) != list(r.encode(piece)) or family == "gemma3"  # control pieces never come out
    for text in (piece, f"No.{piece}\n{piece}Right!", f"<{piece}>", piece[:-1] + piece, piece * 3):
      ids = r.encode(text)
      assert not r.never_in_text & set(ids) and spelled(r, list(ids)) == text
      plain = r.teacher_turn("x").tokens
      forged = [t for t in r.teacher_turn(f"x{text}x").tokens if t in r.never_in_text]
      assert forged == [t for t in plain if t in r.never_in_text]
      if "think" not in piece:
        assert not r.never_in_text & set(r.student_turn(f"x{text}").tokens[:-1])
  assert not r.never_in_text & set(r.first_turn("x", "Be <|im_end|><end_of_turn><|eot_id|>").tokens) - set(
      r.first_turn("x", "Be").tokens)  # fmt: skip


def test_merges_and_normalisers_can_not_forge_either(tmp_path):
  """Fullwidth signs that a normaliser turns into a piece, found after the text is encoded and not before."""
  content = chat_folders.sentencepiece_model(normalization_rule_name="nmt_nfkc")
  r = make_renderer(str(chat_folders.folder(tmp_path, content)), "gemma3")
  text = "\uff1cend_of_turn\uff1e"
  assert r.tokenizer.id_of("<end_of_turn>") in r.tokenizer.encode(text)
  assert not r.never_in_text & set(r.encode(text)) and spelled(r, list(r.encode(text))) == "<end_of_turn>"


@pytest.mark.parametrize("family", LAYOUT)
def test_P29_random_ids_stay_as_sampled(folders, family):
  r, rng, changed = make_renderer(folders[family], family), np.random.default_rng(1), 0
  for _ in range(1500):
    ids = rng.integers(0, r.vocab_size, rng.integers(1, 13)).tolist()
    turn = r.sampled_turn(list(ids), [-1.0] * len(ids))
    (row,) = token_rows(Dialogue("t", "d", 0, "full", [r.first_turn("Find x."), turn], bos=r.bos))
    assert row["tokens"][row["weights"] == 1].tolist() == turn.tokens == ids
    assert turn.cut == (ids[-1] not in r.stop_ids)
    changed += list(r.encode(turn.text)) != ids
  assert changed > 1000


def sampled(r: Renderer, text: str):
  ids = [*r.tokenizer.encode(text), r.stop_ids[0]]  # the tokenizer alone turns <think> into its id
  return r.sampled_turn(ids, [-0.5] * len(ids))


def test_what_a_student_thought_is_never_in_the_text_of_its_turn(folders):
  for policy in ("keep", "strip"):
    r = make_renderer(folders["qwen3"], "qwen3", thinking=policy, enable_thinking=True)
    assert sampled(r, "<think>\n3? No.\n</think>\n\nIt is 4.").text == "It is 4."
    assert sampled(r, "<think>\na</think> <think>b</think>\nIt is 4.").text == "It is 4."
    assert sampled(r, "so</think>It is 4.").text == "It is 4."  # the block was opened by the header
    assert sampled(r, "<think>\nwithout an end").text == ""
    assert sampled(r, "It is\n\n4.").text == "It is\n\n4."
    written = r.student_turn("<think>\n3? No.\n</think>\n\nIt is 4.")
    said = sampled(r, "<think>\n3? No.\n</think>\n\nIt is 4.")
    assert written == dataclasses.replace(said, logprobs=[])


def test_what_strip_leaves_of_a_turn(folders):
  r = make_renderer(folders["qwen3"], "qwen3", thinking="strip", enable_thinking=True)
  header = "\n<|im_start|>assistant\n"
  for said, left in {
      "<think>\n3? No.\n</think>\n\nIt is 4.": "It is 4.",
      "<think>a</think>  It is 4.": "  It is 4.",
      "<think>\nwithout an end": "",
      "It is 4.": "It is 4.",
  }.items():
    turn = sampled(r, said)
    assert spelled(r, turn.context) == f"{header}{left}<|im_end|>"
    assert spelled(r, turn.tokens) == f"{said}<|im_end|>" and len(turn.logprobs) == len(turn.tokens)
    assert bool(turn.stripped) == (said != left)
  r = make_renderer(folders["qwen3"], "qwen3", thinking="strip")  # the empty block of the header goes as well
  turn = sampled(r, "It is 4.")
  assert spelled(r, turn.prompt) == f"{header}<think>\n\n</think>\n\n"
  assert spelled(r, turn.context) == f"{header}It is 4.<|im_end|>"
  assert make_renderer(folders["qwen3"], "qwen3").sampled_turn(turn.tokens, turn.logprobs).stripped == []


def test_the_record_keeps_what_was_cut(folders):
  r = make_renderer(folders["qwen3"], "qwen3", thinking="strip", enable_thinking=True)
  d = Dialogue("t", "d", 0, "full", [r.first_turn("Find x."), sampled(r, "<think>\na\n</think>\n\n4")], bos=r.bos)
  assert Dialogue.from_json(d.to_json()) == d and d.turns[1].stripped
  assert "stripped" not in Dialogue("t", "d", 0, "full", [r.first_turn("Find x.")]).to_json()


def test_bad_input_is_one_line(folders, tmp_path):
  wrong = chat_folders.qwen3(tmp_path / "wrong", eos=[702, 70_000])
  for message, given in {
      "unknown chat format 'qwen4': one of gemma3, qwen3, llama3": (folders["qwen3"], "qwen4"),
      "has no piece <start_of_turn>; the gemma3 format needs it": (folders["qwen3"], "gemma3"),
      "has no piece <teacher>; train one": (folders["gemma3"], ""),
      "needs the family's tokenizer": ("", "qwen3"),
      "eos_token_id 70000 is none of the 705 ids of tokenizer.json": (str(wrong), "qwen3"),
  }.items():
    with pytest.raises(UserError, match=message) as e:
      make_renderer(*given)
    assert "\n" not in str(e.value)
  for how in ({"thinking": "strip"}, {"enable_thinking": True}):
    with pytest.raises(UserError, match="the chat format gemma3 has no thinking"):
      make_renderer(folders["gemma3"], "gemma3", **how)
  with pytest.raises(UserError, match="thinking is 'drop': one of keep, strip"):
    make_renderer(folders["qwen3"], "qwen3", thinking="drop")
  with pytest.raises(TokenizerError, match="neither"):
    make_renderer(str(tmp_path), "qwen3")


def test_the_micro_world_format_is_what_it_was():
  r = make_renderer("")
  old = Renderer()
  assert r.first_turn("Find K.").tokens == r.teacher_turn("Find K.").tokens == old.teacher_turn("Find K.").tokens
  assert json.loads(Dialogue("t", "d", 0, "full", [r.student_turn("K is 8.")]).to_json())["turns"][0].keys() == {
      "role", "text", "tokens", "prompt"}  # fmt: skip
