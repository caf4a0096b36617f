-- Logs whose input counts cached tokens too, of which no place is their own: they name no key, and no workspace or a wrong one.
-- Rule: a log and model of which nothing was found and no place agrees is compared with the model's use wherever it was reported,
--   less what the other logs hold of it, by now without what was found. Claimed when taking cached tokens off leaves half of
--   the difference and a quarter of what is taken off then agrees to the token, by the hour; or, for a log whose hours are not
--   the provider's, when the month of three of its models (those found before count) is too much by what they hold, but for
--   a tenth.
-- Grain: explained.inclusive one row a log and model. Reads: explained.held, compared, inclusive, fixed, known,
--   fixed_iteration. Writes: explained.inclusive.
insert into explained.inclusive
with
lost as (
    select log, model
    from explained.held
    anti join explained.inclusive using (log, model)
    anti join (
        select log, model from explained.compared group by log, model
        having sum(cached) > 0 and 4 * coalesce(sum(cached) filter (too_much = 0), 0) >= sum(cached)
    ) as agreeing using (log, model)
    group by log, model
    having sum(cached) > 0
),
way as (
    select way, grain from (select unnest(['cells', 'model']) as way) cross join (select unnest(['hour', 'month']) as grain)
),
own as (
    select way, grain, log, model, if(grain = 'hour', hour, null) as hour,
        if(way = 'cells', to_json([service_tier, inference_geo, speed])::varchar, '') as place,
        sum(input) as input, sum(read) as read, sum(cached) as cached, sum(held_read) as held_read, sum(held_cached) as held_cached,
    from explained.held join lost using (log, model) cross join way
    group by all
    having sum(cached) > 0
),
told as (
    select null as log, hour, model, service_tier, inference_geo, speed, quantity
    from explained.known
    where meter = 'uncached_input_tokens'
    union all
    select null, hour, model, service_tier, inference_geo, speed, -quantity
    from explained.fixed_iteration
    where meter = 'uncached_input_tokens'
    union all
    select log, hour, model, service_tier, inference_geo, speed, -uncached_input_tokens
    from explained.fixed
),
used as (
    select way, grain, log, model, if(grain = 'hour', hour, null) as hour,
        if(way = 'cells', to_json([service_tier, inference_geo, speed])::varchar, '') as place, sum(quantity) as input,
    from told join (select distinct model from lost) as models using (model) cross join way cross join source.run
    where hour >= start_on::timestamp and hour < through_on::timestamp + interval 24 hour
    group by all
),
beside as (
    select own.way, own.grain, own.log, own.model, own.hour, any_value(own.cached) as cached, any_value(own.read) as read,
        any_value(own.input) - sum(used.input) as too_much,
        unnest(['reads', 'reads and writes']) as counts,
        unnest([any_value(own.held_read), any_value(own.held_cached)]) as taken,
    from own
    join used
        on used.way = own.way and used.grain = own.grain and used.model = own.model
        and used.hour is not distinct from own.hour and used.place = own.place and used.log is distinct from own.log
    group by own.way, own.grain, own.log, own.model, own.hour, own.place
    having bool_or(used.log is null)
),
scored as (
    select way, grain, log, model, counts, if(grain = 'hour', count(*), null) as hours, sum(abs(too_much)) as as_logged, sum(abs(too_much - taken)) as left_tokens,
        4 * coalesce(sum(taken) filter (too_much = taken), 0) >= sum(if(counts = 'reads', read, cached)) as fits,
        4 * coalesce(sum(cached) filter (too_much = 0), 0) >= sum(cached) as agrees,
    from beside
    group by way, grain, log, model, counts
),
-- three models (the ones found above count) whose month is too much by what they hold: of a log whose hours are not the
-- provider's
monthly as (
    select way, log, counts
    from scored
    left join (select log, counts, count(distinct model) as models from explained.inclusive group by all) as found using (log, counts)
    where grain = 'month'
    group by way, log, counts
    having count(*) filter (10 * left_tokens <= as_logged) + coalesce(any_value(found.models), 0) >= 3
        and 10 * sum(left_tokens) <= sum(as_logged)
)
select log, model, null, '-infinity'::timestamp, 'infinity'::timestamp, counts, hours, as_logged, left_tokens,
from scored
left join monthly using (way, log, counts)
where 2 * left_tokens <= as_logged and not agrees and if(grain = 'hour', fits, monthly.log is not null)
qualify row_number() over (partition by log, model order by grain, left_tokens, counts, way) = 1;
