-- What the provider says now of a month that was closed, beside what was closed and what was booked since.
-- Grain: moved one row a cell; weight one a moved cell and cost center. In a scratch ledger that holds the month's new
--   pages up to `match`, with its closed revision attached as `closed`.
-- Reads: matched.cell, closed.matched.cell, closed.allocated.part, the temp table booked (one row a cell and later month).
-- Writes: temp tables moved and weight.
-- Rule: the parts of a moved cell are in proportion to what the closed month charged, by its rules: for that very charge
--   where no pool took of it; else for that workspace on that day, where no pool took of it at all; else for the
--   workspace, model and meter; else for the workspace. What has no precedent has no cost center.

create or replace temp table moved as
with side as (
    select day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter,
        billed_usd as closed_usd, 0::decimal(38, 12) as booked_usd, 0::decimal(38, 12) as after_usd,
    from closed.matched.cell
    where in_period and billed_usd is not null
    union all
    select day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, 0, amount_usd, 0
    from booked
    union all
    select day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, 0, 0, billed_usd
    from matched.cell
    where in_period and billed_usd is not null
),
cell as (
    select day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter,
        sum(closed_usd)::decimal(38, 12) as closed_usd,
        (sum(closed_usd) + sum(booked_usd))::decimal(38, 12) as before_usd,
        sum(after_usd)::decimal(38, 12) as after_usd,
    from side
    group by all
)
select
    row_number() over (
        order by day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter
    ) as cell,
    *,
    (after_usd - before_usd)::decimal(38, 12) as amount_usd,
from cell
where after_usd <> before_usd or after_usd <> closed_usd;

create or replace temp table weight as
with pooled as (
    select distinct workspace_id from closed.allocated.part where day is null
),
charged as (
    select day, workspace_id, model, service_tier, meter, sum(billed_usd) as billed_usd
    from closed.matched.cell
    where in_period and billed_usd is not null
    group by all
),
paid as (
    select day, workspace_id, model, service_tier, meter, cost_center, sum(amount_usd) as amount_usd
    from closed.allocated.part
    group by all
),
part as (
    select *, sum(amount_usd) over (partition by day, workspace_id, model, service_tier, meter) as parts_usd
    from paid
),
candidate as (
    select moved.cell, 1 as level, part.cost_center, part.amount_usd
    from moved
    join part
        on part.day = moved.day and part.meter = moved.meter
        and part.workspace_id is not distinct from moved.workspace_id
        and part.model is not distinct from moved.model
        and part.service_tier is not distinct from moved.service_tier
    join charged
        on charged.day = part.day and charged.meter = part.meter and charged.billed_usd = part.parts_usd
        and charged.workspace_id is not distinct from part.workspace_id
        and charged.model is not distinct from part.model
        and charged.service_tier is not distinct from part.service_tier
    union all
    select moved.cell, 2, part.cost_center, part.amount_usd
    from moved
    join part on part.day = moved.day and part.workspace_id is not distinct from moved.workspace_id
    where not exists (from pooled where pooled.workspace_id is not distinct from moved.workspace_id)
    union all
    select moved.cell, 3, part.cost_center, part.amount_usd
    from moved
    join part
        on part.meter = moved.meter and part.workspace_id is not distinct from moved.workspace_id
        and part.model is not distinct from moved.model
    union all
    select moved.cell, 4, part.cost_center, part.amount_usd
    from moved
    join part on part.workspace_id is not distinct from moved.workspace_id
),
summed as (
    select cell, level, cost_center, abs(sum(amount_usd))::decimal(38, 12) as weight_usd
    from candidate
    group by all
    having sum(amount_usd) <> 0
)
select cell, cost_center, weight_usd
from summed
qualify level = min(level) over (partition by cell)
order by cell, cost_center;
