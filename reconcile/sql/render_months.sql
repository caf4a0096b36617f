-- Set the earlier months' chargeback beside this one. Runs only where the period took any from earlier ones.
-- Grain: one row a cost center and month. Reads: source.run, source.earlier_chargeback
-- (period, revision, cost_center, name, total_usd), allocated. Writes: report.month_over_month.

create or replace view report.month_over_month as
with months as (
    select period, revision, cost_center, name, total_usd
    from source.earlier_chargeback
    union all
    select run.period, run.revision, chargeback.cost_center, chargeback.name, chargeback.total_usd
    from source.run, allocated.chargeback
)
select
    cost_center,
    period,
    revision::integer as revision,
    name,
    total_usd::decimal(38, 2) as total_usd,
    (total_usd - lag(total_usd) over (partition by cost_center order by period))::decimal(38, 2) as change_usd
from months
order by cost_center, period;
