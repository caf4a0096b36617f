-- Compaction and advisor iterations, which the top-level counters of `usage` leave out.
-- Rule: the quantity of the entries that the logs themselves hold, at most what is left of the cell's positive variance.
-- Grain: one claim a cell and log. Reads: source.iteration. Writes: explained.claim, note.
insert into explained.claim (cell_id, position, reason, confidence, log, quantity)
with wanted as (
    select cell.cell_id, entry.log, sum(entry.quantity)::bigint as quantity
    from source.iteration as entry
    join explained.cell as cell
        on cell.day = entry.day and cell.meter = entry.meter
        and cell.workspace_id is not distinct from entry.workspace_id
        and cell.model is not distinct from entry.model
        and cell.service_tier is not distinct from entry.service_tier
        and cell.context_window is not distinct from entry.context_window
        and cell.inference_geo is not distinct from entry.inference_geo
        and cell.speed is not distinct from entry.speed
    group by all
),
running as (
    select wanted.*, left_over.quantity as available,
        sum(wanted.quantity) over (partition by wanted.cell_id order by wanted.log)::bigint as upto,
    from wanted
    join explained.left_over as left_over on left_over.cell_id = wanted.cell_id
),
capped as (
    select cell_id, log, least(quantity, available - (upto - quantity)) as quantity from running
)
select cell_id, 30, 'iterations', 'inferred', log, quantity
from capped
where quantity > 0;

insert into explained.note
select 'iterations', log, null, model, null, null, null, 'tokens_of_' || coalesce(kind, 'unnamed') || '_entries',
    to_json(sum(quantity)::varchar)
from source.iteration
join source.run as run on day between run.start_on and run.through_on
group by log, model, kind;
