-- What the hours left, day by day: a late log's halves of one request stand in different hours of a day.
-- Rule: the same passes look once more, at slots of a day; what matters for dollars is the cell, and a cell is a day.
-- Grain: explained.slot becomes one row (day, cell dimensions without meter); hour_slot keeps the places of those by the
--   hour, for evidence; writer by the day; hour_over one a meter of a day's slot in which single hours have too much.
-- Reads: explained.slot, writer. Writes: explained.slot, writer, hour_slot, hour_over, trail, checks.
create or replace table explained.hour_slot as
select slot_id, hour, day, workspace_id, model, service_tier, context_window, inference_geo, speed
from explained.slot;

-- Where half of a place's requests stand in hours that agree, an hour with too much (more than the hours beside it
-- lack) was not reported, though another hour of the day may lack as much.
create or replace table explained.hour_over as
with
sure as (
    select workspace_id, model, service_tier, context_window, inference_geo, speed
    from explained.slot
    where model is not null
    group by all
    having 2 * coalesce(sum(requests) filter (
        greatest(abs(input), abs(write_5m), abs(write_1h), abs(read), abs(output)) = 0
    ), 0) >= sum(requests)
),
metered as (
    select slot.hour, slot.day, sure.*,
        unnest(matched.tokens_by_meter(input, write_5m, write_1h, read, output), recursive := true)
    from explained.slot as slot
    join sure
        on slot.workspace_id is not distinct from sure.workspace_id and slot.model = sure.model
        and slot.service_tier = sure.service_tier and slot.context_window = sure.context_window
        and slot.inference_geo = sure.inference_geo and slot.speed = sure.speed
),
alone as (
    select *,
        greatest(0, -quantity
            - if(lag(hour) over hours = hour - interval 1 hour, greatest(lag(quantity) over hours, 0), 0)
            - if(lead(hour) over hours = hour + interval 1 hour, greatest(lead(quantity) over hours, 0), 0)
        ) as too_much,
    from metered
    window hours as (
        partition by workspace_id, model, service_tier, context_window, inference_geo, speed, meter order by hour
    )
)
select day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter,
    sum(quantity)::bigint as quantity, sum(too_much)::bigint as too_much,
from alone
group by all
having sum(too_much) > 0;

create or replace table explained.slot as
select
    (select coalesce(max(slot_id), 0) from explained.slot) + row_number() over (
        order by day, workspace_id, model, service_tier, context_window, inference_geo, speed
    ) as slot_id,
    day::timestamp as hour, day, workspace_id, model, service_tier, context_window, inference_geo, speed,
    sum(input)::bigint as input, sum(write_5m)::bigint as write_5m, sum(write_1h)::bigint as write_1h,
    sum(read)::bigint as read, sum(output)::bigint as output, sum(searches)::bigint as searches,
    arg_max(log, (requests, log)) filter (log is not null) as log,
    arg_max(write_log, (requests, write_log)) filter (write_log is not null) as write_log,
    arg_max(cut_log, (cut_requests, cut_log)) filter (cut_log is not null) as cut_log,
    sum(cut_requests)::bigint as cut_requests, sum(requests)::bigint as requests,
    sum(recorded_input)::bigint as recorded_input,
from explained.slot
group by day, workspace_id, model, service_tier, context_window, inference_geo, speed;

create or replace table explained.writer as
select date_trunc('day', hour)::timestamp as hour, writer.* exclude (hour, input, write_5m, write_1h, read, output, searches),
    sum(input)::bigint as input, sum(write_5m)::bigint as write_5m, sum(write_1h)::bigint as write_1h,
    sum(read)::bigint as read, sum(output)::bigint as output, sum(searches)::bigint as searches,
from explained.writer as writer
group by all;

insert into explained.trail by name
select 'by_day' as pass, * from explained.open_quantity;

create or replace view checks.by_day_loses_a_quantity as
select * from explained.lost where pass = 'by_day';
