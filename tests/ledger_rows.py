"""A small made-up month: fills the schemas before `report` with literal rows, for the tests of what is shown.

A case is a list of cells, each with the reason why its sides differ; findings, bridge and allocation follow from
those by plain sums, so that a case ties out whatever it holds.
"""

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from typing import Any

import duckdb

from reconcile import ledger, reasons
from reconcile.run import CARRIED
from reconcile.run.restate import PART, RESTATEMENT

HOSTILE = '<script>alert(1)</script> & "Co"'
FORMULA = "=1+1"
TITLES = {one.code: one.title for one in reasons.BEFORE_BILLED}
NEVER = {"code_execution", "session_usage", "rounding"}
DIMENSIONS = ("day", "workspace_id", "model", "service_tier", "context_window", "inference_geo", "speed", "meter")
DIMENSION_COLUMNS = {"day": "DATE"} | dict.fromkeys(DIMENSIONS[1:], "VARCHAR")
USD = "DECIMAL(38, 12)"


@dataclass(frozen=True)
class Cell:
    """One cell; quantities in tokens, the price for a million of them."""

    day: int
    workspace_id: str | None
    model: str | None
    meter: str
    recorded: int | None
    reported: int | None
    price: str | None
    billed: str | None
    why: str = "unlogged"
    why_price: str = "residual"
    service_tier: str | None = "standard"
    api_key_id: str | None = None

    def dimensions(self) -> tuple[Any, ...]:
        """The eight values, in order."""
        rest = ("0-200k", "global", "standard") if self.model else (None, None, None)
        tier = self.service_tier if self.model else None
        return (date(2026, 10, self.day), self.workspace_id, self.model, tier, *rest, self.meter)

    def usd(self, quantity: int | None) -> Decimal | None:
        """A quantity at the cell's price."""
        unit = Decimal("0.000001") if self.model else Decimal(1)
        return None if quantity is None or self.price is None else quantity * Decimal(self.price) * unit

    @property
    def quantity_variance(self) -> Decimal:
        """Reported minus recorded, in dollars."""
        return (self.usd(self.reported) or Decimal(0)) - (self.usd(self.recorded) or Decimal(0))

    @property
    def price_variance(self) -> Decimal:
        """Billed minus reported."""
        return Decimal(self.billed or 0) - (self.usd(self.reported) or Decimal(0))


@dataclass(frozen=True)
class Case:
    """What a month holds; everything else is derived."""

    cells: tuple[Cell, ...] = ()
    cleaning: tuple[tuple[str, str, str], ...] = ()  # reason, log, USD
    evidence: dict[str, Any] = field(default_factory=dict)  # by reason
    accepted: frozenset[str] = frozenset()
    carried: tuple[tuple[str, str, str, str], ...] = ()  # reason, log, opened in, USD in question
    centers: dict[str, str] = field(default_factory=dict)  # id -> name
    direct: dict[str, str] = field(default_factory=dict)  # workspace -> cost center
    pooled: frozenset[str] = frozenset()  # workspaces that all cost centers share evenly
    other: dict[str, str] = field(default_factory=dict)  # cost center -> USD
    earlier: dict[str, str] = field(default_factory=dict)  # cost center -> USD of the month before
    budgets: dict[str, str] = field(default_factory=dict)  # cost center -> USD of the month
    workspaces: dict[str, str] = field(default_factory=dict)
    logs: tuple[str, ...] = ("gateway",)
    through: int = 31
    organization: str = "Example Ltd"
    warnings: tuple[str, ...] = ()


MONTH = Case(
    organization=f"Example {HOSTILE}",
    carried=(("discount", HOSTILE, "2026-07", "12.345"), ("log_gap", "gateway", "2026-09", "0.005")),
    workspaces={
        "default": "Default",
        "wrkspc_search": "Search",
        "wrkspc_ads": HOSTILE,
        "wrkspc_formula": FORMULA,
        "wrkspc_code": "Claude Code",
    },
    cells=(
        Cell(1, "wrkspc_search", "claude-opus-4-7", "uncached_input_tokens", 8_000_000, 8_000_000, "5", "40"),
        Cell(1, "wrkspc_search", "claude-opus-4-7", "output_tokens", 2_000_000, 2_000_000, "25", "50"),
        Cell(2, "wrkspc_search", "claude-opus-4-7", "cache_read_input_tokens", 90_000_000, 90_000_000, "0.5", "45"),
        Cell(3, "wrkspc_search", "claude-opus-4-7", "output_tokens", 3_100_000, 3_000_000, "25", "75", "unreported"),
        Cell(
            5,
            "wrkspc_ads",
            "claude-haiku-5-5",
            "uncached_input_tokens",
            None,
            60_000_000,
            "1",
            "60",
            "unlogged_key",
            api_key_id="apikey_unknown",
        ),
        Cell(5, "wrkspc_ads", "claude-haiku-5-5", "output_tokens", 4_000_000, 5_200_000, "5", "26"),
        Cell(
            8,
            "wrkspc_ads",
            "claude-sonnet-5-5",
            "output_tokens",
            1_000_000,
            1_000_000,
            "15",
            "13.5",
            why_price="discount",
        ),
        Cell(
            9,
            "wrkspc_formula",
            "claude-opus-4-7",
            "output_tokens",
            100_000,
            100_000,
            "12.5",
            "1.25",
            service_tier="batch",
        ),
        Cell(
            9,
            "wrkspc_formula",
            "claude-opus-4-7",
            "uncached_input_tokens",
            333_333,
            333_334,
            "2.5",
            "0.833335",
            service_tier="batch",
        ),
        Cell(
            12,
            "wrkspc_code",
            "claude-opus-5-5",
            "output_tokens",
            None,
            1_234_567,
            "25",
            "30.864175",
            "no_key",
        ),
        Cell(15, "default", "claude-opus-4-7", "output_tokens", 400_000, 400_000, "25", "10"),
        Cell(15, "default", None, "web_search_requests", 120, 150, "0.01", "1.5"),
        Cell(20, "default", None, "code_execution", None, None, None, "4.1", why_price="code_execution"),
        Cell(20, "default", None, "session_usage", None, None, None, "0.123456789012", why_price="session_usage"),
        Cell(
            21,
            "wrkspc_search",
            "claude-opus-4-7",
            "output_tokens",
            200_000,
            200_000,
            "25",
            None,
            why_price="uncharged",
            service_tier="priority",
        ),
    ),
    cleaning=(("duplicate", "gateway", "-12.345678901234"), ("app_price", "gateway", "3.21")),
    accepted=frozenset({"uncharged"}),
    evidence={
        "unlogged_key": {
            "api_key_status": "inactive",
            "named_in_logs_percent": "99.2",
            "days": [
                {
                    "day": "2026-10-05",
                    "workspace_id": "wrkspc_ads",
                    "meter": "output_tokens",
                    "quantity": "60000000",
                    "amount_usd": "60.000000000000",
                },
                {
                    "day": "2026-10-06",
                    "workspace_id": "wrkspc_gone",
                    "meter": "other",
                    "quantity": "0",
                    "amount_usd": "0.000000000000",
                },
            ],
        },
        "duplicate": {"requests": 41, "logs": ["gateway", HOSTILE], "place": {"file": HOSTILE, "line": 7}},
    },
    centers={"CC-100": "Search", "CC-200": HOSTILE, "../../etc/passwd": FORMULA, "CC-900": "Idle"},
    direct={"wrkspc_search": "CC-100", "wrkspc_ads": "CC-200", "wrkspc_formula": "../../etc/passwd"},
    pooled=frozenset({"default"}),
    warnings=("allocation.rules[3]: names the workspace wrkspc_gone, which the organization does not have.",),
)


def fill(connection: duckdb.DuckDBPyConnection, case: Case) -> None:
    """Write source, matched, explained and allocated for a case."""
    ledger.prepare(connection)
    _source(connection, case)
    _matched(connection, case)
    findings = _findings(case)
    _explained(connection, case, findings)
    _allocated(connection, case)


def _source(connection: duckdb.DuckDBPyConnection, case: Case) -> None:
    fetched = datetime(2026, 11, 4, 6, 0)  # noqa: DTZ001 - the ledger stores UTC without a zone
    insert(
        connection,
        "source.run",
        "period VARCHAR, start_on DATE, end_on DATE, through_on DATE, organization VARCHAR, organization_id VARCHAR,"
        "revision INTEGER, package_version VARCHAR, input_digest VARCHAR, tolerance_usd DECIMAL(38, 12),"
        "tolerance_percent DECIMAL(9, 4), amounts VARCHAR, arrangement VARCHAR, data_refreshed_at TIMESTAMP",
        [
            (
                "2026-10",
                date(2026, 10, 1),
                date(2026, 11, 1),
                date(2026, 10, case.through),
                case.organization,
                "org_1",
                1,
                "0.1.0",
                "d" * 64,
                "1.00",
                "0.5",
                "net",
                "invoiced",
                fetched,
            ),
        ],
    )
    insert(
        connection,
        "source.page",
        "file VARCHAR, kind VARCHAR, url VARCHAR, fetched_at TIMESTAMP, request_id VARCHAR, sha256 VARCHAR,rows BIGINT",
        [
            (
                f"{kind}-{n}.json",
                kind,
                f"https://example.test/{kind}",
                fetched + timedelta(seconds=n),
                f"req_{n}",
                hashlib.sha256(kind.encode()).hexdigest(),
                len(case.cells),
            )
            for n, kind in enumerate(("usage_hour", "usage_day", "cost_day", "workspaces"))
        ],
    )
    insert(
        connection,
        "source.log_coverage",
        "log VARCHAR, days_without_lines DATE[]",
        [(log, [date(2026, 10, 4)]) for log in case.logs],
    )
    insert(
        connection,
        "source.log",
        "log VARCHAR, format VARCHAR, path VARCHAR, files BIGINT, bytes BIGINT, lines BIGINT, rejected BIGINT,"
        "outside BIGINT, requests BIGINT, first_at TIMESTAMP, last_at TIMESTAMP, sha256 VARCHAR",
        [
            (
                log,
                "requests",
                f"logs/{log}/*.jsonl",
                31,
                9_000,
                1_234,
                1,
                3,
                1_200,
                fetched - timedelta(days=34),
                fetched - timedelta(days=4),
                hashlib.sha256(log.encode()).hexdigest(),
            )
            for log in case.logs
        ],
    )
    insert(
        connection,
        "source.workspace",
        "workspace_id VARCHAR, name VARCHAR, archived BOOLEAN, default_inference_geo VARCHAR, tags VARCHAR",
        [(workspace_id, name, False, "global", "{}") for workspace_id, name in case.workspaces.items()],
    )
    insert(
        connection,
        "source.api_key",
        "api_key_id VARCHAR, name VARCHAR, status VARCHAR, workspace_id VARCHAR, created_by_id VARCHAR,"
        "partial_key_hint VARCHAR",
        [("apikey_unknown", "contractor-test", "inactive", "wrkspc_ads", "user_1", "sk-ant-...x")],
    )
    insert(
        connection,
        "source.rejected",
        "log VARCHAR, file VARCHAR, line BIGINT, why VARCHAR",
        [
            (log, f"logs/{log}/2026-10-03.jsonl", 17, "usage.input_tokens: got -1, expected a count")
            for log in case.logs
        ],
    )
    insert(
        connection,
        "source.default_used",
        "log VARCHAR, field VARCHAR, requests BIGINT",
        [(log, "service_tier", 800) for log in case.logs],
    )
    insert(
        connection,
        "source.price",
        "model VARCHAR, service_tier VARCHAR, context_window VARCHAR, inference_geo VARCHAR, speed VARCHAR,"
        "meter VARCHAR, from_on DATE, until_on DATE, prompt_over BIGINT, price_unit VARCHAR,"
        "list_price_usd DECIMAL(38, 12), price_usd DECIMAL(38, 12), source VARCHAR, is_used BOOLEAN",
        sorted(
            {
                (
                    *cell.dimensions()[2:],
                    date(2026, 1, 1),
                    None,
                    0,
                    "MTok" if cell.model else "search",
                    cell.price,
                    cell.price,
                    "https://example.test/pricing, checked 2026-11-02",
                    True,
                )
                for cell in case.cells
                if cell.price is not None
            },
            key=str,
        ),
    )
    insert(
        connection,
        "source.earlier_chargeback",
        "period VARCHAR, revision INTEGER, input_digest VARCHAR, through_on DATE, cost_center VARCHAR, name VARCHAR,"
        "direct_usd DECIMAL(38, 2), shared_usd DECIMAL(38, 2), total_usd DECIMAL(38, 2), other_usd DECIMAL(38, 2),"
        "payable_usd DECIMAL(38, 2)",
        [
            ("2026-09", 1, "e" * 64, date(2026, 9, 30), center, case.centers.get(center, center), usd, 0, usd, 0, usd)
            for center, usd in case.earlier.items()
        ],
    )
    insert(connection, "source.earlier_route", "route VARCHAR", [("none",)] if case.earlier else [])
    insert(
        connection,
        "source.earlier_open",
        ", ".join(f"{name} {kind}" for name, kind in CARRIED.items()),
        [
            (f"{n:012}", reason, log, *[None] * 7, since, usd)
            for n, (reason, log, since, usd) in enumerate(case.carried)
        ],
    )
    insert(connection, "source.restatement", ", ".join(f"{n} {kind}" for n, kind in RESTATEMENT.items()), [])


def _matched(connection: duckdb.DuckDBPyConnection, case: Case) -> None:
    dimensions = ", ".join(f"{name} {kind}" for name, kind in DIMENSION_COLUMNS.items())
    cells, usage = [], []
    for cell in case.cells:
        unit = None if cell.price is None else "MTok" if cell.model else "search"
        difference = cell.quantity_variance + cell.price_variance
        cells.append(
            (
                *cell.dimensions(),
                True,
                cell.recorded,
                cell.reported,
                unit,
                cell.price,
                cell.price,
                None,
                cell.usd(cell.recorded),
                cell.usd(cell.reported),
                cell.billed,
                cell.quantity_variance,
                cell.price_variance,
                difference,
            )
        )
        if cell.reported is not None:
            usage.append((*cell.dimensions(), True, cell.api_key_id, cell.reported, cell.usd(cell.reported)))
    outside = (date(2026, 9, 30), "wrkspc_search", "claude-opus-4-7", "standard", "0-200k", "global", "standard")
    if cells:  # the day before is evidence and never shown
        cells.append((*outside, "output_tokens", False, 9, 9, "MTok", 25, 25, None, 9, 9, None, 0, 0, 0))
        usage.append((*outside, "output_tokens", False, None, 9, 9))
    insert(
        connection,
        "matched.cell",
        f"{dimensions}, in_period BOOLEAN, recorded_quantity BIGINT, reported_quantity BIGINT, price_unit VARCHAR,"
        f"list_price_usd {USD}, price_usd {USD}, price_high_usd {USD}, recorded_usd {USD}, reported_usd {USD},"
        f"billed_usd {USD}, quantity_variance_usd {USD}, price_variance_usd {USD}, difference_usd {USD}",
        cells,
    )
    insert(
        connection,
        "matched.usage",
        f"{dimensions}, in_period BOOLEAN, api_key_id VARCHAR, reported_quantity BIGINT, reported_usd {USD}",
        usage,
    )


def _findings(case: Case) -> dict[tuple[Any, ...], list[tuple[Cell | None, Decimal]]]:
    """Parts by place: (reason, log, workspace, model, tier, meter, key)."""
    found: dict[tuple[Any, ...], list[tuple[Cell | None, Decimal]]] = defaultdict(list)
    for reason, log, usd in case.cleaning:
        found[(reason, log, None, None, None, None, None)].append((None, Decimal(usd).quantize(ledger_unit())))
    for cell in case.cells:
        place = (None, cell.workspace_id, cell.model, cell.dimensions()[3], cell.meter, cell.api_key_id)
        for reason, usd in ((cell.why, cell.quantity_variance), (cell.why_price, cell.price_variance)):
            if usd:
                found[(reason, *place)].append((cell, usd))
    return found


def ledger_unit() -> Decimal:
    """The smallest amount of the ledger."""
    return Decimal("0.000000000001")


def _explained(
    connection: duckdb.DuckDBPyConnection, case: Case, found: dict[tuple[Any, ...], list[tuple[Cell | None, Decimal]]]
) -> None:
    billed_usd = sum((Decimal(cell.billed or 0) for cell in case.cells), Decimal(0))
    findings, states, amounts = [], {}, defaultdict(Decimal)
    for place, parts in found.items():
        reason, log, workspace_id, model, tier, meter, api_key_id = place
        usd = sum((part for _, part in parts), Decimal(0))
        beyond = abs(usd) > 1 or abs(usd) * 200 > billed_usd
        accepted = reason in case.accepted
        amounts[reason] += usd
        days = [date(2026, 10, cell.day) for cell, _ in parts if cell]
        quantity = sum((cell.reported or 0) - (cell.recorded or 0) for cell, _ in parts if cell and model) or None
        findings.append(
            (
                hashlib.sha256(repr(place).encode()).hexdigest()[:12],
                reason,
                "measured" if log else "suspected" if reason == "unlogged" else "inferred",
                min(days, default=date(2026, 10, 1)),
                max(days, default=date(2026, 10, case.through)),
                log,
                workspace_id,
                model,
                tier,
                meter,
                api_key_id,
                quantity,
                usd,
                abs(usd),
                beyond,
                accepted,
                json.dumps(case.evidence.get(reason, {"requests": len(parts)})),
            )
        )
        for cell, _ in parts:
            if cell:
                settled = accepted or reason in NEVER
                states[cell.dimensions()] = "tolerated" if not beyond else "explained" if settled else "discrepancy"
    insert(
        connection,
        "explained.finding",
        "id VARCHAR, reason VARCHAR, confidence VARCHAR, day_from DATE, day_to DATE, log VARCHAR,"
        "workspace_id VARCHAR, model VARCHAR, service_tier VARCHAR, meter VARCHAR, api_key_id VARCHAR,"
        f"quantity BIGINT, amount_usd {USD}, moved_usd {USD}, beyond_tolerance BOOLEAN, accepted BOOLEAN,"
        "evidence VARCHAR",
        findings,
    )
    recorded = sum((cell.usd(cell.recorded) or Decimal(0) for cell in case.cells), Decimal(0))
    cleaning = sum((amounts[reason] for reason in ("duplicate", "app_price")), Decimal(0))
    bridge, running = [(1, "total", "logged", "Logged", None, None, recorded - cleaning)], recorded - cleaning
    for position, (reason, title) in enumerate(TITLES.items(), start=1):
        if amounts[reason] or reason == "residual":
            running += amounts[reason]
            bridge.append((position * 10, "step", reason, title, None, amounts[reason], running))
    for reason in ("recorded", "reported", "billed"):
        position = 10 * max(n for n, one in enumerate(reasons.BEFORE_BILLED, start=1) if one.leads_to == reason) + 5
        walked = [row[6] for row in bridge if row[0] < position]
        bridge.append((position, "total", reason, reason.capitalize(), None, None, walked[-1]))
        bridge.sort(key=lambda row: row[0])
    insert(
        connection,
        "explained.bridge",
        f"position INTEGER, kind VARCHAR, reason VARCHAR, title VARCHAR, quantity BIGINT, amount_usd {USD},"
        f"running_usd {USD}",
        bridge,
    )
    words = ("reason", "leads_to", "title", "meaning", "to_do", "confirm")
    insert(
        connection,
        "explained.reason",
        "position INTEGER, " + ", ".join(f"{name} VARCHAR" for name in words),
        [
            (position, one.code, one.leads_to, one.title, one.meaning, one.to_do, one.confirm)
            for position, one in enumerate(reasons.ALL, start=1)
        ],
    )
    insert(
        connection,
        "explained.accepted",
        "finding_id VARCHAR, position INTEGER, standing VARCHAR, who VARCHAR, why VARCHAR, until_on DATE,"
        f"up_to_usd {USD}",
        [
            (row[0], 1, "holds", "Kim", f"A commitment pays for it {HOSTILE}", date(2027, 1, 1), "10")
            for row in findings
            if row[1] in case.accepted
        ],
    )
    insert(connection, "source.warning", "position INTEGER, about VARCHAR, warning VARCHAR", [])
    insert(connection, "explained.warning", "position INTEGER, warning VARCHAR", [])
    insert(
        connection,
        "explained.curve",
        "finding_id VARCHAR, hour_of_day INTEGER, logged_tokens BIGINT, set_right_tokens BIGINT,reported_tokens BIGINT",
        [],
    )
    insert(
        connection,
        "explained.exchange",
        f"finding_id VARCHAR, reason VARCHAR, at_value VARCHAR, is_rest BOOLEAN, quantity BIGINT, amount_usd {USD}",
        [],
    )
    insert(
        connection,
        "explained.cell_status",
        ", ".join(f"{name} {kind}" for name, kind in DIMENSION_COLUMNS.items()) + ", status VARCHAR",
        [(*cell.dimensions(), states.get(cell.dimensions(), "matched")) for cell in case.cells],
    )


def _allocated(connection: duckdb.DuckDBPyConnection, case: Case) -> None:
    parts, pots = [], defaultdict(Decimal)
    exact: dict[str, list[Decimal]] = {name: [Decimal(0), Decimal(0)] for name in [*case.centers, "unallocated"]}
    for cell in case.cells:
        day, workspace_id, model, tier, *_, meter = cell.dimensions()
        usd = Decimal(cell.billed or 0)
        if workspace_id in case.pooled:
            pots[(workspace_id, model, meter)] += usd
        elif usd:
            center = case.direct.get(workspace_id or "", "unallocated")
            basis, rule = ("unallocated", None) if center == "unallocated" else ("direct", f"workspace {workspace_id}")
            exact[center][0] += usd
            parts.append((day, workspace_id, model, tier, meter, None, None, center, basis, rule, None, None, "1", usd))
    for (workspace_id, model, meter), usd in pots.items():
        left = usd
        for n, center in enumerate(case.centers, start=1):
            even = (usd / len(case.centers)).quantize(ledger_unit(), rounding=ROUND_DOWN)
            part, left = (left, Decimal(0)) if n == len(case.centers) else (even, left - even)
            exact[center][1] += part
            share = str(round(Decimal(1) / len(case.centers), 6))
            parts.append(
                (
                    None,
                    workspace_id,
                    model,
                    None,
                    meter,
                    None,
                    None,
                    center,
                    "shared",
                    None,
                    "Default workspace",
                    "even",
                    share,
                    part,
                )
            )
    insert(
        connection,
        "allocated.part",
        "day DATE, workspace_id VARCHAR, model VARCHAR, service_tier VARCHAR, meter VARCHAR, api_key_id VARCHAR,"
        "label VARCHAR, cost_center VARCHAR, basis VARCHAR, rule VARCHAR, pool VARCHAR, driver VARCHAR,"
        f"share DECIMAL(18, 12), amount_usd {USD}, quantity BIGINT",
        [(*part, None) for part in parts],
    )
    _allocated_beside(connection, case, pots)
    printed = iter(_to_the_cent([usd for pair in exact.values() for usd in pair]))
    rows = []
    for center in exact:
        direct, shared = next(printed), next(printed)
        other = Decimal(case.other.get(center, "0"))
        name = case.centers.get(center, "Unallocated")
        rows.append((center, name, direct, shared, direct + shared, other, direct + shared + other))
    insert(
        connection,
        "allocated.chargeback",
        "cost_center VARCHAR, name VARCHAR, direct_usd DECIMAL(38, 2), shared_usd DECIMAL(38, 2),"
        "total_usd DECIMAL(38, 2), other_usd DECIMAL(38, 2), payable_usd DECIMAL(38, 2)",
        rows,
    )
    _compared(connection, case, rows)
    insert(
        connection,
        "allocated.warning",
        "position INTEGER, warning VARCHAR",
        list(enumerate(case.warnings, start=1)),
    )


def _allocated_beside(connection: duckdb.DuckDBPyConnection, case: Case, pots: dict[Any, Decimal]) -> None:
    """What stands beside the parts: words, pools, use, what comes from outside, why it moved, budgets."""
    pool = "Default workspace"
    insert(
        connection,
        "allocated.rule",
        "rule VARCHAR, title VARCHAR",
        [
            (f"workspace {workspace_id}", f"All use in the workspace {case.workspaces.get(workspace_id, workspace_id)}")
            for workspace_id in case.direct
        ],
    )
    insert(connection, "allocated.pool", "position INTEGER, pool VARCHAR, driver VARCHAR", [(0, pool, "even")])
    insert(connection, "allocated.pooled", f"position INTEGER, amount_usd {USD}", [(0, usd) for usd in pots.values()])
    insert(connection, "allocated.passed_on", f"pool VARCHAR, into_pool VARCHAR, outside BOOLEAN, amount_usd {USD}", [])
    insert(connection, "allocated.correction", ", ".join(f"{n} {kind}" for n, kind in PART.items()), [])
    insert(
        connection,
        "allocated.other",
        "on_day DATE, what VARCHAR, reason VARCHAR, cost_center VARCHAR, basis VARCHAR, pool VARCHAR, driver VARCHAR,"
        f"share DECIMAL(9, 6), amount_usd {USD}",
        [
            (date(2026, 10, 31), f"Support {HOSTILE}", None, center, "shared", "Support", "even", "0.5", usd)
            for center, usd in case.other.items()
        ],
    )
    billed = sum((Decimal(cell.billed or 0) for cell in case.cells), Decimal(0))
    nowhere = sum(
        (
            Decimal(cell.billed or 0)
            for cell in case.cells
            if cell.workspace_id not in case.direct and cell.workspace_id not in case.pooled
        ),
        Decimal(0),
    )
    insert(
        connection,
        "allocated.unallocated",
        f"unallocated_usd {USD}, billed_usd {USD}, tolerance_percent DECIMAL(9, 4), beyond_tolerance BOOLEAN",
        [(nowhere, billed, None, False)],
    )
    used = []
    for cell in case.cells:
        if cell.reported is not None and cell.workspace_id not in case.pooled:
            day, workspace_id, model, tier, *_, meter = cell.dimensions()
            requests = cell.reported // 1000 if meter == "output_tokens" else 0
            as_input = 10 * Decimal(cell.billed or 0) if meter == "cache_read_input_tokens" else None
            center = case.direct.get(workspace_id or "", "unallocated")
            usd = Decimal(cell.billed or 0)
            used.append((day, workspace_id, model, tier, meter, center, cell.reported, requests, usd, as_input))
    insert(
        connection,
        "allocated.use",
        "day DATE, workspace_id VARCHAR, model VARCHAR, service_tier VARCHAR, meter VARCHAR, cost_center VARCHAR,"
        f"quantity BIGINT, requests BIGINT, amount_usd {USD}, as_input_usd {USD}",
        used,
    )


def _compared(connection: duckdb.DuckDBPyConnection, case: Case, rows: list[tuple[Any, ...]]) -> None:
    """Movement and budgets from the chargeback: a third of what moved is price, what is left volume."""
    moved = []
    for center, _, _, _, total, *_ in rows:
        change = total - Decimal(case.earlier.get(center, "0"))
        price = (change / 3).quantize(ledger_unit())
        moved += [(center, "price", price), (center, "volume", change - price)] if case.earlier else []
    moved += [(center, "rule", -Decimal(usd)) for center, usd in case.earlier.items() if center not in case.centers]
    insert(connection, "allocated.movement", f"cost_center VARCHAR, effect VARCHAR, amount_usd {USD}", moved)
    budgets = []
    for center, name, _, _, _, _, payable in rows:
        if center in case.budgets:
            month = Decimal(case.budgets[center])
            year, actual, forecast = month * 12, payable * 10, payable * 12
            budgets.append(
                (center, name, month, payable, payable - month, 2026, year, actual, forecast, forecast - year, 304, 365)
            )
    cents = ", ".join(f"{column}_usd DECIMAL(38, 2)" for column in ("month_budget", "month_actual", "month_variance"))
    insert(
        connection,
        "allocated.budget",
        f"cost_center VARCHAR, name VARCHAR, {cents}, year INTEGER, year_budget_usd DECIMAL(38, 2),"
        "year_actual_usd DECIMAL(38, 2), forecast_usd DECIMAL(38, 2), forecast_variance_usd DECIMAL(38, 2),"
        "closed_days INTEGER, year_days INTEGER",
        budgets,
    )


def _to_the_cent(amounts: list[Decimal]) -> list[Decimal]:
    """Largest remainder, written out here so that a test does not check the code by itself."""
    cent = Decimal("0.01")
    floors = [usd.quantize(cent, rounding="ROUND_FLOOR") for usd in amounts]
    left = int((sum(amounts, Decimal(0)).quantize(cent, rounding="ROUND_HALF_UP") - sum(floors, Decimal(0))) / cent)
    order = sorted(range(len(amounts)), key=lambda i: (floors[i] - amounts[i], i))[:left]
    return [floor + (cent if i in order else 0) for i, floor in enumerate(floors)]


def insert(connection: duckdb.DuckDBPyConnection, table: str, columns: str, rows: list[tuple[Any, ...]]) -> None:
    """Create a table and put literal rows into it."""
    connection.execute(f"create or replace table {table} ({columns})")
    if rows:
        connection.executemany(f"insert into {table} values ({', '.join('?' * len(rows[0]))})", rows)
