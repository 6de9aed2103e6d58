"""Money: reserved before a call at its worst, settled at what it cost. The cap holds at every moment."""

import asyncio

from xray_vqa.errors import Incomplete

_DUST = 1e-9
"""Sums of floats that differ by less are equal."""


class Budget:
    """What may be spent, what was, and what calls under way may still cost. In dollars, for one event loop."""

    def __init__(self, most_usd: float | None = None, *, spent_usd: float = 0.0) -> None:
        """Set up.

        Args:
            most_usd: the cap; None for none.
            spent_usd: what earlier runs cost, with what they may have cost.
        """
        self.most_usd = most_usd
        self.spent_usd = spent_usd
        self._reserved_usd = 0.0
        self._changed = asyncio.Condition()

    async def reserve(self, usd: float) -> None:
        """Set money aside for one call, waiting for calls under way to be settled where it does not fit yet.

        Raises:
            Incomplete: It does not fit, and nothing under way can change that.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self.fits(usd) or self._reserved_usd <= _DUST)
            if not self.fits(usd):
                raise self.shortage(usd)
            self._reserved_usd += usd

    def shortage(self, usd: float) -> Incomplete:
        """Return the error for a call that does not fit."""
        return Incomplete(
            f"incomplete: budget. ${self.spent_usd:.4f} of ${self.most_usd:.2f} are spent, and the next call "
            f"may cost ${usd:.4f}; all that was paid for is kept, and the same command goes on with a higher "
            "--max-cost"
        )

    def fits(self, usd: float) -> bool:
        """Return whether so much may be spent besides what is under way."""
        return self.most_usd is None or self.spent_usd + self._reserved_usd + usd <= self.most_usd + _DUST

    async def settle(self, reserved_usd: float, cost_usd: float) -> None:
        """Take what a call cost in place of what was set aside for it; at its end, whatever that was."""
        async with self._changed:
            self._reserved_usd = max(0.0, self._reserved_usd - reserved_usd)
            self.spent_usd += cost_usd
            self._changed.notify_all()
