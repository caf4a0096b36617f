"""How long the heavy step takes: a month of request logs, against a plain gzip read of the same bytes.

    python benchmarks/load.py [--requests 5000000]

Generates the logs into a temporary folder (with DuckDB, removed after), then measures in a process each, one after the
other: reading every byte through gzip, and `load_logs` (staging, folding, prices, source.request). Peak memory is the
process's largest resident set; the ledger's memory_limit holds for DuckDB's part of it.
"""

import argparse
import gzip
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import duckdb

from reconcile import ledger, load
from reconcile.config import RequestLog
from reconcile.period import Period
from reconcile.prices import PriceBook

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from month import write_pull

PERIOD = Period.parse("2026-10")
MODELS = ("claude-opus-4-7", "claude-opus-4-6", "claude-sonnet-4-6", "claude-sonnet-5-5", "claude-haiku-5-5",
          "claude-opus-5-5", "claude-sonnet-5", "claude-haiku-4-5-20251001")  # fmt: skip
WORKSPACES = 40
STREAMS, COPIES = 26, 4
"""Of a hundred requests, those that are logged as two stream events, and those that are logged twice: 1.3 lines each."""


def identifier(prefix: str, number: int) -> str:
    """An id as long as the API's."""
    return f"{prefix}01{number:022d}"


def generate(folder: Path, requests: int) -> None:
    """One file a day, ``requests`` requests over the month, written by DuckDB from hashes of a counter."""
    connection = duckdb.connect(config={"memory_limit": ledger.MEMORY_LIMIT, "temp_directory": str(folder)})
    connection.execute("set enable_progress_bar = false")
    connection.execute("set TimeZone = 'UTC'")
    days = list(PERIOD.days())
    for position, day in enumerate(days):
        first, end = (requests * at // len(days) for at in (position, position + 1))
        connection.execute(f"""
            copy (
                with request as (
                    select range as i, hash(range) as h from range({first}, {end})
                ),
                drawn as (
                    select *, hash(h) as g,
                        'req_011C' || upper(left(md5(i::varchar), 20)) as request_id,
                        timestamp '{day}' + to_microseconds(((i - {first}) * 86390000000 // {max(1, end - first)})::bigint) as began,
                        h % 100 < {STREAMS} as streams, h % 100 >= {100 - COPIES} as twice,
                        case when h % 7 < 3 then 0 else (h // 100 % 3000) end::bigint as written,
                        case when h % 5 < 2 then 0 else (h // 1000 % 150000) end::bigint as read_tokens,
                        50 + (h // 10000 % 20000)::bigint as input_tokens, 5 + (h // 100000 % 1500)::bigint as output_tokens,
                    from request
                ),
                event as (
                    select *, unnest(if(streams, [1, 2], if(twice, [0, 3], [0]))) as part from drawn
                )
                select
                    request_id,
                    strftime(began + to_milliseconds(if(part > 1, 900 + (g % 4000)::bigint, 0)), '%Y-%m-%dT%H:%M:%S.%gZ') as timestamp,
                    {list(MODELS)}[1 + (h // 17 % {len(MODELS)})::int] as model,
                    'wrkspc_01' || lpad((h // 31 % {WORKSPACES})::varchar, 22, '0') as workspace_id,
                    'apikey_01' || lpad((h // 31 % {WORKSPACES})::varchar, 22, '0') as api_key_id,
                    case part when 1 then 'message_start' when 2 then 'message_delta' else 'final' end as event,
                    {{
                        'input_tokens': input_tokens, 'cache_creation_input_tokens': written,
                        'cache_read_input_tokens': read_tokens,
                        'cache_creation': if(part = 2, null, {{
                            'ephemeral_5m_input_tokens': written, 'ephemeral_1h_input_tokens': 0
                        }}),
                        'output_tokens': if(part = 1, 2, output_tokens),
                        'service_tier': if(part = 2, null, 'standard'),
                        'inference_geo': if(part = 2, null, 'global')
                    }} as usage,
                    200 as status,
                    {{'team': ['search', 'ads', 'infra'][1 + (g % 3)::int], 'trace': md5(h::varchar)}} as labels
                from event
            ) to '{folder}/{day}.jsonl.gz' (format json, compression gzip)
        """)


def read_plainly(folder: Path) -> dict[str, float]:
    """Decompress every file, and look at nothing."""
    size = 0
    for path in sorted(folder.glob("*.jsonl.gz")):
        with gzip.open(path) as stream:
            while chunk := stream.read(1 << 20):
                size += len(chunk)
    return {"bytes": size}


def read_as_load_does(folder: Path) -> dict[str, float]:
    """Build a ledger up to the end of stage load."""
    ids = [(identifier("wrkspc_", number), identifier("apikey_", number)) for number in range(WORKSPACES)]
    pulled = load.Pull.read(
        write_pull(
            folder / "raw", [], [],
            workspaces=[{"id": workspace, "name": workspace} for workspace, _ in ids],
            api_keys=[{"id": key, "name": key, "status": "active",
                       "scope": {"type": "workspace", "workspace_id": workspace}} for workspace, key in ids],
        )
    )  # fmt: skip
    log = RequestLog(name="bench", path=str(folder / "{day}.jsonl.gz"), labels=["team"])
    with ledger.building(folder / "bench.duckdb", folder / "scratch") as connection:
        connection.execute(f"""
            create table source.run as
            select '{PERIOD}' as period, date '{PERIOD.start_on}' as start_on, date '{PERIOD.end_on}' as end_on,
                date '{PERIOD.end_on - timedelta(days=1)}' as through_on, 'auto' as amounts
        """)
        load.load_pages(connection, pulled)
        started = time.perf_counter()

        def told(what: str, done: int, total: int | None) -> None:
            pass

        load.load_logs(connection, load.find_logs([log], PERIOD), PriceBook.read([]), PERIOD, "auto", told)
        seconds = time.perf_counter() - started
        requests, lines, removed = connection.execute("""
            select (select count(*) from source.request), (select sum(lines) from source.log),
                (select sum(lines) from source.removed)
        """).fetchall()[0]
        ledger.check(connection)
    return {"load_seconds": seconds, "requests": requests, "lines": int(lines), "removed": int(removed)}


STEPS = {"gzip": read_plainly, "load": read_as_load_does}


def measured(step: str, folder: Path) -> dict[str, float]:
    """Run a step in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--step", step, "--folder", str(folder)], check=True, stdout=subprocess.PIPE
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Generate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=5_000_000)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="keep the generated logs here, and take them from here")
    asked = parser.parse_args()
    if asked.step:
        started = time.perf_counter()
        found = STEPS[asked.step](asked.folder)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "peak_bytes": peak, **found}))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.glob("*.jsonl.gz")):
            generate(folder, asked.requests)
        plain, loaded = measured("gzip", folder), measured("load", folder)
    ratio = loaded["load_seconds"] / plain["seconds"]
    print(f"{'step':<12}{'seconds':>10}{'peak MB':>10}")
    for name, seconds, peak in (
        ("gzip read", plain["seconds"], plain["peak_bytes"]),
        ("load", loaded["load_seconds"], loaded["peak_bytes"]),
    ):
        print(f"{name:<12}{seconds:>10.1f}{peak / 1e6:>10.0f}")
    print(
        f"{loaded['requests']:,} requests on {loaded['lines']:,} lines: {ratio:.1f} times a plain gzip read of the same bytes"
    )


if __name__ == "__main__":
    main()
