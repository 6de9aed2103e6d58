"""The embedded engine: a model in this process, scored and placed through the prompt tree."""

import itertools
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import numpy as np
import torch
from PIL import Image

from xray_vqa.core.calibration import EngineIdentity, read_calibration
from xray_vqa.core.inspection import Score
from xray_vqa.core.prompts import PROMPT_VERSION
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import ModelUnavailable
from xray_vqa.inference.engine import Answer, EngineInfo, Reading, boxes_of, flags, probe_by_reading, score_of
from xray_vqa.modeling.decoding import BoxGrammar, Decoder, TextGrammar
from xray_vqa.modeling.loading import LoadedModel, load_model
from xray_vqa.modeling.serving import serving_decoder

_RESIZERS = 8


class TransformersEngine:
    """Scores every category in one pass and decodes boxes for those above their threshold, together."""

    def __init__(
        self, model: str, *, adapter: str | None = None, device: str | None = None, precision: str = "auto"
    ) -> None:
        self._name, self._adapter, self._device, self._precision = model, adapter, device, precision
        self._decoder: Decoder | None = None

    @classmethod
    def of(cls, decoder: Decoder) -> Self:
        """Return an engine around a model that is loaded already, as training holds one."""
        engine = cls(decoder.loaded.name)
        engine._decoder = decoder
        return engine

    def start(self) -> EngineInfo:
        """Load the weights, make ready what comes in few shapes, and run a blank image through everything.

        Raises:
            ModelUnavailable: The weights cannot be loaded, or are not as good in 8 bits.
            ConfigError: The precision is not to be had here.
        """
        if self._decoder is None:
            precision = "auto" if self._precision == "fp8" else self._precision
            loaded = load_model(self._name, adapter=self._adapter, device=self._device, precision=precision, merge=True)
            self._decoder = serving_decoder(loaded, fp8=self._precision == "fp8")
        loaded = self._decoder.loaded
        self._decoder.warm_up([self._decoder.encoder.probe(category) for category in CATEGORIES])
        self.probe()
        identity = EngineIdentity(
            engine="transformers",
            model_digest=loaded.model_digest,
            adapter_digest=loaded.adapter_digest,
            dtype="fp8" if self._precision == "fp8" else loaded.precision.name,
            processor_version=loaded.processor.version,
            prompt_version=PROMPT_VERSION,
        )
        return EngineInfo(
            identity=identity,
            model_name=loaded.name,
            device=str(loaded.device),
            covered_categories=loaded.covered_categories,
            calibration=read_calibration(loaded.weights_dir),
        )

    def read(
        self, images: Sequence[Image.Image], categories: Sequence[str], place_from: Mapping[str, float]
    ) -> list[Reading]:
        """Return a reading for each image; see `Engine.read`. So many are read together as the decoder takes."""
        return [
            reading
            for group in self._groups(len(images))
            for reading in self._read(images[group], categories, place_from)
        ]

    def _read(
        self, images: Sequence[Image.Image], categories: Sequence[str], place_from: Mapping[str, float]
    ) -> list[Reading]:
        decoder = self._started()
        encoder, processor = decoder.encoder, decoder.loaded.processor
        clock = [time.perf_counter()]
        frames = self._frames(images)
        clock.append(time.perf_counter())
        probes = [encoder.probe(category) for category in categories]
        state, logits = decoder.open(frames, [probes] * len(images))
        scores = [self._scores(rows, categories) for rows in logits]
        clock.append(time.perf_counter())
        flagged = [[name for name, score in row.items() if flags(score, place_from.get(name))] for row in scores]
        grammars = [[BoxGrammar(encoder) for _ in names] for names in flagged]
        decoder.extend(state, [[encoder.boxes(name) for name in names] for names in flagged], grammars)
        clock.append(time.perf_counter())
        stages = ("prepare", "score", "place")
        timings = {stage: (clock[k + 1] - clock[k]) * 1000 for k, stage in enumerate(stages)}
        readings: list[Reading] = []
        for image, row, names, row_grammars in zip(images, scores, flagged, grammars, strict=True):
            answers = zip(names, row_grammars, strict=True)
            boxes = {name: boxes_of(grammar.digits, processor, image.size) for name, grammar in answers}
            readings.append(Reading(row, boxes, timings))
        return readings

    def ask(
        self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]], max_tokens: int = 64
    ) -> list[list[Answer]]:
        """Return answers to free questions; see `Engine.ask`."""
        return [
            answers
            for group in self._groups(len(images))
            for answers in self._ask(images[group], questions[group], max_tokens)
        ]

    def _ask(
        self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]], max_tokens: int
    ) -> list[list[Answer]]:
        decoder = self._started()
        encoder = decoder.encoder
        state, _ = decoder.open(self._frames(images), [[]] * len(images))
        grammars = [[TextGrammar(encoder, max_tokens) for _ in asked] for asked in questions]
        decoder.extend(state, [[encoder.question(question) for question in asked] for asked in questions], grammars)
        return [[Answer(encoder.decode(grammar.tokens), grammar.ended) for grammar in row] for row in grammars]

    def probe(self) -> None:
        probe_by_reading(self)

    @property
    def loaded(self) -> LoadedModel:
        return self._started().loaded

    def close(self) -> None:
        self._decoder = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _groups(self, count: int) -> list[slice]:
        ends = [0, *itertools.accumulate(self._started().groups(count))]
        return [slice(*each) for each in itertools.pairwise(ends)]

    def _started(self) -> Decoder:
        if self._decoder is None:
            raise ModelUnavailable("the model is not loaded")
        return self._decoder

    def _frames(self, images: Sequence[Image.Image]) -> list[torch.Tensor]:
        """The scans as the model sees them, resized on its device, on a CPU several at a time."""
        loaded = self._started().loaded

        def frame(image: Image.Image) -> torch.Tensor:
            if loaded.device.type == "cpu":
                return torch.from_numpy(np.array(loaded.processor.resize(image)))
            return loaded.processor.frame_on(image, loaded.device)

        if len(images) == 1:
            return [frame(images[0])]
        with ThreadPoolExecutor(_RESIZERS) as pool:
            return list(pool.map(frame, images))

    def _scores(self, logits: torch.Tensor, categories: Sequence[str]) -> dict[str, Score]:
        encoder = self._started().encoder
        shares = logits.softmax(dim=-1)[:, [encoder.yes_id, encoder.no_id]].cpu()
        return {name: score_of(yes, no) for name, (yes, no) in zip(categories, shares.tolist(), strict=True)}
