-- Value every request and every line that cleaning takes away, at the price book of its day.
-- Grain: as in load.sql. Reads: resolved, repeated_line, finished_rank, stream_line, folded, price_day, search_price
--   (all temporary). Writes: source.request, removed, iteration, default_used, key_named, log_hour.

create or replace temp macro book(p, input_tokens, w5, w1, read_tokens, output_tokens, high) as (
    (
        input_tokens * if(high, p.input_high_usd, p.input_usd)
        + w5 * if(high, p.write_5m_high_usd, p.write_5m_usd)
        + w1 * if(high, p.write_1h_high_usd, p.write_1h_usd)
        + read_tokens * if(high, p.read_high_usd, p.read_usd)
        + output_tokens * if(high, p.output_high_usd, p.output_usd)
    ) * 0.000001::decimal(6, 6)
)::decimal(38, 18);

create or replace table source.request as
select
    resolved.request_id,
    resolved.log,
    resolved.logged_at,
    resolved.day,
    resolved.hour,
    resolved.workspace_id,
    resolved.model,
    resolved.service_tier,
    resolved.context_window,
    resolved.inference_geo,
    resolved.speed,
    resolved.api_key_id,
    resolved.labels,
    resolved.uncached_input_tokens,
    resolved.cache_write_5m,
    resolved.cache_write_1h,
    resolved.cache_read_input_tokens,
    resolved.output_tokens,
    resolved.web_search_requests,
    coalesce(resolved.prompt_tokens > price.step_over, false) as over_step,
    resolved.cost_usd as own_cost_usd,
    book(
        price, resolved.uncached_input_tokens, resolved.cache_write_5m, resolved.cache_write_1h,
        resolved.cache_read_input_tokens, resolved.output_tokens,
        coalesce(resolved.prompt_tokens > price.step_over, false)
    ) + (resolved.web_search_requests * coalesce(search.price_usd, 0))::decimal(38, 18) as recorded_usd,
    resolved.status,
    resolved.biller,
    resolved.cut,
    coalesce(resolved.day between run.start_on and run.through_on, false) as in_period,
from resolved
left join price_day as price
    on price.day = resolved.day and price.model = resolved.model and price.service_tier = resolved.service_tier
    and price.context_window = resolved.context_window and price.inference_geo = resolved.inference_geo
    and price.speed = resolved.speed
left join search_price as search on search.day = resolved.day
cross join source.run as run;

-- What a line of a repeated id said that it cost: its own figure, or its quantities at the book, at the dimensions,
-- the day and the TTL split of the request that stands for it.
create or replace temp table taken_away as
with
standing as (
    select request_id, log as kept_log, day, workspace_id, model, service_tier, context_window, inference_geo, speed,
        api_key_id, in_period, recorded_usd, own_cost_usd, over_step,
        uncached_input_tokens + cache_write_5m + cache_write_1h + cache_read_input_tokens + output_tokens as tokens,
    from source.request
    where request_id is not null
),
lines as (
    -- events beside the finished line that their own log kept are the stream counted again; all else was logged twice
    select line.*, if(line.kind <> 'final' and line.log = standing.kept_log, 'stream_sum', 'duplicate') as reason,
        null::uinteger as start_5m, null::uinteger as start_1h, false as folded,
    from repeated_line as line
    join finished_rank on finished_rank.line = line.line and finished_rank.standing > 1
    join standing on standing.request_id = line.request_id
    union all
    select stream_line.* exclude (stream_standing, copy),
        if(stream_standing > 1 or copy > 1, 'duplicate', 'stream_sum') as reason,
        folded.cache_write_5m as start_5m, folded.cache_write_1h as start_1h, true as folded,
    from stream_line
    join folded on folded.request_id = stream_line.request_id
),
split as (
    select
        reason, request_id, log, line, cost_usd, folded,
        coalesce(input_tokens, 0) as input_tokens,
        cache_total(cache_write_total, cache_write_5m, cache_write_1h)::bigint as written,
        cache_1h(
            cache_total(cache_write_total, cache_write_5m, cache_write_1h),
            coalesce(cache_write_5m, start_5m), coalesce(cache_write_1h, start_1h)
        )::bigint as written_1h,
        coalesce(cache_read_input_tokens, 0) as read_tokens,
        coalesce(output_tokens, 0) as output_tokens,
        coalesce(web_search_requests, 0) as web_search_requests,
    from lines
)
select
    split.reason, split.request_id, split.log, split.line, standing.* exclude (request_id, tokens, recorded_usd, own_cost_usd, over_step),
    (input_tokens + written + read_tokens + output_tokens)::bigint as line_tokens,
    coalesce(
        split.cost_usd,
        book(price, input_tokens, written - written_1h, written_1h, read_tokens, output_tokens, standing.over_step)
        + (web_search_requests * coalesce(search.price_usd, 0))::decimal(38, 18),
        0
    )::decimal(38, 18) as logged_usd,
    if(folded, standing.tokens, 0) as kept_tokens,
    if(folded, coalesce(standing.own_cost_usd, standing.recorded_usd, 0), 0) as kept_usd,
from split
join standing on standing.request_id = split.request_id
left join price_day as price
    on price.day = standing.day and price.model = standing.model and price.service_tier = standing.service_tier
    and price.context_window = standing.context_window and price.inference_geo = standing.inference_geo
    and price.speed = standing.speed
left join search_price as search on search.day = standing.day;

create or replace table source.removed as
with
-- the events of a stream are taken away, and its folded request put in their place
by_stream as (
    select reason, request_id, any_value(log) as log, any_value(kept_log) as kept_log, day, workspace_id, model,
        service_tier, context_window, inference_geo, speed, api_key_id, in_period, count(*) as lines,
        sum(line_tokens) - any_value(kept_tokens) as tokens,
        sum(logged_usd) - any_value(kept_usd) as logged_usd,
    from taken_away
    where reason = 'stream_sum'
    group by all
    having sum(logged_usd) <> any_value(kept_usd) or sum(line_tokens) <> any_value(kept_tokens)
),
own_price as (
    select 'app_price' as reason, log, log as kept_log, day, workspace_id, model, service_tier, context_window,
        inference_geo, speed, api_key_id, in_period, 0 as lines, 0 as tokens,
        own_cost_usd - coalesce(recorded_usd, 0) as logged_usd,
    from source.request
    where own_cost_usd <> coalesce(recorded_usd, 0)
),
every_one as (
    select reason, log, kept_log, day, workspace_id, model, service_tier, context_window, inference_geo, speed,
        api_key_id, in_period, 1 as lines, 1 as requests, line_tokens as tokens, logged_usd
    from taken_away where reason = 'duplicate'
    union all
    select reason, log, kept_log, day, workspace_id, model, service_tier, context_window, inference_geo, speed,
        api_key_id, in_period, lines, 1, tokens, logged_usd
    from by_stream
    union all
    select reason, log, kept_log, day, workspace_id, model, service_tier, context_window, inference_geo, speed,
        api_key_id, in_period, lines, 1, tokens, logged_usd
    from own_price
)
select
    reason, log, kept_log, day, workspace_id, model, service_tier, context_window, inference_geo, speed, api_key_id,
    in_period,
    sum(requests)::bigint as requests,
    sum(lines)::bigint as lines,
    -sum(tokens)::bigint as quantity,
    -sum(logged_usd) as amount_usd,
    sum(abs(logged_usd)) as moved_usd,
from every_one
group by all;

-- Sub-inference that the top level of usage leaves out: billed, and only these entries name it.
create or replace table source.iteration as
with entry as (
    select resolved.* exclude (iterations), unnest(from_json(iterations, '["json"]')) as entry
    from resolved
    where json_type(iterations) = 'ARRAY'
),
counted as (
    select
        request_id, log, day, hour, workspace_id, service_tier, inference_geo, speed,
        coalesce(name.model, entry.model) as model,
        entry ->> '$.type' as kind,
        try_cast(entry ->> '$.input_tokens' as bigint) as input_tokens,
        try_cast(entry ->> '$.cache_creation_input_tokens' as bigint) as written,
        try_cast(entry ->> '$.cache_creation.ephemeral_5m_input_tokens' as bigint) as write_5m,
        try_cast(entry ->> '$.cache_creation.ephemeral_1h_input_tokens' as bigint) as write_1h,
        try_cast(entry ->> '$.cache_read_input_tokens' as bigint) as read_tokens,
        try_cast(entry ->> '$.output_tokens' as bigint) as output_tokens,
    from entry
    left join model_name as name on name.logged = entry ->> '$.model'
    where entry ->> '$.type' is distinct from 'message'
),
split as (
    select *,
        coalesce(input_tokens, 0) + coalesce(read_tokens, 0) + cache_total(written, write_5m, write_1h) as prompt_tokens,
        cache_total(written, write_5m, write_1h) - cache_1h(written, write_5m, write_1h) as total_5m,
        cache_1h(written, write_5m, write_1h) as total_1h,
    from counted
),
metered as (
    select *, unnest([
        {'meter': 'uncached_input_tokens', 'quantity': input_tokens},
        {'meter': 'cache_creation.ephemeral_5m_input_tokens', 'quantity': total_5m},
        {'meter': 'cache_creation.ephemeral_1h_input_tokens', 'quantity': total_1h},
        {'meter': 'cache_read_input_tokens', 'quantity': read_tokens},
        {'meter': 'output_tokens', 'quantity': output_tokens},
    ]) as counter
    from split
)
select
    request_id, log, day, hour, workspace_id, model, service_tier,
    if(prompt_tokens > 200000, '200k-1M', '0-200k') as context_window,
    inference_geo, speed, counter.meter as meter, counter.quantity::bigint as quantity, kind,
from metered
where counter.quantity > 0;

create or replace table source.default_used as
select log, field, count(*) as requests
from (
    select log, unnest(list_filter([
        if(tier_defaulted, 'service_tier', null),
        if(geo_defaulted, 'inference_geo', null),
        if(speed_defaulted, 'speed', null),
        if(ttl_defaulted, 'cache_creation', null),
        if(workspace_defaulted, 'workspace_id', null),
    ], lambda field: field is not null)) as field
    from resolved
)
group by all
order by log, field;

create or replace table source.key_named as
select distinct log, api_key_id from event where api_key_id is not null order by all;

create or replace table source.log_hour as
select log, date_trunc('hour', logged_at)::timestamp as hour, count(*) as lines from event group by all order by all;
