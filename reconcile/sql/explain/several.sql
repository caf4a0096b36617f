-- The same quantity under other values of several dimensions: the model and the geography of a request are wrong, or its
-- model and its day.
-- Rule: what was recorded too much in a slot (all of it, or one request's part of it) is, meter by meter and to the token,
--   all that is missing in another slot of the hour (of what the hours left: of the day, or the day beside it). At least two meters tell,
--   at most three dimensions differ, and the fewer the better. It moves dimension by dimension, in the order of the
--   reasons; the cells in between may be nobody's. Of a log without a split the writes of both lifetimes are one meter.
--   The script runs until it finds no more.
-- Grain: explained.twin one row a pair of slots; leg one a pair and dimension.
-- Reads: explained.slot, fixed, unsplit, relaxed (by hour or by day), relaxation.
-- Writes: explained.moved, adjusted, slot, trail, checks.
create or replace table explained.twin as
with
missing as (
    select *
    from explained.slot
    where model is not null and least(input, write_5m, write_1h, read, output) >= 0
        and (input > 0)::int + (write_5m + write_1h > 0)::int + (read > 0)::int + (output > 0)::int >= 2
),
full_slot as (
    select * from explained.slot
    where model is not null and log is not null and least(input, write_5m, write_1h, read, output) < 0
),
over as (
    select slot_id, hour, day, workspace_id, model, service_tier, context_window, inference_geo, speed, log,
        -input as input, -write_5m as write_5m, -write_1h as write_1h, -read as read, -output as output,
    from full_slot
    where greatest(input, write_5m, write_1h, read, output) <= 0
    union all
    -- one request's part of it
    select slot.slot_id, slot.hour, slot.day, slot.workspace_id, slot.model, slot.service_tier, slot.context_window,
        slot.inference_geo, slot.speed, request.log, request.uncached_input_tokens, request.cache_write_5m,
        request.cache_write_1h, request.cache_read_input_tokens, request.output_tokens,
    from full_slot as slot
    cross join explained.relaxed as relaxed
    join explained.fixed as request
        on request.day = slot.day and (relaxed.by_day or request.hour = slot.hour)
        and request.workspace_id is not distinct from slot.workspace_id and request.model = slot.model
        and request.service_tier = slot.service_tier and request.context_window = slot.context_window
        and request.inference_geo = slot.inference_geo and request.speed = slot.speed
        and request.uncached_input_tokens <= greatest(-slot.input, 0)
        and request.cache_write_5m <= greatest(-slot.write_5m, 0)
        and request.cache_write_1h <= greatest(-slot.write_1h, 0)
        and request.cache_read_input_tokens <= greatest(-slot.read, 0)
        and request.output_tokens <= greatest(-slot.output, 0)
),
met as (
    select distinct
        over.slot_id as from_slot, missing.slot_id as to_slot, over.log, over.input, over.read, over.output,
        over.write_5m as from_5m, over.write_1h as from_1h, missing.write_5m as to_5m, missing.write_1h as to_1h,
        (over.day <> missing.day)::int + (over.workspace_id is distinct from missing.workspace_id)::int
            + (over.model <> missing.model)::int + (over.service_tier <> missing.service_tier)::int
            + (over.context_window <> missing.context_window)::int + (over.inference_geo <> missing.inference_geo)::int
            + (over.speed <> missing.speed)::int as dimensions,
        abs(missing.day - over.day) as days_apart, over.workspace_id is distinct from missing.workspace_id as leaves,
        -- a slot that is emptied tells more than a part of it
        over.input + over.write_5m + over.write_1h + over.read + over.output as tokens,
    from over
    cross join explained.relaxed as relaxed
    left join explained.unsplit as unsplit on unsplit.log = over.log
    join missing
        on missing.input = over.input and missing.read = over.read and missing.output = over.output
        and missing.write_5m + missing.write_1h = over.write_5m + over.write_1h
        and (unsplit.log is not null or missing.write_5m = over.write_5m)
        and (missing.hour = over.hour or (relaxed.by_day and abs(missing.day - over.day) <= 1))
)
select *
from met
where dimensions between 1 and 3
qualify row_number() over (partition by from_slot order by dimensions, days_apart, leaves, tokens desc, to_slot) = 1
    and row_number() over (partition by to_slot order by dimensions, days_apart, leaves, tokens desc, from_slot) = 1;

-- From each place to the next, one dimension after the other.
create or replace table explained.leg as
with
ends as (
    select twin.*,
        [a.day::varchar, a.model, a.service_tier, a.context_window, a.inference_geo, a.speed, a.workspace_id] as start,
        [b.day::varchar, b.model, b.service_tier, b.context_window, b.inference_geo, b.speed, b.workspace_id] as finish,
        a.hour as start_hour, b.hour as finish_hour,
    from explained.twin as twin
    join explained.slot as a on a.slot_id = twin.from_slot
    join explained.slot as b on b.slot_id = twin.to_slot
)
select ends.from_slot, ends.to_slot, relaxation.reason, relaxation.position,
    start[dimension.standing] as from_value, finish[dimension.standing] as to_value,
    finish[:dimension.standing - 1] || start[dimension.standing:] as from_place,
    finish[:dimension.standing] || start[dimension.standing + 1:] as to_place,
    if(dimension.standing = 1, start_hour, finish_hour) as from_hour, finish_hour as to_hour,
from ends
cross join (
    values ('day', 1), ('model', 2), ('service_tier', 3), ('context_window', 4), ('inference_geo', 5), ('speed', 6),
        ('workspace_id', 7)
) as dimension (name, standing)
join explained.relaxation as relaxation on relaxation.dimension = dimension.name
where start[dimension.standing] is distinct from finish[dimension.standing];

-- The places in between.
create or replace table explained.passed as
select to_hour as hour, to_place[1]::date as day, to_place[7] as workspace_id, to_place[2] as model,
    to_place[3] as service_tier, to_place[4] as context_window, to_place[5] as inference_geo, to_place[6] as speed,
from (select distinct to_hour, to_place from explained.leg);

insert into explained.slot by name
select * from explained.empty_slot;

create or replace table explained.transit as
select distinct slot.day, slot.workspace_id, slot.model, slot.service_tier, slot.context_window, slot.inference_geo, slot.speed
from explained.slot as slot
where slot.log is null and slot.requests = 0 and slot.model is not null;

insert into explained.moved
select leg.reason, leg.position, twin.log, leg.from_value, leg.to_value, a.slot_id, b.slot_id, true, twin.input,
    twin.to_5m, twin.to_1h, twin.read, twin.output, 0,
from explained.leg as leg
join explained.twin as twin on twin.from_slot = leg.from_slot and twin.to_slot = leg.to_slot
join explained.slot as a
    on a.hour = leg.from_hour and a.workspace_id is not distinct from leg.from_place[7] and a.model = leg.from_place[2]
    and a.service_tier = leg.from_place[3] and a.context_window = leg.from_place[4]
    and a.inference_geo = leg.from_place[5] and a.speed = leg.from_place[6]
join explained.slot as b
    on b.hour = leg.to_hour and b.workspace_id is not distinct from leg.to_place[7] and b.model = leg.to_place[2]
    and b.service_tier = leg.to_place[3] and b.context_window = leg.to_place[4]
    and b.inference_geo = leg.to_place[5] and b.speed = leg.to_place[6];

insert into explained.adjusted
select 'cache_ttl', 4, twin.log, slot.model, twin.from_slot,
    unnest(['cache_creation.ephemeral_1h_input_tokens', 'cache_creation.ephemeral_5m_input_tokens']),
    unnest([to_1h - from_1h, from_1h - to_1h]), null, null, null
from explained.twin as twin
join explained.slot as slot on slot.slot_id = twin.from_slot
where to_1h <> from_1h;

update explained.slot as slot
set input = slot.input + part.input, write_5m = slot.write_5m + part.write_5m,
    write_1h = slot.write_1h + part.write_1h, read = slot.read + part.read, output = slot.output + part.output,
from (
    select slot_id, sum(input)::bigint as input, sum(write_5m)::bigint as write_5m, sum(write_1h)::bigint as write_1h,
        sum(read)::bigint as read, sum(output)::bigint as output,
    from (
        select from_slot as slot_id, input, from_5m as write_5m, from_1h as write_1h, read, output from explained.twin
        union all
        select to_slot, -input, -to_5m, -to_1h, -read, -output from explained.twin
    )
    group by slot_id
) as part
where part.slot_id = slot.slot_id;

insert into explained.trail by name
select 'several' as pass, * from explained.open_quantity;

create or replace view checks.several_loses_a_quantity as
select * from explained.lost where pass = 'several';
