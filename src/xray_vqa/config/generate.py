"""What the writing of question-answer pairs can be told."""

from pathlib import Path

from pydantic import Field, field_validator

from xray_vqa.core.lexicon import LANGUAGES
from xray_vqa.core.records import Strict

MAX_SAMPLES_PER_IMAGE = 12


class ProviderSettings(Strict):
    """Who words the planned questions."""

    provider: str
    """`anthropic`, `openai`, `openai_compatible` (a server of one's own), `template` (free, offline) or `scripted`
    (tests)."""
    model: str = ""
    """For a provider that has models; empty: as `configs/llm.yaml` says."""
    base_url: str = ""
    """Of a server that speaks the provider's API; empty: as `configs/llm.yaml` says."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Longest wait for one reply; None: as `configs/llm.yaml` says."""
    price: tuple[float, float] | None = None
    """Dollars a million tokens in and out, where the price table is wrong or does not know the model."""
    script_path: Path | None = None
    """For the scripted provider: JSON list of steps."""
    seed: int = 0
    """For a provider that draws its wording."""


class GenerateConfig(Strict):
    """One run of `xray-vqa generate`."""

    annotations_path: Path = Path("data/stcray/train/annotations.json")
    output_path: Path = Path("data/stcray_vqa_train.jsonl")
    provider: ProviderSettings
    fallbacks: list[ProviderSettings] = []
    """Who words what the provider refuses or cannot word, in turn."""
    max_cost_usd: float | None = Field(default=None, ge=0)
    """Cap on what the pairs file may cost in all, over all runs; of a shard, that shard's own."""
    policy_path: Path | None = None
    """Rules behind the risk questions. Unset: `configs/policy.yaml`."""
    gates_path: Path | None = None
    """What the set has to reach. Unset: `configs/pair_quality.yaml`."""
    samples_per_image: int = Field(default=3, ge=1, le=MAX_SAMPLES_PER_IMAGE)
    max_images: int | None = Field(default=None, ge=1)
    """So many scans in the plan's order, which mixes them; each larger number contains the smaller one's."""
    shard: str = ""
    """`2/8`: only the second of eight parts of the plan. Empty: all of it."""
    batch_requests: int | None = Field(default=None, ge=1)
    """Most requests in one batch; None: as many as the service takes."""
    batch_bytes: int | None = Field(default=None, ge=1)
    """Most bytes in one batch; None: as many as the service takes, with a margin."""
    forget_batches: bool = False
    """Give up batches that this key cannot find: they may be paid for twice, and stay booked at their worst."""
    rate_limit_delay_s: float = Field(default=1.0, ge=0)
    """Least time between two calls of a paid provider."""
    seed: int = Field(default=0, ge=0)
    languages: tuple[str, ...] = ("en",)
    """Of question and answer text; of several each image gets one, evenly mixed. Short answers stay English."""

    @field_validator("languages")
    @classmethod
    def _check_languages(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in languages if name not in LANGUAGES]
        if unknown or not languages or len(set(languages)) < len(languages):
            raise ValueError(f"{','.join(languages)!r} is no list of different languages of {', '.join(LANGUAGES)}")
        return languages
