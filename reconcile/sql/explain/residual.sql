-- What the systematic reasons leave, hour by hour: the evidence of all reasons that follow.
-- Rule: reported (of those who could have logged it) less recorded, in the hours that the usage report covers; less the
--   extra iterations that the logs themselves hold, which come back where they were not reported (iterations_back).
-- Grain: explained.slot one row (hour, cell dimensions without meter; web searches by hour and workspace).
-- Reads: explained.known, corrected, fixed_iteration, adjusted, moved, hour_slot, passed. Writes: explained.slot, extra, flow,
--   writer, slot_cell, unsplit, empty_slot, opposite, open_quantity, lost, trail.
create or replace table explained.hourly as
    select hour, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, quantity, null as log,
        0 as cut_requests, 0 as requests, 0 as recorded_input,
    from explained.known
    union all
    select hour, workspace_id, model, service_tier, context_window, inference_geo, speed, counter.meter,
        -counter.quantity, log, if(cut and counter.meter = 'output_tokens', requests, 0),
        if(counter.meter = 'output_tokens', requests, 0),
        if(counter.meter not in ('output_tokens', 'web_search_requests'), counter.quantity, 0),
    from (
        select hour, workspace_id, model, service_tier, context_window, inference_geo, speed, log, cut, requests,
            unnest(matched.tokens_by_meter(input, write_5m, write_1h, read, output)) as counter,
        from explained.corrected
    )
    union all
    select hour, workspace_id, null, null, null, null, null, 'web_search_requests', -searches, log, 0, 0, 0
    from explained.corrected
    where searches > 0;

create or replace table explained.slot as
with
summed as (
    select
        hour, workspace_id, model, service_tier, context_window, inference_geo, speed,
        coalesce(sum(quantity) filter (meter = 'uncached_input_tokens'), 0)::bigint as input,
        coalesce(sum(quantity) filter (meter = 'cache_creation.ephemeral_5m_input_tokens'), 0)::bigint as write_5m,
        coalesce(sum(quantity) filter (meter = 'cache_creation.ephemeral_1h_input_tokens'), 0)::bigint as write_1h,
        coalesce(sum(quantity) filter (meter = 'cache_read_input_tokens'), 0)::bigint as read,
        coalesce(sum(quantity) filter (meter = 'output_tokens'), 0)::bigint as output,
        coalesce(sum(quantity) filter (meter = 'web_search_requests'), 0)::bigint as searches,
        -- the log that holds most of what was recorded here
        arg_max(hourly.log, (-quantity, hourly.log)) filter (hourly.log is not null) as log,
        -- and most of its cache writes, before all one that does not split them; and most of its cut streams
        arg_max(hourly.log, (whole.log is not null, -quantity, hourly.log))
            filter (hourly.log is not null and meter like 'cache_creation.%' and quantity <> 0) as write_log,
        arg_max(hourly.log, (cut_requests, hourly.log)) filter (cut_requests > 0) as cut_log,
        sum(cut_requests)::bigint as cut_requests,
        sum(hourly.requests)::bigint as requests,
        sum(recorded_input)::bigint as recorded_input,
    from explained.hourly as hourly
    left join source.default_used as whole on whole.log = hourly.log and whole.field = 'cache_creation'
    group by all
)
select
    row_number() over (order by hour, workspace_id, model, service_tier, context_window, inference_geo, speed) as slot_id,
    hour, hour::date as day, summed.* exclude (hour),
from summed
-- of the hours behind the last complete day the report tells as far as it has any
where hour <= (
    select greatest((select max(hour) from source.usage), through_on::timestamp + interval 23 hour) from source.run
);

-- The extra turns that the logs themselves hold, in the place and hour of their lines.
create or replace table explained.extra as
select slot.slot_id,
    coalesce(sum(quantity) filter (meter = 'uncached_input_tokens'), 0)::bigint as input,
    coalesce(sum(quantity) filter (meter = 'cache_creation.ephemeral_5m_input_tokens'), 0)::bigint as write_5m,
    coalesce(sum(quantity) filter (meter = 'cache_creation.ephemeral_1h_input_tokens'), 0)::bigint as write_1h,
    coalesce(sum(quantity) filter (meter = 'cache_read_input_tokens'), 0)::bigint as read,
    coalesce(sum(quantity) filter (meter = 'output_tokens'), 0)::bigint as output,
from explained.fixed_iteration as entry
join explained.slot as slot
    on slot.hour = entry.hour and slot.workspace_id is not distinct from entry.workspace_id
    and slot.model is not distinct from entry.model and slot.service_tier is not distinct from entry.service_tier
    and slot.context_window is not distinct from entry.context_window
    and slot.inference_geo is not distinct from entry.inference_geo and slot.speed is not distinct from entry.speed
group by slot.slot_id;

update explained.slot as slot
set input = slot.input - extra.input, write_5m = slot.write_5m - extra.write_5m, write_1h = slot.write_1h - extra.write_1h,
    read = slot.read - extra.read, output = slot.output - extra.output,
from explained.extra as extra
where extra.slot_id = slot.slot_id;

-- How much of the reported side flows through a slot: what can have waited there.
create or replace table explained.flow as
select slot.slot_id, hourly.meter, sum(hourly.quantity)::bigint as reported,
from explained.hourly as hourly
join explained.slot as slot
    on slot.hour = hourly.hour and slot.workspace_id is not distinct from hourly.workspace_id
    and slot.model is not distinct from hourly.model and slot.service_tier is not distinct from hourly.service_tier
    and slot.context_window is not distinct from hourly.context_window
    and slot.inference_geo is not distinct from hourly.inference_geo and slot.speed is not distinct from hourly.speed
where hourly.quantity > 0
group by all;

-- What each log recorded in a slot's place.
create or replace table explained.writer as
select hour, workspace_id, model, service_tier, context_window, inference_geo, speed, log,
    coalesce(sum(-quantity) filter (meter = 'uncached_input_tokens'), 0)::bigint as input,
    coalesce(sum(-quantity) filter (meter = 'cache_creation.ephemeral_5m_input_tokens'), 0)::bigint as write_5m,
    coalesce(sum(-quantity) filter (meter = 'cache_creation.ephemeral_1h_input_tokens'), 0)::bigint as write_1h,
    coalesce(sum(-quantity) filter (meter = 'cache_read_input_tokens'), 0)::bigint as read,
    coalesce(sum(-quantity) filter (meter = 'output_tokens'), 0)::bigint as output,
    coalesce(sum(-quantity) filter (meter = 'web_search_requests'), 0)::bigint as searches,
from explained.hourly
where log is not null
group by all;

create or replace table explained.slot_cell (slot_id BIGINT, cell_id BIGINT, meter VARCHAR);

-- Logs that know one lifetime of cache writes alone, or do not tell the two apart.
create or replace table explained.unsplit as
select log from explained.corrected
group by log
having sum(write_5m + write_1h) > 0 and (sum(write_5m) = 0 or sum(write_1h) = 0)
union
select log from source.default_used where field = 'cache_creation';

-- Slots for places that something passes, with nothing on either side.
create or replace view explained.empty_slot as
select
    (select max(slot_id) from explained.slot) + row_number() over (
        order by place.hour, place.workspace_id, place.model, place.service_tier, place.context_window,
            place.inference_geo, place.speed
    ) as slot_id,
    place.*, 0 as input, 0 as write_5m, 0 as write_1h, 0 as read, 0 as output, 0 as searches,
    null as write_log, null as cut_log, 0 as cut_requests, 0 as requests, 0 as recorded_input,
from explained.passed as place
anti join explained.slot as slot
    on slot.hour = place.hour and slot.workspace_id is not distinct from place.workspace_id and slot.model = place.model
    and slot.service_tier = place.service_tier and slot.context_window = place.context_window
    and slot.inference_geo = place.inference_geo and slot.speed = place.speed;

-- What can net: nothing, unless one slot has too much of something and another too little.
create or replace view explained.opposite as
select count(*) filter (least(input, write_5m, write_1h, read, output, searches) < 0) as over,
    count(*) filter (greatest(input, write_5m, write_1h, read, output, searches) > 0) as under,
from explained.slot
having over > 0 and under > 0;

-- What is open, with what was claimed of it and what waits for iterations_back: no pass that nets changes it on any day.
create or replace view explained.open_quantity as
with
metered as (
    select slot_id, day, unnest(matched.by_meter(input, write_5m, write_1h, read, output, searches), recursive := true)
    from (
        select slot_id, day, input, write_5m, write_1h, read, output, searches from explained.slot
        union all
        select slot_id, null, input, write_5m, write_1h, read, output, 0 from explained.extra
        union all
        select to_slot, null, input, write_5m, write_1h, read, output, searches from explained.moved
        union all
        select from_slot, null, -input, -write_5m, -write_1h, -read, -output, -searches from explained.moved
    )
    union all
    select slot_id, null, meter, quantity from explained.adjusted
),
place as (
    select slot_id, day from explained.slot
    union all
    select slot_id, day from explained.hour_slot
)
select
    (select coalesce(max(standing), 0) + 1 from explained.trail) as standing, coalesce(metered.day, place.day) as day,
    metered.meter, sum(metered.quantity)::hugeint as quantity,
from metered
left join place on metered.day is null and place.slot_id = metered.slot_id
where metered.quantity <> 0
group by all;

insert into explained.trail by name
select 'residual' as pass, * from explained.open_quantity;

create or replace view explained.lost as
select step.pass, day, meter, coalesce(before.quantity, 0) as before, coalesce(after.quantity, 0) as after,
from (select standing + 1 as standing, day, meter, quantity from explained.trail) as before
full join explained.trail as after using (standing, day, meter)
join (select distinct standing, pass from explained.trail) as step using (standing)
where coalesce(before.quantity, 0) <> coalesce(after.quantity, 0);
