"""The command `schedule` between two signals: what is due is closed, and how it ended is a line of the log."""

import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from reconcile import run
from reconcile.cli.output import BUG, INTERRUPTED, instant_text, say, say_json
from reconcile.cli.telling import told
from reconcile.config import Config, load_config
from reconcile.errors import ReconcileError
from reconcile.notify import Ending
from reconcile.period import Period
from reconcile.schedule import Attempt, Step, due


class Scheduled:
    """Does what is due, and remembers how it ended. The config is read again each time: a change needs no restart."""

    def __init__(self, config_path: Path, clock: Callable[[], datetime], *, as_json: bool) -> None:
        self._config_path = config_path
        self._clock = clock
        self._as_json = as_json
        self._attempts: dict[Step, Attempt] = {}

    def work(self) -> None:
        """Close everything that is due. An expected failure is a line of the log, and so is a bug."""
        try:
            config = load_config(self._config_path)
            known = {Period.parse(one.period): one for one in run.status(config)}
        except ReconcileError as error:
            self.log("failed", exit=error.exit_code, error=str(error))
            return
        states = {period: one.state for period, one in known.items()}
        unchecked = [period for period, one in known.items() if not one.rechecked_at]
        for step in due(config.schedule, states, self._attempts, self._clock(), unchecked):
            if step.recheck:
                self._recheck(config, step)
            else:
                self._close(config, step)

    def log(self, event: str, **fields: object) -> None:
        """One line: an object for programs, a sentence for people."""
        at = instant_text(self._clock().replace(microsecond=0))
        if self._as_json:
            say_json({"at": at, "event": event, **fields})
            return
        shown = ", ".join(f"{name} {value}" for name, value in fields.items() if value is not None)
        say(f"{at} {event}{f': {shown}' if shown else ''}")

    def _close(self, config: Config, step: Step) -> None:
        began_at = self._clock()
        named = {"month": str(step.period), "final": step.final}
        self.log("close begins", **named)
        exit_code, ending, error = BUG, None, None
        try:
            _, ending = told(config, step.period, self._clock, lambda: self._run(config, step), self._warn)
            exit_code = ending.exit
        except ReconcileError as refusal:
            exit_code, error = refusal.exit_code, str(refusal)
        except KeyboardInterrupt:
            exit_code = INTERRUPTED
            raise
        except Exception as bug:  # noqa: BLE001 - the next month is closed all the same
            error = f"{type(bug).__name__}: {bug}"
            say("".join(traceback.format_exception(bug)), err=True)
        finally:
            self._attempts[step] = Attempt(began_at, exit_code)
            self.log("close ended", **named, exit=exit_code, **_figures(ending), error=error)

    def _recheck(self, config: Config, step: Step) -> None:
        began_at, month = self._clock(), str(step.period)
        self.log("recheck begins", month=month)
        exit_code, found, error = BUG, None, None
        try:
            found = run.recheck(config, period=step.period, now=self._clock())
            exit_code = 0
        except ReconcileError as refusal:
            exit_code, error = refusal.exit_code, str(refusal)
        except KeyboardInterrupt:
            exit_code = INTERRUPTED
            raise
        except Exception as bug:  # noqa: BLE001 - as of a close
            error = f"{type(bug).__name__}: {bug}"
            say("".join(traceback.format_exception(bug)), err=True)
        finally:
            self._attempts[step] = Attempt(began_at, exit_code)
            moved = {"moved_usd": found.amount_usd, "booked_in": found.booked_in} if found else {}
            self.log("recheck ended", month=month, exit=exit_code, **moved, error=error)

    def _run(self, config: Config, step: Step) -> run.Outcome:
        return run.close(config, period=step.period, now=self._clock(), final=step.final)

    def _warn(self, line: str) -> None:
        self.log("warning", warning=line)


def _figures(ending: Ending | None) -> dict[str, object]:
    names = ("revision", "billed_usd", "difference_usd", "residual_usd", "discrepancies")
    return {name: getattr(ending, name, None) for name in names}
