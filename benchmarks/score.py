"""How well the differences are explained: many organizations that nobody wrote down, each against its truth.

    python benchmarks/score.py [--seeds 100] [--first 1] [--largest 200000] [--write docs/score.md]

Organizations are drawn from seeds (`reconcile.sandbox.drawn`), go through the real pull and all stages in this process,
and are compared with what was planted. Two worker processes. `--write` renews the measured part of the page.
Exits 1 where a threshold of the score is not met.
"""

import argparse
import multiprocessing
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from reconcile import __version__
from reconcile.sandbox import PLANTS, Sandbox, Variety, drawn

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from scored import EXACT, NOTHING, Score, score, views

OFFSETS = tuple(range(-720, 841, 30))
"""Minutes that a clock can be off, and 0: from -12 to +14 hours."""
SMALLEST = 2_000
BEGIN, END = "<!-- measured: `make score` writes what follows -->", "<!-- end of what was measured -->"
NOISE = frozenset({"time_zone", "unlogged", "unreported"})


@dataclass(frozen=True)
class Measured:
    """One organization of one part of the score; ``failure`` is what broke, where something did."""

    part: str
    seed: int
    requests: int = 0
    score: Score | None = None
    failure: str = ""


# What is measured -----------------------------------------------------------------------------------------------------


def mixed(seed: int, largest: int) -> Measured:
    """Any plants at any strength, in an organization of any size."""
    size = random.Random(f"size/{seed}").random()  # noqa: S311 - a seed, no secret
    return _measured("mixed", seed, Variety(requests=int(SMALLEST * (largest / SMALLEST) ** size)))


def hard(seed: int, largest: int) -> Measured:
    """As mixed, with what nobody can tell apart: a clock that is off and a lag of hours in one log."""
    size = random.Random(f"size/{seed}").random()  # noqa: S311 - a seed, no secret
    return _measured(
        "hard", seed, Variety(requests=int(SMALLEST * (largest / SMALLEST) ** size), hard=True, density=0.6)
    )


def clean(seed: int, largest: int) -> Measured:
    """Nothing is planted."""
    return _measured("clean", seed, Variety(requests=min(largest, 5 * SMALLEST), plants=frozenset()))


def clocks(minutes: int, largest: int) -> Measured:
    """Every second log's clock is off, over lost lines and lines too many."""
    variety = Variety(
        requests=min(largest, 2 * SMALLEST),
        plants=NOISE,
        density=0.0,
        clocks=(minutes,) * 20 if minutes else (),
    )
    return _measured("clocks", 20_000 + minutes, variety)


def shuffled(seed: int, largest: int) -> Measured:
    """Lines, rows of pages and pages lie in another order."""
    sandbox = Sandbox.build(drawn(seed, Variety(requests=min(largest, 2 * SMALLEST))))
    one = views(sandbox)
    other = views(sandbox, random.Random(seed))  # noqa: S311 - a seed, no secret
    differ = [name for name in one if one[name] != other[name]]
    failure = f"report.{', report.'.join(differ)} changed" if differ else ""
    return Measured("shuffled", seed, sandbox.scenario.requests, failure=failure)


def _measured(part: str, seed: int, variety: Variety) -> Measured:
    scenario = drawn(seed, variety)
    return Measured(part, seed, scenario.requests, score(Sandbox.build(scenario)))


Job = tuple[Callable[[int, int], Measured], int, int]


def _guarded(job: Job) -> Measured:
    measure, seed, largest = job
    try:
        return measure(seed, largest)
    except Exception:  # noqa: BLE001 - an organization that breaks is a result
        return Measured(measure.__name__, seed, failure=traceback.format_exc().strip().splitlines()[-1][:300])


# What is said of it ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """One sentence of the score, what was measured for it, and whether it holds."""

    sentence: str
    found: str
    holds: bool


def percent(share: Decimal) -> str:
    """A share with as many digits as it has to tell."""
    return f"{100 * share:.2f} %"


def quantile(values: Sequence[Decimal], share: float) -> Decimal:
    """The smallest value that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def claims(found: Sequence[Measured]) -> Iterator[Claim]:
    """Every threshold, in the order of the issue."""
    mixes = _scored(found, "mixed")
    if mixes:
        errors = [one.error for _, one in mixes]
        for sentence, share, most in (
            ("median attribution error at most 2 %", 0.5, Decimal("0.02")),
            ("worst decile of the attribution error at most 10 %", 0.9, Decimal("0.10")),
        ):
            measured = quantile(errors, share)
            yield Claim(sentence, percent(measured), measured <= most)
        yield _every(f"exact to the last decimal: {', '.join(EXACT)}", mixes, lambda one: not one.inexact)
        yield _every("no reason above 0.5 % of billed that was not planted", mixes, lambda one: not one.not_planted)
        yield _every(
            "no reason moves above 0.5 % of billed in a log where it was not planted", mixes, lambda one: not one.blamed
        )
    yield _every(
        "a clean organization has no finding, and residual exactly 0",
        _scored(found, "clean"),
        lambda one: not one.findings and not one.residual_usd,
    )
    yield _every(
        "the clock of every second log is found to the minute, from -12 to +14 hours by half hours, and no other clock",
        _scored(found, "clocks"),
        lambda one: dict(one.shifts) == dict(one.clocks),
    )
    for sentence, part in (
        ("other order of lines, rows and pages, the same bytes in every public view", "shuffled"),
        ("the bridge adds up, no check of the ledger finds anything, and the truth ties to its totals", ""),
    ):
        those = [measured for measured in found if part in {"", measured.part}]
        broken = [measured.seed for measured in those if measured.failure]
        yield Claim(sentence, _share(len(those), broken), not broken)


def _scored(found: Sequence[Measured], part: str) -> list[tuple[int, Score]]:
    return [(measured.seed, measured.score) for measured in found if measured.part == part and measured.score]


def _every(sentence: str, scores: Sequence[tuple[int, Score]], holds: Callable[[Score], bool]) -> Claim:
    missed = [seed for seed, one in scores if not holds(one)]
    return Claim(sentence, _share(len(scores), missed), not missed)


def _share(count: int, missed: Sequence[int]) -> str:
    named = f" (not seed {', '.join(map(str, missed[:8]))}{', …' if missed[8:] else ''})" if missed else ""
    return f"{count - len(missed)} of {count}{named}"


def page(found: Sequence[Measured], drawn_from: str) -> Iterator[str]:
    """The measured part of docs/score.md, as lines."""
    yield f"Version {__version__}, {drawn_from}."
    yield ""
    yield "| What must hold | Measured | |"
    yield "| --- | --- | --- |"
    for claim in claims(found):
        yield f"| {claim.sentence} | {claim.found} | {'holds' if claim.holds else '**does not hold**'} |"
    for part, kind in (("mixed", "mixed organizations"), ("hard", "organizations in which clocks and lags meet")):
        those = [measured for measured in found if measured.part == part and measured.score]
        if those:
            yield ""
            yield _distribution(kind, those)
    mixes = [one for _, one in _scored(found, "mixed")]
    if not mixes:
        return
    planted_usd, found_usd = (sum((one.misplaced_usd[side] for one in mixes), NOTHING) for side in (0, 1))
    yield ""
    yield (
        f"Booked on another workspace, which nets to nothing over them: ${planted_usd:,.2f} planted,"
        f" ${found_usd:,.2f} found there by `workspace`."
    )
    yield ""
    yield from _by_reason(mixes)


def _distribution(kind: str, those: Sequence[Measured]) -> str:
    errors = [measured.score.error for measured in those if measured.score]
    seeds, sizes = [measured.seed for measured in those], [measured.requests for measured in those]
    steps = (("a quarter up to", 0.25), ("half", 0.5), ("three quarters", 0.75), ("nine tenths", 0.9), ("worst", 1.0))
    return (
        f"Attribution error of {len(those)} {kind} ({min(sizes):,} to {max(sizes):,} requests, seeds {min(seeds)} to"
        f" {max(seeds)}): " + ", ".join(f"{name} {percent(quantile(errors, share))}" for name, share in steps) + "."
    )


def _by_reason(scores: Sequence[Score]) -> Iterator[str]:
    yield "| Reason | Organizations | Planted | Apart | Half up to | Nine tenths up to | Where not planted |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for reason in (*PLANTS, "rounding", "residual"):
        having = [s for s in scores if reason in s.planted and s.planted_absolute_usd]
        apart = [abs(s.off_usd(reason)) for s in having]
        shares = [usd / s.planted_absolute_usd for usd, s in zip(apart, having, strict=True)] or [NOTHING]
        elsewhere = sum((abs(s.off_usd(reason)) for s in scores if reason not in s.planted), NOTHING)
        if having or elsewhere:
            planted = sum((abs(s.planted[reason]) for s in having), NOTHING)
            figures = (f"{planted:,.2f}", f"{sum(apart):,.2f}", *(percent(quantile(shares, at)) for at in (0.5, 0.9)))
            yield f"| `{reason}` | {len(having)} | {' | '.join(figures)} | {elsewhere:,.2f} |"


# Running it -----------------------------------------------------------------------------------------------------------


def _jobs(options: argparse.Namespace) -> Iterator[Job]:
    for seed in range(options.first, options.first + options.seeds):
        yield mixed, seed, options.largest
    for minutes in OFFSETS if options.seeds >= len(OFFSETS) else OFFSETS[:: -(-len(OFFSETS) // max(1, options.seeds))]:
        yield clocks, minutes, options.largest
    for seed in range(options.first, options.first + max(1, options.seeds // 5)):
        yield hard, seed, options.largest
        yield clean, seed, options.largest
    for seed in range(options.first, options.first + max(1, options.seeds // 20)):
        yield shuffled, seed, options.largest


def _told(measured: Measured) -> str:
    head = f"{measured.part} {measured.seed}: {measured.requests:,} requests"
    if measured.score is None:
        return f"{head}, {measured.failure or 'the same views'}"
    found = measured.score
    lines = [f"{head}, error {percent(found.error)}, {found.findings} findings, {found.seconds:.0f} s"]
    for reason in found.reasons:
        planted_usd, found_usd = (side.get(reason, NOTHING) for side in (found.planted, found.found))
        if abs(found_usd - planted_usd) * 1000 > found.planted_absolute_usd:
            lines.append(f"    {reason:16} planted {planted_usd:14.4f} found {found_usd:14.4f}")
    planted_usd, found_usd = found.misplaced_usd
    if planted_usd or found_usd:
        lines.append(f"    misplaced        planted {planted_usd:14.4f} found {found_usd:14.4f}")
    if dict(found.shifts) != dict(found.clocks):
        lines.append(f"    clocks {dict(found.clocks)} found {dict(found.shifts)}")
    if found.inexact or found.not_planted or found.blamed:
        lines.append(
            f"    not exact: {found.inexact}; not planted: {found.not_planted}; in another log: {found.blamed}"
        )
    return "\n".join(lines)


def _write(path: Path, lines: Iterable[str]) -> None:
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(before + BEGIN + "\n\n" + "\n".join(lines) + "\n\n" + END + after, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the page where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=100, help="mixed organizations; a fifth as many hard and clean")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--largest", type=int, default=200_000, help="requests of the largest organization")
    parser.add_argument("--write", type=Path, help="the page whose measured part is renewed")
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    found: list[Measured] = []
    with multiprocessing.get_context("spawn").Pool(2, maxtasksperchild=10) as pool:
        for measured in pool.imap_unordered(_guarded, _jobs(options)):
            found.append(measured)
            print(_told(measured), flush=True)
    found.sort(key=lambda measured: (measured.part, measured.seed))
    lines = list(page(found, f"{options.seeds} seeds from {options.first} on, up to {options.largest:,} requests"))
    print("", *lines, "", f"{len(found)} organizations in {time.perf_counter() - began:.0f} s", sep="\n")
    if options.write is not None:
        _write(options.write, lines)
    return 0 if all(claim.holds for claim in claims(found)) else 1


if __name__ == "__main__":
    sys.exit(main())
