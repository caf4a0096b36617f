"""Who is told how a close ended: webhooks, commands, and a file for Prometheus. What fails here fails no close."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from reconcile.config import Config, Key, Notify
from reconcile.errors import ReconcileError, SourceError

_PATIENCE_SECONDS = 10


@dataclass(frozen=True)
class Ending:
    """How a close ended: the JSON object that is told. Figures are null where nothing was published.

    ``error`` is where, what and do of the line on stderr; ``at`` and ``began_at`` are instants of the run's clock.
    """

    command: str
    organization: str
    period: str
    exit: int
    began_at: datetime
    at: datetime
    revision: int | None = None
    billed_usd: Decimal | None = None
    difference_usd: Decimal | None = None
    residual_usd: Decimal | None = None
    unallocated_usd: Decimal | None = None
    discrepancies: int | None = None
    report: Path | None = None
    error: Mapping[str, str] | None = None

    def as_json(self) -> str:
        """One JSON object, amounts as strings."""
        return json.dumps(asdict(self), default=_plain)


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)


def tell(config: Config, ending: Ending, warn: Callable[[str], None]) -> None:
    """Tell everyone whom the config names; ``warn`` gets a line for each that could not be told."""
    for position, hook in enumerate(config.notify):
        if hook.exits is None or ending.exit in hook.exits:
            _guarded(f"notify[{position}]", partial(_call, hook, f"notify[{position}]", ending), warn)
    if config.metrics is not None:
        _guarded("metrics", partial(write_metrics, config.metrics, ending), warn)


def _guarded(name: str, act: Callable[[], None], warn: Callable[[str], None]) -> None:
    try:
        act()
    except (ReconcileError, OSError, ValueError, subprocess.SubprocessError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        warn(f"{name}: was not told how the close ended ({said}). The close itself is not affected")


def _call(hook: Notify, name: str, ending: Ending) -> None:
    if hook.command is not None:
        subprocess.run(  # noqa: S603 - the user's own config names it
            hook.command,
            input=ending.as_json(),
            encoding="utf-8",
            stdout=subprocess.DEVNULL,
            timeout=_PATIENCE_SECONDS,
            check=True,
        )
    elif hook.webhook is not None:
        _post(hook.webhook, f"{name}.webhook", ending)


class _Stay(HTTPRedirectHandler):
    """Follows no redirect: figures go where the config says, and nowhere else."""

    def redirect_request(self, *_: object) -> None:
        return None


def _post(webhook: Key, name: str, ending: Ending) -> None:
    url = webhook.read(name, "an address")
    parts = urlsplit(url)
    loopback = parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if parts.scheme != "https" and not loopback:
        raise SourceError(name, f"{webhook.place()} holds no https address", "Correct it")
    request = Request(  # noqa: S310 - https, or loopback
        url,
        data=ending.as_json().encode(),
        headers={"Content-Type": "application/json", "User-Agent": "reconcile"},
        method="POST",
    )
    try:
        with build_opener(_Stay).open(request, timeout=_PATIENCE_SECONDS):
            pass
    except HTTPError as error:
        raise SourceError(name, f"answered with {error.code}", "Look there") from None
    except (OSError, HTTPException, ValueError) as error:
        # the address may be a secret, so that no text is repeated that might hold it
        raise SourceError(name, f"did not answer ({type(error).__name__})", "Correct the address") from None


def write_metrics(path: Path, ending: Ending) -> None:
    """Put the close's figures into a file of Prometheus' textfile collector, at once or not at all."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest  # noqa: PLC0415 - most closes write none

    registry = CollectorRegistry()

    def gauge(name: str, meaning: str, value: Decimal | float | None) -> None:
        if value is not None:
            labels = {"organization": ending.organization, "period": ending.period}
            # the collector's values are doubles by definition: these are for graphs and alerts, not for books
            Gauge(f"reconcile_{name}", meaning, list(labels), registry=registry).labels(**labels).set(float(value))

    gauge("close_exit_code", "Exit code of the last close", ending.exit)
    gauge("close_timestamp_seconds", "When the last close ended", ending.at.timestamp())
    gauge("close_duration_seconds", "How long the last close took", (ending.at - ending.began_at).total_seconds())
    gauge("revision", "Revision of the period", ending.revision)
    gauge("billed_usd", "Billed in the period", ending.billed_usd)
    gauge("difference_usd", "Billed minus recorded", ending.difference_usd)
    gauge("residual_usd", "What nothing explains", ending.residual_usd)
    gauge("unallocated_usd", "What no cost center pays", ending.unallocated_usd)
    gauge("discrepancies", "Findings beyond tolerance that nobody accepted", ending.discrepancies)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as written:
        try:
            written.write(generate_latest(registry))
            os.fchmod(written.fileno(), 0o644)  # another user's collector reads it
            Path(written.name).replace(path)
        except BaseException:
            Path(written.name).unlink(missing_ok=True)
            raise
