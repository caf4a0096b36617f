-- Usage of API keys that no line of the period's logs names.
-- Rule: claimed only in workspaces where lines that name their key carry at least 95 % of the recorded tokens: that key's
--   reported quantity, at most what is left of the cell's positive variance (keys in order of their id) less the cell's use
--   without a key; what is too much in the cell is not set against it. Where lines without a key leave less than half of its
--   use missing, they hold it, and what is missing are single lines.
-- Grain: one claim a cell and key. Reads: explained.reported, silent_key, keyless, left_over.
-- Writes: explained.claim, note, checks.
insert into explained.claim (cell_id, position, reason, confidence, api_key_id, quantity)
with wanted as (
    select reported.cell_id, reported.api_key_id, reported.quantity
    from explained.reported as reported
    join explained.silent_key as silent
        on silent.workspace_id is not distinct from reported.workspace_id and silent.api_key_id = reported.api_key_id
    where silent.claimed
),
running as (
    select wanted.*, left_over.quantity - coalesce(no_key.quantity, 0) as available,
        sum(wanted.quantity) over (partition by wanted.cell_id order by wanted.api_key_id)::bigint as upto,
    from wanted
    join explained.left_over as left_over on left_over.cell_id = wanted.cell_id
    left join (
        select reported.cell_id, reported.quantity
        from explained.reported as reported
        left join explained.keyless as keyless on keyless.workspace_id is not distinct from reported.workspace_id
        where reported.api_key_id is null and not coalesce(keyless.logged, false)
    ) as no_key on no_key.cell_id = wanted.cell_id
),
capped as (
    select running.cell_id, running.api_key_id, running.quantity as used, cell.meter = 'web_search_requests' as is_search,
        greatest(0, least(running.quantity, available - (upto - running.quantity))) as quantity, silent.named < silent.recorded as some_nameless,
    from running
    join explained.cell as cell on cell.cell_id = running.cell_id
    join explained.silent_key as silent
        on silent.workspace_id is not distinct from cell.workspace_id and silent.api_key_id = running.api_key_id
),
missing as (
    select api_key_id
    from capped
    where not is_search
    group by api_key_id
    having not bool_or(some_nameless) or 2 * sum(quantity) >= sum(used)
)
select cell_id, 15, 'unlogged_key', 'measured', api_key_id, quantity
from capped
semi join missing using (api_key_id)
where quantity > 0;

insert into explained.note
select 'unlogged_key', null, silent.workspace_id, null, null, meter.name, silent.api_key_id, fact.name, to_json(fact.value)
from explained.silent_key as silent
left join source.api_key as key on key.api_key_id = silent.api_key_id
cross join (values (null), ('web_search_requests')) as meter (name)
cross join lateral (
    select unnest([
        {'name': 'key_name', 'value': key.name},
        {'name': 'key_status', 'value': key.status},
        {'name': 'key_created_by', 'value': key.created_by_id},
        {'name': 'key_hint', 'value': key.partial_key_hint},
        {'name': 'workspace_tokens_recorded', 'value': silent.recorded::varchar},
        {'name': 'workspace_tokens_on_lines_that_name_their_key', 'value': silent.named::varchar},
    ], recursive := true)
) as fact
where silent.claimed and fact.value is not null;

create or replace view checks.unlogged_key_claims_more_than_the_key_used as
select claim.cell_id, claim.api_key_id, claim.quantity, reported.quantity as used
from explained.claim as claim
left join explained.reported as reported
    on reported.cell_id = claim.cell_id and reported.api_key_id = claim.api_key_id
where claim.reason = 'unlogged_key' and not claim.quantity between 1 and coalesce(reported.quantity, 0);
