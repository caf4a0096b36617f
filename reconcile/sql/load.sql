-- From the lines of the request logs to one row a request; what cleaning removed is measured.
-- Grain: source.request one row a kept request; source.removed one row (reason, log, kept_log, day, cell dimensions).
-- Reads: event (temporary: one row a readable line), source.run, workspace, workspace_alias, api_key, log_setting,
--   model_name, price_day. Writes: source.request, removed, iteration, default_used, key_named, log_hour.

-- The folding comes in two scripts, since prices are looked up for the dimensions that folding finds.

-- Ids that stand on more than one line, over all logs. A null id is never one of them.
create or replace temp table repeated as
select request_id, bool_or(kind = 'final') as finished
from event
where request_id is not null
group by request_id
having count(*) > 1;

create or replace temp table repeated_line as
select event.*, repeated.finished, event.rowid as line
from event
join repeated on repeated.request_id = event.request_id;

-- Finished lines of one id: the earliest stands, then the largest output, then the largest text. The events of a
-- stream that also has a finished line are that request logged once more.
create or replace temp table finished_rank as
select
    line,
    request_id,
    row_number() over (
        partition by request_id
        order by kind = 'final' desc, logged_at, output_tokens desc nulls last, line_text desc nulls last,
            log, model_logged, cost_usd desc nulls last, input_tokens desc nulls last, api_key_id, workspace_logged
    ) as standing,
from repeated_line
where finished;

-- A stream that two logs hold, or whose events a log holds twice, is the same request logged more than once.
create or replace temp table stream_of_log as
select
    request_id,
    log,
    row_number() over (
        partition by request_id order by min(logged_at), max(output_tokens) desc nulls last, log
    ) as standing,
from repeated_line
where not finished
group by request_id, log;

create or replace temp table stream_line as
select
    repeated_line.*,
    stream_of_log.standing as stream_standing,
    row_number() over (
        partition by
            repeated_line.request_id, repeated_line.log, kind, logged_at, input_tokens, cache_write_total, cache_write_5m,
            cache_write_1h, cache_read_input_tokens, output_tokens, web_search_requests, cost_usd
    ) as copy,
from repeated_line
join stream_of_log
    on stream_of_log.request_id = repeated_line.request_id and stream_of_log.log = repeated_line.log
where not finished;

-- A folded stream: the last value of each counter that is not null, at the dimensions of its message_start.
create or replace temp table folded as
with
head as (
    select
        request_id,
        log,
        unnest(min({
            'order': if(kind = 'start', 0, 1), 'logged_at': logged_at, 'model_logged': model_logged,
            'workspace_logged': workspace_logged, 'api_key_id': api_key_id, 'tier_logged': tier_logged,
            'geo_logged': geo_logged, 'speed_logged': speed_logged, 'cache_write_5m': cache_write_5m,
            'cache_write_1h': cache_write_1h,
        })),
    from stream_line
    where stream_standing = 1
    group by request_id, log
),
tail as (
    select
        request_id,
        max(logged_at) as logged_at,
        (max({'logged_at': logged_at, 'v': input_tokens}) filter (input_tokens is not null)).v as input_tokens,
        (max({'logged_at': logged_at, 'v': cache_write_total}) filter (cache_write_total is not null)).v as cache_write_total,
        (max({'logged_at': logged_at, 'v': cache_read_input_tokens}) filter (cache_read_input_tokens is not null)).v
            as cache_read_input_tokens,
        (max({'logged_at': logged_at, 'v': output_tokens}) filter (output_tokens is not null)).v as output_tokens,
        (max({'logged_at': logged_at, 'v': web_search_requests}) filter (web_search_requests is not null)).v as web_search_requests,
        (max({'logged_at': logged_at, 'v': cost_usd}) filter (cost_usd is not null)).v as cost_usd,
        (max({'logged_at': logged_at, 'v': status}) filter (status is not null)).v as status,
        (max({'logged_at': logged_at, 'v': iterations}) filter (iterations is not null)).v as iterations,
        (max({'logged_at': logged_at, 'v': map_entries(labels)}) filter (labels is not null)).v as labels,
        not bool_or(kind = 'delta') as cut,
    from stream_line
    where stream_standing = 1
    group by request_id
)
select
    tail.request_id, head.log, tail.logged_at, head.model_logged, head.workspace_logged, head.api_key_id, head.tier_logged,
    head.geo_logged, head.speed_logged, tail.input_tokens, tail.cache_write_total, head.cache_write_5m,
    head.cache_write_1h, tail.cache_read_input_tokens, tail.output_tokens, tail.web_search_requests, tail.cost_usd,
    tail.status, tail.iterations, map_from_entries(tail.labels) as labels, tail.cut,
from tail
join head on head.request_id = tail.request_id;

-- One row a request, in the words of its log.
create or replace temp table kept as
with once as (
    select event.*
    from event
    anti join repeated on repeated.request_id = event.request_id
)
select
    request_id, log, logged_at, model_logged, workspace_logged, api_key_id, tier_logged, geo_logged, speed_logged,
    input_tokens, cache_write_total, cache_write_5m, cache_write_1h, cache_read_input_tokens, output_tokens,
    web_search_requests, cost_usd, status, iterations, labels, kind = 'start' as cut,
from once
union all
select
    line.request_id, log, logged_at, model_logged, workspace_logged, api_key_id, tier_logged, geo_logged, speed_logged,
    input_tokens, cache_write_total, cache_write_5m, cache_write_1h, cache_read_input_tokens, output_tokens,
    web_search_requests, cost_usd, status, iterations, labels, false as cut,
from repeated_line as line
join finished_rank on finished_rank.line = line.line and finished_rank.standing = 1
union all
select * from folded;

-- Defaults where a log does not say; the same rules for a kept request and for a line that is taken away.
create or replace temp macro cache_1h(total, w5, w1) as
    case when w5 is null and w1 is null then 0 else least(coalesce(w1, 0), coalesce(total, coalesce(w5, 0) + coalesce(w1, 0))) end;
create or replace temp macro cache_total(total, w5, w1) as
    coalesce(total, coalesce(w5, 0) + coalesce(w1, 0));

create or replace temp table resolved as
select
    kept.request_id,
    kept.log,
    kept.logged_at,
    kept.logged_at::date as day,
    date_trunc('hour', kept.logged_at)::timestamp as hour,
    coalesce(alias.workspace_id, kept.workspace_logged, key.workspace_id, setting.workspace_id) as workspace_id,
    name.model,
    coalesce(kept.tier_logged, 'standard') as service_tier,
    if(
        coalesce(kept.input_tokens, 0)::bigint + coalesce(kept.cache_read_input_tokens, 0)
            + cache_total(kept.cache_write_total, kept.cache_write_5m, kept.cache_write_1h) > 200000,
        '200k-1M', '0-200k'
    ) as context_window,
    coalesce(kept.geo_logged, if(name.has_geo, coalesce(place.default_inference_geo, 'global'), 'not_available'))
        as inference_geo,
    coalesce(kept.speed_logged, 'standard') as speed,
    kept.api_key_id,
    kept.labels,
    coalesce(kept.input_tokens, 0)::bigint as uncached_input_tokens,
    (cache_total(kept.cache_write_total, kept.cache_write_5m, kept.cache_write_1h)
        - cache_1h(kept.cache_write_total, kept.cache_write_5m, kept.cache_write_1h))::bigint as cache_write_5m,
    cache_1h(kept.cache_write_total, kept.cache_write_5m, kept.cache_write_1h)::bigint as cache_write_1h,
    coalesce(kept.cache_read_input_tokens, 0)::bigint as cache_read_input_tokens,
    coalesce(kept.output_tokens, 0)::bigint as output_tokens,
    coalesce(kept.web_search_requests, 0)::bigint as web_search_requests,
    coalesce(kept.input_tokens, 0)::bigint + coalesce(kept.cache_read_input_tokens, 0)
        + cache_total(kept.cache_write_total, kept.cache_write_5m, kept.cache_write_1h) as prompt_tokens,
    kept.cost_usd,
    kept.status,
    kept.iterations,
    kept.cut,
    name.biller,
    kept.tier_logged is null as tier_defaulted,
    kept.geo_logged is null as geo_defaulted,
    kept.speed_logged is null as speed_defaulted,
    cache_total(kept.cache_write_total, kept.cache_write_5m, kept.cache_write_1h)
        > coalesce(kept.cache_write_5m, 0) + coalesce(kept.cache_write_1h, 0) as ttl_defaulted,
    kept.workspace_logged is null as workspace_defaulted,
from kept
join model_name as name on name.logged = kept.model_logged
left join source.workspace_alias as alias on alias.logged = kept.workspace_logged
left join source.api_key as key on key.api_key_id = kept.api_key_id
left join log_setting as setting on setting.log = kept.log
left join source.workspace as place
    on place.workspace_id = coalesce(alias.workspace_id, kept.workspace_logged, key.workspace_id, setting.workspace_id);
