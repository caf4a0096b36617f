"""What whole logs get wrong, several things at once: one month, each workspace with a key and a log of its own."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from random import Random

import pytest
from month import closed, line, several_logs, usage, write_config

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


def counted(one, times=1):
    """The counters of a request as the usage report and as a line have them."""
    uncached, w5, w1, read, output = (times * each for each in one)
    return {"input": uncached, "write_5m": w5, "write_1h": w1, "read": read, "output": output}, {
        "input_tokens": uncached, "output_tokens": output, "cache_read_input_tokens": read, "inference_geo": "global",
        "cache_creation": {"ephemeral_5m_input_tokens": w5, "ephemeral_1h_input_tokens": w1},
    }  # fmt: skip


def stamp(at, random=None, seconds=72_000):
    """An instant as a line has it, and with ``random`` up to so many seconds before."""
    return f"{at - timedelta(seconds=int(seconds * random.random()) if random else 0):%Y-%m-%dT%H:%M:%SZ}"


@contextmanager
def shared(folder, usages, lines):
    """A month of these logs in workspaces a and b, whose lines name no keys."""
    config = several_logs(
        folder, {log: [one | {"api_key_id": None} for one in written] for log, written in lines.items()},
        allocation={"cost_centers": {"CC-1": {"name": "All"}}, "rules": [{"workspace": "*", "to": "CC-1"}]},
    )  # fmt: skip
    workspaces = [{"id": f"wrkspc_{name}", "name": name} for name in "ab"]
    with closed(folder, usages, [], [], config=config, workspaces=workspaces, through_on="2026-10-31") as built:
        yield built


def test_a_confusion_is_that_logs_whose_lines_show_it(tmp_path):
    """A log books its lines in a workspace where another, which is right, writes most."""
    usages, lines, moved = [], {"right": [], "wrong": []}, 0
    for number, (at, one) in enumerate(requests("right", 900)):
        for log, times in (("right", 5),) if number % 3 else (("right", 5), ("wrong", 1)):
            use, said = counted(one, times)
            moved += sum(one) if log == "wrong" else 0
            workspace = "wrkspc_a" if log == "right" else "wrkspc_b"
            usages.append(usage(f"{at:%Y-%m-%dT%H}:00:00Z", workspace_id=workspace, **use))
            lines[log].append(line(stamp(at), f"{log}{number}", usage=said))
    with shared(tmp_path, usages, lines) as connection:
        found = connection.execute("""
            select log, sum(input + write_5m + write_1h + read + output) from explained.moved group by log
        """).fetchall()
        assert found == [("wrong", moved)]


@pytest.mark.parametrize(("is_early", "lost"), [(True, 0.03), (False, 0.3)])
def test_a_busy_log_that_is_early_is_told_from_one_that_loses_lines(tmp_path, is_early, lost):
    """Nothing ever waits for nothing where many wait: half of all is apart and fits in the end, which no loss does."""
    usages, lines, random = [], {"busy": []}, Random("busy")  # noqa: S311 - a seed, no secret
    for number, (at, one) in enumerate(requests("busy", 1_500)):
        use, said = counted(one)
        if random.random() > lost / 2:
            usages.append(usage(f"{at:%Y-%m-%dT%H}:00:00Z", **use))
        if random.random() > lost / 2:
            lines["busy"].append(line(stamp(at, random if is_early else None), f"r{number}", usage=said))
    with shared(tmp_path, usages, lines) as connection:
        found = {reason for (reason,) in connection.execute("select reason from report.discrepancy").fetchall()}
        assert ("cutoff" in found) == is_early


def test_lines_lost_and_lines_too_many_do_not_net_over_a_day(tmp_path):
    """One line in eight is lost and one in eight was never counted, in one place: the hours tell most of them apart."""
    usages, lines, random = [], {"noisy": []}, Random("eighths")  # noqa: S311 - a seed, no secret
    lost = 0
    for number, (at, one) in enumerate(requests("eighths", 240)):
        use, said = counted(one)
        chance = random.random()
        if chance > 1 / 8:
            usages.append(usage(f"{at:%Y-%m-%dT%H}:00:00Z", **use))
        if chance < 7 / 8:
            lines["noisy"].append(line(stamp(at), f"r{number}", usage=said))
        else:
            lost += sum(one)
    with shared(tmp_path, usages, lines) as connection:
        [(found,)] = connection.execute("""
            select sum(quantity) from report.discrepancy where reason in ('unlogged', 'log_gap')
        """).fetchall()
        assert 10 * found >= 7 * lost


def test_what_waits_in_a_place_of_two_logs_is_the_late_ones(tmp_path):
    """A log whose lines are up to 20 hours early in two models; in the one another log, which is right, writes too."""
    usages, lines, random = [], {"a_right": [], "late": []}, Random("late")  # noqa: S311 - a seed, no secret
    for number, (at, one) in enumerate(requests("late", 400)):
        model = ELSE if number % 2 else "claude-opus-4-7"
        for log, times in (("late", 1), ("a_right", 3)):
            if log == "a_right" and model == ELSE:
                continue
            use, said = counted(one, times)
            usages.append(usage(f"{at:%Y-%m-%dT%H}:00:00Z", model=model, **use))
            stamped = stamp(at, random if log == "late" else None)
            lines[log].append(line(stamped, f"{log}{number}", model=model, usage=said))
    with shared(tmp_path, usages, lines) as connection:
        found = connection.execute("select reason, log from report.discrepancy where reason <> 'uncharged'").fetchall()
        assert found == [("cutoff", "late")]


def test_searches_in_a_wrong_workspace_do_not_wait_with_those_of_a_late_log(tmp_path):
    """They know no model: until those are netted that stand in another workspace, they would be taken for late ones."""
    usages, lines, random = [], {"late": [], "wrong": []}, Random("searches")  # noqa: S311 - a seed, no secret
    wrong = 0
    for number, (at, one) in enumerate(requests("searches", 400)):
        log, model = ("late", ELSE) if number % 4 else ("wrong", "claude-opus-4-7")
        use, said = counted(one)
        searches = 1 + number % 3 if log == "wrong" else number % 2
        wrong += searches if log == "wrong" else 0
        said["server_tool_use"] = {"web_search_requests": searches}
        place = {"model": model, "workspace_id": "wrkspc_a" if log == "late" else "wrkspc_b", "searches": searches}
        usages.append(usage(f"{at:%Y-%m-%dT%H}:00:00Z", **place, **use))
        stamped = stamp(at, random if log == "late" else None, 1_200)
        lines[log].append(line(stamped, f"{log}{number}", model=model, usage=said))
    with shared(tmp_path, usages, lines) as connection:
        left = dict(connection.execute("""
            select reason, sum(abs(quantity)) from report.discrepancy where reason <> 'uncharged' group by reason
        """).fetchall())  # fmt: skip
        assert left.keys() >= {"cutoff", "workspace"}
        assert left.get("unlogged", 0) + left.get("unreported", 0) <= wrong // 5


def test_hours_that_are_apart_are_not_all_in_a_wrong_place_because_a_few_are(tmp_path):
    """A log that is up to 10 hours early or late, of which one line in twenty stands in another geography."""
    usages, lines, random, wrong = [], {"late": []}, Random("few"), 0  # noqa: S311 - a seed, no secret
    for number, (at, one) in enumerate(requests("few", 400)):
        use, said = counted(one)
        is_wrong = number % 20 == 0
        wrong += sum(one) if is_wrong else 0
        usages.append(usage(f"{at:%Y-%m-%dT%H}:00:00Z", inference_geo="us" if is_wrong else "global", **use))
        lines["late"].append(line(stamp(at + timedelta(hours=10), random), f"r{number}", usage=said))
    with shared(tmp_path, usages, lines) as connection:
        [(moved,)] = connection.execute("""
            select coalesce(sum(input + write_5m + write_1h + read + output), 0) from explained.moved
            where reason = 'inference_geo'
        """).fetchall()
        assert moved <= 2 * wrong


def test_cached_tokens_counted_twice_in_a_log_whose_hours_and_places_are_wrong(tmp_path):
    """Up to 20 hours early, and no line names where it belongs: the month of each of three models tells."""
    usages, lines, random, twice = [], {"late": []}, Random("months"), 0  # noqa: S311 - a seed, no secret
    for number, (at, one) in enumerate(requests("months", 300)):
        uncached, w5, w1, read, output = one[0] + 1000, *one[1:3], one[3] // 10, one[4]
        use, said = counted((uncached, w5, w1, read, output))
        model = ("claude-opus-4-7", ELSE, "claude-sonnet-4-6")[number % 3]
        usages.append(usage(f"{at:%Y-%m-%dT%H}:00:00Z", model=model, **use))
        said["input_tokens"] += read
        twice += read
        lines["late"].append(line(stamp(at, random), f"r{number}", model=model, usage=said, workspace_id=None))
    with shared(tmp_path, usages, lines) as connection:
        [(found,)] = connection.execute("""
            select sum(quantity) from explained.rebooked where reason = 'cache_inclusive'
        """).fetchall()
        assert found == -twice


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
    "by_day_loses_a_quantity": (
        "by_day",
        "sum(output)::bigint as output, sum(searches)::bigint as searches,\n    arg_max",
        "max(output)::bigint as output, sum(searches)::bigint as searches,\n    arg_max",
    ),
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
