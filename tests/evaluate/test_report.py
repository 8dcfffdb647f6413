import html.parser
import re

import numpy as np
import pytest

from sml_jax.data.rows import token_row
from sml_jax.dialogue.record import Dialogue, Turn
from sml_jax.evaluate.cards import dialogue_card, runs, turn_weights
from sml_jax.evaluate.report import write_report


class Page(html.parser.HTMLParser):
  """Checks that elements close in order; keeps the tags, links and text."""

  VOID = ("meta", "br", "input")

  def __init__(self, text):
    super().__init__()
    self.open, self.tags, self.links, self.text = [], [], [], ""
    self.feed(text)
    assert self.open == []

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href")]
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)
    self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href")]

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text += data


@pytest.fixture(scope="module")
def page(tmp_path_factory, summary, results, metrics, words):
  path = tmp_path_factory.mktemp("report") / "report.html"
  dialogues = {arm: suites["math"].dialogues for arm, suites in results.items()}
  write_report(path, summary, metrics, dialogues, words.pieces)
  return path.read_text(encoding="utf-8")


def test_it_is_one_whole_page_that_fetches_nothing(page):
  parsed = Page(page)
  assert page.startswith("<!doctype html>")
  assert all(link.startswith("#") for link in parsed.links)
  assert not {"link", "img", "iframe", "object"} & set(parsed.tags)
  assert "url(http" not in page and "@import" not in page
  assert "default-src 'none'" in page


def test_it_has_every_part(page, summary):
  text = Page(page).text
  for part in ("What this shows", "Claims", "Every arm, every suite", "Learning curves", "Dialogues to read",
               "How the numbers are defined", "Config", '"gamma": 0.7', "80% power"):  # fmt: skip
    assert part in text, part
  assert page.count('<svg role="img"') == 3
  value = summary["arms"]["mt_rl"]["eval"]["code"]["success_by_turn"][3]
  assert f"{100 * value:.1f}%" in text
  for claim in summary["claims"]:
    assert f"{claim['measured']:+.3f}" in text


def test_twenty_dialogues_of_each_arm(page):
  for arm in ("base", "mt_sft", "st_rl", "mt_rl"):
    assert page.count(f'data-arm="{arm}"') == 20


def test_without_dialogues_and_metrics(tmp_path, summary, words):
  write_report(tmp_path / "r.html", summary, {}, {}, words.pieces)
  text = (tmp_path / "r.html").read_text(encoding="utf-8")
  Page(text)
  assert "Dialogues to read" not in text and "<script>" not in text


EVIL = "<script>alert('&')</script>"


def test_all_text_is_escaped(tmp_path, summary, words):
  attempt = Turn("student", EVIL, tokens=[0, 1], logprobs=[0, 0], kind="answer_attempt", verdict="wrong")
  dialogue = Dialogue(EVIL, EVIL, 0, "full", [Turn("teacher", EVIL, tokens=[2]), attempt], "turn_limit")
  evil = {**summary, "config": {"a": EVIL}, "notes": [EVIL]}
  write_report(tmp_path / "r.html", evil, {}, {EVIL: [dialogue]}, lambda ids: [EVIL] * len(ids), title=EVIL)
  text = (tmp_path / "r.html").read_text(encoding="utf-8")
  assert "<script>alert" not in text
  assert text.count("<script>") == 1  # our own
  assert "&lt;script&gt;alert" in text
  Page(text)


def test_trained_tokens_are_those_with_a_weight(words):
  turns = [
      Turn("teacher", "How many ?", tokens=words.encode("<teacher> How many ? <end>")),
      Turn("student", "Two .", prompt=words.encode("<student>"), tokens=words.encode("Two . <end>"),
           kind="answer_attempt", verdict="wrong"),
      Turn("teacher", "No .", tokens=words.encode("<teacher> No . <end>")),
      Turn("student", "How ?", prompt=words.encode("<student>"), tokens=words.encode("How ? <end>"), injected=True,
           kind="clarification", verdict="no_attempt"),
  ]  # fmt: skip
  dialogue = Dialogue("t", "math", 0, "full", turns, "turn_limit", bos=[0])
  row = token_row(dialogue, train_on_injected=False)
  assert [w.tolist() for w in turn_weights(dialogue, row)] == [[0] * 5, [1] * 3, [0] * 4, [0] * 3]
  card = dialogue_card("mt_rl", dialogue, words.pieces, row=row)
  assert re.findall("<mark>(.*?)</mark>", card) == ["Two .", '<span class="sp">&lt;end&gt;</span>']
  assert "How ?" in card and "injected question" in card and "turn limit" in card
  everything = {**row, "weights": np.ones_like(row["weights"])}
  assert card.count("<mark>") == 2 and dialogue_card("a", dialogue, words.pieces, row=everything).count("<mark>") > 6


def test_byte_pieces_become_characters():
  assert runs(["▁a", "<0xE2>", "<0x86>", "<0x92>", "b", "<end>"], np.ones(6)) == [
      (" a→b", True, False),
      ("<end>", True, True),
  ]


@pytest.mark.parametrize("end, outcome, shown", [("solved", "solved", "solved at turn 1"),
                                                 ("context_full", "failed", "context full"),
                                                 ("teacher_failed", "invalid", "teacher failed")])  # fmt: skip
def test_outcome_of_a_card(end, outcome, shown):
  dialogue = Dialogue("t", "math", 0, "full", [Turn("teacher", "a"), Turn("student", "b", verdict="solved")], end)
  card = dialogue_card("mt_rl", dialogue, lambda ids: [])
  assert f'data-outcome="{outcome}"' in card and shown in card
