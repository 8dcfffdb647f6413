import pytest

from sml_jax import command_line, config_check
from sml_jax import config as c
from sml_jax.config import ConfigError

FILE = '''
from sml_jax import config as c

def get_config(arg=""):
  config = c.get_default()
  config.dialogue.turns = 6
  config.stages.zeta = c.stage("synthesize", author="scripted", dialogues=int(arg or 10))
  config.stages.mt_sft = c.stage("sft", data="zeta", steps=20, optimizer={"learning_rate": 1})
  config.stages.mt_rl = c.stage("rl", init="mt_sft")
  config.stages.all = c.stage("evaluate", arms=["mt_sft", "mt_rl"], comparisons=("mt_rl-mt_sft",))
  return config
'''


@pytest.fixture
def file(tmp_path):
  path = tmp_path / "own.py"
  path.write_text(FILE)
  return str(path)


def load(file, *arguments):
  return command_line.load(file, [tuple(a.split("=", 1)) for a in arguments])


def test_defaults_are_valid_and_complete():
  config = config_check.validate(c.get_default())
  assert (config.model.d_model, config.model.norm_eps, config.mesh.fsdp, config.seed) == (96, 1e-6, -1, 0)
  assert config.dialogue.max_length == config.model.max_length == 512
  rl = c.stage("rl")
  assert (rl.group_size, rl.gamma, rl.clip_low, rl.clip_high, rl.adv_norm, rl.optimizer.b2) == (
      8, 0.7, 0.2, 0.28, "std", 0.99)


def test_stages_keep_their_order_and_values(file):
  config = load(file)
  # A ConfigDict sorts its keys by itself; the stages run in the order of the file.
  assert list(config.stages) == ["zeta", "mt_sft", "mt_rl", "all"]
  assert config.stages.mt_sft.steps == 20
  assert config.stages.mt_sft.optimizer.learning_rate == 1.0
  assert type(config.stages.mt_sft.optimizer.learning_rate) is float
  assert config.stages.mt_sft.optimizer.b1 == 0.9
  assert config.stages.all.arms == ("mt_sft", "mt_rl")


def test_stages_given_as_a_plain_dict_keep_their_order():
  config = c.get_default()
  config.stages = {"zeta": c.stage("synthesize"), "b": c.stage("sft", data="zeta"), "a": c.stage("rl", init="b")}
  assert list(config_check.validate(config).stages) == ["zeta", "b", "a"]


def test_a_key_left_alone_inherits_after_overrides(file):
  config = load(file, "dialogue.turns=3", "model.max_length=99", "stages.mt_rl.checkpoint_every=0")
  assert config.stages.mt_rl.turns == 3
  assert config.stages.mt_sft.row_length == config.dialogue.max_length == 99
  assert config.stages.mt_sft.checkpoint_every == 50
  assert config.stages.mt_rl.checkpoint_every == 0
  assert config.stages.mt_rl.domains == ("math",)


@pytest.mark.parametrize("text, expected", [
    ("stages.mt_rl.steps=3", 3),
    ("stages.mt_sft.optimizer.learning_rate=1e-4", 1e-4),
    ("stages.mt_sft.packing=false", False),
    ("tasks.domains=math,code", ("math", "code")),
    ("tasks.domains=('code',)", ("code",)),
    ("tasks.domains=code", ("code",)),
    ("tasks.convention_spread=(1,0.5)", (1.0, 0.5)),
    ("tokenizer=123", "123"),
    ("tokenizer=a=b", "a=b"),
])
def test_overrides_take_the_type_of_the_key(file, text, expected):
  value = load(file, text)
  for name in text.split("=")[0].split("."):
    value = value[name]
  assert value == expected and type(value) is type(expected)


def test_argument_of_the_config_file(file):
  assert load(file + ":77").stages.zeta.dialogues == 77


def test_split_argv():
  argv = ["--config=a.py", "--workdir=w", "--config.seed=1", "--config.stages.x.steps", "2", "--config.tokenizer=a=b"]
  assert command_line.split_argv(argv) == (
      "a.py", [("seed", "1"), ("stages.x.steps", "2"), ("tokenizer", "a=b")], ["--workdir=w"])
  with pytest.raises(ConfigError, match="has no value"):
    command_line.split_argv(["--config.seed", "--workdir=w"])


@pytest.mark.parametrize("text, message", [
    ("sed=1", "sed: no such key; did you mean 'seed'?"),
    ("model.d_modle=1", "model.d_modle: no such key; did you mean 'model.d_model'?"),
    ("stages.mt_lr.steps=1", "stages.mt_lr: no such key; did you mean 'stages.mt_rl'?"),
    ("stages.mt_rl.stpes=1", "stages.mt_rl.stpes: no such key; did you mean 'stages.mt_rl.steps'?"),
    ("gama=1", "gama: no such key; did you mean 'stages.NAME.gamma'?"),
    ("seed.x=1", "seed.x: no such key; seed is a value and not a table of keys"),
    ("model=1", "model: is a table of keys"),
    ("seed=1.5", "seed: expected int, got 1.5"),
    ("seed=abc", "seed: expected int, got 'abc'"),
    ("seed=True", "seed: expected int, got True"),
    ("stages.mt_sft.optimizer.learning_rate=abc",
     "stages.mt_sft.optimizer.learning_rate: expected float, got 'abc'"),
    ("stages.mt_sft.packing=yes", "stages.mt_sft.packing: expected bool, got 'yes'"),
    ("tasks.convention_spread=a,b", "tasks.convention_spread: expected tuple"),
    ("stages.mt_rl.credit=turn", "stages.mt_rl.credit: expected one of trajectory, turn_return, got 'turn'"),
    ("dialogue.feedback=hints", "dialogue.feedback: expected one of full, no_private, binary"),
    ("stages.mt_rl.group_size=1", "stages.mt_rl.group_size: expected at least 2, got 1"),
    ("dialogue.turns=0", "dialogue.turns: expected at least 1, got 0"),
    ("stages.mt_rl.gamma=nan", "stages.mt_rl.gamma: expected above 0 and at most 1, got nan"),
    ("dialogue.temperature=0", "dialogue.temperature: expected above 0, got 0.0"),
    ("model.heads=3", None),
    ("model.kv_heads=3", "model.heads: expected a multiple of kv_heads (3), got 2"),
    ("dialogue.max_length=600", "dialogue.max_length: expected at most model.max_length (512), got 600"),
    ("mesh.data=-1", "mesh: expected numbers of devices"),
    ("stages.mt_rl.kind=sft", "stages.mt_rl.kind: a stage's kind decides its keys"),
    ("stages.mt_rl.init=mt_stf", "stages.mt_rl.init: 'mt_stf' is no stage before this one"),
    ("stages.mt_sft.init=mt_rl", "stages.mt_sft.init: 'mt_rl' is no stage before this one"),
    ("stages.mt_rl.init=runs/other", None),
    ("stages.mt_rl.match_tokens=mt_sft", "stages.mt_rl.match_tokens: 'mt_sft' is no stage"),
    ("stages.mt_sft.data=", "stages.mt_sft.data: name the synthesize stage"),
    ("stages.all.comparisons=mt_rl-st_rl", "stages.all.comparisons: expected ARM_B-ARM_A"),
    ("stages.all.comparisons=mt_rl-resampling,mt_rl:full-try_again", None),
])
def test_bad_values_are_refused_in_one_line(file, text, message):
  if message is None:
    load(file, text)
    return
  with pytest.raises(ConfigError) as e:
    load(file, text)
  assert message in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("line, message", [
    ("config.modle = 1", "modle: no such key; did you mean 'model'?"),
    ("config.modle.x = 1", "own.py:5: no such key 'modle'; did you mean 'model'?"),
    ("config.model.layrs += 1", "own.py:5: no such key 'layrs'; did you mean 'model.layers'?"),
    ("config.seed = 'x'", "seed: expected int, got 'x'"),
    ("config.seed = True", "seed: expected int, got True"),
    ("config.stages.a = c.stage('slf')", "own.py:5: no stage kind 'slf'; did you mean 'sft'?"),
    ("config.stages.a = {'kind': 'slf'}", "stages.a.kind: expected one of sft, rl, synthesize, evaluate, got 'slf'"),
    ("config.stages.a = {}", "stages.a.kind: expected one of sft, rl, synthesize, evaluate, got none"),
    ("config.stages['a/b'] = c.stage('rl')", "stages.a/b: a stage's name"),
    ("config.stages.a = c.stage('rl', optimizer={'lr': 1})", "stages.a.optimizer.lr: no such key"),
    ("1 / 0", "own.py:5: ZeroDivisionError: division by zero"),
    ("open('/no/such')", "own.py:5: [Errno 2]"),
    ("return {}", "get_config() must return a ConfigDict, got dict"),
    ("x = = 1", "SyntaxError"),
])
def test_bad_config_files_are_refused_in_one_line(tmp_path, line, message):
  path = tmp_path / "own.py"
  path.write_text(f"from sml_jax import config as c\n\ndef get_config():\n  config = c.get_default()\n  {line}\n"
                  "  return config\n")
  with pytest.raises(ConfigError) as e:
    command_line.load(str(path))
  assert message in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["", "no/such.py", "no_such.txt"])
def test_missing_config_file(name):
  with pytest.raises(ConfigError):
    command_line.load(name)


def test_describe_has_every_key_with_its_default():
  lines = c.describe().splitlines()
  assert "  model.rope_theta [10000.0] base of the rotary wavelengths" in lines
  assert any(x.startswith("  credit ['trajectory'] ") and "(trajectory, turn_return)" in x for x in lines)
  leaves = len(config_check.flatten(c.KEYS)) + sum(len(config_check.flatten(t)) - 1 for t in c.STAGE_KEYS.values())
  assert len([x for x in lines if x.startswith("  ")]) == leaves


def test_every_inherited_and_resume_key_exists():
  for kind, table in c.STAGE_KEYS.items():
    for path, key in config_check.flatten(table).items():
      assert c.find_key(f"stages.s.{path}", {"s": kind}) is key
      assert not key.inherit or c.find_key(key.inherit, {}) is not None
