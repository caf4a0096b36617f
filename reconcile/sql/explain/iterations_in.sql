-- The entries that find room in one kind of place: their own, another day's, or another place's.
-- Grain: one claim a cell and log. Reads: explained.entry, route, room_kind, left_over.
-- Writes: explained.claim, entry.
create or replace table explained.found_room as
with
meant as (
    select entry.entry_id, entry.log, entry.meter, entry.quantity, entry.context_window,
        case kind.kind when 'own' then entry.day when 'day' then entry.day + entry.direction else route.day end as day,
        if(kind.kind = 'route', route.workspace_id, entry.workspace_id) as workspace_id,
        if(kind.kind = 'route', route.model, entry.model) as model,
        if(kind.kind = 'route', route.service_tier, entry.service_tier) as service_tier,
        if(kind.kind = 'route', route.inference_geo, entry.inference_geo) as inference_geo,
        if(kind.kind = 'route', route.speed, entry.speed) as speed,
    from explained.entry as entry
    cross join explained.room_kind as kind
    left join explained.route as route on route.entry_id = entry.entry_id
    where entry.quantity > 0
),
wanted as (
    select meant.entry_id, meant.log, meant.quantity, left_over.cell_id, left_over.quantity as available,
        sum(meant.quantity) over (partition by cell.cell_id order by meant.log, meant.entry_id)::bigint as upto,
    from meant
    join explained.cell as cell
        on cell.day = meant.day and cell.meter = meant.meter
        and cell.workspace_id is not distinct from meant.workspace_id and cell.model = meant.model
        and cell.service_tier = meant.service_tier and cell.context_window = meant.context_window
        and cell.inference_geo = meant.inference_geo and cell.speed = meant.speed
    join explained.left_over as left_over on left_over.cell_id = cell.cell_id
)
select entry_id, cell_id, log, least(quantity, available - (upto - quantity)) as quantity
from wanted
where least(quantity, available - (upto - quantity)) > 0;

insert into explained.claim (cell_id, position, reason, confidence, log, quantity)
select cell_id, 30, 'iterations', 'inferred', log, sum(quantity)::bigint from explained.found_room group by cell_id, log;

update explained.entry as entry
set quantity = entry.quantity - found.quantity
from explained.found_room as found
where found.entry_id = entry.entry_id;
