"""Every mistake of a command line at once, with the nearest name, and status 2."""

from __future__ import annotations

import pytest

import compare
import evaluate
import inference
import prepare_data
import train


def mistakes(capsys, parse, *argv: str) -> list[str]:
    with pytest.raises(SystemExit) as ended:
        parse(list(argv))
    assert ended.value.code == 2
    _, _, told = capsys.readouterr().err.partition(": error: ")
    return [line.strip() for line in told.splitlines()]


def test_all_mistakes_are_told_at_once(capsys):
    argv = ("--cofnig", "config/UNet.yaml", "--epochs=3", "--foo")
    assert mistakes(capsys, train.parse_args, *argv) == [
        "4 mistakes",
        "--cofnig: unknown option, did you mean --config?",
        "--epochs=3: settings stand without dashes, epochs=3",
        "--foo: unknown option",
        "-c/--config: is missing",
    ]
    argv = ("--export", "onyx", "a=1", "--gsd", "x", "--bands", "1,2", "--chekpoint", "y")
    count, export, gsd, bands, checkpoint = mistakes(capsys, inference.parse_args, *argv)
    assert count == "4 mistakes"
    assert export.startswith("--export: invalid choice: 'onyx' (choose from")
    assert gsd == "--gsd: expected a pixel size in metres, got 'x'"
    assert bands.startswith("--bands: expected one or three band numbers")
    assert checkpoint == "--chekpoint: unknown option, did you mean --checkpoint?"
    argv = ("--pred", "a", "--threshold", "z", "--metrixs", "apls", "--gt")
    assert mistakes(capsys, evaluate.parse_args, *argv) == [
        "2 mistakes",
        "--threshold: invalid float value: 'z'",
        "--gt: expected one argument",
    ]


def test_one_mistake_is_one_line(capsys):
    assert mistakes(capsys, train.parse_args) == ["-c/--config: is missing"]
    assert mistakes(capsys, evaluate.parse_args, "--pred", "a", "--gt", "b", "c") == [
        "c: expected no such argument"
    ]
    assert mistakes(capsys, compare.parse_args, "-c", "a.yaml", "--sead", "3", "x=1") == [
        "--sead: unknown option, did you mean --seeds?"
    ]


def test_mistakes_of_a_command(capsys):
    def told(*argv: str) -> list[str]:
        return mistakes(capsys, prepare_data.parse_args, *argv)

    assert told("deepglobe", "--scr", "a", "--dst", "b", "--tile", "x") == [
        "3 mistakes",
        "--tile: invalid int value: 'x'",
        "--scr: unknown option, did you mean --src?",
        "--src: is missing",
    ]
    assert told("massachusets", "--src", "a", "--dst", "b", "--sead", "3") == [
        "2 mistakes",
        "massachusets: unknown command, did you mean massachusetts?",
        "--sead: unknown option, did you mean --seed?",
    ]
    known = "one of: deepglobe, massachusetts, spacenet, chn6, sample, check"
    assert told("landsat", "--src", "a") == [f"landsat: unknown command, {known}"]
    assert told("--src", "a", "deepglobe") == [f"--src: the command stands first, {known}"]
    assert told() == [f"a command is missing, {known}"]
    assert told("check") == ["dataset: is missing"]
    assert told("check", "a", "b") == ["b: expected no such argument"]


def test_arguments_of_a_command():
    args = prepare_data.parse_args(["deepglobe", "--src", "a", "--dst", "b", "--tile", "64"])
    assert (args.command, str(args.src), args.tile) == ("deepglobe", "a", 64)
    args = prepare_data.parse_args(["check", "a"])
    assert (args.command, args.dataset) == ("check", "a")


def test_help_tells_what_is_required(capsys):
    for parse, argv, usage in (
        (prepare_data.parse_args, ["deepglobe"], "--src DIR --dst ROOT [--split SPLIT]"),
        (prepare_data.parse_args, [], "{deepglobe,massachusetts,spacenet,chn6,sample,check} ..."),
        (evaluate.parse_args, [], "[-h] --pred PRED --gt GT [--metrics"),
    ):
        with pytest.raises(SystemExit) as ended:
            parse([*argv, "--help"])
        assert ended.value.code == 0
        assert usage in " ".join(capsys.readouterr().out.split())


def test_settings_may_stand_anywhere():
    args = train.parse_args(["epochs=3", "-c", "a.yaml", "amp=false"])
    assert (args.config, args.overrides) == ("a.yaml", ["epochs=3", "amp=false"])
    args = inference.parse_args(["a=1", "--input", "x", "--gsd", "0.5", "b=2"])
    assert (args.overrides, args.gsd) == (["a=1", "b=2"], 0.5)
