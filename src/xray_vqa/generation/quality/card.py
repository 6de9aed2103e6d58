"""The card of a pairs file: what is in it, who wrote it, from what, under which terms, and how it was checked."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from xray_vqa.core.manifest import MANIFEST_NAME, manifest_path, read_manifest
from xray_vqa.errors import DatasetError
from xray_vqa.generation.quality.report import Making, Quality
from xray_vqa.generation.source import Source

_HUB_LICENCES = {
    "apache-2.0": "apache-2.0", "cc by 4.0": "cc-by-4.0", "cc-by-4.0": "cc-by-4.0", "cc0-1.0": "cc0-1.0",
    "cc by-nc 4.0": "cc-by-nc-4.0", "cc-by-nc-4.0": "cc-by-nc-4.0", "cc-by-nc-sa-4.0": "cc-by-nc-sa-4.0", "mit": "mit",
}  # fmt: skip
"""Names that the Hugging Face hub knows; whatever else a record says becomes `other`."""

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def card_of(path: Path, source: Source, quality: Quality, making: Making | None, num_faults: int) -> str:
    """Return the card of a pairs file as Markdown with the YAML head of the Hugging Face hub."""
    written = any(name.startswith("llm") for name in quality.writers)
    licences = Counter(record.licence or "not stated" for record in source.records)
    sources = Counter(record.source or "not stated" for record in source.records)
    title = path.stem.replace("_", " ")
    lines = ["---", yaml.safe_dump(_head(path, source, quality, licences, title), sort_keys=False).strip(), "---", ""]
    lines += [
        f"# {title}",
        "",
        f"{quality.num_pairs:,} question-answer pairs about {quality.num_images:,} X-ray scans of bags, from the "
        f"{source.split} split of {source.root.resolve().name}. The answers follow from the annotations of the scans; "
        f"{_verdict(quality, num_faults)}",
        "",
        "## What is in it",
        "",
        *_table(
            ("question type", "pairs", "share"),
            [(name, f"{n:,}", f"{quality.type_shares[name]:.1%}") for name, n in quality.question_types.items()],
        ),
        "",
        *_table(("category in the bag", "pairs"), [(name, f"{n:,}") for name, n in quality.category_counts.items()]),
        "",
        *_table(("language", "pairs"), [(name, f"{n:,}") for name, n in quality.languages.items()]),
        "",
        "One pair a line: `image_path` (relative to the dataset), `question`, `answer` and `metadata`, where "
        "`short_answer` is what metrics compare and `evidence` names the annotated items that the answer rests on.",
        "",
        "## Who wrote it",
        "",
        *_table(("written by", "pairs"), [(name, f"{n:,}") for name, n in quality.writers.items()]),
        "",
        *_origin(path, making, quality),
        "",
        "## Source and licence of the scans",
        "",
        *_table(("licence", "scans"), [(_cell(name), f"{n:,}") for name, n in licences.most_common()]),
        "",
        *_table(
            ("source", "scans"),
            [(_cell(name), f"{n:,}") for name, n in sources.most_common()],
        ),
        "",
        f"The pairs are derived from these scans' annotations, so their terms bind the pairs as well. "
        f"`{MANIFEST_NAME}` of the dataset tells more. The split is {source.split}: pairs about test images "
        "are for measuring, never for training.",
        "",
        "## How it was checked",
        "",
        "Each answer of a closed type was derived from the annotations once more, from the question as it was worded.",
        "",
        *_table(
            ("figure", "found", "wanted", "verdict"),
            [
                (
                    _cell(gate.title), _cell(gate.found), gate.wanted,
                    {True: "passed", False: "**not passed**", None: "not judged"}[gate.passed],
                )
                for gate in quality.gates
            ],
        ),
        "",
        f"`{path.stem}_quality.html` shows the figures with sample pairs; `xray-vqa generate --output {path.name} "
        "--validate` makes them again.",
        "",
        "## Known limits",
        "",
        "- Pairs can be no better than the annotations: what nobody labelled becomes \"not there\".",
        "- Only the categories that the source labels are asked about: " + ", ".join(source.annotated) + ".",
        *([] if written else ["- Templates vary little: a model learns what to look for, and not how people speak."]),
        *(f"- {warning}." for warning in quality.warnings),
        "",
        "## Terms",
        "",
        *_terms(written=written),
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _head(path: Path, source: Source, quality: Quality, licences: Counter[str], title: str) -> dict[str, Any]:
    only = next(iter(licences)) if len(licences) == 1 else ""
    known = _HUB_LICENCES.get(only.lower())
    licence = {"license": known} if known else {"license": "other", "license_name": only or "several, see below"}
    return {
        "pretty_name": title,
        "language": sorted(quality.languages),
        **licence,
        "task_categories": ["visual-question-answering"],
        "annotations_creators": ["machine-generated"],
        "source_datasets": sorted({record.source or "not stated" for record in source.records}),
        "size_categories": [next((name for limit, name in _SIZES if quality.num_pairs < limit), "n>1M")],
        "tags": ["x-ray", "baggage-screening", "customs"],
        "configs": [{"config_name": "default", "data_files": [{"split": source.split, "path": path.name}]}],
    }


def _verdict(quality: Quality, num_faults: int) -> str:
    if num_faults:
        return f"{num_faults:,} faults were found in the file."
    judged = [gate for gate in quality.gates if gate.passed is not None]
    passed = sum(bool(gate.passed) for gate in judged)
    return f"{passed} of {len(judged)} quality gates are passed."


def _origin(path: Path, making: Making | None, quality: Quality) -> list[str]:
    facts: list[tuple[str, str]] = []
    if making:
        tokens = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in making.num_tokens.items())
        facts += [
            ("provider", making.provider),
            ("model", making.model),
            ("prompt version", making.prompt_version),
            ("plan version", making.plan_version),
            ("seed", "" if making.seed is None else str(making.seed)),
            ("tokens", tokens or "none"),
            ("cost", f"${making.cost_usd:,.4f}" if making.cost_usd else "nothing"),
            ("rejected pairs", f"{making.num_rejected:,}"),
            ("refusals", f"{sum(making.refusals.values()):,} (counted once for each category in the bag)"),
        ]
        if making.lost_usd:
            facts.append(("calls without a reply", f"up to ${making.lost_usd:,.4f} more"))
    if manifest_path(path).is_file():
        try:
            manifest = read_manifest(path)
            facts.append(("made by", f"xray-vqa {manifest.version}, {manifest.created}"))
        except DatasetError:
            facts.append(("manifest", "cannot be read"))
    return _table(("", ""), [(name, _cell(text)) for name, text in facts if text]) or [
        "Nothing is known of its making."
    ]


def _terms(*, written: bool) -> list[str]:
    if not written:
        return [
            "No pair was worded by a vendor's model, so no vendor's terms bind the texts. Those of the scans' source "
            "do."
        ]
    return [
        "Some pairs were worded by a language model (see above). Its vendor's or its weights' terms say what outputs "
        "may be used for; some forbid training models that compete with theirs, or ask for the origin to be named. "
        "Read the terms in force for that model and account before training or publishing; this card grants nothing.",
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)] if rows else []


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
