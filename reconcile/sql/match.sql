-- Line up what was recorded, reported and billed.
-- Grain: matched.recorded and reported one row (hour, cell dimensions, evidence); cell one row a cell; usage one a cell
--   and key; label one a cell, key, label and value; line one a billed line with its speed.
-- Reads: source. Writes: matched, checks.

-- Counters side by side as a list of meters, for unnest.
create or replace macro matched.tokens_by_meter(input, write_5m, write_1h, read, output) as [
    {'meter': 'uncached_input_tokens', 'quantity': input},
    {'meter': 'cache_creation.ephemeral_5m_input_tokens', 'quantity': write_5m},
    {'meter': 'cache_creation.ephemeral_1h_input_tokens', 'quantity': write_1h},
    {'meter': 'cache_read_input_tokens', 'quantity': read},
    {'meter': 'output_tokens', 'quantity': output},
];
create or replace macro matched.by_meter(input, write_5m, write_1h, read, output, searches) as
    list_append(
        matched.tokens_by_meter(input, write_5m, write_1h, read, output),
        {'meter': 'web_search_requests', 'quantity': searches}
    );

-- The recorded side by hour, in the meters of the reports.
create or replace table matched.recorded as
with grouped as (
    select
        hour, day, workspace_id, model, service_tier, context_window, inference_geo, speed, log, api_key_id, over_step,
        biller, coalesce(status >= 400, false) as failed, cut, in_period,
        count(*) as requests,
        sum(uncached_input_tokens) as uncached_input_tokens,
        sum(cache_write_5m) as cache_write_5m,
        sum(cache_write_1h) as cache_write_1h,
        sum(cache_read_input_tokens) as cache_read_input_tokens,
        sum(output_tokens) as output_tokens,
        sum(web_search_requests) as web_search_requests,
    from source.request
    group by all
),
metered as (
    select
        * exclude (uncached_input_tokens, cache_write_5m, cache_write_1h, cache_read_input_tokens, output_tokens,
            web_search_requests),
        unnest(matched.by_meter(
            uncached_input_tokens, cache_write_5m, cache_write_1h, cache_read_input_tokens, output_tokens, web_search_requests
        )) as counter,
    from grouped
)
select
    hour, day, workspace_id,
    case when counter.meter <> 'web_search_requests' then model end as model,
    case when counter.meter <> 'web_search_requests' then service_tier end as service_tier,
    case when counter.meter <> 'web_search_requests' then context_window end as context_window,
    case when counter.meter <> 'web_search_requests' then inference_geo end as inference_geo,
    case when counter.meter <> 'web_search_requests' then speed end as speed,
    counter.meter as meter,
    log, api_key_id, biller, failed, cut, in_period,
    case when counter.meter <> 'web_search_requests' then over_step else false end as over_step,
    sum(counter.quantity)::bigint as quantity,
    sum(requests)::bigint as requests,
from metered
where counter.quantity > 0
group by all;

-- Each price of a cell: the lower where it straddles a step, and the upper beside it.
create or replace table matched.price as
with daily as (
    select day.day::date as day, price.*
    from (select unnest(generate_series(start_on - 1, end_on, interval 1 day)) as day from source.run) as day
    join source.price as price on day.day >= price.from_on and (price.until_on is null or day.day < price.until_on)
)
select
    day, model, service_tier, context_window, inference_geo, speed, meter,
    any_value(price_unit) as price_unit,
    arg_min(list_price_usd, prompt_over)::decimal(38, 12) as list_price_usd,
    arg_min(price_usd, prompt_over)::decimal(38, 12) as price_usd,
    case when count(*) > 1 then arg_max(price_usd, prompt_over)::decimal(38, 12) end as price_high_usd,
    arg_min(contract_price_usd, prompt_over)::decimal(38, 12) as contract_price_usd,
from daily
group by day, model, service_tier, context_window, inference_geo, speed, meter;

create or replace macro matched.value_usd(quantity, price_usd, price_unit) as
    -- each branch at its full scale: a case takes the smaller one for both
    case
        when price_unit = 'search' then (quantity * price_usd)::decimal(38, 18)
        else (quantity * price_usd * 0.000001::decimal(6, 6))::decimal(38, 18)
    end;

-- The speed of a cost line. The report does not say it: where fast and standard use meet in one place, a line is of
-- the speed whose price x reported quantity it equals; what cannot be told is shared by that product.
create or replace table matched.line as
with
speed_use as (
    select
        usage.day, usage.workspace_id, usage.model, usage.service_tier, usage.context_window, usage.inference_geo,
        usage.meter, usage.speed,
        matched.value_usd(sum(usage.quantity)::bigint, any_value(price.price_usd), any_value(price.price_unit))
            ::decimal(38, 12) as expected_usd,
    from source.usage as usage
    left join matched.price as price
        on price.day = usage.day and price.model = usage.model and price.service_tier = usage.service_tier
        and price.context_window = usage.context_window and price.inference_geo = usage.inference_geo
        and price.speed = usage.speed and price.meter = usage.meter
    where usage.model is not null
    group by all
),
place as (
    select
        day, workspace_id, model, service_tier, context_window, inference_geo, meter,
        list(speed order by speed desc) as speeds,
        map_from_entries(list({'k': speed, 'v': expected_usd} order by speed desc)) as expected,
        sum(expected_usd) as expected_sum,
    from speed_use
    group by all
),
line as (
    select
        billed.*, place.speeds, place.expected, place.expected_sum,
        row_number() over (
            partition by billed.day, billed.workspace_id, billed.model, billed.service_tier, billed.context_window,
                billed.inference_geo, billed.meter
            order by billed.billed_usd desc, billed.description, billed.amount_text, billed.file
        ) as position,
    from source.billed as billed
    left join place
        on place.day = billed.day and place.workspace_id = billed.workspace_id and place.model = billed.model
        and place.service_tier = billed.service_tier and place.context_window = billed.context_window
        and place.inference_geo = billed.inference_geo and place.meter = billed.meter
),
told as (
    select *,
        case
            when cost_type <> 'tokens' then null
            when speed is not null then speed
            when speeds is null then 'standard'
            when len(speeds) = 1 then speeds[1]
            -- lines of equal dollars take the speeds that they fit one after the other
            else list_filter(speeds, lambda one: expected[one] = billed_usd)[row_number() over (
                partition by day, workspace_id, model, service_tier, context_window, inference_geo, meter, billed_usd
                order by position
            )]
        end as own_speed,
    from line
),
-- of the lines that equal nothing, those in a place where exactly one speed has no line of its own are of that speed
left_over as (
    select day, workspace_id, model, service_tier, context_window, inference_geo, meter,
        list_filter(any_value(speeds), lambda one: not list_contains(coalesce(list(own_speed) filter (own_speed is not null), []), one))
            as free,
    from told
    where cost_type = 'tokens'
    group by all
),
settled as (
    select told.*,
        coalesce(told.own_speed, case when len(left_over.free) = 1 then left_over.free[1] end) as settled_speed,
        case when len(left_over.free) > 1 then left_over.free else told.speeds end as candidates,
    from told
    left join left_over
        on left_over.day = told.day and left_over.workspace_id = told.workspace_id and left_over.model = told.model
        and left_over.service_tier = told.service_tier and left_over.context_window = told.context_window
        and left_over.inference_geo = told.inference_geo and left_over.meter = told.meter
),
-- what cannot be told is one sum in its place, shared in whole units of 1e-12 USD
untold as (
    select day, workspace_id, model, service_tier, context_window, inference_geo, meter,
        min(description) as description, bool_or(finer) as finer, count(*) as lines,
        (sum(billed_usd) * 1000000000000::decimal(13, 0))::hugeint as units,
        any_value(candidates) as candidates, any_value(expected) as expected,
    from settled
    where settled_speed is null and cost_type = 'tokens'
    group by all
),
part as (
    select * exclude (candidates, expected), unnest(candidates) as speed,
        generate_subscripts(candidates, 1) as position,
        -- in the units that are shared, so that a fraction of the price stays one; in millionths where the product would overflow
        list_transform(candidates, lambda one: (
            coalesce(expected[one], 0) * if(units < 1000000000000000000, 1000000000000, 1000000)::decimal(13, 0)
        )::hugeint) as weights,
    from untold
),
weighed as (
    select *,
        coalesce(list_sum(weights[1:position]), 0)::hugeint as upto,
        coalesce(list_sum(weights[1:position - 1]), 0)::hugeint as before,
        coalesce(list_sum(weights), 0)::hugeint as whole,
    from part
)
select day, workspace_id, model, service_tier, context_window, inference_geo, settled_speed as speed, meter, cost_type,
    description, finer, 1 as lines, billed_usd,
from settled
where settled_speed is not null or cost_type <> 'tokens'
union all
select day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, 'tokens', description, finer,
    lines,
    case
        when whole > 0
        then (units * upto // whole - units * before // whole)::decimal(38, 0) * 0.000000000001::decimal(12, 12)
        when position = 1 then units::decimal(38, 0) * 0.000000000001::decimal(12, 12)
        else 0
    end::decimal(38, 12) as billed_usd,
from weighed;

-- The cell, where the sides meet. Each side is summed to the grain before they are put together.
create or replace table matched.cell as
with
recorded as (
    select
        recorded.day, recorded.workspace_id, recorded.model, recorded.service_tier, recorded.context_window,
        recorded.inference_geo, recorded.speed, recorded.meter,
        sum(quantity)::bigint as recorded_quantity,
        sum(matched.value_usd(
            quantity, case when over_step then coalesce(price.price_high_usd, price.price_usd) else price.price_usd end,
            price.price_unit
        )) as exact_usd,
    from matched.recorded as recorded
    left join matched.price as price
        on price.day = recorded.day and price.meter = recorded.meter
        and price.model is not distinct from recorded.model
        and price.service_tier is not distinct from recorded.service_tier
        and price.context_window is not distinct from recorded.context_window
        and price.inference_geo is not distinct from recorded.inference_geo
        and price.speed is not distinct from recorded.speed
    group by all
),
reported as (
    select day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter,
        sum(quantity)::bigint as reported_quantity,
    from source.usage
    group by all
),
billed as (
    select day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter,
        sum(billed_usd)::decimal(38, 12) as billed_usd,
    from matched.line
    group by all
),
sides as (
    select *, null::bigint as reported_quantity, null::decimal(38, 12) as billed_usd from recorded
    union all by name
    select * from reported
    union all by name
    select * from billed
),
met as (
    select
        day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter,
        sum(recorded_quantity)::bigint as recorded_quantity,
        sum(reported_quantity)::bigint as reported_quantity,
        sum(exact_usd) as recorded_exact_usd,
        sum(billed_usd)::decimal(38, 12) as billed_usd,
    from sides
    group by all
),
priced as (
    select
        met.*,
        price.price_unit, price.list_price_usd, price.price_usd, price.price_high_usd, price.contract_price_usd,
        case when recorded_quantity is not null and price.price_usd is not null then recorded_exact_usd end
            as recorded_known_usd,
        coalesce(recorded_exact_usd, 0) + matched.value_usd(
            coalesce(reported_quantity, 0) - coalesce(recorded_quantity, 0), price.price_usd, price.price_unit
        ) as reported_exact_usd,
    from met
    left join matched.price as price
        on price.day = met.day and price.meter = met.meter
        and price.model is not distinct from met.model
        and price.service_tier is not distinct from met.service_tier
        and price.context_window is not distinct from met.context_window
        and price.inference_geo is not distinct from met.inference_geo
        and price.speed is not distinct from met.speed
),
valued as (
    select
        *,
        recorded_known_usd::decimal(38, 12) as recorded_usd,
        case when reported_quantity is not null then reported_exact_usd::decimal(38, 12) end as reported_usd,
    from priced
)
select
    valued.day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter,
    coalesce(valued.day between run.start_on and run.through_on, false) as in_period,
    recorded_quantity, reported_quantity, price_unit, list_price_usd, price_usd, price_high_usd, contract_price_usd,
    recorded_usd, reported_usd, billed_usd, recorded_exact_usd,
    (coalesce(reported_usd, 0) - coalesce(recorded_usd, 0))::decimal(38, 12) as quantity_variance_usd,
    (coalesce(billed_usd, 0) - coalesce(reported_usd, 0))::decimal(38, 12) as price_variance_usd,
    (coalesce(billed_usd, 0) - coalesce(recorded_usd, 0))::decimal(38, 12) as difference_usd,
from valued
cross join source.run as run
where in_period or recorded_quantity is not null or reported_quantity is not null;

-- The reported side of a cell by key. Its dollars are the cell's, where the cell has one price; inside a straddled
-- step they follow the quantities.
create or replace table matched.usage as
with by_key as (
    select day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, api_key_id,
        sum(quantity)::bigint as reported_quantity,
    from source.usage
    group by all
),
running as (
    select
        by_key.*, cell.in_period, cell.reported_usd as cell_usd, cell.reported_quantity as cell_quantity,
        sum(by_key.reported_quantity) over (
            partition by by_key.day, by_key.workspace_id, by_key.model, by_key.service_tier, by_key.context_window,
                by_key.inference_geo, by_key.speed, by_key.meter
            order by api_key_id nulls first
        )::hugeint as upto,
        (cell.reported_usd * 1000000000000::decimal(13, 0))::hugeint as units,
    from by_key
    join matched.cell as cell
        on cell.day = by_key.day and cell.workspace_id is not distinct from by_key.workspace_id
        and cell.model is not distinct from by_key.model
        and cell.service_tier is not distinct from by_key.service_tier
        and cell.context_window is not distinct from by_key.context_window
        and cell.inference_geo is not distinct from by_key.inference_geo
        and cell.speed is not distinct from by_key.speed and cell.meter = by_key.meter
)
select
    day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, in_period, api_key_id,
    reported_quantity,
    ((units * upto // cell_quantity - units * (upto - reported_quantity) // cell_quantity)::decimal(38, 0)
        * 0.000000000001::decimal(12, 12))::decimal(38, 12) as reported_usd,
from running;

-- The recorded side of a cell by the labels that the config keeps.
create or replace table matched.label as
with labelled as (
    select request.*, unnest(map_entries(labels)) as label
    from source.request as request
),
grouped as (
    select
        day, workspace_id, model, service_tier, context_window, inference_geo, speed, in_period, over_step,
        api_key_id, label.key as label, label.value as value,
        count(*) as requests,
        sum(uncached_input_tokens) as uncached_input_tokens,
        sum(cache_write_5m) as cache_write_5m,
        sum(cache_write_1h) as cache_write_1h,
        sum(cache_read_input_tokens) as cache_read_input_tokens,
        sum(output_tokens) as output_tokens,
        sum(web_search_requests) as web_search_requests,
    from labelled
    group by all
),
metered as (
    select
        day, workspace_id, model, service_tier, context_window, inference_geo, speed, in_period, over_step, api_key_id, label,
        value, requests,
        unnest(matched.by_meter(
            uncached_input_tokens, cache_write_5m, cache_write_1h, cache_read_input_tokens, output_tokens, web_search_requests
        )) as counter,
    from grouped
),
placed as (
    select
        day, workspace_id,
        case when counter.meter <> 'web_search_requests' then model end as model,
        case when counter.meter <> 'web_search_requests' then service_tier end as service_tier,
        case when counter.meter <> 'web_search_requests' then context_window end as context_window,
        case when counter.meter <> 'web_search_requests' then inference_geo end as inference_geo,
        case when counter.meter <> 'web_search_requests' then speed end as speed,
        counter.meter as meter, in_period, api_key_id, label, value, over_step,
        sum(counter.quantity)::bigint as quantity,
        sum(requests)::bigint as requests,
    from metered
    where counter.quantity > 0
    group by all
)
select
    placed.day, placed.workspace_id, placed.model, placed.service_tier, placed.context_window, placed.inference_geo,
    placed.speed, placed.meter, placed.in_period, placed.api_key_id, placed.label, placed.value,
    sum(placed.quantity)::bigint as recorded_quantity,
    sum(placed.requests)::bigint as requests,
    sum(matched.value_usd(
        placed.quantity, case when over_step then coalesce(price.price_high_usd, price.price_usd) else price.price_usd end,
        price.price_unit
    ))::decimal(38, 12) as recorded_usd,
from placed
left join matched.price as price
    on price.day = placed.day and price.meter = placed.meter
    and price.model is not distinct from placed.model
    and price.service_tier is not distinct from placed.service_tier
    and price.context_window is not distinct from placed.context_window
    and price.inference_geo is not distinct from placed.inference_geo
    and price.speed is not distinct from placed.speed
group by all;

-- The whole-token check: billed divides by the price into the reported quantity, with no remainder, on every line
-- whose cell has one known price. Its rows are what `explain` names by reason.
create or replace table matched.token_check as
select
    day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, billed_usd, reported_usd,
    reported_quantity, price_usd,
    matched.value_usd(1, price_usd, price_unit) as unit_price_usd,
    billed_usd = reported_usd as passes,
from matched.cell
where in_period and billed_usd is not null and price_usd is not null and price_high_usd is null;

create or replace view checks.recorded_lost_in_match as
select kept.quantity as loaded, cells.quantity as matched
from (
    select sum(uncached_input_tokens + cache_write_5m + cache_write_1h + cache_read_input_tokens + output_tokens
        + web_search_requests) as quantity from source.request
) as kept, (select sum(recorded_quantity) as quantity from matched.cell) as cells
where kept.quantity is distinct from cells.quantity and coalesce(kept.quantity, 0) <> coalesce(cells.quantity, 0);

create or replace view checks.reported_lost_in_match as
select pages.quantity as loaded, cells.quantity as matched
from (select sum(quantity) as quantity from source.usage) as pages,
    (select sum(reported_quantity) as quantity from matched.cell) as cells
where coalesce(pages.quantity, 0) <> coalesce(cells.quantity, 0);

create or replace view checks.billed_lost_in_match as
select pages.billed_usd as loaded, cells.billed_usd as matched
from (select sum(billed_usd) as billed_usd from source.billed) as pages,
    (select sum(billed_usd) as billed_usd from matched.cell where in_period) as cells
where coalesce(pages.billed_usd, 0) <> coalesce(cells.billed_usd, 0);

create or replace view checks.cell_twice as
select day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, count(*) as cells
from matched.cell
group by all
having count(*) > 1;
