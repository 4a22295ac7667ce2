"""SAM2-UNet: adapters beside a trunk that is SAM's own, side outputs, receptive fields."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from model.anchor_sam.encoder import HieraEncoder
from model.baselines.sam2unet import ReceptiveFieldBlock, SAM2UNet
from tests.formulas import batch_norm, conv, gelu, random_map, relu, scrambled


def nano(**args) -> SAM2UNet:
    torch.manual_seed(0)
    return SAM2UNet(model_size="nano", **args)


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def test_silent_adapters_leave_the_trunk_as_it_is(image):
    network = nano().eval()
    for adapter in network.adapters:
        torch.nn.init.zeros_(adapter.mlp[2].weight)
        torch.nn.init.zeros_(adapter.mlp[2].bias)
    for own, of_trunk in zip(network._encode(image), network.trunk(image), strict=True):
        assert torch.equal(own, of_trunk)


def test_adapter_only_trains_all_but_the_trunk(image):
    network = nano()
    network.set_training_mode("adapter_only")
    network.train()
    assert not any(module.training for module in network.trunk.modules())
    logits = network(image)
    sum(x.square().mean() for x in [logits, *network.take_side_logits()]).backward()
    for name, parameter in network.named_parameters():
        frozen = name.startswith("trunk.")
        assert parameter.requires_grad != frozen, name
        assert (parameter.grad is None) == frozen, name
    assert all(a.mlp[0].weight.grad.count_nonzero() for a in network.adapters)


def test_training_all_reaches_every_parameter_and_recomputation_changes_none(image):
    gradients = []
    for recompute in (False, True):
        network = nano().train()
        if recompute:
            network.enable_gradient_checkpointing()
        logits = network(image)
        sum(x.square().mean() for x in [logits, *network.take_side_logits()]).backward()
        gradients.append({name: p.grad for name, p in network.named_parameters()})
    assert all(grad is not None for grad in gradients[0].values())
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_side_outputs_are_left_in_training_alone_and_once(image):
    network = nano(n_classes=2).train()
    logits = network(image[..., :33, :50])
    assert logits.shape == (1, 2, 33, 50)
    assert [side.shape for side in network.take_side_logits()] == [logits.shape] * 2
    assert network.take_side_logits() == []
    network.eval()(image)
    assert network.take_side_logits() == []
    without = nano(deep_supervision=False).train()
    without(image)
    assert without.take_side_logits() == [] and len(without.heads) == 1


def test_receptive_fields_grow_from_branch_to_branch():
    block = ReceptiveFieldBlock(1, 1).eval()
    for module in block.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.ones_(module.weight)
    impulse = torch.zeros(1, 1, 41, 41)
    impulse[0, 0, 20, 20] = 1
    reach = []
    for response in [*(branch(impulse) for branch in block.branches), block(impulse)]:
        rows, columns = response[0, 0].nonzero().T
        reach.append((rows.max() - rows.min() + 1).item())
        assert reach[-1] == (columns.max() - columns.min() + 1).item()
    assert reach == [1, 9, 15, 21, 23]  # a row and column of k, then 3 taps k apart


def test_receptive_field_block_follows_its_formula():
    part = scrambled(ReceptiveFieldBlock(3, 4))
    x = random_map(2, 3, 9, 8)

    def step(y, layers, padding=0, dilation=1):
        y = conv(y, layers[0], padding=padding, dilation=dilation, bias=False)
        return batch_norm(y, layers[1])  # and no activation

    branches = [step(x, part.branches[0])]
    for k, branch in zip((3, 5, 7), part.branches[1:], strict=True):
        y = step(step(x, branch[0]), branch[1], (0, k // 2))
        branches.append(step(step(y, branch[2], (k // 2, 0)), branch[3], k, k))
    with torch.no_grad():
        joined = step(torch.cat(branches, 1), part.join, 1)
        torch.testing.assert_close(part(x), relu(joined + step(x, part.shortcut)))


@torch.no_grad()
def test_decoder_takes_the_skip_first_and_ends_at_stride_4(image):
    network = nano().double()
    image = image.double()
    adapter, x = network.adapters[0], network.trunk.patch_embed(image)
    torch.testing.assert_close(adapter(x), x + gelu(adapter.mlp[2](gelu(adapter.mlp[0](x)))))

    network.train()  # nothing is dropped, and batch norms see the same image twice
    levels = [f(x) for f, x in zip(network.receptive_fields, network._encode(image), strict=True)]
    x, maps = levels[3], []
    for skip, fuse in zip(levels[2::-1], network.decoder, strict=True):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        x = torch.cat([skip, x], 1)
        for i in (0, 3):
            x = fuse[i + 1](conv(x, fuse[i], padding=1, bias=False)).relu()
        maps.append(x)
    *sides, expected = (
        F.interpolate(conv(x, head), (64, 96), mode="bilinear", align_corners=False)
        for x, head in zip(maps, network.heads, strict=True)
    )
    torch.testing.assert_close(network.forward_padded(image), expected)
    torch.testing.assert_close(network.take_side_logits(), sides)


def test_an_official_checkpoint_gives_the_trunk(tmp_path):
    torch.manual_seed(0)
    encoder = HieraEncoder("tiny")
    tensors = {f"image_encoder.{k}": v for k, v in encoder.state_dict().items()}
    torch.save({"model": tensors}, tmp_path / "official.pt")
    network = SAM2UNet(model_size="tiny", pretrained_weights_path=str(tmp_path / "official.pt"))
    for name, tensor in network.trunk.state_dict().items():
        assert torch.equal(tensor, tensors[f"image_encoder.trunk.{name}"]), name
    with pytest.raises(ValueError, match="'nano' has no published weights"):
        nano(pretrained_weights_path=str(tmp_path / "official.pt"))
