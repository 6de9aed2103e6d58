"""What the inspection service can be told: `XRAY_VQA_*` in the environment, and the same as options of the commands."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from xray_vqa.core.images import DEFAULT_LIMITS, ImageLimits
from xray_vqa.errors import ConfigError

PREFIX = "XRAY_VQA_"
TRAINED_MODEL = "outputs/qwen25vl_stcray_lora"
"""Where `scripts/train.sh` leaves its adapter."""


def default_model() -> str:
    """Return the adapter that training left in the working directory, else the shipped nano model."""
    return TRAINED_MODEL if Path(TRAINED_MODEL).is_dir() else "nano"


class ServeSettings(BaseSettings):
    """Settings of `xray-vqa serve` and `xray-vqa inspect`; `XRAY_VQA_PORT=8081` sets `port`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """Address to listen on. Nothing asks for a password yet: anything but this machine needs a network that does."""
    port: int = Field(default=8080, ge=0, le=65535)
    """0 takes a free one, which the log names."""
    model: str = Field(default_factory=default_model)
    """`nano`, a folder with weights or an adapter, or a hub name; for the scripted engine, its JSON file."""
    adapter: str | None = None
    """A folder with a LoRA adapter for the model."""
    engine: Literal["transformers", "scripted"] = "transformers"
    device: str | None = None
    """`cpu`, `cuda`, `cuda:1`. Unset: the first GPU where there is one."""
    policy: Path | None = None
    """The rules. Unset: `configs/policy.yaml`."""
    stop_file: Path = Path("outputs/stop.yaml")
    """The stop switch: while this file is there, no bag is cleared, on all lanes or on those that it names."""
    database_url: str = "sqlite:///outputs/audit.sqlite3"
    """The audit store. An answer that cannot be written there is not given."""
    timeout_s: float = Field(default=10.0, gt=0, le=600)
    """From the last byte of a request to its answer. After it the bag goes to a person."""
    drain_s: float = Field(default=30.0, ge=0, le=3600)
    """How long a stop waits for what is being answered."""
    queue_size: int = Field(default=32, ge=1, le=4096)
    """Scans that may wait for the engine; the next one goes to a person at once."""
    max_batch: int = Field(default=1, ge=1, le=64)
    """Waiting scans that the engine gets in one call."""
    max_body_bytes: int = Field(default=20 * 2**20, ge=1024)
    """Of a request, on the wire."""
    max_image_bytes: int = Field(default=DEFAULT_LIMITS.max_bytes, ge=1024)
    """Of an image file, after base64."""
    max_image_pixels: int = Field(default=DEFAULT_LIMITS.max_pixels, ge=1024)
    """Width times height, checked before anything is decoded."""

    @property
    def image_limits(self) -> ImageLimits:
        return ImageLimits(max_bytes=self.max_image_bytes, max_pixels=self.max_image_pixels)


def load_settings(**overrides: Any) -> ServeSettings:
    """Return the settings of the environment; overrides that are not None win.

    Raises:
        ConfigError: A value does not fit, or a variable of the environment looks like a misspelt setting.
    """
    _refuse_misspelt(os.environ)
    try:
        return ServeSettings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        origin = f"--{name.replace('_', '-')}" if overrides.get(name) is not None else PREFIX + name.upper()
        raise ConfigError(f"{origin}: {error.errors()[0]['msg']}") from error


def _refuse_misspelt(variables: Iterable[str]) -> None:
    """Raise ConfigError for `XRAY_VQA_TIMOUT_S`.

    A variable that resembles no setting belongs to someone else: other stages have some, and Kubernetes puts one for
    each service into every container (`XRAY_VQA_API_SERVICE_PORT`).
    """
    known = [PREFIX + name.upper() for name in ServeSettings.model_fields]
    for variable in sorted(variables):
        if not variable.startswith(PREFIX) or variable in known:
            continue
        near = difflib.get_close_matches(variable.removeprefix(PREFIX).lower(), ServeSettings.model_fields, 1, 0.85)
        if near:
            raise ConfigError(f"{variable} is no setting; did you mean {PREFIX}{near[0].upper()}?")
