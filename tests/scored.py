"""One sandbox's month through the real pull and stages, without a socket: what was found beside what was planted."""

import gzip
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import httpx

from reconcile import explain, ledger, load, pull, run
from reconcile.config import load_config
from reconcile.prices import PriceBook
from reconcile.sandbox import Sandbox

NOTHING = Decimal(0)

EXACT = (
    "duplicate",
    "stream_sum",
    "app_price",
    "unlogged_key",
    "no_key",
    "discount",
    "code_execution",
    "session_usage",
)
"""Reasons that must be found to the last decimal."""

TELLING = 10
"""Requests that a log must hold before its clock can be judged."""

PUBLIC = ("summary", "cell", "usage", "bridge", "discrepancy", "allocation", "chargeback")
"""The views of the ledger that others build on."""


@dataclass(frozen=True)
class Score:
    """What the bridge says of one organization, beside the truth; amounts in USD by reason.

    ``misplaced_usd`` is what was booked on another workspace, planted and found: it nets to nothing. ``clocks`` are
    the minutes by which the clocks of logs with enough requests are off, ``shifts`` those found. ``blamed_usd`` is what
    findings move by (reason, log), where nothing of the reason was planted in that log.
    """

    planted: Mapping[str, Decimal]
    found: Mapping[str, Decimal]
    planted_absolute_usd: Decimal
    billed_usd: Decimal
    misplaced_usd: tuple[Decimal, Decimal]
    blamed_usd: Mapping[tuple[str, str], Decimal]
    findings: int
    clocks: Mapping[str, int]
    shifts: Mapping[str, int]
    seconds: float

    @property
    def reasons(self) -> list[str]:
        """All reasons that were planted or found."""
        return sorted({*self.planted, *self.found})

    def off_usd(self, reason: str) -> Decimal:
        """Found less planted."""
        return self.found.get(reason, NOTHING) - self.planted.get(reason, NOTHING)

    @property
    def error(self) -> Decimal:
        """Sum over reasons of |found - planted|, as a share of the sum of planted dollars."""
        off_usd = sum((abs(self.off_usd(reason)) for reason in self.reasons), NOTHING)
        return off_usd / self.planted_absolute_usd if self.planted_absolute_usd else off_usd

    @property
    def residual_usd(self) -> Decimal:
        """What nothing explains."""
        return self.found["residual"]

    @property
    def inexact(self) -> list[str]:
        """Reasons that must be exact and are not."""
        return [reason for reason in EXACT if self.off_usd(reason)]

    @property
    def not_planted(self) -> list[str]:
        """Reasons that nothing was planted for and that are claimed above 0.5 % of billed."""
        return [
            reason
            for reason in self.found
            if reason not in self.planted and 200 * abs(self.found[reason]) > self.billed_usd
        ]

    @property
    def blamed(self) -> list[str]:
        """Reasons that are laid to a log in which they were not planted, above 0.5 % of billed."""
        return [
            f"{reason} in {log}"
            for (reason, log), moved_usd in sorted(self.blamed_usd.items())
            if 200 * moved_usd > self.billed_usd
        ]


@contextmanager
def explained(sandbox: Sandbox, folder: Path, shuffle: Random | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """The ledger of a sandbox's month after its last stage; the checks are looked at.

    With ``shuffle`` the lines of each log, the rows of each page and the pages lie in another order.
    """
    answers = sandbox.answers()

    def answer(request: httpx.Request) -> httpx.Response:
        status, body = answers(request.url.raw_path.decode(), request.headers)
        return httpx.Response(status, content=body)

    sandbox.write(folder)
    config = load_config(folder / "config.yaml")
    period = sandbox.scenario.period
    room = run.Room(folder / "var")
    pulled = pull.pull(
        config.billing, period, room.raw, now=sandbox.now, key=sandbox.key,
        organization_id=config.organization_id, transport=httpx.MockTransport(answer),
    )  # fmt: skip
    if shuffle is not None:
        for log in config.request_logs:
            _shuffle_log(log.files(period), shuffle)
        _shuffle_pages(pulled, shuffle)
    job = run._Job(
        config=config, period=period, now=sandbox.now, room=room, logs=load.find_logs(config.request_logs, period),
        book=PriceBook.read(config.prices.contract), on_progress=lambda what, done, total: None,
    )  # fmt: skip
    with ledger.building(folder / "built.duckdb", folder / "tmp") as connection:
        run._build(connection, job, load.Pull.read(pulled), "0" * 64, 1)
        yield connection


def _shuffle_log(files: Sequence[Path], random: Random) -> None:
    """Deal out the lines of a log anew over its files: those that are read, or what nobody reads would change."""
    lines = []
    for file in files:
        body = file.read_bytes()
        lines += (gzip.decompress(body) if file.suffix == ".gz" else body).splitlines(keepends=True)
    random.shuffle(lines)
    for position, file in enumerate(files):
        body = b"".join(lines[position :: len(files)])
        file.write_bytes(gzip.compress(body) if file.suffix == ".gz" else body)


def _shuffle_pages(folder: Path, random: Random) -> None:
    """Mix the rows of every page, the buckets of a page, and the pages."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for page in manifest["pages"]:
        body = json.loads((folder / page["file"]).read_bytes())
        for bucket in body.get("data", []):
            random.shuffle(bucket.get("results", []))
        random.shuffle(body.get("data", []))
        content = json.dumps(body).encode()
        (folder / page["file"]).write_bytes(content)
        page["sha256"] = sha256(content).hexdigest()
    random.shuffle(manifest["pages"])
    (folder / "manifest.json").write_text(json.dumps(manifest))


def views(sandbox: Sandbox, shuffle: Random | None = None) -> dict[str, str]:
    """The public views of a sandbox's month as text, in the ledger's own order."""
    with tempfile.TemporaryDirectory() as folder, explained(sandbox, Path(folder), shuffle) as connection:
        return {
            name: "\n".join(map(repr, connection.execute(f"select * from report.{name}").fetchall())) for name in PUBLIC
        }


def untied(planted: Mapping[str, Decimal], bridge: list[Mapping[str, Any]]) -> list[str]:
    """The totals of the bridge to which the truth does not lead from the total before: none where it is exact."""
    found = []
    before: Decimal | None = None
    sum_usd = NOTHING
    leads_to = {reason: total for reason, total, _ in explain.REASONS}
    for row in bridge:
        if row["kind"] != "total":
            continue
        sum_usd = sum((amount for reason, amount in planted.items() if leads_to[reason] == row["reason"]), NOTHING)
        if before is not None and before + sum_usd != row["running_usd"]:
            found.append(f"{row['reason']} is {row['running_usd']}, planted lead to {before + sum_usd}")
        before = row["running_usd"]
    return found


def score(sandbox: Sandbox) -> Score:
    """Run the stages and compare. Raises ``AssertionError`` where the truth itself does not tie to the totals."""
    began = time.perf_counter()
    planted: dict[str, Decimal] = defaultdict(Decimal)
    for entry in sandbox.truth:
        planted[entry.reason] += Decimal(entry.amount_usd)
    with tempfile.TemporaryDirectory() as folder, explained(sandbox, Path(folder)) as connection:
        bridge = ledger.rows(connection, "select * from report.bridge order by position")
        (billed_usd,) = (row["running_usd"] for row in bridge if row["reason"] == "billed")
        assert not untied(planted, bridge), untied(planted, bridge)
        laid = connection.execute("""
            select reason, log, sum(moved_usd) from report.discrepancy where log is not null group by reason, log
        """).fetchall()
        misplaced = "select coalesce(sum(moved_usd), 0) from report.discrepancy where reason = 'workspace'"
        misplaced_usd = connection.execute(misplaced).fetchall()[0][0]
        findings = connection.execute("select count(*) from report.discrepancy").fetchall()[0][0]
        shifts = dict(connection.execute("select log, minutes from explained.shift order by log").fetchall())
        requests = dict(connection.execute("select log, requests from source.log").fetchall())
    return Score(
        planted=dict(planted),
        found={row["reason"]: row["amount_usd"] for row in bridge if row["kind"] == "step"},
        planted_absolute_usd=sum((abs(amount_usd) for amount_usd in planted.values()), NOTHING),
        billed_usd=billed_usd,
        misplaced_usd=(Decimal(sandbox.moved_usd.get("workspace", 0)), misplaced_usd),
        blamed_usd={
            (reason, log): moved_usd
            for reason, log, moved_usd in laid
            if not any(entry.reason == reason and f"log={log}" in entry.place.split() for entry in sandbox.truth)
        },
        findings=findings,
        clocks={
            place.log: round(60 * (place.strength or 0))
            for place in sandbox.scenario.organization.placements
            if place.plant == "time_zone" and place.log is not None and requests[place.log] >= TELLING
        },
        shifts=shifts,
        seconds=time.perf_counter() - began,
    )
