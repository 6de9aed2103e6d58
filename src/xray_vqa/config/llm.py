"""Which language models word pairs where none is named, and how they are called: `configs/llm.yaml`."""

from pydantic import Field

from xray_vqa.config.loading import find_config, load_config
from xray_vqa.core.records import Strict


class LlmSettings(Strict):
    """How one service is called."""

    model: str
    """Asked for by this name; `xray-vqa doctor` says whether the service knows it."""
    base_url: str = ""
    """Of the service; empty: the vendor's own, or the one that its SDK's variable names (ANTHROPIC_BASE_URL,
    OPENAI_BASE_URL)."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Longest wait for one reply."""
    max_output_tokens: int = Field(default=4096, ge=256, le=16384)
    """Cap of what one reply can cost, thinking included. Above 21,000 the Anthropic SDK insists on streaming."""
    effort: str = "low"
    """How much the model may think before it writes; empty for one that cannot be told."""
    concurrency: int = Field(default=64, ge=1, le=512)
    """Requests at once, before the pace adapts."""


class LlmConfig(Strict):
    """One entry for each provider that has models."""

    anthropic: LlmSettings
    openai: LlmSettings
    openai_compatible: LlmSettings


def load_llm_config() -> LlmConfig:
    """Return the settings in `configs/llm.yaml`. Raises ConfigError."""
    return load_config(LlmConfig, find_config("llm.yaml"))
