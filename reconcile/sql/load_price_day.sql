-- The prices of a day side by side, so that a request finds all of its own with one equality join.
-- Grain: price_day one row (day, grain). Reads: source.run, price, grain (temporary: the dimensions that prices hang on).
-- Writes: price_day (temporary).
create or replace temp table price_day as
with
day as (
    select unnest(generate_series(start_on - 1, end_on, interval 1 day))::date as day from source.run
),
daily as (
    select day.day, grain.grain, price.* exclude (model, service_tier, context_window, inference_geo, speed),
        min(price.prompt_over) over cell as low_over,
        max(price.prompt_over) over cell as high_over,
    from day
    join source.price as price
        on day.day >= price.from_on and (price.until_on is null or day.day < price.until_on)
    join grain
        on grain.model = price.model and grain.service_tier = price.service_tier
        and grain.context_window = price.context_window and grain.inference_geo = price.inference_geo
        and grain.speed = price.speed
    window cell as (partition by day.day, grain.grain)
),
side_by_side as (
    select
        day, grain,
        max(if(high_over > low_over, high_over, null)) as step_over,
        max(price_usd) filter (meter = 'uncached_input_tokens' and prompt_over = low_over) as input_usd,
        max(price_usd) filter (meter = 'cache_creation.ephemeral_5m_input_tokens' and prompt_over = low_over)
            as write_5m_usd,
        max(price_usd) filter (meter = 'cache_creation.ephemeral_1h_input_tokens' and prompt_over = low_over)
            as write_1h_usd,
        max(price_usd) filter (meter = 'cache_read_input_tokens' and prompt_over = low_over) as read_usd,
        max(price_usd) filter (meter = 'output_tokens' and prompt_over = low_over) as output_usd,
        max(price_usd) filter (meter = 'uncached_input_tokens' and prompt_over = high_over) as input_high_usd,
        max(price_usd) filter (meter = 'cache_creation.ephemeral_5m_input_tokens' and prompt_over = high_over)
            as write_5m_high_usd,
        max(price_usd) filter (meter = 'cache_creation.ephemeral_1h_input_tokens' and prompt_over = high_over)
            as write_1h_high_usd,
        max(price_usd) filter (meter = 'cache_read_input_tokens' and prompt_over = high_over) as read_high_usd,
        max(price_usd) filter (meter = 'output_tokens' and prompt_over = high_over) as output_high_usd,
    from daily
    group by day, grain
)
select day.day, grain.grain, side_by_side.* exclude (day, grain), coalesce(search.price_usd, 0) as search_usd
from day
cross join grain
left join side_by_side on side_by_side.day = day.day and side_by_side.grain = grain.grain
left join source.price as search
    on search.meter = 'web_search_requests' and day.day >= search.from_on
    and (search.until_on is null or day.day < search.until_on);
