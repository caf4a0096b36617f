"""What whole logs get wrong, several things at once: one month, each workspace with a key and a log of its own."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from random import Random

import pytest
from month import closed, line, usage, write_config

from reconcile import explain, ledger
from reconcile.explain import requests_behind

NAMES = ("swaps", "fetched", "early", "sums", "both", "hourly", "noisy", "queued", "tried")
ELSE = "claude-opus-4-6"
NOISE = (10, 30)  # requests of one day, hours apart


def requests(seed: str, count: int) -> Iterator[tuple[datetime, tuple[int, int, int, int, int]]]:
    """Requests of six days: when each was done, and its input, writes for 5 minutes and an hour, reads and output."""
    random = Random(seed)  # noqa: S311 - a seed, no secret
    instants = sorted(random.randrange(6 * 86_400) for _ in range(count))
    for instant in instants:
        writes = (random.randint(100, 3000), 0) if random.random() < 0.6 else (0, random.randint(100, 3000))
        counters = (random.randint(50, 2000), *writes, random.randint(0, 9000), random.randint(20, 900))
        yield datetime(2026, 10, 5, tzinfo=UTC) + timedelta(seconds=instant), counters


@pytest.fixture(scope="module")
def connection(tmp_path_factory):
    """swaps: lifetimes exchanged, and every third line under another model. fetched: lines are written at midnight.

    early: stamped up to 20 hours before, all under another model. sums: one counter for both lifetimes, no batch tier.
    both: every fourth line under another model and another geography. hourly: lines are written at full hours. noisy:
    right, but for one line that is lost and one that was not reported, in two hours of a day. queued: stamped up to 20
    hours before, one counter for both lifetimes, every fifth with an extra turn that stands outside the counters.
    tried: right, but for one line of an attempt before, with an extra turn; nobody counted either.
    """
    folder = tmp_path_factory.mktemp("search")
    usages, keys = [], []
    for name in NAMES:
        random, lines = Random(f"{name}/said"), []  # noqa: S311 - a seed, no secret
        place = {"workspace_id": f"wrkspc_{name}", "api_key_id": f"apikey_{name}"}
        keys.append({
            "id": place["api_key_id"], "name": name, "status": "active",
            "scope": {"type": "workspace", "workspace_id": place["workspace_id"]},
        })  # fmt: skip
        for number, (at, (uncached, w5, w1, read, output)) in enumerate(requests(name, 240)):
            tier = "batch" if name == "sums" else "standard"
            usages.append(usage(
                f"{at:%Y-%m-%dT%H}:00:00Z", input=uncached, write_5m=w5, write_1h=w1, read=read, output=output,
                service_tier=tier, **place,
            ))  # fmt: skip
            is_other = name == "early" or (name, number % 3) == ("swaps", 0) or (name, number % 4) == ("both", 0)
            model = ELSE if is_other else "claude-opus-4-7"
            stamped = at
            if name == "fetched":
                stamped = at.replace(hour=0, minute=0, second=0) + timedelta(days=1, seconds=random.randrange(900))
            elif name == "hourly":
                stamped = at.replace(minute=0, second=0) + timedelta(hours=1, seconds=random.randrange(900))
            elif name in {"early", "queued"}:
                stamped = at - timedelta(seconds=int(72_000 * random.random() ** 3))
            split = (
                {"ephemeral_5m_input_tokens": w1, "ephemeral_1h_input_tokens": w5}
                if name == "swaps"
                else {"ephemeral_5m_input_tokens": w5, "ephemeral_1h_input_tokens": w1}
            )
            counters = {
                "input_tokens": uncached, "cache_creation_input_tokens": w5 + w1, "cache_read_input_tokens": read,
                "output_tokens": output, "inference_geo": "us" if name == "both" and is_other else "global",
            } | ({} if name in {"sums", "queued"} else {"cache_creation": split})  # fmt: skip
            if (name, number % 5) == ("queued", 0):
                extra = {"input_tokens": 3 * uncached, "output_tokens": 2 * output}
                usages.append(usage(f"{at:%Y-%m-%dT%H}:00:00Z", input=3 * uncached, output=2 * output, **place))
                counters["iterations"] = [{"type": "compaction", **extra}]
            if (name, number) == ("tried", NOISE[0]):
                turn = [{"type": "compaction", "input_tokens": 3, "output_tokens": 2}]
                again = counters | {"iterations": turn}
                lines.append(line(f"{stamped:%Y-%m-%dT%H:%M:%SZ}", "before", usage=again, **place))
            if name == "noisy" and number in NOISE:
                # one is lost; of the other an attempt before it is logged too, which nobody counted
                if number == NOISE[0]:
                    continue
                lines.append(line(f"{stamped:%Y-%m-%dT%H:%M:%SZ}", "again", usage=counters, **place))
            lines.append(line(f"{stamped:%Y-%m-%dT%H:%M:%SZ}", f"{name}{number}", model=model, usage=counters, **place))
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    config = write_config(
        folder, request_logs=[{"name": name, "path": f"{name}.jsonl"} for name in NAMES],
        allocation={"cost_centers": {"CC-1": {"name": "All"}}, "rules": [{"workspace": "*", "to": "CC-1"}]},
    )  # fmt: skip
    workspaces = [{"id": f"wrkspc_{name}", "name": name} for name in NAMES]
    with closed(
        folder, usages, [], [], config=config, workspaces=workspaces, api_keys=keys, through_on="2026-10-31"
    ) as built:
        yield built


@pytest.mark.parametrize(
    ("log", "reasons"),
    [
        ("swaps", {"cache_ttl", "model"}),
        ("fetched", {"cutoff"}),
        ("early", {"cutoff", "model"}),
        ("sums", {"cache_ttl", "service_tier"}),
        ("both", {"model", "inference_geo"}),
        ("hourly", {"cutoff"}),
        ("noisy", {"unreported"}),
        ("queued", {"cutoff", "cache_ttl", "iterations"}),
        ("tried", {"unreported"}),
    ],
)
def test_each_log_has_its_own_reasons(connection, log, reasons):
    """Both confusions of a log are found where they meet on the same lines, and nothing else is."""
    found = connection.execute("select distinct reason from report.discrepancy where log = ?", [log]).fetchall()
    assert {reason for (reason,) in found} == reasons


def test_only_noise_is_located(connection):
    """What one line lacks is another's, to the dollar; a lost line and one too many do not make up for each other."""
    left = connection.execute("""
        select reason, workspace_id, sum(quantity)
        from report.discrepancy where reason in ('unlogged', 'unreported') group by all order by all
    """).fetchall()
    lost, again = (sum(list(requests("noisy", 240))[number][1]) for number in NOISE)
    before = sum(list(requests("tried", 240))[NOISE[0]][1])
    assert left == [
        ("unlogged", "wrkspc_noisy", lost),
        ("unreported", "wrkspc_noisy", -again),
        ("unreported", "wrkspc_tried", -before),
    ]


def test_lifetimes_are_exchanged_on_every_line(connection):
    """The evidence says how far writes are apart as they are logged, and that they are not when exchanged back."""
    [(evidence,)] = connection.execute("""
        select evidence from report.discrepancy
        where reason = 'cache_ttl' and log = 'swaps' and model = 'claude-opus-4-7'
    """).fetchall()
    told = json.loads(evidence)
    assert int(told["written_tokens_apart_when_exchanged_back"]) == 0
    assert int(told["written_tokens_apart_as_logged"]) > 100_000


def test_the_requests_behind_exchanged_lifetimes(connection):
    """`--requests` shows the lines whose lifetimes stand exchanged, with what they say."""
    [(finding,)] = connection.execute("""
        select id from report.discrepancy where reason = 'cache_ttl' and log = 'swaps' and model = 'claude-opus-4-7'
    """).fetchall()
    found = requests_behind(connection, finding, 3)
    assert len(found.rows) == 3
    assert found.known == found.requests > 100
    assert all("for an hour as logged" in row["note"] for row in found.rows)


@pytest.mark.parametrize(
    ("confused", "told"),
    [
        ({"inference_geo": "us"}, ["claude-opus-4-7", ELSE]),
        ({"inference_geo": "us", "service_tier": "batch"}, [ELSE]),
    ],
)
def test_a_log_that_is_early_and_books_a_model_elsewhere(tmp_path, confused, told):
    """Lines are up to 20 hours early; those of one model, three in four, stand in a wrong place too.

    What crosses a midnight is known for what stands in its place, and for what differs in one dimension alone.
    """
    usages, lines = [], []
    crossing: Counter[tuple[str, str, str]] = Counter()
    random = Random("early")  # noqa: S311 - a seed, no secret
    for number, (at, (uncached, w5, w1, read, output)) in enumerate(requests("busy", 240)):
        model = "claude-opus-4-7" if number % 4 else ELSE
        hour = f"{at:%Y-%m-%dT%H}:00:00Z"
        counted = {"input": uncached, "write_5m": w5, "write_1h": w1, "read": read, "output": output}
        usages.append(usage(hour, model=model, **counted))
        stamped = at - timedelta(seconds=int(72_000 * random.random()))
        use = {
            "input_tokens": uncached, "output_tokens": output, "cache_read_input_tokens": read,
            "cache_creation": {"ephemeral_5m_input_tokens": w5, "ephemeral_1h_input_tokens": w1},
        } | {"inference_geo": "global"}  # fmt: skip
        use |= confused if number % 4 else {}
        lines.append(line(f"{stamped:%Y-%m-%dT%H:%M:%SZ}", f"r{number}", model=model, usage=use))
        for meter, quantity in counted.items():
            crossing[f"{at:%d}", model, meter] += quantity
            crossing[f"{stamped:%d}", model, meter] -= quantity
    with closed(tmp_path, usages, [], lines) as connection:
        found = connection.execute("""
            select cell.model, sum(abs(claim.quantity))
            from explained.claim as claim
            join explained.cell as cell on cell.cell_id = claim.cell_id
            where claim.reason = 'cutoff' group by cell.model
        """).fetchall()
        expected = {model: sum(abs(crossing[key]) for key in crossing if key[1] == model) for model in told}
        assert {model: quantity for model, quantity in found if model in told} == expected


@contextmanager
def undone(connection):
    """What is done to the ledger is taken back."""
    connection.execute("begin")
    try:
        yield
    finally:
        connection.execute("rollback")


# One mistake in a pass: the script, what stands there, and what would lose a quantity.
MISTAKES = {
    "fetched_changes_a_total": (
        "corrected",
        "from explained.fixed\n",
        "from (from explained.fixed where counted_at = logged_at) as fixed\n",
    ),
    "exchanged_changes_a_total": (
        "corrected",
        "request.cache_write_5m) as cache_write_1h",
        "request.cache_write_1h) as cache_write_1h",
    ),
    "cutoff_loses_a_quantity": ("cutoff", "set input = slot.input + late.input", "set input = slot.input"),
    "cache_ttl_loses_a_quantity": ("cache_ttl", "write_5m = slot.write_5m + move.tokens", "write_5m = slot.write_5m"),
    "other_cell_loses_a_quantity": ("other_cell", "select to_slot, -input", "select to_slot, 0"),
    "several_loses_a_quantity": ("several", "select to_slot, -input", "select to_slot, 0"),
    "balanced_loses_a_quantity": ("balanced", "select to_slot, log, -input", "select to_slot, log, 0"),
    "by_day_loses_a_quantity": ("by_day", "sum(output)::bigint", "max(output)::bigint"),
    "iterations_back_loses_a_quantity": (
        "iterations_back",
        "set input = extra.input - back.input",
        "set input = extra.input",
    ),
    "netting_leaves_other_than_its_claims": ("moved", "where metered.quantity > 0", "where metered.quantity > 500"),
}


@pytest.mark.parametrize("violation", MISTAKES)
def test_a_pass_that_loses_a_quantity_is_named(connection, monkeypatch, violation):
    """Each pass that moves quantities has a check of its own: one mistake in the pass, and the check names it."""
    script, right, wrong = MISTAKES[violation]

    def run_sql(connection, name):
        text = files("reconcile").joinpath("sql", f"{name}.sql").read_text()
        if name == f"explain/{script}":
            assert text.count(right) == 1
            text = text.replace(right, wrong)
        connection.execute(text)

    monkeypatch.setattr(ledger, "run_sql", run_sql)
    with undone(connection):
        explain.explain(connection, [], None)
        assert connection.execute(f"from checks.{violation}").fetchall()


SET_REASON = "update explained.claim set reason = '{}', api_key_id = 'x' where reason = 'unlogged'"
REBOOK = "insert into explained.rebooked values ('{}', 'swaps', 'm', 'output_tokens', 1)"
TAMPERINGS = {
    "time_zone_changes_a_total": REBOOK.format("time_zone"),
    "workspace_changes_a_total": REBOOK.format("workspace"),
    "cache_inclusive_takes_other_than_cached": """
        insert into explained.inclusive by name
        select 'swaps' as log, 'claude-opus-4-7' as model, '-infinity' as from_at, 'infinity' as until_at,
            'reads' as counts
    """,
    "netting_leaves_other_than_its_claims": "delete from explained.claim where reason = 'cutoff'",
    "never_reported_claims_other_than_its_lines": """
        insert into explained.never_reported values ('noisy', 'error status');
        update explained.claim set log = 'noisy', evidence = 'error status' where reason = 'unreported'
    """,
    "too_much_is_not_unreported": """
        insert into explained.too_much select cell_id, 1 from explained.claim where reason = 'iterations'
    """,
    "unlogged_key_claims_more_than_the_key_used": SET_REASON.format("unlogged_key"),
    "no_key_claims_more_than_was_used_without_one": SET_REASON.format("no_key"),
    "log_gap_claims_more_than_was_used_in_it": SET_REASON.format("log_gap"),
    "cut_stream_claims_more_output_than_is_missing": SET_REASON.format("cut_stream"),
    "iterations_lost": "update explained.claim set quantity = quantity - 1 where reason = 'iterations'",
    "quantity_not_explained": "delete from explained.claim where reason = 'unlogged'",
    "price_variance_not_explained": "delete from explained.price_part where reason = 'uncharged'",
    "app_price_not_told": "insert into explained.own_price values ('swaps', 'claude-opus-4-7', 'rounded', 1, 0.01)",
}


@pytest.mark.parametrize("violation", TAMPERINGS)
def test_a_pass_that_claims_other_than_its_own_is_named(connection, violation):
    """The passes that take from what is left are held to what they rest on: a key's use, an hour's, an entry's."""
    assert not connection.execute(f"from checks.{violation}").fetchall()
    with undone(connection):
        connection.execute(TAMPERINGS[violation])
        assert connection.execute(f"from checks.{violation}").fetchall()
