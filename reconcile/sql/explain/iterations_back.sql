-- Extra iterations that were not reported where their lines stand (or where those are counted, for a late log): no line
-- holds them, so that nothing is too much there.
-- Rule: what a slot has too much, up to what was taken off it for the entries of its lines.
-- Grain: explained.slot one row (hour, cell dimensions without meter). Reads: explained.extra. Writes: explained.slot.
update explained.slot as slot
set input = slot.input + greatest(0, least(extra.input, -slot.input)),
    write_5m = slot.write_5m + greatest(0, least(extra.write_5m, -slot.write_5m)),
    write_1h = slot.write_1h + greatest(0, least(extra.write_1h, -slot.write_1h)),
    read = slot.read + greatest(0, least(extra.read, -slot.read)),
    output = slot.output + greatest(0, least(extra.output, -slot.output)),
from explained.extra as extra
where extra.slot_id = slot.slot_id;
