-- Why an application's own cost is not the price book's: the mistake that gives its figure.
-- Rule: per request, the book's amount is worked out once more with one mistake at a time; the first that comes within
--   half a millionth of a dollar of the application's figure names the cause, so figures rounded to six decimals do too;
--   the prices of before are those of the day before the last change.
-- Grain: explained.own_price one row a log, model and cause. Reads: source.request, matched.price.
-- Writes: explained.own_price, note, checks.
create or replace macro explained.million(quantity, price_usd) as
    (quantity * price_usd * 0.000001::decimal(6, 6))::decimal(38, 12);
create or replace macro explained.near(own_usd, candidate_usd) as
    abs(own_usd - candidate_usd) <= 0.0000005::decimal(8, 7);

create or replace table explained.own_price as
with
price as (
    select
        day, model, service_tier, context_window, inference_geo, speed,
        max(coalesce(price_high_usd, price_usd)) filter (meter = 'uncached_input_tokens') as input_high_usd,
        max(price_usd) filter (meter = 'uncached_input_tokens') as input_usd,
        max(price_usd) filter (meter = 'cache_creation.ephemeral_5m_input_tokens') as write_5m_usd,
        max(price_usd) filter (meter = 'cache_creation.ephemeral_1h_input_tokens') as write_1h_usd,
        max(price_usd) filter (meter = 'cache_read_input_tokens') as read_usd,
        max(price_usd) filter (meter = 'output_tokens') as output_usd,
        max(list_price_usd) filter (meter = 'uncached_input_tokens') as input_list_usd,
        max(list_price_usd) filter (meter = 'cache_creation.ephemeral_5m_input_tokens') as write_5m_list_usd,
        max(list_price_usd) filter (meter = 'cache_creation.ephemeral_1h_input_tokens') as write_1h_list_usd,
        max(list_price_usd) filter (meter = 'cache_read_input_tokens') as read_list_usd,
        max(list_price_usd) filter (meter = 'output_tokens') as output_list_usd,
    from matched.price
    where model is not null
    group by all
),
search as (
    select day, price_usd from matched.price where meter = 'web_search_requests'
),
-- the prices of the same cell on the last day before they changed
earlier as (
    select price.*, lag(day) over changes as earlier_on
    from price
    window changes as (
        partition by model, service_tier, context_window, inference_geo, speed order by day
    )
    qualify earlier_on is not null and (
        input_usd is distinct from lag(input_usd) over changes or read_usd is distinct from lag(read_usd) over changes
        or output_usd is distinct from lag(output_usd) over changes
    )
),
priced as (
    select
        request.log, request.model, request.day, request.own_cost_usd, request.recorded_usd,
        request.uncached_input_tokens as input, request.cache_write_5m as w5, request.cache_write_1h as w1,
        request.cache_read_input_tokens as read, request.output_tokens as output,
        (request.web_search_requests * coalesce(search.price_usd, 0))::decimal(38, 18) as searches_usd,
        request.service_tier, request.inference_geo, request.speed, request.over_step,
        price.* exclude (day, model, service_tier, context_window, inference_geo, speed),
        plain.input_usd as plain_input_usd,
        former.input_usd as former_input_usd, former.write_5m_usd as former_5m_usd, former.write_1h_usd as former_1h_usd,
        former.read_usd as former_read_usd, former.output_usd as former_output_usd,
    from source.request as request
    left join price
        on price.day = request.day and price.model = request.model and price.service_tier = request.service_tier
        and price.context_window = request.context_window and price.inference_geo = request.inference_geo
        and price.speed = request.speed
    left join search on search.day = request.day
    left join price as plain
        on plain.day = request.day and plain.model = request.model and plain.service_tier = request.service_tier
        and plain.context_window = request.context_window and plain.inference_geo = request.inference_geo
        and plain.speed = 'standard'
    asof left join earlier
        on earlier.model = request.model and earlier.service_tier = request.service_tier
        and earlier.context_window = request.context_window and earlier.inference_geo = request.inference_geo
        and earlier.speed = request.speed and earlier.day <= request.day
    left join price as former
        on former.day = earlier.earlier_on and former.model = request.model
        and former.service_tier = request.service_tier and former.context_window = request.context_window
        and former.inference_geo = request.inference_geo and former.speed = request.speed
    where request.in_period and request.own_cost_usd <> coalesce(request.recorded_usd, 0)
),
tried as (
    select *,
        recorded_usd - searches_usd as tokens_usd,
        explained.million(input, input_list_usd) + explained.million(w5, write_5m_list_usd)
            + explained.million(w1, write_1h_list_usd) + explained.million(read, read_list_usd)
            + explained.million(output, output_list_usd) as list_usd,
        explained.million(input, former_input_usd) + explained.million(w5, former_5m_usd)
            + explained.million(w1, former_1h_usd) + explained.million(read, former_read_usd)
            + explained.million(output, former_output_usd) as former_usd,
    from priced
),
named as (
    select log, model, own_cost_usd, recorded_usd,
        case
            when recorded_usd is null
                then 'no price in the book'
            when explained.near(own_cost_usd, recorded_usd)
                then 'rounded'
            when explained.near(own_cost_usd, tokens_usd)
                then 'web searches left out'
            when explained.near(own_cost_usd, recorded_usd - explained.million(w1, write_1h_usd - write_5m_usd))
                then '1-hour writes at the 5-minute rate'
            when explained.near(own_cost_usd, recorded_usd + explained.million(read, input_usd - read_usd))
                then 'cache reads at the input rate'
            when explained.near(own_cost_usd, recorded_usd + explained.million(read, input_usd - read_usd) - explained.million(w1, write_1h_usd - write_5m_usd))
                then 'cache reads at the input rate, 1-hour writes at the 5-minute rate'
            when explained.near(own_cost_usd, recorded_usd + explained.million(read, input_usd * 0.1::decimal(2, 1) - read_usd))
                then 'cache reads at a tenth of the input rate'
            when explained.near(
                own_cost_usd,
                recorded_usd + explained.million(read, input_usd * 0.1::decimal(2, 1) - read_usd)
                    - explained.million(w1, write_1h_usd - write_5m_usd)
            )
                then 'cache reads at a tenth of the input rate, 1-hour writes at the 5-minute rate'
            when explained.near(own_cost_usd, recorded_usd - explained.million(read, read_usd))
                then 'cache reads free'
            when explained.near(own_cost_usd, searches_usd + explained.million(input, input_usd) + explained.million(output, output_usd))
                then 'cache reads and writes free'
            when explained.near(own_cost_usd, searches_usd + explained.million(input + read + w5 + w1, input_usd) + explained.million(output, output_usd))
                then 'cache reads and writes at the input rate'
            when explained.near(own_cost_usd, recorded_usd + explained.million(read + w5 + w1, input_usd))
                then 'cached tokens paid twice, as input too'
            when explained.near(own_cost_usd, if(service_tier = 'batch', tokens_usd * 2 + searches_usd, null))
                then 'batch not discounted'
            when explained.near(own_cost_usd, if(list_usd <> tokens_usd, list_usd + searches_usd, null))
                then 'list instead of contract'
            when explained.near(own_cost_usd, if(inference_geo = 'us', (tokens_usd / 1.1)::decimal(38, 12) + searches_usd, null))
                then 'US inference premium left out'
            when explained.near(own_cost_usd, if(speed = 'fast', (tokens_usd * (plain_input_usd / nullif(input_usd, 0)))::decimal(38, 12) + searches_usd, null))
                then 'fast mode priced as standard'
            when explained.near(own_cost_usd, former_usd + searches_usd)
                then 'price of before the last change'
            else 'not told by one mistake'
        end as cause,
    from tried
)
select log, model, cause, count(*) as requests, sum(coalesce(recorded_usd, 0) - own_cost_usd) as amount_usd
from named
group by log, model, cause;

insert into explained.note
select 'app_price', log, null, model, null, null, null, 'causes', to_json(list({
    'cause': cause, 'requests': requests::varchar, 'amount_usd': amount_usd::decimal(38, 12)::varchar,
} order by abs(amount_usd) desc, cause))
from explained.own_price
group by log, model;

create or replace view checks.app_price_not_told as
select log, model, sum(amount_usd) as amount_usd, sum(told_usd) as told_usd
from (
    select log, model, amount_usd, 0 as told_usd from source.removed where reason = 'app_price' and in_period
    union all
    select log, model, 0, amount_usd from explained.own_price
)
group by log, model
having sum(amount_usd) <> sum(told_usd);
