-- What the workbook's sheets hold, where a report view has more rows than a sheet reads well with.
-- Grain: sheet_allocation a (cost center, workspace, model, meter, basis, rule, pool, driver);
--   sheet_cell_sum a (workspace, model, service_tier, meter), for months with too many cells.
-- Reads: report.allocation, cell, chargeback; source.workspace. Writes: temp views.

create or replace temp view sheet_allocation as
with part as (
    select
        coalesce(cost_center, 'unallocated') as cost_center, workspace_id, model, meter, basis, rule, pool, driver,
        count(*)::bigint as parts,
        sum(amount_usd)::decimal(38, 12) as amount_usd,
    from report.allocation
    group by all
)
select
    part.cost_center,
    chargeback.name,
    coalesce(workspace.name, part.workspace_id) as workspace,
    part.model,
    part.meter,
    part.basis,
    coalesce(part.pool, part.rule) as rule,
    part.driver,
    part.parts,
    part.amount_usd,
from part
left join report.chargeback as chargeback on chargeback.cost_center = part.cost_center
left join source.workspace as workspace on workspace.workspace_id = part.workspace_id
order by
    part.cost_center = 'unallocated', part.cost_center, part.amount_usd desc, part.workspace_id, part.model, part.meter,
    part.basis, part.rule, part.pool, part.driver;

create or replace temp view sheet_cell_sum as
select
    coalesce(workspace_name, workspace_id) as workspace,
    model,
    service_tier,
    meter,
    count(*)::bigint as cells,
    sum(recorded_quantity)::bigint as recorded_quantity,
    sum(reported_quantity)::bigint as reported_quantity,
    coalesce(sum(recorded_usd), 0)::decimal(38, 12) as recorded_usd,
    coalesce(sum(reported_usd), 0)::decimal(38, 12) as reported_usd,
    coalesce(sum(billed_usd), 0)::decimal(38, 12) as billed_usd,
    sum(quantity_variance_usd)::decimal(38, 12) as quantity_variance_usd,
    sum(price_variance_usd)::decimal(38, 12) as price_variance_usd,
    sum(difference_usd)::decimal(38, 12) as difference_usd,
from report.cell
group by all
order by workspace, model, service_tier, meter;
