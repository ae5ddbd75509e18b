"""From samples to a table: medians, ratios to the yardstick taken round by round, and verdicts on the aims."""

from dataclasses import dataclass, field
from statistics import median

from bench.cases import AIMS, CPU_US, DRIVER_BUSY, KIB_EACH, OURS, PER_SECOND, YARDSTICK, Aim

Sample = dict[str, float]  # by metric

HEADINGS = {PER_SECOND: "{unit}s/s", CPU_US: "CPU us/{unit}", KIB_EACH: "KiB each"}
WIDTH = 34
SATURATED = 0.95


@dataclass
class Measured:
    """One case. Round i of one contestant and round i of another ran back to back."""

    key: str
    title: str
    unit: str = "call"
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def metrics(self) -> list[str]:
        found = [sample for rounds in self.samples.values() for sample in rounds]
        return [metric for metric in HEADINGS if found and metric in found[0]]

    def median(self, contestant: str, metric: str) -> float:
        return median(sample[metric] for sample in self.samples[contestant])

    def ratios(self, contestant: str, metric: str) -> list[float]:
        """Of each round to the yardstick's same round: slow drift of the machine cancels out."""
        ours, theirs = self.samples.get(contestant, []), self.samples.get(YARDSTICK, [])
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
    """`ratio` is None when the case was not measured, which does not count as passed."""

    aim: Aim
    ratio: float | None

    @property
    def passed(self) -> bool:
        if self.ratio is None:
            return False
        return self.ratio <= self.aim.at_most if self.aim.at_most else self.ratio >= self.aim.at_least

    def __str__(self) -> str:
        bound = f"<= {self.aim.at_most:.3f}" if self.aim.at_most else f">= {self.aim.at_least:g}"
        found = "not measured" if self.ratio is None else f"{self.ratio:.3f}"
        what = "rate" if self.aim.metric == PER_SECOND else "CPU"
        return f"{'pass' if self.passed else 'FAIL'}  {self.aim.case:{WIDTH - 6}}{what:5} {found:>12}  aim {bound}"


def verdicts(results: list[Measured], aims: tuple[Aim, ...] = AIMS) -> list[Verdict]:
    by_key = {result.key: result for result in results}
    out = []
    for aim in aims:
        ratios = by_key[aim.case].ratios(OURS, aim.metric) if aim.case in by_key else []
        out.append(Verdict(aim, median(ratios) if ratios else None))
    return out


def render(result: Measured) -> str:
    """A heading with the metrics' names, then a line per contestant: median, ratio, lowest and highest ratio."""
    metrics = result.metrics()
    heading = "".join(f"{HEADINGS[metric].format(unit=result.unit):>16}{'ratio (spread)':>22}" for metric in metrics)
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


def _cell(result: Measured, contestant: str, metric: str) -> str:
    value = result.median(contestant, metric)
    shown = f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"
    ratios = result.ratios(contestant, metric)
    if not ratios:
        return f"{shown:>16}{'':22}"
    spread = "1.00" if contestant == YARDSTICK else f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
    return f"{shown:>16}{spread:>22}"


def _spread(ratios: list[float]) -> dict[str, float]:
    return {"ratio": median(ratios), "lowest": min(ratios), "highest": max(ratios)} if ratios else {}
