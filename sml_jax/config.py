"""Every key of a configuration: default, unit and one line of meaning.

A config file is Python with a function `get_config()` that edits the defaults:

  from sml_jax import config as c

  def get_config():
    config = c.get_default()
    config.model.layers = 4
    config.stages.mt_sft = c.stage("sft", steps=200, optimizer={"learning_rate": 5e-4})
    return config
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from ml_collections import ConfigDict

from sml_jax.errors import UserError


class ConfigError(UserError):
  """A key, a type or a value that is not allowed; one line, with the nearest known name."""


@dataclasses.dataclass(frozen=True)
class Key:
  """One configuration key. Its type is the type of its default.

  Attributes:
    default: value if the config file says nothing.
    meaning: one line, with the unit.
    choices: the allowed values (of the items, for a tuple); () = any.
    low, above, high: smallest allowed value; value it must exceed; largest allowed value.
    item: type of the items of a tuple.
    inherit: dotted name of the key whose value is taken while this one is left at its default.
    stages: kinds of earlier stages that this string (or these strings) may name; a value with "/" is a folder.
    resume: whether a workdir goes on when the key differs: "same" no, "free" yes, "unfinished" until the stage is done.
  """

  default: Any
  meaning: str
  choices: tuple = ()
  low: float | None = None
  above: float | None = None
  high: float | None = None
  item: type = str
  inherit: str = ""
  stages: tuple[str, ...] = ()
  resume: Literal["same", "free", "unfinished"] = "same"


Table = Mapping[str, "Key | Table"]

PRETRAINED = "pretrained"
"""As `init` or arm: the weights that model.checkpoint has, or the model that student_api names, before any training."""
FEEDBACK = ("full", "no_private", "binary", "try_again", "shuffled", "none")

_API: Table = {
    "url": Key("", "of a server that speaks the OpenAI chat protocol, such as http://127.0.0.1:8000/v1", resume="free"),
    "model": Key("", "its name for the model"),
    "key_env": Key("", "environment variable with the key; empty = no key", resume="free"),
    "timeout_s": Key(300.0, "most seconds of a try", above=0, resume="free"),
    "retries": Key(6, "most further tries of a request that fails in a way that may pass", low=0, resume="free"),
    "concurrency": Key(16, "most requests at once", low=1, resume="free"),
    "cache_dir": Key("", "folder of replies, so that none is asked for twice; empty = api_cache in the workdir, which "
                     "a server's student and teacher share", resume="free"),
    "max_tokens": Key(1024, "most tokens of a reply, thinking included", low=1),
    "temperature": Key(1.0, "of a teacher's replies; a student's is that of the evaluation", low=0),
    "words": Key(150, "words that a teacher is asked to stay below", low=1),
    "system": Key("", "system text of a student; empty = none"),
    "price_in": Key(0.0, "of a million prompt tokens, in any currency; 0 = unknown", low=0, resume="free"),
    "price_out": Key(0.0, "of a million tokens of replies", low=0, resume="free"),
}

KEYS: Table = {
    "seed": Key(0, "all randomness of the run follows from it", low=0),
    "data_dir": Key("", "folder of the data sets read from files; empty = none is read"),
    "student": Key("model", "who is evaluated: the model of this config, or the one that a server has (student_api)",
                   choices=("model", "api")),
    "tokenizer": Key("", "SentencePiece .model or tokenizer.json, or a folder with one; empty = model.checkpoint's, or "
                     "the one shipped for the micro-world"),
    "model": {
        "name": Key("", "a published shape, such as gemma3_12b; empty = the shape below"),
        "checkpoint": Key("", "folder in Hugging Face's format: shape, first weights and tokenizer come from it; "
                          'random = random weights of the shape "name"'),
        "vocab_size": Key(0, "pieces; 0 = as many as the tokenizer has", low=0),
        "d_model": Key(96, "width of the residual stream", low=1),
        "layers": Key(3, "decoder layers", low=1),
        "heads": Key(2, "query heads; a multiple of kv_heads", low=1),
        "kv_heads": Key(1, "key-value heads", low=1),
        "head_dim": Key(48, "width of a head; even, for RoPE", low=2),
        "mlp_dim": Key(256, "hidden width of the gated MLP", low=1),
        "rope_theta": Key(10_000.0, "base of the rotary wavelengths", above=0),
        "max_length": Key(512, "longest dialogue, tokens", low=1),
        "tied_embeddings": Key(True, "the output layer is the embedding transposed"),
        "norm_eps": Key(1e-6, "added to the mean square in RMSNorm", above=0),
        "scan_layers": Key(False, "stack the layers and scan them: compiles faster, decodes slower on a CPU"),
        "remat": Key("none", "full = the backward pass keeps a layer's input and computes the rest again; dots = it "
                     "keeps the results of the matrices too", choices=("none", "dots", "full"), resume="free"),
        "attention": Key("auto", "implementation in training; auto = the platform's", resume="free",
                         choices=("auto", "xla", "splash", "cudnn")),
        "head_chunk": Key(0, "entries of the vocabulary whose logits exist at once in training; 0 = all", low=0,
                          resume="free"),
        "dtype": Key("float32", "of activations and caches", choices=("float32", "bfloat16")),
        "param_dtype": Key("float32", "of parameters; adapters are float32", choices=("float32", "bfloat16")),
        "lora": {
            "rank": Key(0, "rank of the adapters that are trained in place of the weights; 0 = no LoRA", low=0),
            "alpha": Key(32.0, "an adapter's product counts alpha / rank times", above=0),
            "targets": Key(("q", "k", "v", "o", "gate", "up", "down"), "projections that have an adapter",
                           choices=("q", "k", "v", "o", "gate", "up", "down")),
        },
    },
    "mesh": {
        "data": Key(1, "devices along data; -1 = the rest", low=-1, resume="free"),
        "fsdp": Key(-1, "devices along fsdp; -1 = the rest", low=-1, resume="free"),
        "model": Key(1, "devices along model; -1 = the rest", low=-1, resume="free"),
    },
    "tasks": {
        "source": Key("microworld", "microworld; data sets by name (gsm8k, svamp, omni_math, humaneval, mbpp, "
                      "opencodeinstruct, livecodebench, cruxeval, lost_in_conversation), found under data_dir, or by "
                      "location (jsonl:PATH, tfds:NAME/SPLIT, hf:NAME/SPLIT, each with #NAME behind it where the rows "
                      'do not tell), several with commas between them; or the import path "package.module:function" of '
                      "your own"),
        "eval_source": Key("", "data sets whose tasks are for dev and test alone, as in tasks.source; empty = none"),
        "shares": Key((0.1, 0.1), "shares of a data set's problems that are dev and test", item=float, low=0, high=1),
        "exclude": Key((), "tasks left out: ids, files with one id a line, or known = rows reported as defective"),
        "on_bad_row": Key("fail", "what a row does that cannot be used", choices=("fail", "skip_and_count")),
        "success_on": Key("hidden", "tests of a program that decide on success: the hidden ones where there are any, "
                          "or the public ones, on which a dialogue stops in any case", choices=("hidden", "public")),
        "compat": Key("fixed", "Lost in Conversation: with the reference's known defects, or without",
                      choices=("fixed", "reference")),
        "verifier": Key("", "import path of your own verifier; empty = the source's"),
        "domains": Key(("math",), "domains that tasks are drawn from"),
        "split_salt": Key("0", "salt of the train, dev and test split; a new one draws new parts"),
        "convention_share": Key(0.75, "micro-world: share of problems with one hidden convention, the rest have two",
                                low=0, high=1),
        "convention_spread": Key((0.36, 0.16, 0.1, 0.06), "micro-world: chance of a convention's usual value, then "
                                 "of one that is 1, 2, ... away (on each side)", item=float, low=0, high=1),
    },
    "dialogue": {
        "turns": Key(4, "student turns before a dialogue ends unsolved", low=1),
        "max_turn_tokens": Key(12, "longest student turn, tokens, end of turn included", low=1),
        "max_problem_tokens": Key(32, "longest problem, tokens, with all that stands before the first student turn",
                                  low=1),
        "max_reply_tokens": Key(20, "longest teacher reply, tokens, with all that stands before the next student turn",
                                low=3),
        "max_length": Key(0, "longest dialogue, tokens; 0 = model.max_length", low=0, inherit="model.max_length"),
        "temperature": Key(1.0, "of sampling in training", above=0),
        "feedback": Key("full", "what the teacher's reply is made from", choices=FEEDBACK),
        "teacher": Key("scripted", "who replies in the arms full, no_private and shuffled, and plays the lazy user: "
                       "the task source's own teacher, a frozen model in this process, or a server (teacher_api)",
                       choices=("scripted", "model", "api")),
        "teacher_checkpoint": Key("", "model teacher: folder in Hugging Face's format; empty = the student as it was "
                                  "before any training"),
        "max_teacher_prompt_tokens": Key(512, "model teacher: most tokens of its instructions, what it alone knows "
                                         "and the problem", low=1),
        "max_teacher_turn_tokens": Key(0, "model teacher: most tokens sampled for a reply, private thinking included; "
                                       "0 = as many as max_reply_tokens has room for", low=0),
        "prompts": {
            name: Key("", f"file in place of the project's own {name}.txt")
            for name in ("teacher", "teacher_no_private", "teacher_code", "user", "question", "judge_kind")
        },
        "leaks": Key("mark", "what is done about a reply that gives the answer away: nothing is looked for; it is "
                     "shown and marked; the span is cut out; the teacher is asked again; the dialogue is invalid",
                     choices=("off", "mark", "redact", "resample", "drop")),
        "leak_resamples": Key(2, "how often a teacher (or a questioner) is asked again; what still leaks is dropped",
                              low=0),
        "questioner": Key("scripted", "who writes the questions of Q-priming: the task source, or the student, shown "
                          "its own wrong turn and what the teacher knows", choices=("scripted", "student")),
        "kinds": Key("rules", "who says of which kind a student turn is: rules, the model teacher, or teacher_api",
                     choices=("rules", "model", "api")),
        "thinking": Key("keep", "what a student turn thought stays in later context, or is stripped (as Qwen3's "
                        "template does)", choices=("keep", "strip")),
        "enable_thinking": Key(False, "Qwen3: the student may think; else its header has an empty thought"),
        "reveal": Key("on_question", "how the shards of an underspecified task come out",
                      choices=("on_question", "every_turn")),
    },
    "teacher_api": _API,
    "student_api": _API,
    "executor": {
        "backend": Key("auto", "how students' programs are kept in: auto = bubblewrap, else namespaces, else refuse; "
                       "rlimits is NOT isolated", choices=("auto", "bubblewrap", "namespaces", "rlimits"),
                       resume="free"),
        "workers": Key(0, "programs that run side by side; 0 = one a core", low=0, resume="free"),
        "cpu_s": Key(10.0, "CPU seconds of a program for all its tests", above=0),
        "memory_mb": Key(1024, "address space of a program, MiB", low=64),
    },
    "eval_every": Key(0, "steps between evaluations inside training; 0 = off", low=0, resume="free"),
    "eval_suites": Key(("math",), "suites of the evaluation inside training"),
    "eval_tasks": Key(128, "tasks of each suite in an evaluation inside training", low=1, resume="free"),
    "checkpoint_every": Key(50, "steps between checkpoints; 0 = only at the end of a stage", low=0, resume="free"),
    "engine_rows": Key(256, "dialogues that are sampled side by side", low=1),
    "rollout": Key("auto", "with several processes: local = each plays its tasks on its own devices, global = all play "
                   "together; auto = local where mesh.model lies within a process", choices=("auto", "local", "global"),
                   resume="free"),
    "keep_checkpoints": Key(2, "newest checkpoints kept in each stage", low=1, resume="free"),
    "log_every": Key(1, "steps between lines of metrics", low=1, resume="free"),
}

_OPTIMIZER: Table = {
    "learning_rate": Key(1e-3, "peak of AdamW's learning rate", above=0),
    "schedule": Key("cosine", "shape after the warm-up", choices=("cosine", "constant", "linear")),
    "warmup_steps": Key(0, "steps of linear warm-up from 0", low=0),
    "end_lr_fraction": Key(0.1, "last learning rate / peak, for cosine and linear", low=0, high=1),
    "b1": Key(0.9, "decay of the first moment", low=0, high=1),
    "b2": Key(0.99, "decay of the second moment", low=0, high=1),
    "eps": Key(1e-8, "added to the root of the second moment", above=0),
    "weight_decay": Key(0.0, "decoupled, times the learning rate", low=0),
    "clip_norm": Key(1.0, "largest global gradient norm; 0 = no clipping", low=0),
}
_COMMON: Table = {
    "kind": Key("", "sft, rl, synthesize or evaluate"),
    "init": Key("", "where parameters come from: an earlier stage or a folder of its checkpoints; empty = "
                "model.checkpoint, or random",
                stages=("sft", "rl")),
    "domains": Key((), "domains of this stage; empty = tasks.domains", inherit="tasks.domains"),
}
_DIALOGUE: Table = {
    "turns": Key(0, "student turns; 0 = dialogue.turns", low=0, inherit="dialogue.turns"),
    "feedback": Key("", "feedback arm; empty = dialogue.feedback", choices=FEEDBACK, inherit="dialogue.feedback"),
}
_TRAIN: Table = {
    "steps": Key(100, "optimizer steps", low=1, resume="unfinished"),
    "row_length": Key(0, "length of a row, tokens; 0 = dialogue.max_length", low=0, inherit="dialogue.max_length"),
    "micro_batch_rows": Key(0, "rows of one gradient accumulation; 0 = all of the batch", low=0, resume="free"),
    "eval_every": Key(-1, "as the top-level key; -1 = its value", low=-1, inherit="eval_every", resume="free"),
    "checkpoint_every": Key(-1, "as the top-level key; -1 = its value", low=-1, inherit="checkpoint_every",
                            resume="free"),
    "optimizer": _OPTIMIZER,
}

STAGE_KEYS: Mapping[str, Table] = {
    "sft": {
        **_COMMON,
        **_TRAIN,
        "data": Key("", "the synthesize stage, or the folder, whose dialogues are trained on", stages=("synthesize",)),
        "batch_rows": Key(32, "rows of a step", low=1),
        "packing": Key(True, "several dialogues in a row, by best fit"),
        "train_on_injected": Key(True, "questions put in by Q-priming are targets"),
    },
    "rl": {
        **_COMMON,
        **_DIALOGUE,
        **_TRAIN,
        "micro_batch_rows": Key(32, "rows of one gradient accumulation; a step's rows are padded to a multiple",
                                low=1, resume="free"),
        "tasks_per_step": Key(16, "tasks (groups) of a step", low=1),
        "group_size": Key(8, "dialogues of one task", low=2),
        "gamma": Key(0.7, "reward gamma^(n-1) for solved at student turn n", above=0, high=1),
        "reward": Key("", "import path of your own reward; empty = gamma^(n-1)"),
        "credit": Key("trajectory", "one advantage a dialogue, or one a turn", choices=("trajectory", "turn_return")),
        "adv_norm": Key("std", "how rewards of a group become advantages", choices=("std", "none", "rloo")),
        "loss_norm": Key("token", "the loss is divided by the number of these", choices=("token", "dialogue")),
        "clip_low": Key(0.2, "the ratio is clipped at 1 - clip_low", low=0, high=1),
        "clip_high": Key(0.28, "the ratio is clipped at 1 + clip_high", low=0),
        "kl_coef": Key(0.0, "times the KL to the stage's first parameters, nats a token; 0 = no reference", low=0),
        "refill": Key(0, "rounds of new tasks in place of groups without an advantage; 0 = off", low=0),
        "truncated": Key("keep", "what becomes of a dialogue cut at a token limit",
                         choices=("keep", "mask_loss", "drop")),
        "inner_updates": Key(1, "optimizer updates on one set of dialogues", low=1),
        "match_tokens": Key("", "earlier rl stage whose sampled student tokens a step this one matches; empty = none",
                            stages=("rl",)),
    },
    "synthesize": {
        **_COMMON,
        **_DIALOGUE,
        "author": Key("student", "who plays the student; reference = the canonical answer, said at once",
                      choices=("student", "scripted", "reference")),
        "dialogues": Key(1000, "dialogues made, before `keep`", low=1),
        "keep": Key("solved", "which dialogues are stored for training", choices=("solved", "all")),
        "q_priming": Key(0.0, "base of P_Q(t) = base^t, the chance that a wrong turn t becomes a question; 0 = off",
                         low=0, high=1),
    },
    "evaluate": {
        **{name: _COMMON[name] for name in ("kind", "domains")},
        "arms": Key((), "stages or folders of checkpoints whose students are evaluated; pretrained = model.checkpoint "
                    "(student_api)",
                stages=("sft", "rl")),
        "suites": Key(("math",), "suites of held-out tasks"),
        "tasks_per_suite": Key(512, "fixed tasks of a suite, the same for every seed", low=1),
        "turns": Key(10, "student turns", low=1),
        "tries": Key(16, "independent first-turn tries a task for the resampling control; 0 = no control", low=0),
        "part": Key("dev", "part of the tasks; test is for the final figures", choices=("dev", "test")),
        "greedy": Key(True, "also decode greedily"),
        "modes": Key((), "Lost in Conversation, on sharded suites: ways to tell a task beside the suite's own, each "
                     "played `runs` times", choices=("full", "concat", "shuffle_concat", "sharded", "recap",
                                                     "snowball")),
        "runs": Key(10, "dialogues of each task and mode", low=1),
        "comparisons": Key((), 'paired differences: "ARM_B-ARM_A", "ARM-resampling" or "ARM:full-try_again"'),
    },
}


def get_default() -> ConfigDict:
  """All keys at their defaults, and no stages. Types are checked by `validate`, not at assignment."""
  config = to_config(_defaults(KEYS))
  config.stages = to_config({})
  return config


def stage(kind: str, **overrides: Any) -> ConfigDict:
  """A stage of a kind at its defaults, with overrides (nested ones as dicts); names are checked by `validate`.

  Raises:
    ConfigError: there is no such kind.
  """
  if kind not in STAGE_KEYS:
    raise ConfigError(f"no stage kind {kind!r}; {nearest(kind, STAGE_KEYS)}")
  out = to_config({**_defaults(STAGE_KEYS[kind]), "kind": kind})
  _merge(out, overrides)
  return out


def describe() -> str:
  """The whole table as text: name, default, meaning, choices; one line a key."""
  lines = [f"  {path} [{_show(key.default)}] {_meaning(key)}" for path, key in _walk(KEYS)]
  lines.insert(0, "Keys (--config.KEY=VALUE) [default]:")
  for kind, table in STAGE_KEYS.items():
    lines.append(f"Keys of a stage of kind {kind} (--config.stages.NAME.KEY=VALUE) [default]:")
    lines += [f"  {path} [{_show(key.default)}] {_meaning(key)}" for path, key in _walk(table) if path != "kind"]
  return "\n".join(lines)


def find_key(path: str, kinds: Mapping[str, str]) -> Key | None:
  """The table's entry for a dotted path such as "stages.mt_rl.steps", or None; kinds: stage name -> kind."""
  names = path.split(".")
  node: Any = KEYS
  if names[0] == "stages" and len(names) > 2:
    node, names = STAGE_KEYS.get(kinds.get(names[1], ""), {}), names[2:]
  for name in names:
    node = node.get(name) if isinstance(node, Mapping) else None
  return node if isinstance(node, Key) else None


def unknown_key(where: str, name: str, siblings: Iterable[str]) -> ConfigError:
  """The error for a key that does not exist; where: dotted path of its table, or ""."""
  path = f"{where}.{name}" if where else name
  return ConfigError(f"{path}: no such key; {nearest(name, siblings, where)}")


def nearest(name: str, known: Iterable[str], where: str = "") -> str:
  """What was probably meant by a name: the closest of the known ones at that place, else a like-named key elsewhere."""
  prefix = f"{where}." if where else ""
  if close := difflib.get_close_matches(name, list(known), n=1):
    return f"did you mean {prefix + close[0]!r}?"
  # The right name in the wrong table is as common a slip as a typing error.
  paths = [path for path, _ in _walk(KEYS)]
  paths += [f"stages.NAME.{path}" for table in STAGE_KEYS.values() for path, _ in _walk(table)]
  leaves = {path.rsplit(".", 1)[-1]: path for path in reversed(paths)}
  if close := difflib.get_close_matches(name, list(leaves), n=1, cutoff=0.75):
    return f"did you mean {leaves[close[0]]!r}?"
  return f"known here: {', '.join(known)}"


def _walk(table: Table, prefix: str = "") -> Iterator[tuple[str, Key]]:
  for name, node in table.items():
    if isinstance(node, Key):
      yield prefix + name, node
    else:
      yield from _walk(node, f"{prefix}{name}.")


def _defaults(table: Table) -> dict[str, Any]:
  return {name: node.default if isinstance(node, Key) else _defaults(node) for name, node in table.items()}


def to_config(tree: Mapping[str, Any]) -> ConfigDict:
  # A ConfigDict sorts its keys unless told not to, and the order of the stages is their order of running.
  out = ConfigDict(type_safe=False, sort_keys=False)
  for name, value in tree.items():
    out[name] = to_config(value) if isinstance(value, Mapping) else value
  return out


def _merge(config: ConfigDict, overrides: Mapping[str, Any]) -> None:
  for name, value in overrides.items():
    if isinstance(value, Mapping) and isinstance(config.get(name), ConfigDict):
      _merge(config[name], value)
    else:
      config[name] = value


def _meaning(key: Key) -> str:
  return key.meaning + (f" ({', '.join(key.choices)})" if key.choices else "")


def _show(value: Any) -> str:
  return repr(value) if value != "" else ""
