-- A log whose clock is off by a constant number of hours.
-- Rule: shift the log's output tokens (which no other confusion touches; a log without any: its input) by every half hour
--   from -12 to +14 hours against the hourly usage of the keys that it names (or of the workspaces that it writes for),
--   less what other logs hold of it, and take the shift that leaves the least; of a log that does not name keys also whatever the
--   workspace, as its lines may stand in wrong ones. Claimed when at least 10 requests can tell,
--   less than nine tenths of the tokens stand in hours that agree, the shift takes away at least 60 % of what does not (a
--   log that is only late keeps about half of it), and then a quarter of the tokens stands in hours that agree to the
--   token (1,000 requests tell without that); or when a third of them does, and four times as many as without it, whatever use
--   beside it nobody logs. A log that has 95 % of its lines in the first 20 minutes of the hour
--   is written by a job: up to an hour is no clock. The script runs until the clocks that it found change none of the others.
-- Grain: explained.shift_score one row a log, way and shift; shift one row a log that is off.
-- Reads: source.request, explained.known, shift (as found so far). Writes: explained, checks.
create or replace table explained.shift_score as
with
naming as (
    select log, count(*) as requests, 100 * count(api_key_id) >= 95 * count(*) as names_keys,
        sum(output_tokens) > 0 as by_output,
    from source.request
    group by log
    having count(*) >= 10
),
way as (
    select *, 'place' as way from naming
    union all
    select *, 'model' from naming where not names_keys
),
logged as (
    select
        request.log, way.way,
        time_bucket(interval 30 minute, request.logged_at) as half_hour,
        case when way.way = 'place' and not way.names_keys then request.workspace_id end as workspace_id,
        request.model,
        case when way.names_keys then request.api_key_id end as api_key_id,
        way.by_output,
        sum(
            if(way.by_output, output_tokens, uncached_input_tokens + cache_write_5m + cache_write_1h + cache_read_input_tokens)
        )::bigint as tokens,
    from source.request as request
    join way on way.log = request.log
    group by all
),
series as (
    select row_number() over (order by log, way, workspace_id, model, api_key_id) as series_id, *,
        way = 'place' and api_key_id is null as by_workspace,
    from (select distinct log, way, workspace_id, model, api_key_id, by_output from logged)
),
span as (
    select start_on::timestamp as from_at, through_on::timestamp + interval 24 hour as until_at from source.run
),
other as (
    select request.log, date_trunc('hour', logged_at - to_minutes(coalesce(shift.minutes, 0))) as hour, workspace_id,
        model, api_key_id, sum(output_tokens) as output_tokens,
        sum(uncached_input_tokens + cache_write_5m + cache_write_1h + cache_read_input_tokens) as input_tokens,
    from source.request as request
    left join explained.shift as shift on shift.log = request.log
    group by all
),
target as (
    select series.log, series.way, series.series_id, hour, sum(tokens)::bigint as tokens
    from (
        select series.series_id, known.hour, known.quantity as tokens
        from explained.known as known
        join series on series.model = known.model and series.api_key_id = known.api_key_id
        where known.meter <> 'web_search_requests' and (known.meter = 'output_tokens') = series.by_output
        union all
        select series.series_id, known.hour, known.quantity
        from explained.known as known
        join series
            on series.model = known.model and series.api_key_id is null
            and (series.way = 'model' or series.workspace_id is not distinct from known.workspace_id)
        where known.meter <> 'web_search_requests' and (known.meter = 'output_tokens') = series.by_output
        union all
        -- what other logs hold of the same series
        select series.series_id, other.hour, -if(series.by_output, other.output_tokens, other.input_tokens)
        from other
        join series
            on series.log <> other.log and series.model = other.model
            and (series.way = 'model' or series.api_key_id = other.api_key_id
                or (series.by_workspace and series.workspace_id is not distinct from other.workspace_id))
    ) as part
    join series on series.series_id = part.series_id
    cross join span
    where hour >= span.from_at and hour < span.until_at
    group by all
),
halves as (
    select series.log, series.way, series.series_id, logged.half_hour, logged.tokens
    from logged
    join series
        on series.log = logged.log and series.way = logged.way and series.model = logged.model
        and series.workspace_id is not distinct from logged.workspace_id
        and series.api_key_id is not distinct from logged.api_key_id
),
suspect as (
    -- a log most of whose tokens stand in hours that agree need not be shifted to know that it does
    select log
    from (
        select log, series_id, hour, sum(tokens) as tokens, sum(logged) as logged
        from (
            select log, series_id, hour, tokens, 0 as logged from target where way = 'place'
            union all
            select log, series_id, date_trunc('hour', half_hour), -tokens, tokens from halves cross join span
            where way = 'place' and half_hour >= span.from_at and half_hour < span.until_at
        )
        group by all
    )
    group by log
    having 10 * coalesce(sum(logged) filter (tokens = 0), 0) < 9 * sum(logged)
),
shift as (
    select unnest(generate_series(-24, 28)) * 30 as minutes
)
select log, way, minutes, sum(abs(tokens))::bigint as left_tokens, sum(logged)::bigint as logged_tokens,
    coalesce(sum(logged) filter (tokens = 0), 0)::bigint as agreeing_tokens,
from (
    select log, way, minutes, series_id, hour, sum(tokens) as tokens, -coalesce(sum(tokens) filter (tokens < 0 and of_log), 0) as logged
    from (
        select log, way, minutes, series_id, hour, tokens, false as of_log
        from target semi join suspect using (log) cross join shift
        union all
        select log, way, minutes, series_id, date_trunc('hour', half_hour - to_minutes(minutes)), -tokens, true
        from halves semi join suspect using (log) cross join shift cross join span
        where half_hour - to_minutes(minutes) >= span.from_at and half_hour - to_minutes(minutes) < span.until_at
    )
    group by all
)
group by log, way, minutes;

create or replace table explained.shift as
select best.log, best.minutes, best.left_tokens, unshifted.left_tokens as unshifted_tokens
from (
    select * from explained.shift_score
    qualify row_number() over (partition by log, way order by left_tokens, abs(minutes), minutes) = 1
) as best
join explained.shift_score as unshifted
    on unshifted.log = best.log and unshifted.way = best.way and unshifted.minutes = 0
join (
    select log, count(*) as requests,
        100 * count(*) filter (minute(logged_at) < 20) >= 95 * count(*) as written_by_a_job,
    from source.request
    group by log
) as size on size.log = best.log
where best.minutes <> 0 and not (size.written_by_a_job and abs(best.minutes) <= 60)
    and (
        5 * best.left_tokens <= 2 * unshifted.left_tokens
        and (4 * best.agreeing_tokens >= best.logged_tokens or size.requests >= 1000)
        -- beside use that nobody logs
        or 3 * best.agreeing_tokens >= best.logged_tokens and best.agreeing_tokens >= 4 * unshifted.agreeing_tokens
    )
qualify row_number() over (
    partition by best.log order by best.left_tokens::double / unshifted.left_tokens, best.way desc
) = 1;

delete from explained.note where reason = 'time_zone';

insert into explained.note
select 'time_zone', log, null, null, null, meter.name, null, fact.name, to_json(fact.value)
from explained.shift
cross join (values (null), ('web_search_requests')) as meter (name)
cross join lateral (
    select unnest([
        {'name': 'log_is_ahead_of_utc_by_minutes', 'value': minutes::varchar},
        {'name': 'tokens_in_another_hour_than_reported', 'value': unshifted_tokens::varchar},
        {'name': 'tokens_in_another_hour_after_the_shift', 'value': left_tokens::varchar},
    ], recursive := true)
) as fact;

-- The same quantities, at another time.
create or replace view checks.time_zone_changes_a_total as
select log, meter, sum(quantity) as quantity
from explained.rebooked
where reason = 'time_zone'
group by log, meter
having sum(quantity) <> 0;
