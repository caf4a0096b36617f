-- Logs whose input counts cached tokens too.
-- Rule: in the hours and places (a model's cells; or a key's, else a workspace's, whole use) where no other log wrote, the
--   input that was recorded too much equals the cache reads (or reads and writes) that the log itself holds. Claimed for
--   a log and model when taking them off leaves at most half of the difference in input, no request has less input than
--   is taken off, and a quarter of what is taken off then agrees to the token (1,000 requests tell without that, and 50 when
--   less than a fifth of the difference is left), by the hour or by the day; and for all models of a log whose keys' whole use shows it, save those whose own cells agree as they are logged.
-- Grain: explained.inclusive one row a log and model. Reads: explained.corrected, known, fixed_iteration, source.request.
-- Writes: explained, checks.
create or replace table explained.inclusive as
with
naming as (
    select log, 100 * count(api_key_id) >= 95 * count(*) as names_keys from source.request group by log
),
span as (
    select start_on::timestamp as from_at, through_on::timestamp + interval 24 hour as until_at from source.run
),
-- by the hour, and by the day for a log that is late
grain as (
    select unnest(['hour', 'day']) as grain
),
-- the extra turns of a request stand in no counter of its line
told as (
    select hour, workspace_id, model, service_tier, inference_geo, speed, api_key_id, quantity
    from explained.known
    where meter = 'uncached_input_tokens'
    union all
    select hour, workspace_id, model, service_tier, inference_geo, speed, api_key_id, -quantity
    from explained.fixed_iteration
    where meter = 'uncached_input_tokens'
),
of_model as (
    select grain, date_trunc(grain, hour) as hour, to_json([workspace_id, service_tier, inference_geo, speed])::varchar as place, model, min(log) as log,
        sum(input) as input, sum(read) as read, sum(write_5m + write_1h) as written,
    from explained.corrected cross join span cross join grain
    where corrected.hour >= span.from_at and corrected.hour < span.until_at
    group by all
    having count(distinct log) = 1
),
of_model_reported as (
    select grain, date_trunc(grain, hour) as hour, to_json([workspace_id, service_tier, inference_geo, speed])::varchar as place, model,
        sum(quantity) as input,
    from told cross join grain
    group by all
),
of_log as (
    select grain, date_trunc(grain, hour) as hour, if(naming.names_keys, corrected.api_key_id, corrected.workspace_id) as place, naming.names_keys,
        min(corrected.log) as log, sum(input) as input, sum(read) as read, sum(write_5m + write_1h) as written,
    from explained.corrected as corrected
    join naming on naming.log = corrected.log
    cross join span cross join grain
    where corrected.hour >= span.from_at and corrected.hour < span.until_at
    group by all
    having count(distinct corrected.log) = 1
),
of_log_reported as (
    select grain, date_trunc(grain, hour) as hour, if(names_keys, api_key_id, workspace_id) as place, names_keys, sum(quantity) as input
    from told cross join (values (true), (false)) as way (names_keys) cross join grain
    group by all
),
compared as (
    select of_model.grain, of_model.log, of_model.model, of_model.input - coalesce(reported.input, 0) as too_much, of_model.read,
        of_model.written,
    from of_model
    left join of_model_reported as reported
        on reported.grain = of_model.grain and reported.hour = of_model.hour and reported.place = of_model.place and reported.model = of_model.model
    union all
    select of_log.grain, of_log.log, null, of_log.input - coalesce(reported.input, 0), of_log.read, of_log.written
    from of_log
    left join of_log_reported as reported
        on reported.grain = of_log.grain and reported.hour = of_log.hour and reported.place = of_log.place and reported.names_keys = of_log.names_keys
),
possible as (
    select log, model,
        bool_and(uncached_input_tokens >= cache_read_input_tokens) as holds_reads,
        bool_and(uncached_input_tokens >= cache_read_input_tokens + cache_write_5m + cache_write_1h) as holds_writes,
        sum(cache_read_input_tokens) as read,
        sum(cache_write_5m + cache_write_1h) as written,
        count(*) as requests,
    from source.request
    group by grouping sets ((log, model), (log))
),
scored as (
    select compared.grain, compared.log, compared.model, count(*) as hours,
        sum(abs(too_much)) as as_logged,
        case when any_value(holds_reads) then sum(abs(too_much - compared.read)) end as without_reads,
        case
            when any_value(holds_writes) and any_value(possible.written) > 0
            then sum(abs(too_much - compared.read - compared.written))
        end as without_reads_and_writes,
        coalesce(sum(compared.read) filter (too_much = 0), 0) as reads_that_agree,
        coalesce(sum(compared.read) filter (too_much = compared.read), 0) as exact_reads,
        coalesce(sum(compared.read + compared.written) filter (too_much = compared.read + compared.written), 0)
            as exact_reads_and_writes,
        sum(compared.read) as reads,
        sum(compared.read + compared.written) as reads_and_writes,
        any_value(possible.requests) as requests,
    from compared
    join possible on possible.log = compared.log and possible.model is not distinct from compared.model
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
)
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
    );

insert into explained.note
select 'cache_inclusive', log, null, model, null, null, null, fact.name, to_json(fact.value)
from explained.inclusive
cross join lateral (
    select unnest([
        {'name': 'input_also_counts', 'value': counts},
        {'name': 'input_tokens_apart_as_logged', 'value': as_logged::varchar},
        {'name': 'input_tokens_apart_without_them', 'value': left_tokens::varchar},
        {'name': 'hours_compared', 'value': hours::varchar},
    ], recursive := true)
) as fact;

-- The input of these lines falls by what they hold of cached tokens; nothing else changes in sum.
create or replace view checks.cache_inclusive_takes_other_than_cached as
with cached as (
    select inclusive.log, inclusive.model, 'uncached_input_tokens' as meter,
        sum(cache_read_input_tokens + if(counts = 'reads', 0, cache_write_5m + cache_write_1h)) as quantity,
    from explained.inclusive as inclusive
    join source.request as request on request.log = inclusive.log and request.model = inclusive.model
    group by all
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
