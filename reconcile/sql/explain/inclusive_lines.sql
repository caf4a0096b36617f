-- Single lines whose input counts cached tokens too, as those of one instance of several.
-- Rule: one, two or three lines of a place and hour (of at most 12 that could) whose cached tokens are, to the token, what is
--   too much there, while reads are not. Claimed for a log where they are half of what it has too much, in five hours at
--   least, and for the models of which they leave less than what was found before; of a whole log only where one in ten such
--   hours has other lines that could hold theirs, and do not.
-- Grain: explained.inclusive_line one row a line. Reads: explained.fixed, compared, inclusive. Writes:
--   explained.inclusive_line, inclusive, note, checks.
create or replace table explained.inclusive_line as
with
-- a line is known by its instant
alone as (
    select log, model, hour, logged_at, api_key_id,
        to_json([workspace_id, service_tier, inference_geo, speed])::varchar as place,
        uncached_input_tokens + cached_in_input as input, cache_read_input_tokens as read, cache_write_5m + cache_write_1h as written,
    from explained.fixed
    qualify count(*) over (partition by log, model, logged_at) = 1
),
holding as (
    select 'cells' as way, * exclude (api_key_id) from alone
    union all by name
    select 'key' as way, * exclude (api_key_id, place), api_key_id as place from alone
),
line as (
    select * exclude (input, read, written), count(*) over crowd as holders, row_number() over (crowd order by logged_at) as number,
    from (
        select holding.*, compared.too_much, counts.counts,
            explained.cached_in_input(counts.counts, holding.input, holding.read, holding.written) as taken,
        from holding
        join explained.compared as compared
            on compared.way = holding.way and compared.grain = 'hour' and compared.log = holding.log
            and compared.model = holding.model and compared.hour = holding.hour and compared.place = holding.place
        cross join (values ('reads'), ('reads and writes')) as counts (counts)
        -- a line too many has reads too many
        where compared.too_much > 0 and compared.too_much_read <= 0
    )
    where taken > 0
    window crowd as (partition by way, log, model, hour, place, counts)
    qualify holders <= 12
),
met as (
    select * exclude (logged_at), [logged_at] as instants from line where taken = too_much
    union all
    select a.* exclude (logged_at), [a.logged_at, b.logged_at]
    from line as a
    join line as b using (way, log, model, hour, place, counts)
    where a.number < b.number and a.taken + b.taken = a.too_much
    union all
    select a.* exclude (logged_at), [a.logged_at, b.logged_at, c.logged_at]
    from line as a
    join line as b using (way, log, model, hour, place, counts)
    join line as c using (way, log, model, hour, place, counts)
    where a.number < b.number and b.number < c.number and a.taken + b.taken + c.taken = a.too_much
),
fewest as (
    select *
    from met
    qualify row_number() over (partition by way, log, model, hour, place, counts order by len(instants), instants) = 1
),
-- where it is what most is too much by, in all models of the log
shown as (
    select log, way, counts, 10 * fewest.among_others >= fewest.cells as are_single
    from (
        select log, way, sum(too_much) as too_much from explained.compared where grain = 'hour' and too_much > 0 group by log, way
    ) as whole
    join (
        select log, way, counts, sum(too_much) as met, count(*) as cells, count(*) filter (len(instants) < holders) as among_others,
        from fewest
        group by all
    ) as fewest using (log, way)
    where fewest.cells >= 5 and 2 * fewest.met >= whole.too_much
    qualify row_number() over (partition by log order by fewest.met desc, way, counts) = 1
),
-- and leaves less of a model than what is found above; of a whole log, where other lines beside them could hold theirs
open as (
    select log, model, way, sum(greatest(too_much, 0)) as too_much, sum(abs(too_much)) as as_logged
    from explained.compared
    where grain = 'hour'
    group by log, model, way
),
found as (
    select inclusive.log, inclusive.model,
        bool_or(isfinite(from_at) or isfinite(until_at) or api_key_id is not null) as in_part,
        case
            when in_part then 1 - sum(inclusive.as_logged - left_tokens) / any_value(open.as_logged)
            else sum(left_tokens) / sum(inclusive.as_logged)
        end as left_part,
    from explained.inclusive as inclusive
    left join open on open.log = inclusive.log and open.model = inclusive.model and open.way = 'cells'
    group by inclusive.log, inclusive.model
),
told as (
    select fewest.log, fewest.model, fewest.way, fewest.counts
    from fewest
    join shown using (log, way, counts)
    join open using (log, model, way)
    left join found using (log, model)
    where shown.are_single or coalesce(found.in_part, true)
    group by fewest.log, fewest.model, fewest.way, fewest.counts
    having 1 - sum(fewest.too_much) / any_value(open.too_much) < coalesce(any_value(found.left_part), 1)
)
select log, model, unnest(instants) as logged_at, counts
from fewest
semi join told using (log, model, way, counts);

delete from explained.inclusive as known
where (known.log, known.model) in (select (log, model) from explained.inclusive_line);

insert into explained.note
select 'cache_inclusive', log, null, model, null, null, null, fact.name, fact.value
from (
    select log, model, string_agg(distinct counts, ', ' order by counts) as counts, sum(as_logged) as as_logged,
        sum(left_tokens) as left_tokens, sum(hours) as hours,
        list(distinct api_key_id order by api_key_id) filter (api_key_id is not null) as keys,
        min(from_at) as from_at, max(until_at) as until_at, null as lines,
    from explained.inclusive
    group by log, model
    union all
    select log, model, any_value(counts), null, null, null, null, null, null, count(*)
    from explained.inclusive_line
    group by log, model
)
cross join lateral (
    select unnest([
        {'name': 'input_also_counts', 'value': to_json(counts)},
        {'name': 'on_single_lines', 'value': to_json(lines::varchar)},
        {'name': 'of_the_keys', 'value': to_json(keys)},
        {'name': 'from', 'value': if(isfinite(from_at), to_json(strftime(from_at, '%Y-%m-%dT%H:%MZ')), null)},
        {'name': 'until', 'value': if(isfinite(until_at), to_json(strftime(until_at, '%Y-%m-%dT%H:%MZ')), null)},
        {'name': 'input_tokens_apart_as_logged', 'value': to_json(as_logged::varchar)},
        {'name': 'input_tokens_apart_without_them', 'value': to_json(left_tokens::varchar)},
        {'name': 'hours_compared', 'value': to_json(hours::varchar)},
    ], recursive := true)
) as fact
where fact.value is not null;

-- The input of these lines falls by what they hold of cached tokens; nothing else changes in sum.
create or replace view checks.cache_inclusive_takes_other_than_cached as
with cached as (
    select log, model, 'uncached_input_tokens' as meter, sum(cached_in_input) as quantity
    from explained.fixed
    where cached_in_input > 0
    group by log, model
)
select taken.log, taken.model, taken.meter, taken.quantity, cached.quantity as cached
from (
    select log, line_model as model, meter, -sum(quantity) as quantity
    from explained.rebooked
    where reason = 'cache_inclusive'
    group by all
) as taken
full join cached using (log, model, meter)
where coalesce(taken.quantity, 0) <> coalesce(cached.quantity, 0);
