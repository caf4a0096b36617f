"""How a close ended, told to those whom the config names, and to the log of a schedule."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from reconcile.cli.output import BUG, INTERRUPTED
from reconcile.errors import ReconcileError
from reconcile.notify import Ending, tell

if TYPE_CHECKING:
    from reconcile.config import Config
    from reconcile.period import Period
    from reconcile.run import Outcome


def told(
    config: "Config",
    period: "Period",
    clock: Callable[[], datetime],
    close: "Callable[[], Outcome]",
    warn: Callable[[str], None],
) -> "tuple[Outcome, Ending]":
    """Close, and tell how it ended, also where it raises."""
    began_at = clock()
    ending = Ending("close", config.organization, str(period), BUG, began_at, began_at)
    try:
        outcome = close()
        ending = _of(ending, outcome)
    except ReconcileError as error:
        said = {"where": error.where, "what": error.what, "do": error.do}
        ending = replace(ending, exit=error.exit_code, error=said)
        raise
    except KeyboardInterrupt:
        ending = replace(ending, exit=INTERRUPTED)
        raise
    except Exception as error:
        said = {"where": "reconcile", "what": f"{type(error).__name__}: {error}", "do": "Report it"}
        ending = replace(ending, error=said)
        raise
    finally:
        ending = replace(ending, at=clock())
        tell(config, ending, warn)
    return outcome, ending


def _of(ending: Ending, outcome: "Outcome") -> Ending:
    unallocated = (row["total_usd"] for row in outcome.chargeback if row["cost_center"] == "unallocated")
    pages = (path for path in outcome.files if path.name == "index.html")
    return replace(
        ending,
        exit=outcome.exit_code,
        revision=outcome.revision,
        billed_usd=outcome.summary["billed_usd"],
        difference_usd=outcome.summary["difference_usd"],
        residual_usd=outcome.summary["residual_usd"],
        unallocated_usd=next(unallocated, None),
        discrepancies=outcome.summary["discrepancy_count"],
        report=next(pages, None),
    )
