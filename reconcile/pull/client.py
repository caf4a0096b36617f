"""One page at a time from the provider's API, with finite patience."""

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from math import isfinite
from time import monotonic
from types import TracebackType
from typing import Any, Self

import httpx
import stamina

from reconcile import __version__
from reconcile.config import Billing
from reconcile.errors import ConfigError, SourceError

USER_AGENT = f"reconcile/{__version__}"
REPORTS_VERSION = "2023-06-01"
"""Whether the later version changes the two reports is not documented, so it is pinned."""
KEYS_VERSION = "2026-10-21"
"""Under this version an API key's scope holds the real id of the default workspace."""
FAST_MODE = "fast-mode-2026-02-01"
"""The beta header without which the usage report refuses to group by speed."""

_SENDABLE_KEY = re.compile(r"[!-~]+")
_HEALING = frozenset({408, 409, 429, *range(500, 600)})
_KEY_REFUSED = frozenset({401, 403})
_SAID_LENGTH = 300

# Retries are told through the callback; without a handler, logging's last resort would print them.
logging.getLogger("stamina").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Patience:
    """How long a page is worth waiting for; every figure is finite. Seconds, except ``attempts`` and ``bytes``."""

    attempts: int = 6
    total: float = 80.0  # after which no further attempt begins: a pull can be gone on with later
    first_wait: float = 0.5
    longest_wait: float = 8.0
    longest_asked: float = 120.0
    connect: float = 10.0
    silence: float = 20.0
    answer: float = 120.0
    bytes: int = 256 * 1024 * 1024


PATIENCE = Patience()


@dataclass(frozen=True)
class Call:
    """One GET: the page ``number`` of the listing ``stem``, of one kind of pages.

    ``parameters`` are as sent, in order, the page token included.
    """

    kind: str
    stem: str
    number: int
    path: str
    parameters: tuple[tuple[str, str], ...] = ()
    version: str = REPORTS_VERSION
    beta: str | None = None

    @property
    def file(self) -> str:
        """The name of the page's file."""
        return f"{self.stem}-{self.number}.json"


@dataclass(frozen=True)
class Reply:
    """A page as received: the bytes, what they parse to, and where they come from.

    ``fetched_at`` is the time of the run that fetched it, the same for all its pages: reports show it, and how fast
    a machine is must not change them.
    """

    call: Call
    url: str
    content: bytes
    body: dict[str, Any]
    status: int
    request_id: str | None
    fetched_at: datetime

    @property
    def where(self) -> str:
        """How messages name the page."""
        return f"{self.call.file} (GET {self.url})"


class RefusedError(SourceError):
    """The API answered with a status that no waiting heals."""

    def __init__(self, where: str, what: str, do: str, status: int) -> None:
        super().__init__(where, what, do)
        self.status = status


class _Passing(Exception):  # noqa: N818 - not an error yet: it may heal
    """A failure that may heal; ``wait`` is what the API asked for, in seconds."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.wait = wait


class Client(AbstractContextManager["Client"]):
    """The Admin API with the organization's key, which stands in no message and in no attribute that prints.

    Its clock begins at ``now``; ``on_failure`` gets a line for each failure that may heal.
    """

    def __init__(
        self,
        billing: Billing,
        *,
        key: str,
        now: datetime,
        on_failure: Callable[[str], None],
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._place = billing.key.place()
        if not _SENDABLE_KEY.fullmatch(key):
            raise ConfigError(
                "billing.key",
                f"{self._place} holds characters that no key has (a space, a line break, or beyond ASCII)",
                "Copy the Admin API key again, and nothing else",
            )
        self._base_url = billing.base_url
        self._key = key
        self._began = (now, monotonic())
        self._on_failure = on_failure
        try:
            self._http = httpx.Client(
                headers={"x-api-key": key, "user-agent": USER_AGENT, "accept": "application/json"},
                timeout=httpx.Timeout(PATIENCE.silence, connect=PATIENCE.connect),
                follow_redirects=False,  # the key goes to base_url and nowhere else
                trust_env=billing.base_url.startswith("https://"),  # a proxy is not asked for loopback
                transport=transport,
            )
        except (ImportError, OSError, ValueError) as error:
            raise ConfigError(
                "environment",
                f"its settings of proxy or certificates cannot be used ({type(error).__name__})",
                "Check HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR",
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def now(self) -> datetime:
        """The time by the clock that was given at the beginning."""
        now, began = self._began
        return now + timedelta(seconds=monotonic() - began)

    def url(self, call: Call) -> str:
        """Where a call goes, without its parameters."""
        return f"{self._base_url}{call.path}"

    def get(self, call: Call) -> Reply:
        """The page, asked for again while its failure may heal.

        Raises ``SourceError`` when patience ends, and at once for what waiting does not heal: ``RefusedError`` for a
        status, naming the place of a key that was not accepted.
        """
        started = monotonic()
        caller = stamina.RetryingCaller(
            attempts=PATIENCE.attempts,
            timeout=PATIENCE.total,
            wait_initial=PATIENCE.first_wait,
            wait_max=PATIENCE.longest_wait,
            wait_jitter=PATIENCE.first_wait,
        )
        try:
            return caller(partial(self._heals, call), self._once, call)
        except _Passing as failure:
            raise SourceError(
                self._where(call),
                f"{failure.what}, still after {monotonic() - started:.0f} s of trying again",
                "Try again later: the pull goes on where it stopped",
            ) from None

    def _heals(self, call: Call, error: Exception) -> bool | float:
        if not isinstance(error, _Passing):
            return False
        self._on_failure(f"{call.file}: {error.what}")
        return True if error.wait is None else error.wait

    def _once(self, call: Call) -> Reply:
        headers = {"anthropic-version": call.version} | ({"anthropic-beta": call.beta} if call.beta else {})
        try:
            with self._http.stream("GET", self.url(call), params=call.parameters, headers=headers) as response:
                content = b"".join(self._bounded(call, response))
        except (httpx.TransportError, httpx.DecodingError) as error:
            said = self._clean(str(error))
            raise _Passing(f"{type(error).__name__}{f': {said}' if said else ''}") from None
        except httpx.InvalidURL as error:
            raise ConfigError("billing.base_url", f"{self._base_url!r} is no address ({error})", "Correct it") from None
        if response.status_code != httpx.codes.OK:
            raise self._failure(call, response, content)
        return Reply(
            call=call,
            url=self.url(call),
            content=content,
            body=self._object(call, content),
            status=response.status_code,
            request_id=response.headers.get("request-id"),
            fetched_at=self._began[0],
        )

    def _bounded(self, call: Call, response: httpx.Response) -> Iterator[bytes]:
        received, ends = 0, monotonic() + PATIENCE.answer
        for part in response.iter_bytes():
            received += len(part)
            if received > PATIENCE.bytes:
                raise SourceError(
                    self._where(call),
                    f"the answer has more than {PATIENCE.bytes} bytes",
                    "Check what stands between this machine and the API",
                )
            if monotonic() > ends:
                raise _Passing(f"the answer was not complete after {PATIENCE.answer:.0f} s")
            yield part

    def _object(self, call: Call, content: bytes) -> dict[str, Any]:
        try:
            body = parse(content)
        except ValueError:
            begins = self._clean(content[:60].decode("utf-8", "replace"))
            raise _Passing(f"the body is not JSON, it begins {begins!r}") from None
        if not isinstance(body, dict):
            raise SourceError(
                self._where(call),
                f"the body is a JSON {type(body).__name__}, expected an object",
                "Check that billing.base_url is the provider's API",
            )
        return body

    def _failure(self, call: Call, response: httpx.Response, content: bytes) -> Exception:
        """What an answer other than 200 means: an error to raise at once, or one that may heal."""
        status = response.status_code
        try:
            body = parse(content)
        except ValueError:
            body = None
        said = f"HTTP {status} {self._said(body, response, content)}".rstrip()
        if status in _KEY_REFUSED:
            do = f"The key was read from {self._place}: put an active Admin API key there"
            return RefusedError(self._where(call), said, do, status)
        if (code := error_code(body)) and "spend_limit" in code:
            do = "Waiting does not clear a spend limit: raise it in the Console"
            return RefusedError(self._where(call), said, do, status)
        asked = response.headers.get("x-should-retry")
        if asked == "true" or (asked != "false" and status in _HEALING):
            wait = asked_wait(response.headers)
            if wait is None or wait <= PATIENCE.longest_asked:
                return _Passing(said, wait)
            said += f" and asks to wait {wait:.0f} s, more than the {PATIENCE.longest_asked:.0f} s that a pull waits"
            return RefusedError(
                self._where(call), said, "Try again after that: the pull goes on where it stopped", status
            )
        return RefusedError(self._where(call), said, self._advice(status), status)

    def _advice(self, status: int) -> str:
        if status == httpx.codes.NOT_FOUND:
            return f"It may be a workspace key, which finds nothing here: put an Admin API key into {self._place}"
        if httpx.codes.is_redirect(status):
            return "Redirects are not followed: set billing.base_url to where the API is"
        return "Correct what the API refuses, or report it"

    def _said(self, body: object, response: httpx.Response, content: bytes) -> str:
        """The API's own words, on one short line."""
        error = body.get("error") if isinstance(body, dict) else None
        if isinstance(error, dict):
            words = ": ".join(str(error[name]) for name in ("type", "message") if error.get(name))
        else:
            words = content[:_SAID_LENGTH].decode("utf-8", "replace")
        request_id = response.headers.get("request-id")
        return self._clean(words) + (f" ({self._clean(request_id)})" if request_id else "")

    def _clean(self, text: str) -> str:
        line = " ".join("".join(c if c.isprintable() else " " for c in text.replace(self._key, "[the key]")).split())
        return line if len(line) <= _SAID_LENGTH else f"{line[:_SAID_LENGTH]}…"

    def _where(self, call: Call) -> str:
        return f"{call.file} (GET {self.url(call)})"


def parse(content: bytes) -> object:
    """The JSON value in UTF-8 ``content``. Raises ``ValueError`` for anything else, and for absurd nesting."""
    try:
        value: object = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def error_code(body: object) -> str | None:
    """The error's code, in its details or beside its message, such as ``enforced_spend_limit_reached``."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return None
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, dict) else error.get("error_code")
    return code if isinstance(code, str) else None


def asked_wait(headers: httpx.Headers) -> float | None:
    """The seconds that an answer asks to wait: ``retry-after-ms`` before ``retry-after``, None where neither is clear.

    ``retry-after`` is a number of seconds, or an HTTP date, counted from the answer's own ``date`` where it has one.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            wait = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if isfinite(wait) and wait >= 0:
            return wait
    until, since = _http_date(headers.get("retry-after")), _http_date(headers.get("date"))
    if until is None:
        return None
    return max((until - (since or datetime.now(UTC))) / timedelta(seconds=1), 0.0)


def _http_date(text: str | None) -> datetime | None:
    try:
        at = parsedate_to_datetime(text) if text else None
    except ValueError:
        return None
    return at.replace(tzinfo=UTC) if at and at.tzinfo is None else at
