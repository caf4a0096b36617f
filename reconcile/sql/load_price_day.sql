-- The prices of a day side by side, so that a request finds all of its own with one equality join.
-- Grain: price_day one row (day, model, service_tier, context_window, inference_geo, speed); search_price one a day.
-- Reads: source.run, price. Writes: price_day, search_price (temporary).
create or replace temp table day_price as
select day.day::date as day, price.*
from (
    select unnest(generate_series(start_on - 1, end_on, interval 1 day)) as day from source.run
) as day
join source.price as price
    on day.day >= price.from_on and (price.until_on is null or day.day < price.until_on);

create or replace temp table price_day as
with stepped as (
    select *,
        min(prompt_over) over grain as low_over,
        max(prompt_over) over grain as high_over,
    from day_price
    where model is not null
    window grain as (partition by day, model, service_tier, context_window, inference_geo, speed)
)
select
    day, model, service_tier, context_window, inference_geo, speed,
    max(if(high_over > low_over, high_over, null)) as step_over,
    max(price_usd) filter (meter = 'uncached_input_tokens' and prompt_over = low_over) as input_usd,
    max(price_usd) filter (meter = 'cache_creation.ephemeral_5m_input_tokens' and prompt_over = low_over) as write_5m_usd,
    max(price_usd) filter (meter = 'cache_creation.ephemeral_1h_input_tokens' and prompt_over = low_over) as write_1h_usd,
    max(price_usd) filter (meter = 'cache_read_input_tokens' and prompt_over = low_over) as read_usd,
    max(price_usd) filter (meter = 'output_tokens' and prompt_over = low_over) as output_usd,
    max(price_usd) filter (meter = 'uncached_input_tokens' and prompt_over = high_over) as input_high_usd,
    max(price_usd) filter (meter = 'cache_creation.ephemeral_5m_input_tokens' and prompt_over = high_over)
        as write_5m_high_usd,
    max(price_usd) filter (meter = 'cache_creation.ephemeral_1h_input_tokens' and prompt_over = high_over)
        as write_1h_high_usd,
    max(price_usd) filter (meter = 'cache_read_input_tokens' and prompt_over = high_over) as read_high_usd,
    max(price_usd) filter (meter = 'output_tokens' and prompt_over = high_over) as output_high_usd,
from stepped
group by all;

create or replace temp table search_price as
select day, price_usd from day_price where meter = 'web_search_requests';
