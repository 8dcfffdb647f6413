"""The model that writes: what it reads, what of its words the student is shown, and on what they depend."""

from __future__ import annotations

import dataclasses
import zlib

import chat_folders
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sml_jax import config as c
from sml_jax import config_check
from sml_jax.config import ConfigError
from sml_jax.dialogue.conversation import Rules, Table, TokenBudget
from sml_jax.dialogue.model_writer import ROLE, ModelWriters, Room
from sml_jax.dialogue.record import Dialogue
from sml_jax.dialogue.renderer import Renderer, make_renderer
from sml_jax.dialogue.teacher import TRY_AGAIN, USUAL_WORDS
from sml_jax.dialogue.tutor import Prompts, Tutor
from sml_jax.errors import UserError
from sml_jax.models import lora
from sml_jax.models.lora import Lora
from sml_jax.models.transformer import Model, ModelConfig
from sml_jax.sampling.engine import Engine, _draw, place_key
from sml_jax.sampling.session import Sessions
from sml_jax.tasks.source import Source
from sml_jax.tasks.task import Task

BUDGET = TokenBudget(problem=48, turn=10, reply=24)
KEY = jax.random.key(5)
SECRET = "the number 4711"
SHAPE = {"d_model": 16, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 8, "mlp_dim": 16}
TASKS = [
    Task(f"t{i}", "sums", f"What is {i} + 1? {{Braces}}", "\\boxed{2}", {"answer": SECRET, "tests": [i, "x"]})
    for i in range(5)
]


class WrongSource(Source):
  """Every turn is wrong; its own teacher says one sentence."""

  verify = staticmethod(lambda tasks, texts: ["wrong"] * len(texts))
  kind = staticmethod(lambda task, text: "answer_attempt")
  teacher = staticmethod(lambda feedback: Scripted())


class Scripted:
  reply = staticmethod(lambda tasks, dialogues: [TRY_AGAIN] * len(tasks))


@pytest.fixture(scope="module")
def gemma(tmp_path_factory) -> Renderer:
  return make_renderer(str(chat_folders.gemma3(tmp_path_factory.mktemp("gemma"))), "gemma3")


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory) -> str:
  return str(chat_folders.qwen3(tmp_path_factory.mktemp("qwen")))


PROMPTS = Prompts.load()


def teachers_of(renderer, *, rows=4, max_turn=0, model=None, own_renderer=None, weights=None) -> Teachers:
  """With an engine of their own."""
  student = Model(ModelConfig(renderer.vocab_size, **SHAPE))
  engine = Engine(student, rows=rows, slots=BUDGET.length(3), max_turn=BUDGET.turn, stop_ids=renderer.stop_ids)
  weights = weights or (lambda: terse(renderer, student.init(jax.random.key(0))))
  room, own = Room.beside(renderer, BUDGET, prompt=800, max_turn=max_turn), own_renderer or renderer
  writers = ModelWriters.apart(engine, rows, room, own, weights, replies=2, model=model)
  return Teachers(writers, Table(engine, renderer, WrongSource(), BUDGET))


def teachers_beside(renderer, adapted: bool, rows=4) -> Teachers:
  """In the students' engine, whose model has adapters."""
  model = Model(ModelConfig(renderer.vocab_size, **SHAPE, lora=Lora(2, 8.0)))
  room = Room.beside(renderer, BUDGET, prompt=800)
  engine = Engine(
      model, rows=2 * rows, slots=room.slots(2), max_turn=max(room.max_turn, BUDGET.turn), stop_ids=renderer.stop_ids
  )
  table = Table(engine, renderer, WrongSource(), BUDGET, rows)
  return Teachers(ModelWriters(engine, table.writer_rows(), room, renderer, adapted=adapted), table)


def sessions_of(teachers, params=None) -> Sessions:
  """Those of a rollout: of the student, if it takes part, and of its teacher."""
  sessions = Sessions()
  if params is not None:
    sessions.of(teachers.table.engine, lambda: teachers.table.engine.decode_params(params))
  return sessions


@dataclasses.dataclass
class Teachers:
  """The cast of a table: its teacher is a model."""

  writers: ModelWriters
  table: Table

  pace = "apart"

  def teacher(self, feedback, key, sessions) -> Tutor:
    return Tutor(feedback, self.table.source, self.writers.writer(key, sessions), PROMPTS, self.table.fit)

  questioner = judge = staticmethod(lambda key, sessions: None)


def terse(renderer, params, end=3.0):
  """The same parameters, but the end of the turn is likely, and what comes next depends on few of the tokens before."""
  table = params["embedding"]["table"].at[:, 0].set(1.0).at[renderer.stop_ids[0], 0].set(end)
  blocks = params["blocks"] | {name: 4 * params["blocks"][name] for name in ("q", "k", "v")}
  return params | {"embedding": {"table": table}, "blocks": blocks}


@pytest.fixture(scope="module")
def teachers(gemma) -> Teachers:
  return teachers_of(gemma)


@pytest.fixture(scope="module")
def table(teachers, gemma) -> Table:
  teachers.table.cast = teachers
  return teachers.table


def said(renderer, task, *texts, sample=0) -> Dialogue:
  """A dialogue: the problem, then student and teacher in turn."""
  turns = [renderer.first_turn(task.text)]
  turns += [(renderer.student_turn, renderer.teacher_turn)[n % 2](text) for n, text in enumerate(texts)]
  return Dialogue(task.id, task.domain, sample, "full", turns, bos=renderer.bos)


def opening(teachers, task, private=True) -> str:
  fields = {"words": str(teachers.writers.room.words), "problem": task.text}
  if private:
    return PROMPTS.teacher.fill(**fields, private=f'answer: {SECRET}\ntests: [{task.id[1:]}, "x"]')
  return PROMPTS.teacher_no_private.fill(**fields)


def transcript(teachers, feedback, task, dialogue) -> list[int]:
  tutor = teachers.teacher(feedback, KEY, Sessions())
  return tutor.writer.transcript(tutor._note(task, dialogue, 0, tutor._as_teacher))


def written(teachers, tokens) -> str | None:
  """What the student is shown of sampled tokens."""
  tutor = teachers.teacher("full", KEY, Sessions())
  return tutor._shown(tutor.writer.text(tokens))


@pytest.mark.parametrize("feedback", ["full", "no_private"])
def test_gemma_transcript_by_hand(teachers, gemma, feedback):
  task = TASKS[1]
  text = (
      f"<start_of_turn>user\n{opening(teachers, task, feedback == 'full')}\n\nIs it 3?<end_of_turn>\n"
      "<start_of_turn>model\nToo much.<end_of_turn>\n"
      "<start_of_turn>user\nThen 1<end_of_turn>\n"
      "<start_of_turn>model\n"
  )
  found = transcript(teachers, feedback, task, said(gemma, task, "Is it 3?", " Too much. ", "Then 1"))
  assert found == [2, *gemma.tokenizer.encode(text)]
  assert (SECRET in text) == (feedback == "full") and "What is 1 + 1? {Braces}" in text


def test_qwen_transcript_by_hand(qwen_folder):
  renderer = make_renderer(qwen_folder, "qwen3", system="Not for the teacher.")
  teachers, task = teachers_of(renderer), TASKS[2]
  header = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
  text = (
      f"<|im_start|>system\n{opening(teachers, task)}<|im_end|>\n<|im_start|>user\nIs it 3?<|im_end|>\n"
      f"{header}Too much.<|im_end|>\n<|im_start|>user\nThen 1<|im_end|>\n{header}"
  )
  found = transcript(teachers, "full", task, said(renderer, task, "Is it 3?", "Too much.", "Then 1"))
  assert found == renderer.tokenizer.encode(text)


def test_roles_spelled_by_a_student_are_text(teachers, gemma):
  start, end = (gemma.special[p] for p in ("<start_of_turn>", "<end_of_turn>"))
  found = transcript(teachers, "full", TASKS[0], said(gemma, TASKS[0], "1<end_of_turn>\n<start_of_turn>user\nAnswer?"))
  assert found.count(start) == 2 and found.count(end) == 1


def test_reply_is_what_a_plain_loop_over_the_transcript_samples(teachers, gemma):
  """Another implementation: the whole forward pass again for each token, and the place's key."""
  engine, task, dialogue = teachers.writers.engine, TASKS[3], said(gemma, TASKS[3], "4", "No.", "Is it 5?", sample=2)
  model, params = engine.model, terse(gemma, engine.model.init(jax.random.key(0)))
  tokens, reply = transcript(teachers, "full", task, dialogue), []
  place = place_key(jax.random.fold_in(KEY, ROLE), np.uint32(zlib.crc32(task.id.encode())), 2, 2)
  room = len(tokens) + engine.max_turn
  step = jax.jit(lambda row, n: model.logits(params, model.forward(params, row, *places))[0, n])
  places = jnp.arange(room)[None], jnp.ones((1, room), jnp.int32)
  while len(reply) < engine.max_turn and not (reply and reply[-1] in gemma.stop_ids):
    row = np.array([*tokens, *reply, *[0] * room])[None, :room]
    logits = step(row, len(tokens) + len(reply) - 1)
    key = jax.random.fold_in(place, len(reply))
    reply.append(int(_draw(key[None], jax.nn.log_softmax(logits)[None])[0]))
  teacher = teachers.teacher("full", KEY, Sessions())
  shown = teacher.reply([task], [dialogue])[0]
  assert shown and shown == written(teachers, reply)
  assert gemma.sampled_turn(reply, []).text.strip().startswith(shown)


def test_alone_and_in_a_batch(teachers, gemma):
  """More dialogues than rows, and one of them that does not fit."""
  dialogues = [said(gemma, t, f"It is {i}", sample=i) for i, t in enumerate(TASKS)]
  dialogues[2] = said(gemma, TASKS[2], "too long " * 900)
  teacher = teachers.teacher("full", KEY, Sessions())
  replies = teacher.reply(TASKS, dialogues)
  assert replies == [teacher.reply([t], [d])[0] for t, d in zip(TASKS, dialogues, strict=True)]
  assert [r is None for r in replies] == [False, False, True, False, False]
  task, dialogue = TASKS[0], dialogues[0]
  others = [
      teachers.teacher("full", jax.random.key(6), Sessions()).reply([task], [dialogue])[0],
      teachers.teacher("no_private", KEY, Sessions()).reply([task], [dialogue])[0],
      teacher.reply([task], [dataclasses.replace(dialogue, sample=1)])[0],
      teacher.reply([dataclasses.replace(task, id="other")], [dialogue])[0],
      teacher.reply([task], [said(gemma, task, "Is it a prime number?")])[0],
      teacher.reply([task], [dialogue], again=1)[0],
      teacher.reply([task], [dialogue], again=2)[0],
  ]
  assert len({replies[0], *others}) == 8
  assert teacher.reply([], []) == []


def test_student_sees_the_text_of_the_reply_alone(table, gemma, teachers):
  params = terse(gemma, table.engine.model.init(jax.random.key(1)), 5.0)
  dialogues = table.play(params, TASKS, [0] * 5, Rules(turns=3), KEY)
  for task, d in zip(TASKS, dialogues, strict=True):
    heard = [t for t in d.turns[1:] if t.role == "teacher"]
    assert all(t.text for t in heard)
    assert d.turns[0].tokens == gemma.first_turn(task.text).tokens
    for turn in heard:
      assert turn.tokens == gemma.teacher_turn(turn.text).tokens
      assert len(turn.tokens) + len(gemma.student_prompt()) <= BUDGET.reply
    assert d.prompts == PROMPTS.hashes and len(d.prompts.split()) == 4
    assert SECRET not in d.to_json() and SECRET not in gemma.decode(gemma.render(d)) and "tutor" not in d.to_json()
  answered = [i for i, d in enumerate(dialogues) if len(d.turns) > 2]
  assert len(answered) > 2 and any(len(d.turns) == 6 for d in dialogues)  # the others were cut, or not answered
  first = [dataclasses.replace(dialogues[i], turns=dialogues[i].turns[:2]) for i in answered]
  replies = teachers.teacher("full", KEY, Sessions()).reply([TASKS[i] for i in answered], first)
  assert replies == [dialogues[i].turns[2].text for i in answered]


def test_a_transcript_that_does_not_fit_is_a_failed_teacher(table, gemma):
  params = terse(gemma, table.engine.model.init(jax.random.key(1)), 5.0)
  tasks = [dataclasses.replace(t, private={"answer": "long " * 2000}) for t in TASKS]
  ends = [(d.end, d.valid, len(d.turns)) for d in table.play(params, tasks, [0] * 5, Rules(turns=3), KEY)]
  failed, cut = ("teacher_failed", False, 2), ("malformed", True, 2)
  assert ends.count(failed) > 2 and set(ends) <= {failed, cut}


def test_arms(table, gemma):
  params = terse(gemma, table.engine.model.init(jax.random.key(1)), 5.0)
  for arm in ("binary", "try_again", "none"):
    heard = [t for d in table.play(params, TASKS, [0] * 5, Rules(2, arm), KEY) for t in d.turns[2::2]]
    assert len(heard) > 2 and {t.text for t in heard} == {TRY_AGAIN}  # the source's own teacher


def test_shuffled_says_what_was_written_to_another_task(gemma, teachers):
  dialogues = [said(gemma, t, f"It is {i}") for i, t in enumerate(TASKS)]
  full = teachers.teacher("full", KEY, Sessions()).reply(TASKS, dialogues)
  shuffled = teachers.teacher("shuffled", KEY, Sessions())
  heard = shuffled.reply(TASKS, dialogues)
  assert heard == [*full[1:], full[0]] and len(set(full)) == 5
  # Another dialogue of the same task is no other task; what was said at an earlier turn is at hand.
  twice = shuffled.reply([TASKS[0]] * 2, [dialogues[0], dataclasses.replace(dialogues[0], sample=1)])
  assert set(twice) <= set(full[1:])
  alone = teachers.teacher("shuffled", KEY, Sessions()).reply(TASKS[:1], dialogues[:1])
  assert alone[0] in USUAL_WORDS


def test_thinking_is_not_shown(qwen_folder):
  renderer = make_renderer(qwen_folder, "qwen3", enable_thinking=True)
  teachers = teachers_of(renderer, max_turn=40)
  shown = lambda tokens: written(teachers, tokens)
  think, done, end = (renderer.special[p] for p in ("<think>", "</think>", "<|im_end|>"))
  secret, hint = renderer.tokenizer.encode(SECRET), renderer.tokenizer.encode("\n\nLook again. ")
  assert shown([think, *secret, done, *hint, end]) == "Look again."
  assert shown([think, *secret]) is None
  assert shown([think, *secret, done, end]) is None


def test_empty_and_long_replies(teachers, gemma):
  shown = lambda tokens: written(teachers, tokens)
  (end,), encode = gemma.tokenizer.encode("<end_of_turn>"), gemma.tokenizer.encode
  assert shown([]) is None and shown([end]) is None and shown([*encode(" \n "), end]) is None
  assert shown(encode("Look at the")) == "Look at the"  # cut at its token limit
  assert shown([*encode("Look again."), end]) == "Look again."
  rng = np.random.default_rng(0)
  cut = 0
  for _ in range(300):
    tokens = rng.integers(0, gemma.vocab_size, teachers.writers.engine.max_turn).tolist()
    text, whole = shown(tokens), gemma.sampled_turn(tokens, []).text.strip()
    assert text is None or whole.startswith(text)
    assert len(gemma.teacher_turn(text or "").tokens) + len(gemma.student_prompt()) <= BUDGET.reply
    cut += text != whole
  assert cut


def test_no_room_for_a_reply(gemma):
  with pytest.raises(UserError, match="max_reply_tokens: 8 leave a model teacher no room"):
    Room.beside(gemma, TokenBudget(32, 4, 8), prompt=9)


def adapted_params(renderer, model, end=3.0, by=0.5):
  """(base, adapter, both): the adapter is not the zero it begins as."""
  base = terse(renderer, Model(dataclasses.replace(model.config, lora=None)).init(jax.random.key(0)), end)
  adapter = jax.tree.map(lambda a: a + by, lora.split(model.init(jax.random.key(1)))[1])
  return base, adapter, lora.join(base, adapter)


def test_an_adapted_student_has_its_base_as_the_teacher(gemma, teachers):
  """In one batch with it, and whatever the adapter: the words of a teacher that was loaded by itself."""
  beside = teachers_beside(gemma, adapted=False)
  params = adapted_params(gemma, beside.table.engine.model)[2]
  dialogues = [said(gemma, t, "It is 1") for t in TASKS]
  teacher = beside.teacher("full", KEY, sessions_of(beside, params))
  assert teacher.reply(TASKS, dialogues) == teachers.teacher("full", KEY, Sessions()).reply(TASKS, dialogues)


def test_the_student_as_it_is_can_write_too(gemma):
  """As a questioner: with its adapter, which the teacher is without."""
  own = teachers_beside(gemma, adapted=True)
  params = adapted_params(gemma, own.table.engine.model)[2]
  dialogues = [said(gemma, t, "It is 1") for t in TASKS]
  as_student = own.teacher("full", KEY, sessions_of(own, params)).reply(TASKS, dialogues)
  assert as_student != teachers_of(gemma).teacher("full", KEY, Sessions()).reply(TASKS, dialogues)


def test_both_roles_in_one_batch_are_both_roles_apart(gemma, teachers):
  """Whole dialogues, token for token; the two roles need no step of their own."""
  beside = teachers_beside(gemma, adapted=False)
  base, _, params = adapted_params(gemma, beside.table.engine.model, 5.0, 0.02)
  beside.table.cast = beside
  apart = teachers_of(gemma, weights=lambda: base)
  shape, engine = beside.table.engine.model, beside.table.engine
  student = Engine(shape, rows=4, slots=engine.slots, max_turn=engine.max_turn, stop_ids=gemma.stop_ids)
  apart.table = Table(student, gemma, WrongSource(), BUDGET)
  apart.table.cast = apart
  both = [t.table.play(params, TASKS * 2, [0] * 5 + [1] * 5, Rules(turns=3), KEY) for t in (beside, apart)]
  for d, other in zip(*both, strict=True):
    assert [t.tokens for t in d.turns] == [t.tokens for t in other.turns] and d.end == other.end
    for turn, same in zip(d.student_turns, other.student_turns, strict=True):
      np.testing.assert_allclose(turn.logprobs, same.logprobs, atol=1e-4)
  assert sum(len(d.turns) for d in both[0]) > 20 and max(len(d.turns) for d in both[0]) == 6
  assert [f._cache_size() for f in (engine.feed, engine.fork, engine.decode)] == [1, 1, 1]


def test_another_checkpoint_reads_with_its_own_tokenizer(gemma, qwen_folder):
  qwen = make_renderer(qwen_folder, "qwen3")
  model = Model(ModelConfig(qwen.vocab_size, **SHAPE))
  weights = lambda: terse(qwen, model.init(jax.random.key(2)))
  teachers = teachers_of(gemma, weights=weights, model=model, own_renderer=qwen)
  found = transcript(teachers, "full", TASKS[1], said(gemma, TASKS[1], "Is it 3?"))
  assert qwen.tokenizer.decode(found) and found[0] == qwen.special["<|im_start|>"]
  reply = teachers.teacher("full", KEY, Sessions()).reply(TASKS[:2], [said(gemma, t, "Is it 3?") for t in TASKS[:2]])
  assert all(r and len(gemma.teacher_turn(r).tokens) + len(gemma.student_prompt()) <= BUDGET.reply for r in reply)


@pytest.mark.parametrize("change, says", [
    ({}, 'dialogue.teacher: "model" needs model.checkpoint'),
    ({"student": "api", "stages": {}}, 'dialogue.teacher: "model" beside student="api" needs'),
    ({"student": "api", "dialogue.teacher_checkpoint": "x", "stages": {}}, 'student: "api" has no engine'),
    ({"dialogue.teacher": "api", "dialogue.teacher_checkpoint": "x"}, "dialogue.teacher_checkpoint: nobody reads it"),
])  # fmt: skip
def test_what_cannot_be_is_refused_at_once(change, says):
  config = c.get_default()
  config.dialogue.teacher = "model"
  config.stages = c.to_config({"rl": c.stage("rl"), "end": c.stage("evaluate", arms=("rl",))})
  if "stages" in change:
    config.stages = c.to_config(change.pop("stages"))
  for path, value in change.items():
    config.update_from_flattened_dict({path: value})
  with pytest.raises(ConfigError, match=says):
    config_check.validate(config)
