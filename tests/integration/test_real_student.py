"""The whole way of a real student at toy size: from a folder of transformers through all stages, and back to one."""

from __future__ import annotations

import json
import pathlib
import sys

import numpy as np
import pytest
import torch
import transformers
from toy import HERE, ROOT, read_json, rows

from sml_jax.data.store import read_dialogues
from sml_jax.dialogue.renderer import make_renderer

sys.path.append(str(ROOT / "tests" / "dialogue"))
import chat_folders

CONFIG = f"--config={HERE / 'real_student.py'}"
END = 5


def tiny_gemma(folder: pathlib.Path) -> None:
  """A random Gemma 3 with a tokenizer, as transformers saves it, in which about one token in sixteen ends the turn."""
  chat_folders.gemma3(folder)
  config = transformers.Gemma3TextConfig(
      vocab_size=704, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
      num_key_value_heads=1, head_dim=16, sliding_window=64, layer_types=["sliding_attention", "full_attention"],
      pad_token_id=0, eos_token_id=1, bos_token_id=2,
  )  # fmt: skip
  torch.manual_seed(0)
  model = transformers.Gemma3ForCausalLM(config)
  with torch.no_grad():
    table = model.get_input_embeddings().weight
    table[:, 0], table[END, 0] = 0.1, 3.0
  model.save_pretrained(folder)


def made_up_rows(folder: pathlib.Path) -> None:
  (folder / "omni_math_rule").mkdir(parents=True)
  # No near copies of one another, which would all be in one part.
  rows = [{"problem": f"In case{n} and plan{n}: what{n} is {n} + 4?", "answer": str(n + 4)} for n in range(120)]
  text = "".join(json.dumps(row) + "\n" for row in rows)
  (folder / "omni_math_rule" / "made_up.jsonl").write_text(text)


@pytest.fixture(scope="module")
def finished(program, tmp_path_factory) -> pathlib.Path:
  """A folder with the checkpoint `gemma`, its run `run`, and `exported`."""
  root = tmp_path_factory.mktemp("real")
  tiny_gemma(root / "gemma")
  made_up_rows(root / "data")
  more = (f"--config.model.checkpoint={root / 'gemma'}", f"--config.data_dir={root / 'data'}")
  output = program.ok(CONFIG, *more, f"--workdir={root / 'run'}")
  assert "of which none is trained but an adapter of" in output
  export = (f"--checkpoint={root / 'run' / 'mt_rl' / 'checkpoints'}", f"--base={root / 'gemma'}")
  program.ok(*export, f"--out={root / 'exported'}", before=("-m", "sml_jax.models.export"))
  return root


def test_stages(finished):
  run = finished / "run"
  assert [r["step"] for r in rows(run / "mt_sft")] == [r["step"] for r in rows(run / "mt_rl")] == [1, 2]
  for row in rows(run / "mt_rl"):
    assert row["grad_norm"] > 0 and row["logp_gap"] < 1e-4
  summary = read_json(run / "summary.json")
  for arm in ("pretrained", "mt_rl"):
    result = summary["arms"][arm]["eval"]["omni_math"]
    record = list(read_dialogues(run / "evaluation" / arm / "omni_math" / "sampled"))
    assert result["n_tasks"] == len(record) == 6
    assert result["invalid_rate"] == pytest.approx(np.mean([not d.valid for d in record]), abs=1e-6)


def test_teacher_speaks_and_keeps_the_answer(finished):
  renderer = make_renderer(str(finished / "gemma"), "gemma3")
  stages = [finished / "run" / s / "dialogues" for s in ("data", "mt_rl")]
  dialogues = [d for folder in stages for d in read_dialogues(folder)]
  heard = [t for d in dialogues for t in d.turns[2::2]]
  assert len(heard) > 3 and len({t.text for t in heard}) > len(heard) // 2  # how many, chance decides
  for turn in heard:
    assert turn.text.strip() and turn.tokens == renderer.teacher_turn(turn.text).tokens
  for d in dialogues:
    said = renderer.decode(renderer.render(d))
    assert "tutor" not in said and "answer:" not in said and "Put your final answer in \\boxed{}." in d.turns[0].text
  again = [t.text for d in read_dialogues(finished / "run/evaluation/mt_rl/omni_math_try_again/sampled")
           for t in d.turns[2::2]]  # fmt: skip
  assert set(again) <= {"Please try again."}


def log_probabilities(folder: pathlib.Path, tokens: list[int], usable: int) -> np.ndarray:
  """transformers' log-probability of every token but the first, given those before it."""
  model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
  with torch.no_grad():
    logits = model(torch.tensor([tokens])).logits[0, :-1, :usable].float()
  return torch.log_softmax(logits, -1).numpy()[np.arange(len(tokens) - 1), tokens[1:]]


def test_transformers_agrees_with_what_was_sampled(finished):
  """The exported student gives its recorded turns the log-probabilities that they were sampled with; the untrained
  folder those of the pretrained arm, and not the others."""
  renderer = make_renderer(str(finished / "gemma"), "gemma3")

  def gap(arm: str, folder: str) -> float:
    record = read_dialogues(finished / "run" / "evaluation" / arm / "omni_math" / "sampled")
    d = max(record, key=lambda d: len(d.student_turns))
    found = log_probabilities(finished / folder, renderer.render(d), renderer.vocab_size)
    at, gaps = len(d.bos) - 1, []
    for turn in d.turns:
      at += len(turn.prompt)
      if turn.role == "student":
        gaps.append(np.abs(found[at : at + len(turn.tokens)] - turn.logprobs).max())
      at += len(turn.tokens)
    return max(gaps)

  assert gap("pretrained", "gemma") < 1e-4
  assert gap("mt_rl", "exported") < 1e-4
  assert gap("mt_rl", "gemma") > 1e-2


def test_exported_folder_is_whole(finished):
  exported, base = finished / "exported", finished / "gemma"
  assert {p.name for p in exported.iterdir()} == {p.name for p in base.iterdir()}
  for name in ("config.json", "tokenizer.model", "generation_config.json"):
    assert (exported / name).read_bytes() == (base / name).read_bytes()


def test_any_checkpoint_is_evaluated_with_itself_as_the_teacher(finished, program, tmp_path):
  """configs/evaluate_any.py; the suites and their controls are there, whatever a random model is worth."""
  keys = {
      "model.checkpoint": finished / "gemma", "data_dir": finished / "data", "dialogue.teacher": "model",
      "tasks.source": "omni_math", "tasks.shares": "0.2,0.2", "engine_rows": 4, "model.dtype": "float32",
      "stages.evaluation.suites": "omni_math,omni_math_try_again", "stages.evaluation.tasks_per_suite": 4,
      "stages.evaluation.turns": 2, "stages.evaluation.tries": 2, "dialogue.max_problem_tokens": 80,
      "dialogue.max_turn_tokens": 24, "dialogue.max_reply_tokens": 40, "dialogue.max_teacher_prompt_tokens": 1000,
  }  # fmt: skip
  given = [f"--config.{key}={value}" for key, value in keys.items()]
  program.ok("--config=configs/evaluate_any.py", *given, f"--workdir={tmp_path / 'run'}")
  (arm,) = read_json(tmp_path / "run" / "summary.json")["arms"].items()
  assert arm[0] == "pretrained" and set(arm[1]["eval"]) == {"omni_math", "omni_math_try_again"}
  assert len(arm[1]["eval"]["omni_math"]["resampling"]) == 2
