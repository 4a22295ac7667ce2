"""Models as ONNX, against ONNX Runtime, and as safetensors that inference loads."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import signal
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

import inference
import model
from tests.tiny_net import TinyNet
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.config import load_config
from utils.distributed import Ranks
from utils.export import export_model
from utils.predictor import Predictor
from utils.schema import Config

RUN = Path("logs_weights/run")
SIDE = 64


def predictor(name: str, **model_args) -> Predictor:
    """A model with random weights and statistics, as after a little training."""
    torch.manual_seed(0)
    network = model.build_model(name, model_args, load_pretrained=False)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    config = Config(
        model_classname=name,
        dataset_name="roads",
        image_size=SIDE,
        tile_overlap=0.25,
        pixel_size=0.5,
    )
    return Predictor(
        config=config,
        ranks=Ranks(0, 1, torch.device("cpu")),
        model=network.eval(),
        checkpoint=Path("run/best_f1score.pth"),
        epoch=3,
        threshold=0.4,
        threshold_from="checkpoint, chosen on val",
    )


def session(path: str | Path) -> onnxruntime.InferenceSession:
    """As the file says, step by step: the exporter itself tries it with all optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("name", "model_args"),
    [("AnchorSAM", {"model_size": "nano"}), ("UNet", {}), ("CGCNet", {})],
)
def test_onnx_runtime_agrees(tmp_path: Path, name: str, model_args: dict):
    trained = predictor(name, **model_args)
    (path,) = export_model(trained, tmp_path, "onnx")
    assert path == tmp_path / "best_f1score.onnx" and list(tmp_path.iterdir()) == [path]
    runtime = session(path)
    (given,), (answer,) = runtime.get_inputs(), runtime.get_outputs()
    assert given.shape == ["batch", 3, SIDE, SIDE]
    assert answer.shape == ["batch", 1, SIDE, SIDE]
    generator = torch.Generator().manual_seed(7)
    for count in (1, 3):
        tiles = torch.randn(count, 3, SIDE, SIDE, generator=generator)
        with torch.inference_mode():
            expected = torch.sigmoid(trained.model(tiles)).numpy()
        (found,) = runtime.run(None, {given.name: tiles.numpy()})
        assert expected.std() > 1e-3
        assert found.shape == expected.shape and np.abs(found - expected).max() < 1e-3


@pytest.fixture
def workplace(tmp_path, monkeypatch, tiny_roads):
    """A folder with a run of TinyNet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(model.MODELS, "TinyNet", "tests.tiny_net")
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest's own handlers stay
    Path("tiny.yaml").write_text(
        f"model_classname: TinyNet\nmodel_args: {{dim: 4}}\nroot_dir: {tiny_roads}\n"
        "dataset_name: tiny\nimage_size: 64\nrun_name: run\nbatch_size: 2\npixel_size: 0.3\n"
    )
    config = load_config(
        "tiny.yaml", model_names=["TinyNet"], model_class=lambda _: TinyNet, warn=print
    )
    torch.manual_seed(1)
    weights = TinyNet(dim=4).state_dict()
    checkpoint = {
        "model_classname": "TinyNet",
        "config": config.model_dump(mode="json"),
        "model": {name: torch.zeros_like(tensor) for name, tensor in weights.items()},
        "ema": weights,
        "epoch": 7,
        "threshold": 0.47,
        "scores": {"f1": 0.81234, "iou": 0.684},
    }
    save_checkpoint(RUN / "best_f1score.pth", checkpoint)
    return tmp_path


def test_metadata_are_read_as_deepness_reads_them(workplace):
    assert inference.main(["--export", "onnx"]) == 0
    metadata = session("results/run/best_f1score.onnx").get_modelmeta().custom_metadata_map
    values = {key: json.loads(value) for key, value in metadata.items()}
    assert str(values["model_type"]).capitalize() == "Segmentor"
    names = sorted(values["class_names"].items(), key=lambda item: int(item[0]))
    assert names == [("0", "background"), ("1", "road")]
    assert float(values["resolution"]) == pytest.approx(30)
    assert int(values["tile_size"]) == int(values["tiles_size"]) == 64
    assert int(values["tiles_overlap"]) == 25
    assert float(values["seg_thresh"]) == 0.47
    assert [float(v) for v in values["standardization_mean"]] == [0.485, 0.456, 0.406]
    assert [float(v) for v in values["standardization_std"]] == [0.229, 0.224, 0.225]


def test_safetensors_predict_the_same(workplace, tiny_roads, capsys):
    images = str(tiny_roads / "tiny/test/image")
    options = ["inference.save_prob_map=true", "inference.prob_map_format=npy"]
    assert inference.main(["--input", images, "--output", "a", *options]) == 0
    assert inference.main(["--export", "safetensors", "--output", "out"]) == 0
    shutil.rmtree("logs_weights")  # nothing else is needed
    file = "out/best_f1score.safetensors"
    arguments = ["--checkpoint", file, "--input", images, "--output", "b", *options]
    assert inference.main(arguments) == 0
    assert "out/best_f1score.safetensors" in capsys.readouterr().out
    probabilities = sorted(Path("a/prob").iterdir())
    assert len(probabilities) == 2
    for path in probabilities:
        assert (np.load(path) == np.load(Path("b/prob") / path.name)).all()
    report = json.loads(Path("b/predictions.json").read_text())
    assert report["threshold"] == 0.47 and report["epoch"] == 7


def test_safetensors_hold_the_weights_and_the_card_says_what_they_are(workplace):
    assert inference.main(["inference.split=val"]) == 0  # leaves scores
    assert inference.main(["--export", "safetensors"]) == 0
    path, source = Path("results/run/best_f1score.safetensors"), RUN / "best_f1score.pth"
    weights, checkpoint = load_file(path), load_checkpoint(source)
    assert weights.keys() == checkpoint["ema"].keys()
    assert all(torch.equal(weights[name], checkpoint["ema"][name]) for name in weights)
    loaded = load_checkpoint(path)
    for key in ("format", "model_classname", "config", "epoch", "threshold", "scores"):
        assert loaded[key] == checkpoint[key]
    card = path.with_suffix(".md").read_text()
    measured = json.loads(Path("results/run/metrics.json").read_text())["overall"]
    for said in (
        "TinyNet, trained on tiny",
        "crops of 64 px, 0.3 m a pixel",
        "| threshold | 0.47 (checkpoint, chosen on val) |",
        hashlib.sha256(path.read_bytes()).hexdigest(),
        hashlib.sha256(source.read_bytes()).hexdigest(),
        "| f1 | 0.8123 |",
        f"| iou | {measured['iou']:.4f} |",
    ):
        assert said in card

    save_checkpoint(source, checkpoint | {"ema": checkpoint["model"]})  # scored by nobody
    assert inference.main(["--export", "safetensors"]) == 0
    card_of_others = path.with_suffix(".md").read_text()
    assert "Scores on val at threshold 0.47" in card
    assert "at threshold 0.47" not in card_of_others


def test_a_sweep_keeps_its_threshold_in_the_safetensors(workplace):
    inference.main(["--export", "safetensors", "--output", "out"])
    file = Path("out/best_f1score.safetensors")
    before = load_file(file)
    assert inference.main(["--checkpoint", str(file), "--sweep", "--output", "swept"]) == 0
    best = json.loads(Path("swept/sweep.json").read_text())
    assert load_checkpoint(file)["threshold"] in [row["threshold"] for row in best["thresholds"]]
    assert all(torch.equal(before[name], tensor) for name, tensor in load_file(file).items())


def refused(arguments: list[str], capsys: pytest.CaptureFixture) -> str:
    with pytest.raises(SystemExit) as ended:
        inference.main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said.splitlines()[-1]
    return said.splitlines()[-1]


def test_files_that_are_none(workplace, capsys):
    inference.main(["--export", "safetensors", "--output", "out"])
    file = Path("out/best_f1score.safetensors")
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    assert "truncated or damaged: copy it again, or" in refused(["--checkpoint", str(file)], capsys)
    save_file({"w": torch.ones(2)}, file)
    assert "not written by this project" in refused(["--checkpoint", str(file)], capsys)
    assert "no such file" in refused(["--checkpoint", "none.safetensors"], capsys)


def test_a_file_is_not_written_over_itself(workplace, capsys):
    inference.main(["--export", "safetensors", "--output", "out"])
    arguments = ["--checkpoint", "out/best_f1score.safetensors", "--output", "out"]
    said = refused([*arguments, "--export", "safetensors"], capsys)
    assert "is the checkpoint itself" in said


class Unknown(TinyNet):
    """Sorts its pixels by an operator that ONNX has not."""

    def forward_padded(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward_padded(image) + torch.linalg.eigvalsh(image[:, :1]).mean()


def test_a_model_that_cannot_be_exported_says_why(tmp_path, caplog, capfd):
    trained = predictor("UNet")
    object.__setattr__(trained, "model", Unknown().eval())
    with pytest.raises(ValueError) as error, caplog.at_level(logging.WARNING):
        export_model(trained, tmp_path, "onnx")
    said = str(error.value)
    assert said.startswith("Unknown cannot be exported to ONNX for tiles of 64 px: ")
    assert "eigvalsh" in said and "\n" not in said
    assert capfd.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_resolution_that_is_not_known_is_left_out(tmp_path, caplog):
    trained = predictor("UNet")
    object.__setattr__(trained, "model", TinyNet().eval())
    trained.config.pixel_size = None
    with caplog.at_level(logging.WARNING):
        (path,) = export_model(trained, tmp_path, "onnx")
    assert "resolution" not in session(path).get_modelmeta().custom_metadata_map
    assert "pixel_size is not set" in caplog.text
