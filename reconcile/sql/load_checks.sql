-- Control totals of load: rows in = rows out, for every log.
-- Grain: one row a log that lost or gained lines. Reads: source.log, rejected. Writes: checks.
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
