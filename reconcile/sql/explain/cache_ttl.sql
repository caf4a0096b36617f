-- 5-minute and 1-hour cache writes confused, or not told apart by the log.
-- Rule: in one hour of one place one lifetime was recorded too much and the other too little. Claimed per log and model
--   where that nets exactly in at least a third of the tokens that it nets at all; the lesser of the two, hour by hour.
-- Grain: one adjustment a slot, meter and log. Reads: explained.slot. Writes: explained.adjusted, slot, trail, checks.
create or replace table explained.ttl_move as
with opposite as (
    select slot_id, write_log as log, model, write_5m + write_1h = 0 as exact,
        -- tokens that were recorded as 5-minute and are 1-hour ones, or the reverse where negative
        sign(write_1h) * least(abs(write_5m), abs(write_1h)) as tokens,
    from explained.slot
    where sign(write_5m) * sign(write_1h) < 0 and write_log is not null
)
select slot_id, log, model, tokens::bigint as tokens
from opposite
qualify 3 * coalesce(sum(abs(tokens)) filter (exact) over (partition by log, model), 0)
    >= sum(abs(tokens)) over (partition by log, model);

insert into explained.adjusted
select 'cache_ttl', 4, log, model, slot_id, unnest(['cache_creation.ephemeral_1h_input_tokens', 'cache_creation.ephemeral_5m_input_tokens']),
    unnest([tokens, -tokens]), null, null, null
from explained.ttl_move;

update explained.slot as slot
set write_1h = slot.write_1h - move.tokens, write_5m = slot.write_5m + move.tokens
from explained.ttl_move as move
where move.slot_id = slot.slot_id;

insert into explained.trail by name
select 'cache_ttl' as pass, * from explained.open_quantity;

create or replace view checks.cache_ttl_loses_a_quantity as
select * from explained.lost where pass = 'cache_ttl';
