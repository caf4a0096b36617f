-- Hours in which a log that otherwise writes has no line at all.
-- Rule: a run of such hours is a gap when the log's own average (same hour of the day, weekday or weekend) lets at least
--   7 lines expect in it, a chance below 1 in 1,000 otherwise. Claimed is what was reported in these hours and not
--   recorded by any log, of the keys that the log names (where it names them on 95 % of its requests), else of the
--   workspaces that it writes for; at most what is left of the cell's positive variance.
-- Grain: one claim a cell and log. Reads: source.log_hour, explained.known, corrected, cell. Writes: explained.gap, claim, note.
create or replace table explained.gap as
with hours as (
    select unnest(generate_series(
        start_on::timestamp, through_on::timestamp + interval 23 hour, interval 1 hour
    )) as hour
    from source.run
),
written as (
    select lines.log, date_trunc('hour', lines.hour - to_minutes(coalesce(shift.minutes, 0)))::timestamp as hour,
        sum(lines.lines)::bigint as lines,
    from source.log_hour as lines
    left join explained.shift as shift on shift.log = lines.log
    group by all
),
grid as (
    select log.log, hours.hour, coalesce(written.lines, 0) as lines,
        hour(hours.hour) as hour_of_day, isodow(hours.hour) >= 6 as weekend,
        sum(coalesce(written.lines, 0)) over (partition by log.log, hours.hour::date) as day_lines,
    from source.log as log
    cross join hours
    left join written on written.log = log.log and written.hour = hours.hour
    where log.requests > 0
),
expected as (
    select *,
        -- over the days on which it writes at all: a log may have begun, or ended, within the month
        coalesce(
            avg(lines) filter (day_lines > 0) over (partition by log, hour_of_day, weekend),
            avg(lines) filter (day_lines > 0) over (partition by log, hour_of_day)
        ) as lines_expected,
        hour - to_hours(row_number() over (partition by log, lines = 0 order by hour)) as run,
    from grid
)
select log, min(hour) as from_at, max(hour) + interval 1 hour as until_at, count(*)::bigint as hours,
    sum(lines_expected) as lines_expected,
from expected
where lines = 0
group by log, run
having sum(lines_expected) >= 7;

-- A log of one or two days shows no habit that its silence could break.
delete from explained.gap
where log in (select log from source.log_hour group by log having count(distinct hour::date) < 3);

insert into explained.claim (cell_id, position, reason, confidence, log, quantity)
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
side as (
    select known.hour, known.workspace_id, known.model, known.service_tier, known.context_window, known.inference_geo,
        known.speed, known.meter, known.api_key_id, known.quantity,
    from explained.known as known
    union all
    select hour, workspace_id, model, service_tier, context_window, inference_geo, speed, counter.meter, api_key_id,
        -counter.quantity
    from (
        select *, unnest([
            {'meter': 'uncached_input_tokens', 'quantity': input},
            {'meter': 'cache_creation.ephemeral_5m_input_tokens', 'quantity': write_5m},
            {'meter': 'cache_creation.ephemeral_1h_input_tokens', 'quantity': write_1h},
            {'meter': 'cache_read_input_tokens', 'quantity': read},
            {'meter': 'output_tokens', 'quantity': output},
        ]) as counter
        from explained.corrected
    )
    union all
    select hour, workspace_id, null, null, null, null, null, 'web_search_requests', api_key_id, -searches
    from explained.corrected where searches > 0
),
missing as (
    select gap.log, side.hour, side.workspace_id, side.model, side.service_tier, side.context_window,
        side.inference_geo, side.speed, side.meter, sum(side.quantity) as quantity,
    from explained.gap as gap
    join side on side.hour >= gap.from_at and side.hour < gap.until_at
    join served
        on served.log = gap.log
        and if(served.names_keys, served.api_key_id = side.api_key_id, served.workspace_id = side.workspace_id)
    group by all
    having sum(side.quantity) > 0
),
-- where two logs that serve the same keys are silent in one hour, it is missing once
once as (
    select *
    from missing
    qualify row_number() over (
        partition by hour, workspace_id, model, service_tier, context_window, inference_geo, speed, meter
        order by quantity desc, log
    ) = 1
),
wanted as (
    select cell.cell_id, missing.log, sum(missing.quantity)::bigint as quantity
    from once as missing
    join explained.cell as cell
        on cell.day = missing.hour::date and cell.meter = missing.meter and cell.price_usd is not null
        and cell.workspace_id is not distinct from missing.workspace_id
        and cell.model is not distinct from missing.model
        and cell.service_tier is not distinct from missing.service_tier
        and cell.context_window is not distinct from missing.context_window
        and cell.inference_geo is not distinct from missing.inference_geo
        and cell.speed is not distinct from missing.speed
    group by all
),
running as (
    select wanted.*, left_over.quantity as available,
        sum(wanted.quantity) over (partition by wanted.cell_id order by wanted.log)::bigint as upto,
    from wanted
    join explained.left_over as left_over on left_over.cell_id = wanted.cell_id
)
select cell_id, 50, 'log_gap', 'inferred', log, least(quantity, available - (upto - quantity))
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
