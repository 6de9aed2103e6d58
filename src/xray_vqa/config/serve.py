"""What the inspection service can be told: `XRAY_VQA_*` in the environment, and the same as options of the commands."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from xray_vqa.core.images import DEFAULT_LIMITS, ImageLimits
from xray_vqa.errors import ConfigError

PREFIX = "XRAY_VQA_"
PARALLEL_VARIABLE = "TENSOR_PARALLEL_SIZE"
"""Without our prefix, as the guide has it."""
TRAINED_MODEL = "outputs/qwen25vl_stcray_lora"
"""Where `scripts/train.sh` leaves its adapter."""

SigningAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Those with a public key. A shared secret would let this service sign people in itself."""


def default_model() -> str:
    """Return the adapter that training left in the working directory, else the shipped nano model."""
    return TRAINED_MODEL if Path(TRAINED_MODEL).is_dir() else "nano"


class EngineSettings(BaseSettings):
    """What the engines can be told, for every command that runs a model: `XRAY_VQA_SERVER_URL` sets `server_url`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", use_attribute_docstrings=True
    )

    server_url: str | None = None
    """For the openai engine: where a server speaks Chat Completions, as `http://localhost:8000/v1`."""
    server_model: str | None = None
    """For the openai engine: the model's name at the server. Unset: the only one that it serves."""
    server_digest: str | None = Field(default=None, min_length=12)
    """For the openai engine: digest of the weights that the server has, where their folder is not here to be read."""
    server_key_variable: str = "XRAY_VQA_SERVER_KEY"
    """For the openai engine: name of the environment variable that holds the server's key, if it wants one."""
    server_concurrency: int = Field(default=64, ge=1, le=4096)
    """For the openai engine: requests under way at once; an inspection makes one for each category."""
    call_timeout_s: float = Field(default=10.0, gt=0, le=600)
    """For the openai and vllm engines: all answers of one call are there by then, or its scans go to a person."""
    tensor_parallel_size: int = Field(default=1, ge=1, le=64)
    """GPUs that one model is spread over. More than 1 is vLLM's work. TENSOR_PARALLEL_SIZE sets it too."""


class ServeSettings(EngineSettings):
    """Settings of `xray-vqa serve` and `xray-vqa inspect`; `XRAY_VQA_PORT=8081` sets `port`."""

    host: str = "127.0.0.1"
    """Address to listen on. Without a key only this machine's own programs are answered."""
    port: int = Field(default=8080, ge=0, le=65535)
    """0 takes a free one, which the log names."""
    model: str = Field(default_factory=default_model)
    """`nano`, a folder with weights or an adapter, or a hub name; for the scripted engine, its JSON file."""
    adapter: str | None = None
    """A folder with a LoRA adapter for the model."""
    engine: Literal["transformers", "openai", "vllm", "scripted"] = "transformers"
    """What runs the model: this process, a server elsewhere, vLLM in this process, or a script."""
    device: str | None = None
    """`cpu`, `cuda`, `cuda:1`. Unset: the first GPU where there is one."""
    policy: Path | None = None
    """The rules. Unset: `configs/policy.yaml`."""
    stop_file: Path = Path("outputs/stop.yaml")
    """The stop switch: while this file is there, no bag is cleared, on all lanes or on those that it names."""
    database_url: str = "sqlite:///outputs/audit.sqlite3"
    """The audit store, SQLite or PostgreSQL. An answer that cannot be written there is not given."""
    audit_key: Path | None = None
    """The key that seals the audit chain. Unset: beside the database; made at the first start."""
    audit_anchors: str | None = None
    """A file or an address that gets a copy of each signed checkpoint. Unset: a file beside the database."""
    retention_days: int = Field(default=365, ge=183)
    """How long records are kept; `xray-vqa audit retain` erases older ones. Six months are the least that is due."""
    image_store: str | None = None
    """A folder or an address that keeps the images, under the hash of their bytes. Unset: no image is kept."""
    image_retention_days: int = Field(default=30, ge=1)
    """How long images are kept; `xray-vqa audit retain` deletes older ones."""
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
    four_eyes: bool = False
    """Whether an alarm that an officer rejects waits for a second officer, of another key, before that counts."""
    profile: Literal["trial", "production"] = "trial"
    """`production` refuses to start where nobody would be asked who they are, or where answers come from a script."""
    trusted_proxies: str = ""
    """Addresses or networks of the proxies before this service, with commas between. Their `X-Forwarded-For` is
    believed; without them a service on loopback refuses whatever came through a proxy."""
    rate_limit_key: str = "1200/minute"
    """Requests of one key or person. More are refused with 429."""
    rate_limit_address: str = "300/minute"
    """Requests without valid credentials from one address, those for /health and /ready too."""
    rate_limit_url: str = "memory://"
    """Where requests are counted: this process, or `redis://...` for all replicas together."""
    oidc_issuer: str | None = None
    """The identity provider that signs people in, as its tokens name it. Unset: keys alone."""
    oidc_audience: str | None = None
    """What its tokens for this service have as `aud`."""
    oidc_jwks_url: str | None = None
    """Where its public keys are. Unset: as its discovery document says."""
    oidc_algorithms: tuple[SigningAlgorithm, ...] = ("RS256", "ES256")
    """The signatures that are accepted, as JSON: `["RS256"]`."""
    oidc_role_claim: str = "roles"
    """The claim that holds the roles; dots go deeper: `realm_access.roles`."""
    oidc_roles: dict[str, str] = {}
    """From the provider's names to ours, as JSON: `{"customs-shift-lead": "supervisor"}`. Empty: it uses ours."""
    oidc_lane_claim: str = "lanes"
    """The claim that binds a person to lanes. A token without it speaks for every lane."""

    @model_validator(mode="after")
    def _check_access(self) -> "ServeSettings":
        if self.oidc_issuer and not self.oidc_audience:
            raise ValueError("oidc_issuer needs oidc_audience, or tokens made for other services would be accepted")
        if not self.oidc_issuer and (self.oidc_audience or self.oidc_jwks_url):
            raise ValueError("oidc_audience and oidc_jwks_url need oidc_issuer, or nobody is signed in")
        if "*" in self.trusted_proxies:
            raise ValueError("trusted_proxies is a list of addresses; `*` would let anyone say where they come from")
        if self.profile == "production" and self.engine == "scripted":
            raise ValueError("the production profile does not serve readings from a script; name a model")
        return self

    @property
    def image_limits(self) -> ImageLimits:
        return ImageLimits(max_bytes=self.max_image_bytes, max_pixels=self.max_image_pixels)


Settings = TypeVar("Settings", bound=EngineSettings)


def load_settings(**overrides: Any) -> ServeSettings:
    """Return the settings of the environment; overrides that are not None win.

    Raises:
        ConfigError: A value does not fit, or a variable of the environment looks like a misspelt setting.
    """
    return _load(ServeSettings, overrides)


def load_engine_settings() -> EngineSettings:
    """Return what the environment tells the engines. Raises ConfigError as `load_settings` does."""
    return _load(EngineSettings, {})


def _load(kind: type[Settings], overrides: dict[str, Any]) -> Settings:
    _refuse_misspelt(os.environ)
    values = {name: value for name, value in overrides.items() if value is not None}
    plain = os.environ.get(PARALLEL_VARIABLE)
    if plain and PREFIX + PARALLEL_VARIABLE not in os.environ:
        values.setdefault(PARALLEL_VARIABLE.lower(), plain)
    try:
        return kind(**values)
    except ValidationError as error:
        if not error.errors()[0]["loc"]:  # several settings that do not go together
            raise ConfigError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error
        name = str(error.errors()[0]["loc"][0])
        origin = f"--{name.replace('_', '-')}" if overrides.get(name) is not None else PREFIX + name.upper()
        if name.upper() == PARALLEL_VARIABLE and plain:
            origin = f"{PARALLEL_VARIABLE}={plain}"
        raise ConfigError(f"{origin}: {error.errors()[0]['msg']}") from error
    except SettingsError as error:  # a list or a mapping in the environment that is no JSON
        raise ConfigError(f"{error}; such a setting is JSON") from error


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
