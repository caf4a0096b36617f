-- Whose usage no line of the logs can hold: keys that no line names, and use without a key.
-- Rule: a workspace's logs name their key where lines that do carry at least 95 % of its recorded tokens (also where
--   nothing is recorded). Only there is a key that no line names known to be unlogged, unless lines
--   without a key hold it: at least half of its use stands too much in the same hours of other workspaces, a tenth of it
--   request by request on lines that name no workspace either, or the hours of its own say so. Use without a key is taken
--   for unlogged, unless the hours say otherwise.
-- Grain: explained.naming one row a workspace; silent_key and held_here one a workspace and key; known one reported row that the logs
--   should hold; reported one a cell and key. Reads: matched.recorded, source.usage, request, key_named, explained.shift (as
--   far as it is known). Writes: explained.
create or replace temp view by_clock as
select recorded.* replace (
    date_trunc('hour', recorded.hour - to_minutes(coalesce(shift.minutes, 0)))::timestamp as hour
)
from matched.recorded as recorded
left join explained.shift as shift on shift.log = recorded.log;

create or replace table explained.naming as
select
    coalesce(used.workspace_id, logged.workspace_id) as workspace_id,
    coalesce(logged.recorded, 0) as recorded,
    coalesce(logged.named, 0) as named,
    -- where nothing is recorded: unless there are lines that name neither workspace nor key, which may belong here
    100 * coalesce(logged.named, 0) >= 95 * coalesce(logged.recorded, 0)
        and (coalesce(logged.recorded, 0) > 0 or not nameless.exist) as names_keys,
from (select distinct workspace_id from source.usage) as used
full join (
    select workspace_id, sum(quantity)::hugeint as recorded,
        coalesce(sum(quantity) filter (api_key_id is not null), 0)::hugeint as named,
    from matched.recorded
    where in_period and meter <> 'web_search_requests'
    group by workspace_id
) as logged on logged.workspace_id is not distinct from used.workspace_id
cross join (
    select count(*) > 0 as exist from matched.recorded where in_period and workspace_id is null and api_key_id is null
) as nameless;

-- Use of nobody that the logs name, key by key and without one, that a workspace's lines without a key hold: half of it stands
-- in a model's hours whose lines without a key come to just that, or without it the workspace's hours would agree much less.
-- In output tokens, which no other confusion touches.
create or replace table explained.held_here as
with
unnamed as (
    select workspace_id, api_key_id, hour, model, sum(quantity) as used
    from source.usage
    where meter = 'output_tokens' and in_period
        and (api_key_id is null or api_key_id not in (select api_key_id from source.key_named))
    group by all
),
side as (
    select workspace_id, hour, model, quantity as apart, 0 as nameless
    from source.usage
    where meter = 'output_tokens' and in_period
    union all
    select workspace_id, hour, model, -quantity, if(api_key_id is null, quantity, 0)
    from by_clock
    where meter = 'output_tokens' and in_period
),
compared as (
    select unnamed.workspace_id, unnamed.api_key_id, unnamed.hour, sum(unnamed.used) as used,
        coalesce(sum(unnamed.used) filter (slot.nameless = unnamed.used), 0) as just_that,
    from unnamed
    left join (
        select workspace_id, hour, model, sum(nameless) as nameless from side group by all
    ) as slot
        on slot.workspace_id is not distinct from unnamed.workspace_id and slot.hour = unnamed.hour
        and slot.model = unnamed.model
    group by all
),
hourly as (
    select workspace_id, hour, sum(apart) as apart,
        sum(sum(nameless)) over (partition by workspace_id) as nameless,
    from side
    group by workspace_id, hour
)
select compared.workspace_id, compared.api_key_id
from compared
join hourly
    on hourly.workspace_id is not distinct from compared.workspace_id and hourly.hour = compared.hour
group by compared.workspace_id, compared.api_key_id
having 2 * any_value(hourly.nameless) >= sum(used)
    and (2 * sum(just_that) >= sum(used) or 2 * sum(abs(apart - used) - abs(apart)) > sum(used));

create or replace table explained.silent_key as
with
silent as (
    select usage.*
    from source.usage as usage
    where usage.in_period and usage.api_key_id is not null
        and usage.api_key_id not in (select api_key_id from source.key_named)
),
-- what lines without a key hold too much in an hour of another workspace, or of none
elsewhere as (
    select hour, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, sum(quantity) as too_much
    from (
        select hour, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, quantity,
            api_key_id is null as nameless,
        from by_clock
        union all
        select hour, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, -quantity, false
        from source.usage
    )
    where model is not null
    group by all
    having bool_or(nameless) and sum(quantity) > 0
),
held as (
    select distinct silent.hour, silent.workspace_id, silent.api_key_id, silent.model, silent.service_tier,
        silent.context_window, silent.inference_geo, silent.speed, silent.meter, silent.quantity,
    from silent
    join elsewhere
        on elsewhere.hour = silent.hour and elsewhere.workspace_id is distinct from silent.workspace_id
        and elsewhere.model = silent.model and elsewhere.service_tier = silent.service_tier
        and elsewhere.context_window = silent.context_window and elsewhere.inference_geo = silent.inference_geo
        and elsewhere.speed = silent.speed and elsewhere.meter = silent.meter
        and elsewhere.too_much >= silent.quantity
),
key_use as (
    select silent.workspace_id, silent.api_key_id, sum(silent.quantity) as quantity
    from silent where silent.model is not null group by all
),
held_use as (
    select workspace_id, api_key_id, sum(quantity) as quantity from held group by all
),
-- hours of a key in which it was used once: all counters are those of a line that names neither workspace nor key, of
-- the same day or the one beside it
hour_use as (
    select day, workspace_id, api_key_id, model, sum(quantity) as quantity,
        coalesce(sum(quantity) filter (meter = 'uncached_input_tokens'), 0) as input,
        coalesce(sum(quantity) filter (meter like 'cache_creation.%'), 0) as written,
        coalesce(sum(quantity) filter (meter = 'cache_read_input_tokens'), 0) as read,
        coalesce(sum(quantity) filter (meter = 'output_tokens'), 0) as output,
    from silent
    where model is not null
    group by day, hour, workspace_id, api_key_id, model, service_tier, context_window, inference_geo, speed
),
single_use as (
    select hour_use.workspace_id, hour_use.api_key_id, sum(hour_use.quantity) as quantity
    from hour_use
    semi join (
        select day, model, uncached_input_tokens as input, cache_write_5m + cache_write_1h as written,
            cache_read_input_tokens as read, output_tokens as output,
        from source.request
        where workspace_id is null and api_key_id is null
    ) as line
        on line.model = hour_use.model and line.output = hour_use.output and line.read = hour_use.read
        and line.written = hour_use.written and abs(line.day - hour_use.day) <= 1
        -- as it is, or with what such a log counts in it as well
        and line.input in (
            hour_use.input, hour_use.input + hour_use.read, hour_use.input + hour_use.read + hour_use.written
        )
    where hour_use.output > 0
    group by all
)
select key_use.workspace_id, key_use.api_key_id, naming.recorded, naming.named,
    naming.names_keys and held_here.api_key_id is null
        and 2 * coalesce(held_use.quantity, 0) < key_use.quantity
        and 10 * coalesce(single_use.quantity, 0) < key_use.quantity as claimed,
from key_use
join explained.naming as naming on naming.workspace_id is not distinct from key_use.workspace_id
left join held_use
    on held_use.workspace_id is not distinct from key_use.workspace_id and held_use.api_key_id = key_use.api_key_id
left join single_use
    on single_use.workspace_id is not distinct from key_use.workspace_id and single_use.api_key_id = key_use.api_key_id
left join explained.held_here as held_here
    on held_here.workspace_id is not distinct from key_use.workspace_id and held_here.api_key_id = key_use.api_key_id;

-- Use without a key that a workspace's logs hold.
create or replace table explained.keyless as
select usage.workspace_id, bool_or(held_here.workspace_id is not null) as logged
from source.usage as usage
left join explained.held_here as held_here
    on held_here.api_key_id is null and held_here.workspace_id is not distinct from usage.workspace_id
where usage.api_key_id is null and usage.in_period and usage.meter <> 'web_search_requests'
group by usage.workspace_id;

create or replace table explained.known as
select usage.*
from source.usage as usage
join explained.naming as naming on naming.workspace_id is not distinct from usage.workspace_id
left join explained.silent_key as silent
    on silent.workspace_id is not distinct from usage.workspace_id and silent.api_key_id = usage.api_key_id
left join explained.keyless as keyless on keyless.workspace_id is not distinct from usage.workspace_id
where
    case
        when usage.api_key_id is null then coalesce(keyless.logged, false)
        -- where nothing at all is recorded, another workspace's lines may be what is missing here
        else naming.recorded = 0 or not coalesce(silent.claimed, false)
    end;

create or replace table explained.reported as
select cell.cell_id, cell.workspace_id, cell.meter, usage.api_key_id,
    sum(usage.quantity)::bigint as quantity,
    sum(usage.quantity) filter (usage.account_id is not null)::bigint as account_quantity,
    sum(usage.quantity) filter (usage.service_account_id is not null)::bigint as service_account_quantity,
from source.usage as usage
join explained.cell as cell
    on cell.day = usage.day and cell.meter = usage.meter
    and cell.workspace_id is not distinct from usage.workspace_id
    and cell.model is not distinct from usage.model
    and cell.service_tier is not distinct from usage.service_tier
    and cell.context_window is not distinct from usage.context_window
    and cell.inference_geo is not distinct from usage.inference_geo
    and cell.speed is not distinct from usage.speed
group by all;
