"""The provider's side: pages as received -> schema source, in the words of the ledger."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb

from reconcile import ledger
from reconcile.errors import InvariantError, SourceError
from reconcile.money import SCALE, at_scale, usd_from_cents

DEFAULT_WORKSPACE = "default"

_COUNTERS = {
    "uncached_input_tokens": "uncached_input_tokens",
    "cache_creation.ephemeral_5m_input_tokens": "cache_creation.ephemeral_5m_input_tokens",
    "cache_creation.ephemeral_1h_input_tokens": "cache_creation.ephemeral_1h_input_tokens",
    "cache_read_input_tokens": "cache_read_input_tokens",
    "output_tokens": "output_tokens",
    "web_search_requests": "server_tool_use.web_search_requests",
}
_TEXT_FIELDS = (
    "workspace_id",
    "model",
    "service_tier",
    "context_window",
    "inference_geo",
    "speed",
    "api_key_id",
    "account_id",
    "service_account_id",
)
_USAGE_ROW = (
    "STRUCT("
    + ", ".join(f"{name} VARCHAR" for name in _TEXT_FIELDS)
    + ", uncached_input_tokens VARCHAR, cache_read_input_tokens VARCHAR, output_tokens VARCHAR"
    + ", cache_creation STRUCT(ephemeral_5m_input_tokens VARCHAR, ephemeral_1h_input_tokens VARCHAR)"
    + ", server_tool_use STRUCT(web_search_requests VARCHAR))"
)
_COST_ROW = (
    "STRUCT(amount JSON, currency VARCHAR, workspace_id VARCHAR, description VARCHAR, cost_type VARCHAR, model VARCHAR,"
    " token_type VARCHAR, service_tier VARCHAR, context_window VARCHAR, inference_geo VARCHAR, speed VARCHAR)"
)


@dataclass(frozen=True)
class Page:
    """One page of a pull: its place in the manifest and where its bytes lie."""

    path: Path
    kind: str
    url: str
    fetched_at: datetime
    request_id: str | None
    sha256: str


@dataclass(frozen=True)
class Pull:
    """A complete pull: what its manifest says, its pages' bodies checked against their digests."""

    folder: Path
    pages: tuple[Page, ...]
    organization: str
    organization_id: str
    default_workspace_id: str | None
    through_on: date

    @classmethod
    def read(cls, folder: Path) -> "Pull":
        """Read a folder that ``pull`` completed.

        Raises ``InvariantError`` when a page is not the one that was pulled.
        """
        path = folder / "manifest.json"
        try:
            manifest = json.loads(path.read_bytes())
            pages = tuple(
                Page(
                    path=folder / entry["file"],
                    kind=entry["kind"],
                    url=entry["url"],
                    fetched_at=datetime.fromisoformat(entry["fetched_at"]),
                    request_id=entry["request_id"],
                    sha256=entry["sha256"],
                )
                for entry in manifest["pages"]
            )
            pull = cls(
                folder=folder,
                pages=pages,
                organization=manifest["organization"],
                organization_id=manifest["organization_id"],
                default_workspace_id=manifest.get("default_workspace_id"),
                through_on=date.fromisoformat(manifest["through_on"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvariantError(
                str(path), f"cannot be read as a pull's manifest ({error!r})", "Pull the month anew"
            ) from None
        for page in pull.pages:
            pull._verify(page)
        return pull

    def _verify(self, page: Page) -> None:
        try:
            found = sha256(page.path.read_bytes()).hexdigest()
        except OSError as error:
            found = f"nothing ({error.strerror})"
        if found != page.sha256:
            raise InvariantError(
                str(page.path),
                f"the manifest has sha256 {page.sha256}, the file has {found}",
                "Something changed the page after it was pulled: restore it, or pull the month anew",
            )

    def of(self, kind: str) -> tuple[Page, ...]:
        """The pages of one kind, in order."""
        return tuple(page for page in self.pages if page.kind == kind)

    @property
    def data_refreshed_at(self) -> datetime:
        """The provider's watermark; the Admin API has none, so the pull's earliest fetch."""
        return min(page.fetched_at for page in self.pages)

    def digest(self) -> str:
        """SHA-256 over the pages' bodies, without times and request ids."""
        lines = sorted(f"{page.kind} {page.path.name} {page.sha256}" for page in self.pages)
        return sha256("\n".join(lines).encode()).hexdigest()


def load_pages(connection: duckdb.DuckDBPyConnection, pull: Pull) -> None:
    """Fill source.page, workspace, workspace_alias, api_key, usage, usage_day and billed from a pull's pages.

    Raises ``SourceError`` for a page that is not what the API documents, or an amount that is not one in USD.
    """
    _load_directory(connection, pull)
    _load_usage(connection, pull)
    _load_billed(connection, pull)
    sizes = dict(
        connection.execute(
            "select file, count(*) from (select file from source.usage_row union all select file from source.billed)"
            " group by file"
        ).fetchall()
    )
    ledger.insert(
        connection,
        "source.page",
        {
            "file": "VARCHAR",
            "kind": "VARCHAR",
            "url": "VARCHAR",
            "fetched_at": "TIMESTAMP",
            "request_id": "VARCHAR",
            "sha256": "VARCHAR",
            "rows": "BIGINT",
        },
        [
            (
                page.path.name,
                page.kind,
                page.url,
                page.fetched_at.replace(tzinfo=None),
                page.request_id,
                page.sha256,
                sizes.get(page.path.name, 0),
            )
            for page in pull.pages
        ],
    )
    connection.execute("drop table source.usage_row")


def days_that_disagree(connection: duckdb.DuckDBPyConnection) -> tuple[date, ...]:
    """Days of the period on which the grouped usage does not sum to the ungrouped: pull these once more."""
    found = connection.execute("select distinct day from checks.reported_not_the_control_total order by day").fetchall()
    return tuple(day for (day,) in found)


def _entries(pages: Sequence[Page]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for page in pages:
        try:
            body = json.loads(page.path.read_bytes())
            found.extend(body.get("data", [body]))
        except (ValueError, TypeError) as error:
            raise _malformed(page.path, str(error)) from None
    return found


def _malformed(path: Path, why: str) -> SourceError:
    return SourceError(str(path), f"is not a page as the API documents it ({why})", "Pull the month anew")


def _load_directory(connection: duckdb.DuckDBPyConnection, pull: Pull) -> None:
    default_id = pull.default_workspace_id
    workspaces: dict[str, tuple[object, ...]] = {}
    for entry in _entries(pull.of("workspaces") + pull.of("workspace")):
        tagged_id = entry["id"]
        name = DEFAULT_WORKSPACE if tagged_id == default_id else tagged_id
        geo = (entry.get("data_residency") or {}).get("default_inference_geo")
        workspaces[name] = (
            name,
            entry.get("name") or tagged_id,
            entry.get("archived_at") is not None,
            geo if geo in {"global", "us"} else None,
            json.dumps(entry.get("tags") or {}, sort_keys=True, ensure_ascii=False),
        )
    workspaces.setdefault(DEFAULT_WORKSPACE, (DEFAULT_WORKSPACE, "Default", False, None, "{}"))
    ledger.insert(
        connection,
        "source.workspace",
        {
            "workspace_id": "VARCHAR",
            "name": "VARCHAR",
            "archived": "BOOLEAN",
            "default_inference_geo": "VARCHAR",
            "tags": "VARCHAR",
        },
        sorted(workspaces.values(), key=lambda row: str(row[0])),
    )
    ledger.insert(
        connection,
        "source.workspace_alias",
        {"logged": "VARCHAR", "workspace_id": "VARCHAR"},
        [
            *([(default_id, DEFAULT_WORKSPACE)] if default_id else []),
            *_by_name(((str(row[1]), str(row[0])) for row in workspaces.values()), "wrkspc_"),
        ],
    )
    keys: dict[str, tuple[object, ...]] = {}
    for entry in _entries(pull.of("api_keys")):
        keys[entry["id"]] = (
            entry["id"],
            entry.get("name"),
            entry.get("status"),
            _workspace_of_key(entry, default_id),
            (entry.get("created_by") or {}).get("id"),
            entry.get("partial_key_hint"),
        )
    ledger.insert(
        connection,
        "source.api_key",
        {
            "api_key_id": "VARCHAR",
            "name": "VARCHAR",
            "status": "VARCHAR",
            "workspace_id": "VARCHAR",
            "created_by_id": "VARCHAR",
            "partial_key_hint": "VARCHAR",
        },
        sorted(keys.values(), key=lambda row: str(row[0])),
    )
    ledger.insert(
        connection,
        "source.key_alias",
        {"logged": "VARCHAR", "api_key_id": "VARCHAR"},
        _by_name(((str(row[1]), str(row[0])) for row in keys.values() if row[1]), "apikey_"),
    )


def _by_name(named: Iterable[tuple[str, str]], prefix: str) -> list[tuple[str, str]]:
    """The names that stand for exactly one id, with it: a log may hold them instead, unless they look like ids."""
    ids: dict[str, list[str]] = {}
    for name, tagged_id in named:
        ids.setdefault(name, []).append(tagged_id)
    return [
        (name, found[0])
        for name, found in sorted(ids.items())
        if len(found) == 1 and name != DEFAULT_WORKSPACE and not name.startswith(prefix)
    ]


def _workspace_of_key(entry: dict[str, Any], default_id: str | None) -> str | None:
    scope = entry.get("scope")
    if scope is None:  # the older shape, in which null is the default workspace
        return entry.get("workspace_id") or DEFAULT_WORKSPACE
    tagged_id = scope.get("workspace_id")
    return DEFAULT_WORKSPACE if tagged_id is not None and tagged_id == default_id else tagged_id


def _load_usage(connection: duckdb.DuckDBPyConnection, pull: Pull) -> None:
    _read_buckets(connection, "source.usage_row", _USAGE_ROW, pull.of("usage_hour"))
    _read_buckets(connection, "source.usage_total", _USAGE_ROW, pull.of("usage_day"))
    for table in ("source.usage_row", "source.usage_total"):
        for path in _COUNTERS.values():
            _refuse_bad_counter(connection, table, path, pull)
    counters = ", ".join(
        f"{{'meter': '{meter}', 'quantity': result.{path}::bigint}}" for meter, path in _COUNTERS.items()
    )
    of_tokens = "case when counter.meter <> 'web_search_requests' then"
    connection.execute(f"""
        create or replace table source.usage as
        with counted as (
            select starting_at, result, unnest([{counters}]) as counter from source.usage_row
        )
        select
            starting_at as hour,
            starting_at::date as day,
            coalesce(alias.workspace_id, result.workspace_id, '{DEFAULT_WORKSPACE}') as workspace_id,
            {of_tokens} result.model end as model,
            {of_tokens} coalesce(result.service_tier, 'standard') end as service_tier,
            {of_tokens} coalesce(result.context_window, '0-200k') end as context_window,
            {of_tokens} coalesce(result.inference_geo, 'not_available') end as inference_geo,
            {of_tokens} coalesce(result.speed, 'standard') end as speed,
            counter.meter as meter,
            result.api_key_id as api_key_id,
            result.account_id as account_id,
            result.service_account_id as service_account_id,
            sum(counter.quantity)::bigint as quantity,
            starting_at::date between run.start_on and run.through_on as in_period,
        from counted
        left join source.workspace_alias as alias on alias.logged = result.workspace_id
        cross join source.run as run
        where counter.quantity > 0
        group by all
    """)
    totals = " union all ".join(
        f"select starting_at::date as day, '{meter}' as meter, sum(result.{path}::bigint)::bigint as quantity"
        " from source.usage_total group by all"
        for meter, path in _COUNTERS.items()
    )
    connection.execute(f"""
        create or replace table source.usage_day as
        select day, meter, quantity from ({totals}) where quantity > 0
    """)
    connection.execute("drop table source.usage_total")
    connection.execute("""
        create or replace view checks.reported_not_the_control_total as
        select day, meter, coalesce(grouped.quantity, 0) as grouped, coalesce(control.quantity, 0) as ungrouped
        from (select day, meter, sum(quantity)::bigint as quantity from source.usage where in_period group by all)
            as grouped
        full join source.usage_day as control using (day, meter)
        where coalesce(grouped.quantity, 0) <> coalesce(control.quantity, 0)
    """)


def _read_buckets(connection: duckdb.DuckDBPyConnection, table: str, row: str, pages: Sequence[Page]) -> None:
    """One row a result of the pages' buckets: file, starting_at (UTC), result."""
    bucket = f"STRUCT(starting_at VARCHAR, results {row}[])[]"
    largest = max(page.path.stat().st_size for page in pages) + 1024
    try:
        connection.execute(
            f"""
            create or replace table {table} as
            select
                parse_filename(filename) as file,
                bucket.starting_at::timestamptz::timestamp as starting_at,
                unnest(bucket.results) as result,
            from (
                select filename, unnest("data") as bucket
                from read_json(
                    ?, format = 'unstructured', columns = {{"data": '{bucket}'}}, filename = true,
                    maximum_object_size = {largest}
                )
            )
            """,
            [[str(page.path) for page in pages]],
        )
    except duckdb.Error as error:
        raise _malformed(pages[0].path.parent, str(error).splitlines()[0]) from None


def _refuse_bad_counter(connection: duckdb.DuckDBPyConnection, table: str, path: str, pull: Pull) -> None:
    found = connection.execute(
        f"select file, result.{path} from {table} where not regexp_full_match(result.{path}, '[0-9]{{1,18}}') limit 1"
    ).fetchone()
    if found:
        raise SourceError(
            str(pull.folder / found[0]),
            f"{path} is {found[1]!r}, expected a whole number of at least 0",
            "Pull the month anew; if it stays, report it to the provider",
        )


def _load_billed(connection: duckdb.DuckDBPyConnection, pull: Pull) -> None:
    _read_buckets(connection, "source.cost_row", _COST_ROW, pull.of("cost_day"))
    _refuse_ungrouped_costs(connection, pull)
    texts = connection.execute("select distinct result.amount::varchar from source.cost_row").fetchall()
    amounts = []
    for (raw,) in texts:
        amount_usd = usd_from_cents(str(json.loads(raw, parse_float=str, parse_int=str)) if raw else "null")
        amounts.append((raw, at_scale(amount_usd), bool(amount_usd % SCALE)))
    ledger.insert(
        connection, "source.amount", {"raw": "VARCHAR", "amount_usd": "DECIMAL(38, 12)", "finer": "BOOLEAN"}, amounts
    )
    connection.execute(f"""
        create or replace table source.billed as
        select
            file,
            starting_at::date as day,
            coalesce(alias.workspace_id, result.workspace_id, '{DEFAULT_WORKSPACE}') as workspace_id,
            case when result.cost_type = 'tokens' then result.model end as model,
            case when result.cost_type = 'tokens' then coalesce(result.service_tier, 'standard') end as service_tier,
            case when result.cost_type = 'tokens' then coalesce(result.context_window, '0-200k') end as context_window,
            case when result.cost_type = 'tokens' then coalesce(result.inference_geo, 'not_available') end
                as inference_geo,
            case when result.cost_type = 'tokens' then result.speed end as speed,
            case
                when result.cost_type = 'tokens' then result.token_type
                when result.cost_type = 'web_search' then 'web_search_requests'
                else result.cost_type
            end as meter,
            result.cost_type as cost_type,
            result.description as description,
            amount.amount_usd as billed_usd,
            amount.finer as finer,
            amount.raw as amount_text,
        from source.cost_row
        left join source.workspace_alias as alias on alias.logged = result.workspace_id
        join source.amount as amount on amount.raw = result.amount::varchar
    """)
    connection.execute("drop table source.cost_row; drop table source.amount")


def _refuse_ungrouped_costs(connection: duckdb.DuckDBPyConnection, pull: Pull) -> None:
    found = connection.execute("""
        select file, 'currency is ' || coalesce(result.currency, 'null') || ', expected USD'
        from source.cost_row where upper(result.currency) is distinct from 'USD'
        union all
        select file, 'cost_type is null although the report was grouped by description'
        from source.cost_row where result.cost_type is null
        union all
        select file, 'a line of tokens has no model or token_type: ' || coalesce(result.description, 'no description')
        from source.cost_row where result.cost_type = 'tokens' and (result.model is null or result.token_type is null)
        order by all limit 1
    """).fetchone()
    if found:
        raise SourceError(
            str(pull.folder / found[0]), found[1], "Nothing is converted or guessed: see what the provider changed"
        )


def billed_total(connection: duckdb.DuckDBPyConnection) -> Decimal:
    """The sum of the cost report's lines, USD."""
    total: Decimal = connection.execute("select coalesce(sum(billed_usd), 0) from source.billed").fetchall()[0][0]
    return total
