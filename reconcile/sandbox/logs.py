"""What the organization's applications write: one line a request or event, in the canonical format `requests`."""

import gzip
import json
import re

from reconcile.sandbox.organization import Log, Organization
from reconcile.sandbox.planting import has_null_id
from reconcile.sandbox.plants import usd
from reconcile.sandbox.rates import Five, day_date
from reconcile.sandbox.traffic import DAY_MS, Event, Request, Touch

_MINUTE_MS = 60_000
_NOTHING = Touch()
_DATED = re.compile(r"-\d{8}$")


class LogBook:
    """Collects lines and turns each log's day into a file: by the UTC day on which the line was written."""

    def __init__(self, organization: Organization, *, bad_lines: bool) -> None:
        self._bad_lines = bad_lines
        self._logs = {log.name: log for log in organization.logs}
        self._lines: dict[str, dict[int, list[tuple[int, str]]]] = {log.name: {} for log in organization.logs}

    def write(self, request: Request) -> None:
        """Log a request as its application does."""
        touch = request.touch or _NOTHING
        if not touch.logged or request.source.log is None:
            return
        log = self._logs[request.source.log]
        if touch.events:
            for event in touch.events:
                self._add(log, request.at, touch, _event_line(log, request, touch, event))
            return
        at = request.at if touch.at is None else touch.at
        line = _line(log, request, touch, _timestamp(log, at, touch))
        self._add(log, request.at, touch, line)
        if touch.copies:
            self._copy(log, request, touch, at, line)

    def _add(self, log: Log, at: int, touch: Touch, line: str) -> None:
        """Put a line where it was written: when the request was done, or when its result was fetched."""
        written_at = max(at, touch.fetched_at or 0)
        self._lines[log.name].setdefault(written_at // DAY_MS, []).append((written_at, line))

    def _copy(self, log: Log, request: Request, touch: Touch, at: int, line: str) -> None:
        """The same request once more: as it stands, or as another log saw it a moment later."""
        later = min(at + 300, (at // DAY_MS + 1) * DAY_MS - 1)
        other = self._logs[touch.copy_log or log.name]
        self._add(other, request.at, touch, line if other is log else _line(other, request, touch, instant(later)))

    def files(self, day: int) -> dict[str, bytes]:
        """A day's files by path, once nothing of it is to come. Every log has a file for every day."""
        written = {}
        for log in self._logs.values():
            texts = [line for _, line in sorted(self._lines[log.name].pop(day, []))]
            if self._bad_lines and log is next(iter(self._logs.values())) and texts and day % 7 == 0:
                texts.insert(len(texts) // 2, texts[len(texts) // 2][: len(texts[0]) // 2])
            text = "\n".join(texts) + "\n" if texts else ""
            on = day_date(day).isoformat()
            path = log.file.format(day=on, month=on[:7])
            body = text.encode()
            written[path] = gzip.compress(body, 4, mtime=0) if path.endswith(".gz") else body
        return written


_DAYS: dict[int, str] = {}


def instant(at: int, suffix: str = "Z") -> str:
    """Milliseconds since 1970 as a timestamp."""
    day, rest = divmod(at, DAY_MS)
    date = _DAYS.get(day)
    if date is None:
        date = _DAYS[day] = day_date(day).isoformat()
    seconds, milliseconds = divmod(rest, 1000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{date}T{hour:02d}:{minute:02d}:{second:02d}.{milliseconds:03d}{suffix}"


def _timestamp(log: Log, at: int, touch: Touch) -> str:
    if touch.naive:
        return instant(at, "")  # the local clock, without its offset
    if log.clock_minutes:
        sign = "-" if log.clock_minutes < 0 else "+"
        hours, minutes = divmod(abs(log.clock_minutes), 60)
        return instant(at + log.clock_minutes * _MINUTE_MS, f"{sign}{hours:02d}:{minutes:02d}")
    return instant(at)


def _model_name(log: Log, request: Request, touch: Touch) -> str:
    if touch.bedrock:
        return f"us.anthropic.{request.model}-v1:0"
    name = touch.model or request.model
    if log.drops_dates and request.id[-2] in "01234567":
        name = _DATED.sub("", name)
    return log.prefix + name if request.id[-3] in "0123456789a" else name


def _workspace_field(log: Log, request: Request, touch: Touch) -> str:
    if not log.names_workspace or "workspace_id" in touch.hides:
        return ""
    workspace = touch.workspace or request.source.workspace
    if touch.workspace is None and workspace.is_default and log.names_key and request.id[-1] in "0123":
        return '"workspace_id": null, '  # its key tells
    return f'"workspace_id": "{workspace.id}", '


def _line(log: Log, request: Request, touch: Touch, timestamp: str) -> str:
    key = request.source.key
    request_id = "null" if has_null_id(request, log) else f'"{request.id}"'
    parts = [
        f'{{"request_id": {request_id}, "timestamp": "{timestamp}", "model": "{_model_name(log, request, touch)}", ',
        _workspace_field(log, request, touch),
        f'"api_key_id": "{key.id}", ' if key is not None and log.names_key else "",
        f'"usage": {_usage(log, request, touch)}',
    ]
    if touch.cost_pico is not None:
        parts.append(f', "cost_usd": "{usd(touch.cost_pico)}"')
    if touch.refused:
        parts.append(', "stop_reason": "refusal"')
    parts.append(f', "status": {touch.status}')
    if log.labels:
        team = f'"team": "{request.team}", ' if request.team is not None else ""
        parts.append(f', "labels": {{{team}"region": "eu-1"}}')
    parts.append("}")
    return "".join(parts)


def _split(touch: Touch, write_5m: int, write_1h: int) -> str:
    if "split" in touch.hides:
        return ""
    return f'"cache_creation": {{"ephemeral_5m_input_tokens": {write_5m}, "ephemeral_1h_input_tokens": {write_1h}}}, '


def _dimensions(log: Log, request: Request, touch: Touch) -> str:
    """Tier, geography and speed, as far as the line has them."""
    tier = "" if "service_tier" in touch.hides else f', "service_tier": "{touch.tier or request.tier}"'
    geo = (
        f', "inference_geo": "{touch.geo or request.geo}"'
        if log.names_geo and "inference_geo" not in touch.hides
        else ""
    )
    said = touch.speed or request.speed
    speed = "" if said == "standard" else f', "speed": "{said}"'
    return f"{tier}{geo}{speed}"


def _searched(searches: int) -> str:
    return f', "server_tool_use": {{"web_search_requests": {searches}, "web_fetch_requests": 0}}' if searches else ""


def _usage(log: Log, request: Request, touch: Touch) -> str:
    tokens: Five = touch.tokens or request.tokens
    uncached, write_5m, write_1h, read, output = tokens
    return (
        f'{{"input_tokens": {uncached}, "cache_creation_input_tokens": {write_5m + write_1h}, '
        f'"cache_read_input_tokens": {read}, {_split(touch, write_5m, write_1h)}"output_tokens": {output}'
        f"{_searched(request.searches)}{_dimensions(log, request, touch)}{_turns(request, touch)}}}"
    )


def _turns(request: Request, touch: Touch) -> str:
    """The iterations of a request that had extra turns, each with its own tokens."""
    if not touch.iterations:
        return ""
    turns: list[dict[str, object]] = []
    for turn in touch.iterations:
        entry: dict[str, object] = {
            "type": turn.kind,
            "input_tokens": turn.uncached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": turn.output,
        }
        if turn.kind == "advisor_message":
            entry["model"] = turn.model
        turns.append(entry)
    turns.append(
        {
            "type": "message",
            "input_tokens": request.uncached,
            "cache_creation_input_tokens": request.write_5m + request.write_1h,
            "cache_read_input_tokens": request.read,
            "output_tokens": request.output,
        }
    )
    return f', "iterations": {json.dumps(turns)}'


def _event_line(log: Log, request: Request, touch: Touch, event: Event) -> str:
    key = request.source.key
    timestamp = _timestamp(log, event.at, touch)
    if event.is_start:
        write_5m, write_1h = event.write_5m or 0, event.write_1h or 0
        usage = (
            f'{{"input_tokens": {event.uncached}, "cache_creation_input_tokens": {write_5m + write_1h}, '
            f'"cache_read_input_tokens": {event.read}, {_split(touch, write_5m, write_1h)}'
            f'"output_tokens": {event.output}{_dimensions(log, request, touch)}}}'
        )
    else:
        written = None if event.uncached is None else (event.write_5m or 0) + (event.write_1h or 0)
        counters = {
            "input_tokens": event.uncached,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": event.read,
        }
        usage = (
            "{"
            + "".join(f'"{name}": {json.dumps(quantity)}, ' for name, quantity in counters.items())
            + f'"output_tokens": {event.output}{_searched(event.searches)}'
            + (_turns(request, touch) if event is touch.events[-1] else "")
            + "}"
        )
    return (
        f'{{"request_id": "{request.id}", "timestamp": "{timestamp}", "model": "{_model_name(log, request, touch)}", '
        + _workspace_field(log, request, touch)
        + (f'"api_key_id": "{key.id}", ' if key is not None and log.names_key else "")
        + f'"event": "message_{"start" if event.is_start else "delta"}", "usage": {usage}, "status": 200}}'
    )
