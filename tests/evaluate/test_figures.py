import numpy as np
import pytest
from matplotlib.colors import to_hex

from sml_jax.evaluate import figures


def lines(ax, colour, dashed):
  found = [line for line in ax.lines if to_hex(line.get_color()) == colour]
  return [line for line in found if (line.get_linestyle() == "--") == dashed]


def test_success_figure_draws_each_arm_and_its_control(summary):
  fig = figures.success_figure(summary)
  assert len(fig.axes) == 5
  for ax, suite in zip(fig.axes, ("math", "code", "math_sharded", "code_sharded", "math_try_again"), strict=True):
    for arm, entry in summary["arms"].items():
      solid = lines(ax, figures.ARM_COLOURS[arm], dashed=False)
      assert len(solid) == 1
      np.testing.assert_allclose(solid[0].get_ydata(), entry["eval"][suite]["success_by_turn"])
      dashed = lines(ax, figures.ARM_COLOURS[arm], dashed=True)
      if suite.endswith("sharded"):
        assert not dashed
      else:
        np.testing.assert_allclose(dashed[0].get_ydata(), entry["eval"][suite]["resampling"])
    assert len(ax.collections) == 4  # a band an arm


def test_success_figure_of_chosen_suites(summary):
  assert [ax.get_title(loc="left") for ax in figures.success_figure(summary, ("math", "code")).axes] == [
      "maths",
      "code",
  ]


def test_colours_do_not_depend_on_company():
  assert figures.arm_colours(["x", "mt_rl"])["mt_rl"] == figures.arm_colours(["mt_rl"])["mt_rl"]
  colours = figures.arm_colours(["x", "y", *figures.ARM_COLOURS])
  assert len(set(colours.values())) == len(colours)


def test_learning_figure_has_no_policy_gradient_loss(metrics):
  rows = [{**row, "stage": stage} for stage, found in metrics.items() for row in found]
  axes = {ax.get_title(loc="left"): ax for ax in figures.learning_figure(rows).axes}
  assert set(axes) == {title for _, title in figures.LEARNING_PANELS}
  assert {to_hex(line.get_color()) for line in axes["loss, nats a token"].lines} == {"#7a7f87", "#e69f00"}
  assert {to_hex(line.get_color()) for line in axes["dialogues solved"].lines} == {"#0072b2", "#d55e00"}
  assert figures.learning_figure([]).axes


def test_smooth_is_a_running_mean():
  assert figures._smooth(np.arange(5.0)).tolist() == [0, 1, 2, 3, 4]  # too short to smooth
  values = np.zeros(20)
  values[10], values[0] = 3.0, np.nan
  assert figures._smooth(values)[9:12] == pytest.approx([1, 1, 1])
  assert figures._smooth(values)[0] == 0


def test_nll_figure(summary):
  assert len(figures.nll_figure(summary).axes) == 5
  assert figures.nll_figure({"arms": {"base": {"eval": {"math": {"answer_nll_by_turn": [None, None]}}}}}) is None


def test_inline_svg_takes_its_colours_from_the_page_and_is_deterministic(summary):
  svg = figures.inline_svg(figures.success_figure(summary), "success")
  assert svg.startswith('<svg role="img" aria-label="success"')
  assert "var(--ink)" in svg and figures.INK not in svg and "<metadata" not in svg
  assert svg == figures.inline_svg(figures.success_figure(summary), "success")


def test_png(tmp_path, summary):
  figures.save_png(figures.success_figure(summary, ("math",)), tmp_path / "a.png", dpi=100)
  data = (tmp_path / "a.png").read_bytes()
  assert data.startswith(b"\x89PNG") and int.from_bytes(data[16:20], "big") == 1000
