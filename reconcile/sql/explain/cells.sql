-- What has to be explained, and the tables that the passes write to.
-- Grain: explained.cell one row a cell of the period; claim one a pass's quantity in a cell; note one fact about a finding.
-- Rule: a pass claims a part of a cell's quantity variance; what it leaves is for the passes behind it.
--   Each pass ends with its check: what it moves or claims is what is gone, no more and no less (checks.<pass>_...).
-- Reads: matched. Writes: explained.
create or replace table explained.cell as
select
    row_number() over (
        order by day, workspace_id nulls last, model nulls last, service_tier nulls last, context_window nulls last,
            inference_geo nulls last, speed nulls last, meter
    ) as cell_id,
    *,
    coalesce(reported_quantity, 0) - coalesce(recorded_quantity, 0) as variance_quantity,
from matched.cell
where in_period;

create or replace table explained.claim (
    cell_id BIGINT, position INTEGER, reason VARCHAR, confidence VARCHAR, log VARCHAR, place_workspace_id VARCHAR,
    place_model VARCHAR, place_service_tier VARCHAR, api_key_id VARCHAR, evidence VARCHAR, quantity BIGINT,
);

create or replace table explained.note (
    reason VARCHAR, log VARCHAR, workspace_id VARCHAR, model VARCHAR, service_tier VARCHAR, meter VARCHAR,
    api_key_id VARCHAR, name VARCHAR, value JSON,
);

create or replace table explained.too_much (cell_id BIGINT, too_much BIGINT);

-- What is left of a cell's quantity variance, with what is known to be too much in it put back: more is missing than the
-- cell's sum says. A quantity without a price stays whole, for `unpriced`.
create or replace view explained.left_over as
select cell.cell_id,
    cell.variance_quantity - coalesce(claimed.quantity, 0) + coalesce(too_much.too_much, 0) as quantity,
    coalesce(too_much.too_much, 0) as too_much,
from explained.cell as cell
left join (
    select cell_id, sum(too_much)::bigint as too_much from explained.too_much group by cell_id
) as too_much on too_much.cell_id = cell.cell_id
left join (
    select cell_id, sum(quantity)::bigint as quantity from explained.claim group by cell_id
) as claimed on claimed.cell_id = cell.cell_id
where cell.price_usd is not null;

-- What netting moves between slots, pass after pass; and the recorded side that the first correction starts from.
create or replace table explained.moved (
    reason VARCHAR, position INTEGER, log VARCHAR, from_value VARCHAR, to_value VARCHAR, from_slot BIGINT, to_slot BIGINT,
    exact BOOLEAN, input BIGINT, write_5m BIGINT, write_1h BIGINT, read BIGINT, output BIGINT, searches BIGINT,
);

create or replace table explained.shift (log VARCHAR, minutes BIGINT, left_tokens BIGINT, unshifted_tokens BIGINT);
create or replace table explained.fetched (log VARCHAR);
create or replace table explained.inclusive (
    log VARCHAR, model VARCHAR, api_key_id VARCHAR, from_at TIMESTAMP, until_at TIMESTAMP, counts VARCHAR,
);
create or replace table explained.inclusive_line (log VARCHAR, model VARCHAR, logged_at TIMESTAMP, counts VARCHAR);
-- What a line's input counts of its cached tokens: nothing, where it is too small to hold them.
create or replace macro explained.cached_in_input(counts, input, read, written) as
    case
        when counts = 'reads' and input >= read then read
        when counts = 'reads and writes' and input >= read + written then read + written
        else 0
    end;
create or replace table explained.exchanged (log VARCHAR, model VARCHAR, as_logged HUGEINT, left_tokens HUGEINT);
create or replace macro explained.tells(biller, failed) as
    case when biller is not null then 'billed by ' || biller when failed then 'error status' end;

create or replace table explained.never_reported (log VARCHAR, evidence VARCHAR);
create or replace table explained.stray (api_key_id VARCHAR, logged_workspace_id VARCHAR, workspace_id VARCHAR);
create or replace table explained.step (reason VARCHAR, position INTEGER);
create or replace table explained.passed (
    hour TIMESTAMP, day DATE, workspace_id VARCHAR, model VARCHAR, service_tier VARCHAR, context_window VARCHAR,
    inference_geo VARCHAR, speed VARCHAR,
);
create or replace table explained.rebooked (
    reason VARCHAR, log VARCHAR, line_model VARCHAR, meter VARCHAR, quantity BIGINT,
);

create or replace table explained.corrected (
    hour TIMESTAMP, day DATE, workspace_id VARCHAR, model VARCHAR, service_tier VARCHAR, context_window VARCHAR,
    inference_geo VARCHAR, speed VARCHAR, log VARCHAR, api_key_id VARCHAR, cut BOOLEAN, key_workspace_id VARCHAR,
    requests BIGINT, input BIGINT,
    write_5m BIGINT, write_1h BIGINT, read BIGINT, output BIGINT, searches BIGINT,
);

create or replace table explained.hour_slot (
    slot_id BIGINT, hour TIMESTAMP, day DATE, workspace_id VARCHAR, model VARCHAR, service_tier VARCHAR,
    context_window VARCHAR, inference_geo VARCHAR, speed VARCHAR,
);
create or replace table explained.trail (
    standing BIGINT, pass VARCHAR, day DATE, meter VARCHAR, quantity HUGEINT,
);

create or replace table explained.adjusted (
    reason VARCHAR, position INTEGER, log VARCHAR, model VARCHAR, slot_id BIGINT, meter VARCHAR, quantity BIGINT,
    direction INTEGER, as_logged HUGEINT, left_tokens HUGEINT,
);
