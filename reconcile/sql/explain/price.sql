-- From reported to billed: why a quantity was billed at something else than the book says.
-- Rule, in order, each on what the ones before it leave of the cell's price variance:
--   code_execution, session_usage  charges that have no quantity;
--   unpriced        no book has a price: what was billed stands here in full;
--   residual        billed without a reported quantity, or of a kind of charge that is not known;
--   rounding        within 1e-12 USD for the cell and for each of its lines;
--   discount        one fraction of list on a model's meters: a meter counts when 90 % of its dollars between the
--                   fraction's first and last day carry it, but for cells of whole tokens at it, yet fewer, and a third
--                   in any case; at least two and half of the meters do, or its only one does on three days;
--   price_book      one other rate: the same on several cells of one price, or a price that fits nowhere;
--   price_interval  the straddled step (design: towards the upper price, up to |reported - recorded| x the step);
--   uncharged       no cost line, or whole tokens at the book's rate but fewer than were reported;
--   price_book      what still fails the whole-token check.
-- Grain: explained.price_part one row a cell and reason. Reads: explained.cell, matched.line. Writes: explained, checks.
-- The fraction of an expected amount that was billed, where one of six decimals gives it exactly.
create or replace macro explained.fraction_of(billed_usd, expected_usd, roundings) as
    case
        when billed_usd > 0 and expected_usd > 0 and billed_usd < 1000 * expected_usd then
            case
                when abs(billed_usd - expected_usd * round(billed_usd / expected_usd, 6)::decimal(12, 6))
                    <= roundings * 0.000000000001::decimal(12, 12)
                then round(billed_usd / expected_usd, 6)::decimal(12, 6)
            end
    end;

-- What one price unit was billed at, to six decimals.
create or replace macro explained.about_rate_of(billed_usd, quantity, price_unit) as
    try_cast(round(billed_usd / quantity * if(price_unit = 'search', 1, 1000000), 6) as decimal(12, 6));

-- What one price unit was billed at, where a rate of six decimals gives the amount exactly.
create or replace macro explained.rate_of(billed_usd, quantity, price_unit, roundings) as
    case
        when billed_usd > 0 and quantity > 0 and abs(billed_usd - matched.value_usd(
            quantity, explained.about_rate_of(billed_usd, quantity, price_unit), price_unit
        )) <= roundings * 0.000000000001::decimal(12, 12)
        then explained.about_rate_of(billed_usd, quantity, price_unit)
    end;

create or replace table explained.price_cell as
with lines as (
    select cell.cell_id, sum(line.lines) as lines
    from matched.line as line
    join explained.cell as cell
        on cell.day = line.day and cell.meter = line.meter
        and cell.workspace_id is not distinct from line.workspace_id
        and cell.model is not distinct from line.model
        and cell.service_tier is not distinct from line.service_tier
        and cell.context_window is not distinct from line.context_window
        and cell.inference_geo is not distinct from line.inference_geo
        and cell.speed is not distinct from line.speed
    group by cell.cell_id
)
select
    cell.*,
    (coalesce(lines.lines, 0) + 1) * 0.000000000001::decimal(12, 12) as rounding_bound_usd,
    case
        when meter in ('code_execution', 'session_usage') then meter
        when model is null and meter <> 'web_search_requests' then 'residual'
        when price_usd is null then 'unpriced'
        when reported_quantity is null and billed_usd <> 0 then 'residual'
        when abs(price_variance_usd) <= (coalesce(lines.lines, 0) + 1) * 0.000000000001::decimal(12, 12)
            then 'rounding'
        when coalesce(billed_usd, 0) = 0 then 'uncharged'
    end as settled,
    -- the cell at list; where a step is straddled only the whole amount is known, at the price that holds
    case
        when price_high_usd is null then matched.value_usd(reported_quantity, list_price_usd, price_unit)::decimal(38, 12)
        when list_price_usd = price_usd then reported_usd
    end as list_usd,
    explained.fraction_of(billed_usd, reported_usd, coalesce(lines.lines, 0) + 1) as fraction,
    explained.rate_of(billed_usd, reported_quantity, price_unit, coalesce(lines.lines, 0) + 1) as rate_usd,
    explained.fraction_of(
        billed_usd,
        case
            when price_high_usd is null then matched.value_usd(reported_quantity, list_price_usd, price_unit)::decimal(38, 12)
            when list_price_usd = price_usd and variance_quantity = 0 then reported_usd
        end,
        coalesce(lines.lines, 0) + 1
    ) as fraction_of_list,
from explained.cell as cell
left join lines on lines.cell_id = cell.cell_id
where price_variance_usd <> 0 or price_usd is null or billed_usd is not null;

-- Candidates for a discount: a fraction of list below 1 that a model's cells share.
create or replace table explained.discount as
with voting as (
    select * from explained.price_cell
    where model is not null and list_usd > 0 and billed_usd > 0 and (price_high_usd is null or variance_quantity = 0)
),
-- a straddled step whose requests are not all known has no vote, but can show the first or the last day
carrying as (
    select model, day, coalesce(fraction_of_list, if(list_price_usd = price_usd, fraction, null)) as fraction
    from explained.price_cell
    where settled is null
),
candidate as (
    select model, fraction, min(day) as from_on, max(day) as to_on
    from carrying
    semi join (
        select model, fraction_of_list as fraction from voting where settled is null and fraction_of_list < 1
    ) as voted using (model, fraction)
    group by model, fraction
),
by_meter as (
    select
        candidate.model, candidate.fraction, candidate.from_on, candidate.to_on, voting.meter,
        sum(voting.list_usd) as list_usd,
        coalesce(sum(voting.list_usd) filter (voting.settled is null and voting.fraction_of_list = candidate.fraction), 0)
            as at_fraction_usd,
        -- whole tokens at the fraction, but fewer: some were not charged, the others are at it
        coalesce(sum(voting.list_usd) filter (
            voting.billed_usd < voting.list_usd * candidate.fraction
            and voting.billed_usd::decimal(38, 18) % (
                matched.value_usd(1, voting.list_price_usd, voting.price_unit) * candidate.fraction
            )::decimal(38, 18) = 0
        ), 0) as fewer_usd,
        count(distinct voting.day) as days,
    from candidate
    join voting on voting.model = candidate.model and voting.day between candidate.from_on and candidate.to_on
    group by all
),
judged as (
    select *, 10 * at_fraction_usd >= 9 * (list_usd - fewer_usd) and 3 * at_fraction_usd >= list_usd as is_at_fraction
    from by_meter
)
select model, fraction, from_on, to_on, sum(at_fraction_usd) as at_fraction_usd, sum(list_usd) as list_usd,
    count(*) filter (is_at_fraction) as meters_at_fraction, count(*) as meters,
from judged
group by model, fraction, from_on, to_on
having (count(*) filter (is_at_fraction) >= 2 and 2 * count(*) filter (is_at_fraction) >= count(*))
    or (count(*) = 1 and sum(at_fraction_usd) = sum(list_usd) and max(days) >= 3)
qualify row_number() over (partition by model order by sum(at_fraction_usd) desc, fraction) = 1;

create or replace table explained.price_step as
select
    cell.*,
    discount.fraction as discount_fraction,
    case
        when discount.fraction is null then 0
        else (coalesce(cell.list_usd, cell.reported_usd) * discount.fraction)::decimal(38, 12) - cell.reported_usd
    end::decimal(38, 12) as discount_usd,
    case when cell.fraction_of_list = discount.fraction then 1 else cell.fraction end as fraction_left,
    (matched.value_usd(
        abs(cell.variance_quantity), coalesce(cell.price_high_usd, cell.price_usd) - cell.price_usd, cell.price_unit
    ) * coalesce(discount.fraction, 1))::decimal(38, 12) as interval_usd,
    -- what one unit costs once the discount is off
    (case
        when discount.fraction is null then matched.value_usd(1, cell.price_usd, cell.price_unit)
        else matched.value_usd(1, cell.list_price_usd, cell.price_unit) * discount.fraction
    end)::decimal(38, 18) as unit_usd,
from explained.price_cell as cell
left join explained.discount as discount
    on discount.model = cell.model and cell.day between discount.from_on and discount.to_on
where cell.settled is null and cell.price_variance_usd <> 0;

-- A rate that is not the book's: the same on several cells of one price, or a price that no cell of the month fits.
create or replace table explained.other_rate as
with rated as (
    select step.cell_id, step.day, step.model, step.service_tier, step.context_window, step.inference_geo, step.speed,
        step.meter, step.fraction, step.rate_usd,
    from explained.price_step as step
    where step.price_high_usd is null and (step.fraction is not null or step.rate_usd is not null)
        and step.fraction_left is distinct from 1 and step.settled is null
),
fitting as (
    select model, service_tier, context_window, inference_geo, speed, meter
    from explained.price_cell
    where settled = 'rounding' and reported_usd > 0
    union
    select model, service_tier, context_window, inference_geo, speed, meter
    from explained.price_step
    where fraction_left = 1
)
select rated.cell_id,
    -- null is no rate that several cells share
    greatest(
        if(rated.fraction is null, 0, count(*) over (
            partition by rated.model, rated.service_tier, rated.context_window, rated.inference_geo, rated.speed,
                rated.meter, rated.fraction
        )),
        if(rated.rate_usd is null, 0, count(*) over (
            partition by rated.model, rated.service_tier, rated.context_window, rated.inference_geo, rated.speed,
                rated.meter, rated.rate_usd
        ))
    ) as cells,
    fitting.meter is not null as fits_elsewhere,
from rated
left join fitting
    on fitting.model is not distinct from rated.model
    and fitting.service_tier is not distinct from rated.service_tier
    and fitting.context_window is not distinct from rated.context_window
    and fitting.inference_geo is not distinct from rated.inference_geo
    and fitting.speed is not distinct from rated.speed
    and fitting.meter = rated.meter;

create or replace table explained.price_part as
with step as (
    select
        price_step.*,
        price_step.price_variance_usd - price_step.discount_usd as left_usd,
        other_rate.cell_id is not null and (other_rate.cells > 1 or not other_rate.fits_elsewhere) as at_other_rate,
        -- whole tokens at the rate that holds after the discount, but fewer than reported
        -- (`%` is exact only between decimals of one scale)
        price_step.billed_usd::decimal(38, 18) % nullif(price_step.unit_usd, 0) = 0
            and price_step.billed_usd < price_step.reported_usd + price_step.discount_usd
            as whole_but_fewer,
        case
            when price_step.price_high_usd is null then 0
            when (price_step.price_variance_usd - price_step.discount_usd > 0) = (price_step.variance_quantity > 0)
            then least(abs(price_step.price_variance_usd - price_step.discount_usd), price_step.interval_usd)
                * sign(price_step.price_variance_usd - price_step.discount_usd)
            else 0
        end::decimal(38, 12) as in_interval_usd,
    from explained.price_step as price_step
    left join explained.other_rate as other_rate on other_rate.cell_id = price_step.cell_id
),
parts as (
    select cell_id, settled as reason, price_variance_usd as amount_usd
    from explained.price_cell
    where settled is not null and (price_variance_usd <> 0 or (settled = 'unpriced' and meter <> 'web_search_requests'))
    union all
    select cell_id, 'discount', discount_usd from step where discount_usd <> 0
    union all
    select cell_id, 'price_interval', in_interval_usd from step where in_interval_usd <> 0
    union all
    select cell_id,
        case
            when abs(left_usd - in_interval_usd) <= rounding_bound_usd then 'rounding'
            when price_high_usd is null and whole_but_fewer and not at_other_rate then 'uncharged'
            else 'price_book'
        end,
        (left_usd - in_interval_usd)::decimal(38, 12)
    from step
    where left_usd - in_interval_usd <> 0
)
select
    parts.cell_id, parts.reason, parts.amount_usd::decimal(38, 12) as amount_usd,
    case
        when parts.reason = 'unpriced' then coalesce(cell.reported_quantity, cell.recorded_quantity)
        when parts.reason = 'uncharged' and cell.billed_usd is null then -cell.reported_quantity
    end as quantity,
from parts
join explained.cell as cell on cell.cell_id = parts.cell_id;

insert into explained.note
select 'discount', null, null, model, null, null, null, fact.name, to_json(fact.value)
from explained.discount
cross join lateral (
    select unnest([
        {'name': 'fraction_of_list', 'value': fraction::varchar},
        {'name': 'first_day', 'value': from_on::varchar},
        {'name': 'last_day', 'value': to_on::varchar},
        {'name': 'meters_at_this_fraction', 'value': meters_at_fraction || ' of ' || meters},
        {'name': 'usd_at_this_fraction', 'value': at_fraction_usd || ' of ' || list_usd},
    ], recursive := true)
) as fact;

insert into explained.note
select 'price_book', null, null, cell.model, cell.service_tier, cell.meter, null, fact.name, fact.value
from (
    select model, service_tier, meter,
        -- list_distinct leaves out what is not known
        list_distinct(list(coalesce(rate_usd, explained.about_rate_of(billed_usd, reported_quantity, price_unit)))) as implied,
        list_distinct(list(price_usd)) as book, nullif(list_distinct(list(price_high_usd)), []) as upper,
        min(day) as first_day,
        any_value(price_unit order by price_unit) as price_unit,
    from explained.price_step
    semi join explained.price_part as part on part.cell_id = price_step.cell_id and part.reason = 'price_book'
    group by all
) as cell
cross join lateral (
    select unnest([
        {'name': 'implied_rate_usd', 'value': to_json(list_sort(implied)[1:5]::varchar[])},
        {'name': 'book_rate_usd', 'value': to_json(list_sort(book)[1:5]::varchar[])},
        {'name': 'book_rate_above_the_step_usd', 'value': to_json(list_sort(upper)[1:5]::varchar[])},
        {'name': 'rate_is_for_one', 'value': to_json(price_unit)},
        {'name': 'since', 'value': to_json(first_day::varchar)},
    ], recursive := true)
) as fact
where fact.value is not null;

-- The interval from the book alone, and as the logged requests narrow it: where all are known it is a point. What was
-- recorded and not reported may have been of the upper price: the interval then reaches down.
insert into explained.note
select 'price_interval', null, null, model, null, null, null, fact.name, to_json(fact.value::decimal(38, 12)::varchar)
from (
    select model,
        sum(low_usd) as low_usd,
        sum(high_usd) as high_usd,
        sum(greatest(low_usd, reported_usd + least(0, unknown_usd))) as known_low_usd,
        sum(least(high_usd, reported_usd + greatest(0, unknown_usd))) as known_high_usd,
        sum(billed_usd) as billed_usd,
    from (
        select *,
            matched.value_usd(reported_quantity, price_usd, price_unit) as low_usd,
            matched.value_usd(reported_quantity, price_high_usd, price_unit) as high_usd,
            matched.value_usd(variance_quantity, (price_high_usd - price_usd)::decimal(38, 12), price_unit) as unknown_usd,
        from explained.cell
        semi join explained.price_part as part on part.cell_id = cell.cell_id and part.reason = 'price_interval'
    )
    group by model
)
cross join lateral (
    select unnest([
        {'name': 'lowest_by_the_book_usd', 'value': low_usd},
        {'name': 'highest_by_the_book_usd', 'value': high_usd},
        {'name': 'lowest_with_the_requests_known_usd', 'value': known_low_usd},
        {'name': 'highest_with_the_requests_known_usd', 'value': known_high_usd},
        {'name': 'billed_usd', 'value': billed_usd},
    ], recursive := true)
) as fact;

create or replace view checks.price_variance_not_explained as
select cell.cell_id, cell.day, cell.workspace_id, cell.model, cell.meter, cell.price_variance_usd, part.amount_usd
from explained.cell as cell
left join (
    select cell_id, sum(amount_usd) as amount_usd from explained.price_part group by cell_id
) as part on part.cell_id = cell.cell_id
where cell.price_variance_usd <> coalesce(part.amount_usd, 0);
