-- Extra iterations that were not reported where their lines stand (or where those are counted, for a late log): no line
-- holds them, so that nothing is too much there.
-- Rule: what a slot has too much, up to what is still taken off it for the entries of its lines.
-- Grain: explained.slot one row (hour, cell dimensions without meter). Reads: explained.extra. Writes: explained.slot,
--   extra, trail, checks.
create or replace temp table given_back as
select extra.slot_id,
    greatest(0, least(extra.input, -slot.input)) as input,
    greatest(0, least(extra.write_5m, -slot.write_5m)) as write_5m,
    greatest(0, least(extra.write_1h, -slot.write_1h)) as write_1h,
    greatest(0, least(extra.read, -slot.read)) as read,
    greatest(0, least(extra.output, -slot.output)) as output,
from explained.extra as extra
join explained.slot as slot on slot.slot_id = extra.slot_id;

update explained.slot as slot
set input = slot.input + back.input, write_5m = slot.write_5m + back.write_5m,
    write_1h = slot.write_1h + back.write_1h, read = slot.read + back.read, output = slot.output + back.output,
from given_back as back
where back.slot_id = slot.slot_id;

update explained.extra as extra
set input = extra.input - back.input, write_5m = extra.write_5m - back.write_5m,
    write_1h = extra.write_1h - back.write_1h, read = extra.read - back.read, output = extra.output - back.output,
from given_back as back
where back.slot_id = extra.slot_id;

insert into explained.trail by name
select 'iterations_back' as pass, * from explained.open_quantity;

create or replace view checks.iterations_back_loses_a_quantity as
select * from explained.lost where pass = 'iterations_back';
