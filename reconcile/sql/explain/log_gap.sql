-- Hours in which a log that otherwise writes has no line at all.
-- Rule: a run of such hours is a gap when the chance of it is below 1 in 10,000: that a log writes nothing where its own
--   average (same hour of the day, weekday or weekend, of the week before or after, where there are less) lets lines
--   expect, at least one; times that just there so many places miss their use, of all that have any, as otherwise do (by
--   the place, in the days around, and in the same hour of other days). Claimed is what was reported in these hours and not
--   recorded by any log, of the keys that the log names (where it names them on 95 % of its requests), else of the
--   workspaces that it writes for; at most what is left of the cell's positive variance.
-- Grain: one claim a cell and log. Reads: explained.known, corrected, adjusted, fetched, left_over. Writes:
--   explained.served, served_hour, gap, claim, note, checks.
create or replace table explained.served as
with naming as (
    select log, 100 * count(api_key_id) >= 95 * count(*) as names_keys
    from source.request
    group by log
)
select distinct request.log, naming.names_keys, if(naming.names_keys, null, request.workspace_id) as workspace_id,
    if(naming.names_keys, request.api_key_id, null) as api_key_id,
from source.request as request
join naming on naming.log = request.log;

-- What was reported and recorded of the places that a log serves, hour by hour.
create or replace table explained.served_hour as
with side as (
    select hour, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, api_key_id, quantity
    from explained.known
    union all
    select hour, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, api_key_id, -quantity
    from explained.corrected_meter
)
select served.log, side.hour, side.workspace_id, side.model, side.service_tier, side.context_window,
    side.inference_geo, side.speed, side.meter, sum(side.quantity)::bigint as quantity,
    coalesce(sum(side.quantity) filter (side.quantity < 0), 0) = 0 as unrecorded,
from side
join explained.served as served
    on if(served.names_keys, served.api_key_id = side.api_key_id, served.workspace_id = side.workspace_id)
group by all;

create or replace table explained.gap as
with hours as (
    select unnest(generate_series(
        start_on::timestamp, through_on::timestamp + interval 23 hour, interval 1 hour
    )) as hour
    from source.run
),
written as (
    select log, hour, sum(requests)::bigint as lines from explained.corrected group by log, hour
),
grid as (
    select log.log, hours.hour, coalesce(written.lines, 0) as lines,
        hour(hours.hour) as hour_of_day, isodow(hours.hour) >= 6 as weekend,
        sum(coalesce(written.lines, 0)) over (partition by log.log, hours.hour::date) > 0 as day_has_lines,
    from source.log as log
    cross join hours
    left join written on written.log = log.log and written.hour = hours.hour
    where log.requests > 0
),
-- as many lines as in the same hour of the week before and of the week after, where there are less: it may have begun, or
-- been less used from some day on; over the days on which it writes at all
expected as (
    select *,
        coalesce(
            least(coalesce(before, after), coalesce(after, before)),
            avg(lines) filter (day_has_lines) over (partition by log, hour_of_day)
        )::decimal(18, 6) as lines_expected,
        hour - to_hours(row_number() over (partition by log, lines = 0 order by hour)) as run,
    from (
        select *,
            avg(lines) filter (day_has_lines) over (
                habit range between interval 7 day preceding and interval 1 day preceding
            ) as before,
            avg(lines) filter (day_has_lines) over (
                habit range between interval 1 day following and interval 7 day following
            ) as after,
        from grid
        window habit as (partition by log, hour_of_day, weekend order by hour)
    )
),
place as (
    select served_hour.log, served_hour.hour, expected.lines, expected.run,
        to_json([workspace_id, model, service_tier, context_window, inference_geo, speed])::varchar as place,
        bool_and(unrecorded) as missing,
    from explained.served_hour as served_hour
    join expected on expected.log = served_hour.log and expected.hour = served_hour.hour
    where model is not null
    group by all
    having sum(quantity) > 0 or not bool_and(unrecorded)
),
-- how often a place's use is missing in hours in which the log does write: by the place, and in the days around; and how
-- often anything is in the same hour of the other days, as of a log that is written by night
missed as (
    select log, place, (count(*) filter (missing) + 1) / (count(*) + 2) as share from place where lines > 0 group by log, place
),
usual as (
    select log, hour,
        (sum(sum(missing::int)) over same_hour - sum(missing::int) + 1) / (sum(count(*)) over same_hour - count(*) + 2) as share,
    from place
    group by log, hour
    window same_hour as (partition by log, hour(place.hour))
),
around as (
    select log, hour,
        (sum(sum((missing and lines > 0)::int)) over near + 1) / (sum(sum((lines > 0)::int)) over near + 2) as share,
    from place
    group by log, hour
    window near as (
        partition by log order by hour range between interval 72 hour preceding and interval 72 hour following
    )
),
-- of a log that has more than a tenth of its tokens in another hour nobody knows what is missing in one
shifting as (
    select adjusted.log
    from explained.adjusted as adjusted
    join (
        select log, sum(input + write_5m + write_1h + read + output) as tokens from explained.corrected group by log
    ) as recorded on recorded.log = adjusted.log
    where adjusted.reason = 'cutoff'
    group by adjusted.log
    having 5 * max(adjusted.as_logged) > any_value(recorded.tokens)
    union
    select log from explained.fetched
),
-- how many places miss their use in a silence, beside how many would by chance; one that misses it as often as not tells
-- nothing
counted as (
    select log, run, count(*) filter (missing) as places, count(*) filter (missing and tells) as missing,
        count(*) filter (tells) as telling,
        coalesce(sum(by_chance::decimal(18, 6)) filter (tells), 0) as missing_expected,
    from (
        select place.log, place.run, place.missing,
            greatest(around.share, usual.share, coalesce(missed.share, 0.5)) as by_chance,
            shifting.log is null and by_chance < 0.5 as tells,
        from place
        join around on around.log = place.log and around.hour = place.hour
        join usual on usual.log = place.log and usual.hour = place.hour
        left join missed on missed.log = place.log and missed.place = place.place
        left join shifting on shifting.log = place.log
        where place.lines = 0
    )
    group by log, run
),
silent as (
    select *,
        -- Chernoff's bound of a binomial tail
        if(
            missing > missing_expected,
            -missing * ln(missing / missing_expected)
                - if(telling > missing, (telling - missing) * ln((telling - missing) / (telling - missing_expected)), 0),
            0
        )::decimal(18, 6) as ln_chance,
    from counted
    where places > 0
)
select expected.log, min(hour) as from_at, max(hour) + interval 1 hour as until_at, count(*)::bigint as hours,
    sum(lines_expected) as lines_expected, any_value(silent.places)::bigint as places,
from expected
join silent on silent.log = expected.log and silent.run = expected.run
where lines = 0
group by expected.log, expected.run
having any_value(silent.ln_chance) - sum(lines_expected) < ln(0.0001) and sum(lines_expected) >= 1;

-- A log of one or two days shows no habit that its silence could break.
delete from explained.gap
where log in (select log from source.log_hour group by log having count(distinct hour::date) < 3);

insert into explained.claim (cell_id, position, reason, confidence, log, quantity)
with missing as (
    select gap.log, served_hour.* exclude (log, unrecorded),
    from explained.gap as gap
    join explained.served_hour as served_hour
        on served_hour.log = gap.log and served_hour.hour >= gap.from_at and served_hour.hour < gap.until_at
    where served_hour.quantity > 0
),
-- where two logs that serve the same keys are silent in one hour, it is missing once: in the one that misses more
together as (
    select distinct one.log, other.log as other
    from explained.served as one
    join explained.served as other
        on other.log <> one.log and (one.api_key_id = other.api_key_id or not (one.names_keys and other.names_keys))
),
once as (
    select *
    from missing
    anti join (
        select missing.*, together.log as beside from missing join together on together.other = missing.log
    ) as more
        on more.beside = missing.log and more.hour = missing.hour and more.meter = missing.meter
        and more.workspace_id is not distinct from missing.workspace_id
        and more.model is not distinct from missing.model
        and more.service_tier is not distinct from missing.service_tier
        and more.context_window is not distinct from missing.context_window
        and more.inference_geo is not distinct from missing.inference_geo
        and more.speed is not distinct from missing.speed
        and (more.quantity > missing.quantity or (more.quantity = missing.quantity and more.log < missing.log))
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
        to_json(round(sum(lines_expected))::bigint::varchar) as expected, to_json(sum(places)::varchar) as places,
    from explained.gap
    group by log
)
cross join (values (null), ('web_search_requests')) as meter (name)
cross join lateral (
    select unnest([
        {'name': 'hours_without_a_line', 'value': hours},
        {'name': 'silent', 'value': silent},
        {'name': 'lines_expected_in_them', 'value': expected},
        {'name': 'places_and_hours_whose_use_is_missing', 'value': places},
    ], recursive := true)
) as fact;

create or replace view checks.log_gap_claims_more_than_was_used_in_it as
with used as (
    select gap.log, known.day, known.workspace_id, known.model, known.service_tier, known.context_window,
        known.inference_geo, known.speed, known.meter, sum(known.quantity) as quantity,
    from explained.gap as gap
    join explained.known as known on known.hour >= gap.from_at and known.hour < gap.until_at
    group by all
)
select claim.cell_id, claim.log, claim.quantity, used.quantity as used
from explained.claim as claim
join explained.cell as cell on cell.cell_id = claim.cell_id
left join used
    on used.log = claim.log and used.day = cell.day and used.meter = cell.meter
    and used.workspace_id is not distinct from cell.workspace_id
    and used.model is not distinct from cell.model
    and used.service_tier is not distinct from cell.service_tier
    and used.context_window is not distinct from cell.context_window
    and used.inference_geo is not distinct from cell.inference_geo
    and used.speed is not distinct from cell.speed
where claim.reason = 'log_gap' and not claim.quantity between 1 and coalesce(used.quantity, 0);
