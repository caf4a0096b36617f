-- Say who receives each slice: the rule's cost center, one for each value of a label, a pool, or nobody.
-- Grain: portion is a (slice, label value, cost center); pooled a (pool, day, workspace_id, model, service_tier, meter).
-- Reads: what slice.sql left, matched.label, price, allocated.rule, rule_workspace, rule_label.
-- Writes: allocated.pooled, allocated.use, and the temporary table portion.

-- What each value of the label, or of a recorded field, recorded in the slice ----------------------------------------

create or replace temp table measured as
with splitting as (
    select
        slice.*, rule.field, rule.unlogged_proportional, rule.unlabeled_proportional,
        charge.model, charge.service_tier, charge.context_window, charge.inference_geo, charge.speed,
    from slice
    join allocated.rule as rule on rule.position = slice.rule
    join charge on charge.charge = slice.charge
    where rule.kind = 'label'
),
label_use as (
    select
        charge.charge,
        case when keyed.charge is null then 'whole' when claim.rule is not null then 'key' else 'rest' end as kind,
        case when claim.rule is not null then label.api_key_id end as name,
        'label.' || label.label as field,
        label.value,
        label.recorded_quantity as quantity,
        label.requests,
        label.recorded_usd as usd,
    from charge
    join matched.label as label
        on label.day = charge.day
        and label.workspace_id = charge.workspace_id
        and label.meter = charge.meter
        and label.model is not distinct from charge.model
        and label.service_tier is not distinct from charge.service_tier
        and label.context_window is not distinct from charge.context_window
        and label.inference_geo is not distinct from charge.inference_geo
        and label.speed is not distinct from charge.speed
    left join (select distinct charge from key_split) as keyed on keyed.charge = charge.charge
    left join claim
        on keyed.charge is not null
        and claim.spot = charge.spot
        and claim.span = charge.span
        and claim.api_key_id = label.api_key_id
    where label.in_period and not charge.residual
),
owner as (
    select charge, kind, name, field, value, quantity, requests, usd from label_use
    union all
    select charge, kind, name, 'log', log, quantity, requests, usd from recorded_use
    union all
    select charge, kind, name, 'api_key', api_key_id, quantity, requests, usd from recorded_use
),
valued as (
    select splitting.slice, owner.value, owner.quantity, owner.requests, owner.usd,
    from splitting
    join owner
        on owner.charge = splitting.charge
        and owner.kind = splitting.kind
        and owner.name is not distinct from splitting.name
        and owner.field = splitting.field
    union all  -- a dimension of the cell: all that was recorded in it has the one value
    select
        slice,
        case field
            when 'model' then model when 'service_tier' then service_tier when 'context_window' then context_window
            when 'inference_geo' then inference_geo else speed
        end,
        recorded_quantity, requests, recorded_usd,
    from splitting
    where field in ('model', 'service_tier', 'context_window', 'inference_geo', 'speed') and recorded_quantity > 0
),
valued_sum as (
    select slice, sum(quantity) as quantity, sum(usd) as usd, sum(requests) as requests from valued group by slice
)
select slice, case when value is null then 'unlabeled' else 'label' end as kind, value as name, quantity, usd, requests,
from valued
union all  -- requests of a log without that label
select
    splitting.slice,
    'unlabeled',
    null,
    splitting.recorded_quantity - coalesce(valued_sum.quantity, 0),
    splitting.recorded_usd - coalesce(valued_sum.usd, 0),
    greatest(splitting.requests - coalesce(valued_sum.requests, 0), 0),
from splitting
left join valued_sum on valued_sum.slice = splitting.slice
where splitting.recorded_quantity > coalesce(valued_sum.quantity, 0)
union all
select
    slice,
    'unlogged',
    null,
    quantity - coalesce(recorded_quantity, 0),
    reported_usd - case when recorded_quantity > 0 then recorded_usd else 0 end,
    0,
from splitting
where not unlogged_proportional and quantity > coalesce(recorded_quantity, 0);

create or replace temp table label_split as
with summed as (
    select
        measured.slice, measured.kind, measured.name,
        greatest(sum(measured.quantity), 0)::hugeint as quantity,
        case when bool_and(measured.usd is not null) then greatest(sum(measured.usd), 0) end as usd,
        sum(measured.requests)::hugeint as requests,
    from measured
    join slice on slice.slice = measured.slice
    join allocated.rule as rule on rule.position = slice.rule
    where measured.kind <> 'unlabeled' or not rule.unlabeled_proportional
    group by measured.slice, measured.kind, measured.name
),
weighed as (  -- by dollars, or by quantity where the model has no price
    select
        *,
        coalesce(
            bool_and(usd is not null) over (partition by slice)
            and sum(usd) over (partition by slice) between 0.000000000001 and 999999999999,
            false
        ) as by_usd,
    from summed
),
weight as (
    select *, case when by_usd then in_units(usd) else quantity end as weight from weighed
),
month as (  -- what the rule's other charges there recorded: for one of which nothing was, where that is proportional
    select slice.rule, charge.workspace_id, slice.name as api_key_id, measured.kind, measured.name,
        sum(in_units(measured.usd))::hugeint as weight,
    from measured
    join slice on slice.slice = measured.slice
    join charge on charge.charge = slice.charge
    join allocated.rule as rule on rule.position = slice.rule
    where rule.unlogged_proportional and measured.usd > 0
        and (measured.kind <> 'unlabeled' or not rule.unlabeled_proportional)
    group by all
)
select
    slice.slice as whole,
    slice.charge,
    slice.name as api_key_id,
    slice.units,
    slice.quantity,
    slice.rule,
    coalesce(weight.kind, month.kind, 'unlogged') as kind,  -- no recorded use at all
    coalesce(weight.name, month.name) as name,
    coalesce(weight.weight, month.weight, 1::hugeint) as weight,
    coalesce(weight.requests, 0) as requests,
    case
        when coalesce(weight.kind, month.kind, 'unlogged') = 'unlogged' then 'not covered by a log'
        when weight.kind is null then 'recorded USD of the month by ' || rule.field
        when by_usd then 'recorded USD by ' || rule.field
        else 'recorded quantity by ' || rule.field
    end as driver,
from slice
join charge on charge.charge = slice.charge
join allocated.rule as rule on rule.position = slice.rule
left join weight on weight.slice = slice.slice and weight.weight > 0
left join month
    on weight.slice is null
    and rule.unlogged_proportional
    and month.rule = slice.rule
    and month.workspace_id is not distinct from charge.workspace_id
    and month.api_key_id is not distinct from slice.name
where rule.kind = 'label';

-- Every portion of a charge that stands at its own day --------------------------------------------------------------

create or replace temp table portion as
select
    slice.charge,
    slice.name as api_key_id,
    null::varchar as label,
    reach.cost_center,
    case when slice.kind = 'key' then 'key' else 'direct' end as basis,
    slice.rule,
    case slice.kind
        when 'key' then 'reported quantity by key' when 'no_key' then 'reported quantity without a key'
    end as driver,
    slice.units, slice.quantity, slice.requests,
from slice
join charge on charge.charge = slice.charge
join allocated.rule as rule on rule.position = slice.rule
join allocated.rule_workspace as reach
    on reach.position = slice.rule and reach.workspace_id = charge.workspace_id
where rule.kind = 'direct'
union all
select
    part.charge, part.api_key_id, part.name,
    coalesce(receiver.cost_center, other.cost_center, 'unallocated'),
    case when coalesce(receiver.cost_center, other.cost_center) is null then 'unallocated' else 'label' end,
    part.rule, part.driver, part.units, part.quantity, part.requests,
from apportioned(label_split) as part
left join allocated.rule_label as receiver
    on receiver.position = part.rule
    and receiver.kind = part.kind
    and receiver.label is not distinct from part.name
left join allocated.rule_label as other
    on other.position = part.rule and other.kind = 'other' and part.kind = 'label'
union all
select charge, null, null, 'unallocated', 'unallocated', null, null, units, quantity, requests,
from slice
where rule is null;

-- What went into the pools by their own selection and by rules that name them.
create or replace table allocated.pooled as
select
    charge.day, charge.workspace_id, charge.model, charge.service_tier, charge.meter,
    rule.pool as position,
    charge.span,
    in_usd(sum(charge.sign * slice.units)) as amount_usd,
from slice
join charge on charge.charge = slice.charge
join allocated.rule as rule on rule.position = slice.rule
where rule.kind = 'pool' and charge.billed
group by charge.day, charge.workspace_id, charge.model, charge.service_tier, charge.meter, rule.pool, charge.span
order by all;

-- What each cost center used itself, with the requests that the logs hold and what its cached tokens would have cost
-- as plain input. Grain: one row a (day, workspace_id, model, service_tier, meter, cost center).
create or replace table allocated.use as
select
    charge.day, charge.workspace_id, charge.model, charge.service_tier, charge.meter, portion.cost_center,
    case when bool_or(charge.reported_quantity is not null) then sum(portion.quantity) end::bigint as quantity,
    sum(portion.requests)::bigint as requests,
    in_usd(sum(charge.sign * portion.units)) as amount_usd,
    sum(
        (portion.quantity::bigint * price.price_usd * 0.000001::decimal(6, 6))::decimal(38, 12)
    ) filter (charge.billed) as as_input_usd,
from portion
join charge on charge.charge = portion.charge
left join matched.price as price
    on charge.meter in (
        'cache_read_input_tokens', 'cache_creation.ephemeral_5m_input_tokens', 'cache_creation.ephemeral_1h_input_tokens'
    )
    and price.meter = 'uncached_input_tokens'
    and price.day = charge.day
    and price.model = charge.model
    and price.service_tier = charge.service_tier
    and price.context_window = charge.context_window
    and price.inference_geo = charge.inference_geo
    and price.speed = charge.speed
group by
    charge.day, charge.workspace_id, charge.model, charge.service_tier, charge.meter, portion.cost_center
order by all;
