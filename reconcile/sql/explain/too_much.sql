-- What single hours have too much, in cells that lack something in other hours: it is unreported, and does not make up for
-- what is missing beside it.
-- Rule: explained.hour_over, where nothing of the day's slot was moved since.
-- Grain: explained.too_much one row a cell. Reads: explained.hour_over, slot, slot_cell. Writes: explained.too_much.
insert into explained.too_much
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
join explained.slot_cell as slot_cell on slot_cell.slot_id = slot.slot_id and slot_cell.meter = hour_over.meter;
