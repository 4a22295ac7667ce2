"""Comet experiments: an offline archive by default, online with COMET_API_KEY; never in the way."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from utils.schema import Config

logger = logging.getLogger(__name__)

ARCHIVES = Path("comet_logs")
#: Comet's own reports home, its announcements and its patches of other libraries stay off.
QUIET = {
    "COMET_ERROR_TRACKING_ENABLE": "false",
    "COMET_INTERNAL_REPORTING": "false",
    "COMET_DISABLE_ANNOUNCEMENT": "1",
    "COMET_DISABLE_AUTO_LOGGING": "1",
    "COMET_DISPLAY_SUMMARY_LEVEL": "0",
    "COMET_LOGGING_CONSOLE": "error",
}
_LOG_NOTHING_UNASKED = {
    "log_code": False,
    "log_git_metadata": False,
    "log_git_patch": False,
    "log_env_details": False,
    "log_graph": False,
    "parse_args": False,
    "auto_output_logging": False,
    "auto_param_logging": False,
    "auto_metric_logging": False,
}


class CometTracker:
    """Sends a run's settings and metrics to Comet; a failure is one warning, then silence."""

    def __init__(self, config: Config, run_name: str) -> None:
        self.experiment = None
        if config.comet_ml.enable:
            self._guarded("start", lambda: self._start(config, run_name))

    def log(self, row: dict[str, Any]) -> None:
        """A row of metrics.jsonl."""
        values = {f"{row['split']}_{k}": v for k, v in row.items() if k not in ("epoch", "split")}
        self._guarded("log", lambda: self.experiment.log_metrics(values, epoch=row["epoch"]))

    def end(self) -> None:
        """Write the archive, or wait for the last uploads."""
        self._guarded("end", lambda: self.experiment.end())

    def _start(self, config: Config, run_name: str) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import comet_ml  # late: it takes seconds, and a broken install must not stop a run

        project = config.comet_ml.project_name or config.log_project_name or "anchor-sam"
        if os.environ.get("COMET_API_KEY"):
            self.experiment = comet_ml.Experiment(project_name=project, **_LOG_NOTHING_UNASKED)
        else:
            ARCHIVES.mkdir(exist_ok=True)
            self.experiment = comet_ml.OfflineExperiment(
                project_name=project, offline_directory=str(ARCHIVES), **_LOG_NOTHING_UNASKED
            )
        self.experiment.set_name(run_name)
        self.experiment.log_parameters(config.model_dump(mode="json"))

    def _guarded(self, what: str, action: Any) -> None:
        if what != "start" and self.experiment is None:
            return
        try:
            action()
        except Exception as error:  # whatever Comet raises: the training is worth more
            logger.warning("Comet could not %s (%s); the run goes on without it", what, error)
            self.experiment = None
