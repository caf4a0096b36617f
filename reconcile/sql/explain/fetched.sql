-- Logs that a job writes at full hours, of what was done until then.
-- Rule: 95 % of a log's lines (at least 10) stand in the first 20 minutes of an hour. They are laid to the time before it
--   where that takes away at least half of what is apart in output tokens (input, where there are none), hour by hour or
--   day by day, of the keys that the log names (or the workspaces that it writes for), less what other logs hold.
-- Grain: explained.fetched one row a log. Reads: explained.fixed, known. Writes: explained, checks.
create or replace table explained.fetched as
with
job as (
    select log, 100 * count(api_key_id) >= 95 * count(*) as names_keys, sum(output_tokens) > 0 as by_output,
        count(*) as requests, count(*) filter (minute(counted_at) < 20) as at_full_hours,
    from explained.fixed
    group by log
    having count(*) >= 10 and 100 * count(*) filter (minute(counted_at) < 20) >= 95 * count(*)
),
line as (
    select request.log, counted_at, workspace_id, api_key_id, model, output_tokens,
        uncached_input_tokens + cache_write_5m + cache_write_1h + cache_read_input_tokens as input_tokens,
    from explained.fixed as request
),
series as (
    select distinct job.log, job.names_keys, job.by_output,
        if(job.names_keys, line.api_key_id, line.workspace_id) as place, line.model,
    from line
    join job on job.log = line.log
),
side as (
    select series.log, series.place, series.model, known.hour, known.hour as before, known.quantity,
    from explained.known as known
    join series
        on series.model = known.model
        and series.place is not distinct from if(series.names_keys, known.api_key_id, known.workspace_id)
    where known.meter <> 'web_search_requests' and (known.meter = 'output_tokens') = series.by_output
    union all
    select series.log, series.place, series.model, line.counted_at,
        line.counted_at - to_minutes(if(line.log = series.log and minute(line.counted_at) < 20, 20, 0)),
        -if(series.by_output, line.output_tokens, line.input_tokens),
    from line
    join series
        on series.model = line.model
        and series.place is not distinct from if(series.names_keys, line.api_key_id, line.workspace_id)
),
span as (
    select start_on::timestamp as from_at, through_on::timestamp + interval 24 hour as until_at from source.run
),
compared as (
    select log, grain, sum(abs(quantity)) filter (not moved) as as_logged, sum(abs(quantity)) filter (moved) as left_tokens,
    from (
        select log, place, model, grain, way.moved, date_trunc(grain, if(way.moved, before, hour)) as hour,
            sum(quantity) as quantity,
        from side
        cross join (values ('hour'), ('day')) as grains (grain)
        cross join (values (true), (false)) as way (moved)
        cross join span
        where if(way.moved, before, hour) >= span.from_at and if(way.moved, before, hour) < span.until_at
        group by all
    )
    group by log, grain
)
select compared.log, job.at_full_hours, job.requests, as_logged::bigint as as_logged,
    coalesce(left_tokens, 0)::bigint as left_tokens,
from compared
join job on job.log = compared.log
where as_logged > 0 and 2 * coalesce(left_tokens, 0) <= as_logged
qualify row_number() over (partition by compared.log order by left_tokens::double / as_logged, grain) = 1;

insert into explained.note
select 'cutoff', log, null, null, null, meter.name, null, fact.name, to_json(fact.value)
from explained.fetched
cross join (values (null), ('web_search_requests')) as meter (name)
cross join lateral (
    select unnest([
        {'name': 'requests_written_in_the_first_20_minutes_of_an_hour', 'value': at_full_hours::varchar},
        {'name': 'tokens_apart_as_written', 'value': as_logged::varchar},
        {'name': 'tokens_apart_when_laid_to_the_time_before', 'value': left_tokens::varchar},
    ], recursive := true)
) as fact;

-- The same quantities, at another time.
create or replace view checks.fetched_changes_a_total as
select log, meter, sum(quantity) as quantity
from explained.rebooked
where reason = 'cutoff'
group by log, meter
having sum(quantity) <> 0;
