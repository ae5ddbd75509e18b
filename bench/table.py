"""From samples to a table: medians, ratios to the yardstick taken round by round, and verdicts on the aims."""

from dataclasses import dataclass, field
from statistics import median

from bench.cases import (
    AIMS,
    CPU_US,
    DRIVER_BUSY,
    KIB_EACH,
    MEAN_MS,
    OF_BOUND,
    OVERHEAD_MS,
    P50_MS,
    P99_MS,
    PER_MINUTE,
    PER_SECOND,
    YARDSTICK,
    Aim,
)

Sample = dict[str, float]  # by metric

HEADINGS = {
    MEAN_MS: "mean ms",
    OVERHEAD_MS: "overhead ms",
    PER_MINUTE: "{unit}s/min",
    PER_SECOND: "{unit}s/s",
    OF_BOUND: "of the bound",
    KIB_EACH: "KiB each",
    P50_MS: "p50 ms",
    P99_MS: "p99 ms",
    CPU_US: "CPU us/{unit}",
}
BARE = {MEAN_MS, OF_BOUND, PER_MINUTE, P50_MS}  # shown without a ratio: the one beside them says as much
IN_VERDICTS = {PER_SECOND: "rate", CPU_US: "CPU", KIB_EACH: "KiB"}  # others as in HEADINGS
WIDTH = 34
SATURATED = 0.95


@dataclass
class Measured:
    """One case. Round i of one contestant and round i of another ran back to back; ratios are to the yardstick."""

    key: str
    title: str
    unit: str = "call"
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    yardstick: str = YARDSTICK

    def metrics(self) -> list[str]:
        found = [sample for rounds in self.samples.values() for sample in rounds]
        return [metric for metric in HEADINGS if found and metric in found[0]]

    def median(self, contestant: str, metric: str) -> float:
        return median(sample[metric] for sample in self.samples[contestant])

    def ratios(self, contestant: str, metric: str) -> list[float]:
        """Of each round to the yardstick's same round: slow drift of the machine cancels out."""
        ours, theirs = self.samples.get(contestant, []), self.samples.get(self.yardstick, [])
        return [a[metric] / b[metric] for a, b in zip(ours, theirs, strict=False) if b[metric]]

    def as_json(self) -> dict[str, object]:
        summary = {
            contestant: {
                metric: {"median": self.median(contestant, metric), **_spread(self.ratios(contestant, metric))}
                for metric in self.metrics()
            }
            for contestant in self.samples
        }
        return {
            "case": self.key,
            "title": self.title,
            "unit": self.unit,
            "summary": summary,
            "rounds": self.samples,
            "failures": self.failures,
        }


@dataclass(frozen=True)
class Verdict:
    """`found` is None when the case was not measured, which does not count as passed."""

    aim: Aim
    found: float | None

    @property
    def passed(self) -> bool:
        if self.found is None:
            return False
        return self.found <= self.aim.at_most if self.aim.at_most else self.found >= self.aim.at_least

    def __str__(self) -> str:
        bound = f"<= {self.aim.at_most:.4g}" if self.aim.at_most else f">= {self.aim.at_least:g}"
        found = "not measured" if self.found is None else f"{self.found:.3f}"
        what = IN_VERDICTS.get(self.aim.metric) or HEADINGS[self.aim.metric]
        return f"{'pass' if self.passed else 'FAIL'}  {self.aim.case:{WIDTH - 6}}{what:8} {found:>12}  aim {bound}"


def verdicts(results: list[Measured], aims: tuple[Aim, ...] = AIMS) -> list[Verdict]:
    by_key = {result.key: result for result in results}
    return [Verdict(aim, _found(by_key[aim.case], aim) if aim.case in by_key else None) for aim in aims]


def _found(result: Measured, aim: Aim) -> float | None:
    """The median that an aim bounds: of ratios, or of the contestant's own samples."""
    if aim.absolute:
        return result.median(aim.contestant, aim.metric) if aim.contestant in result.samples else None
    ratios = result.ratios(aim.contestant, aim.metric)
    return median(ratios) if ratios else None


def render(result: Measured) -> str:
    """A heading with the metrics' names, then a line per contestant: median, ratio, lowest and highest ratio."""
    metrics = result.metrics()
    heading = "".join(
        f"{HEADINGS[metric].format(unit=result.unit):>16}{'' if metric in BARE else 'ratio (spread)':>{_room(metric)}}"
        for metric in metrics
    )
    lines = [result.title, f"{'':{WIDTH}}{heading}"] if metrics else [result.title]
    for contestant in result.samples:
        cells = [_cell(result, contestant, metric) for metric in metrics]
        lines.append(f"  {contestant:{WIDTH - 2}}{''.join(cells)}")
    for contestant, samples in result.samples.items():
        busy = median(sample.get(DRIVER_BUSY, 0.0) for sample in samples)
        if busy > SATURATED:
            lines.append(f"  {contestant}: the driver was busy {busy:.0%} of the time, so the rate is a lower bound")
    for contestant, why in result.failures.items():
        lines.append(f"  {contestant}: not measured: {why.strip().splitlines()[-1]}")  # the whole of it is in the JSON
    return "\n".join(lines)


def _room(metric: str) -> int:
    return 0 if metric in BARE else 22


def _cell(result: Measured, contestant: str, metric: str) -> str:
    value = result.median(contestant, metric)
    shown = f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    ratios = result.ratios(contestant, metric)
    if metric in BARE or not ratios:
        return f"{shown:>16}{'':{_room(metric)}}"
    spread = "1.00" if contestant == result.yardstick else f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
    return f"{shown:>16}{spread:>22}"


def _spread(ratios: list[float]) -> dict[str, float]:
    return {"ratio": median(ratios), "lowest": min(ratios), "highest": max(ratios)} if ratios else {}
