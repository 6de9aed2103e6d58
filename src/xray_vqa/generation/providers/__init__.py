"""Pair writers, and the one door to them. A provider's packages are imported when it is opened and not before."""

from collections.abc import Mapping

from xray_vqa.config.generate import ProviderSettings
from xray_vqa.config.llm import LlmSettings, load_llm_config
from xray_vqa.config.loading import require
from xray_vqa.errors import ConfigError
from xray_vqa.generation.prices import StatedPrice, find_price
from xray_vqa.generation.providers.batch_service import BatchService
from xray_vqa.generation.providers.provider import (
    Limits,
    Price,
    Provider,
    Reply,
    Request,
    Throttled,
    Unavailable,
    WordedPair,
    read_reply,
)

LLM_PROVIDERS = ("anthropic", "openai", "openai_compatible")

BATCH_PROVIDERS = ("anthropic", "openai")

PROVIDERS = ("template", *LLM_PROVIDERS, "scripted")

_KEYS = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY"}


def llm_settings(settings: ProviderSettings) -> LlmSettings:
    """Return how a language model is called: `configs/llm.yaml`, with what the run names instead.

    Raises:
        ConfigError: The provider is none of `LLM_PROVIDERS`, or the file is wrong.
    """
    if settings.provider not in LLM_PROVIDERS:
        raise ConfigError(
            f"the {settings.provider} provider has no models; those that have: {', '.join(LLM_PROVIDERS)}"
        )
    found: LlmSettings = getattr(load_llm_config(), settings.provider)
    named = {"model": settings.model, "base_url": settings.base_url, "timeout_s": settings.timeout_s}
    return found.model_copy(update={name: value for name, value in named.items() if value})


def open_provider(settings: ProviderSettings, *, in_batches: bool = False) -> Provider:
    """Return the provider that the settings name, for batches at their price or for single calls.

    Raises:
        ConfigError: There is no such provider, or its key, price or package is missing.
    """
    if in_batches and settings.provider not in BATCH_PROVIDERS:
        raise ConfigError(
            f"the {settings.provider} provider has no batches; those that have: {', '.join(BATCH_PROVIDERS)}; leave "
            "--batch out or choose one of these"
        )
    if settings.provider == "template":
        from xray_vqa.generation.providers.template import TemplateProvider

        return TemplateProvider(seed=settings.seed)
    if settings.provider == "scripted":
        from xray_vqa.generation.providers.scripted import ScriptedProvider

        if settings.script_path is None:
            raise ConfigError("the scripted provider needs --script FILE, a JSON list of steps")
        return ScriptedProvider.from_file(settings.script_path, seed=settings.seed)
    if settings.provider in LLM_PROVIDERS:
        return _open_llm(settings.provider, llm_settings(settings), settings.price, in_batches=in_batches)
    raise ConfigError(f"unknown provider {settings.provider!r}; there are {', '.join(PROVIDERS)}")


def _open_llm(name: str, settings: LlmSettings, stated: tuple[float, float] | None, *, in_batches: bool) -> Provider:
    if name == "openai_compatible":
        require("openai", extra="generate")
        from xray_vqa.generation.providers.openai_compatible import OpenAICompatibleProvider

        return OpenAICompatibleProvider(settings, price=None if stated is None else StatedPrice(*stated))
    require(name, extra="generate")
    price = find_price(name, settings.model, stated)
    if name == "anthropic":
        from xray_vqa.generation.providers.anthropic import AnthropicProvider

        return AnthropicProvider(settings, price=price, in_batches=in_batches)
    from xray_vqa.generation.providers.openai import OpenAIProvider

    return OpenAIProvider(settings, price=price, in_batches=in_batches)


def batches_of(provider: Provider) -> BatchService | None:
    """Return what sends a provider's requests by the batch; None for one that is called."""
    from xray_vqa.generation.providers.llm import LlmProvider

    return provider.batches() if isinstance(provider, LlmProvider) else None


def provider_from_environment(environment: Mapping[str, str]) -> str:
    """Return the provider's name from PROVIDER, else from the key that is set. Never falls back to another.

    Raises:
        ConfigError: Neither is set.
    """
    if chosen := environment.get("PROVIDER"):
        return chosen
    for name, key in _KEYS.items():
        if environment.get(key):
            return name
    raise ConfigError(
        f"no provider to write the pairs with: set PROVIDER=template for free pairs from templates (no key needed), or "
        f"{' or '.join(_KEYS.values())} for a language model"
    )


__all__ = [
    "BATCH_PROVIDERS",
    "LLM_PROVIDERS",
    "PROVIDERS",
    "Limits",
    "Price",
    "Provider",
    "Reply",
    "Request",
    "Throttled",
    "Unavailable",
    "WordedPair",
    "batches_of",
    "llm_settings",
    "open_provider",
    "provider_from_environment",
    "read_reply",
]
