-- Logs whose input counts cached tokens too.
-- Rule: per log and model, in the hours and places where no other log wrote: the input that was recorded too much equals
--   the cache reads (or reads and writes) that the log itself holds. Claimed when taking them off leaves at most half of
--   the difference in input, no request has less input than is taken off, and a quarter of what is taken off then agrees
--   to the token (1,000 requests tell without that).
-- Grain: explained.inclusive one row a log and model. Reads: explained.corrected, known, source.request. Writes: explained.
create or replace table explained.inclusive as
with
recorded as (
    select hour, workspace_id, model, service_tier, inference_geo, speed, min(log) as log,
        sum(input) as input, sum(read) as read, sum(write_5m + write_1h) as written,
    from explained.corrected
    group by all
    having count(distinct log) = 1
),
reported as (
    select hour, workspace_id, model, service_tier, inference_geo, speed, sum(quantity) as input
    from explained.known
    where meter = 'uncached_input_tokens' and in_period
    group by all
),
compared as (
    select recorded.log, recorded.model, recorded.input - coalesce(reported.input, 0) as too_much, recorded.read,
        recorded.written,
    from recorded
    left join reported
        on reported.hour = recorded.hour and reported.workspace_id is not distinct from recorded.workspace_id
        and reported.model = recorded.model and reported.service_tier = recorded.service_tier
        and reported.inference_geo = recorded.inference_geo and reported.speed = recorded.speed
    cross join source.run as run
    where recorded.hour::date between run.start_on and run.through_on
),
possible as (
    select log, model,
        bool_and(uncached_input_tokens >= cache_read_input_tokens) as holds_reads,
        bool_and(uncached_input_tokens >= cache_read_input_tokens + cache_write_5m + cache_write_1h) as holds_writes,
        sum(cache_write_5m + cache_write_1h) as written,
        count(*) as requests,
    from source.request
    group by all
),
scored as (
    select compared.log, compared.model, count(*) as hours,
        sum(abs(too_much)) as as_logged,
        case when any_value(holds_reads) then sum(abs(too_much - read)) end as without_reads,
        case when any_value(holds_writes) and any_value(possible.written) > 0 then sum(abs(too_much - read - compared.written)) end
            as without_reads_and_writes,
        coalesce(sum(read) filter (too_much = read), 0) as exact_reads,
        coalesce(sum(read + compared.written) filter (too_much = read + compared.written), 0) as exact_reads_and_writes,
        sum(read) as reads,
        sum(read + compared.written) as reads_and_writes,
        any_value(possible.requests) as requests,
    from compared
    join possible on possible.log = compared.log and possible.model = compared.model
    group by compared.log, compared.model
)
select log, model, hours, as_logged, least(without_reads, without_reads_and_writes) as left_tokens,
    if(with_writes, 'reads and writes', 'reads') as counts,
from (
    select *, coalesce(without_reads_and_writes < without_reads, without_reads is null) as with_writes from scored
)
where as_logged > 0 and 2 * least(without_reads, without_reads_and_writes) <= as_logged
    and (
        requests >= 1000
        or 4 * if(with_writes, exact_reads_and_writes, exact_reads) >= if(with_writes, reads_and_writes, reads)
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
