-- Cells that a quantity passes on its way and that neither side has in the end: they stand in the list with nothing on
-- either side, so that what comes in and what goes out both stand somewhere.
-- Grain: explained.cell one row a cell. Reads: explained.transit (places that something passes), matched.price.
-- Writes: explained.cell.
insert into explained.cell by name
with metered as (
    select transit.*, unnest([
        'uncached_input_tokens', 'cache_creation.ephemeral_5m_input_tokens', 'cache_creation.ephemeral_1h_input_tokens',
        'cache_read_input_tokens', 'output_tokens',
    ]) as meter
    from explained.transit as transit
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
