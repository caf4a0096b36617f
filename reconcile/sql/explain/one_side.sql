-- What is left: reported and not recorded, or recorded and not reported.
-- Rule: `unlogged` and `unreported` say where, not why. `unreported` is laid to the lines of another biller first, then to
--   those with an error status, then to the rest; to a log where only one wrote in the cell.
-- Grain: one claim a cell (and log). Reads: explained.left_over, never_reported, known, corrected_meter, matched.recorded.
-- Writes: explained.claim, note, checks.
insert into explained.claim (cell_id, position, reason, confidence, quantity)
select cell_id, 60, 'unlogged', 'suspected', quantity
from explained.left_over
where quantity > 0;

insert into explained.claim (cell_id, position, reason, confidence, log, evidence, quantity)
with source_of as (
    select cell.cell_id, recorded.log,
        case when biller is not null then 1 when failed then 2 else 3 end as standing,
        explained.tells(biller, failed) as evidence,
        sum(recorded.quantity)::bigint as quantity,
    from matched.recorded as recorded
    join explained.cell as cell
        on cell.day = recorded.day and cell.meter = recorded.meter
        and cell.workspace_id is not distinct from recorded.workspace_id
        and cell.model is not distinct from recorded.model
        and cell.service_tier is not distinct from recorded.service_tier
        and cell.context_window is not distinct from recorded.context_window
        and cell.inference_geo is not distinct from recorded.inference_geo
        and cell.speed is not distinct from recorded.speed
    anti join explained.never_reported as never_reported
        on never_reported.log = recorded.log
        and never_reported.evidence = explained.tells(recorded.biller, recorded.failed)
    group by all
    union all
    -- what a correction brought here stands in no line of this cell
    select cell_id, null, 4, null, too_much - least(quantity, 0) from explained.left_over where too_much - least(quantity, 0) > 0
),
merged as (
    -- without evidence it cannot be said which of several logs holds what was not reported
    select cell_id, standing, evidence,
        case when standing <> 3 or count(*) over (partition by cell_id, standing) = 1 then log end as log, quantity,
    from source_of
),
ranked as (
    select cell_id, standing, evidence, log, sum(quantity)::bigint as quantity from merged group by all
),
running as (
    select ranked.*, too_much - least(left_over.quantity, 0) as available,
        sum(ranked.quantity) over (
            partition by ranked.cell_id order by standing, log nulls last, evidence
        )::bigint as upto,
    from ranked
    join explained.left_over as left_over on left_over.cell_id = ranked.cell_id
    where too_much - least(left_over.quantity, 0) > 0
)
select
    cell_id, 70, 'unreported', case when evidence is null then 'suspected' else 'inferred' end, log, evidence,
    -least(quantity, available - (upto - quantity))
from running
where least(quantity, available - (upto - quantity)) > 0;

-- Missing evenly over all hours, or in single ones: what is used there, and in how many of its hours more than was recorded.
insert into explained.note
with
side as (
    select hour, workspace_id, model, quantity as reported, 0 as recorded from explained.known where model is not null
    union all
    select hour, workspace_id, model, 0, quantity from explained.corrected_meter where model is not null
),
hours as (
    select hour, workspace_id, model, sum(reported) as reported, sum(recorded) as recorded
    from side
    cross join source.run
    where hour >= start_on::timestamp and hour < through_on::timestamp + interval 24 hour
    group by all
)
select 'unlogged', null, workspace_id, model, null, null, null, fact.name, to_json(fact.value)
from (
    select workspace_id, model, sum(reported)::varchar as tokens,
        count(*) filter (reported > recorded) || ' of ' || count(*) filter (reported > 0) as hours,
    from hours
    group by workspace_id, model
)
cross join lateral (
    select unnest([
        {'name': 'tokens_reported_in_its_place', 'value': tokens},
        {'name': 'hours_with_more_reported_than_recorded', 'value': hours},
    ], recursive := true)
) as fact;

create or replace view checks.quantity_not_explained as
select cell.cell_id, cell.variance_quantity, coalesce(claimed.quantity, 0) as claimed
from explained.cell as cell
left join (select cell_id, sum(quantity) as quantity from explained.claim group by cell_id) as claimed
    on claimed.cell_id = cell.cell_id
where cell.price_usd is not null and cell.variance_quantity <> coalesce(claimed.quantity, 0);
