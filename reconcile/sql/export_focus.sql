-- FOCUS Cost and Usage rows: every billed charge, split over the cost centers that receive it, and what the invoice adds.
-- Grain: one row a (charge, cost center); a charge is a cell of report.cell that is billed, or a corrected one, or a
--   step of the bridge after billed.
-- Reads: report.run, cell, allocation, chargeback, bridge, other; source.workspace; and from export/focus.py the temp
--   tables focus_setting (one row: invoice_id, draft) and focus_restated (what a cell of an earlier month is corrected by).
-- Writes: temp tables focus_name, focus_property, focus_charge, focus_received, focus_item, focus_receiver,
--   focus_by_day, focus_share, focus_sku, focus_used, focus_invoiced, focus_row, the temp view focus_violation.
-- Inside, money is a count of units of 1e-12 USD (HUGEINT), as in allocate.sql.

-- What FOCUS calls things. The only place for names that the 1.5 draft may still change.
create or replace temp table focus_name as
from (values
    ('uncached_input_tokens', 'Input Tokens', 'Tokens', '1000000 Tokens', 'Input', 'Uncached', null),
    ('cache_creation.ephemeral_5m_input_tokens', 'Cache Write Input Tokens', 'Tokens', '1000000 Tokens', 'Input', 'Write', '5m'),
    ('cache_creation.ephemeral_1h_input_tokens', 'Cache Write Input Tokens', 'Tokens', '1000000 Tokens', 'Input', 'Write', '1h'),
    ('cache_read_input_tokens', 'Cache Read Input Tokens', 'Tokens', '1000000 Tokens', 'Input', 'Read', null),
    ('output_tokens', 'Output Tokens', 'Tokens', '1000000 Tokens', 'Output', null, null),
    ('web_search_requests', 'Web Search Requests', 'Requests', 'Requests', null, null, null),
    ('code_execution', 'Code Execution', null, null, null, null, null),
    ('session_usage', 'Session Usage', null, null, null, null, null)
) as name(meter, sku_meter, consumed_unit, pricing_unit, token_direction, token_cache_action, cache_duration);

create or replace temp table focus_property as
from (values  -- position, property, its name in releases up to 1.4, its name in the 1.5 draft
    (1, 'developer', 'x_ModelDeveloper', 'ModelDeveloper'),
    (2, 'family', 'x_ModelFamily', 'ModelFamily'),
    (3, 'model', 'x_ModelId', 'ModelId'),
    (4, 'version', 'x_ModelVersion', 'ModelVersion'),
    (5, 'direction', 'x_TokenDirection', 'TokenDirection'),
    (6, 'cache_action', 'x_TokenCacheAction', 'TokenCacheAction'),
    (7, 'cache_duration', 'x_CacheDuration', 'x_CacheDuration'),
    (8, 'service_tier', 'x_ServiceTier', 'x_ServiceTier'),
    (9, 'context_window', 'x_ContextWindow', 'x_ContextWindow'),
    (10, 'inference_geo', 'x_InferenceGeo', 'x_InferenceGeo'),
    (11, 'speed', 'x_Speed', 'x_Speed')
) as property(position, property, release_name, draft_name);

create or replace temp macro in_units(usd) as
    (usd * 1000000000000::decimal(13, 0))::hugeint;

create or replace temp macro in_usd(units) as
    (units::decimal(38, 0) * 0.000000000001::decimal(12, 12))::decimal(38, 12);

-- of * part // whole, towards zero: the product in two limbs, so that it fits 128 bits.
create or replace temp macro portion_of(of_units, part, whole) as (
    (of_units * (part // 1000000000000)) // whole * 1000000000000
    + ((of_units * (part // 1000000000000)) % whole * 1000000000000 + of_units * (part % 1000000000000)) // whole
);

-- Divide each row of `items` over the receivers of its group, in proportion, so that both add up exactly: what an item
-- gives is the item, what a receiver gets is the receiver's sum. It is the rounded total up to here less those before.
-- items: (grp, item, units), receivers: (grp, receiver, units); the units of a group's items and receivers are equal.
create or replace temp macro divided(items, receivers) as table
with item_upto as (
    select
        grp, item, units,
        sum(units) over (partition by grp order by item) as upto,
        sum(units) over (partition by grp) as whole,
        row_number() over (partition by grp order by item) as place,
    from query_table(items)
),
receiver_upto as (
    select
        grp, receiver, units,
        sum(units) over (partition by grp order by receiver) as upto,
        row_number() over (partition by grp order by receiver) as place,
    from query_table(receivers)
)
select
    item.item,
    receiver.receiver,
    case
        when item.whole = 0  -- nothing to be proportional to: both sums hold all the same
            then if(receiver.place = 1, item.units, 0) + if(item.place = 1, receiver.units, 0)
        else portion_of(item.upto, receiver.upto, item.whole)
            - portion_of(item.upto - item.units, receiver.upto, item.whole)
            - portion_of(item.upto, receiver.upto - receiver.units, item.whole)
            + portion_of(item.upto - item.units, receiver.upto - receiver.units, item.whole)
    end::hugeint as units,
from item_upto as item
join receiver_upto as receiver on receiver.grp = item.grp;

-- Charges -----------------------------------------------------------------------------------------------------------

create or replace temp table focus_charge as
with charge as (
    select
        cell.day, cell.workspace_id, cell.model, cell.service_tier, cell.context_window, cell.inference_geo, cell.speed,
        cell.meter, cell.status, cell.reported_quantity, cell.billed_usd,
        coalesce(cell.list_price_usd, cell.price_usd) as list_price_usd,
        cell.price_usd, cell.price_high_usd, cell.reported_usd,
        null as period_of_charge,
        null as corrected_to,
    from report.cell as cell
    where cell.billed_usd is not null
    union all by name
    select
        day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter,
        amount_usd as billed_usd, period_of_charge, cost_center as corrected_to,
    from focus_restated
),
-- Where a price steps within a cell, its price is the mean one of what was reported there.
priced as (
    select
        *,
        coalesce(reported_quantity > 0 and price_usd is not null and reported_usd is not null, false)
            and period_of_charge is null as by_quantity,
        case
            when price_high_usd is null then in_units(price_usd)
            else (in_units(reported_usd) * 1000000 + reported_quantity // 2) // nullif(reported_quantity, 0)
        end as price_units,
    from charge
)
select
    row_number() over (
        order by period_of_charge nulls last, day, workspace_id, model, service_tier, context_window, inference_geo,
            speed, meter, corrected_to
    ) as charge,
    row(day, workspace_id, model, service_tier, meter) as day_grp,
    row(workspace_id, model, meter) as pool_grp,
    * exclude (price_units, price_high_usd, list_price_usd, price_usd),
    in_units(billed_usd) as units,
    in_usd(price_units) as contracted_price_usd,
    in_usd(
        case
            when price_high_usd is null or price_usd = 0 then in_units(list_price_usd)
            else price_units * in_units(list_price_usd) // in_units(price_usd)
        end
    ) as list_price_usd,
from priced;

-- Who receives ------------------------------------------------------------------------------------------------------

create or replace temp table focus_received as
select
    day is not null as dated,
    if(day is not null, row(day, workspace_id, model, service_tier, meter), null) as day_grp,
    row(workspace_id, model, meter) as pool_grp,
    coalesce(cost_center, 'unallocated') as cost_center,
    in_units(sum(amount_usd)) as units,
    list_sort(list(distinct basis)) as bases,
    list_sort(list(distinct coalesce(pool, rule, 'no rule'))) as rules,
    list_sort(list(distinct driver) filter (driver is not null)) as drivers,
from report.allocation
group by all;

-- The receivers of a day's charges, and as one more, '' (first in order), what goes into pools.
create or replace temp table focus_item as
select day_grp as grp, charge as item, units from focus_charge where period_of_charge is null;

create or replace temp table focus_receiver as
with charged as (
    select day_grp as grp, sum(units)::hugeint as units from focus_charge where period_of_charge is null group by day_grp
),
received as (
    select day_grp as grp, sum(units)::hugeint as units from focus_received where dated group by day_grp
)
select day_grp as grp, cost_center as receiver, units from focus_received where dated
union all
select charged.grp, '', charged.units - coalesce(received.units, 0),
from charged
left join received on received.grp = charged.grp
where received.grp is null or charged.units <> received.units;

create or replace temp table focus_by_day as
select * from divided(focus_item, focus_receiver);

-- Pools: what was left of each charge, over all days. A sum that no pool accounts for stays with its charge.
create or replace temp table focus_item as
with pooled as (
    select charge.pool_grp as grp, charge.charge as item, by_day.units,
    from focus_by_day as by_day
    join focus_charge as charge on charge.charge = by_day.item
    where by_day.receiver = '' and by_day.units <> 0
),
pooled_sum as (
    select grp, sum(units)::hugeint as units from pooled group by grp
),
received as (
    select pool_grp as grp, sum(units)::hugeint as units from focus_received where not dated group by pool_grp
)
select pooled.grp, pooled.item, pooled.units,
from pooled
join pooled_sum on pooled_sum.grp = pooled.grp
join received on received.grp = pooled.grp and received.units = pooled_sum.units;

create or replace temp table focus_receiver as
select pool_grp as grp, cost_center as receiver, units from focus_received where not dated;

create or replace temp table focus_share as
with by_pool as (
    select * from divided(focus_item, focus_receiver)
),
share as (
    select by_day.item as charge, received.cost_center, by_day.units, received.bases, received.rules, received.drivers,
    from focus_by_day as by_day
    join focus_charge as charge on charge.charge = by_day.item
    join focus_received as received
        on received.dated and received.day_grp = charge.day_grp and received.cost_center = by_day.receiver
    union all
    select by_pool.item, received.cost_center, by_pool.units, received.bases, received.rules, received.drivers,
    from by_pool
    join focus_charge as charge on charge.charge = by_pool.item
    join focus_received as received
        on not received.dated and received.pool_grp = charge.pool_grp and received.cost_center = by_pool.receiver
    union all
    select item, null, units, [], [], []
    from focus_by_day
    where receiver = '' and units <> 0 and item not in (select item from focus_item)
    union all
    select charge, corrected_to, units, [], [], [] from focus_charge where period_of_charge is not null
),
merged as (
    select
        charge,
        cost_center,
        sum(units)::hugeint as units,
        list_sort(list_distinct(flatten(list(bases)))) as bases,
        list_sort(list_distinct(flatten(list(rules)))) as rules,
        list_sort(list_distinct(flatten(list(drivers)))) as drivers,
    from share
    group by charge, cost_center
)
select * from merged
qualify units <> 0 or (  -- a charge of $0.00 keeps one row
    bool_and(units = 0) over (partition by charge)
    and row_number() over (partition by charge order by cost_center nulls last) = 1
);

-- Rows --------------------------------------------------------------------------------------------------------------

-- What a price is of, in the words of the release: one row a price.
create or replace temp table focus_sku as
with sku as (
    select distinct model, meter, service_tier, context_window, inference_geo, speed from focus_charge
),
described as (
    select
        sku.*,
        {
            'developer': if(sku.model is null, null, 'Anthropic'),
            'family': case regexp_extract(sku.model, 'opus|sonnet|haiku')
                when 'opus' then 'Claude Opus' when 'sonnet' then 'Claude Sonnet' when 'haiku' then 'Claude Haiku'
            end,
            'model': sku.model,
            'version': nullif(replace(regexp_extract(
                sku.model, '^claude-(?:opus-|sonnet-|haiku-)?(\d(?:-\d{1,2})?)(?:-|$)', 1
            ), '-', '.'), ''),
            'direction': name.token_direction,
            'cache_action': name.token_cache_action,
            'cache_duration': name.cache_duration,
            'service_tier': sku.service_tier,
            'context_window': sku.context_window,
            'inference_geo': sku.inference_geo,
            'speed': sku.speed
        }::json as property,
    from sku
    left join focus_name as name on name.meter = sku.meter
)
select
    row(model, meter, service_tier, context_window, inference_geo, speed) as dims,
    concat_ws(':', model, meter, service_tier, context_window, inference_geo, speed) as sku_price_id,
    to_json(map_from_entries(list({
        'key': if(setting.draft, property.draft_name, property.release_name),
        'value': json_extract_string(described.property, '$.' || property.property)
    } order by property.position) filter (
        json_extract_string(described.property, '$.' || property.property) is not null
    )))::varchar as details,
from described
cross join focus_property as property
cross join focus_setting as setting
group by all;

create or replace temp table focus_used as
with shared as (
    select
        charge.* exclude (units),
        share.cost_center, share.bases, share.rules, share.drivers, share.units,
        charge.units as charge_units,
        count(*) over (partition by charge.charge) > 1 as is_split,
        sum(share.units) over of_charge as upto,
        row_number() over of_charge as place,
        list_sort(list_distinct(flatten(list(share.rules) over (partition by charge.charge)))) as methods,
    from focus_charge as charge
    join focus_share as share on share.charge = charge.charge
    window of_charge as (partition by charge.charge order by share.cost_center nulls last)
),
counted as (  -- tokens are whole: a row has those up to it less those before it
    select
        *,
        case
            when not is_split then reported_quantity
            when charge_units = 0 then if(place = 1, reported_quantity, 0)
            else portion_of(reported_quantity::hugeint, upto, charge_units)
                - portion_of(reported_quantity::hugeint, upto - units, charge_units)
        end::bigint as quantity,
        in_usd(units) as amount_usd,
    from shared
),
named as (
    select
        counted.*,
        coalesce(name.sku_meter, counted.meter) as sku_meter,
        name.consumed_unit, name.token_direction, name.token_cache_action, name.cache_duration,
        if(counted.by_quantity, name.pricing_unit, 'USD') as pricing_unit,
        -- A charge without quantity or price is priced by value: so many dollars at 1 each.
        case
            when not counted.by_quantity then counted.amount_usd
            when name.pricing_unit = '1000000 Tokens' then (counted.quantity * 0.000001::decimal(6, 6))::decimal(38, 12)
            else counted.quantity::decimal(38, 12)
        end as pricing_quantity,
        if(counted.by_quantity, counted.list_price_usd, 1::decimal(38, 12)) as list_unit_price,
        if(counted.by_quantity, counted.contracted_price_usd, 1::decimal(38, 12)) as contracted_unit_price,
        counted.period_of_charge is not null as is_correction,
    from counted
    left join focus_name as name on name.meter = counted.meter
)
select
    row_number() over (order by named.charge, named.cost_center nulls last) as row,
    if(run.arrangement = 'prepaid', 0, named.amount_usd)::decimal(38, 12) as BilledCost,
    'Usage' as ChargeCategory,
    if(named.is_correction, 'Correction', null) as ChargeClass,
    concat_ws(', ', concat_ws(' ', named.model, lower(named.sku_meter)), nullif(named.service_tier, 'standard'),
        nullif(named.speed, 'standard'), if(named.is_correction, 'correction', null)) as ChargeDescription,
    'Usage-Based' as ChargeFrequency,
    strftime(named.day + interval 1 day, '%Y-%m-%dT00:00:00Z') as ChargePeriodEnd,
    strftime(named.day, '%Y-%m-%dT00:00:00Z') as ChargePeriodStart,
    if(named.is_correction or named.consumed_unit is null, null, named.quantity) as ConsumedQuantity,
    if(named.is_correction or named.quantity is null, null, named.consumed_unit) as ConsumedUnit,
    if(
        named.by_quantity,
        (named.contracted_unit_price::decimal(19, 12) * named.pricing_quantity::decimal(19, 6))::decimal(38, 12),
        named.amount_usd
    ) as ContractedCost,
    if(named.is_correction, null, named.contracted_unit_price) as ContractedUnitPrice,
    named.amount_usd as EffectiveCost,
    if(
        named.by_quantity,
        (named.list_unit_price::decimal(19, 12) * named.pricing_quantity::decimal(19, 6))::decimal(38, 12),
        named.amount_usd
    ) as ListCost,
    if(named.is_correction, null, named.list_unit_price) as ListUnitPrice,
    case
        when named.is_correction then null
        when named.service_tier in ('priority', 'priority_on_demand') then 'Committed'
        else 'Standard'
    end as PricingCategory,
    if(named.is_correction, null, named.pricing_quantity) as PricingQuantity,
    if(named.is_correction, null, named.pricing_unit) as PricingUnit,
    concat_ws(':', named.model, named.meter) as SkuId,
    named.sku_meter as SkuMeter,
    if(named.is_correction, null, sku.details) as SkuPriceDetails,
    if(named.is_correction, null, sku.sku_price_id) as SkuPriceId,
    named.workspace_id as SubAccountId,
    coalesce(workspace.name, named.workspace_id) as SubAccountName,
    if(named.workspace_id is null, null, 'Workspace') as SubAccountType,
    coalesce(workspace.tags, '{}') as Tags,
    if(named.is_split, to_json({
        'Elements': [{
            'AllocatedRatio': greatest(0, least(1, round(named.units::double / named.charge_units::double, 12)))
        }]
    })::varchar, null) as AllocatedMethodDetails,
    if(named.is_split, array_to_string(named.methods, '; '), null) as AllocatedMethodId,
    if(named.is_split, named.cost_center, null) as AllocatedResourceId,
    if(named.is_split, chargeback.name, null) as AllocatedResourceName,
    if(named.is_split, to_json({'cost_center': named.cost_center})::varchar, null) as AllocatedTags,
    named.cost_center as x_CostCenterId,
    chargeback.name as x_CostCenterName,
    nullif(array_to_string(named.bases, '; '), '') as x_AllocationBasis,
    nullif(array_to_string(named.rules, '; '), '') as x_AllocationRule,
    nullif(array_to_string(named.drivers, '; '), '') as x_AllocationDriver,
    named.model as x_Model,
    named.meter as x_TokenType,
    named.service_tier as x_ServiceTier,
    named.context_window as x_ContextWindow,
    named.inference_geo as x_InferenceGeo,
    named.speed as x_Speed,
    named.status as x_Status,
    named.period_of_charge as x_PeriodOfCharge,
    null as x_InvoiceReason,
    if(named.is_split, 'charge-' || named.charge, null) as x_SplitOriginId,
    if(named.is_split, if(run.arrangement = 'prepaid', 0, in_usd(named.charge_units)), null)::decimal(38, 12) as x_SplitOriginCost,
from named
cross join report.run as run
join focus_sku as sku
    on sku.dims = row(
        named.model, named.meter, named.service_tier, named.context_window, named.inference_geo, named.speed
    )
left join source.workspace as workspace on workspace.workspace_id = named.workspace_id
left join report.chargeback as chargeback on chargeback.cost_center = named.cost_center
order by row;

-- What stands between the bill and the invoice, so that BilledCost adds up to it: by cost center where a pool takes it.
create or replace temp table focus_invoiced as
with step as (
    select position, reason, title, in_units(amount_usd) as units,
    from report.bridge
    where kind = 'step' and position > (select position from report.bridge where kind = 'total' and reason = 'billed')
),
part as (
    select
        step.*, other.cost_center, other.basis, in_units(sum(other.amount_usd)) as part_units,
        string_agg(distinct other.pool, '; ' order by other.pool) as pools,
        string_agg(distinct other.driver, '; ' order by other.driver) as drivers,
    from step
    join report.other as other on other.reason = step.reason
    group by all
),
held as (  -- the corrections that are rows of their own are in the invoice's line for earlier periods
    select reason, part_units as units from part
    union all
    select 'earlier_period', in_units(amount_usd) from focus_restated
),
line as (
    select * from part
    union all by name
    select step.*, (step.units - coalesce(sum(held.units), 0))::hugeint as part_units,
    from step
    left join held on held.reason = step.reason
    group by step.position, step.reason, step.title, step.units
    having step.units <> coalesce(sum(held.units), 0)
)
select
    line.position, line.reason, line.title, line.cost_center, line.basis, line.pools, line.drivers,
    in_usd(line.part_units) as amount_usd,
    in_usd(sum(line.part_units) over of_step) as whole_usd,
    count(*) over of_step > 1 as is_split,
from line
where line.part_units <> 0
window of_step as (partition by line.position);

create or replace temp table focus_row as
with added as (
    select
        focus_invoiced.*,
        case
            when reason = 'tax' then 'Tax'
            when reason = 'credit' or (reason = 'commitment' and amount_usd < 0) then 'Credit'
            when reason = 'commitment' then 'Purchase'
            else 'Adjustment'
        end as category,
        chargeback.name,
    from focus_invoiced
    left join report.chargeback as chargeback on chargeback.cost_center = focus_invoiced.cost_center
),
charged as (
    select * from focus_used
    union all by name
    select
        (select count(*) from focus_used) + row_number() over (order by added.position, added.cost_center nulls last) as row,
        added.amount_usd as BilledCost,
        added.category as ChargeCategory,
        added.title as ChargeDescription,
        'One-Time' as ChargeFrequency,
        strftime(run.last_on + interval 1 day, '%Y-%m-%dT00:00:00Z') as ChargePeriodEnd,
        strftime(run.start_on, '%Y-%m-%dT00:00:00Z') as ChargePeriodStart,
        added.amount_usd as ContractedCost,
        if(added.category = 'Purchase', 1, null)::decimal(38, 12) as ContractedUnitPrice,
        added.amount_usd as EffectiveCost,
        if(added.reason = 'contract_discount', 0, added.amount_usd)::decimal(38, 12) as ListCost,  -- off the list price
        if(added.category = 'Purchase', 1, null)::decimal(38, 12) as ListUnitPrice,
        if(added.category = 'Purchase', 'Committed', null) as PricingCategory,
        if(added.category = 'Purchase', added.amount_usd, null) as PricingQuantity,
        if(added.category = 'Purchase', 'USD', null) as PricingUnit,
        if(added.category = 'Purchase', added.reason, null) as SkuId,
        if(added.category = 'Purchase', added.reason, null) as SkuPriceId,
        '{}' as Tags,
        if(added.is_split, to_json({
            'Elements': [{'AllocatedRatio': greatest(0, least(1, round(added.amount_usd::double / added.whole_usd::double, 12)))}]
        })::varchar, null) as AllocatedMethodDetails,
        if(added.is_split, coalesce(added.pools, 'no pool'), null) as AllocatedMethodId,
        if(added.is_split, added.cost_center, null) as AllocatedResourceId,
        if(added.is_split, added.name, null) as AllocatedResourceName,
        if(added.is_split, to_json({'cost_center': added.cost_center})::varchar, null) as AllocatedTags,
        added.cost_center as x_CostCenterId,
        added.name as x_CostCenterName,
        added.basis as x_AllocationBasis,
        added.pools as x_AllocationRule,
        added.drivers as x_AllocationDriver,
        added.reason as x_InvoiceReason,
        if(added.is_split, 'invoice-' || added.reason, null) as x_SplitOriginId,
        if(added.is_split, added.whole_usd, null) as x_SplitOriginCost,
    from added
    cross join report.run as run
)
select
    charged.*,
    run.organization_id as BillingAccountId,
    run.organization as BillingAccountName,
    'Organization' as BillingAccountType,
    'USD' as BillingCurrency,
    strftime(run.last_on + interval 1 day, '%Y-%m-%dT00:00:00Z') as BillingPeriodEnd,
    strftime(run.start_on, '%Y-%m-%dT00:00:00Z') as BillingPeriodStart,
    'Anthropic' as HostProviderName,
    setting.invoice_id as InvoiceId,
    'Anthropic' as InvoiceIssuerName,
    'Anthropic' as ProviderName,
    'Anthropic' as PublisherName,
    'AI and Machine Learning' as ServiceCategory,
    'Claude API' as ServiceName,
    'Anthropic' as ServiceProviderName,
    'Generative AI' as ServiceSubcategory,
    run.revision as x_Revision,
from charged
cross join report.run as run
cross join focus_setting as setting
order by row;

-- Controls: empty means that every dollar is in one row, and in the row of who pays it.
create or replace temp view focus_violation as
select 'billed' as what, cost_center, expected_usd, found_usd
from (
    select null as cost_center,
        (select coalesce(sum(billed_usd), 0) from report.cell) as expected_usd,
        coalesce(sum(EffectiveCost) filter (ChargeClass is null), 0)::decimal(38, 12) as found_usd,
    from focus_used
)
where expected_usd <> found_usd
union all
select 'restated', null, restated.amount_usd, found.amount_usd,
from (select coalesce(sum(amount_usd), 0)::decimal(38, 12) as amount_usd from focus_restated) as restated
cross join (
    select coalesce(sum(EffectiveCost), 0)::decimal(38, 12) as amount_usd from focus_row where ChargeClass is not null
) as found
where restated.amount_usd <> found.amount_usd
union all
select 'cost center', coalesce(allocated.cost_center, found.cost_center),
    coalesce(allocated.amount_usd, 0), coalesce(found.amount_usd, 0),
from (
    select coalesce(cost_center, 'unallocated') as cost_center, sum(amount_usd)::decimal(38, 12) as amount_usd,
    from report.allocation
    group by all
) as allocated
full join (
    select x_CostCenterId as cost_center, sum(EffectiveCost)::decimal(38, 12) as amount_usd
    from focus_used
    where ChargeClass is null
    group by all
) as found on found.cost_center is not distinct from allocated.cost_center
where coalesce(allocated.amount_usd, 0) <> coalesce(found.amount_usd, 0)
union all
select 'invoiced', null, invoiced.running_usd, found.amount_usd,
from (select running_usd from report.bridge where kind = 'total' and reason = 'invoiced') as invoiced
cross join (  -- a restatement that no line of the invoice holds comes on top
    select
        sum(EffectiveCost) - if(
            exists (select 1 from report.bridge where reason = 'earlier_period'), 0,
            (select coalesce(sum(amount_usd), 0) from focus_restated)
        ) as amount_usd,
    from focus_row
) as found
where invoiced.running_usd <> found.amount_usd
order by what, 2;
