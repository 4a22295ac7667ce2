"""From what the model said to the files of a scene; nothing here needs torch or the model."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from multiprocessing import parent_process
from threading import Thread

from rasterio.errors import RasterioError

from utils.command_line import end_at_signals, plain_end, set_up_logging
from utils.files import room_for
from utils.scenes.assemble import assemble
from utils.scenes.plan import ScenePlan
from utils.scenes.stitch import stitch
from utils.scenes.store import BlockStore, SceneFailed, wait_for
from utils.scenes.trace import trace_cell
from utils.vector import write_roads

logger = logging.getLogger(__name__)


def finish_scenes(plans: Sequence[ScenePlan], rank: int, world: int) -> None:
    """This rank's part of finishing: its share of the cells, and whole scenes in turn.

    Waits for blocks and cells that others work on. A scene that cannot be finished costs a line.
    """
    for number, plan in enumerate(plans):
        try:
            if plan.wanted.roads:
                trace_share(plan, rank, world)
            if number % world == rank:
                finish(plan)
        except SceneFailed:
            continue
        except (ValueError, OSError, RasterioError) as error:
            plan.fail(f"{plan.name}: {error}")


def finish_in_background(plans: Sequence[ScenePlan], rank: int, world: int) -> None:
    """`finish_scenes` as the work of a helper process, which ends with its parent."""
    set_up_logging()
    end_at_signals()
    Thread(target=_end_with_parent, daemon=True).start()
    with plain_end():
        finish_scenes(plans, rank, world)


def _end_with_parent() -> None:
    """A parent that was killed is started again, and two helpers would be in each other's way."""
    parent_process().join()
    os._exit(1)


def trace_share(plan: ScenePlan, rank: int, world: int) -> None:
    """Trace every `world`th cell, where that is not done already."""
    store = BlockStore(plan)
    for block in plan.blocks[rank::world]:
        path = plan.lines_file(block)
        if not path.exists() and not plan.record.exists():
            trace_cell(store, block).save(path)


def finish(plan: ScenePlan) -> None:
    """Put the files of a scene in their places, note that it is done, and drop what it took."""
    if plan.record.exists():
        return
    with room_for(plan.work, plan.work / "room"):
        ready, road_share = assemble(plan)
    entry = {"road_share": road_share, "pixel_size_m": plan.raster.pixel_size_m}
    if road_share is None:
        logger.warning("%s: has no data anywhere, and so has its mask", plan.raster.path)
    files = plan.files()
    if plan.wanted.roads:
        for block in plan.blocks:
            wait_for(plan.lines_file(block), plan)
        frame = stitch(plan).frame(plan.raster.crs, plan.raster.grid_transform)
        ready |= {kind: plan.work / files[kind].name for kind in ("gpkg", "geojson")}
        write_roads(frame, ready["gpkg"], ready["geojson"])
        length, total = frame.columns[0], float(frame.iloc[:, 0].sum())
        entry |= {"roads": len(frame), f"total_{length}": round(total, 2)}
        roads = "1 road" if len(frame) == 1 else f"{len(frame)} roads"
        logger.info("%s: %s, %.0f %s", plan.name, roads, total, length[-2:].strip("_"))
    for kind, path in ready.items():
        files[kind].parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, files[kind])
    plan.finish(**entry, files=plan.listed(files.values()))
    for folder in ("blocks", "lines"):
        shutil.rmtree(plan.work / folder, ignore_errors=True)
