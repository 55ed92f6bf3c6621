from __future__ import annotations

import math

import pytest
from matplotlib.colors import to_hex

from harness.reporting import plots

BLEU = ("bleu", "bleu")


def lines(axes):
    """Returns what errorbar drew, by its marker: x and y of every arm, ours filled and the paper's hollow."""
    found = {}
    for container in axes.containers:
        line = container[0]
        hollow = line.get_markerfacecolor() == "none"
        found[line.get_marker(), hollow] = (list(line.get_xdata()), list(line.get_ydata()), container)
    return found


def levels(axes):
    """Returns the horizontal lines: height and style."""
    across = [line for line in axes.lines if list(line.get_xdata()) == [0, 1]]
    return {line.get_ydata()[0]: line.get_linestyle() for line in across}


def test_every_arm_is_a_line_over_sparsity_with_error_bars(make):
    (axes,) = plots.draw(make(), BLEU).axes
    drawn = lines(axes)
    x, y, container = drawn["s", False]
    assert [place - x[0] for place in x] == pytest.approx([0, 25, 40]) and abs(x[0] - 50) < 1
    assert len({tuple(one[0]) for one in drawn.values()}) == 3, "two arms stand on each other"
    assert y == pytest.approx([28.5, 27.25, 26.5])
    segments = container[2][0].get_segments()
    assert segments[0][:, 1] == pytest.approx([28.5 - 1 / math.sqrt(3), 28.5 + 1 / math.sqrt(3)])
    assert drawn["X", False][1] == pytest.approx([20.0, 15.0, 12.0])
    assert len({to_hex(one[2][0].get_color()) for one in drawn.values()}) == 3


def test_the_papers_points_are_hollow_in_the_colour_of_their_arm(make):
    (axes,) = plots.draw(make(), BLEU).axes
    drawn = lines(axes)
    ours, theirs = drawn["s", False][2][0], drawn["s", True][2][0]
    assert list(theirs.get_ydata())[:2] == [25.5, 24.7]
    assert math.isnan(theirs.get_ydata()[2])
    assert theirs.get_color() == ours.get_color()
    assert theirs.get_linestyle() == "None"


def test_the_dense_model_is_a_horizontal_line_and_the_papers_is_dotted(make):
    (axes,) = plots.draw(make(), BLEU).axes
    assert levels(axes) == {30.0: "-", 25.9: ":"}


def test_each_arm_has_the_line_of_its_own_dense_model_in_its_colour(make, samples):
    text = samples.YAML.partition("reference:")[0].replace("tune: {", "tune: {loss: cross_entropy, ")
    losses = text[text.index("  tune.loss:") : text.index("seeds:")]
    text = text.replace(losses, "  task: {one: 'translation:beams=1', five: 'translation:beams=5'}\n")
    figure = plots.draw(make(text=text), BLEU)
    (axes,) = figure.axes
    across = {to_hex(line.get_color()) for line in axes.lines if list(line.get_xdata()) == [0, 1]}
    arms = {to_hex(container[0].get_color()) for container in axes.containers}
    assert len(across) == 2 and across <= arms
    assert "dense (its arm's colour)" in [label.get_text() for label in figure.legends[0].get_texts()]


def test_numbers_of_another_model_get_their_own_panel_and_scale(make):
    ours, theirs = plots.draw(make(scale="tiny"), BLEU).axes
    assert not any(hollow for _, hollow in lines(ours))
    assert all(hollow for _, hollow in lines(theirs))
    assert levels(ours) == {30.0: "-"}
    assert levels(theirs) == {25.9: ":"}
    assert "google-t5/t5-small" in theirs.get_title(loc="left")
    assert ours.get_xlim() == theirs.get_xlim()


def test_of_another_model_and_with_nothing_run_the_papers_panel_stands_alone(make):
    (theirs,) = plots.draw(make(scale="tiny", skip=lambda cell: True), BLEU).axes
    assert levels(theirs) == {25.9: ":"} and theirs.get_ylabel() == "bleu"
    assert theirs.get_title(loc="left").startswith("the paper's")


def test_axes_say_metric_direction_and_exactly_the_sparsities(make):
    (axes,) = plots.draw(make(), BLEU).axes
    assert axes.get_ylabel() == "bleu (higher is better)"
    assert axes.get_xlabel() == "sparsity (%)"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["50", "75", "90"]
    assert plots.draw(make(higher=False), BLEU).axes[0].get_ylabel() == "bleu (lower is better)"


def test_patterns_stand_side_by_side(make, samples):
    (axes,) = plots.draw(make(text=samples.PATTERNS), BLEU).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["2:4", "16:64"]
    assert list(axes.get_xticks()) == [0.0, 1.0]
    assert axes.get_xlabel() == "pattern"


def test_methods_are_not_joined_by_a_line(make, samples):
    (axes,) = plots.draw(make(text=samples.PATTERNS), BLEU).axes
    assert {container[0].get_linestyle() for container in axes.containers} == {"None"}


def test_a_line_is_broken_where_a_cell_was_not_run(make):
    (axes,) = plots.draw(make(skip=lambda cell: cell.label == "0.75/squarehead"), BLEU).axes
    x, y, _ = lines(axes)["s", False]
    assert [place - x[0] for place in x] == pytest.approx([0, 25, 40])
    assert [math.isnan(value) for value in y] == [False, True, False]


@pytest.mark.parametrize(("factor", "scale"), [(3.0, "linear"), (50.0, "log")])
def test_a_wide_range_is_logarithmic(make, factor, scale):
    comparison = make(value=lambda cell: 10 * factor ** cell.values.get("prune.sparsity", 0), higher=False)
    (axes,) = plots.draw(comparison, BLEU).axes
    assert axes.get_yscale() == scale


def test_the_legend_names_everything_and_covers_no_data(make):
    for scale in ("paper", "tiny"):
        figure = plots.draw(make(scale=scale), BLEU)
        figure.draw_without_rendering()
        (legend,) = figure.legends
        texts = [text.get_text() for text in legend.get_texts()]
        assert texts[:4] == ["one-shot", "cross_entropy", "squarehead", "dense"]
        assert texts[4:] == ["dense, the paper's", "hollow: the paper's"]
        assert legend.get_title().get_text() == "bars: s.e. over seeds"
        box = legend.get_window_extent()
        titles = [figure._suptitle, *(axes.title for axes in figure.axes), *(axes._left_title for axes in figure.axes)]
        for other in (*figure.axes, *titles):
            assert not box.overlaps(other.get_window_extent())


def test_the_error_of_one_seed_is_said_to_be_over_rows_or_of_a_measurement_over_rounds(make, monkeypatch):
    one = make(("seeds: [0, 1, 2]", "seeds: [0]"))
    assert plots.draw(one, BLEU).legends[0].get_title().get_text() == "bars: s.e. over test rows"
    monkeypatch.setattr(plots, "MEASURE", BLEU[0])
    assert plots.draw(one, BLEU).legends[0].get_title().get_text() == "bars: s.e. over rounds"


def test_nothing_of_the_paper_is_in_the_legend_where_there_is_nothing(make, samples):
    figure = plots.draw(make(text=samples.PATTERNS), BLEU)
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "dense"


def test_every_arm_is_within_the_axes_however_many_there_are(make):
    many = "".join(f"    arm{number}: {number}*cross_entropy\n" for number in range(2, 12))
    comparison = make(
        ("    cross_entropy: cross_entropy\n", "    cross_entropy: cross_entropy\n" + many), value=lambda cell: 10.0
    )
    (axes,) = plots.draw(comparison, BLEU).axes[:1]
    left, right = axes.get_xlim()
    found = [x for line in axes.get_lines() if line.get_marker() not in ("None", "", None) for x in line.get_xdata()]
    assert found and all(left < x < right for x in found)


def test_with_nothing_run_there_is_still_a_figure(make):
    (axes,) = plots.draw(make(skip=lambda cell: True), BLEU).axes
    assert levels(axes) == {25.9: ":"}


def test_the_dense_model_alone_is_a_figure(make, samples):
    kept = [line for line in samples.YAML.partition("grid:")[0].splitlines() if not line.startswith(("prune", "tune"))]
    (axes,) = plots.draw(make(text="\n".join(kept)), BLEU).axes
    assert list(levels(axes).values()) == ["-"]


def test_many_arms_have_different_looks():
    arms = ["one_shot", *(f"arm{number}" for number in range(6))]
    looks = [plots._look(arm, arms, plots.LIGHT) for arm in arms]
    assert len({look["color"] for look in looks}) == len({look["marker"] for look in looks}) == 7


def test_the_bytes_depend_on_the_numbers_alone(make):
    first = plots.png(plots.draw(make(), BLEU))
    assert first == plots.png(plots.draw(make(), BLEU))
    assert first[:8] == b"\x89PNG\r\n\x1a\n"
    assert b"matplotlib" not in first
    assert first != plots.png(plots.draw(make(), BLEU, plots.DARK))
    assert first != plots.png(plots.draw(make(value=lambda cell: 7.0), BLEU))


def test_files_are_named_after_entry_scale_and_metric(make, tmp_path):
    (path,) = plots.write(make(), tmp_path)
    assert path.relative_to(tmp_path).as_posix() == "sample/translation.paper.bleu.png"
    assert path.read_bytes() == plots.png(plots.draw(make(), BLEU))
