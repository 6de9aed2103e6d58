"""Pairs as chat messages, one JSON object a line: what chat templates and most trainers of today take."""

from pathlib import Path

from xray_vqa.core.jsonl import write_jsonl
from xray_vqa.dataset.exporters.exporter import ExportReport, read_pairs, write_pairs_manifest


class MessagesExporter:
    """Writes one JSONL file. Image paths stay relative to the dataset root, which the manifest beside it names."""

    name = "messages"
    description = "JSONL of chat messages, one question with its image and one answer a line"
    takes = "pairs"

    def write(self, source: Path, target: Path) -> ExportReport:
        pairs, faults = read_pairs(source)
        write_jsonl(
            target,
            (
                {
                    "messages": [
                        {
                            "role": "user",
                            "content": [
                                {"type": "image", "image": pair.image_path},
                                {"type": "text", "text": pair.question},
                            ],
                        },
                        {"role": "assistant", "content": [{"type": "text", "text": pair.answer}]},
                    ]
                }
                for pair in pairs
            ),
        )
        write_pairs_manifest(target, source, len(pairs))
        return ExportReport([target], {"pairs": len(pairs)}, faults)


EXPORTER = MessagesExporter()
