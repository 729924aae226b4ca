"""Rounds in which kinds of work take turns, so that other work on the machine slows all of them alike.

Every kind of work is measured by the time of the processors and by the clock. A ratio of two kinds is taken within each
round; its median over the rounds must reach the bound.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, NamedTuple

HEAD = "".join(f"{name:>10}" for name in (*("processor", "lowest", "highest"), *("clock", "lowest", "highest")))


class Speed(NamedTuple):
    """Items a second of the processors' time, and by the clock; or the ratio of two such speeds."""

    processor: float
    clock: float


Rounds = Sequence[Speed]


def processor_time() -> float:
    """Seconds of processor time of this process with all its threads, and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(times.ru_utime + times.ru_stime for times in used)


def timed(work: Callable[[], object], items: float = 1.0) -> Speed:
    """The speed of work on so many items, by `processor_time` and by the clock."""
    processor, clock = processor_time(), time.perf_counter()
    work()
    return Speed(items / (processor_time() - processor), items / (time.perf_counter() - clock))


def in_turns(kinds: Mapping[str, Callable[[], Speed]], rounds: int, warm_up: int = 1) -> dict[str, list[Speed]]:
    """The speed of each kind of work in each round; the first rounds, which warm up, are left out."""
    speeds: dict[str, list[Speed]] = {name: [] for name in kinds}
    for _ in range(warm_up + rounds):
        for name, measure in kinds.items():
            speeds[name].append(measure())
    return {name: each[warm_up:] for name, each in speeds.items()}


def row(name: str, rounds: Rounds) -> str:
    """Median, lowest and highest over the rounds, by the processors and by the clock."""
    numbers = (pick(each) for each in zip(*rounds, strict=True) for pick in (median, min, max))
    return f"{name:<46}" + "".join(f"{number:>10,.{0 if number >= 100 else 2}f}" for number in numbers)


def print_speeds(title: str, speeds: Mapping[str, Rounds]) -> None:
    """A table of speeds; the title names the items."""
    print(f"{title:<46}{HEAD}", *(row(name, rounds) for name, rounds in speeds.items()), sep="\n", flush=True)


@dataclass(frozen=True)
class Ratio:
    """A ratio of two kinds of work in each round, and the bound of its median.

    Args:
        by: the time that the bound is for.
        least, most: the bound; None for none.
    """

    name: str
    rounds: Rounds
    by: Literal["processor", "clock"]
    least: float | None = None
    most: float | None = None

    @classmethod
    def of(cls, name: str, one: Rounds, other: Rounds, *, by: Literal["processor", "clock"], **bound: float) -> "Ratio":
        """The speed of the one over that of the other."""
        rounds = [Speed(*(a / b for a, b in zip(*pair, strict=True))) for pair in zip(one, other, strict=True)]
        return cls(name, rounds, by, **bound)

    @property
    def median(self) -> float:
        """By the time that the bound is for."""
        return median(getattr(speed, self.by) for speed in self.rounds)

    @property
    def bound(self) -> str:
        """In words."""
        if self.least is None and self.most is None:
            return "no bound"
        words = f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"
        return f"{words} by the {self.by}"

    @property
    def holds(self) -> bool:
        """Whether the median reaches the bound."""
        low, high = (self.least is None or self.median >= self.least), (self.most is None or self.median <= self.most)
        return low and high


def report(ratios: Iterable[Ratio]) -> list[str]:
    """Print ratios beside their bounds; return those that do not hold, a phrase each."""
    ratios = list(ratios)
    print(f"{'ratio':<46}{HEAD}", *(f"{row(each.name, each.rounds)}  {each.bound}" for each in ratios), sep="\n")
    print(flush=True)
    return [f"{each.name} is {each.median:.3f}, expected {each.bound}" for each in ratios if not each.holds]


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """A command line that takes --assert, as `options.demand`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assert", dest="demand", action="store_true", help="exit with 1 if a bound does not hold")
    return parser


def end(options: argparse.Namespace, faults: Sequence[str]) -> None:
    """With --assert, exit with 1 and name the bounds that do not hold."""
    if options.demand and faults:
        sys.exit("does not hold: " + "; ".join(faults))
