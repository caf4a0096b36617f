-- What has to be explained, and the tables that the passes write to.
-- Grain: explained.cell one row a cell of the period; claim one a pass's quantity in a cell; note one fact about a finding.
-- Rule: a pass claims a part of what the passes before it left in a cell, never more, never with the other sign.
-- Reads: matched. Writes: explained.
create or replace table explained.cell as
select
    row_number() over (
        order by day, workspace_id nulls last, model nulls last, service_tier nulls last, context_window nulls last,
            inference_geo nulls last, speed nulls last, meter
    ) as cell_id,
    dense_rank() over (
        order by day, workspace_id nulls last, model nulls last, service_tier nulls last, context_window nulls last,
            inference_geo nulls last, speed nulls last
    ) as place_id,
    *,
    coalesce(reported_quantity, 0) - coalesce(recorded_quantity, 0) as variance_quantity,
from matched.cell
where in_period;

create or replace table explained.claim (
    cell_id BIGINT, position INTEGER, reason VARCHAR, confidence VARCHAR, log VARCHAR, api_key_id VARCHAR,
    evidence VARCHAR, quantity BIGINT,
);

create or replace table explained.note (
    reason VARCHAR, log VARCHAR, workspace_id VARCHAR, model VARCHAR, service_tier VARCHAR, meter VARCHAR,
    api_key_id VARCHAR, name VARCHAR, value JSON,
);

-- What is left of a cell's quantity variance; a quantity without a price stays whole, for `unpriced`.
create or replace view explained.left_over as
select cell.cell_id, cell.place_id, cell.variance_quantity - coalesce(claimed.quantity, 0) as quantity
from explained.cell as cell
left join (
    select cell_id, sum(quantity)::bigint as quantity from explained.claim group by cell_id
) as claimed on claimed.cell_id = cell.cell_id
where cell.price_usd is not null;

-- The cells' hours, for what only the hour can show.
create or replace table explained.recorded_hour as
select cell.cell_id, cell.place_id, cell.meter, recorded.hour, recorded.log, recorded.api_key_id,
    sum(recorded.quantity)::bigint as quantity,
    sum(recorded.requests)::bigint as requests,
    coalesce(sum(recorded.requests) filter (recorded.cut), 0)::bigint as cut_requests,
from matched.recorded as recorded
join explained.cell as cell
    on cell.day = recorded.day and cell.meter = recorded.meter
    and cell.workspace_id is not distinct from recorded.workspace_id
    and cell.model is not distinct from recorded.model
    and cell.service_tier is not distinct from recorded.service_tier
    and cell.context_window is not distinct from recorded.context_window
    and cell.inference_geo is not distinct from recorded.inference_geo
    and cell.speed is not distinct from recorded.speed
group by all;

create or replace table explained.reported_hour as
select cell.cell_id, cell.place_id, cell.workspace_id, cell.meter, usage.hour, usage.api_key_id,
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
