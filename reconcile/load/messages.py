"""The reader of what the Messages API answered: `format: messages`, bodies, streams and batch results as JSONL."""

from collections.abc import Sequence

from reconcile.config import RequestLog
from reconcile.load.lines import USAGE_FIELDS, USAGE_TYPE, identifier, json_lines, label_type, labels

_MESSAGE = f"STRUCT(id VARCHAR, type VARCHAR, model VARCHAR, usage {USAGE_TYPE})"
_EVENT = f"STRUCT(type VARCHAR, message {_MESSAGE}, usage {USAGE_TYPE})"
_WRAPPER = ("timestamp", "request_id", "workspace_id", "api_key_id", "status", "cost_usd", "model", "id", "type")

# the TTL split and the dimensions are message_start's, the counters the last that are not null
_FROM_START = {"cache_write_5m", "cache_write_1h", "service_tier", "inference_geo", "speed"}


def select_json(log: RequestLog, files: Sequence[str], longest: int, *, with_text: bool = False) -> str:
    """A query over files, in the columns of the reader `requests`: one row a line, which is one request.

    A line is a wrapper (timestamp, request_id, workspace_id, api_key_id, status, cost_usd, labels, headers) around one
    of: ``response`` (a body), ``events`` (a stream's events), ``stream`` (its SSE text), ``result`` (of a batch); or
    with a body's own keys beside the timestamp. A stream is folded here: its usage is cumulative.
    """
    columns = dict.fromkeys(_WRAPPER, "VARCHAR") | {
        "headers": "MAP(VARCHAR, VARCHAR)",
        "response": _MESSAGE,
        "events": f"{_EVENT}[]",
        "stream": "VARCHAR",
        "result": f"STRUCT(type VARCHAR, message {_MESSAGE})",
        "usage": USAGE_TYPE,
    }
    if log.labels:
        columns["labels"] = label_type(log)
    spelled = labels(log, {name: f"labels.{identifier(name)}" for name in log.labels})
    usage = ", ".join(_usage(path, column) for path, column in USAGE_FIELDS.items())
    return f"""
        select
            file, line_text,
            coalesce(request_id, {_header("request-id")}, body.id) as request_id, timestamp,
            coalesce(body.model, model) as model,
            coalesce(workspace_id, {_header("anthropic-workspace-id")}) as workspace_id,
            api_key_id, null::varchar as event, cost_usd, status, {usage}, labels,
            case
                when timestamp is null and bodies = 0 and request_id is null and model is null
                then 'is not one JSON object'
                when bodies = 0 then 'has no response, events, stream or result'
                when bodies > 1 then 'has more than one of response, events, stream, result and a bare body'
                when streamed is not null and start is null then 'has a stream without its message_start'
                when result is not null and result.type is null then 'has a result without a type'
            end as unread,
            coalesce(
                result.type in ('errored', 'canceled', 'expired')
                or (body.usage is null and (body.type = 'error' or try_cast(status as integer) >= 400)),
                false
            ) as unused,
            streamed is not null and len(deltas) = 0 as cut,
        from (
            select
                *,
                case when streamed is not null then start else coalesce(
                    response, result.message,
                    case when bare then struct_pack(id := id, type := type, model := model, usage := usage) end
                ) end as body,
            from (
                select
                    *,
                    list_filter(streamed, lambda event: event.type = 'message_start')[1].message as start,
                    list_filter(list_transform(
                        list_filter(streamed, lambda event: event.type = 'message_delta'), lambda event: event.usage
                    ), lambda used: used is not null) as deltas,
                from (
                    select
                        * exclude (labels), {spelled} as labels,
                        coalesce(events, case when stream is not null then list_transform(
                            list_filter(
                                regexp_extract_all(stream, '(?m)^data:[ ]?([^\\r\\n]*)', 1),
                                lambda line: json_valid(line)
                            ),
                            lambda line: try_cast(line::json as {_EVENT})
                        ) end) as streamed,
                        (usage is not null or coalesce(type in ('message', 'error'), false)) as bare,
                        (response is not null)::int + (events is not null)::int + (stream is not null)::int
                            + (result is not null)::int + bare::int as bodies,
                    from {_source(files, columns, longest, log, with_text=with_text)}
                )
            )
        )
    """


def _source(files: Sequence[str], columns: dict[str, str], longest: int, log: RequestLog, *, with_text: bool) -> str:
    source = json_lines(files, columns, longest, with_text=with_text)
    return source if log.labels else f"(select *, null as labels from {source})"


def _header(name: str) -> str:
    return f"list_filter(map_entries(headers), lambda header: lower(header.key) = '{name}')[1].value"


def _usage(path: str, column: str) -> str:
    """A field of usage: a body's own, or that of a folded stream."""
    if column in _FROM_START:
        # a batch is a tier; its results say so, older ones do not
        value = f"coalesce(body.usage.{path}, deltas[-1].{path})"
        return (
            f"coalesce({value}, case when result is not null then 'batch' end) as {column}"
            if column == "service_tier"
            else f"{value} as {column}"
        )
    of_deltas = f"list_filter(list_transform(deltas, lambda used: used.{path}), lambda value: value is not null)[-1]"
    return f"coalesce({of_deltas}, body.usage.{path}) as {column}"
