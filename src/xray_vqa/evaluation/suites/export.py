"""Our questions for the tools of others: a task folder for lmms-eval, a TSV for VLMEvalKit.

lmms-eval reads a YAML that names a data set, and functions in a Python file beside it; here the data set is a JSON
Lines file in the folder with the paths of copied images. VLMEvalKit reads one TSV with images in base64. Both then ask
the same questions as `xray-vqa evaluate`. Formats: lmms-eval's docs/task_guide.md (checked with the loader of 0.7.3),
VLMEvalKit's docs/en/Development.md (checked with the loader of ms-vlmeval 0.0.20, which is its code).
"""

import base64
import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from xray_vqa.core.jsonl import read_jsonl, replacing, replacing_folder, write_jsonl
from xray_vqa.core.manifest import make_manifest, sha256_file, write_manifest
from xray_vqa.core.records import VQAPair
from xray_vqa.errors import ConfigError, DatasetError
from xray_vqa.evaluation.suites.letters import options_of
from xray_vqa.evaluation.testset import dataset_of

_NO_VALUE = frozenset({"None", "NA", "N/A", "n/a", "NULL", "null", "NaN", "nan"})
"""Answers that pandas, which reads the TSV, would take for a missing value."""

ToolFormat = Literal["lmms-eval", "vlmevalkit"]
FORMATS: tuple[ToolFormat, ...] = ("lmms-eval", "vlmevalkit")

_TASK = """\
# Written by xray-vqa. Run: python -m lmms_eval --include_path THIS_FOLDER --tasks {name} --model ... --batch_size 1
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_visual: !function {module}.doc_to_visual
doc_to_text: !function {module}.doc_to_text
doc_to_target: short_answer
generation_kwargs:
  max_new_tokens: 64
  temperature: 0
  do_sample: false
process_results: !function {module}.process_results
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
  - metric: unparsable
    aggregation: mean
    higher_is_better: false
metadata:
  - version: 1.0
"""

_FUNCTIONS = '''\
"""Functions of the lmms-eval task {name}; written by xray-vqa and in need of nothing but Pillow."""

import re
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).resolve().parent


def doc_to_visual(doc):
    return [Image.open(IMAGES / doc["image"]).convert("RGB")]


def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]


def plain(text):
    words = re.findall(r"[^\\W_]+", text.casefold())
    if len(words) > 1:  # a single "A" is the letter of an option
        words = [word for word in words if word not in ("a", "an", "the")]
    return " ".join(words)


def process_results(doc, results):
    """Equal to the short or the full reference, or beginning with the yes or no that is asked for."""
    said = plain(results[0])
    wanted = plain(doc["short_answer"])
    right = bool(said) and said in (wanted, plain(doc["answer"]))
    if wanted in ("yes", "no"):
        right = said.split(" ")[0] == wanted
    # What says neither yes nor no is wrong, and counted beside it; nothing is left out.
    unparsable = not said or (wanted in ("yes", "no") and said.split(" ")[0] not in ("yes", "no"))
    return {{"exact_match": float(right), "unparsable": float(unparsable)}}
'''


def export_tasks(pairs_path: Path, output: Path, tool: ToolFormat, name: str) -> dict[str, int]:
    """Write the questions of a pairs file for another tool and return how many of what.

    Args:
        pairs_path: Pairs with a manifest that names their dataset.
        output: The task's folder for lmms-eval, which must not hold anything; the TSV for VLMEvalKit.
        tool: Whose format.
        name: Of the task.

    Raises:
        DatasetError: Pairs or images are missing or broken.
        ConfigError: The name or the output cannot be used.
    """
    if not name.isidentifier():
        raise ConfigError(f"--name {name!r}: letters, digits and _ only; it becomes the name of a Python file too")
    root, split = dataset_of(pairs_path)
    pairs, faults = read_jsonl(pairs_path, VQAPair)
    if faults or not pairs:
        raise DatasetError(f"{pairs_path}: {f'broken: {faults[0]}' if faults else 'no pairs in it'}")
    missing = [pair.image_path for pair in pairs if not (root / pair.image_path).is_file()]
    if missing:
        raise DatasetError(f"{root}: {len(missing)} images of {pairs_path} are not there, first {missing[0]}")
    counts = {"questions": len(pairs), "images": len({pair.image_path for pair in pairs})}
    if tool == "lmms-eval":
        _write_lmms_eval(pairs, root, output, name)
    else:
        _write_tsv(pairs, root, output)
    made = make_manifest("export", inputs={str(pairs_path): sha256_file(pairs_path)}, counts=counts, split=split)
    write_manifest(output, made)
    return counts


def _write_lmms_eval(pairs: Sequence[VQAPair], root: Path, output: Path, name: str) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"{output} holds something already; choose another --output")
    module = f"{name}_functions"
    with replacing_folder(output) as folder:
        write_jsonl(folder / f"{name}.jsonl", (_row(number, pair) for number, pair in enumerate(pairs)))
        for path in dict.fromkeys(pair.image_path for pair in pairs):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / path, folder / path)
        task = _TASK.format(name=name, module=module, data=f"{name}.jsonl")
        (folder / f"{name}.yaml").write_text(task, encoding="utf-8")
        (folder / f"{module}.py").write_text(_FUNCTIONS.format(name=name), encoding="utf-8")


def _row(number: int, pair: VQAPair) -> dict[str, str | int]:
    return {
        "index": number,
        "image": pair.image_path,
        "question": pair.question,
        "answer": pair.answer,
        "short_answer": pair.metadata.short_answer or pair.answer,
        "category": pair.metadata.question_type,
    }


def _write_tsv(pairs: Sequence[VQAPair], root: Path, output: Path) -> None:
    """One line a question. A repeated image is the index of the line that has it, as VLMEvalKit's own files do.

    Options have columns only where all questions have some: VLMEvalKit takes a file with columns A and B for multiple
    choice, every line of it. Elsewhere they stay in the question's text.
    """
    if output.suffix != ".tsv":
        raise ConfigError(f"output {output}: VLMEvalKit reads a .tsv file")
    lettered = [options_of(pair.question) for pair in pairs]
    if not all(lettered):
        lettered = [{} for _ in pairs]
    letters = sorted({letter for options in lettered for letter in options})
    columns = ["index", "image", "question", *letters, "answer", "category", "split"]
    first_with: dict[str, int] = {}
    with replacing(output) as stream:
        line = io.StringIO()
        writer = csv.DictWriter(line, columns, delimiter="\t", lineterminator="\n", restval="")
        writer.writeheader()
        for number, (pair, options) in enumerate(zip(pairs, lettered, strict=True)):
            first = first_with.setdefault(pair.image_path, number)
            image = str(first) if first < number else base64.b64encode((root / pair.image_path).read_bytes()).decode()
            writer.writerow(_tsv_row(number, pair, image, options))
            stream.write(line.getvalue().encode())
            line.seek(0)
            line.truncate()


def _tsv_row(number: int, pair: VQAPair, image: str, options: Mapping[str, str]) -> dict[str, str | int]:
    answer = pair.metadata.short_answer or pair.answer
    return {
        "index": number, "image": image, "question": pair.question.split("\n")[0] if options else pair.question,
        **options, "answer": f"{answer}." if answer in _NO_VALUE else answer, "category": pair.metadata.question_type,
        "split": "test",
    }  # fmt: skip
