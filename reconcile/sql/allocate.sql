-- Split every charge of the period over cost centers, exactly, and say by which rule.
-- Grain: a charge is a billed cell; allocated.part is one row a (day, workspace_id, model, service_tier, meter,
--   api_key_id, label, cost_center, rule, pool, driver), a pool's parts have day and service_tier NULL.
-- Reads: matched.cell, matched.usage, matched.label, and the config's rules as allocate.py wrote them:
--   allocated.rule, rule_workspace, rule_key, rule_label, pool, pool_workspace, pool_share, cost_center.
-- Writes: allocated.pooled, allocated.part, allocated.chargeback (empty), and views in checks.
-- Inside, money is a count of units of 1e-12 USD (HUGEINT), its sign apart: `//` and `%` are exact on those.

create or replace temp macro holds(day, from_on, until_on) as
    (from_on is null or day >= from_on) and (until_on is null or day < until_on);

create or replace temp macro in_units(usd) as
    (usd * 1000000000000::decimal(13, 0))::hugeint;

create or replace temp macro in_usd(units) as
    (units::decimal(38, 0) * 0.000000000001::decimal(12, 12))::decimal(38, 12);

-- Split `units` of each charge by `weight`, largest remainder first, ties by name.
-- A product of the two would not fit 128 bits, so the weight is multiplied in two limbs of twelve digits, each of which
-- does: exact for weights that add up to less than 1e24. (DuckDB raises on an overflow, it never wraps.)
create or replace temp macro apportioned(split) as table
with weighed as (
    select
        *,
        sum(weight) over (partition by charge) as weights,
    from query_table(split)
),
high as (
    select *, (units % weights) * (weight // 1000000000000) as product from weighed
),
low as (
    select
        *,
        (product % weights) * 1000000000000 + (units % weights) * (weight % 1000000000000) as low_product,
    from high
),
quota as (
    select
        *,
        units // weights * weight + product // weights * 1000000000000 + low_product // weights as whole,
        low_product % weights as remainder,
    from low
),
ranked as (
    select
        *,
        units - sum(whole) over (partition by charge) as missing,
        row_number() over (partition by charge order by remainder desc, name nulls last, kind) as place,
    from quota
)
select charge, rule, kind, name, driver, whole + (place <= missing)::hugeint as units,
from ranked;

-- Charges -----------------------------------------------------------------------------------------------------------

create or replace temp table charge as
with billed as (
    select
        row_number() over () as charge,
        day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter,
        abs(in_units(billed_usd)) as units,
        case when billed_usd < 0 then -1 else 1 end as sign,
        recorded_quantity, reported_quantity, recorded_usd, reported_usd,
    from matched.cell
    where in_period and billed_usd is not null
),
place as (
    select distinct day, workspace_id from billed
),
catching_rule as (  -- takes whatever reaches it, so the first one is the last word on a charge
    select place.day, place.workspace_id, min(rule.position) as rule,
    from place
    join allocated.rule_workspace as reach on reach.workspace_id = place.workspace_id
    join allocated.rule as rule on rule.position = reach.position
    where rule.kind <> 'key' and holds(place.day, rule.from_on, rule.until_on)
    group by place.day, place.workspace_id
),
catching_pool as (
    select place.day, place.workspace_id, min(pool.position) as pool,
    from place
    join allocated.pool_workspace as reach on reach.workspace_id = place.workspace_id
    join allocated.pool as pool on pool.position = reach.position
    where holds(place.day, pool.from_on, pool.until_on)
    group by place.day, place.workspace_id
)
select billed.*, catching_rule.rule, catching_pool.pool,
from billed
left join catching_rule
    on catching_rule.day = billed.day and catching_rule.workspace_id = billed.workspace_id
left join catching_pool
    on catching_pool.day = billed.day and catching_pool.workspace_id = billed.workspace_id;

-- By API key: the reported quantity of each key in the very cell ----------------------------------------------------

create or replace temp table key_split as
with place as (
    select distinct day, workspace_id, rule from charge
),
used as (
    select distinct day, workspace_id, api_key_id from matched.usage where in_period and reported_quantity > 0
),
claim as (  -- the first rule for the key, where no rule before it catches the whole workspace
    select used.day, used.workspace_id, used.api_key_id, min(rule.position) as rule,
    from used
    join place on place.day = used.day and place.workspace_id = used.workspace_id
    join allocated.rule_key as named on named.api_key_id = used.api_key_id
    join allocated.rule_workspace as reach
        on reach.position = named.position and reach.workspace_id = used.workspace_id
    join allocated.rule as rule on rule.position = named.position
    where holds(used.day, rule.from_on, rule.until_on) and (place.rule is null or rule.position < place.rule)
    group by used.day, used.workspace_id, used.api_key_id
),
share as (
    select
        charge.charge,
        charge.units,
        claim.rule,
        case when claim.rule is not null then usage.api_key_id end as name,
        sum(usage.reported_quantity)::hugeint as weight,
    from charge
    join matched.usage as usage
        on usage.day = charge.day
        and usage.workspace_id = charge.workspace_id
        and usage.meter = charge.meter
        and usage.model is not distinct from charge.model
        and usage.service_tier is not distinct from charge.service_tier
        and usage.context_window is not distinct from charge.context_window
        and usage.inference_geo is not distinct from charge.inference_geo
        and usage.speed is not distinct from charge.speed
    left join claim
        on claim.day = usage.day
        and claim.workspace_id = usage.workspace_id
        and claim.api_key_id = usage.api_key_id
    where usage.in_period
        and usage.reported_quantity > 0
        and exists (
            select 1 from claim as near where near.day = charge.day and near.workspace_id = charge.workspace_id
        )
    group by all
)
select
    charge, units, rule, name, weight,
    case when rule is null then 'rest' else 'key' end as kind,
    'reported quantity by key' as driver,
from share
qualify count(rule) over (partition by charge) > 0;

create or replace temp table key_part as
select * from apportioned(key_split);

create or replace temp table remaining as  -- what no key took of a charge
select
    charge.* replace (case when taken.charge is null then charge.units else rest.units end as units),
from charge
left join (select distinct charge from key_part) as taken on taken.charge = charge.charge
left join key_part as rest on rest.charge = charge.charge and rest.kind = 'rest'
where taken.charge is null or rest.units is not null;

-- By the logs' labels: what each value recorded in the cell ---------------------------------------------------------

create or replace temp table label_split as
with splitting as (
    select remaining.*, rule.label, rule.driver, rule.unlogged_proportional,
    from remaining
    join allocated.rule as rule on rule.position = remaining.rule
    where rule.kind = 'label'
),
labeled as (
    select
        splitting.charge,
        label.value as name,
        sum(label.recorded_quantity) as quantity,
        sum(label.recorded_usd) as usd,
    from splitting
    join matched.label as label
        on label.day = splitting.day
        and label.workspace_id = splitting.workspace_id
        and label.meter = splitting.meter
        and label.model is not distinct from splitting.model
        and label.service_tier is not distinct from splitting.service_tier
        and label.context_window is not distinct from splitting.context_window
        and label.inference_geo is not distinct from splitting.inference_geo
        and label.speed is not distinct from splitting.speed
        and label.label = splitting.label
    where label.in_period
    group by splitting.charge, label.value
),
labeled_sum as (
    select charge, sum(quantity) as quantity, sum(usd) as usd from labeled group by charge
),
measured as (
    select charge, case when name is null then 'unlabeled' else 'label' end as kind, name, quantity, usd from labeled
    union all  -- requests of a log without that label
    select
        splitting.charge,
        'unlabeled',
        null,
        splitting.recorded_quantity - coalesce(labeled_sum.quantity, 0),
        splitting.recorded_usd - coalesce(labeled_sum.usd, 0),
    from splitting
    left join labeled_sum on labeled_sum.charge = splitting.charge
    where splitting.recorded_quantity > coalesce(labeled_sum.quantity, 0)
    union all
    select
        charge,
        'unlogged',
        null,
        reported_quantity - coalesce(recorded_quantity, 0),
        reported_usd - coalesce(recorded_usd, 0),
    from splitting
    where not unlogged_proportional and reported_quantity > coalesce(recorded_quantity, 0)
),
summed as (
    select
        charge, kind, name,
        greatest(sum(quantity), 0)::hugeint as quantity,
        case when bool_and(usd is not null) then greatest(sum(usd), 0) end as usd,
    from measured
    group by charge, kind, name
),
weighed as (  -- by dollars, or by quantity where the model has no price
    select
        *,
        coalesce(
            bool_and(usd is not null) over (partition by charge)
            and sum(usd) over (partition by charge) between 0.000000000001 and 999999999999,
            false
        ) as by_usd,
    from summed
),
weight as (
    select
        *,
        case when by_usd then in_units(usd) else quantity end as weight,
    from weighed
)
select
    splitting.charge,
    splitting.units,
    splitting.rule,
    coalesce(weight.kind, 'unlogged') as kind,  -- no recorded use at all
    weight.name,
    coalesce(weight.weight, 1::hugeint) as weight,
    case
        when coalesce(weight.kind, 'unlogged') = 'unlogged' then 'not covered by a log'
        when by_usd then 'recorded USD by ' || splitting.driver
        else 'recorded quantity by ' || splitting.driver
    end as driver,
from splitting
left join weight on weight.charge = splitting.charge and weight.weight > 0;

-- Every portion of a charge that stands at its own day --------------------------------------------------------------

create or replace temp table portion as
select
    key_part.charge, key_part.name as api_key_id, null::varchar as label, reach.cost_center, 'key' as basis,
    key_part.rule, key_part.driver, key_part.units,
from key_part
join charge on charge.charge = key_part.charge
join allocated.rule_workspace as reach
    on reach.position = key_part.rule and reach.workspace_id = charge.workspace_id
where key_part.kind = 'key'
union all
select
    remaining.charge, null, null, reach.cost_center, 'direct', remaining.rule, null, remaining.units,
from remaining
join allocated.rule as rule on rule.position = remaining.rule
join allocated.rule_workspace as reach
    on reach.position = remaining.rule and reach.workspace_id = remaining.workspace_id
where rule.kind = 'direct'
union all
select
    part.charge, null, part.name,
    coalesce(receiver.cost_center, 'unallocated'),
    case when receiver.cost_center is null then 'unallocated' else 'label' end,
    part.rule, part.driver, part.units,
from apportioned(label_split) as part
left join allocated.rule_label as receiver
    on receiver.position = part.rule
    and receiver.kind = part.kind
    and receiver.label is not distinct from part.name
union all
select remaining.charge, null, null, 'unallocated', 'unallocated', null, null, remaining.units,
from remaining
where remaining.rule is null and remaining.pool is null;

-- Pools -------------------------------------------------------------------------------------------------------------

-- What went into the pools. Grain: one row a (day, workspace_id, model, service_tier, meter, pool).
create or replace table allocated.pooled as
select
    day, workspace_id, model, service_tier, meter, pool as position,
    in_usd(sum(sign * units)) as amount_usd,
from remaining
where rule is null and pool is not null
group by day, workspace_id, model, service_tier, meter, pool
order by all;

create or replace temp table pot as
select
    row_number() over () as charge,
    position, workspace_id, model, meter,
    abs(in_units(sum(amount_usd))) as units,
    case when sum(amount_usd) < 0 then -1 else 1 end as sign,
from allocated.pooled
group by position, workspace_id, model, meter;

create or replace temp table pot_split as
with direct_cost as (
    select portion.cost_center, sum(charge.sign * portion.units) as weight,
    from portion
    join charge on charge.charge = portion.charge
    where portion.basis <> 'unallocated'
    group by portion.cost_center
),
weight as (
    select position, cost_center, weight from allocated.pool_share
    union all
    select pool.position, direct_cost.cost_center, direct_cost.weight,
    from allocated.pool as pool
    cross join direct_cost
    where pool.split = 'proportional'
)
select
    pot.charge, pot.units, pot.position as rule, 'pool' as kind,
    coalesce(weight.cost_center, 'unallocated') as name,
    coalesce(weight.weight, 1::hugeint) as weight,
    null::varchar as driver,
from pot
left join weight on weight.position = pot.position and weight.weight > 0;

-- Parts -------------------------------------------------------------------------------------------------------------

-- `share` is that of all charges at (day, workspace_id, model, service_tier, meter), or of the pot.
create or replace table allocated.part as
with direct_part as (
    select
        charge.day, charge.workspace_id, charge.model, charge.service_tier, charge.meter,
        portion.api_key_id, portion.label, portion.cost_center, portion.basis, portion.rule, portion.driver,
        sum(charge.sign * portion.units) as units,
    from portion
    join charge on charge.charge = portion.charge
    group by all
),
day_total as (
    select day, workspace_id, model, service_tier, meter, sum(sign * units) as units,
    from charge
    group by all
),
part as (
    select
        direct_part.* exclude (rule),
        rule.rule,
        null::varchar as pool,
        day_total.units as total_units,
    from direct_part
    left join allocated.rule as rule on rule.position = direct_part.rule
    join day_total
        on day_total.day = direct_part.day
        and day_total.workspace_id is not distinct from direct_part.workspace_id
        and day_total.meter = direct_part.meter
        and day_total.model is not distinct from direct_part.model
        and day_total.service_tier is not distinct from direct_part.service_tier
    union all by name
    select
        pot.workspace_id, pot.model, pot.meter,
        split.name as cost_center,
        case when split.name = 'unallocated' then 'unallocated' else 'shared' end as basis,
        pool.pool,
        pool.driver,
        pot.sign * split.units as units,
        pot.sign * pot.units as total_units,
    from apportioned(pot_split) as split
    join pot on pot.charge = split.charge
    join allocated.pool as pool on pool.position = split.rule
    where split.units <> 0
)
select
    day, workspace_id, model, service_tier, meter, api_key_id, label, cost_center, basis, rule, pool, driver,
    try_cast(sum(units)::double / nullif(sum(total_units), 0)::double as decimal(9, 6)) as share,
    in_usd(sum(units)) as amount_usd,
from part
group by day, workspace_id, model, service_tier, meter, api_key_id, label, cost_center, basis, rule, pool, driver
order by day, workspace_id, model, service_tier, meter, api_key_id, label, cost_center, basis, rule, pool, driver;

-- Filled by allocate.py: cents are made in one place only.
create or replace table allocated.chargeback (
    cost_center varchar,
    name varchar,
    direct_usd decimal(38, 2),
    shared_usd decimal(38, 2),
    total_usd decimal(38, 2),
    other_usd decimal(38, 2),
    payable_usd decimal(38, 2),
);

drop table charge;
drop table key_split;
drop table key_part;
drop table remaining;
drop table label_split;
drop table portion;
drop table pot;
drop table pot_split;

-- Checks ------------------------------------------------------------------------------------------------------------

create or replace view checks.billed_lost_in_allocation as
with billed as (
    select sum(billed_usd) as billed_usd from matched.cell where in_period
),
allocated as (
    select sum(amount_usd) as allocated_usd from allocated.part
)
select coalesce(billed_usd, 0) as billed_usd, coalesce(allocated_usd, 0) as allocated_usd,
from billed
cross join allocated
where coalesce(billed_usd, 0) <> coalesce(allocated_usd, 0);

create or replace view checks.parts_differ_from_charge as
with amount as (
    select day, workspace_id, model, service_tier, meter, billed_usd, 0::decimal(38, 12) as allocated_usd,
    from matched.cell
    where in_period and billed_usd is not null
    union all
    select day, workspace_id, model, service_tier, meter, 0, amount_usd from allocated.part where day is not null
    union all
    select day, workspace_id, model, service_tier, meter, 0, amount_usd from allocated.pooled
)
select
    day, workspace_id, model, service_tier, meter,
    sum(billed_usd) as billed_usd,
    sum(allocated_usd) as allocated_usd,
from amount
group by day, workspace_id, model, service_tier, meter
having sum(billed_usd) <> sum(allocated_usd)
order by all;

create or replace view checks.parts_differ_from_pool as
with amount as (
    select pool.pool, pooled.workspace_id, pooled.model, pooled.meter,
        pooled.amount_usd as pooled_usd, 0::decimal(38, 12) as allocated_usd,
    from allocated.pooled as pooled
    join allocated.pool as pool on pool.position = pooled.position
    union all
    select pool, workspace_id, model, meter, 0, amount_usd from allocated.part where pool is not null
)
select pool, workspace_id, model, meter, sum(pooled_usd) as pooled_usd, sum(allocated_usd) as allocated_usd,
from amount
group by pool, workspace_id, model, meter
having sum(pooled_usd) <> sum(allocated_usd)
order by all;

create or replace view checks.part_with_other_sign as
with charged as (
    select day, workspace_id, model, service_tier, meter, min(billed_usd) as lowest_usd, max(billed_usd) as highest_usd,
    from matched.cell
    where in_period and billed_usd is not null
    group by day, workspace_id, model, service_tier, meter
),
pooled as (
    select pool.pool, pooled.workspace_id, pooled.model, pooled.meter,
        min(pooled.amount_usd) as lowest_usd, max(pooled.amount_usd) as highest_usd,
    from allocated.pooled as pooled
    join allocated.pool as pool on pool.position = pooled.position
    group by all
),
bounded as (
    select part.*, charged.lowest_usd, charged.highest_usd,
    from allocated.part as part
    join charged
        on charged.day = part.day
        and charged.workspace_id is not distinct from part.workspace_id
        and charged.model is not distinct from part.model
        and charged.service_tier is not distinct from part.service_tier
        and charged.meter = part.meter
    union all
    select part.*, pooled.lowest_usd, pooled.highest_usd,
    from allocated.part as part
    join pooled
        on pooled.pool = part.pool
        and pooled.workspace_id is not distinct from part.workspace_id
        and pooled.model is not distinct from part.model
        and pooled.meter = part.meter
    where part.day is null
)
select * from bounded
where (amount_usd < 0 and lowest_usd >= 0) or (amount_usd > 0 and highest_usd <= 0)
order by all;

create or replace view checks.receiver_is_no_cost_center as
select part.cost_center, sum(part.amount_usd) as amount_usd,
from allocated.part as part
where part.cost_center <> 'unallocated'
    and part.cost_center not in (select center.cost_center from allocated.cost_center as center)
group by part.cost_center
order by all;

create or replace view checks.basis_differs_from_receiver as
select * from allocated.part
where (basis = 'unallocated') <> (cost_center = 'unallocated')
    or (basis = 'shared' and pool is null)
    or (basis in ('direct', 'key', 'label') and rule is null)
    or (basis = 'key') <> (api_key_id is not null)
order by all;

create or replace view checks.chargeback_differs_from_bill as
with billed as (
    select coalesce(sum(billed_usd), 0)::decimal(38, 2) as billed_usd from matched.cell where in_period
),
charged as (
    select coalesce(sum(total_usd), 0) as total_usd from allocated.chargeback
)
select billed_usd, total_usd,
from billed
cross join charged
where billed_usd <> total_usd;

create or replace view checks.chargeback_differs_from_parts as
with part as (
    select
        cost_center,
        sum(case when basis = 'shared' then 0 else amount_usd end) as direct_usd,
        sum(case when basis = 'shared' then amount_usd else 0 end) as shared_usd,
    from allocated.part
    group by cost_center
)
select
    coalesce(chargeback.cost_center, part.cost_center) as cost_center,
    part.direct_usd as direct_part_usd, chargeback.direct_usd,
    part.shared_usd as shared_part_usd, chargeback.shared_usd,
    chargeback.total_usd,
from allocated.chargeback as chargeback
full join part on part.cost_center = chargeback.cost_center
where chargeback.cost_center is null
    or abs(coalesce(part.direct_usd, 0) - chargeback.direct_usd) >= 0.01
    or abs(coalesce(part.shared_usd, 0) - chargeback.shared_usd) >= 0.01
    or chargeback.direct_usd + chargeback.shared_usd <> chargeback.total_usd
    or chargeback.total_usd + chargeback.other_usd <> chargeback.payable_usd
order by all;

create or replace view checks.cost_center_without_chargeback as
select center.cost_center,
from allocated.cost_center as center
where center.cost_center not in (select chargeback.cost_center from allocated.chargeback as chargeback)
order by all;
