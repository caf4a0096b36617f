-- What the correction of one reason moved between cells is its claim: corrected less before, cell by cell.
-- Grain: one claim a cell and log; explained.rebooked one row a reason, log, model as logged and meter, over all days.
-- Reads: explained.rebooking, step (the reason that is being booked), cell. Writes: explained.claim, rebooked.
insert into explained.claim (cell_id, position, reason, confidence, log, place_workspace_id, place_model, quantity)
select cell.cell_id, step.position, step.reason, 'inferred', moved.log,
    case when step.reason = 'workspace' then moved.key_workspace_id end,
    case when step.reason in ('cache_inclusive', 'cache_ttl') then moved.line_model end, sum(moved.quantity)::bigint
from explained.rebooking as moved
join explained.cell as cell
    on cell.day = moved.day and cell.meter = moved.meter and cell.price_usd is not null
    and cell.workspace_id is not distinct from moved.workspace_id
    and cell.model is not distinct from moved.model
    and cell.service_tier is not distinct from moved.service_tier
    and cell.context_window is not distinct from moved.context_window
    and cell.inference_geo is not distinct from moved.inference_geo
    and cell.speed is not distinct from moved.speed
cross join explained.step as step
group by all
having sum(moved.quantity) <> 0;

insert into explained.rebooked
select step.reason, log, line_model, meter, sum(quantity)::bigint
from explained.rebooking
cross join explained.step as step
group by all;
