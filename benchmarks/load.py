"""How long the heavy step takes: a month of request logs, against a plain gzip read of the same bytes.

    python benchmarks/load.py [--requests 5000000]

Generates the logs into a temporary folder (with DuckDB, removed after), then measures in a process each, one after the
other: reading every byte through gzip, and `load_logs` (staging, folding, prices, source.request). Peak memory is the
process's largest resident set; the ledger's memory_limit holds for DuckDB's part of it.
"""

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True)
class Measured:
    """What a step took, in a process of its own."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    """The largest resident set of the process, Python and libraries included."""
    did: str


@contextmanager
def measuring(spent: list[float]) -> Iterator[None]:
    """Add the seconds by the wall clock and by the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    yield
    spent.extend((time.perf_counter() - wall, time.process_time() - processor))


def read_plainly(folder: Path, spent: list[float]) -> str:
    """Decompress every file, and look at nothing."""
    size = 0
    with measuring(spent):
        for path in sorted(folder.glob("*.jsonl.gz")):
            with gzip.open(path) as stream:
                while chunk := stream.read(1 << 20):
                    size += len(chunk)
    return f"{size / 1e6:,.0f} MB"


def load_them(folder: Path, spent: list[float]) -> str:
    """Build a ledger up to the end of stage load."""
    ids = [(identifier("wrkspc_", number), identifier("apikey_", number)) for number in range(WORKSPACES)]
    log = RequestLog(name="bench", path=str(folder / "{day}.jsonl.gz"), labels=["team"])
    with tempfile.TemporaryDirectory() as made:
        room = Path(made)
        pulled = load.Pull.read(
            write_pull(
                room / "raw", [], [],
                workspaces=[{"id": workspace, "name": workspace} for workspace, _ in ids],
                api_keys=[{"id": key, "name": key, "status": "active",
                           "scope": {"type": "workspace", "workspace_id": workspace}} for workspace, key in ids],
            )
        )  # fmt: skip
        with ledger.building(room / "bench.duckdb", room / "scratch") as connection:
            connection.execute(f"""
                set enable_progress_bar = false;
                create table source.run as
                select '{PERIOD}' as period, date '{PERIOD.start_on}' as start_on, date '{PERIOD.end_on}' as end_on,
                    date '{PERIOD.end_on - timedelta(days=1)}' as through_on, 'auto' as amounts
            """)
            load.load_pages(connection, pulled)
            with measuring(spent):
                load.load_logs(
                    connection, load.find_logs([log], PERIOD), PriceBook.read([]), PERIOD, "auto", lambda *_: None
                )
            requests, lines = connection.execute(
                "select (select count(*) from source.request), (select sum(lines) from source.log)"
            ).fetchall()[0]
            ledger.check(connection)
    return f"{requests:,} requests on {lines:,} lines"


STEPS = {"gzip read": read_plainly, "load": load_them}


def measured(step: str, folder: Path) -> Measured:
    """Run a step in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--step", step, "--folder", str(folder)], check=True, stdout=subprocess.PIPE
    )
    return Measured(**json.loads(done.stdout))


def main() -> None:
    """Generate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=5_000_000)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="keep the generated logs here, and take them from here")
    asked = parser.parse_args()
    if asked.step:
        spent: list[float] = []
        did = STEPS[asked.step](asked.folder, spent)
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(asdict(Measured(*spent, peak_bytes, did))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.glob("*.jsonl.gz")):
            generate(folder, asked.requests)
        found = {step: measured(step, folder) for step in STEPS}
    print(f"{'step':<10}{'wall s':>9}{'cpu s':>9}{'peak MB':>9}  did")
    for step, one in found.items():
        print(f"{step:<10}{one.seconds:>9.1f}{one.cpu_seconds:>9.1f}{one.peak_bytes / 1e6:>9.0f}  {one.did}")
    plain, loaded = found.values()
    print(
        f"load takes {loaded.seconds / plain.seconds:.1f} times the wall clock and"
        f" {loaded.cpu_seconds / plain.cpu_seconds:.1f} times the processor of a plain gzip read of the same bytes"
        f" ({os.cpu_count()} cores, memory_limit {ledger.MEMORY_LIMIT})"
    )


if __name__ == "__main__":
    main()
