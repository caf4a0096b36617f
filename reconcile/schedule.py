"""The clock that closes months by itself: what is due, and a process that stays up to do it.

What is due is decided anew each hour from what was closed, never from what was missed: downtime, a clock that was set
and daylight saving time need no case of their own.
"""

import fcntl
import signal
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from queue import Full, Queue
from zoneinfo import ZoneInfo

from apscheduler.schedulers.background import BackgroundScheduler

from reconcile.config import Schedule
from reconcile.errors import ConfigError, SourceError
from reconcile.period import Period

_HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Step:
    """One thing to do: a final close, a provisional one, or a recheck."""

    period: Period
    final: bool
    recheck: bool = False


@dataclass(frozen=True)
class Attempt:
    """How a step ended when it was last tried: its exit code, and when it began."""

    began_at: datetime
    exit_code: int


def due(
    schedule: Schedule,
    states: Mapping[Period, str],
    attempts: Mapping[Step, Attempt],
    now: datetime,
    unchecked: Collection[Period] = (),
) -> tuple[Step, ...]:
    """What is to be done now, oldest month first.

    ``states`` has every month that was ever closed, with its state. A final close is due from the configured day and
    time of the month after, for every month since the first one that was closed (without any: for the last complete
    one), until it is closed; one that somebody reopened is theirs. Where it was refused it is tried again the next
    day, where a source did not answer in an hour. With ``provisional`` the running month is closed once a day too.
    A closed month of ``unchecked``, those that were not rechecked since, is due ``recheck_days`` after its end.
    """
    last = Period.last_complete(now)
    steps = [
        Step(period, final=True)
        for period in _months(min(states, default=last), last)
        if states.get(period, "open") in {"open", "provisional"}
    ]
    running = last.next
    if schedule.provisional and running.through_on(now) is not None:
        steps.append(Step(running, final=False))
    if schedule.recheck_days is not None:
        until = now.astimezone(UTC).date() - timedelta(days=schedule.recheck_days)
        closed = (period for period in sorted(unchecked) if states.get(period) == "closed" and period.end_on <= until)
        steps += [Step(period, final=False, recheck=True) for period in closed]
    return tuple(step for step in steps if _is_due(step, schedule, attempts.get(step), now))


def _months(first: Period, last: Period) -> Iterator[Period]:
    while first <= last:
        yield first
        first = first.next


def _is_due(step: Step, schedule: Schedule, attempt: Attempt | None, now: datetime) -> bool:
    zone = ZoneInfo(schedule.time_zone)
    today = now.astimezone(zone).date()
    occasion = _occasion(today, schedule)
    if occasion > now:
        occasion = _occasion(today - timedelta(days=1), schedule)
    if step.final and occasion < _occasion(step.period.end_on.replace(day=schedule.day), schedule):
        return False
    if attempt is None or attempt.began_at < occasion:
        return True
    return attempt.exit_code == SourceError.exit_code and now - attempt.began_at >= _HOUR


def _occasion(day: date, schedule: Schedule) -> datetime:
    """The instant of a day at which the schedule acts."""
    return datetime.combine(day, time.fromisoformat(schedule.time), ZoneInfo(schedule.time_zone)).astimezone(UTC)


def serve(schedule: Schedule, data_dir: Path, work: Callable[[], None]) -> None:
    """Call ``work`` now, and then each hour at the schedule's minute, until SIGTERM; one process for a ``data_dir``.

    ``work`` runs in the main thread: a signal ends it inside of a stage, and SIGTERM is no error.
    Raises ``SourceError`` while another process serves the same folder, ``KeyboardInterrupt`` on SIGINT, and what
    ``work`` raises.
    """
    hours: Queue[None] = Queue(maxsize=1)  # an hour that comes while one is worked on waits, further ones are the same
    terminated: list[int] = []

    def strike() -> None:
        with suppress(Full):
            hours.put_nowait(None)

    def terminate(number: int, _frame: object) -> None:
        terminated.append(number)
        raise KeyboardInterrupt

    scheduler = BackgroundScheduler(timezone=UTC, job_defaults={"coalesce": True, "misfire_grace_time": None})
    with _alone(data_dir):
        before = signal.signal(signal.SIGTERM, terminate)
        try:
            zone, minute = ZoneInfo(schedule.time_zone), time.fromisoformat(schedule.time).minute
            scheduler.add_job(strike, "cron", minute=minute, timezone=zone, next_run_time=datetime.now(UTC))
            scheduler.start()
            while True:
                hours.get()
                work()
        except KeyboardInterrupt:
            if not terminated:
                raise
        finally:
            signal.signal(signal.SIGTERM, before)
            if scheduler.running:
                scheduler.shutdown(wait=False)


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (data_dir / ".schedule.lock").open("a")
    except OSError as error:
        raise ConfigError(
            f"data_dir: {data_dir}", f"cannot be written ({error.strerror})", "Correct its owner or mode"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SourceError(
                f"data_dir: {data_dir}", "another `reconcile schedule` serves it, expected none", "Stop that one first"
            ) from None
        yield
