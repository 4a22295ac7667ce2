"""Pictures: exact colours, whole panels at the right place, sizes, and no file left beside them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from utils import plots
from utils.plots import error_map, overview, sample_sheet, training_curves


def scene(H, W, seed=0):
    """An image of noise, a target with road and no-data, and a probability."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (H, W, 3), np.uint8)
    target = np.zeros((H, W), np.uint8)
    target[H // 3 : H // 2] = 1
    target[:, : W // 8] = 255
    return image, target, rng.random((H, W), np.float32)


def read(path):
    """The picture's RGB; the folder must hold it and nothing else."""
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def find(page, panel):
    """(top, left) of the panel within the page, pixel for pixel."""
    H, W = panel.shape[:2]
    corner = (page[: 1 - H, : 1 - W] == panel[0, 0]).all(-1)
    corner &= (page[H - 1 :, W - 1 :] == panel[-1, -1]).all(-1)
    corner[1:, 1:] &= (page[:-H, :-W] != panel[0, 0]).any(-1)  # the frame is before it
    for top, left in np.argwhere(corner):
        if np.array_equal(page[top : top + H, left : left + W], panel):
            return top, left
    raise AssertionError("the panel is not on the page")


def test_the_error_map_has_exactly_the_legends_colours():
    mask = np.array([[1, 0, 1, 0, 1, 0]], bool)
    target = np.array([[1, 0, 0, 1, 255, 255]], np.uint8)
    white, black, red, blue = (255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 0, 255)
    grey = (128, 128, 128)
    for kind in (bool, np.uint8):
        colours = error_map(mask.astype(kind), target)
        assert colours.dtype == np.uint8 and colours.shape == (1, 6, 3)
        assert [tuple(c) for c in colours[0]] == [white, black, red, blue, grey, grey]
    assert error_map(mask.astype(np.uint8) * 255, target).tolist() == colours.tolist()


def test_a_sheet_shows_the_pixels_of_every_panel(tmp_path):
    image, target, probability = scene(300, 280)
    path = tmp_path / "new" / "sheet.png"
    sample_sheet([image], [target], [probability], path, 0.3)
    page = read(path)
    truth = np.repeat(np.where(target == 255, 128, 255 * target)[..., None], 3, axis=-1)
    errors = error_map(probability >= 0.3, target)
    places = [find(page, panel) for panel in (image, truth.astype(np.uint8), errors)]
    assert len({top for top, _ in places}) == 1
    assert [left for _, left in places] == sorted(left for _, left in places)
    assert places[-1][1] + 280 <= page.shape[1]


@pytest.mark.parametrize("side, factor", [(64, 4), (100, 3), (256, 1)])
def test_small_images_are_enlarged_by_whole_steps(tmp_path, side, factor):
    image, target, probability = scene(side, side)
    path = tmp_path / "sheet.png"
    sample_sheet([image], [target], [probability], path, 0.5, names=["costs $5 and $6"])
    find(read(path), image.repeat(factor, 0).repeat(factor, 1))


def test_large_images_are_reduced(tmp_path):
    image, target, probability = scene(750, 1500)
    image[:] = np.array([200, 30, 90])
    path = tmp_path / "sheet.png"
    sample_sheet([image], [target], [probability], path, 0.5)
    page = read(path)
    find(page, image[:320, :640])
    assert 4 * 640 < page.shape[1] < 4 * 640 + 200 and 320 < page.shape[0] < 640


def test_images_of_different_sizes_share_a_sheet(tmp_path):
    scenes = [scene(300, 300), scene(150, 300, seed=1), scene(64, 100, seed=2)]
    path = tmp_path / "sheet.png"
    sample_sheet(*zip(*scenes, strict=True), path, 0.5)
    page = read(path)
    first, second = find(page, scenes[0][0]), find(page, scenes[1][0])
    third = find(page, scenes[2][0].repeat(3, 0).repeat(3, 1))
    assert first[1] == second[1] == third[1]
    assert first[0] + 300 < second[0] and second[0] + 150 < third[0]


def test_an_overview_holds_images_and_errors(tmp_path):
    rows = []
    for number, title in enumerate(["worst", "median", "best"]):
        image, target, probability = scene(256, 256, seed=number)
        mask = probability > 0.5
        rows.append((title, image, target, mask, error_map(mask, target)))
    path = tmp_path / "overview.png"
    overview(rows, path)
    page = read(path)
    tops = [find(page, row[1])[0] for row in rows]
    assert tops == sorted(tops)
    assert tops == [find(page, row[4])[0] for row in rows]


def test_titles_tell_the_score(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(plots, "write_sheet", lambda columns, rows, *_, **__: seen.extend(rows))
    target = np.array([[1, 1, 0, 255]], np.uint8)
    probability = np.array([[0.9, 0.2, 0.4, 0.9]], np.float32)
    image = np.zeros((1, 4, 3), np.uint8)
    sample_sheet([image], [target], [probability], tmp_path / "a.png", 0.4, names=["place"])
    mask = probability >= 0.9
    overview([("best", image, target, mask, error_map(mask, target))], tmp_path / "b.png")
    assert seen[0].title.startswith("place") and "IoU 0.333" in seen[0].title
    assert seen[1].title.startswith("best") and "IoU 0.500" in seen[1].title


def test_nothing_to_draw_and_unequal_lists_are_refused(tmp_path):
    image, target, probability = scene(64, 64)
    with pytest.raises(ValueError, match="no image"):
        sample_sheet([], [], [], tmp_path / "sheet.png", 0.5)
    with pytest.raises(ValueError):
        sample_sheet([image, image], [target], [probability], tmp_path / "sheet.png", 0.5)
    assert list(tmp_path.iterdir()) == []


# Training curves

ROWS = [
    {"epoch": 1, "split": "train", "loss": 1.0, "loss_bce": 0.4, "loss_dice": 0.6, "lr": 2e-4},
    {"epoch": 2, "split": "train", "loss": 0.8, "loss_bce": 0.3, "loss_dice": 0.5, "lr": 1e-4},
    {"epoch": 2, "split": "val", "loss": 0.9, "f1": 0.6, "iou": 0.43, "recall": 0.5},
    {"epoch": 4, "split": "val", "loss": 0.7, "f1": 0.8, "iou": 0.67, "recall": 0.7},
    {"epoch": 6, "split": "val", "loss": 0.8, "f1": 0.7, "iou": 0.54, "recall": 0.6},
]


@pytest.fixture
def panels(monkeypatch):
    """The axes of every figure that is written, by title."""
    seen = {}
    savefig = plots.Figure.savefig

    def record(figure, *args, **kwargs):
        seen.update({axes.get_title(): axes for axes in figure.axes})
        return savefig(figure, *args, **kwargs)

    monkeypatch.setattr(plots.Figure, "savefig", record)
    return seen


def curves(axes):
    """{label: {epoch: value}}, without the marking of an epoch."""
    return {
        line.get_label(): dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
        for line in axes.lines
        if not line.get_label().startswith("_")
    }


def test_curves_draw_every_row(tmp_path, panels):
    path = tmp_path / "run" / "curves.png"
    training_curves(ROWS, path)
    assert read(path).shape == (576, 1856, 3)
    loss, scores, rate = panels.values()
    assert curves(loss) == {
        "train total": {1: 1.0, 2: 0.8},
        "val total": {2: 0.9, 4: 0.7, 6: 0.8},
        "train bce": {1: 0.4, 2: 0.3},
        "train dice": {1: 0.6, 2: 0.5},
    }
    assert set(curves(scores)) == {"val F1", "val IoU", "val recall"}
    assert curves(scores)["val F1"] == {2: 0.6, 4: 0.8, 6: 0.7}
    assert "0.8000, epoch 4" in scores.get_title()
    assert list(curves(rate).values()) == [{1: 2e-4, 2: 1e-4}]


def test_a_resumed_epoch_replaces_the_earlier_one(tmp_path, panels):
    again = {"epoch": 4, "split": "val", "loss": 0.5, "f1": 0.5, "iou": 1 / 3, "recall": 0.7}
    training_curves([*ROWS, again], tmp_path / "curves.png")
    _, scores, _ = panels.values()
    assert curves(scores)["val F1"] == {2: 0.6, 4: 0.5, 6: 0.7}
    assert "0.7000, epoch 6" in scores.get_title()


@pytest.mark.parametrize("rows", [[], ROWS[:1], [{"epoch": 1, "split": "val", "f1": None}]])
def test_curves_of_a_young_run(tmp_path, rows, recwarn):
    training_curves(rows, tmp_path / "curves.png")
    assert read(tmp_path / "curves.png").shape == (576, 1856, 3)
    assert not list(recwarn)
