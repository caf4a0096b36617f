"""From the files of the request logs to one row a readable line, in the temporary tables event and origin."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from pathlib import Path

import duckdb

from reconcile.config import RequestLog
from reconcile.errors import SourceError
from reconcile.load import messages, requests
from reconcile.load.csv_files import CsvFiles, broken_records, by_header
from reconcile.load.lines import BYTE_ORDER_MARK, MAX_LINE, USUAL_LINE, csv_places, json_places, literal
from reconcile.period import Period

DAY = timedelta(days=1)
BATCH = 600 << 20
"""About how many bytes of lines are staged at a time, so that what is staged stays in memory."""

_JSON_READERS = {"requests": requests.select_json, "messages": messages.select_json}

_COUNTERS = (
    "input_tokens",
    "cache_write_total",
    "cache_write_5m",
    "cache_write_1h",
    "cache_read_input_tokens",
    "output_tokens",
    "web_search_requests",
)

_EVENT_COLUMNS = {
    "key": "UHUGEINT",
    "request_id": "VARCHAR",
    "log": "USMALLINT",
    "file": "UINTEGER",
    "origin": "UBIGINT",
    "logged_at": "TIMESTAMP",
    "kind": "ENUM('final', 'start', 'delta')",
    "cut": "BOOLEAN",
    **dict.fromkeys(_COUNTERS, "UINTEGER"),
    "cost_usd": "DECIMAL(38, 18)",
    "status": "INTEGER",
    "iterations": "JSON",
}
"""key: the request's id as a number, null for none. log: its place among the names. file: its place in the log.
origin: a hash of all that says where the line comes from, which stands in the table origin."""

_ORIGIN = ("model_logged", "workspace_logged", "key_logged", "tier_logged", "geo_logged", "speed_logged", "labels")


@dataclass(frozen=True)
class Batch:
    """Files of a log that one query reads: of one kind, and not too large together."""

    log: RequestLog
    position: int
    names: tuple[str, ...]
    """All files of the log, of which `files` are some."""
    files: tuple[str, ...]
    table: CsvFiles | None = None

    def select(
        self, connection: duckdb.DuckDBPyConnection, longest: int, *, strict: bool = True, with_text: bool = False
    ) -> str:
        """The reader's query over these files: every field as text."""
        if self.table:
            files = CsvFiles(self.files, self.table.columns, self.table.separator, strict)
            return requests.select_csv(self.log, files, with_text=with_text)
        if self.files[0].endswith(".parquet"):
            return requests.select_parquet(connection, self.log, self.files, with_text=with_text)
        return _JSON_READERS[self.log.format](self.log, self.files, longest, with_text=with_text)

    def holding(self, files: Sequence[str]) -> "Batch":
        """The same for some of its files."""
        return Batch(self.log, self.position, self.names, tuple(files), self.table)


def stage(
    connection: duckdb.DuckDBPyConnection,
    logs: Sequence[tuple[RequestLog, Sequence[Path]]],
    period: Period,
    on_progress: Callable[[str, int, int | None], None],
) -> tuple[Batch, ...]:
    """Fill event, origin, log_count and source.rejected; returns what was read, for whoever must read again."""
    _create(connection)
    positions = {name: position for position, name in enumerate(sorted(log.name for log, _ in logs))}
    read: list[Batch] = []
    for done, (log, files) in enumerate(logs):
        on_progress(f"reading {log.name}", done, len(logs))
        for batch in _batches(log, positions[log.name], files):
            _read(connection, batch, period)
            read.append(batch)
    return tuple(read)


def _create(connection: duckdb.DuckDBPyConnection) -> None:
    spelled = ", ".join(f"{name} {kind}" for name, kind in _EVENT_COLUMNS.items())
    connection.execute(f"""
        create or replace temp table event ({spelled});
        create or replace temp table origin (
            origin UBIGINT, log VARCHAR, {", ".join(f"{name} VARCHAR" for name in _ORIGIN[:-1])},
            labels MAP(VARCHAR, VARCHAR)
        );
        create or replace temp table log_count (
            log VARCHAR, lines BIGINT, rejected BIGINT, outside BIGINT, unused BIGINT
        );
        create or replace table source.rejected (log VARCHAR, file VARCHAR, line BIGINT, why VARCHAR);
        create or replace temp macro whole(t) as case
            when try_cast(t as uinteger)::varchar = t then try_cast(t as uinteger)
            when regexp_full_match(t, '[0-9]+\\.0+') then try_cast(split_part(t, '.', 1) as uinteger)
        end;
        create or replace temp macro instant(t, zone) as case
            when regexp_matches(t, ':[0-9.,]+ ?([zZ]|UTC|[+-][0-9]{{2}}(:?[0-9]{{2}})?)$')
            then try_cast(t as timestamptz)::timestamp
            else timezone(zone, try_cast(t as timestamp))::timestamp
        end;
    """)


def _batches(log: RequestLog, position: int, paths: Sequence[Path]) -> Iterator[Batch]:
    names = tuple(str(path) for path in paths)
    try:
        filled = [path for path in paths if path.stat().st_size]
    except OSError as error:
        raise _unreadable(log, error, "") from None
    for kind, found in groupby(sorted(filled, key=_kind), key=_kind):
        files = list(found)
        if kind != "csv":
            for together in _together(files):
                yield Batch(log, position, names, together)
            continue
        try:
            tables = by_header([str(path) for path in files])
        except OSError as error:
            raise _unreadable(log, error, "") from None
        for table in tables:
            for together in _together([Path(name) for name in table.files]):
                yield Batch(log, position, names, together, table)


def _kind(path: Path) -> str:
    return "parquet" if path.suffix == ".parquet" else "csv" if {".csv", ".tsv"} & set(path.suffixes) else "json"


def _together(paths: Sequence[Path]) -> Iterator[tuple[str, ...]]:
    """Cut a list of files where their lines would be more than a batch; compressed lines are about a tenth."""
    held: list[str] = []
    weight = 0
    for path in sorted(paths):
        size = path.stat().st_size * (10 if path.suffix in {".gz", ".zst", ".parquet"} else 1)
        if held and weight + size > BATCH:
            yield tuple(held)
            held, weight = [], 0
        held.append(str(path))
        weight += size
    if held:
        yield tuple(held)


def _read(connection: duckdb.DuckDBPyConnection, batch: Batch, period: Period) -> None:
    """Stage a batch, keep its lines in the period and a day either side, and count the others."""
    longest, strict = USUAL_LINE, True
    while True:
        try:
            text = batch.select(connection, longest, strict=strict)
            connection.execute(f"create or replace temp table staged as {_typed(batch, text)}")
            break
        except duckdb.Error as error:
            # what is rare is not what is allocated for: long lines, and CSV files that mix line endings
            if longest == USUAL_LINE and "maximum_object_size" in str(error):
                longest = MAX_LINE
            elif batch.table and strict and "state machine" in str(error):
                strict = False
            else:
                raise _unreadable(batch.log, error, _failing(connection, batch, error)) from None
    broken = broken_records(connection) if batch.table else []
    first, end = period.start_on - DAY, period.end_on + DAY
    name = literal(batch.log.name)
    origin = ", ".join(_ORIGIN)
    connection.execute(f"""
        insert into log_count
        select {name}, count(*) + {len(broken)}, count(why) + {len(broken)},
            count(*) filter (why is null and not unused and not (logged_at >= '{first}' and logged_at < '{end}')),
            count(*) filter (why is null and unused)
        from staged;
        delete from staged
        where why is null and (unused or not (logged_at >= '{first}' and logged_at < '{end}'));
        insert into origin
        select origin, {name}, {origin}
        from (select distinct origin, {origin} from staged where why is null)
        where origin not in (select origin from origin);
        insert into event select {", ".join(_EVENT_COLUMNS)} from staged where why is null;
    """)
    bad = {file for file, _, _ in broken} | {
        batch.names[position]
        for (position,) in connection.execute("select distinct file from staged where why is not null").fetchall()
    }
    connection.execute("drop table staged")
    for file in sorted(bad):
        _name_rejected(
            connection, batch.holding([file]), longest, strict, [entry for entry in broken if entry[0] == file]
        )


def _typed(batch: Batch, text: str) -> str:
    """A query: the columns of event and origin, and why the line is rejected (null: it is not)."""
    zone = literal(batch.log.time_zone)
    bad_counters = "\n".join(
        f"when {name} <> '' and whole({name}) is null then"
        f" '{name} is ' || left({name}, 40) || ', expected a whole number of at least 0'"
        for name in _COUNTERS
    )
    all_null = " and ".join(f"nullif({name}, '') is null" for name in _COUNTERS)
    counters = ", ".join(f"whole({name}) as {name}" for name in _COUNTERS)
    return f"""
        select
            *,
            md5_number(request_id) as key,
            hash({batch.position}, {", ".join(_ORIGIN)}) as origin,
        from (
            select
                list_position({_names(batch)}, file)::uinteger - 1 as file, {batch.position} as log, line_text,
                nullif(request_id, '') as request_id, instant("timestamp", {zone}) as logged_at,
                case event when 'message_start' then 'start' when 'message_delta' then 'delta' else 'final' end as kind,
                cut, unused, model as model_logged, nullif(workspace_id, '') as workspace_logged,
                nullif(api_key_id, '') as key_logged, nullif(service_tier, '') as tier_logged,
                nullif(inference_geo, '') as geo_logged, nullif(speed, '') as speed_logged, {counters},
                try_cast(cost_usd as decimal(38, 18)) as cost_usd, try_cast(status as integer) as status,
                case when json_type(iterations) = 'ARRAY' then iterations end as iterations, labels,
                case
                    when unread is not null then unread
                    when coalesce("timestamp", '') = '' then 'has no timestamp'
                    when not coalesce(isfinite(instant("timestamp", {zone})), false)
                        then 'timestamp is ' || left("timestamp", 40)
                            || ', expected an instant like 2026-10-03T14:05:06Z'
                    when unused then null
                    when event not in ('', 'final', 'message_start', 'message_delta')
                        then 'event is ' || left(event, 40) || ', expected final, message_start or message_delta'
                    when trim(coalesce(model, '')) = '' then 'has no model'
                    {bad_counters}
                    when cost_usd <> '' and try_cast(cost_usd as decimal(38, 18)) is null
                        then 'cost_usd is ' || left(cost_usd, 40) || ', expected an amount in USD'
                    when coalesce(event, '') in ('', 'final') and coalesce(try_cast(status as integer), 200) < 400
                        and {all_null} then 'has no usage'
                end as why,
            from ({text})
        )
    """


def _names(batch: Batch) -> str:
    return "[" + ", ".join(literal(name) for name in batch.names) + "]::varchar[]"


def _name_rejected(
    connection: duckdb.DuckDBPyConnection,
    batch: Batch,
    longest: int,
    strict: bool,
    broken: Sequence[tuple[str, int, str]],
) -> None:
    """Read one file again in its order, to say on which line each rejected one stands.

    The reader's rows are the file's records in order, less the blank ones and those that it left out (``broken``).
    """
    (file,) = batch.files
    connection.execute("set preserve_insertion_order = true")
    try:
        typed = _typed(batch, batch.select(connection, longest, strict=strict))
        rejected = connection.execute(f"""
            select * from (select row_number() over () as position, why from ({typed})) where why is not null
        """).fetchall()
        if batch.table:
            broken_records(connection)
    finally:
        connection.execute("set preserve_insertion_order = false")
    left_out = {record: why for _, record, why in broken}
    found = sorted(_lines_of(file, dict(rejected), left_out, is_csv=bool(batch.table)))
    connection.execute(
        "insert into source.rejected select ?, ?, unnest(?::bigint[]), unnest(?::varchar[])",
        [batch.log.name, Path(file).name, [line for line, _ in found], [why for _, why in found]],
    )


def _lines_of(
    file: str, rejected: Mapping[int, str], left_out: Mapping[int, str], *, is_csv: bool
) -> Iterator[tuple[int, str]]:
    """The line and the why of rejected rows (by position among the rows) and of records left out (the header is 1)."""
    if file.endswith(".parquet"):
        yield from rejected.items()
    elif is_csv:
        position = 0
        for record, (line, text) in enumerate(csv_places(file), start=1):
            if record in left_out:
                yield line, left_out[record]
            elif text and record > 1:
                position += 1
                if position in rejected:
                    yield line, rejected[position]
    else:
        for position, (line, text) in enumerate(json_places(file), start=1):
            if position in rejected:
                marked = text.startswith(BYTE_ORDER_MARK)
                yield (
                    line,
                    "begins with a byte order mark: write the file as UTF-8 without one"
                    if marked
                    else rejected[position],
                )


def read_tied(connection: duckdb.DuckDBPyConnection, batches: Sequence[Batch]) -> None:
    """Give the lines in the table tied their text, by reading only the files that hold them once more."""
    wanted = connection.execute("select distinct log, file from tied order by all").fetchall()
    for batch in batches:
        files = [
            batch.names[file] for log, file in wanted if log == batch.position and batch.names[file] in batch.files
        ]
        if not files:
            continue
        again = batch.holding(files)
        text = again.select(connection, MAX_LINE, strict=False, with_text=True)
        try:
            connection.execute(f"""
                create or replace temp table again as select *, null::varchar as line_text from event limit 0;
                insert into again
                select {", ".join(_EVENT_COLUMNS)}, line_text
                from ({_typed(again, text)})
                where why is null and key in (select key from tied);
                update tied set line_text = found.line_text
                from (
                    select log, file, key, content(again) as content, max(line_text) as line_text
                    from again
                    group by all
                ) as found
                where found.log = tied.log and found.file = tied.file and found.key = tied.key
                    and found.content = tied.content;
                drop table again;
            """)
        except duckdb.Error as error:
            raise _unreadable(batch.log, error, _failing(connection, batch, error)) from None
        if batch.table:
            broken_records(connection)


def _failing(connection: duckdb.DuckDBPyConnection, batch: Batch, error: duckdb.Error) -> str:
    """The file that an error is about, where its text does not say."""
    if any(file in str(error) for file in batch.files):
        return ""
    for file in batch.files:
        try:
            text = batch.holding([file]).select(connection, MAX_LINE, strict=False)
            connection.execute(f"select count(columns(*)) from ({text})")
        except duckdb.Error:
            return f"{file}: "
    return ""


def _unreadable(log: RequestLog, error: duckdb.Error | OSError, file: str) -> Exception:
    """What to raise for a file that DuckDB cannot read. Memory and disk are no matter of a file."""
    if isinstance(error, duckdb.OutOfMemoryException) or "No space left" in str(error):
        return error
    return SourceError(
        f"request_logs: {log.name}",
        f"a file cannot be read: {file}{str(error).splitlines()[0]}",
        "Repair the file or take it away; nothing was published",
    )
