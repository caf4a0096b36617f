-- Logs that write the two lifetimes of cache writes into each other's place.
-- Rule: in the places (a key's, else a workspace's, use of all models, and of each) where no other log wrote (or, what
--   other logs hold taken off, where others wrote too; or in all of a model's use), recorded 5-minute writes equal the
--   reported 1-hour ones and the reverse: by the hour (or by those in which no other log wrote there), the day or the month,
--   whichever tells most. Claimed for a log, and for a model of it, when exchanging them leaves at most a quarter of the
--   difference in writes, which is at least a fifth of what was written, and 10 requests with writes can tell. A model
--   whose own use agrees as it is logged is left alone. Run twice: where others wrote too, once those are right.
-- Grain: explained.exchanged one row a log and model. Reads: explained.corrected, known, step (the one before this: the
--   second time it is this reason's own). Writes: explained.exchanged, note, checks.
insert into explained.exchanged
with
naming as (
    select log, 100 * coalesce(sum(requests) filter (api_key_id is not null), 0) >= 95 * sum(requests) as names_keys
    from explained.corrected
    group by log
),
span as (
    select start_on::timestamp as from_at, through_on::timestamp + interval 24 hour as until_at from source.run
),
written as (
    select corrected.log, corrected.model, corrected.hour, naming.names_keys,
        if(naming.names_keys, corrected.api_key_id, corrected.workspace_id) as place, write_5m, write_1h,
        if(write_5m + write_1h > 0, requests, 0) as requests,
    from explained.corrected as corrected
    join naming on naming.log = corrected.log
    cross join span
    where corrected.hour >= span.from_at and corrected.hour < span.until_at
),
-- a place's use is one log's where no line of another names the key, or the workspace; elsewhere the others' is taken off
shared as (
    select api_key_id as place, true as names_keys from explained.corrected
    where api_key_id is not null group by all having count(distinct log) > 1
    union all
    select workspace_id, false from explained.corrected group by all having count(distinct log) > 1
),
-- alone: the hours in which no other log wrote there, where they hold a fifth of what was written
grain as (
    select * from (values ('hour', 'hour'), ('alone', 'hour'), ('day', 'day'), ('month', 'month')) as grain (grain, span)
),
place as (
    select written.log, written.names_keys, written.place, written.model, bool_or(shared.names_keys is not null) as is_shared
    from written
    left join shared on shared.place is not distinct from written.place and shared.names_keys = written.names_keys
    group by all
    union all
    -- of a model's whole use, for a log whose lines stand in wrong places
    select distinct log, null, '*', model, true from written
),
used as (
    select hour, workspace_id, api_key_id, model, null as log,
        if(meter = 'cache_creation.ephemeral_5m_input_tokens', quantity, 0) as used_5m,
        if(meter = 'cache_creation.ephemeral_1h_input_tokens', quantity, 0) as used_1h,
    from explained.known
    where meter in ('cache_creation.ephemeral_5m_input_tokens', 'cache_creation.ephemeral_1h_input_tokens')
    union all
    select hour, workspace_id, api_key_id, model, log, -write_5m, -write_1h
    from explained.corrected
    where write_5m + write_1h > 0
),
side as (
    select place.log, place.model, place.place, place.is_shared, place.names_keys is null as is_all, hour, write_5m as logged_5m, write_1h as logged_1h,
        0 as used_5m, 0 as used_1h, 0 as others,
    from written
    join place
        on place.log = written.log and place.model = written.model
        and (place.names_keys is null or place.place is not distinct from written.place)
    union all
    select place.log, place.model, place.place, place.is_shared, place.names_keys is null, used.hour, 0, 0, used.used_5m, used.used_1h,
        if(used.log is null, 0, 1),
    from used
    join place
        on place.model = used.model and place.log is distinct from used.log
        and (
            place.names_keys is null
            or place.place is not distinct from if(place.names_keys, used.api_key_id, used.workspace_id)
        )
),
compared as (
    select grain.grain, side.log, side.place, side.is_shared, side.is_all, date_trunc(grain.span, side.hour) as hour, side.model,
        grouping(side.model) = 1 as is_whole,
        sum(logged_5m)::hugeint as logged_5m, sum(logged_1h)::hugeint as logged_1h,
        sum(used_5m)::hugeint as used_5m, sum(used_1h)::hugeint as used_1h, sum(others) = 0 as is_alone,
    from side
    cross join grain
    group by grouping sets (
        (grain.grain, side.log, side.place, side.is_shared, side.is_all, date_trunc(grain.span, side.hour), side.model),
        (grain.grain, side.log, side.place, side.is_shared, side.is_all, date_trunc(grain.span, side.hour))
    )
),
judged as (
    select grain, is_shared, is_all, log, model,
        sum(logged_5m + logged_1h) filter (counts) as written,
        sum(abs(used_5m - logged_5m) + abs(used_1h - logged_1h)) filter (counts) as as_logged,
        sum(abs(used_5m - logged_1h) + abs(used_1h - logged_5m)) filter (counts) as left_tokens,
    from (select *, grain <> 'alone' or is_alone as counts from compared)
    group by grain, is_shared, is_all, log, model, is_whole
    having 5 * coalesce(sum(logged_5m + logged_1h) filter (counts), 0) >= sum(logged_5m + logged_1h)
),
told as (
    select judged.*,
        5 * as_logged >= written and 4 * left_tokens <= as_logged as fits,
        2 * as_logged <= left_tokens and written > 0 as agrees,
    from judged
    cross join explained.step as step
    where written > 0 and (not is_shared or step.reason = 'cache_ttl')
    qualify row_number() over (
        partition by log, model
        order by (agrees and not is_all) desc, fits desc, agrees desc, left_tokens::double / nullif(as_logged, 0) nulls last,
            is_shared, is_all, grain
    ) = 1
),
having_writes as (
    select log, model, sum(requests) as requests, sum(sum(requests)) over (partition by log) as log_requests
    from written group by log, model
)
select having_writes.log, having_writes.model,
    if(coalesce(own.fits, false), own.as_logged, whole.as_logged) as as_logged,
    if(coalesce(own.fits, false), own.left_tokens, whole.left_tokens) as left_tokens,
from having_writes
left join told as own on own.log = having_writes.log and own.model = having_writes.model
left join told as whole on whole.log = having_writes.log and whole.model is null
anti join explained.exchanged as known on known.log = having_writes.log and known.model = having_writes.model
where (coalesce(own.fits, false) and having_writes.requests >= 10)
    or (coalesce(whole.fits, false) and having_writes.log_requests >= 10 and not coalesce(own.agrees, false));

delete from explained.note where reason = 'cache_ttl';

insert into explained.note
select 'cache_ttl', log, null, model, null, null, null, fact.name, to_json(fact.value)
from explained.exchanged
cross join lateral (
    select unnest([
        {'name': 'lifetimes_are_exchanged', 'value': 'on every line'},
        {'name': 'written_tokens_apart_as_logged', 'value': as_logged::varchar},
        {'name': 'written_tokens_apart_when_exchanged_back', 'value': left_tokens::varchar},
    ], recursive := true)
) as fact;

-- As much is written as before, and nothing else is touched.
create or replace view checks.exchanged_changes_a_total as
select log, line_model, if(meter like 'cache_creation.%', 'cache_creation', meter) as meter, sum(quantity) as quantity
from explained.rebooked
where reason = 'cache_ttl'
group by all
having sum(quantity) <> 0;
