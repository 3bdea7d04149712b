"""A crossing of two roads under a traffic light: a program to improve.

The task of Cheng, Nie and Swaminathan (2024), arXiv 2406.16218, section 5.2, on one crossing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from thalweg.core.seeding import generator
from thalweg.core.validation import require


@dataclass(frozen=True)
class Crossing:
    """Two roads with Poisson arrivals; each has green in turn, and between them none has.

    Args:
        arrivals: vehicles a second on each road.
        saturation: vehicles a second that a green road lets pass.
        lost: seconds without green at each of the two changes of a cycle.
        duration: seconds of arrivals.

    >>> crossing = Crossing()
    >>> crossing.wait(*crossing.webster(), seed=0) < crossing.wait(30.0, 30.0, seed=0)
    True
    """

    arrivals: tuple[float, float] = (0.22, 0.08)
    saturation: float = 0.5
    lost: float = 4.0
    duration: float = 3600.0

    def __post_init__(self) -> None:
        flows = (*self.arrivals, self.saturation, self.lost, self.duration)
        require(all(0 < f < math.inf for f in flows), "Crossing needs positive rates and times", got=flows)

    def wait(self, first: float, second: float, seed: int) -> float:
        """Mean wait of a vehicle, in seconds, for the seconds of green of each road.

        Cost: about a millisecond for an hour.
        """
        require(min(first, second) > 0, "Crossing.wait needs green times > 0", got=(first, second))
        cycle, headway = first + second + 2 * self.lost, 1.0 / self.saturation
        total, count = 0.0, 0
        for road, (begin, green) in enumerate([(0.0, first), (first + self.lost, second)]):
            rng = generator(seed, road)
            gaps = rng.exponential(1 / self.arrivals[road], int(2 * self.duration * self.arrivals[road]) + 50)
            free = 0.0
            for arrival in gaps.cumsum().tolist():
                if arrival > self.duration:
                    break
                leaves = max(arrival, free)
                phase = (leaves - begin) % cycle
                if phase >= green:
                    leaves += cycle - phase
                total, count, free = total + leaves - arrival, count + 1, leaves + headway
        return total / max(count, 1)

    def webster(self) -> tuple[float, float]:
        """Green times of Webster (1958), "Traffic signal settings": cycle ``(1.5 L + 5) / (1 - Y)``, shared by flow.

        Raises:
            InvalidParameter: more arrives than can pass.
        """
        loads = [a / self.saturation for a in self.arrivals]
        require(sum(loads) < 1, "Crossing.webster needs arrivals below saturation", got=loads)
        green = (3 * self.lost + 5) / (1 - sum(loads)) - 2 * self.lost
        return green * loads[0] / sum(loads), green * loads[1] / sum(loads)
