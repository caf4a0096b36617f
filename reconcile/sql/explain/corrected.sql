-- The recorded side as the systematic reasons found so far leave it: clocks set right, what a job wrote laid to
-- the time before it, cached tokens counted once, exchanged lifetimes exchanged back, lines in the workspace of the
-- key that they name, and without those that nobody reported.
-- Grain: explained.fixed one row a request; fixed_iteration one of source.iteration; corrected one row (hour, cell dimensions without meter, log, key, cut).
-- Reads: source.request, explained.shift, fetched, inclusive, inclusive_line, exchanged, stray, never_reported, step.
-- Writes: explained.fixed, fixed_iteration, before, corrected, side_meter, corrected_meter, rebooking, transit.
create or replace table explained.before as
select * from explained.corrected;

create or replace view explained.fixed as
select
    * exclude (context_window_before, counts, input_before),
    date_trunc('hour', counted_at)::timestamp as hour,
    counted_at::date as day,
    explained.cached_in_input(counts, input_before, cache_read_input_tokens, cache_write_5m + cache_write_1h) as cached_in_input,
    input_before - cached_in_input as uncached_input_tokens,
    case
        when cached_in_input = 0 then context_window_before
        when uncached_input_tokens + cache_read_input_tokens + cache_write_5m + cache_write_1h > 200000 then '200k-1M'
        else '0-200k'
    end as context_window,
from (
    select
        request.* exclude (day, hour, uncached_input_tokens, cache_write_5m, cache_write_1h, context_window, workspace_id),
        if(step.moves_workspaces, coalesce(stray.workspace_id, request.workspace_id), request.workspace_id) as workspace_id,
        stray.workspace_id as key_workspace_id,
        request.logged_at - to_minutes(
            coalesce(shift.minutes, 0)
            -- a job writes what was done before it began
            + if(fetched.log is not null and minute(request.logged_at - to_minutes(coalesce(shift.minutes, 0))) < 20, 20, 0)
        ) as counted_at,
        request.context_window as context_window_before,
        request.uncached_input_tokens as input_before,
        coalesce(inclusive.counts, single.counts) as counts,
        if(exchanged.log is null, request.cache_write_5m, request.cache_write_1h) as cache_write_5m,
        if(exchanged.log is null, request.cache_write_1h, request.cache_write_5m) as cache_write_1h,
    from source.request as request
    cross join (select coalesce(bool_or(reason = 'workspace'), false) as moves_workspaces from explained.step) as step
    left join explained.shift as shift on shift.log = request.log
    left join explained.fetched as fetched on fetched.log = request.log
    left join explained.stray as stray
        on stray.api_key_id = request.api_key_id and stray.logged_workspace_id is not distinct from request.workspace_id
    left join explained.inclusive as inclusive
        on inclusive.log = request.log and inclusive.model = request.model
        and (inclusive.api_key_id is null or inclusive.api_key_id = request.api_key_id)
        and request.logged_at - to_minutes(coalesce(shift.minutes, 0)) >= inclusive.from_at
        and request.logged_at - to_minutes(coalesce(shift.minutes, 0)) < inclusive.until_at
    left join explained.inclusive_line as single
        on single.log = request.log and single.model = request.model and single.logged_at = request.logged_at
    -- of what was never reported nobody knows which lifetime was meant
    left join explained.exchanged as exchanged
        on exchanged.log = request.log and exchanged.model = request.model
        and request.biller is null and coalesce(request.status, 0) < 400
);

create or replace view explained.fixed_iteration as
select
    entry.* exclude (logged_at, counted_at, day, workspace_id),
    date_trunc('hour', counted_at)::timestamp as hour,
    counted_at::date as day,
    if(moves_workspaces, coalesce(stray.workspace_id, entry.workspace_id), entry.workspace_id) as workspace_id,
from (
    select entry.*, entry.logged_at - to_minutes(
            coalesce(shift.minutes, 0)
            + if(fetched.log is not null and minute(entry.logged_at - to_minutes(coalesce(shift.minutes, 0))) < 20, 20, 0)
        ) as counted_at,
    from source.iteration as entry
    left join explained.shift as shift on shift.log = entry.log
    left join explained.fetched as fetched on fetched.log = entry.log
) as entry
cross join (select coalesce(bool_or(reason = 'workspace'), false) as moves_workspaces from explained.step) as step
left join explained.stray as stray
    on stray.api_key_id = entry.api_key_id and stray.logged_workspace_id is not distinct from entry.workspace_id;

create or replace table explained.corrected as
select
    hour, day, workspace_id, model, service_tier, context_window, inference_geo, speed, log, api_key_id, cut,
    key_workspace_id,
    count(*) as requests,
    sum(uncached_input_tokens)::bigint as input,
    sum(cache_write_5m)::bigint as write_5m,
    sum(cache_write_1h)::bigint as write_1h,
    sum(cache_read_input_tokens)::bigint as read,
    sum(output_tokens)::bigint as output,
    sum(web_search_requests)::bigint as searches,
from explained.fixed
anti join explained.never_reported as never_reported
    on never_reported.log = fixed.log
    and never_reported.evidence = explained.tells(fixed.biller, fixed.status >= 400)
group by all;

create or replace view explained.side_meter as
select sign, hour, day, workspace_id, log, api_key_id, key_workspace_id, model as line_model, meter, quantity,
    if(meter = 'web_search_requests', null, model) as model,
    if(meter = 'web_search_requests', null, service_tier) as service_tier,
    if(meter = 'web_search_requests', null, context_window) as context_window,
    if(meter = 'web_search_requests', null, inference_geo) as inference_geo,
    if(meter = 'web_search_requests', null, speed) as speed,
from (
    select * exclude (input, write_5m, write_1h, read, output, searches),
        unnest(matched.by_meter(input, write_5m, write_1h, read, output, searches), recursive := true)
    from (
        select 1 as sign, * from explained.corrected
        union all
        select -1, * from explained.before
    )
)
where quantity > 0;

create or replace view explained.corrected_meter as
select * exclude (sign, line_model, key_workspace_id) from explained.side_meter where sign = 1;

-- Corrected less before, by what a cell knows.
create or replace view explained.rebooking as
select day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, log, key_workspace_id, line_model,
    sum(sign * quantity)::bigint as quantity,
from explained.side_meter
group by all
having sum(sign * quantity) <> 0;

create or replace table explained.transit as
select distinct day, workspace_id, model, service_tier, context_window, inference_geo, speed from explained.corrected;
