-- Value every request and every line that cleaning takes away, at the price book of its day.
-- Grain: as said at each table. Reads: event, repeated_line, finished_rank, fold, second_log, copy_of, standing, kept,
--   place, price_day (all temporary), source.run, origin, usage, billed. Writes:
--   source.request_row, request, removed, removed_request, iteration, default_used.

create or replace temp macro cache_1h(total, w5, w1) as
    case when w5 is null and w1 is null then 0 else least(coalesce(w1, 0), coalesce(total, coalesce(w5, 0) + coalesce(w1, 0))) end;
create or replace temp macro cache_total(total, w5, w1) as
    coalesce(total, coalesce(w5, 0) + coalesce(w1, 0));
-- prompt_tokens above step_over cost the upper prices
-- (a model without a price: its tokens are unknown, its searches are not)
create or replace temp macro book(p, input_tokens, w5, w1, read_tokens, output_tokens, searches, high) as
    case
        when p.input_usd is not null or searches > 0
        then coalesce((
            (
                input_tokens * if(high, p.input_high_usd, p.input_usd)
                + w5 * if(high, p.write_5m_high_usd, p.write_5m_usd)
                + w1 * if(high, p.write_1h_high_usd, p.write_1h_usd)
                + read_tokens * if(high, p.read_high_usd, p.read_usd)
                + output_tokens * if(high, p.output_high_usd, p.output_usd)
            ) * 0.000001::decimal(6, 6)
        )::decimal(38, 18), 0) + (searches * p.search_usd)::decimal(38, 18)
    end;

-- Quantities of lines, none of them null, with their day and their prices.
create or replace temp macro priced(lines) as table
with counted as (
    select
        * exclude (input_tokens, cache_write_5m, cache_write_1h, cache_read_input_tokens, output_tokens, web_search_requests),
        coalesce(input_tokens, 0)::bigint as uncached_input_tokens,
        cache_total(cache_write_total, cache_write_5m, cache_write_1h)::bigint as written,
        cache_1h(cache_write_total, cache_write_5m, cache_write_1h)::bigint as cache_write_1h,
        coalesce(cache_read_input_tokens, 0)::bigint as cache_read_input_tokens,
        coalesce(output_tokens, 0)::bigint as output_tokens,
        coalesce(web_search_requests, 0)::bigint as web_search_requests,
        cache_write_total > coalesce(cache_write_5m, 0) + coalesce(cache_write_1h, 0) as split_defaulted,
    from query_table(lines)
)
select
    counted.*,
    counted.logged_at::date as day,
    uncached_input_tokens + written + cache_read_input_tokens > 200000 as long_context,
    coalesce(uncached_input_tokens + written + cache_read_input_tokens > price.step_over, false) as over_step,
    place.* exclude (hash, grain, long_grain, defaulted),
    price.* exclude (day, step_over),
from counted
-- left, so that the order of the joins is kept: a place always has its grain, and a grain all days
left join place on place.hash = counted.hash
left join price_day as price
    on price.day = counted.logged_at::date
    and price.grain = if(uncached_input_tokens + written + cache_read_input_tokens > 200000, place.long_grain, place.grain);

-- A request is kept as what is its own, and the number of its origin. The view puts both together.
create or replace table source.request_row as
select
    request_id, origin, logged_at, long_context, uncached_input_tokens, written - cache_write_1h as cache_write_5m,
    cache_write_1h, cache_read_input_tokens, output_tokens, web_search_requests, over_step, cost_usd as own_cost_usd,
    book(
        request, uncached_input_tokens, written - cache_write_1h, cache_write_1h, cache_read_input_tokens, output_tokens,
        web_search_requests, over_step
    ) as recorded_usd,
    status, cut, coalesce(day between run.start_on and run.through_on, false) as in_period,
    coalesce(split_defaulted, false) as split_defaulted,
from priced('kept') as request
cross join source.run as run;

create or replace view source.request as
select
    request.request_id, origin.log, request.logged_at, request.logged_at::date as day,
    date_trunc('hour', request.logged_at)::timestamp as hour, origin.workspace_id, origin.model, origin.service_tier,
    if(request.long_context, '200k-1M', '0-200k') as context_window, origin.inference_geo, origin.speed,
    origin.api_key_id, origin.labels, request.uncached_input_tokens, request.cache_write_5m, request.cache_write_1h,
    request.cache_read_input_tokens, request.output_tokens, request.web_search_requests, request.over_step,
    request.own_cost_usd, request.recorded_usd, request.status, origin.biller, request.cut, request.in_period,
from source.request_row as request
join source.origin as origin on origin.origin = request.origin;

-- What a line of a repeated id said that it cost: its own figure, or its quantities at the book, at the dimensions,
-- the day and the TTL split of the request that stands for it.
create or replace temp table taken_away as
with
stood as (
    select
        key, position as kept_log, origin as kept_origin, day, grain, long_context, over_step, folded, start_5m, start_1h,
        cost_usd as kept_cost_usd,
        uncached_input_tokens + written + cache_read_input_tokens + output_tokens as kept_tokens,
        book(
            request, uncached_input_tokens, written - cache_write_1h, cache_write_1h, cache_read_input_tokens,
            output_tokens, web_search_requests, over_step
        ) as recorded_usd,
    from priced('standing') as request
),
lines as (
    -- events beside the finished line that their own log kept are the stream counted again; all else was logged twice
    select line.*, stood.* exclude (key),
        if(line.kind <> 'final' and line.log = kept_log, 'stream_sum', 'duplicate') as reason,
    from repeated_line as line
    join finished_rank on finished_rank.line = line.line and finished_rank.standing > 1
    join stood on stood.key = line.key
    union all
    select line.*, stood.* exclude (key),
        if(second_log.key is not null or copy_of.line is not null, 'duplicate', 'stream_sum') as reason,
    from repeated_line as line
    join stood on stood.key = line.key
    left join second_log on second_log.key = line.key and second_log.log = line.log
    left join copy_of on copy_of.line = line.line
    where not line.finished
),
split as (
    select
        reason, key, log, kept_log, kept_origin, day, grain, long_context, over_step, cost_usd, folded, kept_tokens,
        coalesce(kept_cost_usd, recorded_usd, 0) as kept_usd,
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
    split.reason, split.key, split.log, split.kept_log, split.kept_origin as origin, split.day, split.long_context,
    (input_tokens + written + read_tokens + output_tokens)::bigint as line_tokens,
    coalesce(
        split.cost_usd,
        book(
            price, input_tokens, written - written_1h, written_1h, read_tokens, output_tokens, web_search_requests,
            split.over_step
        ),
        0
    )::decimal(38, 18) as logged_usd,
    if(split.folded, split.kept_tokens, 0) as kept_tokens,
    if(split.folded, split.kept_usd, 0)::decimal(38, 18) as kept_usd,
from split
join price_day as price on price.day = split.day and price.grain = split.grain;

create or replace table source.removed as
with
-- the events of a stream are taken away, and its folded request put in their place
by_stream as (
    select reason, any_value(kept_log) as log, any_value(kept_log) as kept_log, any_value(origin) as origin,
        any_value(day) as day, any_value(long_context) as long_context, count(*) as lines,
        sum(line_tokens) - any_value(kept_tokens) as tokens,
        sum(logged_usd) - any_value(kept_usd) as logged_usd,
    from taken_away
    where reason = 'stream_sum'
    group by reason, key
    having sum(logged_usd) <> any_value(kept_usd) or sum(line_tokens) <> any_value(kept_tokens)
),
own_price as (
    select 'app_price' as reason, origin, logged_at::date as day, long_context,
        own_cost_usd - coalesce(recorded_usd, 0) as logged_usd,
    from source.request_row
    where own_cost_usd <> coalesce(recorded_usd, 0)
),
every_one as (
    select reason, log, kept_log, origin, day, long_context, 1 as lines, line_tokens as tokens, logged_usd
    from taken_away where reason = 'duplicate'
    union all
    select reason, log, kept_log, origin, day, long_context, lines, tokens, logged_usd from by_stream
    union all
    select reason, null, null, origin, day, long_context, 0, 0, logged_usd from own_price
),
by_origin as (
    select reason, log, kept_log, origin, day, long_context, count(*) as requests, sum(lines) as lines,
        sum(tokens) as tokens, sum(logged_usd) as logged_usd, sum(abs(logged_usd)) as moved_usd,
    from every_one
    group by all
)
select
    by_origin.reason,
    coalesce(own.log, place.log) as log,
    coalesce(kept.log, place.log) as kept_log,
    by_origin.day, place.workspace_id, place.model, place.service_tier,
    if(by_origin.long_context, '200k-1M', '0-200k') as context_window,
    place.inference_geo, place.speed, place.api_key_id,
    coalesce(by_origin.day between run.start_on and run.through_on, false) as in_period,
    sum(by_origin.requests)::bigint as requests,
    sum(by_origin.lines)::bigint as lines,
    -sum(by_origin.tokens)::bigint as quantity,
    -sum(by_origin.logged_usd) as amount_usd,
    sum(by_origin.moved_usd) as moved_usd,
from by_origin
join place on place.origin = by_origin.origin
left join log_name as own on own.position = by_origin.log
left join log_name as kept on kept.position = by_origin.kept_log
cross join source.run as run
group by all;

-- What was taken away by request, for those who look one up: its id is kept as in the logs' lines, a number. The request
-- that stands for it is in source.request, where md5_number(request_id) is that number.
create or replace table source.removed_request as
with by_request as (
    select reason, key, log, count(*) as lines, sum(line_tokens) as tokens, sum(logged_usd) as logged_usd
    from taken_away
    where reason = 'duplicate'
    group by reason, key, log
    union all
    select reason, key, any_value(kept_log), count(*), sum(line_tokens) - any_value(kept_tokens),
        sum(logged_usd) - any_value(kept_usd)
    from taken_away
    where reason = 'stream_sum'
    group by reason, key
    having sum(logged_usd) <> any_value(kept_usd) or sum(line_tokens) <> any_value(kept_tokens)
)
select by_request.reason, by_request.key, log_name.log, by_request.lines::bigint as lines,
    -by_request.tokens::bigint as quantity, -by_request.logged_usd as amount_usd,
from by_request
join log_name on log_name.position = by_request.log;

create or replace temp view kept_iterations as select * from kept where iterations is not null;

-- Sub-inference that the top level of usage leaves out: billed, and only these entries name it.
create or replace table source.iteration as
with entry as (
    select request_id, log, logged_at, day, workspace_id, api_key_id, model,
        service_tier, inference_geo, speed, unnest(from_json(iterations, '["json"]')) as entry,
    from priced('kept_iterations')
),
counted as (
    select
        request_id, log, logged_at, day, workspace_id, api_key_id, service_tier, inference_geo, speed,
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
    request_id, log, logged_at, day, workspace_id, api_key_id, model, service_tier,
    if(prompt_tokens > 200000, '200k-1M', '0-200k') as context_window,
    inference_geo, speed, counter.meter as meter, counter.quantity::bigint as quantity, kind,
from metered
where counter.quantity > 0;

create or replace table source.default_used as
with counted as (
    select origin, split_defaulted, count(*) as requests from source.request_row group by all
),
named as (
    select place.log, unnest(place.defaulted) as field, counted.requests
    from counted
    join place on place.origin = counted.origin
    union all
    select place.log, 'cache_creation', counted.requests
    from counted
    join place on place.origin = counted.origin
    where counted.split_defaulted
)
select log, field, sum(requests)::bigint as requests from named group by all order by log, field;

-- what no request, no usage and no bill came to is not a price that was used
update source.price as price
set is_used = price.model is null or exists (
    select 1
    from (
        select distinct model, service_tier, if(long_context, '200k-1M', '0-200k') as context_window, inference_geo, speed
        from (select distinct origin, long_context from source.request_row) as row
        join place on place.origin = row.origin
        union
        select model, service_tier, context_window, inference_geo, speed from source.usage where model is not null
        union
        select model, service_tier, context_window, inference_geo, coalesce(speed, 'standard') from source.billed
        where cost_type = 'tokens'
    ) as used
    where used.model = price.model and used.service_tier = price.service_tier
        and used.context_window = price.context_window and used.inference_geo = price.inference_geo
        and used.speed = price.speed
);
