-- Cut every charge of the period into slices, each caught by one rule: what is not used through a key is one slice.
-- Grain: charge is a billed or used cell (its residual apart where a rule asks for it); slice a (charge, API key).
-- Reads: matched.cell, usage, recorded, price, explained.part, and the config as allocate wrote it:
--   allocated.rule, rule_workspace, rule_charge, rule_key, pool_share.
-- Writes: allocated.span, and for the scripts that follow the temporary tables charge, claim, recorded_key, slice.
-- Inside, money is a count of units of 1e-12 USD (HUGEINT), its sign apart: `//` and `%` are exact on those.

create or replace temp macro holds(day, from_on, until_on) as
    (from_on is null or day >= from_on) and (until_on is null or day < until_on);

create or replace temp macro in_units(usd) as
    (usd * 1000000000000::decimal(13, 0))::hugeint;

create or replace temp macro in_usd(units) as
    (units::decimal(38, 0) * 0.000000000001::decimal(12, 12))::decimal(38, 12);

-- total * weight // weights and its remainder. The product would not fit 128 bits, so the weight is multiplied in two
-- limbs of twelve digits, each of which does: exact for weights that add up to less than 1e24, and totals below that.
-- (DuckDB raises on an overflow, it never wraps.)
create or replace temp macro high_limb(total, weight, weights) as
    (total % weights) * (weight // 1000000000000);
create or replace temp macro low_limb(total, weight, weights) as
    (high_limb(total, weight, weights) % weights) * 1000000000000 + (total % weights) * (weight % 1000000000000);
create or replace temp macro quota(total, weight, weights) as
    total // weights * weight + high_limb(total, weight, weights) // weights * 1000000000000
    + low_limb(total, weight, weights) // weights;

-- Split `units` and `quantity` of each whole by `weight`, largest remainder first, ties by name.
create or replace temp macro apportioned(split) as table
with weighed as (
    select *, sum(weight) over (partition by whole)::hugeint as weights from query_table(split)
),
shared as (
    select
        *,
        quota(units, weight, weights) as unit_quota,
        quota(quantity, weight, weights) as quantity_quota,
        low_limb(units, weight, weights) % weights as unit_remainder,
        low_limb(quantity, weight, weights) % weights as quantity_remainder,
    from weighed
),
ranked as (
    select
        *,
        units - sum(unit_quota) over (partition by whole) as units_left,
        quantity - sum(quantity_quota) over (partition by whole) as quantity_left,
        row_number() over (partition by whole order by unit_remainder desc, name nulls last, kind) as unit_place,
        row_number() over (partition by whole order by quantity_remainder desc, name nulls last, kind) as quantity_place,
    from shared
)
select
    * exclude (weights, unit_quota, quantity_quota, unit_remainder, quantity_remainder, units_left, quantity_left,
        unit_place, quantity_place)
    replace (
        unit_quota + (unit_place <= units_left)::hugeint as units,
        quantity_quota + (quantity_place <= quantity_left)::hugeint as quantity
    ),
from ranked;

-- Charges -----------------------------------------------------------------------------------------------------------

-- The days between two on which a rule or a driver's weight begins or ends.
create or replace table allocated.span as
with edge as (
    select from_on as on_day from allocated.rule
    union
    select until_on from allocated.rule
    union
    select from_on from allocated.pool_share
    union
    select until_on from allocated.pool_share
    union
    select start_on from source.run
)
select
    row_number() over (order by edge.on_day) as span,
    edge.on_day as from_on,
    coalesce(lead(edge.on_day) over (order by edge.on_day), run.end_on) as until_on,
from edge
join source.run as run on edge.on_day >= run.start_on and edge.on_day < run.end_on;

create or replace temp table charge as
with cell as (
    select
        row_number() over () as cell,
        day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter,
        billed_usd is not null as billed,
        abs(in_units(coalesce(billed_usd, 0))) as units,
        case when billed_usd < 0 then -1 else 1 end as sign,
        recorded_quantity, reported_quantity, recorded_usd, reported_usd,
    from matched.cell
    where in_period and (billed_usd is not null or reported_quantity > 0)
),
unexplained as (
    select
        part.day, part.workspace_id, part.model, part.service_tier, part.context_window, part.inference_geo, part.speed,
        part.meter,
        in_units(sum(part.amount_usd)) as units,
    from explained.part as part
    join explained.finding as finding on finding.id = part.finding_id
    where finding.reason = 'residual' and exists (select 1 from allocated.rule as rule where rule.scope = 'residual')
    group by all
),
residue as (  -- no more than the charge, and only in its direction: a share never has another sign
    select cell.cell, least(abs(unexplained.units), cell.units) as units,
    from cell
    join unexplained
        on unexplained.day = cell.day
        and unexplained.workspace_id is not distinct from cell.workspace_id
        and unexplained.model is not distinct from cell.model
        and unexplained.service_tier is not distinct from cell.service_tier
        and unexplained.context_window is not distinct from cell.context_window
        and unexplained.inference_geo is not distinct from cell.inference_geo
        and unexplained.speed is not distinct from cell.speed
        and unexplained.meter = cell.meter
    where unexplained.units * cell.sign > 0
),
part as (
    select cell.* replace (cell.units - coalesce(residue.units, 0) as units), false as residual,
    from cell
    left join residue on residue.cell = cell.cell
    union all
    select cell.* replace (residue.units as units), true,
    from cell
    join residue on residue.cell = cell.cell
),
spot as (  -- what rules are told apart by, but for days
    select row_number() over () as spot, *,
    from (select distinct workspace_id, model, service_tier, meter, residual from part)
)
select row_number() over () as charge, part.*, spot.spot, span.span,
from part
join spot
    on spot.workspace_id is not distinct from part.workspace_id
    and spot.model is not distinct from part.model
    and spot.service_tier is not distinct from part.service_tier
    and spot.meter = part.meter
    and spot.residual = part.residual
join allocated.span as span on part.day >= span.from_on and part.day < span.until_on;

-- Which rule catches what -------------------------------------------------------------------------------------------

create or replace temp table place as
select distinct spot, span, workspace_id, model, service_tier, meter, residual from charge;

create or replace temp table candidate as
with near as (
    select place.*, rule.position, rule.scope, rule.selective,
    from place
    join allocated.rule_workspace as reach on reach.workspace_id = place.workspace_id
    join allocated.rule as rule on rule.position = reach.position
    join allocated.span as span on span.span = place.span
    where holds(span.from_on, rule.from_on, rule.until_on)
        and (rule.scope = 'any' or place.residual = (rule.scope = 'residual'))
)
select spot, span, position, scope from near where not selective
union all
select near.spot, near.span, near.position, near.scope,
from near
join allocated.rule_charge as meant
    on meant.position = near.position
    and meant.model is not distinct from near.model
    and meant.service_tier is not distinct from near.service_tier
    and meant.meter = near.meter
where near.selective;

create or replace temp table catch as  -- takes whatever reaches it, so the first one is the last word on a place
select spot, span, min(position) as rule,
from candidate
where scope in ('any', 'residual')
group by spot, span;

create or replace temp table claim as  -- the first rule for a key, where no rule before it catches the whole place
with used as (
    select distinct place.spot, place.span, usage.api_key_id,
    from matched.usage as usage
    join allocated.span as span on usage.day >= span.from_on and usage.day < span.until_on
    join place
        on place.span = span.span
        and place.workspace_id = usage.workspace_id
        and place.model is not distinct from usage.model
        and place.service_tier is not distinct from usage.service_tier
        and place.meter = usage.meter
    where usage.in_period and usage.reported_quantity > 0 and not place.residual
)
select used.spot, used.span, used.api_key_id, min(candidate.position) as rule,
from used
join candidate on candidate.spot = used.spot and candidate.span = used.span
left join allocated.rule_key as named
    on named.position = candidate.position and named.api_key_id = used.api_key_id
left join catch on catch.spot = used.spot and catch.span = used.span
where (
        (candidate.scope = 'key' and named.api_key_id is not null)
        or (candidate.scope = 'no_key' and used.api_key_id is null)
    )
    and (catch.rule is null or candidate.position < catch.rule)
group by used.spot, used.span, used.api_key_id;

-- Slices: the reported quantity of each claimed key in the very cell, and the rest of it ----------------------------

create or replace temp table key_split as
with share as (
    select
        charge.charge,
        case when claim.rule is null then 'rest' when usage.api_key_id is null then 'no_key' else 'key' end as kind,
        coalesce(claim.rule, catch.rule) as rule,
        case when claim.rule is not null then usage.api_key_id end as name,
        charge.units,
        coalesce(charge.reported_quantity, 0)::hugeint as quantity,
        sum(usage.reported_quantity)::hugeint as weight,
        sum(usage.reported_usd) as reported_usd,
    from charge
    join (select distinct spot, span from claim) as claimed
        on claimed.spot = charge.spot and claimed.span = charge.span
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
        on claim.spot = charge.spot
        and claim.span = charge.span
        and claim.api_key_id is not distinct from usage.api_key_id
    left join catch on catch.spot = charge.spot and catch.span = charge.span
    where usage.in_period and usage.reported_quantity > 0
    group by all
)
select *, charge as whole,
from share
qualify count(*) filter (kind <> 'rest') over (partition by charge) > 0;

-- What was recorded by whom: the requests of every answer stand at its output.
create or replace temp table recorded_key as
with summed as (
    select
        day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, log, api_key_id, over_step,
        sum(quantity)::bigint as quantity,
        sum(requests)::bigint as requests,
    from matched.recorded
    where in_period
    group by all
)
select
    summed.* exclude (over_step, quantity, requests),
    sum(summed.quantity)::hugeint as quantity,
    sum(summed.requests)::hugeint as requests,
    sum(
        summed.quantity
        * case when summed.over_step then coalesce(price.price_high_usd, price.price_usd) else price.price_usd end
        * case when price.price_unit = 'search' then 1::decimal(7, 6) else 0.000001::decimal(7, 6) end
    )::decimal(38, 12) as usd,
from summed
left join matched.price as price
    on price.day = summed.day
    and price.meter = summed.meter
    and price.model is not distinct from summed.model
    and price.service_tier is not distinct from summed.service_tier
    and price.context_window is not distinct from summed.context_window
    and price.inference_geo is not distinct from summed.inference_geo
    and price.speed is not distinct from summed.speed
group by all;

-- Recorded use as it belongs to slices: (charge, kind, key) with everything that a rule may split by.
create or replace temp table recorded_use as
select
    charge.charge,
    case
        when keyed.charge is null then 'whole'
        when claim.rule is not null then 'key'
        else 'rest'
    end as kind,
    case when claim.rule is not null then recorded.api_key_id end as name,
    recorded.log,
    recorded.api_key_id,
    recorded.quantity,
    recorded.requests,
    recorded.usd,
from charge
join recorded_key as recorded
    on recorded.day = charge.day
    and recorded.workspace_id = charge.workspace_id
    and recorded.meter = charge.meter
    and recorded.model is not distinct from charge.model
    and recorded.service_tier is not distinct from charge.service_tier
    and recorded.context_window is not distinct from charge.context_window
    and recorded.inference_geo is not distinct from charge.inference_geo
    and recorded.speed is not distinct from charge.speed
left join (select distinct charge from key_split) as keyed on keyed.charge = charge.charge
left join claim
    on keyed.charge is not null
    and claim.spot = charge.spot
    and claim.span = charge.span
    and claim.api_key_id = recorded.api_key_id
where not charge.residual;

create or replace temp table slice as
with cut as (
    select charge, kind, rule, name, units, quantity, reported_usd from apportioned(key_split)
    union all
    select
        charge.charge, 'whole', catch.rule, null, charge.units,
        case when charge.residual then 0 else coalesce(charge.reported_quantity, 0) end::hugeint,
        charge.reported_usd,
    from charge
    left join catch on catch.spot = charge.spot and catch.span = charge.span
    where charge.charge not in (select key_split.charge from key_split)
),
recorded as (
    select charge, kind, name, sum(quantity) as quantity, sum(usd) as usd, sum(requests) as requests,
    from recorded_use
    group by all
)
select
    row_number() over () as slice,
    cut.*,
    charge.residual,
    case when cut.kind = 'whole' then charge.recorded_quantity else recorded.quantity end as recorded_quantity,
    case when cut.kind = 'whole' then charge.recorded_usd else recorded.usd end as recorded_usd,
    case when charge.meter = 'output_tokens' and not charge.residual then coalesce(recorded.requests, 0) else 0 end
        as requests,
from cut
join charge on charge.charge = cut.charge
left join recorded
    on recorded.charge = cut.charge and recorded.kind = cut.kind and recorded.name is not distinct from cut.name;
