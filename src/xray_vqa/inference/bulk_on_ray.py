"""Bulk inspection over a Ray cluster: every worker holds a model of its own and is handed files.

All machines see the files under the same paths, and `save_dir` too. Ray starts a lost worker again; what is finished is
in the journal of the machine that asked.
"""

import pickle
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from xray_vqa.config.cluster import ray_cluster
from xray_vqa.inference.bulk import BulkSettings, FileInspection, FileInspector, FileJob


def inspect_on_ray(jobs: Sequence[FileJob], settings: BulkSettings, workers: int) -> Generator[FileInspection]:
    """Inspect files over the cluster that RAY_ADDRESS names, else over one on this machine for the time.

    Args:
        jobs: The files.
        settings: For each worker.
        workers: Models at once; each gets a GPU where the cluster has any, else a core.

    Returns:
        Lines as they are finished, in any order.

    Raises:
        ConfigError: Ray is not installed.
    """
    with ray_cluster() as ray:
        settings = replace(settings, policy=_whole(settings.policy), save_dir=_whole(settings.save_dir))
        rows = [{"job": pickle.dumps(replace(job, path=str(Path(job.path).resolve())))} for job in jobs]
        names = {str(Path(job.path).resolve()): job for job in jobs}
        blocks = max(1, min(len(rows), workers * 4))
        lines = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
            _Worker,
            fn_constructor_args=(pickle.dumps(settings),),
            batch_size=settings.batch_size,
            concurrency=workers,
            num_gpus=1 if ray.cluster_resources().get("GPU") else 0,
            num_cpus=1,
        )
        for row in lines.iter_rows():
            line = FileInspection.model_validate_json(row["line"])
            job = names[line.path]
            yield job.known if row["known"] and job.known else line.model_copy(update={"path": job.path})


def _whole(path: Path | None) -> Path | None:
    return path and path.resolve()


class _Worker:
    """A model in a process of Ray's."""

    def __init__(self, settings: bytes) -> None:
        self._inspector = FileInspector(pickle.loads(settings))  # noqa: S301 (made by this program)

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        jobs: list[FileJob] = [pickle.loads(job) for job in rows["job"]]  # noqa: S301
        lines = self._inspector.inspect(jobs)
        return {
            "line": [
                line.model_copy(update={"path": job.path}).model_dump_json()
                for line, job in zip(lines, jobs, strict=True)
            ],
            "known": [line is job.known for line, job in zip(lines, jobs, strict=True)],
        }
