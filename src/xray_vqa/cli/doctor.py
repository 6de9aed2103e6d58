"""Say what this machine has and what is missing."""

import argparse
import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

from xray_vqa.core.manifest import package_version
from xray_vqa.errors import XrayVqaError

EPILOG = """\
examples:
  xray-vqa doctor                      exit code 1 where something needs mending
"""

_EXTRAS = {
    "serve": ("fastapi", "uvicorn"),
    "generate": ("anthropic", "openai"),
    "openai": ("openai",),
    "vllm": ("vllm",),
}

ASKED_FOR_S = 10.0
"""Seconds that a service may take to list its models."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="nano", help="a model to look at (default: nano)")


def run(args: argparse.Namespace) -> int:
    faults: list[str] = []
    say("xray-vqa", package_version())
    say("Python", f"{platform.python_version()} on {platform.platform()}")
    for name in ("torch", "transformers", "peft", "accelerate", "numba"):
        say(name, version_of(name) or "missing")
        if version_of(name) is None:
            faults.append(f"{name} is missing; run `bash scripts/setup_venv.sh`")
    say_device()
    say("memory", f"{memory_gib():.0f} GiB, {os.cpu_count()} cores")
    say("disk", f"{shutil.disk_usage(Path.cwd()).free / 2**30:.0f} GiB free here")
    for extra, packages in _EXTRAS.items():
        missing = [name for name in packages if version_of(name) is None]
        say(f"extra {extra}", f"without {', '.join(missing)} (pip install -e '.[{extra}]')" if missing else "installed")
    for name, key in (("anthropic", "ANTHROPIC_API_KEY"), ("openai", "OPENAI_API_KEY")):
        if not os.environ.get(key):
            say(key, "not set")
            continue
        try:
            say(key, f"set; {describe_llm(name)}")
        except XrayVqaError as error:
            say(key, "set")
            faults.append(str(error))
    try:
        say_model(args.model)
    except XrayVqaError as error:
        faults.append(str(error))
    for fault in faults:
        print(f"to mend: {fault}")
    print("all well" if not faults else f"{len(faults)} to mend")
    return 1 if faults else 0


def say(what: str, found: str) -> None:
    print(f"{what:<20}{found}")


def version_of(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def describe_llm(name: str) -> str:
    """Ask a service about the model that `configs/llm.yaml` names, and return what it says.

    Raises:
        XrayVqaError: The service cannot be asked, or does not know the model.
    """
    from xray_vqa.config.llm import load_llm_config
    from xray_vqa.config.loading import require

    config = load_llm_config()
    require(name, extra="generate")
    if name == "anthropic":
        from xray_vqa.generation.providers import anthropic as service

        return service.describe_model(config.anthropic, timeout_s=ASKED_FOR_S)
    from xray_vqa.generation.providers import openai as service

    return service.describe_model(config.openai, timeout_s=ASKED_FOR_S)


def say_device() -> None:
    import torch

    from xray_vqa.modeling.precision import choose_precision

    if not torch.cuda.is_available():
        say("GPU", "none; nano runs on the CPU, a 7B needs one")
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        chosen = choose_precision("auto", (properties.major, properties.minor))
        memory_gib = properties.total_memory / 2**30
        say(f"GPU {index}", f"{properties.name}, {memory_gib:.0f} GiB, {chosen.name} ({chosen.reason})")


def memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def say_model(name: str) -> None:
    """Name a model, its digest, its figures, what it covers and whether it may clear bags.

    Raises:
        ModelUnavailable: There is no such model.
        IntegrityError: Its files are not the ones that its card names.
    """
    from xray_vqa.core.calibration import read_calibration
    from xray_vqa.modeling.loading import check_digests, digest_of, read_card, resolve_model_dir

    model_dir = resolve_model_dir(name)
    card, calibration, digest = read_card(model_dir), read_calibration(model_dir), digest_of(model_dir)
    say("model", f"{name} in {model_dir}, digest {digest[:12]}")
    check_digests(card, model_dir)
    say_figures(model_dir, digest)
    if card is None:
        say("", "no card: not trained by this project, covers no category yet")
        return
    say("", f"prompt version {card.prompt_version}, covers {len(card.covered_categories)} categories")
    for note in card.notes:
        say("", note)
    if calibration is None:
        say("", "no calibration: it can clear no bag")
    elif calibration.identity.model_digest != digest and not calibration.identity.adapter_digest:
        say("", f"its calibration is of other weights ({calibration.identity.model_digest[:12]}): it can clear no bag")
    else:
        say(
            "",
            f"calibrated on {calibration.measured_on} ({calibration.identity.engine}, {calibration.identity.dtype})",
        )
        if calibration.simulated:
            say("", "these may be simulated scans: it can clear no bag unless the policy is one for trials")


def say_figures(model_dir: Path, digest: str) -> None:
    from xray_vqa.core.figures import read_figures

    figures = read_figures(model_dir)
    if figures is None:
        say("", "no figures beside the weights: what it is worth was not measured (xray-vqa evaluate)")
    elif figures.model_digest != digest:
        say("", f"its figures are of other weights ({figures.model_digest[:12]}): measure again")
    else:
        say("", f"measured on {figures.measured_on}:")
        for name, figure in figures.values.items():
            say("", f"  {name} {figure}")
