-- The claims of all pairs that net: what leaves one cell and what arrives in the other.
-- Grain: one claim a cell, log and confusion. Reads: explained.adjusted, moved, slot_cell.
-- Writes: explained.claim, note, checks.
insert into explained.claim (cell_id, position, reason, confidence, log, place_model, quantity)
select slot_cell.cell_id, adjusted.position, adjusted.reason, 'inferred', adjusted.log, adjusted.model,
    sum(adjusted.quantity)::bigint
from explained.adjusted as adjusted
join explained.slot_cell as slot_cell on slot_cell.slot_id = adjusted.slot_id and slot_cell.meter = adjusted.meter
group by all
having sum(adjusted.quantity) <> 0;

insert into explained.claim (
    cell_id, position, reason, confidence, log, place_workspace_id, place_model, place_service_tier, evidence, quantity
)
with
part as (
    select *, from_slot as slot_id, -1 as sign from explained.moved
    union all
    select *, to_slot as slot_id, 1 as sign from explained.moved
),
metered as (
    select slot_id, sign, reason, position, log, from_value, to_value,
        unnest(matched.by_meter(input, write_5m, write_1h, read, output, searches), recursive := true)
    from part
)
select slot_cell.cell_id, metered.position, metered.reason, 'inferred', metered.log,
    case when metered.reason = 'workspace' then metered.to_value end,
    case when metered.reason = 'model' then metered.to_value end,
    case when metered.reason = 'service_tier' then metered.to_value end,
    case when metered.reason <> 'cutoff' then coalesce(metered.from_value, 'none') || ' is ' || metered.to_value end,
    sum(metered.sign * metered.quantity)::bigint
from metered
join explained.slot_cell as slot_cell on slot_cell.slot_id = metered.slot_id and slot_cell.meter = metered.meter
where metered.quantity > 0
group by all
having sum(metered.sign * metered.quantity) <> 0;

insert into explained.note
with summed as (
    select reason, log,
        case when reason = 'workspace' then to_value end as workspace_id,
        case when reason = 'model' then to_value end as model,
        case when reason = 'service_tier' then to_value end as service_tier,
        from_value, to_value,
        sum(input + write_5m + write_1h + read + output)::bigint as tokens,
        coalesce(sum(input + write_5m + write_1h + read + output) filter (exact), 0)::bigint as exact_tokens,
        count(*) as pairs,
    from explained.moved
    group by all
)
select reason, log, workspace_id, model, service_tier, null, null, 'confusions', to_json(list({
    'recorded_as': coalesce(from_value, 'none'), 'reported_as': to_value, 'tokens': tokens::varchar,
    'tokens_that_net_exactly': exact_tokens::varchar, 'hours': pairs::varchar,
} order by tokens desc, from_value, to_value))
from summed
where reason <> 'cutoff'
group by reason, log, workspace_id, model, service_tier;

insert into explained.note
select 'cutoff', log, null, null, null, meter.name, null, fact.name, to_json(fact.value)
from (
    select log, any_value(direction order by as_logged desc) as direction, max(as_logged) as as_logged, max(left_tokens) as left_tokens
    from explained.adjusted where reason = 'cutoff' group by log
)
cross join (values (null), ('web_search_requests')) as meter (name)
cross join source.run as run
cross join lateral (
    select unnest([
        {'name': 'the_log_stamps', 'value': if(direction = 1, 'before the provider counts', 'after the provider counts')},
        {'name': 'tokens_in_another_hour', 'value': as_logged::varchar},
        {'name': 'tokens_left_when_they_may_wait', 'value': left_tokens::varchar},
        {'name': 'months_next_to_it', 'value': strftime(run.start_on - 1, '%Y-%m') || ' and ' || strftime(run.end_on, '%Y-%m')},
    ], recursive := true)
) as fact;

insert into explained.note
select 'cache_ttl', move.log, null, move.model, null, null, null, fact.name, to_json(fact.value)
from (
    select log, model, sum(greatest(quantity, 0))::bigint as to_1h, sum(greatest(-quantity, 0))::bigint as to_5m
    from explained.adjusted
    where reason = 'cache_ttl' and meter = 'cache_creation.ephemeral_1h_input_tokens'
    group by log, model
) as move
left join source.default_used as used on used.log = move.log and used.field = 'cache_creation'
cross join lateral (
    select unnest([
        {'name': 'tokens_recorded_as_5_minute_that_are_1_hour', 'value': nullif(to_1h, 0)::varchar},
        {'name': 'tokens_recorded_as_1_hour_that_are_5_minute', 'value': nullif(to_5m, 0)::varchar},
        {'name': 'requests_without_a_split_in_the_log', 'value': used.requests::varchar},
    ], recursive := true)
) as fact
where fact.value is not null;

-- What the claims leave of a cell is what the slots hold in the end, beside what no log could hold and the extra turns that
-- wait for their pass.
create or replace view checks.netting_leaves_other_than_its_claims as
with
metered as (
    select day, workspace_id, model, service_tier, context_window, inference_geo, speed,
        unnest(matched.by_meter(input, write_5m, write_1h, read, output, searches), recursive := true)
    from (
        select * from explained.slot
        union all by name
        select place.* exclude (slot_id, hour), extra.* exclude (slot_id), 0 as searches
        from explained.extra as extra
        join explained.hour_slot as place on place.slot_id = extra.slot_id
    )
    union all
    select day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, -quantity
    from explained.known
    union all
    select day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, quantity
    from source.usage
),
left_open as (
    select day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, sum(quantity) as quantity
    from metered
    group by all
),
claimed as (
    select cell_id, sum(quantity) as quantity
    from explained.claim
    left join explained.never_reported as never_reported using (log, evidence)
    where position < 15 or (reason = 'unreported' and never_reported.log is not null)
    group by cell_id
)
select cell.cell_id, cell.day, cell.workspace_id, cell.model, cell.meter,
    cell.variance_quantity - coalesce(claimed.quantity, 0) as left_by_claims, left_open.quantity as left_by_netting,
from explained.cell as cell
left join claimed on claimed.cell_id = cell.cell_id
left join left_open
    on left_open.day = cell.day and left_open.meter = cell.meter
    and left_open.workspace_id is not distinct from cell.workspace_id
    and left_open.model is not distinct from cell.model
    and left_open.service_tier is not distinct from cell.service_tier
    and left_open.context_window is not distinct from cell.context_window
    and left_open.inference_geo is not distinct from cell.inference_geo
    and left_open.speed is not distinct from cell.speed
where cell.price_usd is not null
    and cell.variance_quantity - coalesce(claimed.quantity, 0) <> coalesce(left_open.quantity, 0);
