"""evaluate.py from the command line's side: tables, files, figures, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys

import geopandas
import numpy as np
import openpyxl
import pytest
import rasterio
import shapely
from PIL import Image
from rasterio.transform import from_origin

import evaluate
from tests.conftest import ROOT
from utils.topology.export import write_graph
from utils.topology.graph import straight_graph
from utils.topology.pairs import find_pair_paths

SIDE = 160
CROSS = straight_graph(
    [(5, 80), (80, 80), (155, 80), (80, 5), (80, 155)], [(0, 1), (1, 2), (3, 1), (1, 4)]
)


def cross_mask():
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[77:84, 5:-5] = mask[5:-5, 77:84] = 255
    return mask


def write_png(path, values):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def write_tif(path, values, crs="EPSG:32611", transform=None, nodata=None):
    transform = transform or from_origin(664_000, 4_012_000, 1, 1)
    profile = {"driver": "GTiff", "height": SIDE, "width": SIDE, "count": 1, "nodata": nodata}
    path.parent.mkdir(exist_ok=True)
    with rasterio.open(
        path, "w", **profile, dtype=values.dtype, crs=crs, transform=transform
    ) as file:
        file.write(values, 1)
    return path


@pytest.fixture
def folders(tmp_path):
    """Three pairs: perfect, with a gap, and without any road."""
    gap = cross_mask()
    gap[:, 110:130] = 0
    blank = np.zeros_like(gap)
    for name, prediction, truth in (
        ("a", cross_mask(), cross_mask()),
        ("b", gap, cross_mask()),
        ("c", blank, blank),
    ):
        write_png(tmp_path / "pred" / f"{name}.png", prediction)
        write_png(tmp_path / "gt" / f"{name}_mask.png", truth)
    return tmp_path


def run(folder, *more, pred="pred", gt="gt"):
    given = ["--pred", str(folder / pred), "--gt", str(folder / gt), "--workers", "1", *more]
    return evaluate.main(given)


def read_report(folder):
    return json.loads((folder / "out" / "metrics.json").read_text())


def test_folders_give_a_table_and_files(folders, capsys):
    assert run(folders, "--output", str(folders / "out")) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("threshold 0.5, pixel size 1 m\n")
    assert "apls: spacing_m 50, snap_m 4, min_route_m 0.001, displace True\n" in shown
    assert "| overall " in shown
    assert "1 without a road in the truth left out" in shown
    report = read_report(folders)
    a, b, c = report["images"]
    assert (a["name"], a["apls"], a["iou"], a["betti0_error"]) == ("a", 1, 1, 0)
    assert 0 < b["apls"] < 1
    assert b["betti0_error"] == 1
    assert (c["apls"], c["apls_truth_empty"], c["iou"], c["cldice"]) == (0, 1, 1, 1)
    overall = report["overall"]
    assert overall["apls"] == pytest.approx((a["apls"] + b["apls"]) / 2)
    assert overall["cldice"] == pytest.approx((a["cldice"] + b["cldice"] + c["cldice"]) / 3)
    true = int((cross_mask() > 0).sum())
    assert overall["iou"] == pytest.approx(1 - 20 * 7 / (2 * true))  # pooled over images
    assert overall["iou_per_image"] == pytest.approx((1 + b["iou"] + 1) / 3)
    parameters = report["parameters"]
    assert (parameters["threshold"], parameters["pixel_size_m"]) == (0.5, [1.0])
    assert parameters["truth"] == str(folders / "gt")
    assert parameters["apls"] == {
        "spacing_m": 50.0, "snap_m": 4.0, "min_route_m": 0.001, "displace": True
    }  # fmt: skip
    book = openpyxl.load_workbook(folders / "out" / "metrics.xlsx")
    rows = list(book["images"].values)
    assert [row[0] for row in rows] == ["name", "a", "b", "c", "overall"]
    assert rows[2][rows[0].index("apls")] == b["apls"]


def test_processes_give_what_one_gives(folders):
    for name in "de":
        write_png(folders / "pred" / f"{name}.png", cross_mask())
        write_png(folders / "gt" / f"{name}.png", cross_mask())
    given = ["--metrics", "apls,cldice", "--output", str(folders / "out")]
    assert run(folders, *given) == 0
    alone = read_report(folders)
    assert run(folders, *given, "--workers", "2") == 0
    assert read_report(folders) == alone


def test_bad_files_are_told_of_and_the_others_go_on(folders, capsys):
    for name in ("size", "empty", "torn", "loop", "place", "dates"):
        write_png(folders / "gt" / f"{name}.png", cross_mask())
    pred = folders / "pred"
    write_png(pred / "size.png", cross_mask()[:100])
    (pred / "empty.png").write_bytes(b"")
    (pred / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (pred / "loop.json").write_text('{"nodes": [[0, 0]], "edges": [[0, 0, 5, []]]}')
    (pred / "place.json").write_text('{"nodes": [], "edges": [], "crs": "EPSG:1"}')
    np.save(pred / "dates.npy", np.zeros(cross_mask().shape, "M8[s]"))
    write_png(pred / "lonely.png", cross_mask())
    assert run(folders, "--metrics", "apls", "--output", str(folders / "out")) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 7
    for name, message in {
        "size": "masks of different sizes: 100 x 160 and 160 x 160",
        "empty": "the file is empty",
        "torn": "cannot be read as an image",
        "loop": "edge 0 is a self-loop at node 0",
        "place": "unknown CRS 'EPSG:1'",
        "dates": "expected an array of numbers, got datetime64[s]",
        "lonely": "no truth of that stem",
    }.items():
        (line,) = [line for line in lines if name in line.split(":")[0]]
        assert message in line
    assert [row["name"] for row in read_report(folders)["images"]] == ["a", "b", "c"]


def test_photos_in_place_of_masks_cost_a_line(folders, capsys):
    """A photo of either side; grey predictions may be probabilities."""
    noise = np.random.default_rng(0).integers(30, 220, (SIDE, SIDE, 3), dtype=np.uint8)
    write_png(folders / "gt" / "b_mask.png", noise)
    write_png(folders / "pred" / "b.png", noise[..., 0])
    write_png(folders / "pred" / "a.png", noise)
    assert run(folders, "--metrics", "iou") == 0
    assert capsys.readouterr().err.splitlines() == [
        "--pred: 1 of 3 look like photos, not masks (a)",
        "--gt: 1 of 3 look like photos, not masks (b)",
    ]


def test_nothing_to_score_is_a_failure(tmp_path, capsys):
    (tmp_path / "a.json").write_text("no json")
    write_png(tmp_path / "b.png", cross_mask())
    assert run(tmp_path, pred="a.json", gt="b.png") == 1
    assert "not valid JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--metrics", "alps"], "did you mean 'apls'"),
        (["--metrics", "alps", "--pixel-size", "nan"], "--pixel-size: expected metres"),
        (["--output", __file__], "a file is in the way"),
        (["--threshold", "1.5"], "between 0 and 1"),
        (["--sweep", "0.1,x"], "numbers separated by commas"),
        (["--sweep", "0.1,1,0.5"], "--sweep: 1 does not lie between 0 and 1"),
        (["--workers", "-3"], "--workers: -3 is less than 1"),
        (["--pixel-size", "0"], "metres above 0"),
        (["--connect", "far"], "METRES[,DEGREES[,PROBABILITY]]"),
        (["--connect", "20,120"], "max_angle_deg must be in"),
        (["--figures", "{folder}/pred/a.png"], "a file is in the way"),
        (["--pred", "nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_mistakes_of_the_command_line_end_with_status_2(folders, capsys, given, message):
    with pytest.raises(SystemExit) as caught:
        run(folders, *(text.format(folder=folders) for text in given))
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_mistakes_of_the_command_line_are_told_together(folders, capsys):
    given = ["--metrics", "alps,iuo", "--threshold", "2", "--pixel-size", "0", "--sweep", "0.1,b",
             "--connect", "20,x", "--workers", "0", "--pred", "nowhere", "--gt", "nor"]  # fmt: skip
    with pytest.raises(SystemExit) as caught:
        run(folders, *given)
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    parts = ["did you mean 'apls'", "did you mean 'iou'", "--pixel-size", "--threshold", "--sweep",
             "--connect", "--workers: 0 is less than 1",
             "nowhere: no such file", "nor: no such file"]  # fmt: skip
    assert len(lines) == len(parts)
    assert all(part in line for part, line in zip(parts, lines, strict=True)), lines


def test_help_is_quick_and_scoring_needs_no_torch():
    """--help imports neither torch nor the libraries of graphs and rasters."""
    code = (
        "import sys, evaluate\n"
        "try: evaluate.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'rasterio', 'shapely', 'networkx'} & set(sys.modules)))\n"
        "import utils.topology.report; print('torch' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert out.splitlines()[-2:] == ["[]", "False"]


def test_sweep_finds_the_best_threshold_of_each_metric(tmp_path, capsys):
    """Roads at 0.9 with a bridge at 0.35, and a wide blur of 0.3 that spoils the IoU."""
    truth = cross_mask()
    probability = np.where(truth > 0, 0.9, 0.02)
    probability[:, 110:130] = np.where(truth[:, 110:130] > 0, 0.35, 0.3)
    probability = np.rint(probability * 255).astype(np.uint8)
    write_png(tmp_path / "p.png", probability)
    write_png(tmp_path / "t.png", truth)
    given = ["--sweep", "0.1,0.33,0.5,0.95", "--output", str(tmp_path / "out")]
    assert run(tmp_path, *given, pred="p.png", gt="t.png") == 0
    sweep = read_report(tmp_path)["sweep"]
    assert sweep["threshold"] == [0.1, 0.33, 0.5, 0.95]
    assert sweep["best"]["iou"] == {"threshold": 0.33, "value": 1.0}
    assert sweep["best"]["apls"] == {"threshold": 0.33, "value": 1.0}
    assert sweep["apls"][2] < 1
    assert "best apls: 1.0000 at threshold 0.33" in capsys.readouterr().out
    assert read_report(tmp_path)["overall"]["relaxed_break_even"] == pytest.approx(1)


def test_connect_closes_the_gap_of_the_prediction(folders, capsys):
    def apls_of_b(*more):
        assert run(folders, "--output", str(folders / "out"), "--metrics", "apls", *more) == 0
        report = read_report(folders)
        return {image["name"]: image["apls"] for image in report["images"]}["b"], report

    plain, report = apls_of_b()
    assert report["parameters"]["connect"] is None
    too_short, _ = apls_of_b("--connect", "10")
    closed, report = apls_of_b("--connect", "30,20")
    assert too_short == plain < 0.9 and closed == pytest.approx(1, abs=1e-3)
    rule = {"join_m": 30, "max_angle_deg": 20, "min_probability": 0}
    assert report["parameters"]["connect"] == rule
    assert run(folders, "--connect", "30,20,0.5") == 1
    assert "min_probability needs a probability map" in capsys.readouterr().err


def test_connect_looks_at_the_probability_along_the_bridge(tmp_path):
    certain = cross_mask() * np.float32(0.9 / 255)
    certain[:, 110:130] *= 0.3  # a shadow: 0.27
    (tmp_path / "pred").mkdir()
    np.save(tmp_path / "pred" / "a.npy", certain)
    write_png(tmp_path / "gt" / "a.png", cross_mask())
    scores = []
    for bound in ("0.6", "0.2"):
        given = ("--metrics", "apls", "--connect", f"30,20,{bound}")
        assert run(tmp_path, *given, "--output", str(tmp_path / "out")) == 0
        scores.append(read_report(tmp_path)["overall"]["apls"])
    assert scores[0] < 0.9 < scores[1]


def test_sweep_of_a_vector_is_refused(tmp_path, capsys):
    write_graph(CROSS, tmp_path / "g.json")
    assert run(tmp_path, "--sweep", pred="g.json", gt="g.json") == 1
    assert "--sweep needs a probability map" in capsys.readouterr().err


@pytest.mark.parametrize("values", ["npy", "float tif", "uint16 tif"])
def test_probabilities_of_every_kind(tmp_path, values):
    probability = np.where(cross_mask() > 0, 0.8, 0.1).astype(np.float32)
    probability[0, 0] = 0.3
    if values == "npy":
        np.save(tmp_path / "p.npy", probability)
    elif values == "float tif":
        write_tif(tmp_path / "p.tif", probability, crs=None)
    else:
        write_tif(tmp_path / "p.tif", (probability * 65535).astype(np.uint16), crs=None)
    write_png(tmp_path / "t.png", cross_mask())
    name = "p.npy" if values == "npy" else "p.tif"
    given = ["--metrics", "iou", "--output", str(tmp_path / "out")]
    assert run(tmp_path, *given, pred=name, gt="t.png") == 0
    assert read_report(tmp_path)["overall"]["iou"] == 1
    assert run(tmp_path, *given, "--threshold", "0.05", pred=name, gt="t.png") == 0
    assert read_report(tmp_path)["overall"]["iou"] < 0.2


def test_graph_against_mask_in_pixels(tmp_path):
    write_graph(CROSS, tmp_path / "g.json")
    write_png(tmp_path / "m.png", cross_mask())
    given = ["--output", str(tmp_path / "out")]
    assert run(tmp_path, *given, pred="m.png", gt="g.json") == 0
    overall = read_report(tmp_path)["overall"]
    assert overall["apls"] > 0.9
    assert "iou" not in overall and "betti" not in read_report(tmp_path)["parameters"]
    assert run(tmp_path, "--metrics", "cldice", pred="m.png", gt="g.json") == 1


def test_georeferenced_sides_meet_in_one_metric_crs(tmp_path):
    """A truth in longitude and latitude, a mask in UTM: the same cross."""
    corner = np.array([664_000, 4_012_000])
    lines = [shapely.LineString(edge.line * (1, -1) + corner) for edge in CROSS.edges]
    frame = geopandas.GeoDataFrame(geometry=lines, crs="EPSG:32611").to_crs("EPSG:4326")
    frame.to_file(tmp_path / "t.geojson", driver="GeoJSON")
    write_tif(tmp_path / "m.tif", cross_mask())
    given = ["--output", str(tmp_path / "out")]
    assert run(tmp_path, *given, pred="m.tif", gt="t.geojson") == 0
    assert read_report(tmp_path)["overall"]["apls"] > 0.9


def test_truth_without_a_line_leaves_the_place_to_the_prediction(tmp_path):
    (tmp_path / "t.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    write_tif(tmp_path / "m.tif", cross_mask())
    given = ["--output", str(tmp_path / "out")]
    assert run(tmp_path, *given, pred="m.tif", gt="t.geojson") == 0
    report = read_report(tmp_path)
    assert report["images"][0]["apls_truth_empty"] == 1
    assert report["overall"]["apls"] == 0
    assert report["parameters"]["pixel_size_m"] == [1.0]


def test_mixed_crs_is_told_of(tmp_path, capsys):
    write_tif(tmp_path / "m.tif", cross_mask())
    write_graph(CROSS, tmp_path / "g.json")
    assert run(tmp_path, pred="g.json", gt="m.tif") == 1
    assert "mixed CRS: the prediction has none, the truth EPSG:32611" in capsys.readouterr().err


def test_pixel_size_comes_from_the_file(tmp_path):
    half = from_origin(664_000, 4_012_000, 0.5, 0.5)
    write_tif(tmp_path / "m.tif", cross_mask(), transform=half)
    write_png(tmp_path / "p.png", cross_mask())  # lies where the truth of its size lies
    given = ["--metrics", "apls,iou", "--output", str(tmp_path / "out")]
    assert run(tmp_path, *given, pred="p.png", gt="m.tif") == 0
    report = read_report(tmp_path)
    assert report["parameters"]["pixel_size_m"] == [0.5]
    assert report["overall"]["apls"] == 1


def test_nodata_of_the_truth_is_left_out(tmp_path):
    truth = cross_mask()
    truth[:, 100:] = 7
    write_tif(tmp_path / "t.tif", truth, nodata=7)
    write_tif(tmp_path / "p.tif", cross_mask())
    given = ["--metrics", "iou, apls,buffer", "--output", str(tmp_path / "out")]
    assert run(tmp_path, *given, pred="p.tif", gt="t.tif") == 0
    overall = read_report(tmp_path)["overall"]
    assert (overall["iou"], overall["apls"], overall["quality"]) == (1, 1, 1)


def test_figures_show_each_pair(folders):
    (folders / "pred" / "a.png").unlink()
    (folders / "gt" / "a_mask.png").unlink()
    assert run(folders, "--metrics", "apls", "--figures", str(folders / "fig")) == 0
    for name in "bc":
        with Image.open(folders / "fig" / f"{name}.png") as figure:
            assert figure.size == (1890, 720)
            assert len(np.unique(np.asarray(figure.convert("L")))) > 10


def test_pairs_are_found_by_stem(tmp_path):
    for folder, names in (("p", ["x_prob.npy", "y.PNG", "z.gpkg"]), ("g", ["x.tif", "y_mask.png"])):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_bytes(b"")
    pairs, problems = find_pair_paths(tmp_path / "p", tmp_path / "g")
    assert [pair.name for pair in pairs] == ["x", "y"]
    assert len(problems) == 1
    assert "z.gpkg: no truth" in problems[0]
    with pytest.raises(ValueError, match="two files or two folders"):
        find_pair_paths(tmp_path / "p", tmp_path / "g" / "x.tif")
