-- Compaction and advisor iterations, which the top-level counters of `usage` leave out.
-- Rule: the quantity of the entries that the logs themselves hold, at most what is left of the cell's positive variance:
--   of their own cell, then of the day on which a log that stamps early (or late) is counted, then of the place to which
--   most of what was recorded here with them was found to belong.
-- Grain: explained.entry one row a place, log and meter, with what has found no room yet.
-- Reads: explained.fixed_iteration, adjusted, moved, slot, hour_slot. Writes: explained.entry, route, note, checks.
create or replace table explained.entry as
with late as (
    select log, arg_max(direction, (as_logged, direction)) as direction
    from explained.adjusted where reason = 'cutoff' and direction is not null group by log
)
select row_number() over (
        order by entry.day, entry.workspace_id, entry.model, entry.service_tier, entry.context_window,
            entry.inference_geo, entry.speed, entry.meter, entry.log
    ) as entry_id,
    entry.day, entry.workspace_id, entry.model, entry.service_tier, entry.context_window, entry.inference_geo,
    entry.speed, entry.meter, entry.log, any_value(late.direction) as direction,
    sum(entry.quantity)::bigint as quantity,
from explained.fixed_iteration as entry
left join late on late.log = entry.log
group by entry.day, entry.workspace_id, entry.model, entry.service_tier, entry.context_window, entry.inference_geo,
    entry.speed, entry.meter, entry.log;

-- Where the quantities of a place went, and the entries that stand there.
create or replace table explained.route as
with place as (
    select slot_id, day, workspace_id, model, service_tier, context_window, inference_geo, speed from explained.hour_slot
    union all
    select slot_id, day, workspace_id, model, service_tier, context_window, inference_geo, speed from explained.slot
)
select entry.entry_id, b.day, b.workspace_id, b.model, b.service_tier, b.inference_geo, b.speed,
from explained.moved as moved
join place as a on a.slot_id = moved.from_slot
join place as b on b.slot_id = moved.to_slot
join explained.entry as entry
    on entry.log = moved.log and entry.day = a.day and entry.workspace_id is not distinct from a.workspace_id
    and entry.model = a.model and entry.service_tier = a.service_tier and entry.inference_geo = a.inference_geo
    and entry.speed = a.speed
where moved.reason <> 'cutoff'
group by entry.entry_id, b.day, b.workspace_id, b.model, b.service_tier, b.inference_geo, b.speed
qualify row_number() over (
    partition by entry.entry_id
    order by sum(moved.input + moved.output) desc, b.day, b.workspace_id, b.model, b.service_tier, b.inference_geo, b.speed
) = 1;

insert into explained.note
select 'iterations', log, null, model, null, null, null, 'tokens_of_' || coalesce(kind, 'unnamed') || '_entries',
    to_json(sum(quantity)::varchar)
from source.iteration
join source.run as run on day between run.start_on and run.through_on
group by log, model, kind;

-- What the logs' entries hold is claimed, or has found no room.
create or replace view checks.iterations_lost as
select log, meter, sum(held) as held, sum(claimed) as claimed, sum(without_room) as without_room
from (
    select log, meter, quantity as held, 0 as claimed, 0 as without_room from explained.fixed_iteration
    union all
    select log, meter, 0, 0, quantity from explained.entry
    union all
    select claim.log, cell.meter, 0, claim.quantity, 0
    from explained.claim as claim
    join explained.cell as cell on cell.cell_id = claim.cell_id
    where claim.reason = 'iterations'
)
group by log, meter
having sum(held) <> sum(claimed) + sum(without_room) or min(without_room) < 0;
