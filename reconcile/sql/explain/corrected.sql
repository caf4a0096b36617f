-- The recorded side as the systematic reasons found so far leave it: clocks set right, cached tokens counted once,
-- exchanged lifetimes exchanged back, lines in the workspace of the key that they name.
-- Rule: what a correction moves between cells is its claim: corrected less before, cell by cell.
-- Grain: explained.corrected one row (hour, cell dimensions without meter, log, key, cut).
-- Reads: source.request, explained.shift, inclusive, exchanged, stray, step (the reason that is being booked). Writes: explained.
create or replace table explained.before as
select * from explained.corrected;

create or replace table explained.corrected as
with fixed as (
    select
        request.* exclude (day, hour, uncached_input_tokens, cache_write_5m, cache_write_1h, context_window, workspace_id),
        if(step.moves_workspaces, coalesce(stray.workspace_id, request.workspace_id), request.workspace_id) as workspace_id,
        stray.workspace_id as key_workspace_id,
        request.logged_at - to_minutes(coalesce(shift.minutes, 0)) as counted_at,
        request.context_window as context_window_before,
        request.uncached_input_tokens - case inclusive.counts
            when 'reads' then request.cache_read_input_tokens
            when 'reads and writes' then request.cache_read_input_tokens + request.cache_write_5m + request.cache_write_1h
            else 0
        end as uncached_input_tokens,
        inclusive.counts is not null as is_fixed,
        if(exchanged.log is null, request.cache_write_5m, request.cache_write_1h) as cache_write_5m,
        if(exchanged.log is null, request.cache_write_1h, request.cache_write_5m) as cache_write_1h,
    from source.request as request
    cross join (select coalesce(bool_or(reason = 'workspace'), false) as moves_workspaces from explained.step) as step
    left join explained.shift as shift on shift.log = request.log
    left join explained.stray as stray
        on stray.api_key_id = request.api_key_id and stray.logged_workspace_id is not distinct from request.workspace_id
    left join explained.inclusive as inclusive on inclusive.log = request.log and inclusive.model = request.model
    -- of what was never reported nobody knows which lifetime was meant
    left join explained.exchanged as exchanged
        on exchanged.log = request.log and exchanged.model = request.model
        and request.biller is null and coalesce(request.status, 0) < 400
)
select
    date_trunc('hour', counted_at)::timestamp as hour,
    counted_at::date as day,
    workspace_id, model, service_tier,
    case
        when not is_fixed then context_window_before
        when uncached_input_tokens + cache_read_input_tokens + cache_write_5m + cache_write_1h > 200000 then '200k-1M'
        else '0-200k'
    end as context_window,
    inference_geo, speed, log, api_key_id, cut, key_workspace_id,
    count(*) as requests,
    sum(uncached_input_tokens)::bigint as input,
    sum(cache_write_5m)::bigint as write_5m,
    sum(cache_write_1h)::bigint as write_1h,
    sum(cache_read_input_tokens)::bigint as read,
    sum(output_tokens)::bigint as output,
    sum(web_search_requests)::bigint as searches,
from fixed
group by all;

-- A correction may lead over a cell that neither side has in the end: it stands in the list with nothing on either side,
-- so that what comes in and what goes out both stand somewhere.
insert into explained.cell by name
with metered as (
    select distinct day, workspace_id, model, service_tier, context_window, inference_geo, speed, unnest([
        'uncached_input_tokens', 'cache_creation.ephemeral_5m_input_tokens', 'cache_creation.ephemeral_1h_input_tokens',
        'cache_read_input_tokens', 'output_tokens',
    ]) as meter
    from explained.corrected
),
missing as (
    select metered.*, price.price_unit, price.list_price_usd, price.price_usd, price.price_high_usd, price.contract_price_usd
    from metered
    join matched.price as price
        on price.day = metered.day and price.model = metered.model and price.service_tier = metered.service_tier
        and price.context_window = metered.context_window and price.inference_geo = metered.inference_geo
        and price.speed = metered.speed and price.meter = metered.meter
    join source.run as run on metered.day between run.start_on and run.through_on
    anti join explained.cell as cell
        on cell.day = metered.day and cell.meter = metered.meter
        and cell.workspace_id is not distinct from metered.workspace_id
        and cell.model is not distinct from metered.model
        and cell.service_tier is not distinct from metered.service_tier
        and cell.context_window is not distinct from metered.context_window
        and cell.inference_geo is not distinct from metered.inference_geo
        and cell.speed is not distinct from metered.speed
)
select
    (select coalesce(max(cell_id), 0) from explained.cell) + row_number() over (
        order by day, workspace_id nulls last, model, service_tier, context_window, inference_geo, speed, meter
    ) as cell_id,
    missing.*, true as in_period, 0::decimal(38, 12) as quantity_variance_usd, 0::decimal(38, 12) as price_variance_usd,
    0::decimal(38, 12) as difference_usd, 0 as variance_quantity,
from missing;

insert into explained.claim (cell_id, position, reason, confidence, log, place_workspace_id, place_model, quantity)
with
side as (
    select 1 as sign, * from explained.corrected
    union all
    select -1, * from explained.before
),
metered as (
    select day, workspace_id, model, service_tier, context_window, inference_geo, speed, log, sign,
        key_workspace_id, unnest([
        {'meter': 'uncached_input_tokens', 'quantity': input},
        {'meter': 'cache_creation.ephemeral_5m_input_tokens', 'quantity': write_5m},
        {'meter': 'cache_creation.ephemeral_1h_input_tokens', 'quantity': write_1h},
        {'meter': 'cache_read_input_tokens', 'quantity': read},
        {'meter': 'output_tokens', 'quantity': output},
        {'meter': 'web_search_requests', 'quantity': searches},
    ], recursive := true)
    from side
),
moved as (
    select day, workspace_id, model as place_model, meter, log, key_workspace_id,
        case when meter <> 'web_search_requests' then model end as model,
        case when meter <> 'web_search_requests' then service_tier end as service_tier,
        case when meter <> 'web_search_requests' then context_window end as context_window,
        case when meter <> 'web_search_requests' then inference_geo end as inference_geo,
        case when meter <> 'web_search_requests' then speed end as speed,
        sum(sign * quantity)::bigint as quantity,
    from metered
    group by all
    having sum(sign * quantity) <> 0
)
select cell.cell_id, step.position, step.reason, 'inferred', moved.log,
    case when step.reason = 'workspace' then moved.key_workspace_id end,
    case when step.reason in ('cache_inclusive', 'cache_ttl') then moved.place_model end, sum(moved.quantity)::bigint
from moved
join explained.cell as cell
    on cell.day = moved.day and cell.meter = moved.meter and cell.price_usd is not null
    and cell.workspace_id is not distinct from moved.workspace_id
    and cell.model is not distinct from moved.model
    and cell.service_tier is not distinct from moved.service_tier
    and cell.context_window is not distinct from moved.context_window
    and cell.inference_geo is not distinct from moved.inference_geo
    and cell.speed is not distinct from moved.speed
cross join explained.step as step
group by all
having sum(moved.quantity) <> 0;
