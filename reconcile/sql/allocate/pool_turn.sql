-- Split the pools whose turn it is: those that every pool before them has already fed.
-- Grain: a pot is one sum of a pool (span, outside line, workspace_id, model, meter); a pool_part a (pot, receiver).
-- Reads: allocated.turn (positions), allocated.pooled, outside, allocated.pool, pool_receiver, pool_share, span, and the parts of
--   earlier turns that go into these pools. Writes: adds to allocated.pot and pool_part.

insert into allocated.pot
with fed as (
    select pooled.position, pooled.span, null::bigint as line, pooled.workspace_id, pooled.model, pooled.meter,
        pooled.amount_usd,
    from allocated.pooled as pooled
    join allocated.turn as turn on turn.position = pooled.position
    union all
    select outside.position, outside.span, outside.line, null, null, null, outside.amount_usd,
    from outside
    join allocated.turn as turn on turn.position = outside.position
    union all
    select part.into_position, pot.span, pot.line, pot.workspace_id, pot.model, pot.meter, in_usd(part.units),
    from allocated.pool_part as part
    join allocated.turn as turn on turn.position = part.into_position
    join allocated.pot as pot on pot.pot = part.pot
),
summed as (
    select position, span, line, workspace_id, model, meter, sum(amount_usd) as amount_usd,
    from fed
    group by all
)
select
    (select count(*) from allocated.pot) + row_number() over (),
    position, span, line, workspace_id, model, meter, amount_usd,
from summed;

create or replace temp table pot_split as
with pot as (
    select pot.* from allocated.pot as pot join allocated.turn as turn on turn.position = pot.position
),
weight as (
    select pot.pot, share.receiver, share.into_position, share.weight,
    from pot
    join allocated.span as span on span.span = pot.span
    join allocated.pool_share as share
        on share.position = pot.position and holds(span.from_on, share.from_on, share.until_on)
    where share.weight > 0
    union all
    select pot.pot, direct.cost_center, null, direct.weight,
    from pot
    join allocated.pool as pool on pool.position = pot.position
    join direct_weight as direct on direct.split = pool.split
    join allocated.pool_receiver as taking
        on taking.position = pot.position and taking.cost_center = direct.cost_center
    where direct.weight > 0
)
select
    pot.pot as whole,
    case when pot.amount_usd < 0 then -1 else 1 end as sign,
    abs(in_units(pot.amount_usd)) as units,
    0::hugeint as quantity,
    'pool' as kind,
    coalesce(weight.receiver, 'unallocated') as name,
    weight.into_position,
    coalesce(weight.weight, 1::hugeint) as weight,
    abs(in_units(pot.amount_usd)) as pot_units,
from pot
left join weight on weight.pot = pot.pot;

insert into allocated.pool_part
select whole, name, into_position, sign * units, sign * pot_units,
from apportioned(pot_split)
where units <> 0;
