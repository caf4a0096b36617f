"""A made-up month for tests: pages in the API's shape out of short rows, run through the stages."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import yaml

from reconcile import allocate, explain, ledger, load, match, render, run
from reconcile.config import Config, load_config
from reconcile.period import Period
from reconcile.prices import PriceBook

PERIOD = Period.parse("2026-10")
USAGE = {
    "workspace_id": "wrkspc_a", "model": "claude-opus-4-7", "service_tier": "standard", "context_window": "0-200k",
    "inference_geo": "global", "speed": "standard", "api_key_id": "apikey_a", "account_id": None,
    "service_account_id": None,
}  # fmt: skip
COST = {
    "workspace_id": "wrkspc_a", "model": "claude-opus-4-7", "service_tier": "standard", "context_window": "0-200k",
    "inference_geo": "global", "cost_type": "tokens", "currency": "USD", "description": "Claude Opus 4.7 Usage",
}  # fmt: skip


def usage(at: str, **fields: Any) -> dict[str, Any]:
    """One row of the hourly usage report; ``at`` is its hour. Counters by their short names."""
    row = USAGE | {key: value for key, value in fields.items() if key in USAGE}
    return row | {
        "at": at,
        "uncached_input_tokens": fields.get("input", 0),
        "cache_creation": {
            "ephemeral_5m_input_tokens": fields.get("write_5m", 0),
            "ephemeral_1h_input_tokens": fields.get("write_1h", 0),
        },
        "cache_read_input_tokens": fields.get("read", 0),
        "output_tokens": fields.get("output", 0),
        "server_tool_use": {"web_search_requests": fields.get("searches", 0)},
    }


def cost(day: str, amount: str, token_type: str | None = None, **fields: Any) -> dict[str, Any]:
    """One line of the cost report; ``amount`` in cents."""
    return COST | fields | {"at": f"{day}T00:00:00Z", "amount": amount, "token_type": token_type}


def write_pull(
    folder: Path, usages: Sequence[Mapping[str, Any]], costs: Sequence[Mapping[str, Any]], **more: Any
) -> Path:
    """A complete pull of the period with these rows; ``workspaces`` and ``api_keys`` may be given."""
    folder.mkdir(parents=True)
    first, last = PERIOD.start_on.isoformat(), more.get("through_on", "2026-10-31")
    counters: dict[str, dict[str, Any]] = {}
    for row in usages:
        day = row["at"][:10]
        if first <= day <= last:
            counters.setdefault(day, _nothing() | {"at": f"{day}T00:00:00Z"})
            _add(counters[day], row)
    workspaces = more.get("workspaces", [{"id": "wrkspc_a", "name": "Search"}])
    scope = {"type": "workspace", "workspace_id": "wrkspc_a"}
    keys = more.get("api_keys", [{"id": "apikey_a", "name": "a", "status": "active", "scope": scope}])
    pages = {
        "organization": {"id": "org-1", "name": "Example", "type": "organization"},
        "workspaces": {"data": [{"archived_at": None, "tags": {}} | entry for entry in workspaces], "has_more": False},
        "api_keys": {"data": keys, "has_more": False},
        "usage_hour": _buckets(usages),
        "usage_day": _buckets(list(counters.values())),
        "cost_day": _buckets(costs),
    }
    listed = []
    for kind, body in pages.items():
        content = json.dumps(body).encode()
        (folder / f"{kind}.json").write_bytes(content)
        listed.append({
            "file": f"{kind}.json", "kind": kind, "url": f"/{kind}", "parameters": [], "status": 200,
            "request_id": "req_1", "fetched_at": "2026-11-02T06:00:00Z", "sha256": sha256(content).hexdigest(),
        })  # fmt: skip
    manifest = {
        "manifest": 1, "period": str(PERIOD), "api": "admin", "base_url": "http://127.0.0.1",
        "organization_id": "org-1", "organization": "Example",
        "default_workspace_id": more.get("default_workspace_id", "wrkspc_default"),
        "through_on": more.get("through_on", "2026-10-31"), "pages": listed,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def _nothing() -> dict[str, Any]:
    return usage("", input=0) | {"api_key_id": None, "workspace_id": None, "model": None}


def _add(total: dict[str, Any], row: Mapping[str, Any]) -> None:
    for name in ("uncached_input_tokens", "cache_read_input_tokens", "output_tokens"):
        total[name] += row[name]
    for group in ("cache_creation", "server_tool_use"):
        total[group] = {name: total[group][name] + value for name, value in row[group].items()}


def _buckets(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    by_start: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_start.setdefault(row["at"], []).append({key: value for key, value in row.items() if key != "at"})
    return {
        "data": [{"starting_at": start, "ending_at": start, "results": by_start[start]} for start in sorted(by_start)],
        "has_more": False,
        "next_page": None,
    }


def write_config(folder: Path, **sections: Any) -> Config:
    """A config file in ``folder`` whose only log is ``log.jsonl``, unless ``sections`` say otherwise."""
    content = {
        "organization": "Example",
        "request_logs": [{"name": "app", "path": "log*.jsonl"}],
        "allocation": {
            "cost_centers": {"CC-1": {"name": "Search"}},
            "rules": [{"workspace": "wrkspc_a", "to": "CC-1"}],
        },
    } | sections
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return load_config(path)


@contextmanager
def closed(
    folder: Path,
    usages: Sequence[Mapping[str, Any]],
    costs: Sequence[Mapping[str, Any]],
    lines: Sequence[Mapping[str, Any] | str],
    *,
    config: Config | None = None,
    until: Callable[[duckdb.DuckDBPyConnection], None] | None = None,
    **more: Any,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Run the stages from load to the report's views over this month; the checks are looked at."""
    pulled = load.Pull.read(write_pull(folder / "raw", usages, costs, **more))
    if lines:
        (folder / "log.jsonl").write_text(
            "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
        )
    config = config or write_config(folder, **({} if lines else {"request_logs": []}))
    with ledger.building(folder / "built.duckdb", folder / "tmp") as connection:
        ledger.insert(
            connection,
            "source.run",
            {
                "period": "VARCHAR",
                "start_on": "DATE",
                "end_on": "DATE",
                "through_on": "DATE",
                "organization": "VARCHAR",
                "organization_id": "VARCHAR",
                "revision": "INTEGER",
                "package_version": "VARCHAR",
                "input_digest": "VARCHAR",
                "tolerance_usd": "DECIMAL(38, 12)",
                "tolerance_percent": "DECIMAL(9, 4)",
                "amounts": "VARCHAR",
                "arrangement": "VARCHAR",
                "data_refreshed_at": "TIMESTAMP",
            },
            [
                (
                    str(PERIOD),
                    PERIOD.start_on,
                    PERIOD.end_on,
                    pulled.through_on,
                    "Example",
                    "org-1",
                    1,
                    "0",
                    "0" * 64,
                    config.tolerance.usd,
                    config.tolerance.percent,
                    "auto",
                    "invoiced",
                    pulled.data_refreshed_at,
                )
            ],
        )
        run._take_from_earlier(connection, ())
        load.load_pages(connection, pulled)
        load.load_logs(
            connection, load.find_logs(config.request_logs, PERIOD), PriceBook.read(config.prices.contract), PERIOD,
            config.billing.amounts, lambda what, done, total: None,
        )  # fmt: skip
        match.match(connection)
        explain.explain(connection, config.accepted, config.invoices[0] if config.invoices else None)
        allocate.allocate(
            connection,
            config.allocation,
            budgets=config.budgets,
            unallocated_percent=config.tolerance.unallocated_percent,
        )
        render.publish_views(connection)
        ledger.check(connection)
        yield connection


def line(at: str, request_id: str | None = "req_1", **fields: Any) -> dict[str, Any]:
    """One line of a canonical request log; usage counters by the Messages API's names in ``usage``."""
    return {
        "request_id": request_id,
        "timestamp": at,
        "model": "claude-opus-4-7",
        "workspace_id": "wrkspc_a",
        "api_key_id": "apikey_a",
    } | fields


def tokens(input_tokens: int = 0, output_tokens: int = 0, **more: Any) -> dict[str, Any]:
    """A Messages API usage object."""
    return {"input_tokens": input_tokens, "output_tokens": output_tokens, "inference_geo": "global", **more}


def bridge(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """The bridge as {reason: a step's amount, or a total's figure}, without trailing zeros; residual if any."""
    found = connection.execute("select kind, reason, amount_usd, running_usd from report.bridge order by position")
    steps = {
        reason: format((amount if kind == "step" else running).normalize(), "f")
        for kind, reason, amount, running in found.fetchall()
    }
    if steps.get("residual") == "0":
        del steps["residual"]
    return steps


def days(first: str, count: int) -> list[str]:
    """``count`` days from ``first``, as text."""
    return [(date.fromisoformat(first) + timedelta(days=offset)).isoformat() for offset in range(count)]


def several_logs(folder, lines, **sections):
    """The config of a month whose logs hold these lines, by the log's name."""
    for log, written in lines.items():
        (folder / f"{log}.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in written))
    return write_config(folder, request_logs=[{"name": log, "path": f"{log}.jsonl"} for log in lines], **sections)
