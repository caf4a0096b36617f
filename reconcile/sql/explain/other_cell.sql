-- The same quantity under another value of one dimension: recorded there, reported here, in the same hour (or, of what the
-- hours left, on the same day or the day beside it).
-- Rule: two slots that differ in the relaxed dimension alone, one recorded too much, the other too little. They net
--   exactly when what was recorded too much in one is, meter by meter, what is missing in the other; they net in part
--   when one of them is used up. A pair in part counts only where pairs that net exactly show the same confusion (log,
--   from, to) at least three times, or for at least half of the tokens: noise that happens to cancel is no reason. Over
--   days only exact pairs of at least two meters count. Each slot goes to its best pair. Where several logs recorded as
--   much as nets, it is the one's that shows the confusion in most exact pairs. Of a log without a split the writes of
--   both lifetimes are one meter, and what they turn out to be is cache_ttl. The script runs until it finds no more.
-- Grain: explained.pair one row two slots; suspect one a slot and log that wrote there.
-- Reads: explained.slot, writer, unsplit, relaxed (the dimension, its reason and position).
-- Writes: explained.moved, adjusted, slot, trail, checks.
create or replace table explained.side as
select
    slot.slot_id, slot.model,
    case relaxed.dimension
        when 'model' then slot.model when 'service_tier' then slot.service_tier
        when 'context_window' then slot.context_window when 'inference_geo' then slot.inference_geo
        when 'speed' then slot.speed when 'workspace_id' then slot.workspace_id
        when 'day' then slot.day::varchar when 'hour' then slot.hour::varchar
    end as at_value,
    slot.day,
    to_json([
        if(relaxed.by_day, null, if(relaxed.dimension = 'hour', slot.day, slot.hour)::varchar),
        if(relaxed.dimension = 'model', null, slot.model),
        if(relaxed.dimension = 'service_tier', null, slot.service_tier),
        if(relaxed.dimension = 'context_window', null, slot.context_window),
        if(relaxed.dimension = 'inference_geo', null, slot.inference_geo),
        if(relaxed.dimension = 'speed', null, slot.speed),
        if(relaxed.dimension = 'workspace_id', null, coalesce(slot.workspace_id, '?')),
    ])::varchar as elsewhere_equal,
    greatest(-input, 0) as over_input, greatest(-write_5m, 0) as over_5m, greatest(-write_1h, 0) as over_1h,
    greatest(-read, 0) as over_read, greatest(-output, 0) as over_output, greatest(-searches, 0) as over_searches,
    greatest(input, 0) as under_input, greatest(write_5m, 0) as under_5m, greatest(write_1h, 0) as under_1h,
    greatest(read, 0) as under_read, greatest(output, 0) as under_output, greatest(searches, 0) as under_searches,
from explained.slot as slot
cross join explained.relaxed as relaxed
where greatest(abs(input), abs(write_5m), abs(write_1h), abs(read), abs(output), abs(searches)) > 0;

-- Whose lines they can be: the logs that wrote there; where none is known, the slot's.
create or replace table explained.suspect as
select side.slot_id, coalesce(writer.log, slot.log) as log, coalesce(writer.log = slot.log, true) as wrote_most,
    writer.input, writer.write_5m + writer.write_1h as written, writer.read, writer.output, writer.searches,
from explained.side as side
join explained.slot as slot on slot.slot_id = side.slot_id
left join explained.writer as writer
    on writer.hour = slot.hour and writer.workspace_id is not distinct from slot.workspace_id
    and writer.model is not distinct from slot.model and writer.service_tier is not distinct from slot.service_tier
    and writer.context_window is not distinct from slot.context_window
    and writer.inference_geo is not distinct from slot.inference_geo and writer.speed is not distinct from slot.speed
where slot.log is not null
    and side.over_input + side.over_5m + side.over_1h + side.over_read + side.over_output + side.over_searches > 0;

create or replace table explained.pair as
with
met as (
    select
        a.slot_id as from_slot, b.slot_id as to_slot, suspect.log, suspect.wrote_most, a.model,
        a.at_value as from_value, b.at_value as to_value,
        a.day = b.day or relaxed.dimension = 'day' as same_day,
        relaxed.dimension, a.over_5m, a.over_1h, b.under_5m, b.under_1h,
        least(a.over_input, b.under_input) as input,
        -- a log without a split does not say which of its writes are the ones that are missing there
        case
            when unsplit.log is null then least(a.over_5m, b.under_5m) + least(a.over_1h, b.under_1h)
            else least(a.over_5m + a.over_1h, b.under_5m + b.under_1h)
        end as written,
        unsplit.log is not null as unsplit,
        least(a.over_read, b.under_read) as read,
        least(a.over_output, b.under_output) as output,
        least(a.over_searches, b.under_searches) as searches,
        a.over_input + a.over_5m + a.over_1h + a.over_read + a.over_output + a.over_searches as over_tokens,
        b.under_input + b.under_5m + b.under_1h + b.under_read + b.under_output + b.under_searches as under_tokens,
        (a.over_input > 0)::int + (a.over_5m > 0)::int + (a.over_1h > 0)::int + (a.over_read > 0)::int
            + (a.over_output > 0)::int as over_meters,
        (b.under_input > 0)::int + (b.under_5m > 0)::int + (b.under_1h > 0)::int + (b.under_read > 0)::int
            + (b.under_output > 0)::int as under_meters,
        coalesce(
            suspect.input >= least(a.over_input, b.under_input)
            and suspect.written >= least(a.over_5m + a.over_1h, b.under_5m + b.under_1h)
            and suspect.read >= least(a.over_read, b.under_read) and suspect.output >= least(a.over_output, b.under_output)
            and suspect.searches >= least(a.over_searches, b.under_searches),
            false
        ) as recorded_it,
    from explained.side as a
    join explained.side as b
        on a.elsewhere_equal = b.elsewhere_equal and a.at_value is distinct from b.at_value
        and abs(a.day - b.day) <= 1
    join explained.suspect as suspect on suspect.slot_id = a.slot_id
    cross join explained.relaxed as relaxed
    left join explained.unsplit as unsplit on unsplit.log = suspect.log
    where a.over_input + a.over_5m + a.over_1h + a.over_read + a.over_output + a.over_searches > 0
        and b.under_input + b.under_5m + b.under_1h + b.under_read + b.under_output + b.under_searches > 0
),
netted as (
    select * exclude (recorded_it), input + written + read + output + searches as tokens
    from met
    -- of a log that recorded as much there; where none did, of the one that recorded most
    qualify recorded_it or (
        not bool_or(recorded_it) over (partition by from_slot, to_slot)
        and row_number() over (partition by from_slot, to_slot order by wrote_most desc, log) = 1
    )
),
judged as (
    select *,
        -- one meter alone tells less, and over days nothing
        tokens = over_tokens and tokens = under_tokens
            and (over_meters > 1 or (tokens >= 100 and dimension not in ('day', 'hour') and same_day)) as exact,
        same_day and dimension <> 'hour' and (
            (tokens = over_tokens and over_meters > 1) or (tokens = under_tokens and under_meters > 1)
            or (searches > 0 and tokens = searches)
        ) as in_part,
    from netted
    where tokens > 0
),
shown as (
    select *,
        count(*) filter (exact) over confusion as exact_pairs,
        coalesce(sum(tokens) filter (exact) over confusion, 0) as exact_tokens,
        sum(tokens) over confusion as all_tokens,
        count(*) filter (exact) over (partition by log) as exact_pairs_of_log,
    from judged
    where exact or in_part
    window confusion as (partition by log, from_value, to_value)
),
wrote as (
    select log, count(*) as slots from explained.writer group by log
),
known as (
    select log, from_value, to_value from explained.moved
    join explained.relaxed as relaxed on relaxed.reason = moved.reason
    group by all
),
supported as (
    select shown.*, known.log is not null as is_known
    from shown
    left join known
        on known.log = shown.log and known.from_value is not distinct from shown.from_value
        and known.to_value is not distinct from shown.to_value
    where shown.exact or known.log is not null
        or (shown.exact_pairs > 0 and (shown.exact_pairs >= 3 or 2 * shown.exact_tokens >= shown.all_tokens))
),
-- one log's: that does it most often, and of those the one that writes least else
attributed as (
    select supported.*
    from supported
    left join wrote on wrote.log = supported.log
    qualify row_number() over (
        partition by from_slot, to_slot
        order by is_known desc, exact_pairs desc, exact_pairs_of_log desc, wrote.slots, wrote_most desc, supported.log
    ) = 1
),
chosen as (
    select *
    from attributed
    qualify row_number() over (partition by from_slot order by exact desc, same_day desc, tokens desc, to_slot) = 1
        and row_number() over (partition by to_slot order by exact desc, same_day desc, tokens desc, from_slot) = 1
)
select chosen.* exclude (over_5m, over_1h, under_5m, under_1h),
    written - from_1h as from_5m, written - to_1h as to_5m, from_1h, to_1h,
from chosen
cross join lateral (
    select
        case
            when unsplit then (written::hugeint * over_1h // greatest(over_5m + over_1h, 1))::bigint
            else least(over_1h, under_1h)
        end as from_1h,
        case
            when unsplit then (written::hugeint * under_1h // greatest(under_5m + under_1h, 1))::bigint
            else least(over_1h, under_1h)
        end as to_1h,
) as lifetime;

insert into explained.adjusted
select 'cache_ttl', 4, log, model, from_slot,
    unnest(['cache_creation.ephemeral_1h_input_tokens', 'cache_creation.ephemeral_5m_input_tokens']),
    unnest([to_1h - from_1h, from_1h - to_1h]), null, null, null
from explained.pair
where to_1h <> from_1h;

insert into explained.moved
select relaxed.reason, relaxed.position, pair.log, pair.from_value, pair.to_value, pair.from_slot, pair.to_slot, pair.exact,
    pair.input, pair.to_5m, pair.to_1h, pair.read, pair.output, pair.searches,
from explained.pair as pair
cross join explained.relaxed as relaxed;

update explained.slot as slot
set input = slot.input + part.input, write_5m = slot.write_5m + part.write_5m,
    write_1h = slot.write_1h + part.write_1h, read = slot.read + part.read, output = slot.output + part.output,
    searches = slot.searches + part.searches,
from (
    select slot_id, sum(input)::bigint as input, sum(write_5m)::bigint as write_5m, sum(write_1h)::bigint as write_1h,
        sum(read)::bigint as read, sum(output)::bigint as output, sum(searches)::bigint as searches,
    from (
        select from_slot as slot_id, input, from_5m as write_5m, from_1h as write_1h, read, output, searches from explained.pair
        union all
        select to_slot, -input, -to_5m, -to_1h, -read, -output, -searches from explained.pair
    )
    group by slot_id
) as part
where part.slot_id = slot.slot_id;

insert into explained.trail by name
select 'other_cell' as pass, * from explained.open_quantity;

create or replace view checks.other_cell_loses_a_quantity as
select * from explained.lost where pass = 'other_cell';
