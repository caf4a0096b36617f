-- What the correction of one reason moved between cells is its claim: corrected less before, cell by cell.
-- Grain: one claim a cell and log. Reads: explained.corrected, before, step (the reason that is being booked), cell.
-- Writes: explained.claim.
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
