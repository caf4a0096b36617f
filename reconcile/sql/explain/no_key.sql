-- Usage without an API key: the Console, OAuth users such as Claude Code, federated service accounts.
-- Rule: the reported quantity without a key; where the workspace's hours say that its logs hold such use (explained.keyless),
--   at most what is left of the cell's positive variance.
-- Grain: one claim a cell. Reads: explained.reported, keyless. Writes: explained.claim, note, checks.
insert into explained.claim (cell_id, position, reason, confidence, quantity)
with wanted as (
    select reported.cell_id,
        case
            when coalesce(keyless.logged, false) then least(reported.quantity, left_over.quantity)
            else reported.quantity
        end as quantity,
    from explained.reported as reported
    join explained.left_over as left_over on left_over.cell_id = reported.cell_id
    left join explained.keyless as keyless on keyless.workspace_id is not distinct from reported.workspace_id
    where reported.api_key_id is null
)
select cell_id, 20, 'no_key', 'measured', quantity
from wanted
where quantity > 0;

insert into explained.note
with sorted as (
    select
        workspace_id,
        case when meter = 'web_search_requests' then meter end as meter,
        sum(quantity) as quantity,
        coalesce(sum(account_quantity), 0) as of_users,
        coalesce(sum(service_account_quantity), 0) as of_service_accounts,
    from explained.reported
    where api_key_id is null
    group by all
)
select 'no_key', null, workspace_id, null, null, meter, null, fact.name, to_json(fact.quantity::varchar)
from sorted
cross join lateral (
    select unnest([
        {'name': 'quantity_of_oauth_users', 'quantity': of_users},
        {'name': 'quantity_of_service_accounts', 'quantity': of_service_accounts},
        {'name': 'quantity_of_the_console', 'quantity': quantity - of_users - of_service_accounts},
    ], recursive := true)
) as fact
where fact.quantity > 0;

create or replace view checks.no_key_claims_more_than_was_used_without_one as
select claim.cell_id, claim.quantity, reported.quantity as used
from explained.claim as claim
left join explained.reported as reported on reported.cell_id = claim.cell_id and reported.api_key_id is null
where claim.reason = 'no_key' and not claim.quantity between 1 and coalesce(reported.quantity, 0);
