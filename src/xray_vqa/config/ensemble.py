"""An ensemble: a folder with `ensemble.yaml`, which names the models that look at each scan together."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from xray_vqa.config.loading import load_config
from xray_vqa.core.records import Strict

ENSEMBLE_NAME = "ensemble.yaml"


class Member(Strict):
    """One model of an ensemble."""

    name: str = Field(min_length=1)
    """What messages call it."""
    model: str
    """`nano`, a hub name, or a folder with weights or an adapter, from the ensemble's folder on."""
    adapter: str | None = None
    """A folder with a LoRA adapter for the model, from the ensemble's folder on."""
    engine: Literal["transformers", "openai", "vllm", "scripted"] | None = None
    """What runs it. Unset: the engine that the ensemble is opened with."""


class EnsembleConfig(Strict):
    """The content of `ensemble.yaml`."""

    members: tuple[Member, ...] = Field(min_length=2)
    """The first answers free questions and draws heat maps."""

    @field_validator("members")
    @classmethod
    def _check_names(cls, members: tuple[Member, ...]) -> tuple[Member, ...]:
        names = [member.name for member in members]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two members are called {twice[0]!r}")
        return members


def is_ensemble(model: str) -> bool:
    """Return whether a model's name is a folder with an ensemble in it."""
    return (Path(model) / ENSEMBLE_NAME).is_file()


def load_ensemble(folder: Path) -> EnsembleConfig:
    """Return the members of an ensemble, their folders made reachable from here. Raises ConfigError."""
    config = load_config(EnsembleConfig, folder / ENSEMBLE_NAME)
    members = [
        member.model_copy(update={"model": _reachable(member.model, folder), "adapter": _adapter_of(member, folder)})
        for member in config.members
    ]
    return config.model_copy(update={"members": tuple(members)})


def _reachable(model: str, folder: Path) -> str:
    """A hub name and `nano` look like folders; what is there is one."""
    return str(folder / model) if (folder / model).exists() else model


def _adapter_of(member: Member, folder: Path) -> str | None:
    return None if member.adapter is None else _reachable(member.adapter, folder)
