"""Pairs as LLaVA's training JSON: a list of {id, image, conversations}, one question and answer each."""

from pathlib import Path

from xray_vqa.core.jsonl import write_json
from xray_vqa.dataset.exporters.exporter import ExportReport, read_pairs, write_pairs_manifest


class LlavaExporter:
    """Writes one JSON file. `image` stays relative to the dataset root, which the manifest beside the file names."""

    name = "llava"
    description = "LLaVA JSON, a conversation of one question and answer for each pair"
    takes = "pairs"

    def write(self, source: Path, target: Path) -> ExportReport:
        pairs, faults = read_pairs(source)
        entries = [
            {
                "id": f"{pair.metadata.image_id}-{number}",
                "image": pair.image_path,
                "conversations": [
                    {"from": "human", "value": f"<image>\n{pair.question}"},
                    {"from": "gpt", "value": pair.answer},
                ],
            }
            for number, pair in enumerate(pairs)
        ]
        write_json(target, entries)
        write_pairs_manifest(target, source, len(pairs))
        return ExportReport([target], {"pairs": len(pairs)}, faults)


EXPORTER = LlavaExporter()
