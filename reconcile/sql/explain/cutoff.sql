-- Requests that a log stamps earlier (or later) than the provider counts them: equal and opposite on adjacent days.
-- Rule: per place and meter, recorded less reported, summed up hour by hour, is a queue: what was logged and not counted
--   yet. A queue is never negative (where it would be, something was not logged), and nothing waits in it for more than a
--   day: what has come and has not left 24 hours later was not reported, and no more was the level that the queue comes
--   back to, to the token, more than 24 hours apart. A log is early where this leaves at most half of its hourly
--   differences and the queue empties exactly at least twice as often as not (chance does not; lost lines and extra turns
--   force it empty in some meters: then in those that hold half of the differences, and five times more); where it never
--   empties, the differences are at least a fifth of what was recorded; or they are half of it, and waiting leaves a
--   twentieth of them. Judged by the places of which both sides know, the one at least half of what the other does; a
--   place of several logs is that one's whose hours are the most apart. The same with the sides exchanged where a log
--   stamps later than the provider counts. Within a day nothing is claimed; what crosses midnight is, one-sided at the
--   month's edges. Searches follow once a log is known to be late.
-- Grain: one adjustment a slot, meter and log; waited one of those of a call. Reads: explained.slot, writer, flow, adjusted.
-- Writes: explained.queue, late, waited, adjusted, slot, trail, checks.
create or replace table explained.queue as
with
wrote as (
    select workspace_id, model, service_tier, context_window, inference_geo, speed, log,
        sum(input + write_5m + write_1h + read + output + searches) as recorded,
        count(*) over (partition by workspace_id, model, service_tier, context_window, inference_geo, speed) = 1 as alone,
    from explained.writer
    group by workspace_id, model, service_tier, context_window, inference_geo, speed, log
),
apart as (
    select wrote.log,
        sum(abs(input) + abs(write_5m) + abs(write_1h) + abs(read) + abs(output) + abs(searches)) as apart,
    from explained.slot as slot
    join wrote
        on wrote.workspace_id is not distinct from slot.workspace_id and wrote.model is not distinct from slot.model
        and wrote.service_tier is not distinct from slot.service_tier
        and wrote.context_window is not distinct from slot.context_window
        and wrote.inference_geo is not distinct from slot.inference_geo and wrote.speed is not distinct from slot.speed
    where wrote.alone
    group by wrote.log
),
-- whose a place is: of several logs that one's which is known to be late, or whose hours are the most apart where it is alone
owned as (
    select wrote.*
    from wrote
    left join apart on apart.log = wrote.log
    left join (select distinct log from explained.adjusted where reason = 'cutoff') as known on known.log = wrote.log
    left join (select log, sum(recorded) as recorded from wrote where alone group by log) as own on own.log = wrote.log
    qualify row_number() over (
        partition by workspace_id, model, service_tier, context_window, inference_geo, speed
        order by known.log is not null desc, coalesce(apart.apart / nullif(own.recorded, 0), 0.05) desc, wrote.recorded desc,
            wrote.log
    ) = 1
),
place as (
    select slot.*,
        -- where nobody wrote: whose lines were found to belong there
        coalesce(owned.log, min(slot.log) over (
            partition by slot.workspace_id, slot.model, slot.service_tier, slot.context_window, slot.inference_geo, slot.speed
        )) as series_log,
    from explained.slot as slot
    left join owned
        on owned.workspace_id is not distinct from slot.workspace_id and owned.model is not distinct from slot.model
        and owned.service_tier is not distinct from slot.service_tier
        and owned.context_window is not distinct from slot.context_window
        and owned.inference_geo is not distinct from slot.inference_geo and owned.speed is not distinct from slot.speed
),
-- a log that knows one lifetime of writes alone: the other one's wait in the same queue
one_lifetime as (
    select log,
        if(sum(write_1h) = 0, 'cache_creation.ephemeral_5m_input_tokens', 'cache_creation.ephemeral_1h_input_tokens') as meter,
    from explained.corrected
    group by log
    having (sum(write_5m) = 0) <> (sum(write_1h) = 0)
),
metered as (
    select slot_id, hour, day, workspace_id, model, service_tier, context_window, inference_geo, speed, series_log,
        unnest(matched.by_meter(input, write_5m, write_1h, read, output, searches), recursive := true)
    from place
),
waiting as (
    select metered.* exclude (meter, quantity),
        if(metered.meter like 'cache_creation.%', coalesce(one_lifetime.meter, metered.meter), metered.meter) as meter,
        sum(metered.quantity)::bigint as quantity, sum(coalesce(flow.reported, 0))::bigint as reported,
    from metered
    left join one_lifetime on one_lifetime.log = metered.series_log
    left join explained.flow as flow on flow.slot_id = metered.slot_id and flow.meter = metered.meter
    where (metered.meter = 'web_search_requests') = (model is null)
    group by all
),
series as (
    select *, reported - quantity as recorded,
        dense_rank() over (
            order by workspace_id, model, service_tier, context_window, inference_geo, speed, meter
        ) as series_id,
    from waiting
),
-- direction 1: the log is earlier than the provider; -1: later
walked as (
    select series.*, direction.direction,
        sum(-quantity * direction.direction) over through as carry,
        sum(if(direction.direction = 1, recorded, reported)) over through as came,
    from series
    cross join (values (1), (-1)) as direction (direction)
    where quantity <> 0 or recorded <> 0 or reported <> 0
    window through as (partition by direction.direction, series_id order by hour)
),
floored as (
    select *, carry + greatest(0, -min(carry) over through) as waiting,
        coalesce(lead(hour) over through, timestamp '9999-01-01') as until_hour,
    from walked
    window through as (partition by direction, series_id order by hour)
),
stayed as (
    select *,
        -- the lowest level of the days that follow, and when it is there for the first and for the last time
        min(waiting) over next_days as lowest,
        arg_min(hour, (waiting, hour)) over next_days as lowest_from,
        arg_max(until_hour, (-waiting, hour)) over next_days as lowest_until,
        -- what had come by now and has not left a day later
        came - last_value(came - waiting) over next_day as overdue,
    from floored
    window
        next_day as (
            partition by direction, series_id order by hour range between current row and interval 24 hour following
        ),
        next_days as (
            partition by direction, series_id order by hour range between current row and interval 72 hour following
        )
),
queued as (
    select *, greatest(0, waiting - max(greatest(
        overdue, if(lowest_until > lowest_from + interval 24 hour, lowest, 0)
    )) over through) as queue
    from stayed
    window through as (partition by direction, series_id order by hour)
)
select * exclude (until_hour, lowest, lowest_from, lowest_until), (queue - coalesce(lag(queue) over through, 0)) * direction as into_queue,
    quantity + (queue - coalesce(lag(queue) over through, 0)) * direction as left_over,
    coalesce(lag(queue) over through, 0) > 0 and queue = 0 as drained,
from queued
window through as (partition by direction, series_id order by hour);

create or replace table explained.late as
with
-- a place whose lines are counted elsewhere, or elsewhere's here, tells nothing of when they are
telling as (
    select series_id
    from explained.queue
    where direction = 1
    group by series_id
    having 2 * least(sum(recorded), sum(reported)) >= greatest(sum(recorded), sum(reported))
),
metered as (
    select series_log as log, direction, meter,
        sum(abs(quantity)) as as_logged,
        sum(abs(left_over)) as left_tokens,
        sum(recorded) as recorded,
        count(*) filter (drained and left_over = 0) as emptied_exactly,
        count(*) filter (drained and left_over <> 0) as emptied_by_force,
    from explained.queue
    semi join telling using (series_id)
    where meter <> 'web_search_requests'
    group by all
),
scored as (
    select log, direction, sum(as_logged) as as_logged, sum(left_tokens) as left_tokens, sum(recorded) as recorded,
        sum(emptied_exactly) as emptied_exactly, sum(emptied_by_force) as emptied_by_force,
        sum(as_logged) filter (emptied_exactly >= 2 * emptied_by_force + 5) as where_exact,
    from metered
    group by all
)
select * from scored
where log is not null and 2 * left_tokens <= as_logged
    and (
        2 * where_exact >= as_logged
        or (
            emptied_exactly >= 2 * emptied_by_force
            -- a queue that never runs empty shows itself by how much waits in it
            and (emptied_exactly > 0 or 5 * as_logged >= recorded)
        )
        -- nor is it ever empty in a busy log; no noise is half of it and waits to the last twentieth
        or (2 * as_logged >= recorded and 20 * left_tokens <= as_logged)
    )
qualify row_number() over (partition by log order by left_tokens, direction desc) = 1;

create or replace table explained.waited as
select late.log, queue.slot_id, queue.meter, queue.into_queue::bigint as into_queue, late.direction, late.as_logged, late.left_tokens
from explained.queue as queue
join explained.late as late on late.log = queue.series_log and late.direction = queue.direction
where queue.into_queue <> 0 and queue.meter <> 'web_search_requests'
union all
-- searches know no model: they follow when those in wrong workspaces have been netted
select late.log, queue.slot_id, queue.meter, queue.into_queue::bigint, late.direction, late.as_logged, late.left_tokens
from explained.queue as queue
join (
    select log, direction, max(as_logged) as as_logged, max(left_tokens) as left_tokens
    from explained.adjusted
    where reason = 'cutoff'
    group by log, direction
    qualify row_number() over (partition by log order by max(as_logged) desc, direction) = 1
) as late on late.log = queue.series_log and late.direction = queue.direction
where queue.into_queue <> 0 and queue.meter = 'web_search_requests';

insert into explained.adjusted
select 'cutoff', 3, log, null, slot_id, meter, -into_queue, direction, as_logged, left_tokens
from explained.waited;

update explained.slot as slot
set input = slot.input + late.input,
    write_5m = slot.write_5m + late.write_5m,
    write_1h = slot.write_1h + late.write_1h,
    read = slot.read + late.read,
    output = slot.output + late.output,
    searches = slot.searches + late.searches,
from (
    select slot_id,
        coalesce(sum(into_queue) filter (meter = 'uncached_input_tokens'), 0)::bigint as input,
        coalesce(sum(into_queue) filter (meter = 'cache_creation.ephemeral_5m_input_tokens'), 0)::bigint as write_5m,
        coalesce(sum(into_queue) filter (meter = 'cache_creation.ephemeral_1h_input_tokens'), 0)::bigint as write_1h,
        coalesce(sum(into_queue) filter (meter = 'cache_read_input_tokens'), 0)::bigint as read,
        coalesce(sum(into_queue) filter (meter = 'output_tokens'), 0)::bigint as output,
        coalesce(sum(into_queue) filter (meter = 'web_search_requests'), 0)::bigint as searches,
    from explained.waited
    group by slot_id
) as late
where late.slot_id = slot.slot_id;

insert into explained.trail by name
select 'cutoff' as pass, * from explained.open_quantity;

create or replace view checks.cutoff_loses_a_quantity as
select * from explained.lost where pass = 'cutoff';
