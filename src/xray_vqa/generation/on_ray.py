"""The same plan as a Ray Data job: the parts that `--shard` writes, on as many machines as a Ray cluster has.

Ray decides where and when a part runs, and starts it again where a machine is lost. Everything else is as on one
machine: each part has its journal in the folder of the output, which all machines see, and goes on from it.
"""

from pathlib import Path
from typing import Any

from tqdm import tqdm

from xray_vqa import errors
from xray_vqa.config.cluster import ray_cluster
from xray_vqa.config.generate import GenerateConfig, ProviderSettings
from xray_vqa.core.records import Strict
from xray_vqa.errors import Incomplete, XrayVqaError
from xray_vqa.generation.shards import Shard


class Part(Strict):
    """What became of one part."""

    number: int
    error: str = ""
    """Name of the error of ours that ended it; empty where it is done."""
    message: str = ""
    num_pairs: int = 0
    cost_usd: float = 0.0


def parts_of(config: GenerateConfig, num_parts: int) -> list[GenerateConfig]:
    """Return the configuration of each part.

    They share the whole's budget evenly, and leave as much more time between two calls as there are parts, so that all
    together keep to what was asked for.
    """
    shards = [Shard(number, num_parts) for number in range(1, num_parts + 1)]
    budget_usd = config.max_cost_usd
    return [
        config.model_copy(
            update={
                "output_path": shard.path_for(config.output_path.resolve()),
                "annotations_path": config.annotations_path.resolve(),
                "policy_path": _whole(config.policy_path),
                "gates_path": _whole(config.gates_path),
                "provider": _findable(config.provider),
                "fallbacks": [_findable(settings) for settings in config.fallbacks],
                "shard": f"{shard.number}/{shard.count}",
                "max_cost_usd": None if budget_usd is None else budget_usd / num_parts,
                "rate_limit_delay_s": config.rate_limit_delay_s * num_parts,
            }
        )
        for shard in shards
    ]


def _whole(path: Path | None) -> Path | None:
    return path and path.resolve()


def _findable(settings: ProviderSettings) -> ProviderSettings:
    """Return settings whose script is found from any working directory."""
    return settings.model_copy(update={"script_path": _whole(settings.script_path)})


def write_parts(config: GenerateConfig, num_parts: int) -> list[Part]:
    """Let a Ray cluster write all parts of a set; `merge_journals` makes one of them.

    The cluster is the one that RAY_ADDRESS names, else one on this machine for the time.

    Raises:
        ConfigError: Ray is not installed.
        Incomplete: Parts were stopped by their budget, the network or a full disk; the same command goes on.
        XrayVqaError: A part failed; the message is its own.
    """
    with ray_cluster() as ray:
        rows = [{"config": part.model_dump_json()} for part in parts_of(config, num_parts)]
        jobs = ray.data.from_items(rows, override_num_blocks=num_parts).map(_write_part, num_cpus=1)
        parts: list[Part] = []
        with tqdm(total=num_parts, unit="part", desc=config.output_path.name) as bar:
            for row in jobs.iter_rows():
                parts.append(Part.model_validate_json(row["part"]))
                bar.update()
    parts.sort(key=lambda part: part.number)
    ended = [part for part in parts if part.error]
    # What a person has to mend comes before what the same command goes on with.
    for part in sorted(ended, key=lambda part: part.error == Incomplete.__name__):
        raise getattr(errors, part.error)(f"{len(ended)} of {num_parts} parts did not end, first {part.message}")
    return parts


def _write_part(row: dict[str, Any]) -> dict[str, str]:
    """Write one part, in a process of Ray's. What goes wrong is told to the driver, not tried again by Ray."""
    from xray_vqa.generation.providers import open_provider
    from xray_vqa.generation.run import generate

    config = GenerateConfig.model_validate_json(row["config"])
    number = Shard.parse(config.shard).number
    try:
        fallbacks = [open_provider(settings) for settings in config.fallbacks]
        outcome = generate(config, open_provider(config.provider), fallbacks=fallbacks)
    except XrayVqaError as error:
        part = Part(number=number, error=type(error).__name__, message=str(error))
    else:
        part = Part(number=number, num_pairs=outcome.quality.num_pairs, cost_usd=outcome.cost_usd)
    return {"part": part.model_dump_json()}
