-- The cells that a slot's quantities stand in; days outside the period have none.
-- Grain: explained.slot_cell one row a slot and meter. Reads: explained.slot, cell. Writes: explained.slot_cell.
insert into explained.slot_cell
select slot.slot_id, cell.cell_id, cell.meter
from explained.slot as slot
join explained.cell as cell
    on cell.day = slot.day and cell.price_usd is not null
    and cell.workspace_id is not distinct from slot.workspace_id
    and cell.model is not distinct from slot.model
    and cell.service_tier is not distinct from slot.service_tier
    and cell.context_window is not distinct from slot.context_window
    and cell.inference_geo is not distinct from slot.inference_geo
    and cell.speed is not distinct from slot.speed;
