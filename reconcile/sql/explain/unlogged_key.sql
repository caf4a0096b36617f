-- Usage of API keys that no line of the period's logs names.
-- Rule: claimed only in workspaces where lines that name their key carry at least 95 % of the recorded tokens; that key's
--   reported quantity, at most what is left of the cell's positive variance (keys in order of their id).
-- Grain: one claim a cell and key. Reads: explained.reported_hour, source.key_named. Writes: explained.claim, note.
create or replace table explained.silent_key as
with named as (
    select
        workspace_id,
        sum(quantity)::hugeint as recorded,
        coalesce(sum(quantity) filter (api_key_id is not null), 0)::hugeint as named,
    from matched.recorded
    where in_period and meter <> 'web_search_requests'
    group by workspace_id
),
silent as (
    select distinct workspace_id, api_key_id
    from explained.reported_hour
    where api_key_id is not null and api_key_id not in (select api_key_id from source.key_named)
)
select silent.workspace_id, silent.api_key_id, coalesce(named.recorded, 0) as recorded, coalesce(named.named, 0) as named,
    100 * coalesce(named.named, 0) >= 95 * coalesce(named.recorded, 0) as claimed,
from silent
left join named on named.workspace_id is not distinct from silent.workspace_id;

insert into explained.claim
with wanted as (
    select hour.cell_id, hour.api_key_id, sum(hour.quantity)::bigint as quantity
    from explained.reported_hour as hour
    join explained.silent_key as silent
        on silent.workspace_id is not distinct from hour.workspace_id and silent.api_key_id = hour.api_key_id
    where silent.claimed
    group by all
),
running as (
    select wanted.*, left_over.quantity as available,
        sum(wanted.quantity) over (partition by wanted.cell_id order by wanted.api_key_id)::bigint as upto,
    from wanted
    join explained.left_over as left_over on left_over.cell_id = wanted.cell_id
),
capped as (
    select cell_id, api_key_id, least(quantity, available - (upto - quantity)) as quantity from running
)
select cell_id, 10, 'unlogged_key', 'measured', null, api_key_id, null, quantity
from capped
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
