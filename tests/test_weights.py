"""Loading published weights: the right file in full, or one sentence that says what to do."""

from __future__ import annotations

import contextlib
import os
import re

import pytest
import torch
import torchvision
import yaml
from safetensors.torch import save_file

from model import PRETRAINED_ARGS
from model.baselines.dlinknet import DLinkNet
from model.blocks.resnet import ResNetEncoder
from model.weights import find_weights, known_weights, load_weights, read_weights, weights_folder
from tests.conftest import ROOT

RESNET18 = "resnet18-f37072fd.pth"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ANCHOR_SAM_WEIGHTS", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def resnet18() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    network = torchvision.models.resnet18(weights=None)
    torch.nn.init.normal_(network.bn1.running_mean)
    return network.state_dict()


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


class TestTable:
    def test_names_agree_with_their_hashes(self):
        for weights in known_weights():
            assert re.fullmatch(r"[0-9a-f]{8,64}", weights.sha256)
            if weights.group != "sam2":  # torchvision puts the first digits into the name
                digits = weights.file.removesuffix(".pth").split("-")[1]
                assert weights.sha256.startswith(digits)

    def test_torchvision_publishes_these_urls(self):
        urls = {weights.network: weights.url for weights in reversed(known_weights())}
        for name in ("resnet18", "resnet34", "resnet50", "resnet101"):
            published = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
            assert urls[name] == published.url

    def test_every_size_of_sam_is_there(self):
        sizes = [w.network for w in known_weights() if w.group == "sam2"]
        assert sizes == [f"sam2.1_hiera_{size}" for size in ("tiny", "small", "base_plus", "large")]

    def test_configs_name_known_files(self):
        known = {w.file for w in known_weights()}
        for path in (ROOT / "config").glob("*.yaml"):
            text = path.read_text()
            named = re.findall(r"download\.bash (\S+)", text)
            args = yaml.safe_load(text)["model_args"]
            asked = any(args.get(key) for key in PRETRAINED_ARGS)
            assert set(named) <= known, path
            assert bool(named) == bool(asked), path


class TestFind:
    def test_by_network_name_path_and_name_alone(self, folder):
        path = folder / RESNET18
        path.touch()
        for source in ("resnet18", RESNET18, f"./pretrain_weight/{RESNET18}", path):
            assert find_weights(source).samefile(path)

    def test_a_tilde_is_the_home_folder(self, folder, monkeypatch):
        monkeypatch.setenv("HOME", str(folder))
        path = saved(folder / "own.pth", {})
        assert find_weights("~/own.pth") == path

    def test_an_older_name_of_the_same_weights_is_accepted(self, folder):
        (folder / "resnet101-5d3b4d8f.pth").touch()
        assert find_weights("resnet101").name == "resnet101-5d3b4d8f.pth"
        (folder / "resnet101-63fe2227.pth").touch()
        assert find_weights("resnet101").name == "resnet101-63fe2227.pth"

    def test_missing_names_file_folder_and_command(self, folder):
        with pytest.raises(ValueError) as error:
            DLinkNet()
        message = str(error.value)
        assert "\n" not in message
        assert str(folder) in message
        assert "`bash pretrain_weight/download.bash resnet34-b627a593.pth`" in message

    def test_unknown_path(self, folder):
        with pytest.raises(ValueError, match=r"weights other\.pth: no such file"):
            find_weights("other.pth")

    def test_folder_without_the_variable(self, monkeypatch):
        monkeypatch.delenv("ANCHOR_SAM_WEIGHTS", raising=False)
        assert weights_folder() == ROOT / "pretrain_weight"


class TestLoad:
    @pytest.mark.parametrize("zipped", [True, False])
    def test_every_tensor_arrives(self, folder, resnet18, zipped):
        saved(folder / RESNET18, resnet18, _use_new_zipfile_serialization=zipped)
        network = torchvision.models.resnet18(weights=None)
        load_weights(network, "resnet18")
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, resnet18[key]), key

    def test_safetensors(self, folder, resnet18):
        path = folder / "model.safetensors"
        save_file(resnet18, path)
        assert torch.equal(
            read_weights(path)["layer1.0.conv1.weight"], resnet18["layer1.0.conv1.weight"]
        )
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(ValueError, match="truncated, damaged or no torch file"):
            read_weights(path)

    def test_counters_may_be_missing_and_nothing_else(self, folder, resnet18):
        old = {k: v for k, v in resnet18.items() if not k.endswith("num_batches_tracked")}
        path = saved(folder / "old.pth", old)
        load_weights(torchvision.models.resnet18(weights=None), path)
        del old["layer3.1.bn2.running_var"]
        saved(path, old)
        with pytest.raises(ValueError, match=r"1 missing \(layer3\.1\.bn2\.running_var\)"):
            load_weights(torchvision.models.resnet18(weights=None), path)

    def test_encoder_drops_the_classifier(self, folder, resnet18):
        saved(folder / RESNET18, resnet18)
        encoder = ResNetEncoder("resnet18", pretrained=True)
        assert torch.equal(encoder.stem[0].weight, resnet18["conv1.weight"])
        assert torch.equal(encoder.stages[3][1].conv2.weight, resnet18["layer4.1.conv2.weight"])

    def test_other_channel_counts_repeat_the_rgb_kernels(self, folder, resnet18):
        saved(folder / RESNET18, resnet18)
        stem = ResNetEncoder("resnet18", n_channels=4, pretrained=True).stem[0].weight
        rgb = resnet18["conv1.weight"]
        expected = torch.stack([rgb[:, 0], rgb[:, 1], rgb[:, 2], rgb[:, 0]], 1) * 0.75
        torch.testing.assert_close(stem, expected)
        assert ResNetEncoder("resnet18", n_channels=1, pretrained=True).stem[0].in_channels == 1

    def test_random_kernels_of_other_channel_counts_are_not_repeated(self):
        torch.manual_seed(0)
        of_five = ResNetEncoder("resnet18", n_channels=5).stem[0].weight
        of_three = ResNetEncoder("resnet18").stem[0].weight
        assert not torch.equal(of_five[:, 0], of_five[:, 3])
        # He's rule for the layer's output: no matter how many channels come in
        assert of_five.std().item() == pytest.approx(of_three.std().item(), rel=0.05)

    def test_prefix_and_wrapper(self, folder):
        layer = torch.nn.Linear(2, 3)
        content = {f"image_encoder.{k}": v for k, v in layer.state_dict().items()}
        path = saved(folder / "sam.pt", {"model": content | {"memory.weight": torch.ones(1)}})
        fresh = torch.nn.Linear(2, 3)
        load_weights(fresh, path, prefix="image_encoder.")
        assert torch.equal(fresh.weight, layer.weight)
        with pytest.raises(ValueError, match=r"under 'decoder\.' .* 2 missing \(weight, bias\)"):
            load_weights(fresh, path, prefix="decoder.")


class TestRefuse:
    def refuse(self, path, match: str) -> str:
        with pytest.raises(ValueError, match=match) as error:
            load_weights(torchvision.models.resnet18(weights=None), path)
        assert "\n" not in str(error.value)
        return str(error.value)

    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
    def test_truncated(self, folder, zipped, share):
        weights = torch.nn.Linear(300, 300).state_dict()
        path = saved(folder / RESNET18, weights, _use_new_zipfile_serialization=zipped)
        os.truncate(path, int(path.stat().st_size * share))
        message = self.refuse(path, "truncated, damaged or no torch file")
        assert f"`bash pretrain_weight/download.bash {RESNET18}`" in message

    @pytest.mark.parametrize("zipped", [True, False])
    def test_flipped_bytes(self, folder, zipped):
        path = saved(
            folder / "flipped.pth",
            torch.nn.Linear(2, 2).state_dict(),
            _use_new_zipfile_serialization=zipped,
        )
        whole = path.read_bytes()
        for at in range(0, len(whole), 2):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
            with contextlib.suppress(ValueError):  # or the flipped byte is a weight's
                read_weights(path)

    def test_an_error_page_instead_of_a_file(self, folder):
        path = folder / "page.pth"
        path.write_bytes(b"<html>404 not found</html>")
        self.refuse(path, "truncated, damaged or no torch file")

    def test_code_is_not_run(self, folder):
        path = saved(folder / RESNET18, {"conv1.weight": Evil(str(folder / "ran"))})
        message = self.refuse(path, "is refused: it holds Python objects")
        assert f"`bash pretrain_weight/download.bash {RESNET18}`" in message
        assert not (folder / "ran").exists()

    @pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"model": {"a": "b"}}])
    def test_no_state_dict(self, folder, content):
        self.refuse(saved(folder / "other.pth", content), "holds no weights")

    def test_foreign_weights(self, folder):
        path = saved(folder / "linear.pth", torch.nn.Linear(2, 2).state_dict())
        first = r"102 missing \(conv1\.weight, bn1\.weight, bn1\.bias, \.\.\.\)"
        message = self.refuse(path, first)
        assert "2 unknown (weight, bias)" in message

    def test_weights_of_another_size(self, folder):
        path = saved(folder / "wide.pth", torch.nn.Linear(8, 3).state_dict())
        first = r"do not fit Linear: 1 of another shape \(weight \(3, 8\) for \(3, 4\)\)"
        with pytest.raises(ValueError, match=first):
            load_weights(torch.nn.Linear(4, 3), path)

    def test_a_folder_is_no_file(self, folder):
        path = folder / "folder.pth"
        path.mkdir()
        with pytest.raises(ValueError, match="no such file"):
            read_weights(path)


class Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))
