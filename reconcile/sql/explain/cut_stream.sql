-- Streams that ended before their last usage event: billed for what was generated, logged with a placeholder.
-- Rule: in the hours of a cell in which a log holds streams without an end, the output that was reported and not
--   recorded. Where input is missing in that hour too, whole requests are missing beside the cut ones: the output is
--   shared by the number of cut streams and of missing requests (missing input over the cell's input a request).
-- Grain: one claim a cell and log. Reads: explained.recorded_hour, reported_hour. Writes: explained.claim, note.
insert into explained.claim
with known as (
    select hour.place_id, hour.hour, hour.meter, hour.quantity
    from explained.reported_hour as hour
    left join explained.silent_key as silent
        on silent.workspace_id is not distinct from hour.workspace_id and silent.api_key_id = hour.api_key_id
    where hour.api_key_id is not null and not coalesce(silent.claimed, false)
),
side as (
    select place_id, hour, meter = 'output_tokens' as is_output, quantity, 0 as cut_requests, 0 as requests,
        0 as recorded
    from known
    union all
    select place_id, hour, meter = 'output_tokens', -quantity, if(meter = 'output_tokens', cut_requests, 0),
        if(meter = 'output_tokens', requests, 0), if(meter = 'output_tokens', 0, quantity)
    from explained.recorded_hour
),
slot as (
    select
        place_id, hour,
        sum(quantity) filter (is_output) as output_missing,
        coalesce(sum(quantity) filter (not is_output), 0) as input_missing,
        sum(cut_requests) as cut_requests,
    from side
    group by place_id, hour
    having sum(cut_requests) > 0 and sum(quantity) filter (is_output) > 0
),
usual as (
    select place_id, sum(recorded)::hugeint as input_tokens, sum(requests)::hugeint as requests from side group by place_id
),
shared as (
    select
        slot.place_id,
        sum(
            case
                when slot.input_missing <= 0 then slot.output_missing
                else slot.output_missing * slot.cut_requests // (
                    slot.cut_requests
                    + greatest(1, slot.input_missing * usual.requests // greatest(usual.input_tokens, 1))
                )
            end
        )::bigint as quantity,
    from slot
    join usual on usual.place_id = slot.place_id
    group by slot.place_id
),
log_of as (
    select place_id, min(log) as log from (
        select place_id, log from explained.recorded_hour where cut_requests > 0
        group by place_id, log
        qualify rank() over (partition by place_id order by sum(cut_requests) desc) = 1
    ) group by place_id
)
select cell.cell_id, 40, 'cut_stream', 'inferred', log_of.log, null, null, least(shared.quantity, left_over.quantity)
from shared
join explained.cell as cell on cell.place_id = shared.place_id and cell.meter = 'output_tokens'
join explained.left_over as left_over on left_over.cell_id = cell.cell_id
join log_of on log_of.place_id = shared.place_id
where least(shared.quantity, left_over.quantity) > 0;

insert into explained.note
select 'cut_stream', log, workspace_id, model, null, 'output_tokens', null, 'streams_without_an_end',
    to_json(count(*)::varchar)
from source.request
where cut and in_period
group by log, workspace_id, model;
