"""What engines share that ask for one answer at a time: of a server elsewhere, or of vLLM in this process.

The prompts are those of the prompt tree, each branch as a request of its own behind the image. The first request of an
image is waited for, so that the others find the image's tokens in the prefix cache. Whatever does not come in time,
or comes as nonsense, raises; nothing is guessed, and no answer is kept for another scan.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xray_vqa.config.serve import EngineSettings
from xray_vqa.core import prompts
from xray_vqa.core.calibration import EngineIdentity, read_calibration
from xray_vqa.core.geometry import Box
from xray_vqa.core.inspection import UNSURE, Score
from xray_vqa.core.prompts import PROMPT_VERSION
from xray_vqa.errors import AnswerUnreadable, ModelUnavailable
from xray_vqa.inference.engine import Answer, EngineInfo, Reading, boxes_of, flags, probe_by_reading, score_of
from xray_vqa.modeling.chat import PromptEncoder
from xray_vqa.modeling.loading import (
    ADAPTER_NAME,
    check_card,
    check_digests,
    digest_of,
    outline_model,
    read_card,
    resolve_model_dir,
)
from xray_vqa.modeling.precision import Precision
from xray_vqa.modeling.processor import PROCESSOR_NAME, Processor, read_processor
from xray_vqa.modeling.registry import ModelSpec

Result = TypeVar("Result")
Seen = TypeVar("Seen")
"""What an engine holds of one scan between its requests."""

SCANS_AT_ONCE = 64
"""Of one call; the others wait. Pictures of more would crowd each other out of a server's caches."""
NUM_DIGITS = prompts.DIGITS_PER_NUMBER * prompts.NUMBERS_PER_BOX


@dataclass(frozen=True, slots=True)
class Outline:
    """All that is needed of a model beside its weights."""

    encoder: PromptEncoder
    processor: Processor
    spec: ModelSpec
    name: str
    precision: Precision
    """What this machine would calculate in."""
    covered_categories: tuple[str, ...]
    weights_dir: Path
    """Where calibration and card stand."""
    model_digest: str
    """Of the weights in the folder; empty where it has none."""
    adapter_digest: str


def read_outline(model: str, adapter: str | None = None, *, weights: bool) -> Outline:
    """Return what the folder of a model says, without loading weights.

    Args:
        model: A folder or a hub name.
        adapter: A folder with an adapter for it.
        weights: Whether a hub name's weights are fetched too, for whoever loads them.

    Raises:
        ModelUnavailable: The files are missing, broken, of another prompt version, or an adapter's alone.
        IntegrityError: A file is not the one that the card beside it names.
    """
    if (Path(model) / ADAPTER_NAME).is_file():
        raise ModelUnavailable(
            f"{model} is an adapter, whose base runs elsewhere: merge it (`xray-vqa merge {model} --output-dir DIR`) "
            "and give the merged folder to both, or give the base with --model and this folder with --adapter"
        )
    if weights:
        resolve_model_dir(model)
    outline = outline_model(model)
    model_dir = weights_dir = outline.weights_dir
    card, adapter_digest, processor = read_card(model_dir), "", outline.processor
    check_digests(card, model_dir)
    if adapter is not None:
        weights_dir, adapter_digest = Path(adapter), digest_of(Path(adapter))
        own = read_card(weights_dir)
        check_digests(own, weights_dir)
        card = own or card
        if (weights_dir / PROCESSOR_NAME).is_file():
            processor = read_processor(weights_dir / PROCESSOR_NAME, None, outline.spec.box_frame)
    check_card(card, processor, weights_dir, other_size=False)
    return Outline(
        encoder=outline.encoder,
        processor=processor,
        spec=outline.spec,
        name=outline.name,
        precision=outline.precision,
        covered_categories=tuple(card.covered_categories) if card else (),
        weights_dir=weights_dir,
        model_digest=digest_of(model_dir) if any(model_dir.glob("*.safetensors")) else "",
        adapter_digest=adapter_digest,
    )


class RequestEngine(ABC, Generic[Seen]):
    """Reads scans by requests for one token, or a few, each.

    A subclass says how a model is reached; all of its calls run in one event loop that exists while they do.
    """

    needs_weights: ClassVar[bool]
    """Whether the weights have to lie on this machine."""
    title: str
    """Who is asked, for messages."""
    device: str
    """Where it runs, for records."""
    served_name: str = ""
    """The model's name where it runs, if it has one of its own there; known after `open`."""

    def __init__(self, model: str, settings: EngineSettings, *, adapter: str | None = None) -> None:
        self._model, self._adapter, self._settings = model, adapter, settings
        self._runner: asyncio.Runner | None = None
        self._turns = asyncio.Semaphore()
        self._outline: Outline | None = None

    @abstractmethod
    async def open(self) -> EngineIdentity:
        """Reach the model. Raises ModelUnavailable."""

    @abstractmethod
    async def shut(self) -> None:
        """Let the model go; whatever `open` has got so far."""

    @abstractmethod
    async def look(self, frame: NDArray[np.uint8]) -> Seen:
        """Return what is needed to ask about a scan as the model sees it, (height, width, 3)."""

    @abstractmethod
    async def weigh(self, seen: Seen, branch: str, answers: tuple[str, str]) -> tuple[float | None, float | None]:
        """Return the log-probabilities, out of the whole vocabulary, of two tokens behind a branch.

        None is a token of which nothing is said.
        """

    @abstractmethod
    async def digits(self, seen: Seen, branch: str) -> str:
        """Return the next twelve digits behind a branch, or what else is said there."""

    @abstractmethod
    async def say(self, seen: Seen, question: str, max_tokens: int) -> Answer:
        """Return the answer to a free question."""

    @property
    def loaded(self) -> None:
        return None

    @property
    def outline(self) -> Outline:
        if self._outline is None:
            raise ModelUnavailable("the engine has not been started")
        return self._outline

    def start(self) -> EngineInfo:
        """Reach the model and have a blank picture read. Raises ModelUnavailable."""
        self._outline = outline = read_outline(self._model, self._adapter, weights=self.needs_weights)
        self._runner = asyncio.Runner()
        self._turns = asyncio.Semaphore(SCANS_AT_ONCE)
        try:
            identity = self._runner.run(self.open())
            self.probe()
        except AnswerUnreadable as error:
            self.close()
            raise ModelUnavailable(str(error)) from error
        except BaseException:
            self.close()
            raise
        return EngineInfo(
            identity=identity,
            model_name=self.served_name or outline.name,
            device=self.device,
            covered_categories=outline.covered_categories,
            calibration=read_calibration(outline.weights_dir),
        )

    def probe(self) -> None:
        probe_by_reading(self)

    def read(
        self, images: Sequence[Image.Image], categories: Sequence[str], place_from: Mapping[str, float]
    ) -> list[Reading]:
        return self._run(together(self._in_turn(self._read(image, categories, place_from)) for image in images))

    def ask(
        self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]], max_tokens: int = 64
    ) -> list[list[Answer]]:
        asked = zip(images, questions, strict=True)
        return self._run(together(self._in_turn(self._ask(image, texts, max_tokens)) for image, texts in asked))

    def close(self) -> None:
        if self._runner is not None:
            self._runner.run(self.shut())
            self._runner.close()
            self._runner = None

    def identity(self, engine: str, dtype: str, model_digest: str) -> EngineIdentity:
        return EngineIdentity(
            engine=engine,
            model_digest=model_digest,
            adapter_digest=self.outline.adapter_digest,
            dtype=dtype,
            processor_version=self.outline.processor.version,
            prompt_version=PROMPT_VERSION,
        )

    def prompt_ids(self, num_image_tokens: int, branch: str) -> list[int]:
        """Return what the model has to get: the prefix with an image of some tokens, and a branch."""
        return [*self.outline.encoder.prefix(num_image_tokens)[0], *self.branch_ids(branch)]

    def branch_ids(self, branch: str) -> list[int]:
        return list(self.outline.encoder.tokenizer(branch, add_special_tokens=False)["input_ids"])

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        if self._runner is None:
            work.close()
            raise ModelUnavailable("the engine has not been started")

        async def in_time() -> Result:
            async with asyncio.timeout(self._settings.call_timeout_s):
                return await work

        try:
            return self._runner.run(in_time())
        except TimeoutError as error:
            raise ModelUnavailable(
                f"{self.title} did not answer all within {self._settings.call_timeout_s:g} s (XRAY_VQA_CALL_TIMEOUT_S)"
            ) from error

    async def _in_turn(self, work: Coroutine[Any, Any, Result]) -> Result:
        async with self._turns:
            return await work

    async def _read(self, image: Image.Image, categories: Sequence[str], place_from: Mapping[str, float]) -> Reading:
        clock = [time.perf_counter()]
        seen = await self._seen(image)
        clock.append(time.perf_counter())
        first = [await self._score(seen, name) for name in categories[:1]]
        others = await together(self._score(seen, name) for name in categories[1:])
        scores = dict(zip(categories, [*first, *others], strict=True))
        clock.append(time.perf_counter())
        names = [name for name, score in scores.items() if flags(score, place_from.get(name))]
        places = await together(self._places(seen, name, image.size) for name in names)
        clock.append(time.perf_counter())
        timings = {name: (clock[k + 1] - clock[k]) * 1000 for k, name in enumerate(("prepare", "score", "place"))}
        return Reading(scores, dict(zip(names, places, strict=True)), timings)

    async def _ask(self, image: Image.Image, questions: Sequence[str], max_tokens: int) -> list[Answer]:
        if not questions:
            return []
        seen = await self._seen(image)
        return await together(self.say(seen, question, max_tokens) for question in questions)

    async def _seen(self, image: Image.Image) -> Seen:
        return await self.look(await asyncio.to_thread(self.outline.processor.resize, image))

    async def _score(self, seen: Seen, category: str) -> Score:
        yes, no = await self.weigh(seen, prompts.probe_text(category), (prompts.YES, prompts.NO))
        # One of them alone may be anything: what is not in a list of twenty can still be as likely as its last.
        return UNSURE if yes is None or no is None else score_of(exp(yes), exp(no))

    async def _places(self, seen: Seen, category: str, size_wh: tuple[int, int]) -> tuple[Box, ...]:
        """The places of a category.

        Digits and what follows them are asked for in turn, as `BoxGrammar` allows them. Where something else is said,
        the places so far are left.
        """
        branch, found = prompts.box_text(category), list[str]()
        while len(found) < prompts.MAX_BOXES:
            digits = await self.digits(seen, branch)
            found.append(digits)
            if len(digits) != NUM_DIGITS or len(found) == prompts.MAX_BOXES:
                break
            branch += digits
            another, end = await self.weigh(seen, branch, (prompts.BOX_OPEN, prompts.BOX_CLOSE))
            if another is None or (end is not None and end >= another):
                break
            branch += prompts.BOX_OPEN
        return boxes_of(found, self.outline.processor, size_wh)


async def together(works: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Return what some coroutines give, in order. The first that fails ends the others, and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as failed:
        error = failed.exceptions[0]
        raise error from error.__cause__
    return [task.result() for task in tasks]
