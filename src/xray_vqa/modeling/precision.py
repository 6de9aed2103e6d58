"""Which number format a model runs in: chosen once, with its reason said aloud."""

from dataclasses import dataclass

from xray_vqa.errors import ConfigError

NAMES = ("fp32", "bf16", "fp16")


@dataclass(frozen=True, slots=True)
class Precision:
    name: str
    """One of `NAMES`."""
    reason: str


def choose_precision(wanted: str, capability: tuple[int, int] | None) -> Precision:
    """Return the format to use.

    Args:
        wanted: `auto` or one of `NAMES`.
        capability: Of the GPU, as torch tells it; None for a CPU.

    Raises:
        ConfigError: The name is unknown.
    """
    if wanted not in (*NAMES, "auto"):
        raise ConfigError(f"unknown precision {wanted!r}; there are auto, {', '.join(NAMES)}")
    if capability is None:
        if wanted in ("auto", "fp32"):
            return Precision("fp32", "no GPU; CPUs are exact and mostly faster in fp32")
        return Precision("fp32", f"{wanted} was asked for, but there is no GPU")
    if wanted in ("auto", "bf16") and capability < (8, 0):
        return Precision("fp16", f"compute capability {capability[0]}.{capability[1]} has no bf16 units")
    if wanted == "auto":
        return Precision("bf16", f"compute capability {capability[0]}.{capability[1]}")
    return Precision(wanted, "as configured")
