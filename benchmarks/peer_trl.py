"""TRL's side of the comparisons (see worker.py)."""

from __future__ import annotations

import random
import tempfile

import datasets
import tokenizers
import transformers
import trl
from paced import Paced
from peer_transformers import model_of
from shapes import MODELS


def versions() -> dict[str, str]:
  return {"trl": trl.__version__}


def numbers(vocab: int) -> transformers.PreTrainedTokenizerFast:
  """Texts are numbers; the end is none that a model can say, so that all completions are of full length."""
  model = tokenizers.models.WordLevel({str(n): n for n in range(vocab)} | {"end": vocab}, unk_token="1")
  tokenizer = tokenizers.Tokenizer(model)
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="0", eos_token="end")


def grpo(size: str, prompts: int, group: int, prompt: int, new: int):
  """Update, rollout and log-probabilities, with a reference policy."""
  vocab, paced, rng = MODELS[size]["vocab"], Paced(), random.Random(0)
  folder = tempfile.mkdtemp()  # the reference is read again from where the policy was
  model_of(size).save_pretrained(folder)
  texts = [" ".join(str(rng.randrange(3, vocab)) for _ in range(prompt)) for _ in range(64)]
  settings = trl.GRPOConfig(
      output_dir=folder, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", save_strategy="no",
      logging_strategy="no", disable_tqdm=True, max_steps=10**6, learning_rate=1e-6, beta=0.04, temperature=1.0,
      per_device_train_batch_size=prompts * group, num_generations=group, max_completion_length=new,
  )  # fmt: skip
  trainer = trl.GRPOTrainer(
      folder, reward_funcs=paced.reward, args=settings, train_dataset=datasets.Dataset.from_dict({"prompt": texts}),
      processing_class=numbers(vocab),
  )  # fmt: skip
  return 1, paced.start(trainer.train)


CASES = {"grpo": grpo}
