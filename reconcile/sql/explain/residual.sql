-- What the systematic reasons leave, hour by hour: the evidence of all reasons that follow.
-- Rule: reported (of those who could have logged it) less recorded, in the hours that the usage report covers; extra
--   iterations that the logs themselves hold are taken off as far as they were reported.
-- Grain: explained.slot one row (hour, cell dimensions without meter; web searches by hour and workspace).
-- Reads: explained.known, corrected, fixed_iteration. Writes: explained.slot, flow, slot_cell, unsplit.
create or replace table explained.hourly as
    select hour, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, quantity, null as log,
        0 as cut_requests, 0 as requests, 0 as recorded_input,
    from explained.known
    union all
    select hour, workspace_id, model, service_tier, context_window, inference_geo, speed, counter.meter,
        -counter.quantity, log, if(cut and counter.meter = 'output_tokens', requests, 0),
        if(counter.meter = 'output_tokens', requests, 0),
        if(counter.meter not in ('output_tokens', 'web_search_requests'), counter.quantity, 0),
    from (
        select hour, workspace_id, model, service_tier, context_window, inference_geo, speed, log, cut, requests,
            unnest([
                {'meter': 'uncached_input_tokens', 'quantity': input},
                {'meter': 'cache_creation.ephemeral_5m_input_tokens', 'quantity': write_5m},
                {'meter': 'cache_creation.ephemeral_1h_input_tokens', 'quantity': write_1h},
                {'meter': 'cache_read_input_tokens', 'quantity': read},
                {'meter': 'output_tokens', 'quantity': output},
            ]) as counter,
        from explained.corrected
    )
    union all
    select hour, workspace_id, null, null, null, null, null, 'web_search_requests', -searches, log, 0, 0, 0
    from explained.corrected
    where searches > 0;

create or replace table explained.slot as
with
summed as (
    select
        hour, workspace_id, model, service_tier, context_window, inference_geo, speed,
        coalesce(sum(quantity) filter (meter = 'uncached_input_tokens'), 0)::bigint as input,
        coalesce(sum(quantity) filter (meter = 'cache_creation.ephemeral_5m_input_tokens'), 0)::bigint as write_5m,
        coalesce(sum(quantity) filter (meter = 'cache_creation.ephemeral_1h_input_tokens'), 0)::bigint as write_1h,
        coalesce(sum(quantity) filter (meter = 'cache_read_input_tokens'), 0)::bigint as read,
        coalesce(sum(quantity) filter (meter = 'output_tokens'), 0)::bigint as output,
        coalesce(sum(quantity) filter (meter = 'web_search_requests'), 0)::bigint as searches,
        -- the log that holds most of what was recorded here
        arg_max(log, (-quantity, log)) filter (log is not null) as log,
        sum(cut_requests)::bigint as cut_requests,
        sum(requests)::bigint as requests,
        sum(recorded_input)::bigint as recorded_input,
    from explained.hourly
    group by all
),
extra as (
    select hour, workspace_id, model, service_tier, context_window, inference_geo, speed,
        coalesce(sum(quantity) filter (meter = 'uncached_input_tokens'), 0)::bigint as input,
        coalesce(sum(quantity) filter (meter = 'cache_creation.ephemeral_5m_input_tokens'), 0)::bigint as write_5m,
        coalesce(sum(quantity) filter (meter = 'cache_creation.ephemeral_1h_input_tokens'), 0)::bigint as write_1h,
        coalesce(sum(quantity) filter (meter = 'cache_read_input_tokens'), 0)::bigint as read,
        coalesce(sum(quantity) filter (meter = 'output_tokens'), 0)::bigint as output,
    from explained.fixed_iteration
    group by all
)
select
    row_number() over (
        order by summed.hour, summed.workspace_id, summed.model, summed.service_tier, summed.context_window,
            summed.inference_geo, summed.speed
    ) as slot_id,
    summed.hour, summed.hour::date as day, summed.workspace_id, summed.model, summed.service_tier,
    summed.context_window, summed.inference_geo, summed.speed,
    summed.input - greatest(0, least(summed.input, coalesce(extra.input, 0))) as input,
    summed.write_5m - greatest(0, least(summed.write_5m, coalesce(extra.write_5m, 0))) as write_5m,
    summed.write_1h - greatest(0, least(summed.write_1h, coalesce(extra.write_1h, 0))) as write_1h,
    summed.read - greatest(0, least(summed.read, coalesce(extra.read, 0))) as read,
    summed.output - greatest(0, least(summed.output, coalesce(extra.output, 0))) as output,
    summed.searches, summed.log, summed.cut_requests, summed.requests, summed.recorded_input,
from summed
left join extra
    on extra.hour = summed.hour and extra.workspace_id is not distinct from summed.workspace_id
    and extra.model is not distinct from summed.model and extra.service_tier is not distinct from summed.service_tier
    and extra.context_window is not distinct from summed.context_window
    and extra.inference_geo is not distinct from summed.inference_geo and extra.speed is not distinct from summed.speed
-- of the hours behind the last complete day the report tells as far as it has any
where summed.hour <= (
    select greatest((select max(hour) from source.usage), through_on::timestamp + interval 23 hour) from source.run
);

-- How much of the reported side flows through a slot: what can have waited there.
create or replace table explained.flow as
select slot.slot_id, hourly.meter, sum(hourly.quantity)::bigint as reported,
from explained.hourly as hourly
join explained.slot as slot
    on slot.hour = hourly.hour and slot.workspace_id is not distinct from hourly.workspace_id
    and slot.model is not distinct from hourly.model and slot.service_tier is not distinct from hourly.service_tier
    and slot.context_window is not distinct from hourly.context_window
    and slot.inference_geo is not distinct from hourly.inference_geo and slot.speed is not distinct from hourly.speed
where hourly.quantity > 0
group by all;

create or replace table explained.slot_cell (slot_id BIGINT, cell_id BIGINT, meter VARCHAR);

-- Logs that know one lifetime of cache writes alone, or do not tell the two apart.
create or replace table explained.unsplit as
select log from explained.corrected
group by log
having sum(write_5m + write_1h) > 0 and (sum(write_5m) = 0 or sum(write_1h) = 0)
union
select log from source.default_used where field = 'cache_creation';
