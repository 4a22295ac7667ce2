"""Two torchrun ranks on gloo against one process with the joint batch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from tests.conftest import ROOT
from utils.checkpoint import load_checkpoint
from utils.distributed import all_gather_objects, init, shut_down
from utils.sync_batchnorm import RankBatchNorm

SETTINGS = (
    "dataset_name=tiny",
    "image_size=64",
    "epochs=2",
    "crops_per_image=2",
    "evaluate_epoch=1",
    "evaluate_interval=1",
    "scheduler.CosineAnnealingLR_params.T_max=2",
    "learning_rate=1e-4",  # Adam turns rounding noise into steps of the rate: keep them small
    "num_workers=0",
    "warm_up_step=2",
    "run_name=run",
    "comet_ml.enable=false",
)


def launch(cwd: Path, ranks: int, *overrides: str) -> str:
    runner = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [sys.executable, *(runner if ranks > 1 else []), str(ROOT / "train.py")]
    config = ["-c", str(ROOT / "config" / "quickstart.yaml")]
    done = subprocess.run(
        [*command, *config, *SETTINGS, *overrides],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def rows(cwd: Path) -> list[dict]:
    text = (cwd / "logs_weights" / "run" / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
def test_two_ranks_train_as_one_with_the_joint_batch_and_resume(tmp_path, tiny_roads):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    launch(one, 1, f"root_dir={tiny_roads}", "batch_size=4")
    text = launch(two, 2, f"root_dir={tiny_roads}", "batch_size=2", "epochs=1")
    assert text.count("best epoch") == 1  # rank 0 alone reports
    assert "Grad strides" not in text
    assert text.count("AnchorSAM: pretrained_weights_path is None") == 1
    assert text.count("T_max 2 exceeds epochs 1") == 1
    launch(two, 2, f"root_dir={tiny_roads}", "batch_size=2", "load=auto")
    single, joint = rows(one), rows(two)
    assert [(r["epoch"], r["split"]) for r in single] == [(r["epoch"], r["split"]) for r in joint]
    for ours, theirs in zip(single, joint, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=2e-3), (single, joint)
    last = [load_checkpoint(f / "logs_weights" / "run" / "last.pth") for f in (one, two)]
    assert len(last[1]["random"]) == 2
    assert [len(c["history"]) for c in last] == [4, 4]
    assert [p.name for p in (two / "logs_weights").iterdir()] == ["run"]


def gather_and_leave(rank: int, folder: Path) -> None:
    """As a training ends, a few times: gather, leave, and only then drop the wrapped model."""
    sys.setswitchinterval(10)  # no thread gets Python's lock unless it is let go
    torch.set_num_threads(1)
    for turn in range(8):
        dist.init_process_group("gloo", f"file://{folder}/{turn}", rank=rank, world_size=2)
        model = nn.parallel.DistributedDataParallel(nn.Linear(3, 3))
        model(torch.ones(2, 3)).sum().backward()
        assert all_gather_objects(rank) == [0, 1]
        shut_down(model)
        del model


def test_ranks_leave_while_gloos_threads_still_hold_tensors(tmp_path):
    ranks = torch.multiprocessing.spawn(gather_and_leave, (tmp_path,), nprocs=2, join=False)
    end = time.monotonic() + 120
    while not ranks.join(timeout=1):  # of the first rank that ends, whose errors it raises
        if time.monotonic() > end:
            for process in ranks.processes:
                process.kill()
            pytest.fail("a rank did not leave")


def test_more_processes_than_gpus_are_refused_by_every_rank(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for local_rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", local_rank)
        with pytest.raises(ValueError, match="2 processes were started for 1 GPUs: lower --nproc"):
            init()


def test_rank_batchnorm_equals_torchs_on_one_rank():
    torch.manual_seed(0)
    reference = nn.BatchNorm2d(5).double()
    nn.init.normal_(reference.weight)
    x = torch.randn(3, 5, 7, 6).double().mul(3).add(50).requires_grad_()
    ours = RankBatchNorm.from_batchnorm(nn.BatchNorm2d(5).double())
    ours.load_state_dict(reference.state_dict())
    grads = []
    for layer in (reference, ours):
        y = layer(x)
        grads.append((y, *torch.autograd.grad(y.square().mean() + y[0].sum(), [x, layer.weight])))
    for theirs, own in zip(*grads, strict=True):
        assert torch.allclose(theirs, own, atol=1e-9)
    for name, value in reference.state_dict().items():
        assert torch.allclose(value.float(), ours.state_dict()[name].float()), name
    reference.eval(), ours.eval()
    assert torch.allclose(reference(x), ours(x))
