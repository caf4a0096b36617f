-- One row a cause in a place, out of every pass's parts.
-- Grain: explained.part one row a finding and cell; finding one row (reason, place). A place spells only the dimensions
--   that tell one cause from another, so that a person reads tens of findings.
-- Reads: explained.claim, price_part, note, source.removed. Writes: explained.part, finding, checks.

-- A claim's dollars telescope along the cell: the value of the quantity reached, less that of the one before.
-- Where nothing was reported, reported dollars are 0, whatever step the recorded requests stood on: the last claim ends there.
create or replace table explained.claim_value as
with
ordered as (
    select
        claim.*, cell.price_usd, cell.price_unit, coalesce(cell.recorded_exact_usd, 0) as recorded_exact_usd,
        coalesce(cell.reported_usd, 0) as reported_usd,
        sum(claim.quantity) over claims as upto,
        row_number() over claims as standing,
        count(*) over (partition by claim.cell_id) as claims,
    from explained.claim as claim
    join explained.cell as cell on cell.cell_id = claim.cell_id
    window claims as (
        partition by claim.cell_id
        order by claim.position, claim.log nulls last, claim.place_workspace_id nulls last,
            claim.place_model nulls last, claim.place_service_tier nulls last, claim.api_key_id nulls last,
            claim.evidence nulls last
        rows unbounded preceding
    )
),
reached as (
    select *,
        case
            when standing = claims then reported_usd
            else (recorded_exact_usd + matched.value_usd(upto::bigint, price_usd, price_unit))::decimal(38, 12)
        end::decimal(38, 12) as reached_usd,
        (recorded_exact_usd + matched.value_usd((upto - quantity)::bigint, price_usd, price_unit))::decimal(38, 12)
            as from_usd,
    from ordered
)
select
    cell_id, position, reason, confidence, log, place_workspace_id, place_model, place_service_tier, api_key_id, evidence,
    quantity, (reached_usd - from_usd)::decimal(38, 12) as amount_usd,
from reached;

create or replace table explained.raw_part as
select
    claim.reason, claim.confidence, claim.evidence, claim.log, claim.place_workspace_id as given_workspace_id,
    claim.place_model as given_model, claim.place_service_tier as given_service_tier, cell.workspace_id, cell.model, cell.service_tier,
    cell.context_window, cell.inference_geo, cell.speed, cell.meter, claim.api_key_id, cell.day, claim.cell_id,
    claim.quantity, claim.amount_usd, abs(claim.amount_usd) as moved_usd,
    null::bigint as requests, null::bigint as lines, null::varchar as kept_log,
from explained.claim_value as claim
join explained.cell as cell on cell.cell_id = claim.cell_id
union all
select
    part.reason,
    case
        when part.reason in ('discount', 'price_book') then 'inferred'
        when part.reason = 'uncharged' and cell.billed_usd is not null then 'inferred'
        when part.reason = 'residual' then 'suspected'
        else 'measured'
    end,
    null, null, null, null, null, cell.workspace_id, cell.model, cell.service_tier, cell.context_window,
    cell.inference_geo, cell.speed, cell.meter, null, cell.day, part.cell_id, part.quantity, part.amount_usd, abs(part.amount_usd), null, null, null,
from explained.price_part as part
join explained.cell as cell on cell.cell_id = part.cell_id
union all
select
    reason, 'measured', null, log, null, null, null, workspace_id, model, service_tier, context_window, inference_geo, speed, null,
    api_key_id, day, null, nullif(quantity, 0), amount_usd, moved_usd, requests, lines, kept_log,
from source.removed
where in_period;

-- The place of each reason.
create or replace table explained.placed_part as
with placed as (
    select
        *,
        case when meter = 'web_search_requests' then meter end as search_meter,
        reason in ('unlogged_key', 'no_key', 'cut_stream', 'unlogged', 'unreported', 'code_execution', 'session_usage',
            'residual') as by_workspace,
        reason in (
            'time_zone', 'cutoff', 'cache_inclusive', 'cache_ttl', 'model', 'service_tier', 'context_window',
            'inference_geo', 'speed', 'workspace'
        ) as two_sided,
        reason in ('app_price', 'iterations', 'cut_stream', 'unlogged', 'unreported', 'discount', 'price_book',
            'price_interval', 'uncharged', 'unpriced', 'residual') as by_model,
    from explained.raw_part
)
select
    * exclude (search_meter, by_workspace, by_model),
    log as place_log,
    case when by_workspace then workspace_id else given_workspace_id end as place_workspace_id,
    case when by_model then model else given_model end as place_model,
    case when reason in ('price_book', 'uncharged') then service_tier else given_service_tier end as place_service_tier,
    case
        when reason in ('price_book', 'residual', 'code_execution', 'session_usage') then meter
        when reason = 'cut_stream' then 'output_tokens'
        when not two_sided then search_meter
    end as place_meter,
    case when reason = 'unlogged_key' then api_key_id end as place_api_key_id,
from placed;

create or replace macro explained.finding_id(reason, log, workspace_id, model, service_tier, meter, api_key_id) as
    left(sha256(to_json([reason, log, workspace_id, model, service_tier, meter, api_key_id])::varchar), 12);

create or replace table explained.part as
select
    explained.finding_id(reason, place_log, place_workspace_id, place_model, place_service_tier, place_meter, place_api_key_id)
        as finding_id,
    day, workspace_id, model, service_tier, context_window, inference_geo, speed, meter, cell_id,
    quantity, amount_usd,
from explained.placed_part;

create or replace table explained.summed as
select
    explained.finding_id(reason, place_log, place_workspace_id, place_model, place_service_tier, place_meter, place_api_key_id)
        as id,
    reason,
    place_log as log, place_workspace_id as workspace_id, place_model as model, place_service_tier as service_tier,
    place_meter as meter, place_api_key_id as api_key_id,
    min(day) as day_from,
    max(day) as day_to,
    case
        when bool_and(confidence = 'measured') then 'measured'
        -- of mixed evidence, that of the larger part
        when 2 * coalesce(sum(moved_usd) filter (confidence = 'suspected'), 0) > sum(moved_usd) then 'suspected'
        when bool_and(confidence = 'suspected') then 'suspected'
        else 'inferred'
    end as confidence,
    case
        when reason in ('discount', 'price_book', 'price_interval', 'code_execution', 'session_usage', 'rounding', 'app_price')
        then null
        -- searches that move with their requests are no tokens
        when any_value(two_sided) then (sum(quantity) filter (meter is distinct from 'web_search_requests'))::bigint
        else sum(quantity)::bigint
    end as quantity,
    sum(amount_usd)::decimal(38, 12) as amount_usd,
    -- what two cells exchange is in a wrong place once, not twice
    case when any_value(two_sided)
        then greatest(
            coalesce(sum(moved_usd) filter (amount_usd > 0), 0), coalesce(sum(moved_usd) filter (amount_usd < 0), 0)
        )
        else sum(moved_usd)
    end::decimal(38, 12) as moved_usd,
    count(distinct cell_id) as cells,
    sum(requests)::bigint as requests,
    sum(lines)::bigint as lines,
from explained.placed_part
group by reason, place_log, place_workspace_id, place_model, place_service_tier, place_meter, place_api_key_id;

-- What anyone may want to see of a finding beside its own facts: its largest cells.
create or replace table explained.largest as
select
    id,
    -- of the three rarer dimensions, the one that the reason is about (a merge patch drops what is null)
    to_json(list(json_merge_patch('{}'::json, to_json({
        'day': day::varchar, 'workspace_id': workspace_id, 'model': model, 'service_tier': service_tier,
        'context_window': if(reason = 'context_window', context_window, null),
        'inference_geo': if(reason = 'inference_geo', inference_geo, null),
        'speed': if(reason = 'speed', speed, null),
        'meter': meter, 'quantity': quantity::varchar, 'amount_usd': amount_usd::varchar,
    })) order by standing)) as cells,
from (
    select
        part.finding_id as id, summed.reason, day, part.workspace_id, part.model, part.service_tier, context_window,
        inference_geo, speed, part.meter, sum(part.quantity)::bigint as quantity,
        sum(part.amount_usd)::decimal(38, 12) as amount_usd,
        row_number() over (
            partition by part.finding_id
            order by abs(sum(part.amount_usd)) desc, day, part.workspace_id nulls last, part.model nulls last,
                part.service_tier nulls last, context_window nulls last, inference_geo nulls last, speed nulls last,
                part.meter nulls last
        ) as standing,
    from explained.part as part
    join explained.summed as summed on summed.id = part.finding_id
    group by part.finding_id, summed.reason, day, part.workspace_id, part.model, part.service_tier, context_window,
        inference_geo, speed, part.meter
)
where standing <= 5
group by id;

insert into explained.note
select reason, place_log, null, place_model, null, null, null, 'logs_that_hold_them_too',
    to_json(list(distinct kept_log order by kept_log))
from explained.placed_part
where reason = 'duplicate' and kept_log is not null
group by all;

insert into explained.note
select reason, place_log, place_workspace_id, place_model, null, place_meter, null, 'tokens_' || replace(evidence, ' ', '_'),
    to_json((-sum(quantity))::varchar)
from explained.placed_part
where reason = 'unreported' and evidence is not null
group by reason, place_log, place_workspace_id, place_model, place_meter, evidence;

create or replace table explained.finding as
with
fact as (
    select explained.finding_id(reason, log, workspace_id, model, service_tier, meter, api_key_id) as id, name, value
    from explained.note
    union all
    select id, 'requests', to_json(requests::varchar) from explained.summed where requests is not null
    union all
    select id, 'lines', to_json(lines::varchar) from explained.summed where lines > 0
    union all
    select id, 'cells', to_json(cells::varchar) from explained.summed where cells > 0
    union all
    select id, 'largest', cells from explained.largest
),
evidence as (
    select id, to_json(map_from_entries(list({'k': name, 'v': value} order by name)))::varchar as evidence
    from fact
    group by id
),
limits as (
    select run.tolerance_usd, run.tolerance_percent,
        coalesce((select sum(billed_usd) from explained.cell), 0)::decimal(38, 12) as billed_usd,
    from source.run as run
),
-- each alone within both limits, and with all smaller ones too
running as (
    select summed.*, limits.*, sum(moved_usd) over (order by moved_usd, id) as moved_upto_usd,
    from explained.summed as summed
    cross join limits
)
select
    running.id, running.reason, running.confidence, running.day_from, running.day_to, running.log,
    running.workspace_id, running.model, running.service_tier, running.meter, running.api_key_id, running.quantity,
    running.amount_usd, running.moved_usd,
    moved_upto_usd > tolerance_usd or 100 * moved_upto_usd > tolerance_percent * abs(billed_usd) as beyond_tolerance,
    false as accepted,
    evidence.evidence,
from running
left join evidence on evidence.id = running.id;
