-- Of the lines of one id: which one stands, and what a stream adds up to.
-- Grain: finished_rank one row a line of an id that has a finished line; fold one row (id, log) of a stream; standing one
--   row an id with several lines. Reads: repeated_line, tied (temporary). Writes: those three, first_split, second_log, copy_of; the view kept.

-- Finished lines of one id: the earliest stands, then the largest output, then the largest text. A captured stream that
-- was cut is not finished. The events of a stream that also has a finished line are that request logged once more.
create or replace temp table finished_rank as
select
    repeated_line.line,
    repeated_line.key,
    row_number() over (
        partition by repeated_line.key
        order by kind = 'final' desc, cut, logged_at, output_tokens desc nulls last, tied.line_text desc nulls last,
            ordinal, repeated_line.line
    ) as standing,
from repeated_line
left join tied on tied.line = repeated_line.line
where finished;

-- A stream: the last value of each counter that is not null by (timestamp, value), packed into one number; its first
-- line by (message_start first, timestamp, ordinal of its origin).
create or replace temp table fold as
select
    key,
    log,
    min(if(kind = 'start', 0, 1)::hugeint * 39614081257132168796771975168 + instant + ordinal) as first_line,
    count(*) filter (kind = 'start') as starts,
    count(*) filter (kind = 'delta') as deltas,
    min(logged_at) as began_at,
    max(logged_at) as logged_at,
    max(instant + input_tokens) as input_tokens,
    max(instant + cache_write_total) as cache_write_total,
    max(instant + cache_read_input_tokens) as cache_read_input_tokens,
    max(instant + output_tokens) as output_tokens,
    max(instant + web_search_requests) as web_search_requests,
    max(output_tokens) as largest_output,
    -- these are null on nearly every line
    (max({'logged_at': logged_at, 'v': cost_usd}) filter (cost_usd is not null)).v as cost_usd,
    (max({'logged_at': logged_at, 'v': status}) filter (status is not null)).v as status,
    (max({'logged_at': logged_at, 'v': iterations}) filter (iterations is not null)).v as iterations,
    max(cache_write_5m) filter (kind = 'start') as cache_write_5m,
    max(cache_write_1h) filter (kind = 'start') as cache_write_1h,
    min(line) as line,
from repeated_line
where not finished
group by key, log;

-- A stream of which no log holds both the start and a delta is spread over them: all its events together are the
-- request, and the log that holds its first line has it.
create or replace temp table spread_stream as
select
    key,
    arg_min(log, first_line) as log,
    min(first_line) as first_line,
    sum(starts)::bigint as starts,
    sum(deltas)::bigint as deltas,
    min(began_at) as began_at,
    max(logged_at) as last_at,
    max(input_tokens) as input_tokens,
    max(cache_write_total) as cache_write_total,
    max(cache_read_input_tokens) as cache_read_input_tokens,
    max(output_tokens) as output_tokens,
    max(web_search_requests) as web_search_requests,
    max(largest_output) as largest_output,
    (max({'logged_at': logged_at, 'v': cost_usd}) filter (cost_usd is not null)).v as cost_usd,
    (max({'logged_at': logged_at, 'v': status}) filter (status is not null)).v as status,
    (max({'logged_at': logged_at, 'v': iterations}) filter (iterations is not null)).v as iterations,
    max(cache_write_5m) as cache_write_5m,
    max(cache_write_1h) as cache_write_1h,
    min(line) as line,
from fold
semi join (
    select key from fold group by key
    having count(*) > 1 and sum(starts) > 0 and sum(deltas) > 0 and max(least(starts, deltas)) = 0
) as spread on spread.key = fold.key
group by key;

delete from fold where key in (select key from spread_stream);
insert into fold select * from spread_stream;

-- Where a stream has not exactly one start, the TTL split is that of its first line.
create or replace temp table first_split as
select fold.key, fold.log, max(line.cache_write_5m) as cache_write_5m, max(line.cache_write_1h) as cache_write_1h
from fold
join repeated_line as line
    on line.key = fold.key
    and if(line.kind = 'start', 0, 1)::hugeint * 39614081257132168796771975168 + line.instant + line.ordinal
        = fold.first_line
where fold.starts <> 1
group by fold.key, fold.log;

-- A stream that two logs hold is one request logged more than once: that of the log that holds its end stands, of
-- several the one that saw it first.
create or replace temp table second_log as
select key, log
from fold
semi join (select key from fold group by key having count(*) > 1) as several on several.key = fold.key
qualify row_number() over (partition by key order by least(starts, deltas) = 0, began_at, largest_output desc nulls last, log) > 1;

-- And so is an event that its log holds twice.
create or replace temp table copy_of as
select line
from repeated_line
semi join (select key, log from fold where starts > 1 or deltas > 1) as longer
    on longer.key = repeated_line.key and longer.log = repeated_line.log
where not finished
qualify row_number() over (
    partition by
        key, log, kind, logged_at, input_tokens, cache_write_total, cache_write_5m, cache_write_1h,
        cache_read_input_tokens, output_tokens, web_search_requests, cost_usd
    order by line
) > 1;

create or replace temp table standing as
with stood as (
select
    fold.line, fold.key, fold.log as position, (first_line % 4294967296)::uinteger as ordinal, fold.logged_at,
    (fold.input_tokens % 4294967296)::uinteger as input_tokens,
    (fold.cache_write_total % 4294967296)::uinteger as cache_write_total,
    if(fold.starts = 1, fold.cache_write_5m, first_split.cache_write_5m) as cache_write_5m,
    if(fold.starts = 1, fold.cache_write_1h, first_split.cache_write_1h) as cache_write_1h,
    (fold.cache_read_input_tokens % 4294967296)::uinteger as cache_read_input_tokens,
    (fold.output_tokens % 4294967296)::uinteger as output_tokens,
    (fold.web_search_requests % 4294967296)::uinteger as web_search_requests,
    fold.cost_usd, fold.status, fold.iterations, fold.deltas = 0 as cut, true as folded,
    if(fold.starts = 1, fold.cache_write_5m, first_split.cache_write_5m) as start_5m,
    if(fold.starts = 1, fold.cache_write_1h, first_split.cache_write_1h) as start_1h,
from fold
left join first_split on first_split.key = fold.key and first_split.log = fold.log
anti join second_log on second_log.key = fold.key and second_log.log = fold.log
union all
select
    line.line, line.key, log as position, ordinal, logged_at, input_tokens, cache_write_total, cache_write_5m, cache_write_1h,
    cache_read_input_tokens, output_tokens, web_search_requests, cost_usd, status, iterations, cut, false,
    null, null,
from repeated_line as line
join finished_rank on finished_rank.line = line.line and finished_rank.standing = 1
)
select stood.* exclude (ordinal), place.hash
from stood
join place on place.origin = stood.ordinal;

-- One row a request: what stands on one line alone, and what stands for several.
create or replace temp view kept as
select
    request_id, origin as hash, logged_at, input_tokens, cache_write_total, cache_write_5m, cache_write_1h,
    cache_read_input_tokens, output_tokens, web_search_requests, cost_usd, status, iterations,
    cut or kind = 'start' as cut,
from event
anti join repeated on repeated.key = event.key
union all
select
    event.request_id, standing.hash, standing.logged_at, standing.input_tokens, standing.cache_write_total,
    standing.cache_write_5m, standing.cache_write_1h, standing.cache_read_input_tokens, standing.output_tokens,
    standing.web_search_requests, standing.cost_usd, standing.status, standing.iterations, standing.cut,
from standing
join event on event.rowid = standing.line;
