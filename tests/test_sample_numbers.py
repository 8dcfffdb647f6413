from sml_jax.main import sample_numbers
from sml_jax.tasks.task import Task


def test_a_task_that_comes_again_in_a_step_has_other_samples():
  a, b = (Task(name, "math", "", "", {}) for name in "ab")
  assert sample_numbers([a, b]) == [0, 0]
  assert sample_numbers([a, b, a], 2) == [0, 1, 0, 1, 2, 3]
