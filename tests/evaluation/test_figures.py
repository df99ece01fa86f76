import io

import numpy as np
import pytest
from PIL import Image

from sphere_jax.evaluation import figures


def images(n, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 6, 5, channels), np.uint8)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_grid_reads_like_text_with_white_gaps():
    x = images(5)
    whole = figures.grid(x, columns=3)
    assert whole.shape == (6 + 2 + 6, 5 + 2 + 5 + 2 + 5, 3)
    np.testing.assert_array_equal(whole[:6, 7:12], x[1])
    np.testing.assert_array_equal(whole[8:, :5], x[3])
    assert (whole[6:8] == 255).all() and (whole[8:, 14:] == 255).all()
    with pytest.raises(ValueError, match="at least 1 column"):
        figures.grid(x, 0)


@pytest.mark.parametrize("channels", [1, 3])
def test_save_grid_writes_those_pixels(tmp_path, channels):
    x = images(4, channels)
    figures.save_grid(x, tmp_path / "samples" / "a.png", columns=2)
    read = np.asarray(Image.open(tmp_path / "samples" / "a.png"))
    np.testing.assert_array_equal(read.reshape(14, 12, channels), figures.grid(x, 2))
    assert [p.name for p in (tmp_path / "samples").iterdir()] == ["a.png"]


@pytest.mark.parametrize("channels", [1, 3])
def test_labelled_rows_hold_every_image_in_its_place_and_size(channels):
    rows = {"original": images(3, channels), "decoded": images(2, channels, seed=1)}
    picture, scale = pixels(figures.labelled_rows(rows)), round(128 / 6)
    left = 28 + 14 * len("original")
    for number, strip in enumerate(rows.values()):
        top = number * (6 + figures.GAP) * scale
        for column, image in enumerate(strip):
            start = left + column * (5 + figures.GAP) * scale
            cell = picture[top : top + 6 * scale, start : start + 5 * scale]
            expected = np.broadcast_to(image, (6, 5, 3)).repeat(scale, 0).repeat(scale, 1)
            np.testing.assert_array_equal(cell[..., :3], expected)
            assert (cell[..., 3] == 255).all()
    names = picture[:, : left - 20, 3]
    assert names.any() and (picture[:, left - 18 : left, 3] == 0).all()
    with pytest.raises(ValueError, match="of one shape"):
        figures.labelled_rows({"a": images(1), "b": images(1, 1)})


def test_sample_grid_has_one_row_for_each_class_that_has_samples():
    x, labels = images(9), np.array([0, 2, 2, 2, 0, 2, 2, 2, 2])
    height = pixels(figures.sample_grid(x, labels, ["a", "b", "c"], columns=4)).shape[0]
    assert height == pixels(figures.labelled_rows({"a": x[:2], "c": x[:4]})).shape[0]
    first_only = figures.sample_grid(x, labels, ["a", "b", "c"], columns=4, most_classes=1)
    np.testing.assert_array_equal(
        pixels(first_only), pixels(figures.labelled_rows({"a": x[labels == 0]}))
    )


def test_running_mean_is_centred_and_keeps_constants_and_lines():
    np.testing.assert_allclose(figures._running_mean(np.full(100, 3.0)), 3.0)
    line = np.arange(100.0)
    np.testing.assert_allclose(figures._running_mean(line)[5:-5], line[5:-5])
    spike = figures._running_mean(np.eye(100)[50])
    np.testing.assert_allclose(spike[48:53], 0.2)


def test_loss_curves_skip_what_is_no_number_and_have_a_panel_a_stage():
    rows = [{"stage": "vae", "step": i, "loss": 10.0 / (i + 1)} for i in range(50)]
    points = figures.points_by_stage(rows, "loss")
    assert points == {"vae": [(i, 10.0 / (i + 1)) for i in range(50)]}
    spoilt = [*rows, {"stage": "vae", "step": 50, "loss": "nan"}, {"stage": "flow", "step": 1}]
    spoilt += [{"stage": "vae", "step": 51, "loss": float("nan")}]
    assert figures.points_by_stage(spoilt, "loss") == points
    one = pixels(figures.loss_curves(points, "loss"))
    two = pixels(figures.loss_curves(points | {"flow": [(0, -1.0), (1, -2.0)]}, "loss"))
    assert two.shape[1] == pytest.approx(2 * one.shape[1], abs=2)
    with pytest.raises(ValueError, match="at least one stage"):
        figures.loss_curves({}, "loss")


def test_charts_show_their_arrays():
    steps = np.linspace(1, 0.8, 11)
    band = steps[:, None] + np.linspace(-0.1, 0.1, 5)[None, :]
    plain = pixels(figures.radius_along_path({"linear": steps}))
    assert (pixels(figures.radius_along_path({"linear": band})) != plain).any()
    by_time = figures.radius_along_path({"linear": steps}, times=np.linspace(1, 0, 11))
    assert (pixels(by_time) != plain).any()
    norms = np.random.default_rng(0).normal(1, 0.1, (50, 4))
    both = pixels(figures.norm_histogram({"before": norms, "after": np.ones((50, 4))}))
    assert both.shape[-1] == 4 and both[0, 0, 3] == 0  # transparent page
