"""How dialogues go: why they end, whose fault it is, what Q-priming replaces, and what later turns can see."""

from __future__ import annotations

import collections
import dataclasses

import chat_folders
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sml_jax import parallel
from sml_jax.data.packing import pack_all
from sml_jax.data.rows import token_row, token_rows
from sml_jax.dialogue import tokenizer
from sml_jax.dialogue.conversation import Rules, Table, TokenBudget, solved_counts
from sml_jax.dialogue.record import Dialogue
from sml_jax.dialogue.renderer import STUDENT, Renderer, make_renderer
from sml_jax.dialogue.teacher import ALL_SHARDS, TRY_AGAIN, hidden_shards, tell_shard
from sml_jax.errors import UserError
from sml_jax.learn.losses import Objective
from sml_jax.learn.trainer import Trainer
from sml_jax.models.transformer import Model, ModelConfig
from sml_jax.sampling.engine import Engine
from sml_jax.tasks.leaks import Guarded
from sml_jax.tasks.microworld import World
from sml_jax.tasks.microworld_source import MicroworldSource
from sml_jax.tasks.source import Source
from sml_jax.tasks.task import Task

BUDGET = TokenBudget(problem=32, turn=12, reply=20)
KEY = jax.random.key(3)


@dataclasses.dataclass
class Parrot:
  """A student that says one sentence whatever it hears; without an end it goes on until it is cut."""

  config: ModelConfig
  params: dict
  mesh: object = None

  @classmethod
  def of(cls, renderer: Renderer, text: str, ends: bool = True):
    config = ModelConfig(renderer.vocab_size, d_model=1, layers=1, heads=1, kv_heads=1, head_dim=2, mlp_dim=1)
    said = [renderer.tokenizer.id_of(STUDENT), *renderer.encode(text), *renderer.stop_ids * ends]
    assert len(set(said)) == len(said) <= BUDGET.turn + 1
    table = jnp.zeros((renderer.vocab_size,) * 2).at[np.array(said[:-1]), np.array(said[1:])].set(50.0)
    return cls(config, {"table": table.at[said[-1], said[-1]].set(50.0)})

  unstacked = staticmethod(lambda params, turned: params)
  init_cache = staticmethod(lambda rows, segments: (((jnp.zeros((rows, 1, 2, 2)),),) * 2,))
  extend = staticmethod(lambda params, cache, tokens, lengths, **at: (tokens[..., None].astype(jnp.float32), cache))
  logits = staticmethod(lambda params, hidden: params["table"][hidden[..., 0].astype(jnp.int32)])


class FakeSource(Source):
  """Gives the verdict and the reply of each turn (from 1) of a task's one dialogue; the last ones stay."""

  def __init__(self, verdicts=("wrong",), replies=(TRY_AGAIN,), question="What about the pens?"):
    self.verdicts, self.replies, self.asked, self.seen = verdicts, replies, question, []
    self.turns = collections.Counter()

  def verify(self, tasks, texts):
    self.seen.append(list(texts))
    self.turns.update(t.id for t in tasks)
    return [self.verdicts[min(self.turns[t.id], len(self.verdicts)) - 1] for t in tasks]

  def kind(self, task, text):
    return "clarification" if text.endswith("?") else "answer_attempt"

  def teacher(self, feedback):
    return self

  def reply(self, tasks, dialogues):
    assert all(d.end is None and d.turns[-1].role == "student" for d in dialogues)
    return [self.replies[min(len(d.student_turns), len(self.replies)) - 1] for d in dialogues]

  def question(self, task, dialogue):
    return self.asked


@pytest.fixture(scope="module")
def renderer(tmp_path_factory) -> Renderer:
  """Knows the parrot's words."""
  path = tmp_path_factory.mktemp("tokenizer") / "parrot.model"
  own = [f"\u2581{word}" for word in ("Stop,", "I", "am", "right.")]
  words = [*tokenizer.microworld_words(), *own]
  path.write_bytes(tokenizer.train(tokenizer.microworld_sentences(1000), 384, words))
  return Renderer(str(path))


@pytest.fixture(scope="module")
def world() -> MicroworldSource:
  return MicroworldSource(World())


def table_of(renderer, source, model, rows=8, turns=10) -> Table:
  engine = Engine(model, rows=rows, slots=BUDGET.length(turns), max_turn=BUDGET.turn, stop_ids=renderer.stop_ids)
  return Table(engine, renderer, source, BUDGET)


@pytest.fixture(scope="module")
def parrot(renderer) -> Table:
  """Each test puts its own source at the table."""
  return table_of(renderer, None, Parrot.of(renderer, "Stop, I am right."))


def play(table: Table, source, tasks, *, params=None, samples=None, **rules) -> list[Dialogue]:
  table.source = source
  samples = [0] * len(tasks) if samples is None else samples
  params = table.engine.model.params if params is None else params
  return table.play(params, tasks, samples, Rules(**{"turns": 4} | rules), KEY)


def tasks_of(world, n: int, reveal="") -> list[Task]:
  return [world.task("math", "dev", i, reveal) for i in range(n)]


def test_solved_ends_it_at_once(parrot, world):
  for d in play(parrot, FakeSource(("wrong", "wrong", "solved")), tasks_of(world, 3)):
    assert d.end == "solved" and d.solved_at == 3 and d.valid
    assert [t.verdict for t in d.student_turns] == ["wrong", "wrong", "solved"]
    assert [t.role for t in d.turns] == ["teacher", "student"] * 3


def test_turn_limit(parrot, world):
  for turns in (1, 4):
    for d in play(parrot, FakeSource(), tasks_of(world, 2), turns=turns):
      assert d.end == "turn_limit" and len(d.student_turns) == turns and d.turns[-1].role == "student"


def test_P48_saying_that_one_is_right_ends_nothing(parrot, world):
  """Only the verifier and the turn cap end a dialogue."""
  for d in play(parrot, world, tasks_of(world, 4), turns=10):
    assert {t.text for t in d.student_turns} == {"Stop, I am right."}
    assert d.end == "turn_limit" and len(d.student_turns) == 10
    assert {t.verdict for t in d.student_turns} == {"no_attempt"}


def test_P32_a_failed_verifier_makes_the_dialogue_invalid(parrot, world):
  (d,) = play(parrot, FakeSource(("wrong", "verifier_failed")), tasks_of(world, 1))
  assert d.end == "verifier_failed" and not d.valid and d.solved_at is None and len(d.student_turns) == 2


def test_P32_a_failed_teacher_makes_the_dialogue_invalid(parrot, world):
  (d,) = play(parrot, FakeSource(replies=(TRY_AGAIN, None)), tasks_of(world, 1))
  assert d.end == "teacher_failed" and not d.valid and len(d.student_turns) == 2 and d.turns[-1].role == "student"


def test_a_turn_cut_at_its_limit_is_malformed_whatever_the_verifier_says(renderer, world):
  """The student's own fault: valid, unsolved, and no attempt."""
  table = table_of(renderer, None, Parrot.of(renderer, "Stop, I am right.", ends=False))
  for verdict in ("solved", "verifier_failed"):
    (d,) = play(table, FakeSource((verdict,)), tasks_of(world, 1))
    last = d.turns[-1]
    assert d.end == "malformed" and d.valid and last.cut and last.verdict == "no_attempt"
    assert len(last.tokens) == len(last.logprobs) == BUDGET.turn


def test_context_full_when_a_problem_or_a_reply_is_too_long(parrot, world):
  """What was never read has text but no tokens, so the dialogue still fits a row."""
  long = " ".join(["pens"] * 60)
  fits, does_not = tasks_of(world, 2)
  d, full = play(parrot, FakeSource(), [fits, dataclasses.replace(does_not, text=long)])
  assert d.end == "turn_limit" and full.end == "context_full" and full.valid and full.student_turns == []
  (late,) = play(parrot, FakeSource(replies=(TRY_AGAIN, long)), [fits])
  assert late.end == "context_full" and late.valid and len(late.student_turns) == 2 and late.turns[-1].text == long
  for each in (full, late):
    assert len(token_row(each)["tokens"]) <= BUDGET.length(2)
  recited = parrot.recite([dataclasses.replace(fits, text=long)])[0]
  assert recited.end == "context_full" and len(token_row(recited)["tokens"]) == 1


@pytest.mark.parametrize("turns", [4, 10])
def test_shards_done_when_all_is_said_whatever_the_student_does(parrot, world, turns):
  for d in play(parrot, world, tasks_of(world, 4, "every_turn"), turns=turns):
    assert d.end == "shards_done" and [t.hidden for t in d.student_turns] == [2, 1, 0]


def test_an_underspecified_task_has_its_own_turn_cap(parrot, world):
  """Hidden shards + 2; the lower of it and the rules' turns."""
  for d in play(parrot, world, tasks_of(world, 4, "on_question"), turns=10):
    assert d.end == "turn_limit" and [t.hidden for t in d.student_turns] == [2, 2, 2, 2]
  assert len(play(parrot, world, tasks_of(world, 1, "on_question"), turns=3)[0].student_turns) == 3


def test_more_tasks_than_rows_keep_their_order_and_empty_rows_do_not_matter(parrot, world):
  tasks = tasks_of(world, 11)
  dialogues = play(parrot, FakeSource(), tasks, samples=list(range(11)), turns=2)
  assert [d.task_id for d in dialogues] == [t.id for t in tasks] and [d.sample for d in dialogues] == list(range(11))
  assert dialogues[8:] == play(parrot, FakeSource(), tasks[8:], samples=[8, 9, 10], turns=2)


def test_the_engine_must_have_room_for_all_turns(parrot, world):
  with pytest.raises(ValueError, match="turns may take"):
    play(parrot, world, tasks_of(world, 1), turns=99)


def test_q_priming_1_replaces_every_wrong_turn(parrot, world, renderer):
  source = FakeSource(("wrong", "no_attempt", "wrong", "solved"))
  (d,) = play(parrot, source, tasks_of(world, 1), q_priming=1.0)
  assert [t.injected for t in d.student_turns] == [True, False, True, False]  # wrong turns, and only those
  asked = d.student_turns[0]
  assert asked.text == "What about the pens?" and asked.kind == "clarification" and asked.verdict == "no_attempt"
  assert asked.tokens == renderer.student_turn(asked.text).tokens and asked.logprobs == []
  assert d.end == "solved" and d.solved_at == 4
  assert d.sampled_tokens == sum(len(t.tokens) for t in d.student_turns if not t.injected)
  last = play(parrot, FakeSource(), tasks_of(world, 1), q_priming=1.0, turns=2)[0]
  assert last.end == "turn_limit" and [t.injected for t in last.student_turns] == [True, True]
  with pytest.raises(UserError, match=r"a question of \d+ tokens, more than"):
    play(parrot, FakeSource(question="pens " * 20), tasks_of(world, 1), q_priming=1.0)


def test_q_priming_probability_is_base_to_the_turn(renderer, world):
  """0.75^t at wrong turn t, from 1: .75, .5625, .421875, .316406, each within four standard errors of 768 dialogues."""
  table = table_of(renderer, None, Parrot.of(renderer, "Stop, I am right."), rows=768, turns=4)
  tasks = tasks_of(world, 48)
  repeated, samples = [t for t in tasks for _ in range(16)], list(range(16)) * 48
  dialogues = play(table, FakeSource(), repeated, samples=samples, q_priming=0.75)
  asked = np.array([[t.injected for t in d.student_turns] for d in dialogues])
  for t, p in enumerate((0.75, 0.5625, 0.421875, 0.31640625)):
    assert abs(asked[:, t].mean() - p) < 4 * (p * (1 - p) / 768) ** 0.5
  assert abs(np.corrcoef(asked[:, 0], asked[:, 1])[0, 1]) < 0.15  # each turn is drawn anew
  # A function of place: the same task and sample in other company.
  again = play(table, FakeSource(), [tasks[7]] * 3, samples=[5, 6, 7], q_priming=0.75)
  assert again == dialogues[7 * 16 + 5 : 7 * 16 + 8]


@pytest.fixture(scope="module")
def random_student():
  """A small transformer; half of all pieces end its turns."""
  renderer = Renderer()
  renderer.stop_ids = tuple(range(0, renderer.vocab_size, 2))
  model = Model(ModelConfig(renderer.vocab_size, d_model=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp_dim=24))
  params = jax.jit(model.init)(jax.random.key(0, impl="unsafe_rbg"))
  trainer = Trainer(model, Objective("grpo"), optax.sgd(0.1), parallel.make_mesh())
  return table_of(renderer, None, model, rows=16, turns=3), params, trainer


def score(trainer, params, dialogues) -> tuple[dict, np.ndarray]:
  """Packed rows of one dialogue each, and the trainer's log-probabilities of them."""
  batch = pack_all([token_row(d, train_on_injected=False) for d in dialogues], 128, packing=False)
  return batch, trainer.score(params, batch)


def test_a_replaced_turn_is_not_seen_by_later_turns(random_student, world):
  """The log-probabilities sampled after a replacement are those of the rendered dialogue, which does not hold it."""
  table, params, trainer = random_student
  source = FakeSource(("wrong", "no_attempt"))
  dialogues = play(table, source, tasks_of(world, 16), params=params, turns=3, q_priming=0.75)
  replaced = [d.student_turns[0].injected for d in dialogues]
  assert 4 < sum(replaced) < 16
  batch, scores = score(trainer, params, dialogues)
  trained = batch["weights"] == 1
  assert trained.sum() == sum(d.sampled_tokens for d in dialogues) > 0
  np.testing.assert_allclose(batch["logprobs"][trained], scores[trained], atol=1e-5)


def test_stripped_thinking_is_not_seen_by_later_turns(tmp_path, world):
  """Sampled log-probabilities are those of `token_rows`, with questions in place of some turns.

  What goes is the empty block of the header, and what was thought: of a random student, the first half of each turn.
  """
  folder = str(chat_folders.qwen3(tmp_path))
  renderer = make_renderer(folder, "qwen3", thinking="strip")
  renderer.stop_ids = tuple(range(0, renderer.vocab_size, 8))
  renderer._thought = lambda body: len(body) // 2
  model = Model(ModelConfig(renderer.vocab_size, d_model=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp_dim=24))
  params = jax.jit(model.init)(jax.random.key(0, impl="unsafe_rbg"))
  budget = TokenBudget(problem=160, turn=16, reply=80)
  engine = Engine(model, rows=8, slots=budget.length(3), max_turn=16, stop_ids=renderer.stop_ids)
  table = Table(engine, renderer, None, budget)
  source = FakeSource(("wrong", "no_attempt"), question="Why?")
  dialogues = play(table, source, tasks_of(world, 8), params=params, turns=3, q_priming=0.5)
  dialogues = [d for d in dialogues if d.end == "turn_limit"]
  assert len(dialogues) >= 4 and len({d.student_turns[0].injected for d in dialogues}) == 2
  assert max(t.stripped[1] - len(t.prompt) for d in dialogues for t in d.student_turns if not t.injected) > 3
  trainer = Trainer(model, Objective("grpo"), optax.sgd(0.1), parallel.make_mesh())
  rows = [token_rows(d, train_on_injected=False) for d in dialogues]
  assert [len(r) for r in rows] == [3] * len(dialogues)
  gaps = []
  for batch_rows in ([r for rs in rows for r in rs], [token_row(d, train_on_injected=False) for d in dialogues]):
    batch = pack_all(batch_rows, 512, packing=False)
    trained = batch["weights"] == 1
    assert trained.sum() == sum(d.sampled_tokens for d in dialogues) > 30
    gaps.append(np.abs(batch["logprobs"] - trainer.score(params, batch))[trained].max())
  assert gaps[0] < 1e-5 < 1e-3 < gaps[1]  # the second: as if the thinking had stayed
  for d in dialogues:
    for n, turn in enumerate(d.student_turns):
      seen = [*table.renderer.render(dataclasses.replace(d, turns=d.turns[: 2 * n + 1])), *turn.prompt, *turn.tokens]
      assert any(seen == r["tokens"].tolist()[: len(seen)] for r in rows[dialogues.index(d)])


def test_answer_nll_is_the_trainers_score_of_the_answer_in_that_place(random_student, world):
  table, params, trainer = random_student
  tasks = tasks_of(world, 8)
  dialogues = play(table, FakeSource(), tasks, params=params, turns=3, answer_nll=True)
  bare = play(table, FakeSource(), tasks, params=params, turns=3)
  for d, b, task in zip(dialogues, bare, tasks, strict=True):
    assert b.turns == [dataclasses.replace(t, answer_nll=None) for t in d.turns]  # measuring changes nothing
    for n, turn in enumerate(d.student_turns):
      answer = table.renderer.student_turn(task.answer)
      asked = dataclasses.replace(d, turns=[*d.turns[: 2 * n + 1], answer])
      _, scores = score(trainer, params, [asked])
      length = len(table.renderer.render(asked))
      want = -scores[0, length - len(answer.tokens) : length].sum()
      assert turn.answer_nll == pytest.approx(want, abs=1e-4)


def test_reciting_says_the_canonical_answer(parrot, world):
  parrot.source = world
  tasks = [world.task(d, "dev", i) for d in ("math", "code") for i in range(5)]
  for task, d in zip(tasks, parrot.recite(tasks), strict=True):
    assert d.end == "solved" and d.solved_at == 1 and d.turns[1].text == task.answer
    assert d.turns[1].kind == "answer_attempt" and d.sampled_tokens == 0


def test_solved_counts_are_by_task():
  ends = ["solved", "turn_limit", "verifier_failed", "turn_limit", "solved", "solved"]
  dialogues = [Dialogue("t", "math", i, "full", end=e) for i, e in enumerate(ends)]
  assert solved_counts(dialogues, 3).tolist() == [1, 2] and solved_counts(dialogues, 2).tolist() == [1, 0, 2]


class Guarding(FakeSource):
  """Its tasks' answer is 42, which nobody may say."""

  guarded = staticmethod(lambda task: Guarded("How many pens?", "42"))


class Asks:
  """A cast whose questioner has a list of questions; those asked again get the next."""

  def __init__(self, table, *questions):
    self.table, self.questions, self.asked = table, questions, []

  pace = "together"

  def teacher(self, feedback, key, sessions):
    return self.table.source

  def questioner(self, key, sessions):
    return self

  def judge(self, key, sessions):
    return None

  def ask(self, tasks, dialogues, again):
    self.asked.append((again, [t.id for t in tasks], [d.turns[-1].verdict for d in dialogues]))
    return [self.questions[min(again, len(self.questions) - 1)]] * len(tasks)


def test_a_model_asks_in_place_of_wrong_turns_and_gives_nothing_away(renderer, world):
  table = table_of(renderer, None, Parrot.of(renderer, "Stop, I am right."))
  tasks = tasks_of(world, 3)
  for questions, text, rounds in (
      (("What about the pens?",), "What about the pens?", 1),
      (("Is it 42?", "What about the pens?"), "What about the pens?", 2),  # the first one leaks
      (("Is it 42?",), "Stop, I am right.", 3),  # so do all: the turn stays as it was
      ((None,), "Stop, I am right.", 3),  # nothing that is a question
  ):  # fmt: skip
    table.cast, table.leaks = Asks(table, *questions), ("mark", 2)
    dialogues = play(table, Guarding(), tasks, q_priming=1.0, turns=2)
    assert {t.text for d in dialogues for t in d.student_turns} == {text}
    assert [t.injected for d in dialogues for t in d.student_turns] == [text != "Stop, I am right."] * 6
    assert [again for again, *_ in table.cast.asked] == [*range(rounds)] * 2
    assert all(verdicts == ["wrong"] * 3 and ids == [t.id for t in tasks] for _, ids, verdicts in table.cast.asked)


def test_the_arm_without_injection_differs_in_nothing_else(random_student, world):
  """Until its first injected question, every dialogue is that of the control, and one without any is the same."""
  table, params, _ = random_student
  kept = table.cast, table.leaks
  table.cast, table.leaks = Asks(table, "What about the pens?"), ("mark", 0)
  tasks = tasks_of(world, 8)
  arm, control = (play(table, FakeSource(), tasks, params=params, turns=3, q_priming=q) for q in (0.5, 0.0))
  table.cast, table.leaks = kept
  injected = 0
  for a, b in zip(arm, control, strict=True):
    first = next((i for i, t in enumerate(a.turns) if t.injected), None)
    injected += first is not None
    assert [dataclasses.asdict(t) for t in a.turns[:first]] == [dataclasses.asdict(t) for t in b.turns[:first]]
    assert first is not None or a.to_json() == b.to_json()
  assert 0 < injected < 8


def lic_task(reveal) -> Task:
  shards = ("how many?", "Ann has 3.", "Bob has 4.")
  return Task("lic", "lost_in_conversation", shards[0], "", {"answer": "7"}, shards, reveal, "number", "All of it?")


@pytest.mark.parametrize("reveal, heard", [
    ("every_turn", ["how many?", "Ann has 3.", "Bob has 4."]),
    ("snowball", ["how many?", "- how many?\n", "- how many?\n- Ann has 3.\n"]),
    ("recap", ["how many?", "Ann has 3.", "Bob has 4.", "- how many?\n- Ann has 3.\n- Bob has 4."]),
])  # fmt: skip
def test_a_lazy_user_tells_all_and_then_it_is_over(parrot, reveal, heard, renderer):
  class Lazy(FakeSource):
    def reply(self, tasks, dialogues):
      hidden = [next(iter(hidden_shards(t, d).items())) for t, d in zip(tasks, dialogues, strict=True)]
      return [tell_shard(t, d, *shard) for t, d, shard in zip(tasks, dialogues, hidden, strict=True)]

  table = table_of(renderer, None, Parrot.of(renderer, "Stop, I am right."))
  table.budget = dataclasses.replace(table.budget, reply=120)
  table.engine = Engine(Parrot.of(renderer, "Stop, I am right."), rows=2, slots=table.budget.length(6),
                        max_turn=BUDGET.turn, stop_ids=renderer.stop_ids)  # fmt: skip
  (d,) = play(table, Lazy(), [lic_task(reveal)], turns=6)
  said = [t.text for t in d.turns if t.role == "teacher"]
  assert d.end == "shards_done" and len(d.student_turns) == len(heard) == len(said)
  assert all(part in text for part, text in zip(heard, said, strict=True))
  shards = [t.shard for t in d.turns if t.role == "teacher"]
  assert shards == [0, 2, 3] + [ALL_SHARDS] * (reveal == "recap")
  assert [t.hidden for t in d.student_turns] == [2, 1, 0, 0][: len(heard)]


def test_hidden_tests_decide_and_the_dialogue_stops_on_the_public_ones(parrot, world):
  class Half(FakeSource):
    reason = staticmethod(lambda task, text: "hidden_failed")

  (d,) = play(parrot, Half(), tasks_of(world, 1))
  assert (d.end, d.valid, len(d.student_turns), d.turns[-1].reason) == ("hidden_failed", True, 1, "hidden_failed")


def test_a_reply_that_nobody_may_see_ends_it_and_is_counted(renderer, world):
  table = table_of(renderer, None, Parrot.of(renderer, "Stop, I am right."))
  table.leaks = ("drop", 0)
  (d,) = play(table, Guarding(replies=("It is 42.",)), tasks_of(world, 1))
  last = d.turns[-1]
  assert (d.end, d.valid, last.text, last.stopped, last.tokens) == ("teacher_failed", False, "", 1, [])
  table.leaks = ("mark", 0)
  dialogues = play(table, Guarding(replies=("It is 42.",)), tasks_of(world, 1), turns=2)
  assert dialogues[0].leaked and dialogues[0].end == "turn_limit"
