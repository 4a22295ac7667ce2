"""Named splits of a dataset: fixed by the distribution, by a list, or by a seed.

A seeded split orders the pairs by a hash of seed and name. It depends on nothing else: neither on
the order of files nor on the version of a random generator.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from utils.pairing import IMAGE_SUFFIXES, LABEL_SUFFIXES, SPLITS, listed, pair_name
from utils.preparation.distributions import DISTRIBUTIONS
from utils.preparation.sources import Source

#: The academic split of DeepGlobe: 4696 of 6226 pairs to train on, 1530 to compare on.
ACADEMIC_TEST_SHARE = 1530 / 6226
#: Of the training pairs, where a split has no part to choose the best checkpoint on.
VAL_SHARE = 0.1


def check_split(dataset: str, split: str | None, list_file: Path | None) -> str:
    """The split's name, by default the dataset's first. Raises ValueError for any other."""
    names = DISTRIBUTIONS[dataset].splits
    if split is None:
        if list_file:
            return "list"
        split = names[0]
    name, _, numbers = split.partition(":")
    if name not in names or (name != "ratio" and numbers):
        known = ", ".join("ratio:80,10,10" if name == "ratio" else name for name in names)
        raise ValueError(f"--split {split}: {dataset} has {known}, or a --list")
    if name == "ratio":
        if list_file:
            raise ValueError("--list says which pair goes where: leave out --split ratio")
        shares = ",".join(f"{share:g}" for share in _shares(split))
        return f"ratio:{shares}"
    return name


def assign(
    sources: Sequence[Source], split: str, list_file: Path | None, seed: int
) -> dict[str, str]:
    """The split of each pair, by name. Raises ValueError for a list that does not fit."""
    names = [source.name for source in sources]
    if list_file:
        found = _listed_split(names, list_file)
    elif split.startswith("ratio"):
        return _by_ratio(names, _shares(split), seed)
    elif {source.part for source in sources} == {"train"}:  # DeepGlobe: only train has masks
        test = _drawn(names, ACADEMIC_TEST_SHARE, seed)
        found = {name: "test" if name in test else "train" for name in names}
    else:
        found = {source.name: source.part for source in sources}
    return _with_all_parts(found, seed)


def _with_all_parts(found: dict[str, str], seed: int) -> dict[str, str]:
    """Two parts are one to train on and one to test on: a share of the first becomes val."""
    parts = set(found.values())
    if "test" not in parts and "val" in parts:  # CHN6-CUG calls its test split val
        found = {name: "test" if part == "val" else part for name, part in found.items()}
    if "val" not in found.values():
        train = [name for name, part in found.items() if part == "train"]
        val = _drawn(train, VAL_SHARE, seed)
        found = {name: "val" if name in val else part for name, part in found.items()}
    return found


def _by_ratio(names: Sequence[str], shares: list[float], seed: int) -> dict[str, str]:
    """Every split gets a pair where there are three."""
    order = sorted(names, key=lambda name: _rank(name, seed))
    counts = [max(1, round(len(names) * share / sum(shares))) for share in shares[1:]]
    train = max(1, len(names) - sum(counts))
    return {
        name: "train" if at < train else "val" if at < train + counts[0] else "test"
        for at, name in enumerate(order)
    }


def _drawn(names: Sequence[str], share: float, seed: int) -> set[str]:
    order = sorted(names, key=lambda name: _rank(name, seed))
    return set(order[: max(1, round(len(names) * share))])


def _rank(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def _shares(split: str) -> list[float]:
    numbers = split.partition(":")[2] or "80,10,10"
    try:
        shares = [float(number) for number in numbers.split(",")]
    except ValueError:
        shares = []
    if len(shares) != 3 or not all(0 < share < math.inf for share in shares):
        raise ValueError(
            f"--split {split}: expected three positive numbers, for train, val and test, "
            "as in ratio:80,10,10"
        )
    return shares


def _listed_split(names: Iterable[str], list_file: Path) -> dict[str, str]:
    """The split by a text file with a name a line, to train on, or a name and its split.

    Names may be file names. Pairs that are not listed are for the test, unless the list names
    test pairs itself: then they are left out.
    """
    known, problems = set(names), []
    found: dict[str, str] = {}
    for number, line in enumerate(_text(list_file).splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or line.startswith("#"):
            continue
        name = pair_name(Path(words[0]).stem, IMAGE_SUFFIXES + LABEL_SUFFIXES)
        part = words[1] if len(words) > 1 else "train"
        if part not in SPLITS or len(words) > 2:
            problems.append(f"{list_file}:{number}: expected NAME or NAME SPLIT, got {line!r}")
        elif name in found:
            problems.append(f"{list_file}:{number}: {name} is listed twice")
        else:
            found[name] = part
    if unknown := found.keys() - known:
        problems.append(f"{list_file}: not in --src: {len(unknown)} ({listed(unknown)})")
    if "test" not in found.values():
        found |= dict.fromkeys(known - found.keys(), "test")
    parts = set(found.values())
    if "train" not in parts or len(parts) == 1:
        problems.append(f"{list_file}: leaves no pairs to train on, or none to test on")
    if problems:
        raise ValueError("\n".join(problems))
    return dict(sorted(found.items()))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file in UTF-8") from None
