-- What cells have too much beside what they lack: it is unreported, and does not make up for what is missing beside it.
-- Rule: what single hours have too much (explained.hour_over), where nothing of the day's slot was moved since; but lines
--   without a key may hold the use of a silent key (or of none) that is reported there too: where both meet, nothing is too
--   much. Then, where silent keys have more use in a cell than it lacks, what lines without a key cannot hold of it, as
--   long as that is less than a tenth of a workspace's silent use: more may be that use, under another key's name.
-- Grain: explained.too_much one row a cell and rule. Reads: explained.hour_over, slot, slot_cell, corrected, corrected_meter,
--   reported, silent_key, left_over. Writes: explained.too_much, checks.
insert into explained.too_much
with
nameless as (
    select distinct day, workspace_id, model, service_tier, context_window, inference_geo, speed
    from explained.corrected
    where api_key_id is null
),
unnamed_use as (
    select distinct reported.cell_id
    from explained.reported as reported
    left join explained.silent_key as silent
        on silent.workspace_id is not distinct from reported.workspace_id and silent.api_key_id = reported.api_key_id
    where reported.api_key_id is null or coalesce(silent.claimed, false)
)
select slot_cell.cell_id, hour_over.too_much
from explained.hour_over as hour_over
join explained.slot as slot
    on slot.day = hour_over.day and slot.workspace_id is not distinct from hour_over.workspace_id
    and slot.model = hour_over.model and slot.service_tier = hour_over.service_tier
    and slot.context_window = hour_over.context_window and slot.inference_geo = hour_over.inference_geo
    and slot.speed = hour_over.speed
    and hour_over.quantity = case hour_over.meter
        when 'uncached_input_tokens' then slot.input
        when 'cache_creation.ephemeral_5m_input_tokens' then slot.write_5m
        when 'cache_creation.ephemeral_1h_input_tokens' then slot.write_1h
        when 'cache_read_input_tokens' then slot.read
        else slot.output
    end
join explained.slot_cell as slot_cell on slot_cell.slot_id = slot.slot_id and slot_cell.meter = hour_over.meter
left join unnamed_use on unnamed_use.cell_id = slot_cell.cell_id
left join nameless
    on nameless.day = slot.day and nameless.workspace_id is not distinct from slot.workspace_id
    and nameless.model = slot.model and nameless.service_tier = slot.service_tier
    and nameless.context_window = slot.context_window and nameless.inference_geo = slot.inference_geo
    and nameless.speed = slot.speed
where unnamed_use.cell_id is null or nameless.day is null;

insert into explained.too_much
with
silent_use as (
    select reported.cell_id, sum(reported.quantity) filter (silent.claimed) as quantity,
        sum(reported.quantity) filter (reported.api_key_id is null) as keyless,
    from explained.reported as reported
    left join explained.silent_key as silent
        on silent.workspace_id is not distinct from reported.workspace_id and silent.api_key_id = reported.api_key_id
    group by reported.cell_id
    having bool_or(silent.claimed)
),
nameless as (
    select day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, sum(quantity) as quantity
    from explained.corrected_meter
    where api_key_id is null
    group by all
),
short as (
    select silent_use.cell_id, cell.workspace_id, silent_use.quantity,
        greatest(
            0,
            silent_use.quantity + coalesce(silent_use.keyless, 0) - left_over.quantity - coalesce(nameless.quantity, 0)
        ) as too_much,
    from silent_use
    join explained.cell as cell on cell.cell_id = silent_use.cell_id
    join explained.left_over as left_over on left_over.cell_id = silent_use.cell_id
    left join nameless
        on nameless.day = cell.day and nameless.meter = cell.meter
        and nameless.workspace_id is not distinct from cell.workspace_id
        and nameless.model is not distinct from cell.model
        and nameless.service_tier is not distinct from cell.service_tier
        and nameless.context_window is not distinct from cell.context_window
        and nameless.inference_geo is not distinct from cell.inference_geo
        and nameless.speed is not distinct from cell.speed
)
select cell_id, too_much::bigint
from short
qualify 10 * sum(too_much) over (partition by workspace_id) < sum(quantity) over (partition by workspace_id)
    and too_much > 0;

-- What is put back is unreported in the end.
create or replace view checks.too_much_is_not_unreported as
select put_back.cell_id, put_back.too_much, coalesce(claimed.quantity, 0) as unreported
from (select cell_id, sum(too_much) as too_much from explained.too_much group by cell_id) as put_back
left join (
    select cell_id, -sum(quantity) as quantity
    from explained.claim
    anti join explained.never_reported using (log, evidence)
    where reason = 'unreported'
    group by cell_id
) as claimed on claimed.cell_id = put_back.cell_id
where coalesce(claimed.quantity, 0) < put_back.too_much;
