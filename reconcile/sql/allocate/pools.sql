-- What pools are split by, before the first of them is: the direct use of each cost center.
-- Grain: direct_weight is a (split, cost center); outside a line from outside the cost report.
-- Reads: what portion.sql left, allocated.pool, pool_line, pool_invoice, explained.invoice_step.
-- Writes: the temporary tables direct_weight and outside; allocated.pot and pool_part, empty.

create or replace temp table direct_weight as
with used as (
    select
        portion.cost_center,
        sum(charge.sign * portion.units) as units,
        sum(portion.quantity) filter (charge.model is not null) as quantity,
        sum(portion.requests) as requests,
    from portion
    join charge on charge.charge = portion.charge
    where portion.basis <> 'unallocated'
    group by portion.cost_center
)
select 'proportional' as split, cost_center, units as weight from used
union all
select 'quantity', cost_center, quantity from used
union all
select 'requests', cost_center, requests from used;

-- Dated lines of the period, and the invoice's: what stands in the bridge after billed.
create or replace temp table outside as
with listed as (
    select line.position, line.on_day, line.what, null as reason, line.amount_usd,
    from allocated.pool_line as line
    join source.run as run on line.on_day >= run.start_on and line.on_day < run.end_on
    union all
    select invoice.position, (run.end_on - interval 1 day)::date, step.title, step.reason,
        step.amount_usd - step.restated_usd,
    from allocated.pool_invoice as invoice
    join explained.invoice_step as step on step.reason = invoice.reason
    join source.run as run on true
    where step.amount_usd <> step.restated_usd  -- what was restated has its payers already
)
select
    row_number() over (order by position, on_day, what, amount_usd) as line,
    listed.*,
    (select span.span from allocated.span where listed.on_day >= span.from_on and listed.on_day < span.until_on) as span,
from listed;

create or replace table allocated.pot (
    pot bigint,
    position int,
    span bigint,
    line bigint,
    workspace_id varchar,
    model varchar,
    meter varchar,
    amount_usd decimal(38, 12),
);

create or replace table allocated.pool_part (
    pot bigint,
    cost_center varchar,
    into_position int,
    units hugeint,
    pot_units hugeint,
);
