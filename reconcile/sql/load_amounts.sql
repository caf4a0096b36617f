-- Do the billed lines of models under contract fit the contract's rate, or list?
-- Grain: source.contract_line one row (day, workspace_id, model, service_tier, context_window, inference_geo, meter) that
--   was billed, is under contract, has one price and one speed. Reads: source.usage, billed, price.
create or replace table source.contract_line as
with
under_contract as (
    select * from source.price
    qualify count(*) over (
        partition by model, service_tier, context_window, inference_geo, speed, meter, from_on
    ) = 1 and list_price_usd <> price_usd
),
reported as (
    select day, workspace_id, model, service_tier, context_window, inference_geo, meter,
        min(speed) as speed, sum(quantity)::bigint as quantity,
    from source.usage
    where in_period
    group by all
    having count(distinct speed) = 1
),
billed as (
    select day, workspace_id, model, service_tier, context_window, inference_geo, meter, sum(billed_usd) as billed_usd
    from source.billed
    group by all
),
valued as (
    select
        billed.*,
        (reported.quantity * price.price_usd * 0.000001::decimal(6, 6))::decimal(38, 12) as net_usd,
        (reported.quantity * price.list_price_usd * 0.000001::decimal(6, 6))::decimal(38, 12) as list_usd,
    from billed
    join reported
        on reported.day = billed.day and reported.workspace_id = billed.workspace_id
        and reported.model = billed.model and reported.service_tier = billed.service_tier
        and reported.context_window = billed.context_window and reported.inference_geo = billed.inference_geo
        and reported.meter = billed.meter
    join under_contract as price
        on price.model = billed.model and price.service_tier = billed.service_tier
        and price.context_window = billed.context_window and price.inference_geo = billed.inference_geo
        and price.speed = reported.speed and price.meter = billed.meter
        and billed.day >= price.from_on and (price.until_on is null or billed.day < price.until_on)
)
select *, case when billed_usd = net_usd then 'net' when billed_usd = list_usd then 'list' end as fits
from valued
where net_usd <> list_usd;
