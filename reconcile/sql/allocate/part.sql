-- Put the parts together: what stands at its day, what pools gave, what comes from outside the cost report.
-- Grain: part is a (day, workspace_id, model, service_tier, meter, api_key_id, label, cost_center, rule, pool, driver),
--   day and service_tier NULL where it is of a pool; other a (line from outside, cost center).
-- Reads: what portion.sql and pool_turn.sql left. Writes: allocated.part, other, passed_on, chargeback (empty), checks.

-- `share` is that of all charges at (day, workspace_id, model, service_tier, meter), or of the pots; for display.
-- `quantity` is for statements: report.allocation has none.
create or replace table allocated.part as
with direct_part as (
    select
        charge.day, charge.workspace_id, charge.model, charge.service_tier, charge.meter,
        portion.api_key_id, portion.label, portion.cost_center, portion.basis, portion.rule, portion.driver,
        sum(charge.sign * portion.units) as units,
        sum(portion.quantity) filter (charge.reported_quantity is not null) as quantity,
    from portion
    join charge on charge.charge = portion.charge
    where charge.billed
    group by all
),
day_total as (
    select day, workspace_id, model, service_tier, meter, sum(sign * units) as units,
    from charge
    where billed
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
        split.cost_center,
        case when split.cost_center = 'unallocated' then 'unallocated' else 'shared' end as basis,
        pool.pool,
        pool.driver,
        split.units,
        split.pot_units as total_units,
    from allocated.pool_part as split
    join allocated.pot as pot on pot.pot = split.pot
    join allocated.pool as pool on pool.position = pot.position
    where split.into_position is null and pot.line is null
)
select
    day, workspace_id, model, service_tier, meter, api_key_id, label, cost_center, basis, rule, pool, driver,
    try_cast(sum(units)::double / nullif(sum(total_units), 0)::double as decimal(9, 6)) as share,
    in_usd(sum(units)) as amount_usd,
    sum(quantity)::bigint as quantity,
from part
group by day, workspace_id, model, service_tier, meter, api_key_id, label, cost_center, basis, rule, pool, driver
order by day, workspace_id, model, service_tier, meter, api_key_id, label, cost_center, basis, rule, pool, driver;

create or replace table allocated.other as
select
    outside.on_day,
    outside.what,
    outside.reason,  -- of a line of the invoice
    split.cost_center,
    case when split.cost_center = 'unallocated' then 'unallocated' else 'shared' end as basis,
    pool.pool,
    pool.driver,
    try_cast(sum(split.units)::double / nullif(sum(split.pot_units), 0)::double as decimal(9, 6)) as share,
    in_usd(sum(split.units)) as amount_usd,
from allocated.pool_part as split
join allocated.pot as pot on pot.pot = split.pot
join allocated.pool as pool on pool.position = pot.position
join outside on outside.line = pot.line
where split.into_position is null
group by outside.line, outside.on_day, outside.what, outside.reason, split.cost_center, pool.pool, pool.driver
order by outside.on_day, outside.what, split.cost_center, pool.pool, amount_usd;

-- What earlier months were corrected by, each for who paid by the rules of that month; who is gone since, is nobody.
create or replace table allocated.correction as
select
    part.period_of_charge, part.day, part.workspace_id, part.model, part.service_tier, part.context_window,
    part.inference_geo, part.speed, part.meter,
    coalesce(center.cost_center, 'unallocated') as cost_center,
    sum(part.amount_usd)::decimal(38, 12) as amount_usd,
from source.restatement_part as part
left join allocated.cost_center as center on center.cost_center = part.cost_center
group by all
order by all;

insert into allocated.other by name
select
    (select (end_on - interval 1 day)::date from source.run) as on_day,
    'Correction of ' || period_of_charge as what,
    cost_center,
    if(cost_center = 'unallocated', 'unallocated', 'direct') as basis,
    sum(amount_usd)::decimal(38, 12) as amount_usd,
from allocated.correction
group by period_of_charge, cost_center
order by period_of_charge, cost_center;

-- What one pool gave another.
create or replace table allocated.passed_on as
select
    pool.pool,
    receiver.pool as into_pool,
    pot.line is not null as outside,
    in_usd(sum(part.units)) as amount_usd,
from allocated.pool_part as part
join allocated.pot as pot on pot.pot = part.pot
join allocated.pool as pool on pool.position = pot.position
join allocated.pool as receiver on receiver.position = part.into_position
group by pool.pool, receiver.pool, pot.line is not null
order by all;

-- The month in sums, by the terms under which it was split: what the next month compares itself with.
-- A route is a rule's or pool's terms; one that depends on more than the workspace is conditional.
create or replace table allocated.spend as
with whole_pool as (
    select distinct pool from allocated.rule where kind = 'pool' and scope = 'any' and not selective
)
select
    part.cost_center,
    part.basis,
    coalesce(rule.route, pool.route, 'none') as route,
    case when rule.by_tag then part.cost_center end as receiver,
    case
        when rule.position is not null then rule.scope <> 'any' or rule.selective
        when pool.position is not null then pool.position not in (select whole_pool.pool from whole_pool)
        else false
    end as conditional,
    part.workspace_id,
    part.model,
    part.service_tier,
    part.meter,
    sum(part.amount_usd)::decimal(38, 12) as amount_usd,
from allocated.part as part
left join allocated.rule as rule on rule.rule = part.rule
left join allocated.pool as pool on pool.pool = part.pool
group by all
order by all;

-- (`none`, of what nothing catches, stands in it always: so the next month knows that there was one before it.)
create or replace table allocated.route as
select 'none' as route
union
select route from allocated.rule where route is not null
union
select route from allocated.pool
order by route;

create or replace table allocated.kind as
select
    workspace_id, model, service_tier, meter,
    sum(reported_quantity)::bigint as quantity,
    coalesce(sum(billed_usd), 0)::decimal(38, 12) as billed_usd,
from matched.cell
where in_period
group by all
order by all;

-- Filled by allocate: cents are made in one place only.
create or replace table allocated.chargeback (
    cost_center varchar,
    name varchar,
    direct_usd decimal(38, 2),
    shared_usd decimal(38, 2),
    total_usd decimal(38, 2),
    other_usd decimal(38, 2),
    payable_usd decimal(38, 2),
);

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

-- A pool takes in charges, lines from outside and what other pools pass on; it gives to cost centers and other pools.
create or replace view checks.pool_gives_other_than_it_takes as
with taken as (
    select position, sum(amount_usd) as amount_usd,
    from (
        select position, amount_usd from allocated.pooled
        union all
        select line.position, line.amount_usd,
        from allocated.pool_line as line
        join source.run as run on line.on_day >= run.start_on and line.on_day < run.end_on
        union all
        select invoice.position, step.amount_usd - step.restated_usd,
        from allocated.pool_invoice as invoice
        join explained.invoice_step as step on step.reason = invoice.reason
    )
    group by position
),
amount as (
    select pool.pool, taken.amount_usd as taken_usd, 0::decimal(38, 12) as given_usd,
    from taken
    join allocated.pool as pool on pool.position = taken.position
    union all
    select into_pool, amount_usd, 0 from allocated.passed_on
    union all
    select pool, 0, amount_usd from allocated.passed_on
    union all
    select pool, 0, amount_usd from allocated.part where pool is not null
    union all
    select pool, 0, amount_usd from allocated.other where pool is not null
)
select pool, sum(taken_usd) as taken_usd, sum(given_usd) as given_usd,
from amount
group by pool
having sum(taken_usd) <> sum(given_usd)
order by all;

create or replace view checks.parts_differ_from_pot as
with amount as (
    select pool.pool, pot.workspace_id, pot.model, pot.meter,
        pot.amount_usd - coalesce(passed.amount_usd, 0) as kept_usd, 0::decimal(38, 12) as allocated_usd,
    from allocated.pot as pot
    join allocated.pool as pool on pool.position = pot.position
    left join (
        select pot, (sum(units)::decimal(38, 0) * 0.000000000001::decimal(12, 12))::decimal(38, 12) as amount_usd,
        from allocated.pool_part
        where into_position is not null
        group by pot
    ) as passed on passed.pot = pot.pot
    where pot.line is null
    union all
    select pool, workspace_id, model, meter, 0, amount_usd from allocated.part where pool is not null
)
select pool, workspace_id, model, meter, sum(kept_usd) as kept_usd, sum(allocated_usd) as allocated_usd,
from amount
group by pool, workspace_id, model, meter
having sum(kept_usd) <> sum(allocated_usd)
order by all;

create or replace view checks.part_with_other_sign as
with charged as (
    select day, workspace_id, model, service_tier, meter, min(billed_usd) as lowest_usd, max(billed_usd) as highest_usd,
    from matched.cell
    where in_period and billed_usd is not null
    group by day, workspace_id, model, service_tier, meter
),
potted as (
    select pool.pool, pot.workspace_id, pot.model, pot.meter,
        min(pot.amount_usd) as lowest_usd, max(pot.amount_usd) as highest_usd,
    from allocated.pot as pot
    join allocated.pool as pool on pool.position = pot.position
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
    select part.*, potted.lowest_usd, potted.highest_usd,
    from allocated.part as part
    join potted
        on potted.pool = part.pool
        and potted.workspace_id is not distinct from part.workspace_id
        and potted.model is not distinct from part.model
        and potted.meter = part.meter
    where part.day is null
)
select * from bounded
where (amount_usd < 0 and lowest_usd >= 0) or (amount_usd > 0 and highest_usd <= 0)
order by all;

create or replace view checks.receiver_is_no_cost_center as
select cost_center, sum(amount_usd) as amount_usd,
from (
    select cost_center, amount_usd from allocated.part
    union all
    select cost_center, amount_usd from allocated.other
)
where cost_center <> 'unallocated'
    and cost_center not in (select center.cost_center from allocated.cost_center as center)
group by cost_center
order by all;

create or replace view checks.basis_differs_from_receiver as
select * from allocated.part
where (basis = 'unallocated') <> (cost_center = 'unallocated')
    or (basis = 'shared' and pool is null)
    or (basis in ('direct', 'key', 'label') and rule is null)
    or (basis = 'key' and api_key_id is null)
    or (basis in ('direct', 'shared') and api_key_id is not null)
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
        0::decimal(38, 12) as other_usd,
    from allocated.part
    group by cost_center
    union all
    select cost_center, 0, 0, sum(amount_usd) from allocated.other group by cost_center
),
summed as (
    select cost_center, sum(direct_usd) as direct_usd, sum(shared_usd) as shared_usd, sum(other_usd) as other_usd,
    from part
    group by cost_center
)
select
    coalesce(chargeback.cost_center, summed.cost_center) as cost_center,
    summed.direct_usd as direct_part_usd, chargeback.direct_usd,
    summed.shared_usd as shared_part_usd, chargeback.shared_usd,
    summed.other_usd as other_part_usd, chargeback.other_usd,
    chargeback.total_usd,
from allocated.chargeback as chargeback
full join summed on summed.cost_center = chargeback.cost_center
where chargeback.cost_center is null
    or abs(coalesce(summed.direct_usd, 0) - chargeback.direct_usd) >= 0.01
    or abs(coalesce(summed.shared_usd, 0) - chargeback.shared_usd) >= 0.01
    or abs(coalesce(summed.other_usd, 0) - chargeback.other_usd) >= 0.02
    or chargeback.direct_usd + chargeback.shared_usd <> chargeback.total_usd
    or chargeback.total_usd + chargeback.other_usd <> chargeback.payable_usd
order by all;

create or replace view checks.corrections_differ_from_restatement as
select restated.amount_usd as restated_usd, corrected.amount_usd as corrected_usd,
from (select coalesce(sum(amount_usd), 0) as amount_usd from source.restatement) as restated
cross join (select coalesce(sum(amount_usd), 0) as amount_usd from allocated.correction) as corrected
where restated.amount_usd <> corrected.amount_usd;

create or replace view checks.cost_center_without_chargeback as
select center.cost_center,
from allocated.cost_center as center
where center.cost_center not in (select chargeback.cost_center from allocated.chargeback as chargeback)
order by all;

-- Who used what adds up to what was reported, but for what went into pools.
create or replace view checks.used_more_than_reported as
with reported as (
    select day, workspace_id, model, service_tier, meter, sum(reported_quantity) as quantity,
    from matched.cell
    where in_period
    group by all
),
used as (
    select day, workspace_id, model, service_tier, meter, sum(quantity) as quantity,
    from allocated.use
    group by all
)
select used.*, reported.quantity as reported_quantity,
from used
left join reported
    on reported.day = used.day
    and reported.workspace_id is not distinct from used.workspace_id
    and reported.model is not distinct from used.model
    and reported.service_tier is not distinct from used.service_tier
    and reported.meter = used.meter
where used.quantity > coalesce(reported.quantity, 0)
order by all;
