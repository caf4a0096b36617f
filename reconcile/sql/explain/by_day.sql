-- What the hours left, day by day: a late log's halves of one request stand in different hours of a day.
-- Rule: the same passes look once more, at slots of a day; what matters for dollars is the cell, and a cell is a day.
-- Grain: explained.slot becomes one row (day, cell dimensions without meter); hour_slot keeps the places of those by the
--   hour, for evidence. Reads: explained.slot. Writes: explained.slot, hour_slot, slot_cell.
create or replace table explained.hour_slot as
select slot_id, hour, day, workspace_id, model, service_tier, context_window, inference_geo, speed
from explained.slot;

create or replace table explained.slot as
select
    (select coalesce(max(slot_id), 0) from explained.slot) + row_number() over (
        order by day, workspace_id, model, service_tier, context_window, inference_geo, speed
    ) as slot_id,
    day::timestamp as hour, day, workspace_id, model, service_tier, context_window, inference_geo, speed,
    sum(input)::bigint as input, sum(write_5m)::bigint as write_5m, sum(write_1h)::bigint as write_1h,
    sum(read)::bigint as read, sum(output)::bigint as output, sum(searches)::bigint as searches,
    arg_max(log, (requests, log)) filter (log is not null) as log,
    sum(cut_requests)::bigint as cut_requests, sum(requests)::bigint as requests,
    sum(recorded_input)::bigint as recorded_input,
from explained.slot
group by day, workspace_id, model, service_tier, context_window, inference_geo, speed;

insert into explained.slot_cell
select slot.slot_id, cell.cell_id, cell.meter
from explained.slot as slot
join explained.cell as cell
    on cell.day = slot.day and cell.price_usd is not null
    and cell.workspace_id is not distinct from slot.workspace_id
    and cell.model is not distinct from slot.model
    and cell.service_tier is not distinct from slot.service_tier
    and cell.context_window is not distinct from slot.context_window
    and cell.inference_geo is not distinct from slot.inference_geo
    and cell.speed is not distinct from slot.speed;
