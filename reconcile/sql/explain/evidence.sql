-- What stands behind a finding: its requests where a log has them, and the figures of its picture.
-- Rule: a request is `known` to be one of the finding's where an id, a cost, a counter or a status says so, and where all
--   that was recorded in its hour and place was moved. Otherwise the finding is among the requests that are listed: hour
--   and place are right, and the data does not tell which of them.
-- Grain: explained.request one row a finding and request (a view: nothing is copied); curve one a finding and hour of the
--   day; exchange one a finding and value of the dimension that was confused (at most 6, then the rest together; of days all).
-- Reads: source.request, removed_request, iteration; explained.finding, part, cell, shift, inclusive, inclusive_line, exchanged, stray, adjusted, moved,
--   hour_slot, slot, known. Writes: explained.

-- The place of a request as it was logged, and its hour and workspace as it was counted, once the log's clock is set right
-- and the line stands in its key's workspace.
create or replace view explained.placed_request as
select
    request.*,
    request.logged_at - to_minutes(coalesce(shift.minutes, 0)) as counted_at,
    (request.logged_at - to_minutes(coalesce(shift.minutes, 0)))::date as counted_day,
    date_trunc('hour', request.logged_at - to_minutes(coalesce(shift.minutes, 0)))::timestamp as counted_hour,
    coalesce(stray.workspace_id, request.workspace_id) as counted_workspace_id,
    stray.workspace_id as key_workspace_id,
    uncached_input_tokens + cache_write_5m + cache_write_1h + cache_read_input_tokens + output_tokens as tokens,
from source.request as request
left join explained.shift as shift on shift.log = request.log
left join explained.stray as stray
    on stray.api_key_id = request.api_key_id and stray.logged_workspace_id is not distinct from request.workspace_id;

-- The places of a finding's cells; web searches have a day and a workspace alone.
create or replace view explained.finding_place as
select
    part.finding_id, part.day, part.workspace_id, part.model, part.service_tier, part.context_window,
    part.inference_geo, part.speed, bool_and(cell.billed_usd is null) as not_billed,
from explained.part as part
join explained.cell as cell on cell.cell_id = part.cell_id
group by all;

-- The slots from which netting took what stands elsewhere in the report: too much was recorded there.
create or replace view explained.emptied_slot as
select
    finding.id as finding_id, moved.from_slot as slot_id, moved.log,
    sum(input + write_5m + write_1h + read + output)::bigint as tokens,
from explained.moved as moved
join explained.finding as finding
    on finding.reason = moved.reason and finding.log = moved.log
    and (moved.reason <> 'workspace' or finding.workspace_id = moved.to_value)
    and (moved.reason <> 'model' or finding.model = moved.to_value)
    and (moved.reason <> 'service_tier' or finding.service_tier = moved.to_value)
group by all
union all
select finding.id, adjusted.slot_id, adjusted.log, null
from explained.adjusted as adjusted
join explained.finding as finding
    on finding.reason = adjusted.reason and finding.log = adjusted.log
    and finding.model is not distinct from adjusted.model
where adjusted.quantity < 0
group by all;

create or replace view explained.request as
with
slot as (
    select *, false as by_day from explained.hour_slot
    union all
    select slot_id, hour, day, workspace_id, model, service_tier, context_window, inference_geo, speed, true
    from explained.slot
),
behind as (
    -- lines that cleaning took away, by the request that stands for them
    select finding.id as finding_id, true as known, removed.log, request.* exclude (log),
        removed.quantity, removed.amount_usd::decimal(38, 12) as amount_usd,
        case
            when removed.reason = 'stream_sum' then removed.lines || ' events'
            when removed.log <> request.log then removed.lines || if(removed.lines = 1, ' line', ' lines') || ' more; kept in ' || request.log
            else removed.lines || if(removed.lines = 1, ' line', ' lines') || ' more'
        end as note,
    from source.removed_request as removed
    join explained.placed_request as request on md5_number(request.request_id) = removed.key
    join explained.finding as finding on finding.reason = removed.reason and finding.log = removed.log
    where request.in_period
    union all
    select finding.id, true, request.log, request.* exclude (log), null,
        (coalesce(recorded_usd, 0) - own_cost_usd)::decimal(38, 12), 'logged at ' || own_cost_usd::decimal(38, 12)
    from explained.placed_request as request
    join explained.finding as finding
        on finding.reason = 'app_price' and finding.log = request.log and finding.model is not distinct from request.model
    where own_cost_usd <> coalesce(recorded_usd, 0) and in_period
    union all
    select finding.id, true, request.log, request.* exclude (log), null, null,
        'counted at ' || strftime(counted_at, '%Y-%m-%dT%H:%M:%SZ')
    from explained.placed_request as request
    join explained.finding as finding on finding.reason = 'time_zone' and finding.log = request.log
    where counted_day <> day
    union all
    select finding.id, true, request.log, request.* exclude (log), null, null, 'its key belongs to ' || key_workspace_id
    from explained.placed_request as request
    join explained.finding as finding
        on finding.reason = 'workspace' and finding.log = request.log and finding.workspace_id = key_workspace_id
    where in_period
    union all
    select finding.id, true, request.log, request.* exclude (log, cached), -cached, null,
        uncached_input_tokens || ' logged as input'
    from (
        select request.*,
            explained.cached_in_input(
                coalesce(inclusive.counts, single.counts), uncached_input_tokens, cache_read_input_tokens,
                cache_write_5m + cache_write_1h
            ) as cached,
        from explained.placed_request as request
        left join explained.inclusive_line as single
            on single.log = request.log and single.model = request.model and single.logged_at = request.logged_at
        left join explained.inclusive as inclusive
            on inclusive.log = request.log and inclusive.model = request.model
            and (inclusive.api_key_id is null or inclusive.api_key_id = request.api_key_id)
            and request.counted_at >= inclusive.from_at and request.counted_at < inclusive.until_at
    ) as request
    join explained.finding as finding
        on finding.reason = 'cache_inclusive' and finding.log = request.log and finding.model = request.model
    where in_period and cached > 0
    union all
    select finding.id, true, request.log, request.* exclude (log), null, null,
        cache_write_5m || ' for 5 minutes, ' || cache_write_1h || ' for an hour as logged'
    from explained.placed_request as request
    join explained.exchanged as exchanged on exchanged.log = request.log and exchanged.model = request.model
    join explained.finding as finding
        on finding.reason = 'cache_ttl' and finding.log = request.log and finding.model = request.model
    where in_period and cache_write_5m <> cache_write_1h and biller is null and coalesce(status, 0) < 400
    union all
    select emptied.finding_id,
        coalesce(sum(tokens_here) over (partition by emptied.finding_id, emptied.slot_id) = emptied.tokens, false),
        request.log, request.* exclude (log, tokens_here), null, null, null
    from explained.emptied_slot as emptied
    join explained.finding as finding on finding.id = emptied.finding_id
    join slot on slot.slot_id = emptied.slot_id
    join (select *, tokens as tokens_here from explained.placed_request) as request
        on request.counted_day = slot.day and (slot.by_day or request.counted_hour = slot.hour)
        and request.log = emptied.log
        and request.counted_workspace_id is not distinct from slot.workspace_id and request.model = slot.model
        and request.service_tier = slot.service_tier and request.inference_geo = slot.inference_geo
        and request.speed = slot.speed
        and (finding.reason <> 'context_window' or request.context_window = slot.context_window)
        and (finding.reason <> 'cache_ttl' or request.cache_write_5m + request.cache_write_1h > 0)
    union all
    select finding.id, true, request.log, request.* exclude (log), entry.quantity, null, entry.kind
    from (
        select request_id, log, model, string_agg(distinct kind, ', ' order by kind) as kind, sum(quantity)::bigint as quantity
        from source.iteration
        group by all
    ) as entry
    join explained.placed_request as request on request.request_id = entry.request_id
    join explained.finding as finding
        on finding.reason = 'iterations' and finding.log = entry.log and finding.model = entry.model
    where in_period
    union all
    select finding.id, true, request.log, request.* exclude (log), null, null, 'no last usage event'
    from explained.placed_request as request
    join explained.finding as finding
        on finding.reason = 'cut_stream' and finding.log = request.log and finding.model = request.model
        and finding.workspace_id is not distinct from request.workspace_id
    where cut and in_period
    union all
    select finding.id,
        case finding.reason
            when 'unreported' then biller is not null or coalesce(status >= 400, false)
            when 'uncharged' then place.not_billed
            when 'price_interval' then false
            else true
        end,
        request.log, request.* exclude (log),
        counted.quantity,
        null,
        case
            when finding.reason = 'unreported' and biller is not null then 'billed by ' || biller
            when coalesce(status >= 400, false) then 'error status'
            when finding.reason = 'uncharged' and output_tokens = 0 then 'no output'
        end
    from explained.finding as finding
    join explained.finding_place as place on place.finding_id = finding.id
    join explained.placed_request as request
        on request.day = place.day and request.workspace_id is not distinct from place.workspace_id
        and (
            (place.model is null and request.web_search_requests > 0)
            or (
                request.model = place.model and request.service_tier = place.service_tier
                and request.context_window = place.context_window and request.inference_geo = place.inference_geo
                and request.speed = place.speed
            )
        )
    cross join lateral (
        select
            case finding.meter
                when 'uncached_input_tokens' then uncached_input_tokens
                when 'cache_creation.ephemeral_5m_input_tokens' then cache_write_5m
                when 'cache_creation.ephemeral_1h_input_tokens' then cache_write_1h
                when 'cache_read_input_tokens' then cache_read_input_tokens
                when 'output_tokens' then output_tokens
                when 'web_search_requests' then web_search_requests
            end as quantity
    ) as counted
    where finding.reason in (
            'unreported', 'discount', 'price_book', 'price_interval', 'uncharged', 'unpriced'
        )
        and (finding.log is null or request.log = finding.log)
        and (finding.reason <> 'uncharged' or place.not_billed or request.output_tokens = 0)
        and counted.quantity is distinct from 0
)
select
    finding_id, known, request_id, log, logged_at, workspace_id, model, service_tier, api_key_id, status, quantity,
    amount_usd, recorded_usd::decimal(38, 12) as recorded_usd, note,
from behind;

-- The output tokens of a shifted log over the hours of the day: as it was logged, with its clock set right, and as the
-- provider counted the keys (or workspaces) that it writes for.
create or replace table explained.curve as
with
naming as (
    select request.log, 100 * count(api_key_id) >= 95 * count(*) as names_keys
    from source.request as request
    join explained.shift as shift on shift.log = request.log
    group by request.log
),
served as (
    select distinct request.log, request.model, if(names_keys, null, workspace_id) as workspace_id,
        if(names_keys, api_key_id, null) as api_key_id, names_keys,
    from source.request as request
    join naming on naming.log = request.log
),
told as (
    select request.log, 'as_logged' as side, logged_at as counted_at, output_tokens as tokens
    from explained.placed_request as request
    join naming on naming.log = request.log
    union all
    select request.log, 'set_right', request.counted_at, output_tokens
    from explained.placed_request as request
    join naming on naming.log = request.log
    union all
    select served.log, 'reported', known.hour, known.quantity
    from explained.known as known
    join served
        on served.model = known.model
        and if(served.names_keys, served.api_key_id = known.api_key_id, served.workspace_id = known.workspace_id)
    where known.meter = 'output_tokens'
    union all
    -- what other logs hold of the same keys is not this one's
    select served.log, 'reported', other.hour, -other.quantity
    from matched.recorded as other
    join served
        on served.log <> other.log and served.model = other.model
        and if(served.names_keys, served.api_key_id = other.api_key_id, served.workspace_id = other.workspace_id)
    where other.meter = 'output_tokens'
),
hours as (
    select log, hour(counted_at)::integer as hour_of_day,
        coalesce(sum(tokens) filter (side = 'as_logged'), 0)::bigint as logged_tokens,
        coalesce(sum(tokens) filter (side = 'set_right'), 0)::bigint as set_right_tokens,
        greatest(coalesce(sum(tokens) filter (side = 'reported'), 0), 0)::bigint as reported_tokens,
    from told
    cross join source.run as run
    where counted_at::date between run.start_on and run.through_on
    group by all
)
select finding.id as finding_id, hours.* exclude (log)
from explained.finding as finding
join hours on hours.log = finding.log
where finding.reason = 'time_zone';

-- Where a confusion took quantities from, and where they stand in the report.
create or replace table explained.exchange as
with
valued as (
    select
        part.finding_id, finding.reason,
        case finding.reason
            when 'cutoff' then part.day::varchar
            when 'cache_ttl' then part.meter
            when 'model' then part.model
            when 'service_tier' then part.service_tier
            when 'context_window' then part.context_window
            when 'inference_geo' then part.inference_geo
            when 'speed' then part.speed
            when 'workspace' then part.workspace_id
        end as at_value,
        coalesce(sum(part.quantity) filter (part.meter <> 'web_search_requests'), 0)::bigint as quantity,
        sum(part.amount_usd)::decimal(38, 12) as amount_usd,
    from explained.part as part
    join explained.finding as finding on finding.id = part.finding_id
    where finding.reason in (
        'cutoff', 'cache_ttl', 'model', 'service_tier', 'context_window', 'inference_geo', 'speed', 'workspace'
    )
    group by all
),
standing as (
    select *, row_number() over (
        partition by finding_id order by abs(quantity) desc, abs(amount_usd) desc, at_value nulls last
    ) as place
    from valued
    where quantity <> 0
)
select
    finding_id, reason, if(place > 6 and reason <> 'cutoff', null, at_value) as at_value, place > 6 and reason <> 'cutoff' as is_rest,
    sum(quantity)::bigint as quantity, sum(amount_usd)::decimal(38, 12) as amount_usd,
from standing
group by all;
