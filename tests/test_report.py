"""Plots show the data they are given; the report needs nothing but itself."""

from __future__ import annotations

import base64
import io
import re
import struct
import sys

import numpy as np
import pytest
from tiny import tiny_dataset

import relpt
from relpt.fewshot import FewShotResult
from relpt.history import History
from relpt.report import figure_png, pca, plot_fewshot, plot_history, plot_map, write_report
from relpt.report.plots import COLOURS, new_figure

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'relpt[plots]'")
matplotlib.use("Agg")


def row(inputs, accuracy, way=5, shot=1, ci95=0.01):
    return {
        "inputs": inputs,
        "way": way,
        "shot": shot,
        "similarity": "cosine",
        "episodes": 100,
        "accuracy": accuracy,
        "ci95": ci95,
    }


BEFORE = [row("C+M", 0.33), row("OnlyC", 0.28), row("OnlyM", 0.42)]
AFTER = [row("C+M", 0.67), row("OnlyC", 0.59), row("OnlyM", 0.40)]


def axes(columns=1):
    return new_figure(6, 4).subplots(1, columns)


def history(steps=40, mlm=True):
    rng = np.random.default_rng(0)
    records = []
    for step in range(1, steps + 1):
        cp, words = 4 - 2 * step / steps + 0.1 * rng.random(), (8 + rng.random()) * mlm
        records.append({"step": step, "loss": cp + words, "loss_cp": cp, "loss_mlm": words})
    return History(records)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    from matplotlib import pyplot

    pyplot.close("all")


# -- few-shot bars ----------------------------------------------------------------------------------------------------


def test_bars_are_the_accuracies_with_their_intervals():
    ax = plot_fewshot(BEFORE, AFTER, axes())
    before, after = (bars for bars in ax.containers if hasattr(bars, "patches"))
    assert [bar.get_height() for bar in before] == [0.33, 0.28, 0.42]
    assert [bar.get_height() for bar in after] == [0.67, 0.59, 0.40]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["C+M", "OnlyC", "OnlyM"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["before", "after"]
    assert {"0.330", "0.670", "chance 0.20"} <= {text.get_text() for text in ax.texts}
    low, high = np.array(after.errorbar[2][0].get_segments())[0][:, 1]
    assert (low, high) == (pytest.approx(0.66), pytest.approx(0.68))
    assert ax.get_ylim()[0] == 0


def test_bars_are_matched_by_setting_not_by_order():
    ax = plot_fewshot(BEFORE, AFTER[::-1], axes())
    assert [bar.get_height() for bar in ax.containers[-1]] == [0.67, 0.59, 0.40]


def test_bars_of_several_ways_and_shots_name_them():
    rows = [row("C+M", 0.5, way, shot) for way in (5, 10) for shot in (1, 5)]
    ax = plot_fewshot(rows, rows, axes())
    assert [label.get_text() for label in ax.get_xticklabels()][-1] == "C+M\n10-way 5-shot"


def test_bars_of_results():
    result = FewShotResult("C+M", 5, 1, "cosine", 10, 0.25, 0.1, np.zeros(10))
    ax = plot_fewshot([result], [result], axes())
    assert ax.containers[-1][0].get_height() == 0.25


@pytest.mark.parametrize(("before", "after"), [([], []), (BEFORE, AFTER[:2]), (BEFORE[:1], [row("C+M", 0.5, way=10)])])
def test_bars_of_unlike_rows_are_refused(before, after):
    with pytest.raises(ValueError, match=r"same inputs|no few-shot"):
        plot_fewshot(before, after, axes())


# -- loss curves ------------------------------------------------------------------------------------------------------


def lines(ax):
    return {line.get_label(): line for line in ax.get_lines() if line.get_label() != "_steps"}


def test_history_shows_the_parts_of_the_loss():
    run = history()
    ax = plot_history(run, axes(), window=1)
    assert set(lines(ax)) == {"total", "contrastive", "masked words"}
    for name, field in (("total", "loss"), ("contrastive", "loss_cp"), ("masked words", "loss_mlm")):
        assert np.allclose(lines(ax)[name].get_ydata(), run[field])
        assert np.array_equal(lines(ax)[name].get_xdata(), np.arange(1, 41))
    assert len(ax.get_lines()) == 3
    assert any(text.get_text().startswith("contrastive 2.") for text in ax.texts)


def test_history_is_smoothed_over_the_last_steps():
    run = history()
    ax = plot_history(run, axes(), window=4)
    smooth = lines(ax)["contrastive"].get_ydata()
    assert smooth[0] == run["loss_cp"][0]
    assert smooth[10] == pytest.approx(run["loss_cp"][7:11].mean())
    assert len(ax.get_lines()) == 6


def test_history_without_masked_words_is_one_curve():
    assert set(lines(plot_history(history(mlm=False), axes()))) == {"contrastive"}


def test_history_of_one_step_and_of_none():
    assert len(lines(plot_history(history(1), axes()))) == 3
    with pytest.raises(ValueError, match="no steps"):
        plot_history(History(), axes())


def test_history_plot_makes_its_own_axes():
    ax = history().plot()
    assert ax.get_xlabel() == "step"
    assert history().plot(ax) is ax


def test_names_at_close_ends_do_not_overlap():
    records = [{"step": i, "loss": 2.02, "loss_cp": 1.01, "loss_mlm": 1.01} for i in (1, 2)]
    ax = plot_history(History(records), axes())
    heights = sorted(text.xy[1] for text in ax.texts)
    assert np.diff(heights).min() > 0.06 * ax.get_ylim()[1]


# -- the map ----------------------------------------------------------------------------------------------------------


def vectors(n=30, dim=12, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def test_map_has_a_point_a_sentence_and_joint_colours():
    labels = [f"relation {i % 5}" for i in range(30)]
    left, right = plot_map(vectors(), vectors(seed=1), labels, axes(2))
    for panel in (left, right):
        assert [len(points.get_offsets()) for points in panel.collections] == [6] * 5
    colours = [[tuple(points.get_facecolor()[0]) for points in panel.collections] for panel in (left, right)]
    assert colours[0] == colours[1]
    assert len(set(colours[0])) == 5
    (legend,) = left.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"relation {i}" for i in range(5)]
    assert (left.get_title(loc="left"), right.get_title(loc="left")) == ("before", "after")
    points = pca(vectors())[0]
    assert np.allclose(left.collections[2].get_offsets(), points[2::5])


def test_map_of_more_relations_than_colours_differs_by_shape():
    labels = [f"r{i}" for i in range(30)]
    left, _ = plot_map(vectors(), vectors(), labels, axes(2))
    looks = [(tuple(p.get_facecolor()[0]), p.get_paths()[0].vertices.tobytes()) for p in left.collections]
    assert len(set(looks)) == 30
    assert len(set(COLOURS)) == len(COLOURS)


def test_map_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="29 labels"):
        plot_map(vectors(), vectors(), ["a"] * 29)
    with pytest.raises(ValueError, match="expected two"):
        plot_map(vectors(), vectors(), ["a"] * 30, axes())


def test_pca_against_the_covariance():
    x = vectors(50, 6).astype(np.float64) * np.array([5, 3, 1, 1, 1, 1])
    points, shares = pca(x, 3, normalize=False)
    variances = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    assert np.allclose(points.var(axis=0, ddof=1), variances[:3])
    assert np.allclose(shares, variances[:3] / variances.sum())
    assert np.allclose(np.corrcoef(points.T), np.eye(3), atol=1e-8)
    assert np.array_equal(pca(x)[0], pca(x)[0])
    assert np.allclose(pca(x)[0], pca(7 * x)[0])  # scaled to length 1


@pytest.mark.parametrize("bad", [np.zeros((1, 4)), np.zeros((4, 1)), np.full((4, 4), np.nan), np.zeros(4)])
def test_pca_refuses(bad):
    with pytest.raises(ValueError, match="expected finite"):
        pca(bad)


def test_pca_of_equal_vectors_is_a_point():
    assert np.allclose(pca(np.ones((5, 3)))[0], 0)


def test_a_mean_is_written_though_its_interval_leaves_the_panel():
    item = {"data": "d", "setting": "100 %", "model": "m", "metric": "accuracy", "mean": 0.4}
    wide = [{**item, "inputs": "C+M", "ci95": 0.1}, {**item, "inputs": "OnlyC", "mean": 0.3, "ci95": 1.2}]
    ax = relpt.report.plots.plot_ablation(wide)
    assert {text.get_text(): round(text.xy[1], 3) for text in ax.texts} == {"0.40": 0.5, "0.30": 1.0}
    assert max(text.xy[1] for text in ax.texts) < ax.get_ylim()[1]


def test_relations_with_their_gains_from_the_top():
    rows = [relpt.analysis.RelationGain("x", 0.2, 0.3, 0.9, 5), relpt.analysis.RelationGain("y", 0.4, 0.5, 0.5, 5)]
    ax = relpt.report.plots.plot_gains(rows, ("[H,T]", "[MASK]"))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["x", "y"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["[H,T]", "[MASK]", "both"]
    drawn = [points.get_offsets().tolist() for points in ax.collections[1:]]
    assert drawn == [[[0.2, 0], [0.4, 1]], [[0.3, 0], [0.5, 1]], [[0.9, 0], [0.5, 1]]]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_bags_are_drawn_from_recall_0_on():
    curve = relpt.metrics.bag_curve([[0.9, 0.1], [0.2, 0.8]], [[1, 0], [1, 0]])
    ax = relpt.report.plots.plot_bags({"a": curve, "b": curve})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    recall, precision = ax.get_lines()[0].get_data()
    np.testing.assert_array_equal(recall, [0, *curve.recall])
    np.testing.assert_array_equal(precision, [1, *curve.precision])


def test_without_matplotlib_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for plot in (lambda: history().plot(), lambda: plot_fewshot(BEFORE, AFTER), lambda: new_figure(1, 1)):
        with pytest.raises(ImportError, match=r"pip install 'relpt\[plots\]'"):
            plot()


# -- the report -------------------------------------------------------------------------------------------------------


def png_size(data):
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", data[16:24])


@pytest.fixture
def page(tmp_path):
    path = write_report(
        tmp_path / "out",
        title="A <title> & more",
        lead="What was done.",
        before=BEFORE,
        after=AFTER,
        figures={"Bars": (figure_png(plot_fewshot(BEFORE, AFTER, axes())), "Caption <b>")},
        examples=list(relpt.load(tiny_dataset(2, 1))),
        tables={"Versions": {"relpt": "1", "none": None, "rate": 1e-4}},
        options={"p_blank": 0.7, "input_mix": {"C+M": 1.0}},
        checkpoint="encoder",
    )
    assert path == tmp_path / "out" / "report.html"
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_report_loads_nothing_from_elsewhere(page):
    for attribute in re.findall(r"""(?:src|href|action|poster|data|srcset)\s*=\s*["']([^"']*)""", page):
        assert attribute.startswith("data:image/png;base64,")
    assert "<script" not in page
    assert "<link" not in page
    assert "@import" not in page
    assert "url(" not in page
    assert "color-scheme: light" in page


def test_report_images_decode(page):
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(images) == 1
    data = base64.b64decode(images[0], validate=True)
    width, height = png_size(data)
    assert width > 500
    assert height > 300
    pixels = matplotlib.image.imread(io.BytesIO(data))
    assert pixels.std() > 0.05


def test_report_says_everything_and_escapes_it(page):
    assert "A &lt;title&gt; &amp; more" in page
    assert "Caption &lt;b&gt;" in page
    assert "<title>A <" not in page
    for text in ("0.330 ± 0.010", "0.670 ± 0.010", "+0.340", "-0.020", "What was done.", "0.0001", "p_blank"):
        assert text in page
    assert 'relpt.Encoder.from_pretrained("encoder")' in page.replace("&quot;", '"')
    assert page.count("<mark") == 4
    assert "$" not in re.sub(r"base64,[^\"]+", "", page)


def test_report_without_figures_or_rows(tmp_path):
    page = write_report(tmp_path, title="t", lead="l").read_text()
    assert "<img" not in page
    assert "Few-shot" not in page
