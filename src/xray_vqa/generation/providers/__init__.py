"""Pair writers, and the one door to them. A provider's packages are imported when it is opened and not before."""

from collections.abc import Mapping

from xray_vqa.config.generate import ProviderSettings
from xray_vqa.errors import ConfigError
from xray_vqa.generation.providers.provider import (
    Provider,
    Reply,
    Request,
    Throttled,
    Unavailable,
    WordedPair,
    read_reply,
)

PROVIDERS = ("template", "scripted")

_KEYS = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY"}


def open_provider(settings: ProviderSettings) -> Provider:
    """Return the provider that the settings name. Raises ConfigError where this version has no such one."""
    if settings.provider == "template":
        from xray_vqa.generation.providers.template import TemplateProvider

        return TemplateProvider(seed=settings.seed)
    if settings.provider == "scripted":
        from xray_vqa.generation.providers.scripted import ScriptedProvider

        if settings.script_path is None:
            raise ConfigError("the scripted provider needs --script FILE, a JSON list of steps")
        return ScriptedProvider.from_file(settings.script_path, seed=settings.seed)
    if settings.provider in _KEYS:
        raise ConfigError(
            f"the {settings.provider} provider is not part of this version yet, which writes pairs from templates "
            "only; set PROVIDER=template (free, offline, no key needed)"
        )
    raise ConfigError(f"unknown provider {settings.provider!r}; this version has {', '.join(PROVIDERS)}")


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
    "PROVIDERS",
    "Provider",
    "Reply",
    "Request",
    "Throttled",
    "Unavailable",
    "WordedPair",
    "open_provider",
    "provider_from_environment",
    "read_reply",
]
