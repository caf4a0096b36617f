"""One sandbox's month through the real pull and stages, without a socket: what was found beside what was planted."""

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import httpx

from reconcile import explain, ledger, load, pull, run
from reconcile.config import load_config
from reconcile.prices import PriceBook
from reconcile.sandbox import Sandbox

NOTHING = Decimal(0)


@dataclass(frozen=True)
class Score:
    """What the bridge says of one organization, beside the truth; amounts in USD by reason."""

    planted: Mapping[str, Decimal]
    found: Mapping[str, Decimal]
    planted_absolute_usd: Decimal
    billed_usd: Decimal
    findings: int
    shifts: Mapping[str, int]
    seconds: Mapping[str, float]

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
    def not_planted(self) -> list[str]:
        """Reasons that nothing was planted for and that are claimed above 0.5 % of billed."""
        return [
            reason
            for reason in self.found
            if reason not in self.planted and 200 * abs(self.found[reason]) > self.billed_usd
        ]


@contextmanager
def explained(sandbox: Sandbox, folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The ledger of a sandbox's month after its last stage; the checks are looked at."""
    answers = sandbox.answers()

    def answer(request: httpx.Request) -> httpx.Response:
        status, body = answers(request.url.raw_path.decode(), request.headers)
        return httpx.Response(status, content=body)

    sandbox.write(folder)
    config = load_config(folder / "config.yaml")
    period = sandbox.scenario.period
    room = run._Room(folder / "var")
    pulled = pull.pull(
        config.billing, period, room.raw, now=sandbox.now, key=sandbox.key,
        organization_id=config.organization_id, transport=httpx.MockTransport(answer),
    )  # fmt: skip
    job = run._Job(
        config=config, period=period, now=sandbox.now, room=room, logs=load.find_logs(config.request_logs, period),
        book=PriceBook.read(config.prices.contract), on_progress=lambda what, done, total: None,
    )  # fmt: skip
    with ledger.building(folder / "built.duckdb", folder / "tmp") as connection:
        run._build(connection, job, load.Pull.read(pulled), "0" * 64, 1)
        yield connection


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
    """Run the stages and compare."""
    began = time.perf_counter()
    planted: dict[str, Decimal] = defaultdict(Decimal)
    places: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for entry in sandbox.truth:
        planted[entry.reason] += Decimal(entry.amount_usd)
        places[entry.reason, entry.place] += Decimal(entry.amount_usd)
    with (
        tempfile.TemporaryDirectory(dir=os.environ.get("SCORE_DIR")) as folder,
        explained(sandbox, Path(folder)) as connection,
    ):
        bridge = ledger.rows(connection, "select * from report.bridge order by position")
        (billed_usd,) = (row["running_usd"] for row in bridge if row["reason"] == "billed")
        assert not untied(planted, bridge), untied(planted, bridge)
        findings = connection.execute("select count(*) from report.discrepancy").fetchall()[0][0]
        shifts = dict(connection.execute("select log, minutes from explained.shift order by log").fetchall())
    return Score(
        planted=dict(planted),
        found={row["reason"]: row["amount_usd"] for row in bridge if row["kind"] == "step"},
        planted_absolute_usd=sum((abs(amount_usd) for amount_usd in planted.values()), NOTHING),
        billed_usd=billed_usd,
        findings=findings,
        shifts=shifts,
        seconds={"stages": time.perf_counter() - began},
    )
