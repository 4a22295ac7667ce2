"""demo.py below its page: sessions, models, roads, views, anchors and files."""

from __future__ import annotations

import json
import os
import threading

import cv2
import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine

from model.base import normalise
from tests.demo_runs import save_run
from utils.demo import anchors, files, models, scenes, views
from utils.demo.picture import Picture, Place
from utils.demo.roads import Roads
from utils.demo.session import Session, Sessions, Settings


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(height: int = 64, width: int = 96, **known) -> Picture:
    image = np.random.default_rng(0).integers(40, 220, (height, width, 3), np.uint8)
    return Picture("field", image, np.ones((height, width), bool), **known)


def crossing(height: int = 120, width: int = 200) -> np.ndarray:
    """Probabilities of two streets that cross, and of a third one apart."""
    drawn = np.full((height, width), 0.1, np.float32)
    drawn[57:64] = 0.9
    drawn[:, 77:84] = 0.9
    drawn[100:107, 120:180] = 0.9
    return drawn


def stored(session: Session, name: str, probability: np.ndarray) -> None:
    """Let a model that answers this look at the session's image."""

    class Known:
        def probability(self, *_):
            return probability

    session.find_roads(Known(), name)


# Sessions


def test_sessions_are_apart_and_leave_nothing(tmp_path):
    sessions = Sessions(tmp_path / "sessions")
    one, two = sessions.of("one"), sessions.of("two")
    assert sessions.of("one") is one and one.folder != two.folder
    one.load(picture())
    assert not two.has_picture
    with pytest.raises(ValueError, match="Choose an image first"):
        two.roads("any", Settings())
    shown = [one.show(np.zeros((8, 8, 3), np.uint8)) for _ in range(12)]
    assert len(set(shown)) == 12 and not shown[0].exists() and shown[-1].exists()
    sessions.close("one")
    assert not one.folder.exists() and two.folder.exists()
    assert sessions.of("one") is not one
    sessions.close_all()
    assert list((tmp_path / "sessions").iterdir()) == []


def test_the_idlest_session_makes_room(tmp_path):
    sessions = Sessions(tmp_path, max_open=2)
    first = sessions.of("a")
    second, _ = sessions.of("b"), sessions.of("c")
    assert len(sessions) == 2 and not first.folder.exists() and second.folder.exists()
    sessions.idle_s = -1
    sessions.of("d")
    assert len(list(tmp_path.iterdir())) == 0


def test_an_upload_is_claimed_once_and_nothing_else_can_be(tmp_path):
    session = Session(tmp_path / "mine")
    upload = tmp_path / ("ab" * 32) / "photo.png"
    upload.parent.mkdir()
    upload.write_bytes(b"data")
    with session.claimed(str(upload)) as path:
        assert path.parent == session.folder and path.read_bytes() == b"data"
    assert not path.exists() and not upload.parent.exists()
    with pytest.raises(ValueError, match="got lost"), session.claimed(str(upload)):
        pass
    other = Session(tmp_path / "theirs").folder / "view_1.jpg"
    other.write_bytes(b"private")
    for path in (None, str(other), "/etc/passwd"):
        with pytest.raises(ValueError, match="No file has arrived"), session.claimed(path):
            pass
    assert other.read_bytes() == b"private"


def test_a_new_image_forgets_what_was_found(tmp_path):
    session = Session(tmp_path / "s")
    session.load(picture(120, 200), np.zeros((120, 200), np.uint8))
    stored(session, "m", crossing())
    assert session.has_looked(["m"]) and not session.has_looked(["m", "n"])
    assert not session.has_looked([])
    session.load(picture())
    assert not session.has_looked(["m"]) and session.truth is None


# Models


def test_models_are_the_runs_and_each_is_loaded_once(workplace, monkeypatch):
    runs = workplace / "logs_weights"
    assert models.Models().default() is None
    save_run(runs / "old")
    save_run(runs / "new", seed=1, dataset="city", threshold=0.3)
    (runs / "empty").mkdir()
    os.utime(runs / "old" / "best_f1score.pth", (1, 1))
    save_run(workplace / "elsewhere")
    extra = workplace / "elsewhere" / "best_f1score.pth"
    known = models.Models(extra)
    assert list(known.paths()) == [str(extra), "new", "old"]
    assert known.default() == str(extra) and models.Models().default() == "new"
    loads = []
    load = models.load_checkpoint
    monkeypatch.setattr(models, "load_checkpoint", lambda path: loads.append(path) or load(path))
    threads = [threading.Thread(target=known.get, args=("new",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1 and known.get("new").threshold == 0.3
    assert models.is_synthetic(known.get("old")) and not models.is_synthetic(known.get("new"))
    os.utime(runs / "new" / "best_f1score.pth", (2, 2))  # trained on
    known.get("new")
    assert len(loads) == 3
    with pytest.raises(ValueError, match="no model called 'gone'"):
        known.get("gone")


def test_progress_counts_tiles_up_to_all_of_them(workplace):
    save_run(workplace / "logs_weights" / "run")
    told = []
    image = picture(100, 150).image
    found = models.Models().probability("run", image, lambda *step: told.append(step))
    assert found.shape == (100, 150) and found.dtype == np.float32
    totals = {total for _, total in told}
    assert len(totals) == 1 and told[-1] == (max(totals), max(totals))
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_anchors_of_a_pixel_are_those_of_its_cell(workplace):
    """A fresh adapter has no offsets yet: the strips read at whole steps around the cell."""
    network = save_run(workplace / "logs_weights" / "run").eval()
    session = Session(workplace / "s")
    session.load(picture(100, 150))
    x, y = 83, 41
    spot, levels = session.anchors(models.Models(), "run", x, y)
    assert (spot.left + spot.x, spot.top + spot.y) == (x, y)
    np.testing.assert_array_equal(
        spot.image[:, spot.y, spot.x].numpy(), session.picture.image[y, x]
    )
    gates = network.anchors(normalise(spot.image[None], network.normalisation))
    assert [level.stride for level in levels] == [4, 8, 16, 32]
    for level, taps, told in zip(levels, (7, 7, 5, 5), gates, strict=True):
        row, column = spot.y // level.stride, spot.x // level.stride
        centre = (np.array((column, row)) + 0.5) * level.stride - 0.5
        steps = np.arange(taps) - taps // 2
        for axis, points in enumerate((level.horizontal, level.vertical)):
            assert set((points[:, axis] - centre[axis]) / level.stride) == set(steps)
            assert set(points[:, 1 - axis]) == {centre[1 - axis]}
        channels = told.gate[0, :, row, column].numpy()
        assert level.gate[row, column] == pytest.approx(np.sqrt(np.mean(channels**2)), rel=1e-4)
        drawn = anchors.draw_points(spot, level), anchors.draw_gate(spot, level)
        assert {picture.shape for picture in drawn} == {(768, 768, 3)}
    with pytest.raises(ValueError, match=r"pixel \(150, 0\) is outside the image of 150 x 100 px"):
        session.anchors(models.Models(), "run", 150, 0)


# Roads and their graph


def test_facts_of_a_crossing():
    roads = Roads(crossing(), 0.5, pixel_size_m=2.0)
    truth = (crossing() > 0.5).astype(np.uint8)
    truth[100:107, 120:180] = 0
    facts = roads.facts(truth)
    length_km = float(facts["Road length"].removesuffix(" km"))
    assert length_km == pytest.approx((200 + 120 + 60) * 2 / 1000, abs=0.05)
    assert (facts["Junctions"], facts["Connected parts"]) == ("1", "2")
    np.testing.assert_allclose(roads.junctions_px, [(80.5, 60.5)], atol=1.5)
    precision = truth.sum() / (truth.sum() + 7 * 60)
    assert float(facts["Precision"]) == pytest.approx(precision, abs=6e-4)
    assert facts["Recall"] == "1.000"
    unknown = Roads(crossing(), 0.5).facts()["Road length"]
    assert unknown.endswith("px (unknown scale)") and "km" not in unknown
    nothing = Roads(crossing(), 0.95).facts()
    assert (nothing["Junctions"], nothing["Connected parts"]) == ("0", "0")


def test_the_file_knows_its_scale_better_than_the_person(tmp_path):
    place = Place(Affine(0.5, 0, 4e5, 0, -0.5, 5.8e6), "EPSG:32633", 0.5)
    lengths = {}
    for known in (place, None):
        session = Session(tmp_path / str(known is None))
        session.load(picture(120, 200, place=known, pixel_size_m=known and 0.5))
        stored(session, "m", crossing())
        roads = session.roads("m", Settings(pixel_size_m=3.0))
        assert session.roads("m", Settings(pixel_size_m=3.0)) is roads
        lengths[known is None] = roads.graph.total_length_m
        # the same lines in pixels, whatever the ground says
        np.testing.assert_allclose(roads.junctions_px, [(80.5, 60.5)], atol=4)
    assert lengths[True] / lengths[False] == pytest.approx(6, rel=0.05)


# Pictures


def test_views_show_what_they_say():
    canvas = views.Canvas(picture(120, 200), side_px=200)
    roads = Roads(crossing(), 0.5)
    image, road = canvas.image, roads.mask
    np.testing.assert_array_equal(image, canvas.picture.image)
    for opacity in (0.0, 1.0):
        drawn = views.draw(views.OVERLAY, canvas, roads, opacity)
        expected = np.where(road[..., None] & (opacity > 0), np.uint8(views.ROAD), image)
        np.testing.assert_array_equal(drawn, expected)
    graph = views.draw(views.GRAPH, canvas, roads, 1.0)
    assert tuple(graph[60, 20]) == views.LINE and tuple(graph[60, 80]) == views.JUNCTION
    np.testing.assert_array_equal(graph[:40, :60], image[:40, :60])
    heat = views.draw(views.HEAT, canvas, roads, 1.0)
    assert len(np.unique(heat.reshape(-1, 3), axis=0)) == 2  # two probabilities
    truth = np.where(road, 0, 1).astype(np.uint8)
    wrong = views.draw(views.ERRORS, canvas, roads, 1.0, truth)
    assert tuple(wrong[60, 20]) == (255, 0, 0) and tuple(wrong[0, 0]) == (0, 0, 255)
    with pytest.raises(ValueError, match="mask of the true roads"):
        views.draw(views.ERRORS, canvas, roads, 1.0)
    with pytest.raises(ValueError, match="no view called 'X'"):
        views.draw("X", canvas, roads, 1.0)


@pytest.mark.parametrize("size", [(64, 96), (3000, 1200), (17, 5000)])
def test_a_place_on_the_canvas_is_a_pixel_of_the_image(size):
    height, width = size
    blank = np.zeros((height, width, 3), np.uint8)
    canvas = views.Canvas(Picture("p", blank, blank[..., 0] == 0))
    assert canvas.image.shape[:2] == canvas.size[::-1] and max(canvas.size) <= views.VIEW_PX
    assert canvas.to_picture(0, 0) == (0, 0)
    assert canvas.to_picture(*canvas.size) == (width - 1, height - 1)
    x, y = canvas.to_picture(canvas.size[0] * 0.5, canvas.size[1] * 0.25)
    assert abs(x - width / 2) <= 1 and abs(y - height / 4) <= 1


# Files


def test_what_is_taken_home(tmp_path):
    session = Session(tmp_path / "plain")
    session.load(picture(120, 200, pixel_size_m=1.0))
    stored(session, "m", crossing())
    settings = Settings(view=views.GRAPH, pixel_size_m=1.0)
    mask = cv2.imread(str(session.take_home(files.MASK, "m", settings)), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, np.where(crossing() >= 0.5, 255, 0))
    graph = json.loads(session.take_home(files.GEOJSON, "m", settings).read_text())
    assert graph["crs"] is None and len(graph["features"]) == 5
    layer = geopandas.read_file(session.take_home(files.GEOPACKAGE, "m", settings), layer="edges")
    assert len(layer) == 5
    view = session.take_home(files.VIEW, "m", settings)
    assert view.name == "field_road_graph.png"
    assert cv2.imread(str(view)).shape == (480, 800, 3)  # never enlarged more than four times


def test_a_georeferenced_image_gives_georeferenced_files(tmp_path):
    place = Place(Affine(0.5, 0, 4e5, 0, -0.5, 5.8e6), "EPSG:32633", 0.5)
    session = Session(tmp_path / "geo")
    session.load(picture(120, 200, place=place, pixel_size_m=0.5))
    stored(session, "m", crossing())
    with rasterio.open(session.take_home(files.MASK, "m", Settings())) as source:
        assert (source.transform, source.crs) == (place.transform, "EPSG:32633")
        np.testing.assert_array_equal(source.read(1), np.where(crossing() >= 0.5, 255, 0))
    layer = geopandas.read_file(session.take_home(files.GEOPACKAGE, "m", Settings()), layer="edges")
    west, south, east, north = layer.total_bounds
    assert 4e5 <= west < east <= 4e5 + 100 and 5.8e6 - 60 <= south < north <= 5.8e6


def test_scenes_are_always_the_same_and_bring_their_truth():
    town, truth = scenes.scene("Town")
    assert scenes.scene("Town")[0] is town and town.shape == truth.shape == (512, 512)
    assert 0.05 < (truth == 1).mean() < 0.4 and town.pixel_size_m == 1.0
    with pytest.raises(ValueError, match="no scene 'Moon'"):
        scenes.scene("Moon")
