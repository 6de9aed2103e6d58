"""Write question-answer pairs about scans: `xray-vqa generate`."""

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from xray_vqa.cli.arguments import positive_count

if TYPE_CHECKING:
    from xray_vqa.config.generate import GenerateConfig, ProviderSettings
    from xray_vqa.generation.providers import Provider

logger = logging.getLogger(__name__)

EPILOG = """\
examples:
  PROVIDER=template xray-vqa generate                                   three pairs a scan of data/stcray/train, free
  xray-vqa generate --provider template --annotations data/synth/test/annotations.json --output data/synth_val.jsonl
  xray-vqa generate --provider template --max-images 100 --output data/trial.jsonl
  xray-vqa generate --provider anthropic --dry-run                      what would be asked, and what it would cost
  xray-vqa generate --provider anthropic --max-images 100 --max-cost 5  and never a cent more than five dollars
  xray-vqa generate --provider openai_compatible --base-url http://localhost:8000/v1 --model Qwen/Qwen2.5-VL-7B-Instruct
  xray-vqa generate --provider anthropic --batch                        the same at half the price, within a day
  xray-vqa generate --provider anthropic --shard 2/8                    one of eight machines; then --merge on one
  xray-vqa generate --provider anthropic --engine ray --parts 32        all over a Ray cluster, merged at its end
  xray-vqa generate --output data/trial.jsonl --validate                every pair against the annotations

Without --provider it is the one that PROVIDER names, else the one whose key is set (ANTHROPIC_API_KEY,
OPENAI_API_KEY). Stopped at any moment, the same command goes on from <output>_checkpoint.jsonl and ends with the same
bytes. Beside the output stand its _stats.json, its _quality.html, its _card.md, its manifest and, where images failed,
_failed.json; exit code 1 then, and the same command tries these again. --validate writes page and card anew; exit code
1 where lines are wrong, 4 where a gate of configs/pair_quality.yaml is not passed.
"""

_TRAIN = Path("data/stcray/train/annotations.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `xray-vqa generate`."""
    parser.add_argument(
        "--annotations", type=Path, metavar="FILE", help=f"scans to ask about (default {_TRAIN}; its split is named so)"
    )
    parser.add_argument(
        "--images-dir",
        type=Path,
        metavar="DIR",
        help="folder with the images (default: images/ beside the annotations)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("data/stcray_vqa_train.jsonl"),
        metavar="FILE",
        help="pairs file (default %(default)s)",
    )
    parser.add_argument(
        "--provider",
        metavar="NAME",
        help="anthropic, openai, openai_compatible or template (default: from PROVIDER or the key that is set)",
    )
    parser.add_argument("--model", default="", metavar="NAME", help="the provider's model (default: configs/llm.yaml)")
    parser.add_argument("--base-url", default="", metavar="URL", help="a server that speaks the provider's API")
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="longest wait for one reply (default: configs/llm.yaml)"
    )
    parser.add_argument(
        "--fallback",
        action="append",
        metavar="NAME[:MODEL]",
        help="who words what the provider refuses, in turn; may be given again (default: template behind a language "
        "model; none: such questions are left out)",
    )
    parser.add_argument(
        "--max-cost",
        type=float,
        metavar="USD",
        help="never spend more than this on the output, over all runs; with --shard each part has a cap of its own",
    )
    parser.add_argument(
        "--price",
        type=_price,
        metavar="IN,OUT",
        help="dollars a million tokens, where the table of genai-prices does not know the model",
    )
    parser.add_argument("--script", type=Path, metavar="FILE", help="steps of the scripted provider (for rehearsals)")
    parser.add_argument(
        "--samples-per-image", type=int, default=3, metavar="N", help="pairs a scan, 1 to 12 (default %(default)s)"
    )
    parser.add_argument("--max-images", type=int, metavar="N", help="only so many scans, mixed over the whole file")
    parser.add_argument(
        "--rate-limit-delay",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="least time between two calls of a paid provider (default %(default)s; 0: as fast as it allows)",
    )
    parser.add_argument(
        "--shard",
        default="",
        metavar="I/N",
        help="write only part I of N, beside the others' as <output>_shardIofN.jsonl: for several machines",
    )
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: parts written all over a Ray cluster (RAY_ADDRESS; else on this machine) and merged; its machines "
        "see one folder",
    )
    parser.add_argument(
        "--parts",
        type=positive_count,
        default=8,
        metavar="N",
        help="for --engine ray: how many parts (default %(default)s)",
    )
    parser.add_argument(
        "--batch",
        nargs="?",
        const="run",
        choices=("run", "submit", "status", "collect"),
        metavar="submit|status|collect",
        help="ask by the batch, at half the price and with replies within a day (anthropic, openai): without a word "
        "all until the end, else one step of it",
    )
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="most requests in one batch (default: as many as the service takes)"
    )
    parser.add_argument(
        "--forget-batches",
        action="store_true",
        help="for --batch: give up batches that cannot be found with this key; their requests are asked and paid for "
        "anew, and what they may have cost stays booked",
    )
    parser.add_argument("--merge", action="store_true", help="make --output from all its shards, without any call")
    parser.add_argument("--policy", type=Path, metavar="FILE", help="rules behind risk questions (configs/policy.yaml)")
    parser.add_argument("--seed", type=int, default=0, help="questions and wording follow it (default %(default)s)")
    parser.add_argument(
        "--language",
        default="en",
        metavar="CODES",
        help="en, zh, ar, es, fr or ru; of several, such as en,zh, each image gets one (default %(default)s)",
    )
    parser.add_argument("--yes", action="store_true", help="agree to the estimated cost without being asked")
    parser.add_argument("--dry-run", action="store_true", help="show counts and estimated cost, and write nothing")
    parser.add_argument("--validate", action="store_true", help="check an existing --output and print its quality")
    parser.add_argument(
        "--gates", type=Path, metavar="FILE", help="what a set has to reach (configs/pair_quality.yaml)"
    )
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")


def run(args: argparse.Namespace) -> int:
    """Write pairs, or check those that are there; 1 where images failed or lines are wrong, 4 where a gate is."""
    if args.validate:
        return _validate(args)
    config = _config(args)
    from xray_vqa.generation.providers import BATCH_PROVIDERS, open_provider

    provider = open_provider(config.provider, in_batches=bool(args.batch))
    fallbacks = [
        open_provider(settings, in_batches=bool(args.batch) and settings.provider in BATCH_PROVIDERS)
        for settings in config.fallbacks
    ]
    if args.batch == "status":
        return _batch_status(config, [provider, *fallbacks], as_json=args.json)
    if not provider.paid:
        _say_what_is_ignored(args, provider)
    if args.dry_run:
        return _dry_run(config, provider, as_json=args.json)
    if not args.merge and args.batch != "collect":
        _agree_on_cost(config, provider, agreed=args.yes)
    from xray_vqa.generation.batches import BatchesOpen
    from xray_vqa.generation.quality import describe
    from xray_vqa.generation.run import generate

    in_parts = args.merge or args.engine == "ray"
    if args.engine == "ray":
        from xray_vqa.generation.on_ray import write_parts

        write_parts(config, args.parts)
    if in_parts:
        from xray_vqa.generation.shards import merge_journals

        merge_journals(config.output_path)
    try:
        with _stoppable() as stop:
            outcome = generate(config, provider, stop, fallbacks=fallbacks, may_ask=not in_parts, batch=args.batch)
    except BatchesOpen as state:
        if args.batch != "submit":
            raise
        print(state)
        return 0
    if args.json:
        print(outcome.quality.model_dump_json(indent=1))
    else:
        kept = f", {outcome.num_kept} images from the checkpoint" if outcome.num_kept else ""
        print(f"{outcome.output_path}: {outcome.split} split, written by {outcome.model}{kept}")
        print(describe(outcome.quality))
        if set(outcome.quality.languages) - {"en"}:
            print("languages          " + ", ".join(f"{name} {num}" for name, num in outcome.quality.languages.items()))
        if outcome.num_silent:
            print(f"without questions  {outcome.num_silent} images, about which the annotations say too little")
        if outcome.num_rejected:
            print(f"rejected           {outcome.num_rejected} pairs that do not agree with the annotations")
        if outcome.refused:
            told = ", ".join(f"{name} {count}" for name, count in outcome.refused.items())
            print(f"refused            {told}")
        if outcome.disputed:
            print(
                f"disputed           {len(outcome.disputed)} images show something else than their annotations say, to "
                f"a writer; they are in {outcome.output_path.stem}_stats.json"
            )
        if provider.paid:
            print(f"cost               ${outcome.cost_usd:.4f}")
        if outcome.num_lost:
            print(
                f"without a reply    {outcome.num_lost} calls, which may have cost up to ${outcome.lost_usd:.4f} more"
            )
    if outcome.failed:
        first = next(iter(outcome.failed.items()))
        print(
            f"error: {len(outcome.failed)} of {outcome.num_images} images failed, first {first[0]}: {first[1]}; "
            f"all are in {outcome.output_path.stem}_failed.json; the same command tries again",
            file=sys.stderr,
        )
        return 1
    return 0


def _config(args: argparse.Namespace) -> "GenerateConfig":
    from pydantic import ValidationError

    from xray_vqa.config.generate import GenerateConfig, ProviderSettings
    from xray_vqa.core.jsonl import first_error
    from xray_vqa.errors import ConfigError
    from xray_vqa.generation.providers import provider_from_environment

    annotations = args.annotations or _TRAIN
    _check_images_dir(annotations, args.images_dir)
    name = args.provider or provider_from_environment(os.environ)
    try:
        return GenerateConfig(
            annotations_path=annotations,
            output_path=_output(args),
            provider=ProviderSettings(
                provider=name,
                model=args.model,
                base_url=args.base_url,
                timeout_s=args.timeout,
                price=args.price,
                script_path=args.script,
                seed=args.seed,
            ),
            fallbacks=_fallbacks(args, name),
            max_cost_usd=args.max_cost,
            policy_path=args.policy,
            gates_path=args.gates,
            samples_per_image=args.samples_per_image,
            max_images=args.max_images,
            shard=args.shard,
            batch_requests=args.batch_size,
            forget_batches=args.forget_batches,
            rate_limit_delay_s=args.rate_limit_delay,
            seed=args.seed,
            languages=tuple(args.language.split(",")),
        )
    except ValidationError as error:
        raise ConfigError(first_error(error)) from error


def _output(args: argparse.Namespace) -> Path:
    from xray_vqa.errors import ConfigError
    from xray_vqa.generation.shards import Shard

    if args.batch and args.merge:
        raise ConfigError("--merge makes no calls and --batch makes them; give one of them")
    if args.forget_batches and not args.batch:
        raise ConfigError("--forget-batches belongs to --batch: only that looks for batches")
    if args.batch and args.engine == "ray":
        raise ConfigError("--engine ray makes single calls; give --batch with --shard on each machine instead")
    if not args.shard:
        return args.output
    if args.merge or args.engine == "ray":
        raise ConfigError("--shard writes a part, --merge and --engine ray make the whole of parts; give one of them")
    try:
        return Shard.parse(args.shard).path_for(args.output)
    except ValueError as error:
        raise ConfigError(f"--shard {args.shard}: {error}") from error


def _fallbacks(args: argparse.Namespace, provider: str) -> "list[ProviderSettings]":
    from xray_vqa.config.generate import ProviderSettings
    from xray_vqa.generation.providers import LLM_PROVIDERS

    wanted = args.fallback or (["template"] if provider in LLM_PROVIDERS else [])
    named = [name.partition(":") for name in wanted if name != "none"]
    return [
        ProviderSettings(provider=name, model=model, script_path=args.script, seed=args.seed)
        for name, _, model in named
    ]


def _price(text: str) -> tuple[float, float]:
    try:
        taken, given = (float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not IN,OUT such as 1,5") from error
    return taken, given


def _check_images_dir(annotations: Path, images_dir: Path | None) -> None:
    from xray_vqa.errors import ConfigError

    expected = annotations.parent / "images"
    if images_dir is not None and images_dir.resolve() != expected.resolve():
        raise ConfigError(
            f"--images-dir {images_dir}: the images of {annotations} are in {expected}, and pairs name them relative "
            "to the dataset; leave the option out, or import the scans with `xray-vqa data import`"
        )


def _say_what_is_ignored(args: argparse.Namespace, provider: "Provider") -> None:
    if args.model:
        logger.warning("--model %s is ignored: the %s provider has no models", args.model, provider.name)
    if args.rate_limit_delay != 1.0:
        logger.warning("--rate-limit-delay is ignored: the %s provider costs nothing and needs no pause", provider.name)


def _estimate(config: "GenerateConfig", provider: "Provider") -> "tuple[float, dict[str, int], int]":
    from xray_vqa.config.loading import load_policy
    from xray_vqa.generation.plan import count_slots
    from xray_vqa.generation.source import make_plan, open_source

    source = open_source(config.annotations_path)
    plan = make_plan(config, source, load_policy(config.policy_path))
    requests = [source.request(image) for image in plan if image.slots]
    return provider.estimate_usd(requests), count_slots(plan), len(plan)


def _dry_run(config: "GenerateConfig", provider: "Provider", *, as_json: bool) -> int:
    cost_usd, counts, num_images = _estimate(config, provider)
    num_pairs = sum(counts.values())
    if as_json:
        shown = {"config": json.loads(config.model_dump_json()), "images": num_images, "pairs": num_pairs}
        print(json.dumps({**shown, "question_types": counts, "estimated_cost_usd": cost_usd}, indent=1))
        return 0
    print(f"{config.output_path} from {config.annotations_path} by {provider.model}, seed {config.seed}; not written")
    print(f"pairs              {num_pairs} about {num_images} images")
    print("types              " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    print(f"estimated cost     ${cost_usd:.2f}")
    return 0


def _batch_status(config: "GenerateConfig", providers: "list[Provider]", *, as_json: bool) -> int:
    from xray_vqa.generation.batches import status_of

    states = status_of(config.output_path, providers)
    if as_json:
        print(json.dumps(states, indent=1))
        return 0
    print(f"{config.output_path}: {len(states)} open batches")
    for state in states:
        told = f"{state['batch']}  {state['provider']} {state['model']}: {state['state']}"
        print(f"{told}; {state['waiting_requests']} to fetch, ${state['most_usd']:.4f} at most")
    return 0


def _agree_on_cost(config: "GenerateConfig", provider: "Provider", *, agreed: bool) -> None:
    """Ask before money is spent. Raises ConfigError where nobody agrees."""
    from xray_vqa.errors import ConfigError

    if not provider.paid or agreed:
        return
    cost_usd, counts, num_images = _estimate(config, provider)
    question = f"{sum(counts.values())} pairs about {num_images} images by {provider.model} cost about ${cost_usd:.2f}"
    if not sys.stdin.isatty():
        raise ConfigError(f"{question}; add --yes to agree where nobody can be asked")
    if input(f"{question}. Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ConfigError("not agreed; nothing was spent and nothing written")


@contextmanager
def _stoppable() -> Generator[threading.Event]:
    """Let the first SIGINT or SIGTERM end the run in good order, and the second one at once."""
    stop = threading.Event()

    def ask_to_stop(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        # Not by a logger, whose stream may just be written to by what this interrupts.
        os.write(2, b"\nending when what is under way is here; once more ends at once\n")

    before = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _validate(args: argparse.Namespace) -> int:
    from xray_vqa.config.loading import load_policy
    from xray_vqa.config.quality import load_gates
    from xray_vqa.errors import DatasetError
    from xray_vqa.generation.quality import describe
    from xray_vqa.generation.quality.checking import check_and_measure, write_pages
    from xray_vqa.generation.source import open_source

    gates = load_gates(args.gates)
    source = open_source(args.annotations or _annotations_of(args.output))
    checked = check_and_measure(args.output, source, load_policy(args.policy), gates)
    quality, faults = checked.quality, checked.faults
    if not quality.num_pairs and not faults:
        raise DatasetError(f"{args.output}: no pairs in it")
    try:
        written = write_pages(args.output, source, checked)
    except OSError as error:
        logger.warning("%s: no page and card are written: %s", args.output, error.strerror)
        written = []
    if args.json:
        report = {"faults": [str(fault) for fault in faults], "quality": quality.model_dump(mode="json")}
        print(json.dumps(report, ensure_ascii=False, indent=1))
    else:
        print(f"{args.output}: {len(faults)} faults, checked against {source.root}/{source.split}/annotations.json")
        print(describe(quality))
        for path in written:
            print(f"written            {path}")
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        return 1
    return 4 if quality.warnings else 0


def _annotations_of(output: Path) -> Path:
    """Return the annotation file that a pairs file's manifest leads to, else the default one."""
    from xray_vqa.core.manifest import manifest_path, read_manifest

    if not manifest_path(output).is_file():
        logger.warning("%s has no manifest (unfinished?); checking it against %s", output, _TRAIN)
        return _TRAIN
    manifest = read_manifest(output)
    root = os.path.normpath(output.parent / (manifest.dataset_root or "."))
    return Path(root) / (manifest.split or "train") / "annotations.json"
