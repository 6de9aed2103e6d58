"""Defaults < YAML file < `key=value` on the command line, checked by one pydantic type for each stage."""

import difflib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from xray_vqa.core.jsonl import first_error
from xray_vqa.core.policy import Policy
from xray_vqa.core.records import Strict
from xray_vqa.errors import ConfigError

Config = TypeVar("Config", bound=Strict)


def load_config(kind: type[Config], path: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Return a stage's configuration from a YAML file and `key=value` words (dots reach into sections).

    Raises:
        ConfigError: The file is missing or no mapping, a key is unknown (the nearest known one is named), or a
            value does not fit its field.
    """
    values = _read_yaml(path) if path else {}
    for word in overrides:
        _apply(values, word)
    return _validated(kind, values, path)


def _validated(kind: type[Config], values: dict[str, Any], path: Path | None) -> Config:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        origin = f"{path}: " if path else ""
        raise ConfigError(f"{origin}{_explain(error, kind)}") from error


def find_config(name: str) -> Path:
    """Return the path of a file of `configs/`: the working directory's, else the one that came with the package.

    Raises:
        ConfigError: Neither has it.
    """
    package_dir = Path(__file__).resolve().parents[1]
    candidates = [Path("configs") / name, package_dir / "configs" / name, package_dir.parents[1] / "configs" / name]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ConfigError(f"no configuration {name}; looked at {', '.join(str(path) for path in candidates)}")


def load_policy(path: Path | None = None) -> Policy:
    """Return the policy in a file, by default `configs/policy.yaml`, laid over the one that its `extends` names.

    Sections are merged key by key; any other value takes the place of the base's.

    Raises:
        ConfigError: As for `load_config`; also where the base itself extends a file.
    """
    path = path or find_config("policy.yaml")
    values = _read_yaml(path)
    if base_name := values.pop("extends", None):
        base = _read_yaml(path.parent / str(base_name))
        if "extends" in base:
            raise ConfigError(f"{path}: extends {base_name}, which extends another file; one base is all there is")
        values = _laid_over(base, values)
    return _validated(Policy, values, path)


def _laid_over(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = _laid_over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such configuration file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a configuration is a mapping of keys to values, found {type(values).__name__}")
    return values


def _apply(values: dict[str, Any], word: str) -> None:
    key, separator, text = word.partition("=")
    if not separator or not key:
        raise ConfigError(f"{word!r} is no key=value; write for instance learning_rate=1e-4 or lora.r=16")
    *sections, last = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{word!r}: {section} is a value and has no keys inside")
        values = inner
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{word!r}: the value is not YAML: {error}") from error


def _explain(error: ValidationError, kind: type[BaseModel]) -> str:
    for detail in error.errors(include_url=False):
        if detail["type"] == "extra_forbidden":
            *sections, key = (str(part) for part in detail["loc"])
            known = _keys_of(kind, sections)
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known here: {', '.join(sorted(known))}"
            return f"unknown key {'.'.join([*sections, key])!r}{hint}"
    return first_error(error)


def _keys_of(kind: type[BaseModel], sections: Sequence[str]) -> list[str]:
    for section in sections:
        field = kind.model_fields.get(section)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        kind = inner
    return [field.alias or name for name, field in kind.model_fields.items()]


def require(package: str, *, extra: str) -> None:
    """Raise ConfigError with the pip command where an optional package is missing."""
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"this needs the package {package!r}; install it with: pip install -e '.[{extra}]'")


def read_key(given: str | None, variable: str) -> str:
    """Return the key, given or from the environment, without the line end that files bring; empty where there is none.

    Raises:
        ConfigError: It is the guide's `your_key_here`, or holds characters that no header can carry, as a pasted
            typographic dash is.
    """
    key = (given or os.environ.get(variable, "")).strip()
    if key == "your_key_here":
        raise ConfigError(
            f"{variable} is still the guide's placeholder; set it to your key, or PROVIDER=template to write pairs "
            "without one"
        )
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"{variable} holds characters that no key has; copy it once more")
    return key
