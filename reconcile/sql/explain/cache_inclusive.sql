-- Logs whose input counts cached tokens too.
-- Rule: in the hours and places (a model's cells; or a key's, else a workspace's, whole use) of which something was reported
--   and no other log wrote, the input that was recorded too much equals the cache reads (or reads and writes) that the log
--   itself holds, on lines whose input is not too small for them: such lines hold 95 % of them. Claimed for a log and model
--   when taking them off leaves at most half of the difference in input, and a quarter of what is taken off then agrees to
--   the token (1,000 requests tell without that, and 50 when less than a fifth of the difference is left), by the hour or by
--   the day; and for all models of a log whose keys' whole use shows it, save those whose own cells agree as they are logged.
--   Else for a part: the hours on end in which taking them off gains most, of the model or of one of its keys: a day of
--   them or all there are, of 20 requests, when it leaves a tenth of the difference and half of what is taken off then
--   agrees to the token.
-- Grain: explained.inclusive one row a log and model, or a log, model and key. Reads: explained.fixed, known,
--   fixed_iteration. Writes: explained.held, compared, inclusive.
create or replace table explained.held as
select fixed.hour, workspace_id, model, service_tier, inference_geo, speed, log, api_key_id,
    count(*) as requests, sum(uncached_input_tokens)::bigint as input, sum(cache_read_input_tokens)::bigint as read,
    sum(cache_read_input_tokens + cache_write_5m + cache_write_1h)::bigint as cached,
    sum(explained.cached_in_input(
        'reads', uncached_input_tokens, cache_read_input_tokens, cache_write_5m + cache_write_1h
    ))::bigint as held_read,
    sum(explained.cached_in_input(
        'reads and writes', uncached_input_tokens, cache_read_input_tokens, cache_write_5m + cache_write_1h
    ))::bigint as held_cached,
from explained.fixed as fixed
cross join source.run
where fixed.hour >= start_on::timestamp and fixed.hour < through_on::timestamp + interval 24 hour
group by all;

create or replace table explained.compared as
with
naming as (
    select log, 100 * coalesce(sum(requests) filter (api_key_id is not null), 0) >= 95 * sum(requests) as names_keys
    from explained.held
    group by log
),
-- by the hour, and by the day for a log that is late
grain as (
    select unnest(['hour', 'day']) as grain
),
-- a model's cells; the whole use of a key, or of a workspace; a key's use of a model
placed as (
    select 'cells' as way, grain, date_trunc(grain, held.hour) as hour, model, null as names_keys,
        to_json([workspace_id, service_tier, inference_geo, speed])::varchar as place, held.* exclude (hour, model),
    from explained.held as held cross join grain
    union all
    select 'whole', grain, date_trunc(grain, held.hour), null, names_keys, if(names_keys, api_key_id, workspace_id),
        held.* exclude (hour, model),
    from explained.held as held cross join grain join naming on naming.log = held.log
    union all
    select 'key', 'hour', held.hour, model, null, api_key_id, held.* exclude (hour, model)
    from explained.held as held join naming on naming.log = held.log
    where names_keys and api_key_id is not null
),
logged as (
    select way, grain, hour, model, names_keys, place, min(log) as log, sum(requests) as requests, sum(input) as input,
        sum(read) as read, sum(cached) as cached, sum(held_read) as held_read, sum(held_cached) as held_cached,
    from placed
    group by all
    having count(distinct log) = 1
),
-- the extra turns of a request stand in no counter of its line
told as (
    select * exclude (meter, quantity),
        if(meter = 'uncached_input_tokens', quantity, 0) as input, if(meter = 'cache_read_input_tokens', quantity, 0) as read,
    from (
        select hour, workspace_id, model, service_tier, inference_geo, speed, api_key_id, meter, quantity
        from explained.known
        union all
        select hour, workspace_id, model, service_tier, inference_geo, speed, api_key_id, meter, -quantity
        from explained.fixed_iteration
    )
    where meter in ('uncached_input_tokens', 'cache_read_input_tokens')
),
reported as (
    select 'cells' as way, grain, date_trunc(grain, hour) as hour, model, null as names_keys,
        to_json([workspace_id, service_tier, inference_geo, speed])::varchar as place, sum(input) as input, sum(read) as read,
    from told cross join grain
    group by all
    union all
    select 'whole', grain, date_trunc(grain, hour), null, names_keys, if(names_keys, api_key_id, workspace_id), sum(input), sum(read)
    from told cross join (values (true), (false)) as side (names_keys) cross join grain
    group by all
    union all
    select 'key', 'hour', hour, model, null, api_key_id, sum(input), sum(read) from told group by all
)
select logged.way, logged.grain, logged.log, logged.model, if(logged.way = 'key', logged.place, null) as api_key_id,
    logged.place, logged.hour, logged.requests, logged.input - reported.input as too_much,
    logged.read - reported.read as too_much_read, logged.read, logged.cached, logged.held_read, logged.held_cached,
from logged
join reported -- where nothing is reported, the log may name the wrong place
    on reported.way = logged.way and reported.grain = logged.grain and reported.hour = logged.hour
    and reported.model is not distinct from logged.model and reported.names_keys is not distinct from logged.names_keys
    and reported.place = logged.place;

create or replace table explained.inclusive as
with
possible as (
    select log, model,
        20 * sum(held_read) >= 19 * sum(read) as holds_reads,
        20 * sum(held_cached) >= 19 * sum(cached) as holds_writes,
        sum(read) as read,
        sum(cached) - sum(read) as written,
        sum(requests) as requests,
    from explained.held
    group by grouping sets ((log, model), (log))
),
scored as (
    select compared.grain, compared.log, compared.model, count(*) as hours,
        sum(abs(too_much)) as as_logged,
        case when any_value(holds_reads) then sum(abs(too_much - held_read)) end as without_reads,
        case
            when any_value(holds_writes) and any_value(possible.written) > 0 then sum(abs(too_much - held_cached))
        end as without_reads_and_writes,
        coalesce(sum(compared.read) filter (too_much = 0), 0) as reads_that_agree,
        coalesce(sum(compared.read) filter (too_much = held_read), 0) as exact_reads,
        coalesce(sum(compared.cached) filter (too_much = held_cached), 0) as exact_reads_and_writes,
        sum(compared.read) as reads,
        sum(compared.cached) as reads_and_writes,
        any_value(possible.requests) as requests,
    from explained.compared as compared
    join possible on possible.log = compared.log and possible.model is not distinct from compared.model
    where compared.way <> 'key'
    group by compared.grain, compared.log, compared.model
),
judged as (
    select *,
        if(with_writes, 'reads and writes', 'reads') as counts,
        least(without_reads, without_reads_and_writes) as left_tokens,
        as_logged > 0 and 2 * least(without_reads, without_reads_and_writes) <= as_logged
            and (
                requests >= 1000
                or (requests >= 50 and 5 * least(without_reads, without_reads_and_writes) <= as_logged)
                or 4 * if(with_writes, exact_reads_and_writes, exact_reads) >= if(with_writes, reads_and_writes, reads)
            ) as shown,
        4 * reads_that_agree >= reads and reads > 0 as agrees,
    from (
        select *, coalesce(without_reads_and_writes < without_reads, without_reads is null) as with_writes from scored
    )
    -- the grain at which most is explained
    qualify row_number() over (
        partition by log, model
        order by shown desc, agrees desc, left_tokens::double / nullif(as_logged, 0) nulls last, grain desc
    ) = 1
),
throughout as (
    select possible.log, possible.model,
        coalesce(own.hours, whole.hours) as hours,
        if(coalesce(own.shown, false), own.as_logged, whole.as_logged) as as_logged,
        if(coalesce(own.shown, false), own.left_tokens, whole.left_tokens) as left_tokens,
        if(coalesce(own.shown, false), own.counts, whole.counts) as counts,
    from possible
    left join judged as own on own.log = possible.log and own.model = possible.model
    left join judged as whole on whole.log = possible.log and whole.model is null
    where possible.model is not null and possible.read + possible.written > 0
        and (
            coalesce(own.shown, false)
            or (coalesce(whole.shown, false) and not coalesce(own.agrees, false)
                and if(whole.counts = 'reads', possible.holds_reads, possible.holds_writes))
        )
),
-- of the rest, what is gained hour by hour, of a model and of each of its keys
gaining as (
    select way, log, model, api_key_id, counts, hour,
        sum(requests) as requests, sum(abs(too_much)) as as_logged, sum(abs(too_much - taken)) as left_tokens, sum(taken) as taken,
        coalesce(sum(taken) filter (too_much = taken), 0) as exact,
        sum(abs(too_much) - abs(too_much - taken)) as gain,
    from (
        select *, unnest(['reads', 'reads and writes']) as counts, unnest([held_read, held_cached]) as taken,
        from explained.compared
        where way <> 'whole' and grain = 'hour'
    )
    anti join throughout using (log, model)
    group by way, log, model, api_key_id, counts, hour
    having sum(cached) > 0
),
-- the hours on end in which most is gained: the sum so far less the lowest before it
reaching as (
    select *, upto - gain as before, upto - min(upto - gain) over (hours rows unbounded preceding) as rise
    from (
        select *, sum(gain) over (hours rows unbounded preceding) as upto
        from gaining
        window hours as (partition by way, log, model, api_key_id, counts order by hour)
    )
    window hours as (partition by way, log, model, api_key_id, counts order by hour)
),
ending as (
    select way, log, model, api_key_id, counts, arg_max(hour, (rise, -epoch(hour))) as last_hour, max(rise) as rise,
        arg_max(upto - rise, (rise, -epoch(hour))) as lowest, min(hour) as first_of_all, max(hour) as last_of_all,
    from reaching
    group by way, log, model, api_key_id, counts
),
stretch as (
    select reaching.way, reaching.log, reaching.model, reaching.api_key_id, reaching.counts, any_value(ending.rise) as rise,
        any_value(ending.first_of_all) as first_of_all, any_value(ending.last_of_all) as last_of_all,
        max(reaching.hour) filter (reaching.before = ending.lowest) as first_hour, any_value(ending.last_hour) as last_hour,
    from reaching
    join ending
        on ending.way = reaching.way and ending.log = reaching.log and ending.model = reaching.model
        and ending.api_key_id is not distinct from reaching.api_key_id and ending.counts = reaching.counts
        and reaching.hour <= ending.last_hour
    where ending.rise > 0
    group by reaching.way, reaching.log, reaching.model, reaching.api_key_id, reaching.counts
),
part as (
    select stretch.way, stretch.log, stretch.model, stretch.api_key_id, stretch.counts,
        if(first_hour = first_of_all, '-infinity'::timestamp, first_hour) as from_at,
        if(last_hour = last_of_all, 'infinity'::timestamp, last_hour + interval 1 hour) as until_at,
        count(*) as hours, sum(as_logged) as as_logged, sum(left_tokens) as left_tokens, any_value(rise) as rise,
    from stretch
    join gaining
        on gaining.way = stretch.way and gaining.log = stretch.log and gaining.model = stretch.model
        and gaining.api_key_id is not distinct from stretch.api_key_id and gaining.counts = stretch.counts
        and gaining.hour between stretch.first_hour and stretch.last_hour
    group by stretch.way, stretch.log, stretch.model, stretch.api_key_id, stretch.counts, first_hour, last_hour, first_of_all, last_of_all
    having 10 * sum(left_tokens) <= sum(as_logged) and 2 * sum(exact) >= sum(taken) and sum(requests) >= 20
        and (last_hour >= first_hour + interval 23 hour or (first_hour = first_of_all and last_hour = last_of_all))
    qualify row_number() over (
        partition by stretch.way, stretch.log, stretch.model, stretch.api_key_id order by any_value(rise) desc, stretch.counts
    ) = 1
)
select log, model, null as api_key_id, '-infinity'::timestamp as from_at, 'infinity'::timestamp as until_at, counts, hours,
    as_logged, left_tokens,
from throughout
union all
select log, model, api_key_id, from_at, until_at, counts, hours, as_logged, left_tokens
from part
-- of a model as a whole where that gains as much as its keys one by one
qualify (way = 'cells') = (
    coalesce(sum(rise) filter (way = 'cells') over (partition by log, model), 0)
    >= coalesce(sum(rise) filter (way = 'key') over (partition by log, model), 0)
);
