-- Lines that name a key of one workspace and are booked on another.
-- Rule: a key's use is billed where the key belongs. A line stands in the wrong workspace when the list of keys, or else the
--   key's reported use, knows the key in one other workspace alone, and none of its use was reported where the line stands.
-- Grain: explained.stray one row a key and workspace as logged. Reads: source.request, api_key, usage.
-- Writes: explained, checks.
create or replace table explained.stray as
with
used as (
    select api_key_id, workspace_id
    from source.usage
    where api_key_id is not null
    group by all
),
home as (
    select api_key_id, min(workspace_id) as workspace_id from used group by api_key_id having count(*) = 1
),
logged as (
    select distinct api_key_id, workspace_id as logged_workspace_id
    from source.request
    where api_key_id is not null
)
select logged.api_key_id, logged.logged_workspace_id, home.workspace_id
from logged
join home on home.api_key_id = logged.api_key_id
left join source.api_key as key on key.api_key_id = logged.api_key_id
where home.workspace_id is distinct from logged.logged_workspace_id
    and coalesce(key.workspace_id, home.workspace_id) = home.workspace_id;

insert into explained.note
select 'workspace', request.log, stray.workspace_id, null, null, null, null, 'keys_that_belong_here',
    to_json(list(distinct stray.api_key_id order by stray.api_key_id))
from explained.stray as stray
join source.request as request
    on request.api_key_id = stray.api_key_id and request.workspace_id is not distinct from stray.logged_workspace_id
where request.in_period
group by request.log, stray.workspace_id;

-- The same quantities, in another workspace.
create or replace view checks.workspace_changes_a_total as
select log, meter, sum(quantity) as quantity
from explained.rebooked
where reason = 'workspace'
group by log, meter
having sum(quantity) <> 0;
