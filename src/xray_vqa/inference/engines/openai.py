"""A model behind a server that speaks Chat Completions: vLLM, or another one that takes the same requests.

The server gets our own picture, decoded, resized and encoded again, so that it does not resize and never sees bytes
from outside. Whether its chat template and its processor make the prompt that the model was trained in is checked at
the start and, by the number of the prompt's tokens, with each answer.
"""

import asyncio
import base64
import io
import logging
import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import openai
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field, ValidationError

from xray_vqa.config.loading import read_key
from xray_vqa.config.serve import EngineSettings
from xray_vqa.core import prompts
from xray_vqa.core.calibration import EngineIdentity
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import AnswerUnreadable, ConfigError, ModelUnavailable
from xray_vqa.inference.engine import Answer
from xray_vqa.inference.engines.requests import NUM_DIGITS, RequestEngine

logger = logging.getLogger(__name__)
for _client in ("httpx", "httpx2"):  # the SDK went from one to the other; each has a line for each request
    logging.getLogger(_client).setLevel(logging.WARNING)

TOP_TOKENS = 20
"""The most that OpenAI's interface and vLLM's default give."""


class _Weighed(BaseModel):
    token: str
    logprob: float = Field(le=1e-3)  # of a probability; sums in short formats end a little above one
    bytes: list[int] | None = None

    @property
    def text(self) -> str:
        return bytes(self.bytes).decode(errors="replace") if self.bytes else self.token


class _Position(BaseModel):
    top_logprobs: list[_Weighed] = []


class _Logprobs(BaseModel):
    content: list[_Position] | None = None


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int


class _Completion(BaseModel):
    model: str = ""
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None
    prompt_token_ids: list[int] | None = None
    """vLLM's, where it is asked for."""


class _Model(BaseModel):
    id: str
    root: str | None = None
    """vLLM's: the folder or hub name that the weights were loaded from."""


class _Models(BaseModel):
    data: list[_Model]


@dataclass(slots=True)
class SentScan:
    """One scan as it is sent."""

    url: str
    """The picture itself, as a data URL."""
    num_tokens: int
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Under which the server may keep what it makes of the picture; no other inspection ever has the same."""
    is_known: bool = False
    """Whether the server has answered about the picture, so that its name may do."""


class OpenAIEngine(RequestEngine[SentScan]):
    """Asks a server. `model` is the folder that its weights came from, or their hub name; no weights are loaded here.

    Raises:
        ConfigError: No address, or a key that no header can carry.
    """

    needs_weights = False
    device = "remote"

    def __init__(self, model: str, settings: EngineSettings, *, adapter: str | None = None) -> None:
        super().__init__(model, settings, adapter=adapter)
        if not settings.server_url:
            raise ConfigError(
                "the openai engine needs the address of a server: set XRAY_VQA_SERVER_URL, for instance to "
                "http://localhost:8000/v1"
            )
        self.title = f"the server at {settings.server_url}"
        self._key = read_key(None, settings.server_key_variable)
        self._client: openai.AsyncOpenAI | None = None
        self._lines = asyncio.Semaphore()
        self._takes_extras = True
        self._keeps_pictures = False
        self._answers_as: str | None = None

    async def open(self) -> EngineIdentity:
        self._lines = asyncio.Semaphore(self._settings.server_concurrency)
        # The SDK insists on some key; servers without keys look at none. It repeats nothing: we know what may be.
        self._client = openai.AsyncOpenAI(
            base_url=self._settings.server_url,
            api_key=self._key or "none",
            max_retries=0,
            timeout=self._settings.call_timeout_s,
        )
        model = await self._find_model()
        self.served_name = model.id
        await self._check_prompt()
        digest = self._settings.server_digest or self.outline.model_digest
        told = (
            f"its weights came from {model.root}, as it says" if model.root else "it does not say where they are from"
        )
        if digest:
            logger.info("%s serves %s; %s; taken for those with digest %s", self.title, model.id, told, digest[:12])
        else:
            logger.warning(
                "%s serves %s, and nobody says which weights these are (%s): no calibration holds for them and no bag "
                "is cleared. Give --model the folder that the server has loaded, or set XRAY_VQA_SERVER_DIGEST",
                self.title, model.id, told,
            )  # fmt: skip
        return self.identity("openai", "as served", digest)

    async def shut(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def look(self, frame: NDArray[np.uint8]) -> SentScan:
        rows, columns = self.outline.processor.grid_hw((frame.shape[1], frame.shape[0]))
        return SentScan(await asyncio.to_thread(_data_url, frame), rows * columns)

    async def weigh(self, seen: SentScan, branch: str, answers: tuple[str, str]) -> tuple[float | None, float | None]:
        (first,), (second,) = (self.branch_ids(answer) for answer in answers)
        extras = {"logprob_token_ids": [first, second]}
        completion = await self._continue(
            seen, branch, {"max_tokens": 1, "logprobs": True, "top_logprobs": TOP_TOKENS}, extras
        )
        logprobs = completion.choices[0].logprobs
        if logprobs is None or not logprobs.content:
            raise AnswerUnreadable(f"{self.title} gives no log-probabilities", text=str(completion.choices[0]))
        weights = {entry.text: entry.logprob for entry in reversed(logprobs.content[0].top_logprobs)}
        return weights.get(answers[0]), weights.get(answers[1])

    async def digits(self, seen: SentScan, branch: str) -> str:
        # vLLM takes the first of these and SGLang the second. Of others the digits come by themselves or not at all.
        extras = {"allowed_token_ids": list(self.outline.encoder.digit_ids), "regex": f"[0-9]{{{NUM_DIGITS}}}"}
        completion = await self._continue(seen, branch, {"max_tokens": NUM_DIGITS}, extras)
        return (completion.choices[0].message.content or "").strip()

    async def say(self, seen: SentScan, question: str, max_tokens: int) -> Answer:
        opening = self.outline.spec.answer_opening
        extras = {"chat_template_kwargs": {"enable_thinking": False}} if opening and self._takes_extras else {}
        whole = prompts.question_text(question) + opening
        completion = await self._complete(seen, question, whole, {"max_tokens": max_tokens, "extra_body": extras})
        choice = completion.choices[0]
        return Answer((choice.message.content or "").strip(), choice.finish_reason == "stop")

    async def _find_model(self) -> _Model:
        response = await self._guarded(lambda client: client.models.with_raw_response.list())
        try:
            models = {model.id: model for model in _Models.model_validate_json(response.http_response.content).data}
        except ValidationError as error:
            raise ModelUnavailable(f"{self.title} gives no list of models: {error}") from error
        wanted, names = self._settings.server_model, ", ".join(sorted(models)) or "none"
        if wanted is None and len(models) == 1:
            return next(iter(models.values()))
        if wanted is None:
            raise ModelUnavailable(f"{self.title} serves {names}; say which with XRAY_VQA_SERVER_MODEL")
        if wanted not in models:
            raise ModelUnavailable(f"{self.title} serves no model {wanted!r}; it has {names}")
        return models[wanted]

    async def _check_prompt(self) -> None:
        """Raise ModelUnavailable where the server makes another prompt of our request than the model was trained in."""
        blank = await self.look(self.outline.processor.resize(Image.new("RGB", (504, 392), "white")))
        branch = prompts.probe_text(CATEGORIES[0])
        try:
            completion = await self._continue(blank, branch, {"max_tokens": 1}, {"return_token_ids": True})
        except _Refused as refused:
            logger.info("%s; asked again without what only vLLM and SGLang know", refused)
            self._takes_extras = False
            completion = await self._continue(blank, branch, {"max_tokens": 1}, {})
        self._answers_as = completion.model
        if completion.prompt_token_ids not in (None, self.prompt_ids(blank.num_tokens, branch)):
            text = str(self.outline.encoder.tokenizer.decode(completion.prompt_token_ids))
            text = text.replace(prompts.IMAGE_PAD, "")
            raise ModelUnavailable(f"{self.title} {_OTHER_PROMPT}; it was {text[:600]!r}")
        if completion.usage is None and completion.prompt_token_ids is None:
            raise ModelUnavailable(f"{self.title} does not say how long its prompts are, so nobody can check them")
        self._keeps_pictures = self._takes_extras and await self._finds_by_name(blank, branch)

    async def _finds_by_name(self, seen: SentScan, branch: str) -> bool:
        """Whether a picture's name does for one that was sent, which saves a server most of its work with it."""
        self._keeps_pictures = True
        try:
            await self._continue(seen, branch, {"max_tokens": 1}, {})
        except (AnswerUnreadable, ModelUnavailable) as error:
            logger.info("pictures are sent with each request: %s", error)
            return False
        return self._keeps_pictures

    async def _continue(
        self, seen: SentScan, branch: str, options: dict[str, Any], extras: dict[str, Any]
    ) -> _Completion:
        """Have the text of a branch continued as if it were the answer's beginning, in the user's own turn."""
        # What keeps the template from ending the turn behind the branch is not among the extras: without it all would
        # be asked wrongly.
        body = {"add_generation_prompt": False, "continue_final_message": True}
        if self._takes_extras:
            body |= extras
        return await self._complete(seen, branch, branch, {**options, "extra_body": body})

    async def _complete(self, seen: SentScan, text: str, branch: str, options: dict[str, Any]) -> _Completion:
        """Send a text behind a scan's picture.

        Args:
            seen: The scan.
            text: As it is sent.
            branch: As it has to stand behind the image in the prompt that the server makes of it.
            options: Of the request.
        """
        part = {"type": "image_url", "image_url": {"url": seen.url}}
        if self._takes_extras:
            part["uuid"] = seen.name  # vLLM keeps what it makes of the picture under it, and takes no time to hash it
        if not (self._keeps_pictures and seen.is_known):
            return await self._send(seen, part, text, branch, options)
        try:
            return await self._send(seen, {**part, "image_url": None}, text, branch, options)
        except _Refused as refused:
            logger.warning("%s; pictures are sent with each request from now on", refused)
            self._keeps_pictures = False
        return await self._send(seen, part, text, branch, options)

    async def _send(
        self, seen: SentScan, part: dict[str, Any], text: str, branch: str, options: dict[str, Any]
    ) -> _Completion:
        messages: Any = [
            {"role": "system", "content": prompts.SYSTEM},
            {"role": "user", "content": [part, {"type": "text", "text": text}]},
        ]
        # max_completion_tokens, which has replaced max_tokens, is not known to all of these servers.
        response = await self._guarded(
            lambda client: client.chat.completions.with_raw_response.create(
                model=self.served_name, messages=messages, temperature=0, **options
            )
        )
        content = response.http_response.content
        try:
            completion = _Completion.model_validate_json(content)
        except ValidationError as error:
            raise AnswerUnreadable(
                f"{self.title} sent what is no answer: {error}", text=content[:2000].decode(errors="replace")
            ) from error
        if self._answers_as is not None and completion.model != self._answers_as:
            raise ModelUnavailable(
                f"{self.title} answers as {completion.model!r} and did as {self._answers_as!r}: start again, so that "
                "it is checked"
            )
        expected = len(self.prompt_ids(seen.num_tokens, branch))
        if completion.usage is not None and completion.usage.prompt_tokens != expected:
            raise AnswerUnreadable(
                f"{self.title} {_OTHER_PROMPT}; it took {completion.usage.prompt_tokens} tokens and not {expected}",
                text=completion.choices[0].message.content or "",
            )
        seen.is_known = True
        return completion

    async def _guarded(self, ask: Any) -> Any:
        """What a request gives, its failures as our errors. One that did not get through is sent once more."""
        assert self._client is not None
        async with self._lines:
            for attempt in (1, 2):
                try:
                    return await ask(self._client)
                except openai.APITimeoutError as error:
                    raise ModelUnavailable(f"{self.title} did not answer in time") from error
                except openai.APIConnectionError as error:
                    cause = error.__cause__ or error
                    if attempt == 2:
                        raise ModelUnavailable(f"no answer from {self.title}: {cause!r}") from error
                except openai.APIStatusError as error:
                    said = f"{self.title} answered {error.status_code}: {str(error.message)[:500]}"
                    kind = _Refused if error.status_code in (400, 422) else ModelUnavailable
                    raise kind(said) from error
                except openai.OpenAIError as error:
                    raise ModelUnavailable(f"{self.title} cannot be asked: {error}") from error
        raise AssertionError("the second attempt returns or raises")


class _Refused(ModelUnavailable):
    """The server does not take a request of this form."""


_OTHER_PROMPT = (
    "made another prompt of a request than the model was trained in: its chat template does not leave the last message "
    "open (add_generation_prompt and continue_final_message), or its processor resizes the picture (docs/ENGINES.md)"
)


def _data_url(frame: NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    # Without loss, and fast: a third more bytes than the best compression on the way to a server that stands near.
    Image.fromarray(frame).save(stream, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
