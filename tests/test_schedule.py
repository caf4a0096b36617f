"""What is due when, and the process that stays up to do it."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import sleep

import pytest

from reconcile.config import Schedule
from reconcile.period import Period
from reconcile.sandbox import Fault, Faults, Sandbox, Scenario
from reconcile.sandbox.sandbox import KEY_VARIABLE
from reconcile.schedule import Attempt, Step, due


def at(text: str) -> datetime:
    """An instant in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def steps(now: str, states: dict[str, str] | None = None, attempts: dict[str, tuple[str, int]] | None = None, **asked):
    """What is due as text: the month, with a star where it is final."""
    tried = {
        Step(Period.parse(name.rstrip("*")), final=name.endswith("*")): Attempt(at(began), code)
        for name, (began, code) in (attempts or {}).items()
    }
    known = {Period.parse(month): state for month, state in (states or {}).items()}
    return [f"{step.period}{'*' if step.final else ''}" for step in due(Schedule(**asked), known, tried, at(now))]


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-01T00:30", []),
        ("2026-11-03T05:59", []),
        ("2026-11-03T06:00", ["2026-10*"]),
        ("2026-11-29T12:00", ["2026-10*"]),
        ("2026-12-02T23:59", ["2026-10*"]),
    ],
)
def test_the_last_month_is_due_from_the_configured_day_and_time(now, expected):
    """Without any closed month only the last complete one is due, once its day and time have come."""
    found = steps(now, {"2026-10": "provisional"} if now > "2026-12" else {})
    assert [step for step in found if step == "2026-10*"] == expected


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({"2026-07": "closed"}, ["2026-08*", "2026-09*", "2026-10*"]),
        ({"2026-07": "closed", "2026-08": "provisional", "2026-09": "closed"}, ["2026-08*", "2026-10*"]),
        ({"2026-08": "reopened", "2026-09": "restated", "2026-10": "closed"}, []),
        ({"2026-10": "provisional"}, ["2026-10*"]),
        ({"2026-11": "provisional"}, []),
    ],
)
def test_every_month_since_the_first_is_caught_up_on(states, expected):
    """Missed months are due, oldest first; what is closed, or was reopened by somebody, is not."""
    assert steps("2026-11-05T08:00", states) == expected


@pytest.mark.parametrize(
    ("now", "expected"),
    [("2026-11-03T08:59", []), ("2026-11-03T09:00", ["2026-10*"]), ("2026-11-04T06:00", ["2026-10*"])],
)
@pytest.mark.parametrize("code", [0, 1, 2, 4, 5, 70])
def test_what_did_not_close_is_tried_again_the_next_day_and_a_source_in_an_hour(now, expected, code):
    """A source that did not answer (3) is asked again after an hour, everything else on the next day."""
    assert steps(now, attempts={"2026-10*": ("2026-11-03T08:00", 3)}) == expected
    later = expected if now == "2026-11-04T06:00" else []
    assert steps(now, attempts={"2026-10*": ("2026-11-03T08:00", code)}) == later


@pytest.mark.parametrize(
    ("now", "attempts", "expected"),
    [
        ("2026-11-10T06:00", {}, ["2026-11"]),
        ("2026-11-01T12:00", {}, []),  # the running month has no complete day
        ("2026-11-10T12:00", {"2026-11": ("2026-11-10T06:00", 1)}, []),
        ("2026-11-11T06:00", {"2026-11": ("2026-11-10T06:00", 1)}, ["2026-11"]),
    ],
)
def test_the_running_month_is_closed_once_a_day_where_it_is_asked_for(now, attempts, expected):
    """With `provisional` the running month is closed over its complete days, once a day."""
    assert steps(now, {"2026-10": "closed"}, attempts, provisional=True) == expected
    assert steps(now, {"2026-10": "closed"}, attempts) == []


@pytest.mark.parametrize(
    ("now", "expected"),
    [("2026-11-03T10:59", []), ("2026-11-03T11:00", ["2026-10*"])],
)
def test_the_time_is_that_of_the_time_zone(now, expected):
    """The hour is local: 06:00 in New York is 11:00 UTC in winter, and 10:00 in summer."""
    assert steps(now, time_zone="America/New_York") == expected
    summer = now.replace("2026-11-03T10:59", "2026-07-03T09:59").replace("2026-11-03T11:00", "2026-07-03T10:00")
    assert steps(summer, time_zone="America/New_York") == [name.replace("2026-10", "2026-06") for name in expected]


# The process ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulated() -> Sandbox:
    return Sandbox.build(Scenario(requests=400))


@contextmanager
def scheduled(folder: Path, simulated: Sandbox, url: str):
    """A running `reconcile schedule` whose clock shows the sandbox's, in its own process."""
    config = folder / "config.yaml"
    if not config.exists():
        simulated.write(folder, base_url=url)
        config.write_text(
            config.read_text()
            + f"notify:\n  - {{command: [sh, -c, 'cat >>{folder}/told.jsonl; echo >>{folder}/told.jsonl']}}\n"
            + "metrics: metrics/reconcile.prom\n"
        )
    command = [sys.executable, "-m", "reconcile", "schedule", "-c", str(config), "--json"]
    with subprocess.Popen(  # noqa: S603 - our own command
        [*command, "--now", simulated.now.isoformat()],
        env={**os.environ, KEY_VARIABLE: simulated.key},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def events(process, until: str) -> list[dict[str, object]]:
    """Log lines up to one with this event."""
    found: list[dict[str, object]] = []
    for line in process.stdout:
        found.append(json.loads(line))
        if found[-1]["event"] == until:
            return found
    pytest.fail(f"no {until!r} among {found}, stderr: {process.stderr.read()}")


@pytest.mark.parametrize(
    ("now", "states", "expected"),
    [
        ("2026-11-30T12:00", {"2026-10": "closed"}, []),
        ("2026-12-01T06:00", {"2026-10": "closed"}, ["2026-10"]),
        ("2026-12-01T06:00", {"2026-10": "provisional"}, []),
        ("2027-03-01T12:00", {"2026-10": "closed", "2026-11": "restated", "2026-12": "closed"}, ["2026-10", "2026-12"]),
    ],
)
def test_a_closed_month_is_rechecked_once_thirty_days_after_its_end(now, states, expected):
    """Until it was rechecked; with `recheck_days: null` never, and never a month that is not closed."""
    known = {Period.parse(month): state for month, state in states.items()}

    def rechecks(unchecked, **asked):
        found = due(Schedule(**asked), known, {}, at(now), unchecked)
        return [str(step.period) for step in found if step.recheck]

    assert rechecks(known) == expected
    assert rechecks([]) == rechecks(known, recheck_days=None) == []


def test_a_month_is_closed_told_and_left_on_sigterm(tmp_path, simulated):
    """At its start it catches up on the last month, tells how it ended, refuses a second one, and ends on SIGTERM."""
    with simulated.serve(port=0) as server, scheduled(tmp_path, simulated, server.url) as process:
        ended = events(process, "close ended")[-1]
        assert (ended["month"], ended["final"]) == ("2026-10", True)
        with scheduled(tmp_path, simulated, server.url) as second:
            out, err = second.communicate(timeout=60)
            assert (second.returncode, "another `reconcile schedule` serves it" in err) == (3, True), out
        process.send_signal(signal.SIGTERM)
        events(process, "stopped")
        assert process.wait(timeout=60) == 0
    told = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    assert [(one["period"], one["exit"], one["billed_usd"]) for one in told] == [
        ("2026-10", ended["exit"], ended["billed_usd"])
    ]
    metrics = (tmp_path / "metrics" / "reconcile.prom").read_text()
    assert f'reconcile_close_exit_code{{organization="{told[0]["organization"]}",period="2026-10"}}' in metrics


def test_sigterm_ends_a_close_within_its_stage(tmp_path, simulated):
    """A stage that waits for a source that hangs is left at once: nothing is published, and the exit code is 0."""
    faults = Faults((Fault("hang", path="cost_report"),))
    with simulated.serve(port=0, faults=faults) as server, scheduled(tmp_path, simulated, server.url) as process:
        events(process, "close begins")
        for _ in range(600):
            if any("cost_report" in asked.path for asked in server.requests):
                break
            sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert events(process, "close ended")[-1]["exit"] == 130
        assert process.wait(timeout=30) == 0
    assert not list((tmp_path / "var").glob("ledger/*"))
