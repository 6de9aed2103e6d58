"""The engines. `open_engine` is the door; each one's libraries are imported behind it."""

import logging
from pathlib import Path

from xray_vqa.config.ensemble import is_ensemble, load_ensemble
from xray_vqa.config.loading import require
from xray_vqa.config.serve import EngineSettings, load_engine_settings
from xray_vqa.errors import ConfigError
from xray_vqa.inference.engine import Engine

logger = logging.getLogger(__name__)

ENGINES = ("transformers", "openai", "vllm", "scripted")


def open_engine(
    name: str,
    model: str,
    *,
    adapter: str | None = None,
    device: str | None = None,
    settings: EngineSettings | None = None,
) -> Engine:
    """Return an engine that is not started yet.

    Args:
        name: One of `ENGINES`. More than one GPU for a model selects `vllm` in the place of `transformers`.
        model: `nano`, a folder with weights or an adapter, or a hub name. For `scripted`, a JSON file of readings; for
            `openai`, what the server has loaded. A folder with `ensemble.yaml`: several of these together.
        adapter: A folder with a LoRA adapter for the model.
        device: `cpu`, `cuda`, `cuda:1`; by default the first GPU where there is one.
        settings: What the engines are told beside that; by default by the environment.

    Raises:
        ConfigError: There is no such engine, its extra is missing, or it cannot do what the settings ask for.
    """
    settings = settings or load_engine_settings()
    if is_ensemble(model):
        return _open_ensemble(name, Path(model), adapter, device, settings)
    if (gpus := settings.tensor_parallel_size) > 1 and name != "vllm":
        if name != "transformers":
            raise ConfigError(
                f"TENSOR_PARALLEL_SIZE={gpus} is for vLLM in this process; with the {name} engine unset it (a server "
                "of your own takes it as --tensor-parallel-size)"
            )
        logger.info("TENSOR_PARALLEL_SIZE=%d: a model over several GPUs is run by the vllm engine", gpus)
        name = "vllm"
    if name == "transformers":
        from xray_vqa.inference.engines.transformers import TransformersEngine

        return TransformersEngine(model, adapter=adapter, device=device)
    if name == "openai":
        require("openai", extra="openai")
        from xray_vqa.inference.engines.openai import OpenAIEngine

        return OpenAIEngine(model, settings, adapter=adapter)
    if name == "vllm":
        _require_vllm(gpus)
        from xray_vqa.inference.engines.vllm import VllmEngine

        return VllmEngine(model, settings, adapter=adapter, device=device)
    if name == "scripted":
        from xray_vqa.inference.engines.scripted import ScriptedEngine

        return ScriptedEngine.from_file(model)
    raise ConfigError(f"unknown engine {name!r}; there are {', '.join(ENGINES)}")


def _open_ensemble(
    name: str, folder: Path, adapter: str | None, device: str | None, settings: EngineSettings
) -> Engine:
    from xray_vqa.inference.engines.ensemble import EnsembleEngine

    if adapter is not None:
        raise ConfigError(f"{folder} is an ensemble; name the adapter {adapter} at the member that it is for")
    members = load_ensemble(folder).members
    if nested := [member.name for member in members if is_ensemble(member.model)]:
        raise ConfigError(f"{folder}: member {nested[0]} is an ensemble itself; name its members here")
    return EnsembleEngine(
        folder,
        {
            member.name: open_engine(
                member.engine or name, member.model, adapter=member.adapter, device=device, settings=settings
            )
            for member in members
        },
    )


def _require_vllm(gpus: int) -> None:
    try:
        require("vllm", extra="vllm")
    except ConfigError as error:
        if gpus == 1:
            raise
        raise ConfigError(
            f"TENSOR_PARALLEL_SIZE={gpus}: a model spread over several GPUs is run by vLLM: {error}. Or set it to "
            "1 and run one server for each GPU (--device cuda:1 --port 8081)"
        ) from error
