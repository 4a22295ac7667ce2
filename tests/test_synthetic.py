"""The embedded data set: reproducible files, labels and graphs that agree, varied scenes."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import cv2
import networkx as nx
import numpy as np
import pytest
import yaml
from shapely import LineString, MultiLineString, Point, STRtree, box, distance, points
from shapely.ops import unary_union

import prepare_data
from tests.conftest import ROOT
from utils.demo.models import SYNTHETIC_DATASETS
from utils.synthetic import write_sample_dataset
from utils.synthetic.scene import MARGIN_M, Scene, draw_scene
from utils.synthetic.write import in_processes, split_counts

SIZE = 256


def write(dst: Path, *, images: int = 5, size: int = 128, seed: int = 3, workers: int = 1) -> int:
    return write_sample_dataset(str(dst), images=images, size=size, seed=seed, workers=workers)


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "sample"
    assert write(folder) == 0
    return folder


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(11, index, SIZE) for index in range(12)]


def test_same_seed_same_bytes_with_any_number_of_processes(dataset: Path, tmp_path: Path) -> None:
    assert write(tmp_path / "again", workers=2) == 0
    assert contents(tmp_path / "again") == contents(dataset)


def test_another_seed_gives_other_scenes(dataset: Path, tmp_path: Path) -> None:
    assert write(tmp_path / "other", seed=4, images=1) == 0
    name = "train/image/scene_0000.jpg"
    assert contents(tmp_path / "other")[name] != contents(dataset)[name]


def test_a_scene_does_not_depend_on_how_many_there_are(dataset: Path, tmp_path: Path) -> None:
    assert write(tmp_path / "fewer", images=3) == 0
    name = "train/label/scene_0000.png"
    assert contents(tmp_path / "fewer")[name] == contents(dataset)[name]


def test_layout(dataset: Path) -> None:
    found = {path for path in contents(dataset) if path != "manifest.json"}
    expected = set()
    splits = {0: "train", 1: "train", 2: "train", 3: "val", 4: "test"}
    for index, split in splits.items():
        for kind, suffix in (("image", "jpg"), ("label", "png"), ("graph", "json")):
            expected.add(f"{split}/{kind}/scene_{index:04d}.{suffix}")
    assert found == expected
    manifest = json.loads((dataset / "manifest.json").read_text())
    assert (manifest["seed"], manifest["size_px"], manifest["images"]) == (3, 128, 5)
    assert manifest["splits"] == {"train": 3, "val": 1, "test": 1}


def test_files_are_images_masks_and_graphs(dataset: Path) -> None:
    for image_path in dataset.glob("*/image/*.jpg"):
        split, name = image_path.parent.parent, image_path.stem
        image = cv2.imread(str(image_path), cv2.IMREAD_UNCHANGED)
        label = cv2.imread(str(split / "label" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert image.shape == (128, 128, 3)
        assert image.dtype == np.uint8
        assert label.shape == (128, 128)
        assert set(np.unique(label)) <= {0, 255}
        graph = json.loads((split / "graph" / f"{name}.json").read_text())
        assert set(graph) == {"nodes", "edges"}


@pytest.mark.parametrize("images", [1, 2, 3, 4, 10, 64])
def test_splits(images: int) -> None:
    counts = split_counts(images)
    assert sum(counts.values()) == images
    assert all(counts.values()) == (images >= 3)
    if images == 64:
        assert counts == {"train": 44, "val": 10, "test": 10}


def test_images_hold_road_and_are_no_flat_colour(scenes: list[Scene]) -> None:
    shares = []
    for scene in scenes:
        assert scene.image.shape == (SIZE, SIZE, 3)
        assert scene.image.dtype == np.uint8
        assert scene.image.std() > 15
        shares.append((scene.label > 0).mean())
    assert min(shares) > 0.005
    assert max(shares) < 0.45
    assert 0.05 < np.mean(shares) < 0.25


def centre_lines(scene: Scene) -> list[LineString]:
    return [LineString(edge[3]) for edge in scene.graph["edges"]]


def test_label_pixels_lie_within_half_a_road_width_of_the_graph(scenes: list[Scene]) -> None:
    for scene in scenes:
        widest = max(road.width_m for road in scene.roads) / 2
        lines = unary_union(centre_lines(scene))
        rows, columns = np.nonzero(scene.label)
        # A road just outside the view covers pixels of its border.
        inner = int(np.ceil(widest)) + 1
        seen = np.minimum(rows, columns) >= inner
        seen &= np.maximum(rows, columns) < SIZE - inner
        pixel = points(columns[seen][::7] + 0.5, rows[seen][::7] + 0.5)
        assert distance(pixel, lines).max() <= widest + 0.6


def test_label_is_the_area_of_the_streets(scenes: list[Scene]) -> None:
    """Against shapely's buffers, the drawn mask differs by little more than rounding at edges."""
    for scene in scenes[:4]:
        shift = np.array([MARGIN_M, MARGIN_M])
        area = unary_union(
            [LineString(r.points - shift).buffer(r.width_m / 2) for r in scene.roads]
        ).intersection(box(0, 0, SIZE, SIZE))
        assert (scene.label > 0).sum() == pytest.approx(area.area, rel=0.01)


def test_every_centre_line_pixel_is_road(scenes: list[Scene]) -> None:
    for scene in scenes:
        for line in centre_lines(scene):
            for place in np.arange(0, line.length, 2.0):
                x, y = line.interpolate(place).coords[0]
                assert scene.label[min(int(y), SIZE - 1), min(int(x), SIZE - 1)] == 255


def test_edges_end_at_their_nodes_and_have_their_length(scenes: list[Scene]) -> None:
    for scene in scenes:
        nodes = scene.graph["nodes"]
        assert len({tuple(node) for node in nodes}) == len(nodes)
        for i, j, length, polyline in scene.graph["edges"]:
            assert polyline[0] == nodes[i]
            assert polyline[-1] == nodes[j]
            assert length == pytest.approx(LineString(polyline).length, abs=0.002)
            assert np.min(polyline) >= 0
            assert np.max(polyline) <= SIZE


def test_edges_meet_only_at_nodes(scenes: list[Scene]) -> None:
    for scene in scenes:
        lines = centre_lines(scene)
        # A millimetre of rounding is allowed around nodes.
        nodes = unary_union([Point(node).buffer(0.002) for node in scene.graph["nodes"]])
        for a, b in STRtree(lines).query(lines, predicate="intersects").T:
            if a < b:
                assert nodes.covers(lines[a].intersection(lines[b]))
        for line in lines:  # a node inside an edge would be a junction that does not split it
            ends = unary_union([Point(line.coords[0]), Point(line.coords[-1])]).buffer(0.5)
            assert not line.difference(ends).intersects(nodes)


def test_the_network_is_connected_and_splits_at_crossings(scenes: list[Scene]) -> None:
    """The whole network before the view cuts it; inside the view, parts may lie apart."""
    for scene in scenes:
        lines = [LineString(road.points) for road in scene.roads]
        graph = nx.Graph()
        graph.add_nodes_from(range(len(lines)))
        graph.add_edges_from(STRtree(lines).query(lines, predicate="dwithin", distance=1e-6).T)
        assert nx.is_connected(graph)
        # Noding by shapely finds no crossing that is not a vertex of both streets.
        vertices = {tuple(np.round(p, 4)) for road in scene.roads for p in road.points}
        noded = unary_union(MultiLineString(lines))
        found = {tuple(np.round(p, 4)) for part in noded.geoms for p in part.coords}
        assert found <= vertices


def test_junctions_of_three_and_four_and_dead_ends_occur(scenes: list[Scene]) -> None:
    degrees, dead_ends = [], 0
    for scene in scenes:
        graph = nx.MultiGraph()
        graph.add_edges_from((i, j) for i, j, *_ in scene.graph["edges"])
        for node, degree in graph.degree:
            x, y = scene.graph["nodes"][node]
            at_border = min(x, y) < 0.01 or max(x, y) > SIZE - 0.01
            dead_ends += degree == 1 and not at_border
            degrees.append(degree)
    assert dead_ends >= 5
    assert degrees.count(3) >= 10
    assert degrees.count(4) >= 10
    assert max(degrees) <= 5


def test_trees_hide_some_road_but_not_most(scenes: list[Scene]) -> None:
    hidden = np.concatenate([scene.crown[scene.label > 0] > 0.6 for scene in scenes])
    assert 0.01 < hidden.mean() < 0.3
    green_on_road = []
    for scene in scenes:
        image = scene.image.astype(int)
        covered = (scene.label > 0) & (scene.crown > 0.9)
        open_road = (scene.label > 0) & (scene.crown == 0)
        excess = image[..., 1] - image[..., 2]
        green_on_road.append(excess[covered].mean() - excess[open_road].mean())
    assert np.mean(green_on_road) > 5


def test_a_complete_set_is_left_alone(dataset: Path, capsys: pytest.CaptureFixture) -> None:
    before = {p: p.stat().st_mtime_ns for p in dataset.rglob("*")}
    assert write(dataset) == 0
    assert "already complete" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in dataset.rglob("*")} == before


def test_an_interrupted_set_is_completed(dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    assert write(folder) == 0
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"complete": False}))
    (folder / "train/image/scene_0001.jpg").unlink()
    (folder / "test/graph/scene_0004.json").unlink()
    (folder / "val/label/.scene_0003.k2j3.png").write_bytes(b"half")
    assert write(folder) == 0
    assert contents(folder) == contents(dataset)


def test_a_stop_while_writing_is_gone_on_from(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(seed: int, index: int, size: int) -> Scene:
        if index == 2:
            raise KeyboardInterrupt
        return draw_scene(seed, index, size)

    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr("utils.synthetic.write.draw_scene", stop)
        assert write(folder) == 130
    assert json.loads((folder / "manifest.json").read_text())["complete"] is False
    assert write(folder) == 0
    assert contents(folder) == contents(dataset)


def touch_slowly(folder: Path, index: int) -> None:
    (folder / str(index)).touch()
    time.sleep(0.02)


def test_a_stop_leaves_out_what_was_not_begun(tmp_path: Path) -> None:
    done = in_processes(partial(touch_slowly, tmp_path), range(500), 1)
    next(done)
    done.close()
    assert len(list(tmp_path.iterdir())) < 100


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"size": 64}, "--size must be 128 to 2048"),
        ({"size": 4096}, "--size must be 128 to 2048"),
        ({"images": 0}, "--images must be"),
        ({"seed": -1}, "--seed must not be negative"),
    ],
)
def test_wrong_arguments_are_refused(changed, reason, tmp_path, capsys) -> None:
    assert write(tmp_path / "new", **changed) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_all_that_is_wrong_is_told_at_once(tmp_path, capsys) -> None:
    assert write(tmp_path / "new", images=0, size=64) == 2
    told = capsys.readouterr().err
    assert "--images must be" in told and "--size must be" in told


def test_a_folder_that_cannot_be_made_is_a_line(tmp_path, capsys) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        prepare_data.main(["sample", "--dst", str(tmp_path / "file" / "new"), "--images", "1"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"{tmp_path / 'file' / 'new'}: Not a directory\n"


def test_other_things_are_not_written_among(dataset, tmp_path, capsys) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert write(tmp_path) == 2
    assert "holds other things" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    assert write(tmp_path / "thesis.txt") == 2
    before = contents(dataset)
    assert write(dataset, seed=9) == 2
    assert "another seed" in capsys.readouterr().err
    assert contents(dataset) == before


def test_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "sample"
    arguments = ["--dst", str(folder), "--images", "3", "--size", "130", "--seed", "1"]
    assert prepare_data.main(["sample", *arguments]) == 0
    assert len(list(folder.glob("*/image/*.jpg"))) == 3


def test_the_demo_works_whatever_lies_in_its_folder(tmp_path, capsys) -> None:
    folder = tmp_path / "quickstart"
    command = ["sample", "--dst", str(folder), "--images", "1", "--size", "128", "--set-aside"]
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "mine.png").write_text("mine")
    assert prepare_data.main(command) == 0
    moved = tmp_path / "quickstart-1"
    assert f"moved to {moved}" in capsys.readouterr().out
    assert (moved / "train" / "mine.png").read_text() == "mine"
    before = contents(folder)
    assert prepare_data.main([*command, "--seed", "7"]) == 0
    assert contents(tmp_path / "quickstart-2") == before != contents(folder)
    assert prepare_data.main([*command, "--seed", "7"]) == 0
    assert "already complete" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "quickstart",
        "quickstart-1",
        "quickstart-2",
    ]


def test_the_demo_trains_on_what_it_writes() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    config = yaml.safe_load((ROOT / "config" / "quickstart.yaml").read_text(encoding="utf-8"))
    folder = f"{config['root_dir']}/{config['dataset_name']}"
    assert f"prepare_data.py sample --dst {folder} --set-aside\n" in makefile
    assert config["dataset_name"] in SYNTHETIC_DATASETS
