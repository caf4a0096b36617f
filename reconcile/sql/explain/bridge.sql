-- The walk from logged to billed (and invoiced), and what became of each cell.
-- Grain: explained.bridge one row a total or step; cell_status one row a cell. Reads: explained.finding, part, reason
--   (the closed list with its titles), invoice_step. Writes: explained.bridge, cell_status, checks.
create or replace table explained.bridge as
with
figure as (
    select
        coalesce(sum(recorded_usd), 0)::decimal(38, 12) as recorded_usd,
        coalesce(sum(reported_usd), 0)::decimal(38, 12) as reported_usd,
        coalesce(sum(billed_usd), 0)::decimal(38, 12) as billed_usd,
    from explained.cell
),
step as (
    select reason.position, reason.reason, reason.title, reason.leads_to, sum(finding.quantity)::bigint as quantity,
        coalesce(sum(finding.amount_usd), 0)::decimal(38, 12) as amount_usd,
    from explained.reason as reason
    left join (
        -- searches are no tokens: they have dollars in a step, no part of its quantity
        select reason, amount_usd, case when meter is distinct from 'web_search_requests' then quantity end as quantity
        from explained.finding
    ) as finding on finding.reason = reason.reason
    group by all
),
cleaning as (
    select sum(amount_usd)::decimal(38, 12) as amount_usd from step where leads_to = 'recorded'
),
line as (
    select 0 as rank, 0 as position, 'total' as kind, 'logged' as reason, 'Logged by the applications' as title,
        null::bigint as quantity, (recorded_usd - cleaning.amount_usd)::decimal(38, 12) as amount_usd
    from figure, cleaning
    union all select 1000, 0, 'total', 'recorded', 'Recorded after cleaning', null, recorded_usd from figure
    union all select 2000, 0, 'total', 'reported', 'Reported by the provider, at the price book', null, reported_usd
    from figure
    union all select 3000, 0, 'total', 'billed', 'Billed by the provider', null, billed_usd from figure
    union all
    select case leads_to when 'recorded' then 500 when 'reported' then 1500 else 2500 end, position, 'step', reason,
        title, quantity, amount_usd
    from step
    where amount_usd <> 0 or coalesce(quantity, 0) <> 0 or reason = 'residual'
    union all
    select 3500, position, 'step', reason, title, null, amount_usd from explained.invoice_step
    union all
    select 4000, 0, 'total', 'invoiced', 'Invoiced', null, invoiced_usd from explained.invoice
)
select
    row_number() over (order by rank, position)::integer as position,
    kind,
    reason,
    title,
    quantity,
    case when kind = 'step' then amount_usd end as amount_usd,
    case
        when kind = 'total' then amount_usd
        else (
            first_value(amount_usd) over (order by rank, position)
            + coalesce(sum(case when kind = 'step' then amount_usd else 0 end) over (order by rank, position), 0)
        )::decimal(38, 12)
    end as running_usd,
from line
order by position;

create or replace table explained.cell_status as
with largest as (
    select part.cell_id, finding.beyond_tolerance,
        finding.accepted or finding.reason in ('code_execution', 'session_usage', 'rounding') as no_discrepancy,
    from explained.part as part
    join explained.finding as finding on finding.id = part.finding_id
    where part.cell_id is not null
    qualify row_number() over (
        partition by part.cell_id order by abs(part.amount_usd) desc, finding.moved_usd desc, finding.id
    ) = 1
)
select
    cell.day, cell.workspace_id, cell.model, cell.service_tier, cell.context_window, cell.inference_geo, cell.speed,
    cell.meter,
    case
        when cell.difference_usd = 0 then 'matched'
        when largest.beyond_tolerance and not largest.no_discrepancy then 'discrepancy'
        when largest.beyond_tolerance then 'explained'
        else 'tolerated'
    end as status,
from explained.cell as cell
left join largest on largest.cell_id = cell.cell_id;

create or replace view checks.cell_not_explained as
select cell.cell_id, cell.day, cell.workspace_id, cell.model, cell.meter, cell.difference_usd, part.amount_usd
from explained.cell as cell
left join (
    select cell_id, sum(amount_usd) as amount_usd from explained.part where cell_id is not null group by cell_id
) as part on part.cell_id = cell.cell_id
where cell.difference_usd <> coalesce(part.amount_usd, 0);

create or replace view checks.bridge_does_not_meet_a_total as
with walked as (
    select *, (
        first_value(running_usd) over (order by position)
        + coalesce(sum(amount_usd) over (order by position), 0)
    ) as walked_usd
    from explained.bridge
)
select position, reason, running_usd, walked_usd
from walked
where running_usd <> walked_usd;

-- What the logs' lines sum to, counted once more from the lines: apart from rounding at the twelfth decimal the same.
create or replace view checks.logged_not_the_sum_of_the_lines as
with counted as (
    select
        (select coalesce(sum(coalesce(recorded_usd, 0)), 0) from source.request where in_period)
        - (select coalesce(sum(amount_usd), 0) from source.removed where in_period) as logged_usd,
        (select count(*) + 1 from explained.cell) + (select count(*) from explained.finding) as roundings,
)
select counted.logged_usd, bridge.running_usd
from counted, explained.bridge as bridge
where bridge.reason = 'logged'
    and abs(counted.logged_usd - bridge.running_usd) > counted.roundings * 0.000000000001::decimal(12, 12);
