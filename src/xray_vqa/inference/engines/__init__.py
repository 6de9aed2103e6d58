"""The engines. `open_engine` is the door; each one's libraries are imported behind it."""

from xray_vqa.errors import ConfigError
from xray_vqa.inference.engine import Engine

ENGINES = ("transformers", "scripted")


def open_engine(name: str, model: str, *, adapter: str | None = None, device: str | None = None) -> Engine:
    """Return an engine that is not started yet.

    Args:
        name: One of `ENGINES`.
        model: `nano`, a folder with weights or an adapter, or a hub name. For `scripted`, a JSON file of readings.
        adapter: A folder with a LoRA adapter for the model.
        device: `cpu`, `cuda`, `cuda:1`; by default the first GPU where there is one.
    """
    if name == "transformers":
        from xray_vqa.inference.engines.transformers import TransformersEngine

        return TransformersEngine(model, adapter=adapter, device=device)
    if name == "scripted":
        from xray_vqa.inference.engines.scripted import ScriptedEngine

        return ScriptedEngine.from_file(model)
    raise ConfigError(f"unknown engine {name!r}; there are {', '.join(ENGINES)}")
