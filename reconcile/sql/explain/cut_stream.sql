-- Streams that ended before their last usage event: billed for what was generated, logged with a placeholder.
-- Rule: on the days of a place on which a log holds streams without an end (and on those beside them, for a log that stamps
--   early or late), the output that was reported and not recorded. Where input is missing there too, whole requests are missing beside the cut ones: the output is
--   shared by the number of cut streams and of missing requests (missing input over the cell's input a request).
-- Grain: one claim a cell and log. Reads: explained.slot, adjusted. Writes: explained.claim, note, checks.
insert into explained.claim (cell_id, position, reason, confidence, log, quantity)
with
usual as (
    select day, workspace_id, model, service_tier, context_window, inference_geo, speed,
        sum(recorded_input)::hugeint as input_tokens, sum(requests)::hugeint as requests,
    from explained.slot
    group by all
),
late as (
    select log, arg_max(direction, (as_logged, direction)) as direction
    from explained.adjusted where reason = 'cutoff' and direction is not null group by log
),
ended as (
    select slot.slot_id, sum(beside.cut_requests)::bigint as cut_requests, arg_max(beside.cut_log, (beside.cut_requests, beside.cut_log)) as log,
    from explained.slot as slot
    join explained.slot as beside
        on beside.cut_requests > 0 and beside.workspace_id is not distinct from slot.workspace_id
        and beside.model = slot.model and beside.service_tier = slot.service_tier
        and beside.context_window = slot.context_window and beside.inference_geo = slot.inference_geo
        and beside.speed = slot.speed
    left join late on late.log = beside.cut_log
    where beside.day = slot.day or beside.day + late.direction = slot.day
    group by slot.slot_id
),
cut as (
    select slot.slot_id, ended.log,
        case
            when slot.input + slot.write_5m + slot.write_1h + slot.read <= 0 then slot.output
            else slot.output * ended.cut_requests // (
                ended.cut_requests + greatest(
                    1,
                    (slot.input + slot.write_5m + slot.write_1h + slot.read) * usual.requests
                        // greatest(usual.input_tokens, 1)
                )
            )
        end as quantity,
    from explained.slot as slot
    join ended on ended.slot_id = slot.slot_id
    join usual
        on usual.day = slot.day and usual.workspace_id is not distinct from slot.workspace_id
        and usual.model = slot.model and usual.service_tier = slot.service_tier
        and usual.context_window = slot.context_window and usual.inference_geo = slot.inference_geo
        and usual.speed = slot.speed
    where slot.output > 0
),
wanted as (
    select slot_cell.cell_id, min(cut.log) as log, sum(cut.quantity)::bigint as quantity
    from cut
    join explained.slot_cell as slot_cell on slot_cell.slot_id = cut.slot_id and slot_cell.meter = 'output_tokens'
    group by slot_cell.cell_id
)
select wanted.cell_id, 40, 'cut_stream', 'inferred', wanted.log, least(wanted.quantity, left_over.quantity)
from wanted
join explained.left_over as left_over on left_over.cell_id = wanted.cell_id
where least(wanted.quantity, left_over.quantity) > 0;

insert into explained.note
select 'cut_stream', log, workspace_id, model, null, 'output_tokens', null, 'streams_without_an_end',
    to_json(count(*)::varchar)
from source.request
where cut and in_period
group by log, workspace_id, model;

create or replace view checks.cut_stream_claims_more_output_than_is_missing as
select claim.cell_id, cell.meter, claim.quantity, slot.output as missing
from explained.claim as claim
join explained.cell as cell on cell.cell_id = claim.cell_id
left join explained.slot_cell as slot_cell on slot_cell.cell_id = claim.cell_id
left join explained.slot as slot on slot.slot_id = slot_cell.slot_id
where claim.reason = 'cut_stream'
qualify cell.meter <> 'output_tokens'
    or not claim.quantity between 1 and coalesce(max(slot.output) over (partition by claim.cell_id, claim.log), 0);
