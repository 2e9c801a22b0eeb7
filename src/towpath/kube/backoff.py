"""How long to wait before the next try: decorrelated jitter."""

import random


class Backoff:
    """Waiting times that grow, spread by chance so that thousands of agents do not come back in step.

    Each wait is drawn from [base, 3 x the last one], at most ``cap`` seconds (Brooker, "Exponential Backoff
    And Jitter", decorrelated variant).
    """

    def __init__(self, base: float = 0.1, cap: float = 30.0, rng: random.Random | None = None) -> None:
        self.base, self.cap = base, cap
        self._rng = rng or random.Random()  # noqa: S311 (spreading load, not keeping secrets)
        self._last = 0.0

    def next(self, at_least: float = 0.0) -> float:
        """Seconds to wait now; ``at_least`` is what the server asked for (Retry-After)."""
        self._last = min(self.cap, self._rng.uniform(self.base, max(self.base, 3 * self._last)))
        return max(self._last, at_least)

    def reset(self) -> None:
        """Something worked: start small again."""
        self._last = 0.0
