-- Lines that carry another biller's id or an error status, of which the usage report knows nothing: set aside, so that they
-- neither hide what is missing beside them nor are taken for something else.
-- Rule: a log's lines of one kind, by the output tokens (input, where they have none) of the hours and places in which they
--   stand, or of the days: setting them aside brings recorded and reported together by at least half of what they hold; or
--   makes a tenth of them agree to the token, and three times as many as agree with them.
-- Grain: explained.never_reported one row a log and kind; one claim a cell, log and kind. Reads: explained.fixed, known,
--   corrected, cell. Writes: explained.never_reported, claim, checks.
create or replace temp view told_apart as
select *, explained.tells(biller, status >= 400) as evidence
from explained.fixed;

insert into explained.never_reported
with
kind as (
    select log, evidence, sum(output_tokens) > 0 as by_output
    from told_apart
    where evidence is not null
    group by log, evidence
),
line as (
    select kind.log, kind.evidence, kind.by_output, hour, workspace_id, model,
        sum(if(by_output, output_tokens, uncached_input_tokens + cache_write_5m + cache_write_1h + cache_read_input_tokens))
            as tokens,
    from told_apart
    join kind on kind.log = told_apart.log and kind.evidence = told_apart.evidence
    group by all
),
side as (
    select hour, workspace_id, model, meter = 'output_tokens' as is_output, quantity
    from explained.known
    where meter <> 'web_search_requests'
    union all
    select hour, workspace_id, model, is_output, -tokens
    from (
        select hour, workspace_id, model, unnest([
            {'is_output': true, 'tokens': output}, {'is_output': false, 'tokens': input + write_5m + write_1h + read},
        ], recursive := true)
        from explained.corrected
    )
),
compared as (
    select grain.grain, line.log, line.evidence, line.workspace_id, line.model, date_trunc(grain.grain, line.hour) as at,
        line.by_output, sum(line.tokens) as tokens,
    from line
    cross join (values ('hour'), ('day')) as grain (grain)
    group by all
),
apart as (
    select grain.grain, workspace_id, model, date_trunc(grain.grain, hour) as at, is_output, sum(quantity) as tokens
    from side
    cross join (values ('hour'), ('day')) as grain (grain)
    group by all
)
select distinct log, evidence
from (
    select compared.log, compared.evidence, compared.grain
    from compared
    join apart
        on apart.grain = compared.grain and apart.at = compared.at and apart.is_output = compared.by_output
        and apart.workspace_id is not distinct from compared.workspace_id and apart.model = compared.model
    group by compared.log, compared.evidence, compared.grain
    having 2 * sum(abs(apart.tokens) - abs(apart.tokens + compared.tokens)) >= sum(compared.tokens)
        or coalesce(sum(compared.tokens) filter (apart.tokens = -compared.tokens), 0) >= greatest(
            3 * coalesce(sum(compared.tokens) filter (apart.tokens = 0), 0), sum(compared.tokens) / 10
        )
);

insert into explained.claim (cell_id, position, reason, confidence, log, evidence, quantity)
with metered as (
    select day, workspace_id, model, service_tier, context_window, inference_geo, speed, log, evidence,
        unnest(matched.by_meter(
            uncached_input_tokens, cache_write_5m, cache_write_1h, cache_read_input_tokens, output_tokens,
            web_search_requests
        ), recursive := true)
    from told_apart
    semi join explained.never_reported using (log, evidence)
)
select cell.cell_id, 70, 'unreported', 'inferred', metered.log, metered.evidence, -sum(metered.quantity)::bigint
from metered
join explained.cell as cell
    on cell.day = metered.day and cell.meter = metered.meter and cell.price_usd is not null
    and cell.workspace_id is not distinct from metered.workspace_id
    and (
        metered.meter = 'web_search_requests'
        or (
            cell.model = metered.model and cell.service_tier = metered.service_tier
            and cell.context_window = metered.context_window and cell.inference_geo = metered.inference_geo
            and cell.speed = metered.speed
        )
    )
where metered.quantity > 0
group by cell.cell_id, metered.log, metered.evidence;

-- What is claimed is what the corrected side loses.
create or replace view checks.never_reported_claims_other_than_its_lines as
with taken as (
    select cell.cell_id, rebooking.log, sum(rebooking.quantity) as quantity
    from explained.rebooking as rebooking
    join explained.cell as cell
        on cell.day = rebooking.day and cell.meter = rebooking.meter and cell.price_usd is not null
        and cell.workspace_id is not distinct from rebooking.workspace_id
        and cell.model is not distinct from rebooking.model
        and cell.service_tier is not distinct from rebooking.service_tier
        and cell.context_window is not distinct from rebooking.context_window
        and cell.inference_geo is not distinct from rebooking.inference_geo
        and cell.speed is not distinct from rebooking.speed
    group by cell.cell_id, rebooking.log
),
claimed as (
    select cell_id, log, sum(quantity) as quantity
    from explained.claim
    semi join explained.never_reported using (log, evidence)
    where reason = 'unreported'
    group by cell_id, log
)
select cell_id, log, taken.quantity, claimed.quantity as claimed
from taken
full join claimed using (cell_id, log)
where coalesce(taken.quantity, 0) <> coalesce(claimed.quantity, 0);
