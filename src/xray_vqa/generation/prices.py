"""What tokens cost: from the table of genai-prices with its date, or as the user says."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from xray_vqa.errors import ConfigError

CACHE_WRITE_SHARE = 1.25
"""What vendors take at most for writing a cache, of the price of input. For reading one a stated price knows no
discount: the cap errs on the safe side."""


@dataclass(frozen=True, slots=True)
class StatedPrice:
    """Dollars a million tokens of input and of output."""

    input_usd: float
    output_usd: float

    @property
    def source(self) -> str:
        return f"stated: ${self.input_usd:g} a million tokens in, ${self.output_usd:g} out"

    def usd(
        self, *, input_tokens: int, cache_read_tokens: int = 0, cache_write_tokens: int = 0, output_tokens: int = 0
    ) -> float:
        """Return dollars; `input_tokens` are those that no cache gave or took."""
        taken = input_tokens + cache_read_tokens + CACHE_WRITE_SHARE * cache_write_tokens
        return (taken * self.input_usd + output_tokens * self.output_usd) / 1e6


@dataclass(frozen=True)
class TablePrice:
    """The price of a model that genai-prices knows."""

    vendor: str
    model: str

    @property
    def source(self) -> str:
        return f"genai-prices {self._prices.__version__}"

    @cached_property
    def _prices(self) -> Any:
        import genai_prices

        return genai_prices

    def usd(
        self, *, input_tokens: int, cache_read_tokens: int = 0, cache_write_tokens: int = 0, output_tokens: int = 0
    ) -> float:
        """Return dollars; `input_tokens` are those that no cache gave or took. Raises LookupError."""
        usage = self._prices.Usage(
            input_tokens=input_tokens + cache_read_tokens + cache_write_tokens,  # the table counts all of them here
            cache_read_tokens=cache_read_tokens,
            cache_write_tokens=cache_write_tokens,
            output_tokens=output_tokens,
        )
        return float(self._prices.calc_price(usage, self.model, provider_id=self.vendor).total_price)


def find_price(vendor: str, model: str, stated: Sequence[float] | None = None) -> StatedPrice | TablePrice:
    """Return the price of a vendor's model.

    Args:
        vendor: as genai-prices names it: anthropic, openai.
        model: as the vendor names it.
        stated: dollars a million tokens in and out, which go before the table.

    Raises:
        ConfigError: The table does not know the model, or is not installed, and no price is stated.
    """
    if stated is not None:
        return StatedPrice(*stated)
    price = TablePrice(vendor, model)
    try:
        price.usd(input_tokens=1, output_tokens=1)
    except ImportError as error:
        raise ConfigError(
            "the price table is not installed; run: pip install 'xray-vqa[generate]', or state the price with --price"
        ) from error
    except LookupError as error:
        raise ConfigError(
            f"{price.source} does not know what {model} of {vendor} costs, and nothing is spent blindly; state it as "
            "--price IN,OUT (dollars a million tokens)"
        ) from error
    return price
