-- Publish what people read: the public views of docs/design, the further views of the pages, the controls over both.
-- Reads: source, matched, explained, allocated; the period's days only. Writes: views in report and checks.
--
-- Public (grain): summary (one row), cell (a cell), usage (a cell and API key), bridge (a total or step),
--   discrepancy (a finding), allocation (a part), chargeback (a cost center, and `unallocated`).
--   rollforward (a discrepancy that was open or is), restatement (a cell of an earlier month that was corrected after it was closed), restatement_part (such a cell and a
--   cost center). What they amount to is beside billed, never inside.
-- For the pages (grain):
--   run                  one row: the run's parameters, whether the month is complete, what the result rests on
--   verdict              one row: what the discrepancies add up to, and what of the explained is only located
--   finding              a finding, with names, a state (discrepancy | accepted | expected | tolerated), and
--                        misplaced_usd: what it moved where that is more than what it amounts to
--   restated             (month of the charge, workspace, model): the same in sums
--   finding_state        one of those states: its findings and what they sum to
--   daily, by_workspace, by_model, by_tier, by_meter   a day; a value of that dimension
--   price_variance       (model, service_tier, meter) where billed differs from reported quantity x price book
--   allocation_rule      (cost center, basis, rule, pool, driver, label): what it sent there, and what it says in words
--   flow                 (workspace, cost center, basis): the bill as a picture
--   pool                 a pool: what it took, passed on and gave, its driver, how many share it
--   other                (line from outside the cost report, cost center)
--   unallocated          one row: what has no cost center, and whether that is beyond its tolerance
--   use, unit_cost       what each cost center used itself, by cell without window, region and speed; what that comes to
--   movement, budget     a cost center: why it pays another amount than the month before; against its budget
--   statement            (cost center, dimension, item): what a cost center pays, seen by that dimension
--   statement_line       (cost center, day, workspace, model, tier, meter, API key, label, why): its statement in full
--   source, page, rejected, default_used, price_used   what the figures were made from
--   month_over_month     (cost center, month) where the period took earlier ones, else no row
--   warning              a warning, and what it is about (allocation | accepted)
--   reason               a code of the closed list with its words
--   accepted             (finding, entry of the config): who signed for it, and whether that holds
--   curve                (finding, hour of the day): a shifted log beside what was reported
--   exchange             (finding, value): where a confusion took quantities from, and where they are reported
-- Amounts are decimal(38, 12) USD. Ratios are DOUBLE, for display only. Every view has a total order.

create or replace view report.run as
select
    run.period,
    run.start_on,
    (run.end_on - interval 1 day)::date as last_on,
    run.through_on,
    run.through_on < (run.end_on - interval 1 day)::date as provisional,
    run.organization,
    run.organization_id,
    run.revision,
    run.package_version,
    run.input_digest,
    run.tolerance_usd,
    run.tolerance_percent,
    run.amounts,
    run.arrangement,
    run.data_refreshed_at,
    (select count(*) from source.log)::bigint as logs,
    (select coalesce(sum(requests), 0) from source.log)::bigint as requests,
    (select count(*) from source.page)::bigint as pages,
    (select count(*) from matched.cell where in_period)::bigint as cells,
    (select count(distinct coalesce(workspace_id, '')) from matched.cell where in_period)::bigint as workspaces,
    (select count(*) from source.rejected)::bigint as rejected
from source.run;

create or replace view report.cell as
select
    cell.day,
    cell.workspace_id,
    workspace.name as workspace_name,
    cell.model,
    cell.service_tier,
    cell.context_window,
    cell.inference_geo,
    cell.speed,
    cell.meter,
    cell.recorded_quantity::bigint as recorded_quantity,
    cell.reported_quantity::bigint as reported_quantity,
    cell.price_unit,
    cell.list_price_usd::decimal(38, 12) as list_price_usd,
    cell.price_usd::decimal(38, 12) as price_usd,
    cell.price_high_usd::decimal(38, 12) as price_high_usd,
    cell.recorded_usd::decimal(38, 12) as recorded_usd,
    cell.reported_usd::decimal(38, 12) as reported_usd,
    cell.billed_usd::decimal(38, 12) as billed_usd,
    cell.quantity_variance_usd::decimal(38, 12) as quantity_variance_usd,
    cell.price_variance_usd::decimal(38, 12) as price_variance_usd,
    cell.difference_usd::decimal(38, 12) as difference_usd,
    cell_status.status
from matched.cell
left join source.workspace on workspace.workspace_id = cell.workspace_id
left join explained.cell_status
    on cell_status.day = cell.day
    and cell_status.meter = cell.meter
    and cell_status.workspace_id is not distinct from cell.workspace_id
    and cell_status.model is not distinct from cell.model
    and cell_status.service_tier is not distinct from cell.service_tier
    and cell_status.context_window is not distinct from cell.context_window
    and cell_status.inference_geo is not distinct from cell.inference_geo
    and cell_status.speed is not distinct from cell.speed
where cell.in_period
order by
    cell.day, cell.workspace_id, cell.model, cell.service_tier, cell.context_window, cell.inference_geo, cell.speed,
    cell.meter;

create or replace view report.usage as
select
    day,
    workspace_id,
    model,
    service_tier,
    context_window,
    inference_geo,
    speed,
    meter,
    api_key_id,
    reported_quantity::bigint as reported_quantity,
    reported_usd::decimal(38, 12) as reported_usd
from matched.usage
where in_period
order by
    day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, api_key_id,
    reported_quantity, reported_usd;

create or replace view report.bridge as
select
    position::integer as position,
    kind,
    reason,
    title,
    quantity::bigint as quantity,
    amount_usd::decimal(38, 12) as amount_usd,
    running_usd::decimal(38, 12) as running_usd
from explained.bridge
order by position;

create or replace view report.discrepancy as
select
    id,
    reason,
    confidence,
    day_from,
    day_to,
    log,
    workspace_id,
    model,
    service_tier,
    meter,
    api_key_id,
    quantity::bigint as quantity,
    amount_usd::decimal(38, 12) as amount_usd,
    moved_usd::decimal(38, 12) as moved_usd,
    beyond_tolerance,
    accepted,
    evidence
from explained.finding
order by moved_usd desc, id;

create or replace view report.allocation as
select
    day,
    workspace_id,
    model,
    service_tier,
    meter,
    api_key_id,
    label,
    cost_center,
    basis,
    rule,
    pool,
    driver,
    share,
    amount_usd::decimal(38, 12) as amount_usd
from allocated.part
order by
    day, workspace_id, model, service_tier, meter, api_key_id, label, cost_center, basis, rule, pool, driver, share,
    amount_usd;

create or replace view report.chargeback as
select
    cost_center,
    name,
    direct_usd::decimal(38, 2) as direct_usd,
    shared_usd::decimal(38, 2) as shared_usd,
    total_usd::decimal(38, 2) as total_usd,
    other_usd::decimal(38, 2) as other_usd,
    payable_usd::decimal(38, 2) as payable_usd
from allocated.chargeback
order by cost_center = 'unallocated', payable_usd desc, cost_center;

create or replace view report.restatement as
select
    period_of_charge,
    day,
    workspace_id,
    model,
    service_tier,
    context_window,
    inference_geo,
    speed,
    meter,
    before_usd::decimal(38, 12) as before_usd,
    after_usd::decimal(38, 12) as after_usd,
    amount_usd::decimal(38, 12) as amount_usd
from source.restatement
order by
    period_of_charge, day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter;

-- The same by month, workspace and model, for the page.
create or replace view report.restated as
select
    restatement.period_of_charge,
    restatement.workspace_id,
    workspace.name as workspace_name,
    restatement.model,
    min(restatement.day) as day_from,
    max(restatement.day) as day_to,
    count(*)::bigint as charges,
    sum(restatement.amount_usd)::decimal(38, 12) as amount_usd
from source.restatement as restatement
left join source.workspace as workspace on workspace.workspace_id = restatement.workspace_id
group by restatement.period_of_charge, restatement.workspace_id, workspace.name, restatement.model
order by
    restatement.period_of_charge, abs(sum(restatement.amount_usd)) desc, restatement.workspace_id, restatement.model;

create or replace view report.restatement_part as
select
    period_of_charge,
    day,
    workspace_id,
    model,
    service_tier,
    context_window,
    inference_geo,
    speed,
    meter,
    cost_center,
    amount_usd::decimal(38, 12) as amount_usd
from allocated.correction
order by
    period_of_charge, day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, cost_center;

-- Charges that no log can hold, and rounding, are never discrepancies, however large.
create or replace view report.finding as
select
    finding.id,
    case
        when finding.reason in ('code_execution', 'session_usage', 'rounding') then 'expected'
        when not finding.beyond_tolerance then 'tolerated'
        when finding.accepted then 'accepted'
        else 'discrepancy'
    end as state,
    finding.reason,
    reason.title,
    finding.confidence,
    finding.day_from,
    finding.day_to,
    finding.log,
    finding.workspace_id,
    workspace.name as workspace_name,
    finding.model,
    finding.service_tier,
    finding.meter,
    finding.api_key_id,
    api_key.name as api_key_name,
    finding.quantity::bigint as quantity,
    finding.amount_usd::decimal(38, 12) as amount_usd,
    finding.moved_usd::decimal(38, 12) as moved_usd,
    case
        when finding.moved_usd > abs(finding.amount_usd) then finding.moved_usd
    end::decimal(38, 12) as misplaced_usd,
    finding.accepted,
    finding.evidence
from explained.finding
left join explained.reason on reason.reason = finding.reason
left join source.workspace on workspace.workspace_id = finding.workspace_id
left join source.api_key on api_key.api_key_id = finding.api_key_id
order by moved_usd desc, id;

create or replace view report.summary as
with cells as (
    select
        coalesce(sum(recorded_usd), 0) as recorded_usd,
        coalesce(sum(reported_usd), 0) as reported_usd,
        coalesce(sum(billed_usd), 0) as billed_usd,
        coalesce(sum(difference_usd), 0) as difference_usd
    from matched.cell
    where in_period
),
steps as (
    select
        coalesce(max(running_usd) filter (where kind = 'total' and reason = 'logged'), 0) as logged_usd,
        coalesce(
            sum(amount_usd) filter (where kind = 'step' and reason in ('duplicate', 'stream_sum', 'app_price')), 0
        ) as cleaning_usd,
        coalesce(sum(amount_usd) filter (
            where kind = 'step' and reason = 'residual'
            and position < (select position from explained.bridge where kind = 'total' and reason = 'billed')
        ), 0) as residual_usd
    from explained.bridge
),
discrepancies as (
    select count(*)::bigint as discrepancy_count
    from report.finding
    where state = 'discrepancy'
)
select
    run.period,
    run.organization,
    run.revision,
    steps.logged_usd::decimal(38, 12) as logged_usd,
    steps.cleaning_usd::decimal(38, 12) as cleaning_usd,
    cells.recorded_usd::decimal(38, 12) as recorded_usd,
    cells.reported_usd::decimal(38, 12) as reported_usd,
    cells.billed_usd::decimal(38, 12) as billed_usd,
    cells.difference_usd::decimal(38, 12) as difference_usd,
    (cells.difference_usd - steps.residual_usd)::decimal(38, 12) as explained_usd,
    steps.residual_usd::decimal(38, 12) as residual_usd,
    case when cells.reported_usd <> 0 then cells.recorded_usd::double / cells.reported_usd::double end as capture_rate,
    discrepancies.discrepancy_count,
    discrepancies.discrepancy_count > 0 as beyond_tolerance,
    run.through_on,
    run.data_refreshed_at,
    run.input_digest
from source.run, cells, steps, discrepancies;

create or replace view report.verdict as
select
    coalesce(sum(moved_usd) filter (where state = 'discrepancy'), 0)::decimal(38, 12) as discrepancy_usd,
    coalesce(sum(amount_usd) filter (where reason = 'unlogged'), 0)::decimal(38, 12) as unlogged_usd,
    coalesce(sum(amount_usd) filter (where reason = 'unreported'), 0)::decimal(38, 12) as unreported_usd,
    coalesce(sum(amount_usd), 0)::decimal(38, 12) as findings_usd,
    count(*)::bigint as findings,
    (
        select case when billed_usd <> 0 then abs(difference_usd)::double / billed_usd::double end from report.summary
    ) as difference_share,
    (
        select coalesce(sum(total_usd), 0) from report.chargeback where cost_center = 'unallocated'
    )::decimal(38, 2) as unallocated_usd,
    (select coalesce(sum(total_usd), 0) from report.chargeback)::decimal(38, 2) as charged_usd,
    (select coalesce(sum(other_usd), 0) from report.chargeback)::decimal(38, 2) as other_usd,
    (
        select max(running_usd) from report.bridge where kind = 'total' and reason = 'invoiced'
    )::decimal(38, 12) as invoiced_usd
from report.finding;

-- Open discrepancies from month to month, by their stable id, in what each has in question (`moved_usd`).
-- opening + new - cleared - accepted = closing. A cause that is there again has its size of this month: what it grew by is
-- new, what it shrank by is cleared. The closing column adds up to what the first page has in question.
create or replace view report.rollforward as
with found as (
    select * from report.finding where state in ('discrepancy', 'accepted')
),
side as (
    select
        coalesce(found.id, opening.id) as id,
        coalesce(found.reason, opening.reason) as reason,
        coalesce(found.log, opening.log) as log,
        coalesce(found.workspace_id, opening.workspace_id) as workspace_id,
        coalesce(found.workspace_name, opening.workspace_name) as workspace_name,
        coalesce(found.model, opening.model) as model,
        coalesce(found.service_tier, opening.service_tier) as service_tier,
        coalesce(found.meter, opening.meter) as meter,
        coalesce(found.api_key_id, opening.api_key_id) as api_key_id,
        coalesce(found.api_key_name, opening.api_key_name) as api_key_name,
        coalesce(opening.opened_in, run.period) as opened_in,
        coalesce(opening.closing_usd, 0) as opening_usd,
        coalesce(found.moved_usd, 0) as found_usd,
        coalesce(found.state = 'accepted', false) as accepted,
        date_diff('month', (coalesce(opening.opened_in, run.period) || '-01')::date, run.start_on) + 1 as age_months,
    from found
    full join source.earlier_open as opening on opening.id = found.id
    cross join source.run as run
)
select
    side.id,
    side.reason,
    reason.title,
    side.log,
    side.workspace_id,
    side.workspace_name,
    side.model,
    side.service_tier,
    side.meter,
    side.api_key_id,
    side.api_key_name,
    side.opened_in,
    side.age_months::integer as age_months,
    side.opening_usd::decimal(38, 12) as opening_usd,
    greatest(side.found_usd - side.opening_usd, 0)::decimal(38, 12) as new_usd,
    greatest(side.opening_usd - side.found_usd, 0)::decimal(38, 12) as cleared_usd,
    if(side.accepted, side.found_usd, 0)::decimal(38, 12) as accepted_usd,
    if(side.accepted, 0, side.found_usd)::decimal(38, 12) as closing_usd
from side
left join explained.reason on reason.reason = side.reason
order by closing_usd desc, opening_usd desc, accepted_usd desc, side.id;

create or replace view report.finding_state as
select
    state,
    count(*)::bigint as findings,
    sum(amount_usd)::decimal(38, 12) as amount_usd,
    sum(moved_usd)::decimal(38, 12) as moved_usd
from report.finding
group by state
order by case state when 'discrepancy' then 1 when 'accepted' then 2 when 'expected' then 3 else 4 end;

-- What quantities sum to in USD: not known where none of them has a price, 0 where there is no quantity.
create or replace macro report.known_usd(quantity, usd) as
    case when count(quantity) = 0 or count(usd) > 0 then coalesce(sum(usd), 0) end::decimal(38, 12);

-- Every day that the close covers, also one on which nothing happened.
create or replace view report.daily as
with days as (
    select unnest(generate_series(start_on::timestamp, through_on::timestamp, interval 1 day))::date as day
    from source.run
    union
    select day from matched.cell where in_period
)
select
    days.day,
    report.known_usd(cell.recorded_quantity, cell.recorded_usd) as recorded_usd,
    report.known_usd(cell.reported_quantity, cell.reported_usd) as reported_usd,
    coalesce(sum(cell.billed_usd), 0)::decimal(38, 12) as billed_usd,
    coalesce(sum(cell.quantity_variance_usd), 0)::decimal(38, 12) as quantity_variance_usd,
    coalesce(sum(cell.price_variance_usd), 0)::decimal(38, 12) as price_variance_usd,
    coalesce(sum(cell.difference_usd), 0)::decimal(38, 12) as difference_usd,
    case
        when sum(cell.reported_usd) <> 0
            then coalesce(sum(cell.recorded_usd), 0)::double / sum(cell.reported_usd)::double
    end as capture_rate
from days
left join matched.cell on cell.day = days.day and cell.in_period
group by days.day
order by days.day;

create or replace view report.by_workspace as
select
    cell.workspace_id,
    workspace.name as workspace_name,
    report.known_usd(cell.recorded_quantity, cell.recorded_usd) as recorded_usd,
    report.known_usd(cell.reported_quantity, cell.reported_usd) as reported_usd,
    coalesce(sum(cell.billed_usd), 0)::decimal(38, 12) as billed_usd,
    sum(cell.quantity_variance_usd)::decimal(38, 12) as quantity_variance_usd,
    sum(cell.price_variance_usd)::decimal(38, 12) as price_variance_usd,
    sum(cell.difference_usd)::decimal(38, 12) as difference_usd,
    case
        when sum(cell.reported_usd) <> 0
            then coalesce(sum(cell.recorded_usd), 0)::double / sum(cell.reported_usd)::double
    end as capture_rate
from matched.cell
left join source.workspace on workspace.workspace_id = cell.workspace_id
where cell.in_period
group by cell.workspace_id, workspace.name
order by abs(sum(cell.difference_usd)) desc, sum(cell.billed_usd) desc nulls last, cell.workspace_id;

create or replace view report.by_model as
select
    model,
    report.known_usd(recorded_quantity, recorded_usd) as recorded_usd,
    report.known_usd(reported_quantity, reported_usd) as reported_usd,
    coalesce(sum(billed_usd), 0)::decimal(38, 12) as billed_usd,
    sum(quantity_variance_usd)::decimal(38, 12) as quantity_variance_usd,
    sum(price_variance_usd)::decimal(38, 12) as price_variance_usd,
    sum(difference_usd)::decimal(38, 12) as difference_usd,
    case
        when sum(reported_usd) <> 0 then coalesce(sum(recorded_usd), 0)::double / sum(reported_usd)::double
    end as capture_rate
from matched.cell
where in_period
group by model
order by abs(sum(difference_usd)) desc, sum(billed_usd) desc nulls last, model;

create or replace view report.by_tier as
select
    service_tier,
    report.known_usd(recorded_quantity, recorded_usd) as recorded_usd,
    report.known_usd(reported_quantity, reported_usd) as reported_usd,
    coalesce(sum(billed_usd), 0)::decimal(38, 12) as billed_usd,
    sum(quantity_variance_usd)::decimal(38, 12) as quantity_variance_usd,
    sum(price_variance_usd)::decimal(38, 12) as price_variance_usd,
    sum(difference_usd)::decimal(38, 12) as difference_usd,
    case
        when sum(reported_usd) <> 0 then coalesce(sum(recorded_usd), 0)::double / sum(reported_usd)::double
    end as capture_rate
from matched.cell
where in_period
group by service_tier
order by abs(sum(difference_usd)) desc, sum(billed_usd) desc nulls last, service_tier;

create or replace view report.by_meter as
select
    meter,
    sum(recorded_quantity)::bigint as recorded_quantity,
    sum(reported_quantity)::bigint as reported_quantity,
    report.known_usd(recorded_quantity, recorded_usd) as recorded_usd,
    report.known_usd(reported_quantity, reported_usd) as reported_usd,
    coalesce(sum(billed_usd), 0)::decimal(38, 12) as billed_usd,
    sum(quantity_variance_usd)::decimal(38, 12) as quantity_variance_usd,
    sum(price_variance_usd)::decimal(38, 12) as price_variance_usd,
    sum(difference_usd)::decimal(38, 12) as difference_usd,
    case
        when sum(reported_usd) <> 0 then coalesce(sum(recorded_usd), 0)::double / sum(reported_usd)::double
    end as capture_rate
from matched.cell
where in_period
group by meter
order by abs(sum(difference_usd)) desc, sum(billed_usd) desc nulls last, meter;

-- Quantity, dollars and rate are the whole month's; at the price book where every quantity has a price.
create or replace view report.price_variance as
with place as (
    select
        model,
        service_tier,
        meter,
        sum(reported_quantity)::bigint as reported_quantity,
        case when count(reported_quantity) = count(reported_usd) then sum(reported_usd) end as reported_usd,
        coalesce(sum(billed_usd), 0) as billed_usd,
        sum(price_variance_usd) as price_variance_usd
    from matched.cell
    where in_period
    group by model, service_tier, meter
    having bool_or(price_variance_usd <> 0)
)
select
    model,
    service_tier,
    meter,
    reported_quantity,
    reported_usd::decimal(38, 12) as reported_usd,
    billed_usd::decimal(38, 12) as billed_usd,
    price_variance_usd::decimal(38, 12) as price_variance_usd,
    case when reported_usd <> 0 then billed_usd::double / reported_usd::double end as billed_rate
from place
order by abs(price_variance_usd) desc, model, service_tier, meter;

create or replace view report.allocation_rule as
with parts as (
    select
        coalesce(cost_center, 'unallocated') as cost_center,
        basis,
        rule,
        pool,
        driver,
        label,
        sum(amount_usd)::decimal(38, 12) as amount_usd
    from allocated.part
    group by all
)
select
    parts.cost_center,
    chargeback.name,
    parts.basis,
    parts.rule,
    rule.title,
    parts.pool,
    parts.driver,
    parts.label,
    case
        when parts.basis in ('shared', 'label')
            and sum(parts.amount_usd) over (partition by parts.basis, parts.rule, parts.pool) <> 0
            then parts.amount_usd::double
                / (sum(parts.amount_usd) over (partition by parts.basis, parts.rule, parts.pool))::double
    end as share,
    parts.amount_usd
from parts
left join allocated.chargeback on chargeback.cost_center = parts.cost_center
left join allocated.rule on rule.rule = parts.rule
order by
    parts.cost_center = 'unallocated' desc, chargeback.total_usd desc, parts.cost_center, parts.basis = 'shared',
    abs(parts.amount_usd) desc, parts.basis, parts.rule, parts.pool, parts.driver, parts.label;

create or replace view report.flow as
select
    part.workspace_id,
    workspace.name as workspace_name,
    part.cost_center,
    chargeback.name,
    part.basis,
    sum(part.amount_usd)::decimal(38, 12) as amount_usd
from allocated.part
left join source.workspace on workspace.workspace_id = part.workspace_id
left join allocated.chargeback on chargeback.cost_center = part.cost_center
group by all
order by abs(sum(part.amount_usd)) desc, part.workspace_id, part.cost_center, part.basis;

create or replace view report.pool as
with taken as (
    select pool.pool, pooled.amount_usd as charges_usd, 0 as received_usd, 0 as passed_on_usd, 0 as amount_usd
    from allocated.pooled
    inner join allocated.pool on pool.position = pooled.position
    union all
    select into_pool, 0, amount_usd, 0, 0 from allocated.passed_on where not outside
    union all
    select pool, 0, 0, amount_usd, 0 from allocated.passed_on where not outside
    union all
    select pool, 0, 0, 0, amount_usd from allocated.part where pool is not null
),
receiver as (
    select pool, count(distinct cost_center) as receivers from allocated.part where pool is not null group by pool
)
select
    taken.pool,
    pool.driver,
    coalesce(any_value(receiver.receivers), 0)::bigint as receivers,
    sum(taken.charges_usd)::decimal(38, 12) as charges_usd,
    sum(taken.received_usd)::decimal(38, 12) as received_usd,
    sum(taken.passed_on_usd)::decimal(38, 12) as passed_on_usd,
    sum(taken.amount_usd)::decimal(38, 12) as amount_usd
from taken
inner join allocated.pool on pool.pool = taken.pool
left join receiver on receiver.pool = taken.pool
group by taken.pool, pool.driver
order by abs(sum(taken.amount_usd)) desc, taken.pool;

create or replace view report.other as
select
    other.on_day,
    other.pool,
    other.what,
    other.reason,
    other.cost_center,
    chargeback.name,
    other.basis,
    other.driver,
    other.share,
    other.amount_usd::decimal(38, 12) as amount_usd
from allocated.other
left join allocated.chargeback on chargeback.cost_center = other.cost_center
order by other.on_day, other.pool, other.what, other.cost_center, other.amount_usd;

create or replace view report.unallocated as
select
    unallocated_usd::decimal(38, 12) as unallocated_usd,
    billed_usd::decimal(38, 12) as billed_usd,
    tolerance_percent,
    beyond_tolerance
from allocated.unallocated;

create or replace view report.use as
select
    cost_center,
    day,
    workspace_id,
    model,
    service_tier,
    meter,
    quantity::bigint as quantity,
    requests::bigint as requests,
    amount_usd::decimal(38, 12) as amount_usd,
    as_input_usd::decimal(38, 12) as as_input_usd
from allocated.use
order by cost_center, day, workspace_id, model, service_tier, meter;

-- Dollars are divided in whole units of 1e-12 USD, exactly; a cost center that used nothing has no unit costs. What is
-- charged without a quantity (code execution, sessions) is of no request.
create or replace view report.unit_cost as
with summed as (
    select
        cost_center,
        sum(requests)::hugeint as requests,
        coalesce(sum(quantity) filter (where model is not null), 0)::hugeint as tokens,
        coalesce(sum(quantity) filter (where meter = 'cache_read_input_tokens'), 0)::hugeint as read_tokens,
        coalesce(
            sum(quantity) filter (where model is not null and meter <> 'output_tokens'), 0
        )::hugeint as input_tokens,
        (coalesce(sum(amount_usd) filter (quantity is not null), 0) * 1000000000000::decimal(13, 0))::hugeint as units,
        (coalesce(sum(amount_usd) filter (where model is not null), 0) * 1000000000000::decimal(13, 0))::hugeint
            as token_units,
        sum(as_input_usd - amount_usd) filter (where as_input_usd is not null) as cache_saved_usd
    from allocated.use
    group by cost_center
)
select
    summed.cost_center,
    chargeback.name,
    summed.requests::bigint as requests,
    summed.tokens::bigint as tokens,
    case
        when summed.requests > 0
            then (
                (summed.units * 1000 // summed.requests)::decimal(38, 0) * 0.000000000001::decimal(12, 12)
            )::decimal(38, 12)
    end as usd_per_1000_requests,
    case
        when summed.tokens > 0
            then (
                (summed.token_units * 1000000 // summed.tokens)::decimal(38, 0) * 0.000000000001::decimal(12, 12)
            )::decimal(38, 12)
    end as usd_per_mtok,
    case when summed.input_tokens > 0 then summed.read_tokens::double / summed.input_tokens::double end
        as cache_hit_rate,
    summed.cache_saved_usd::decimal(38, 12) as cache_saved_usd
from summed
left join allocated.chargeback on chargeback.cost_center = summed.cost_center
order by summed.cost_center = 'unallocated', summed.cost_center;

create or replace view report.movement as
with before as (
    select cost_center, name, total_usd
    from source.earlier_chargeback
    where period = (
        select strftime(start_on - interval 1 month, '%Y-%m') from source.run
    )
),
effect as (
    pivot allocated.movement
    on effect in ('price', 'volume', 'mix', 'rule', 'share')
    using sum(amount_usd)
    group by cost_center
)
select
    coalesce(chargeback.cost_center, before.cost_center) as cost_center,
    coalesce(chargeback.name, before.name) as name,
    coalesce(before.total_usd, 0)::decimal(38, 2) as before_usd,
    if(compared.known, coalesce(effect.price, 0), null)::decimal(38, 12) as price_usd,
    if(compared.known, coalesce(effect.volume, 0), null)::decimal(38, 12) as volume_usd,
    if(compared.known, coalesce(effect.mix, 0), null)::decimal(38, 12) as mix_usd,
    if(compared.known, coalesce(effect.rule, 0), null)::decimal(38, 12) as rule_usd,
    if(compared.known, coalesce(effect.share, 0), null)::decimal(38, 12) as share_usd,
    coalesce(chargeback.total_usd, 0)::decimal(38, 2) as total_usd,
    (coalesce(chargeback.total_usd, 0) - coalesce(before.total_usd, 0))::decimal(38, 2) as change_usd
from allocated.chargeback
full join before on before.cost_center = chargeback.cost_center
left join effect on effect.cost_center = coalesce(chargeback.cost_center, before.cost_center)
cross join (select count(*) > 0 as known from source.earlier_route) as compared
where exists (select 1 from before)
order by abs(change_usd) desc, cost_center;

create or replace view report.budget as
select
    cost_center,
    name,
    month_budget_usd,
    month_actual_usd,
    month_variance_usd,
    year,
    year_budget_usd,
    year_actual_usd,
    forecast_usd,
    forecast_variance_usd,
    closed_days,
    year_days
from allocated.budget
order by month_variance_usd desc nulls last, forecast_variance_usd desc nulls last, cost_center;

-- `quantity` is in tokens; by meter, in what the meter counts.
create or replace view report.statement as
with part as (
    select
        coalesce(part.cost_center, 'unallocated') as cost_center,
        part.basis = 'shared' as shared,
        coalesce(workspace.name, part.workspace_id) as workspace,
        part.model,
        part.service_tier,
        part.meter,
        part.day,
        part.amount_usd,
        null::bigint as tokens,
        null::bigint as quantity
    from allocated.part
    left join source.workspace on workspace.workspace_id = part.workspace_id
    union all
    select
        use.cost_center,
        false,
        coalesce(workspace.name, use.workspace_id),
        use.model,
        use.service_tier,
        use.meter,
        use.day,
        0,
        case when use.model is not null then use.quantity end,
        use.quantity
    from allocated.use
    left join source.workspace on workspace.workspace_id = use.workspace_id
),
seen as (
    select cost_center, shared, 'workspace' as dimension, workspace as item, tokens as quantity, amount_usd from part
    union all
    select cost_center, shared, 'model' as dimension, model as item, tokens, amount_usd from part
    union all
    select cost_center, shared, 'service_tier' as dimension, service_tier as item, tokens, amount_usd from part
    union all
    select cost_center, shared, 'meter' as dimension, meter as item, quantity, amount_usd from part
    union all
    select cost_center, shared, 'day' as dimension, day::varchar as item, tokens, amount_usd from part
)
select
    cost_center,
    dimension,
    item,
    sum(quantity)::bigint as quantity,
    coalesce(sum(amount_usd) filter (where not shared), 0)::decimal(38, 12) as direct_usd,
    coalesce(sum(amount_usd) filter (where shared), 0)::decimal(38, 12) as shared_usd,
    sum(amount_usd)::decimal(38, 12) as amount_usd
from seen
group by cost_center, dimension, item
order by
    cost_center, dimension, if(dimension = 'day', item, null), abs(sum(amount_usd)) desc, item;

-- What a statement adds up from, for spreadsheets: own use, shares of pools, what comes from outside.
create or replace view report.statement_line as
with line as (
    select
        part.cost_center, part.day, part.workspace_id, part.model, part.service_tier, part.meter, part.api_key_id,
        part.label, part.quantity,
        case
            when part.basis = 'shared' then 'Your share of ' || part.pool
            when part.driver = 'not covered by a log' or part.driver like 'recorded USD of the month by %'
                then 'Your part of what no log tells apart'
            else 'Your own use'
        end as what,
        coalesce(rule.title, 'Shared: ' || part.driver) as why,
        part.share,
        part.amount_usd
    from allocated.part
    left join allocated.rule on rule.rule = part.rule
    union all by name
    select other.cost_center, other.on_day as day, other.what,
        coalesce(other.pool || ', shared: ' || other.driver, 'As that month was split') as why,
        other.share, other.amount_usd
    from allocated.other
    union all by name  -- used, and not charged for
    select use.cost_center, use.day, use.workspace_id, use.model, use.service_tier, use.meter, use.quantity,
        'Your own use' as what, 'Not charged by use' as why, 0 as amount_usd
    from allocated.use
    where use.quantity > 0 and not exists (
        select 1
        from matched.cell
        where cell.in_period and cell.billed_usd is not null and cell.day = use.day and cell.meter = use.meter
            and cell.workspace_id is not distinct from use.workspace_id and cell.model is not distinct from use.model
            and cell.service_tier is not distinct from use.service_tier
    )
)
select
    line.cost_center,
    line.day,
    coalesce(workspace.name, line.workspace_id) as workspace,
    line.model,
    line.service_tier,
    line.meter,
    coalesce(api_key.name, line.api_key_id) as api_key,
    line.label,
    line.quantity::bigint as quantity,
    line.what,
    line.why,
    line.share,
    line.amount_usd::decimal(38, 12) as amount_usd
from line
left join source.workspace on workspace.workspace_id = line.workspace_id
left join source.api_key on api_key.api_key_id = line.api_key_id
order by
    line.cost_center, line.day nulls last, workspace, line.model, line.service_tier, line.meter, api_key, line.label,
    line.what, line.why, line.share, line.amount_usd;

-- The digest of a kind is taken over its pages' digests, in their order.
create or replace view report.source as
with defaults as (
    select log, sum(requests)::bigint as requests
    from source.default_used
    group by log
)
select
    'provider' as side,
    kind as name,
    count(*)::bigint as files,
    sum(rows)::bigint as rows,
    null::bigint as rejected,
    null::bigint as outside,
    null::bigint as defaults_used,
    null::bigint as days_without_lines,
    min(fetched_at) as first_at,
    max(fetched_at) as last_at,
    sha256(string_agg(sha256, chr(10) order by file)) as digest
from source.page
group by kind
union all
select
    'log' as side,
    log.log as name,
    log.files::bigint as files,
    log.requests::bigint as rows,
    log.rejected::bigint as rejected,
    log.outside::bigint as outside,
    coalesce(defaults.requests, 0)::bigint as defaults_used,
    len(coverage.days_without_lines)::bigint as days_without_lines,
    log.first_at,
    log.last_at,
    log.sha256 as digest
from source.log
left join defaults on defaults.log = log.log
left join source.log_coverage as coverage on coverage.log = log.log
order by side desc, name;

create or replace view report.page as
select file, kind, fetched_at, sha256, rows::bigint as rows
from source.page
order by file;

create or replace view report.rejected as
select log, file, line::bigint as line, why
from source.rejected
order by log, file, line, why;

create or replace view report.default_used as
select log, field, requests::bigint as requests
from source.default_used
order by log, field;

create or replace view report.price_used as
select
    model,
    service_tier,
    context_window,
    inference_geo,
    speed,
    meter,
    from_on,
    until_on,
    prompt_over::bigint as prompt_over,
    price_unit,
    list_price_usd::decimal(38, 12) as list_price_usd,
    price_usd::decimal(38, 12) as price_usd,
    source
from source.price
where is_used
order by
    model, service_tier, context_window, inference_geo, speed, meter, from_on, until_on, prompt_over, price_unit,
    list_price_usd, price_usd, source;

create or replace view report.month_over_month as
with months as (
    select period, revision, cost_center, name, total_usd
    from source.earlier_chargeback
    union all
    select run.period, run.revision, chargeback.cost_center, chargeback.name, chargeback.total_usd
    from source.run, allocated.chargeback
    where exists (select 1 from source.earlier_chargeback)
)
select
    cost_center,
    period,
    revision::integer as revision,
    name,
    total_usd::decimal(38, 2) as total_usd,
    (total_usd - lag(total_usd) over (partition by cost_center order by period))::decimal(38, 2) as change_usd
from months
order by cost_center = 'unallocated', cost_center, period;

create or replace view report.warning as
with every_one as (
    select 1 as stage, position, about, warning from source.warning
    union all
    select 2, position, 'accepted', warning from explained.warning
    union all
    select 3, position, 'allocation', warning from allocated.warning
)
select row_number() over (order by stage, position, warning)::integer as position, about, warning
from every_one
order by position;

create or replace view report.reason as
select position, reason, leads_to, title, meaning, to_do, confirm
from explained.reason
order by position;

create or replace view report.accepted as
select finding_id, position, standing, who, why, until_on, up_to_usd::decimal(38, 12) as up_to_usd
from explained.accepted
order by finding_id, position;

create or replace view report.curve as
select
    finding_id,
    hour_of_day,
    logged_tokens::bigint as logged_tokens,
    set_right_tokens::bigint as set_right_tokens,
    reported_tokens::bigint as reported_tokens
from explained.curve
order by finding_id, hour_of_day;

create or replace view report.exchange as
select
    exchange.finding_id,
    exchange.reason,
    exchange.at_value,
    case when exchange.reason = 'workspace' then workspace.name end as workspace_name,
    exchange.is_rest,
    exchange.quantity::bigint as quantity,
    exchange.amount_usd::decimal(38, 12) as amount_usd
from explained.exchange
left join source.workspace on workspace.workspace_id = exchange.at_value
order by
    exchange.finding_id, exchange.is_rest, if(exchange.reason = 'cutoff', exchange.at_value, null), abs(exchange.quantity) desc,
    exchange.quantity, exchange.at_value;

-- Controls: what is printed twice is the same figure. Empty means fine.

create or replace view checks.published_bridge_differs_from_cells as
select bridge.reason as total, bridge.running_usd as bridge_usd, cells.cells_usd
from report.bridge
inner join (
    unpivot (select recorded_usd as recorded, reported_usd as reported, billed_usd as billed from report.summary)
    on recorded, reported, billed into name total value cells_usd
) as cells on cells.total = bridge.reason
where bridge.kind = 'total' and bridge.running_usd <> cells.cells_usd;

create or replace view checks.published_bridge_lacks_a_total as
select total
from (select unnest(['logged', 'recorded', 'reported', 'billed']) as total)
where total not in (select reason from report.bridge where kind = 'total');

create or replace view checks.published_bridge_does_not_add_up as
with walk as (
    select
        position,
        reason,
        running_usd,
        coalesce(amount_usd, 0) as amount_usd,
        lag(running_usd) over (order by position) as before_usd
    from report.bridge
)
select position, reason, before_usd, amount_usd, running_usd
from walk
where before_usd + amount_usd <> running_usd;

create or replace view checks.published_summary_does_not_add_up as
select logged_usd, cleaning_usd, difference_usd, billed_usd, recorded_usd
from report.summary
where logged_usd + cleaning_usd + difference_usd <> billed_usd or billed_usd - recorded_usd <> difference_usd;

create or replace view checks.published_findings_differ_from_bridge as
with findings as (
    select reason, sum(amount_usd)::decimal(38, 12) as findings_usd
    from report.discrepancy
    group by reason
),
steps as (
    select reason, amount_usd as bridge_usd
    from report.bridge
    where kind = 'step' and position < (select max(position) from report.bridge where kind = 'total' and reason = 'billed')
)
select reason, findings_usd, bridge_usd
from findings
full join steps using (reason)
where coalesce(findings_usd, 0) <> coalesce(bridge_usd, 0);

create or replace view checks.published_rollforward_does_not_add_up as
select id, opening_usd, new_usd, cleared_usd, accepted_usd, closing_usd
from report.rollforward
where opening_usd + new_usd - cleared_usd - accepted_usd <> closing_usd
union all
select 'all', null, null, null, verdict.discrepancy_usd, carried.closing_usd
from (select coalesce(sum(closing_usd), 0) as closing_usd from report.rollforward) as carried
cross join report.verdict as verdict
where carried.closing_usd <> verdict.discrepancy_usd;

create or replace view checks.published_cell_without_status as
select day, workspace_id, model, service_tier, meter, difference_usd
from report.cell
where status is null;

create or replace view checks.published_cells_differ_from_matched as
select published, matched
from (select (select count(*) from report.cell) as published, (select count(*) from matched.cell where in_period) as matched)
where published <> matched;

create or replace view checks.published_allocation_differs_from_billed as
select allocated_usd, billed_usd
from (select coalesce(sum(amount_usd), 0)::decimal(38, 12) as allocated_usd from report.allocation), report.summary
where allocated_usd <> billed_usd;

create or replace view checks.published_chargeback_differs_from_billed as
select verdict.charged_usd, summary.billed_usd
from report.verdict, report.summary
where verdict.charged_usd <> round(summary.billed_usd, 2);

create or replace view checks.published_chargeback_does_not_add_up as
select cost_center, direct_usd, shared_usd, total_usd, other_usd, payable_usd
from report.chargeback
where direct_usd + shared_usd <> total_usd or total_usd + other_usd <> payable_usd;
