-- Hours in which a log that otherwise writes has no line at all.
-- Rule: a run of such hours is a gap when the log's own average (same hour of the day, weekday or weekend) lets at least
--   7 lines expect in it, a chance below 1 in 1,000 otherwise. Claimed is what was reported in these hours and not
--   recorded by any log, of the keys that the log names (where it names them on 95 % of its requests), else of the
--   workspaces that it writes for; at most what is left of the cell's positive variance.
-- Grain: one claim a cell and log. Reads: source.log_hour, explained. Writes: explained.gap, claim, note.
create or replace table explained.gap as
with hours as (
    select unnest(generate_series(
        start_on::timestamp, through_on::timestamp + interval 23 hour, interval 1 hour
    )) as hour
    from source.run
),
grid as (
    select log.log, hours.hour, coalesce(written.lines, 0) as lines,
        hour(hours.hour) as hour_of_day, isodow(hours.hour) >= 6 as weekend,
    from source.log as log
    cross join hours
    left join source.log_hour as written on written.log = log.log and written.hour = hours.hour
    where log.requests > 0
),
expected as (
    select *,
        avg(lines) over (partition by log, hour_of_day, weekend) as lines_expected,
        hour - to_hours(row_number() over (partition by log, lines = 0 order by hour)) as run,
    from grid
)
select log, min(hour) as from_at, max(hour) + interval 1 hour as until_at, count(*)::bigint as hours,
    sum(lines_expected) as lines_expected,
from expected
where lines = 0
group by log, run
having sum(lines_expected) >= 7;

insert into explained.claim
with naming as (
    select log, 100 * count(api_key_id) >= 95 * count(*) as names_keys
    from source.request
    group by log
),
served as (
    select distinct request.log, naming.names_keys, if(naming.names_keys, null, request.workspace_id) as workspace_id,
        if(naming.names_keys, request.api_key_id, null) as api_key_id,
    from source.request as request
    join naming on naming.log = request.log
),
in_gap as (
    select gap.log, reported.cell_id, reported.hour, sum(reported.quantity) as quantity
    from explained.gap as gap
    join explained.reported_hour as reported on reported.hour >= gap.from_at and reported.hour < gap.until_at
    join served
        on served.log = gap.log
        and if(served.names_keys, served.api_key_id = reported.api_key_id, served.workspace_id = reported.workspace_id)
    where reported.api_key_id is not null
    group by all
),
by_others as (
    select gap.log, recorded.cell_id, recorded.hour, sum(recorded.quantity) as quantity
    from explained.gap as gap
    join explained.recorded_hour as recorded on recorded.hour >= gap.from_at and recorded.hour < gap.until_at
    join explained.cell as cell on cell.cell_id = recorded.cell_id
    join served
        on served.log = gap.log
        and if(served.names_keys, served.api_key_id = recorded.api_key_id, served.workspace_id = cell.workspace_id)
    group by all
),
missing as (
    select in_gap.log, in_gap.cell_id, in_gap.hour, in_gap.quantity - coalesce(by_others.quantity, 0) as quantity
    from in_gap
    left join by_others
        on by_others.log = in_gap.log and by_others.cell_id = in_gap.cell_id and by_others.hour = in_gap.hour
    -- where two logs that serve the same keys are silent in one hour, it is missing once
    qualify row_number() over (
        partition by in_gap.cell_id, in_gap.hour
        order by in_gap.quantity - coalesce(by_others.quantity, 0) desc, in_gap.log
    ) = 1
),
wanted as (
    select cell_id, log, sum(quantity)::bigint as quantity from missing where quantity > 0 group by cell_id, log
),
running as (
    select wanted.*, left_over.quantity as available,
        sum(wanted.quantity) over (partition by wanted.cell_id order by wanted.log)::bigint as upto,
    from wanted
    join explained.left_over as left_over on left_over.cell_id = wanted.cell_id
)
select cell_id, 50, 'log_gap', 'inferred', log, null, null, least(quantity, available - (upto - quantity))
from running
where least(quantity, available - (upto - quantity)) > 0;

insert into explained.note
select 'log_gap', log, null, null, null, meter.name, null, fact.name, fact.value
from (
    select log, to_json(sum(hours)::varchar) as hours,
        to_json(list(strftime(from_at, '%Y-%m-%dT%H:%MZ') || ' to ' || strftime(until_at, '%Y-%m-%dT%H:%MZ') order by from_at))
            as silent,
        to_json(round(sum(lines_expected))::bigint::varchar) as expected,
    from explained.gap
    group by log
)
cross join (values (null), ('web_search_requests')) as meter (name)
cross join lateral (
    select unnest([
        {'name': 'hours_without_a_line', 'value': hours},
        {'name': 'silent', 'value': silent},
        {'name': 'lines_expected_in_them', 'value': expected},
    ], recursive := true)
) as fact;
