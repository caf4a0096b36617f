-- What a place was recorded too much over the whole month is what another lacks, whatever the hours say: a confusion of
-- all (or many) lines in a log whose hours are not the provider's.
-- Rule: two places differ in one dimension alone. What is left in them over the month's days is opposite, meter by meter: it
--   differs by at most a twentieth of both in all, by at most a tenth on at least two meters, stands in at least 5 hours of
--   either, and is at least half of what single hours have too much. Then all that is recorded too much in the one moves to
--   the other, at its hour. Each place goes to its best partner. The writes of both lifetimes count as one.
-- Grain: one move a slot that is emptied. Reads: explained.slot, relaxation.
-- Writes: explained.balanced, over, passed, emptied, moved, slot, transit, trail, checks.
create or replace table explained.balanced as
with
place as (
    select
        row_number() over (order by workspace_id, model, service_tier, context_window, inference_geo, speed) as place_id,
        workspace_id, model, service_tier, context_window, inference_geo, speed,
        arg_max(log, (requests, log)) filter (log is not null) as log,
        sum(input)::bigint as input, sum(write_5m + write_1h)::bigint as written, sum(read)::bigint as read,
        sum(output)::bigint as output,
        sum(greatest(-input, 0) + greatest(-write_5m - write_1h, 0) + greatest(-read, 0) + greatest(-output, 0)) as over_tokens,
        count(*) filter (least(input, write_5m + write_1h, read, output) < 0) as over_hours,
        count(*) filter (greatest(input, write_5m + write_1h, read, output) > 0) as under_hours,
    from explained.slot
    cross join source.run as run
    where model is not null and day between run.start_on and run.through_on
    group by workspace_id, model, service_tier, context_window, inference_geo, speed
),
side as (
    select place.*, relaxation.reason, relaxation.position,
        case relaxation.dimension
            when 'model' then model when 'service_tier' then service_tier when 'context_window' then context_window
            when 'inference_geo' then inference_geo when 'speed' then speed when 'workspace_id' then workspace_id
        end as at_value,
        to_json([
            if(relaxation.dimension = 'model', null, model),
            if(relaxation.dimension = 'service_tier', null, service_tier),
            if(relaxation.dimension = 'context_window', null, context_window),
            if(relaxation.dimension = 'inference_geo', null, inference_geo),
            if(relaxation.dimension = 'speed', null, speed),
            if(relaxation.dimension = 'workspace_id', null, coalesce(workspace_id, '?')),
        ])::varchar as elsewhere_equal,
    from place
    cross join explained.relaxation as relaxation
),
met as (
    select a.reason, a.position, a.log, a.at_value as from_value, b.at_value as to_value, a.place_id as from_place,
        b.place_id as to_place,
        abs(a.input + b.input) + abs(a.written + b.written) + abs(a.read + b.read) + abs(a.output + b.output) as apart,
        abs(a.input) + abs(a.written) + abs(a.read) + abs(a.output)
            + abs(b.input) + abs(b.written) + abs(b.read) + abs(b.output) as tokens,
        (a.input < 0 and 10 * abs(a.input + b.input) <= b.input - a.input)::int
            + (a.written < 0 and 10 * abs(a.written + b.written) <= b.written - a.written)::int
            + (a.read < 0 and 10 * abs(a.read + b.read) <= b.read - a.read)::int
            + (a.output < 0 and 10 * abs(a.output + b.output) <= b.output - a.output)::int as meters,
    from side as a
    join side as b
        on a.elsewhere_equal = b.elsewhere_equal and a.reason = b.reason and a.at_value is distinct from b.at_value
    where a.log is not null and a.over_hours >= 5 and b.under_hours >= 5
        and a.over_tokens <= -2 * (least(a.input, 0) + least(a.written, 0) + least(a.read, 0) + least(a.output, 0))
)
select met.*, a.workspace_id, a.model, a.service_tier, a.context_window, a.inference_geo, a.speed,
    b.workspace_id as to_workspace_id, b.model as to_model, b.service_tier as to_service_tier,
    b.context_window as to_context_window, b.inference_geo as to_inference_geo, b.speed as to_speed,
from met
join place as a on a.place_id = met.from_place
join place as b on b.place_id = met.to_place
where 20 * apart <= tokens and meters >= 2
qualify row_number() over (partition by from_place order by apart, position, to_place) = 1
    and row_number() over (partition by to_place order by apart, position, from_place) = 1;

create or replace table explained.over as
select balanced.*, slot.slot_id, slot.hour, slot.day,
    greatest(-slot.input, 0) as input, greatest(-slot.write_5m, 0) as write_5m,
    greatest(-slot.write_1h, 0) as write_1h, greatest(-slot.read, 0) as read, greatest(-slot.output, 0) as output,
from explained.balanced as balanced
join explained.slot as slot
    on slot.workspace_id is not distinct from balanced.workspace_id and slot.model = balanced.model
    and slot.service_tier = balanced.service_tier and slot.context_window = balanced.context_window
    and slot.inference_geo = balanced.inference_geo and slot.speed = balanced.speed
where least(slot.input, slot.write_5m, slot.write_1h, slot.read, slot.output) < 0;

create or replace table explained.passed as
select distinct hour, day, to_workspace_id as workspace_id, to_model as model, to_service_tier as service_tier,
    to_context_window as context_window, to_inference_geo as inference_geo, to_speed as speed,
from explained.over;

insert into explained.slot by name
select * from explained.empty_slot;

create or replace table explained.transit as
select distinct day, workspace_id, model, service_tier, context_window, inference_geo, speed
from explained.slot
where model is not null;

create or replace table explained.emptied as
select over.reason, over.position, over.log, over.from_value, over.to_value, over.slot_id as from_slot,
    slot.slot_id as to_slot, over.input, over.write_5m, over.write_1h, over.read, over.output,
from explained.over as over
join explained.slot as slot
    on slot.hour = over.hour and slot.workspace_id is not distinct from over.to_workspace_id
    and slot.model = over.to_model and slot.service_tier = over.to_service_tier
    and slot.context_window = over.to_context_window and slot.inference_geo = over.to_inference_geo
    and slot.speed = over.to_speed;

insert into explained.moved
select reason, position, log, from_value, to_value, from_slot, to_slot, false, input, write_5m, write_1h, read, output, 0
from explained.emptied;

update explained.slot as slot
set input = slot.input + part.input, write_5m = slot.write_5m + part.write_5m,
    write_1h = slot.write_1h + part.write_1h, read = slot.read + part.read, output = slot.output + part.output,
    log = coalesce(slot.log, part.log),
from (
    select slot_id, min(log) as log, sum(input)::bigint as input, sum(write_5m)::bigint as write_5m, sum(write_1h)::bigint as write_1h,
        sum(read)::bigint as read, sum(output)::bigint as output,
    from (
        select from_slot as slot_id, log, input, write_5m, write_1h, read, output from explained.emptied
        union all
        select to_slot, log, -input, -write_5m, -write_1h, -read, -output from explained.emptied
    )
    group by slot_id
) as part
where part.slot_id = slot.slot_id;

insert into explained.trail by name
select 'balanced' as pass, * from explained.open_quantity;

create or replace view checks.balanced_loses_a_quantity as
select * from explained.lost where pass = 'balanced';
