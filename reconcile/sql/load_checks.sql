-- What the logs cover, and control totals of load: rows in = rows out, for every log.
-- Grain: log_coverage one row a log; warning one row a log that does not reach over the period; the checks one row an
--   offender. Reads: event, log_name (temporary), source.run, log, rejected, request.
--   Writes: source.log_coverage, warning, line_fate, checks.

-- The time that a log's lines cover, against the period's complete days: all null or empty where it has none.
create or replace table source.log_coverage as
with
written as (
    select
        log_name.log, min(event.logged_at) as first_at, max(event.logged_at) as last_at,
        count(distinct date_trunc('hour', event.logged_at)) as hours_with_lines,
        list(distinct event.logged_at::date) as days,
    from event
    join log_name on log_name.position = event.log
    cross join source.run as run
    where event.logged_at >= run.start_on and event.logged_at < run.through_on + 1
    group by log_name.log
)
select
    log.log, written.first_at, written.last_at, coalesce(written.hours_with_lines, 0)::bigint as hours_with_lines,
    list_filter(
        list_transform(range(run.start_on::timestamp, (run.through_on + 1)::timestamp, interval 1 day), lambda day: day::date),
        lambda day: not list_contains(coalesce(written.days, []), day)
    ) as days_without_lines,
from source.log as log
cross join source.run as run
left join written on written.log = log.log
order by log.log;

-- A log that begins late, ends early or is silent; single days without a line are usual, and stand in the coverage.
create or replace table source.warning as
with told as (
    select
        log.log,
        case
            when coverage.hours_with_lines = 0
            then 'has no line in ' || run.period || ': ' || log.files || if(log.files = 1, ' file', ' files') || ' with '
                || log.lines || if(log.lines = 1, ' line', ' lines') || ', of which ' || log.rejected
                || ' could not be read and ' || log.outside || ' lie outside the month'
            when coverage.first_at::date > run.start_on or coverage.last_at::date < run.through_on
            then 'covers ' || coverage.first_at::date || ' to ' || coverage.last_at::date || ' of ' || run.start_on
                || ' to ' || run.through_on || ': ' || len(coverage.days_without_lines)
                || if(len(coverage.days_without_lines) = 1, ' day', ' days') || ' without a line'
        end as warning,
    from source.log as log
    join source.log_coverage as coverage on coverage.log = log.log
    cross join source.run as run
)
select
    row_number() over (order by log)::integer as position, 'logs' as about, 'request log ' || log || ' ' || warning as warning
from told
where warning is not null
order by position;

create or replace table source.line_fate as
select log_name.log, 'event' as fate, count(*) as lines
from event
join log_name on log_name.position = event.log
group by all;

create or replace view checks.log_line_lost as
select log.log, log.lines, log.rejected, log.outside, log.unused, coalesce(fate.lines, 0) as events
from source.log as log
left join source.line_fate as fate on fate.log = log.log
where log.lines <> log.rejected + log.outside + log.unused + coalesce(fate.lines, 0);

create or replace view checks.rejected_line_not_kept as
select log.log, log.rejected, count(rejected.log) as kept
from source.log as log
left join source.rejected as rejected on rejected.log = log.log
group by log.log, log.rejected
having log.rejected <> count(rejected.log);

-- every id that a log holds stands exactly once
create or replace view checks.request_id_twice as
select request_id, count(*) as requests
from source.request
where request_id is not null
group by request_id
having count(*) > 1;
