import io

import pytest
from rich.console import Console

from sml_jax.data.rows import token_row
from sml_jax.evaluate import progress as p


def plain(width=200):
  out = io.StringIO()
  return out, Console(file=out, width=width, force_terminal=False)


def test_status_line():
  assert (
      p.status_line(0.423, 0.1234, 9100.0, 0.12, 200, "x")
      == "success 42.3%  loss 0.123  9.1k tok/s  MFU 12.0%  3:20 left  x"
  )
  assert p.status_line(None, None, 900.0, None, 3700) == "900 tok/s  1:01:40 left"
  assert p.status_line(None, None, None, None, None) == ""


def test_without_a_terminal_a_line_now_and_then_and_always_the_last(monkeypatch):
  clock = [0.0]
  monkeypatch.setattr(p.time, "monotonic", lambda: clock[0])
  out, console = plain()
  with p.Progress(console, every_seconds=10) as shown:
    shown.stage("mt_rl", total=31, start=0)
    for step in range(1, 32):
      shown.update(step, success=0.5)
      clock[0] += 1.0
  lines = out.getvalue().splitlines()
  assert lines[0] == "mt_rl: 31 steps"
  assert [line.split()[1] for line in lines[1:]] == ["1/31", "11/31", "21/31", "31/31"]
  assert lines[2].endswith("0:20 left")  # ten steps took ten seconds, twenty are left


def test_a_terminal_gets_a_bar():
  out = io.StringIO()
  console = Console(file=out, width=120, force_terminal=True)
  with p.Progress(console) as shown:
    shown.stage("mt_rl", total=2)
    shown.update(1, loss=0.25)
    shown.update(2, loss=0.25)
    shown.log("saved")
  text = out.getvalue()
  assert "mt_rl" in text and "2/2" in text and "loss 0.250" in text and "saved" in text


def test_other_processes_are_silent():
  out, console = plain()
  with p.Progress(console, enabled=False) as shown:
    shown.stage("mt_rl", total=1)
    shown.update(1)
    shown.log("x")
  assert out.getvalue() == ""


@pytest.fixture
def dialogue(results):
  return next(d for d in results["mt_rl"]["math"].dialogues if d.solved_at == 2)


def test_show_dialogue_marks_the_trained_tokens(dialogue, words):
  out, console = plain()
  p.show_dialogue(dialogue, token_row(dialogue), words.pieces, console)
  lines = out.getvalue().splitlines()
  assert len(lines) == 1 + len(dialogue.turns)
  trained = sum(len(t.tokens) for t in dialogue.student_turns)
  assert f"{trained} of {len(token_row(dialogue)['tokens'])} tokens are trained" in lines[0]
  assert "«" not in lines[1] and "teacher" in lines[1]
  assert "«" in lines[2] and "<end>" in lines[2]
  assert lines[-1].endswith("[solved]")


def test_show_dialogue_colours_them_in_a_terminal(dialogue, words):
  out = io.StringIO()
  p.show_dialogue(
      dialogue,
      token_row(dialogue),
      words.pieces,
      Console(file=out, width=200, force_terminal=True, color_system="standard"),
  )
  teacher_line, student_line = out.getvalue().splitlines()[1:3]
  assert "43m" in student_line and "43m" not in teacher_line and "«" not in student_line


def test_final_table(summary):
  out, console = plain()
  table = p.final_table(summary, console)
  assert table.row_count == 20
  e = summary["arms"]["mt_rl"]["eval"]["math"]
  lo, hi = e["ci95"][9]
  row = next(line for line in out.getvalue().splitlines() if "mt_rl" in line and "%" in line)
  assert f"{e['success_by_turn'][9]:.1%} ({100 * lo:.0f}–{100 * hi:.0f})" in row
  assert f"{e['resampling'][3]:.1%}" in row
  assert "mt_rl:full-try_again" in out.getvalue()


def test_leaks_are_in_the_line_where_there_are_any():
  assert p.status_line(0.5, None, None, None, None, leaks=0.25) == "success 50.0%  leaks 25.0%"
  assert p.status_line(0.5, None, None, None, None, leaks=0.0) == "success 50.0%"
