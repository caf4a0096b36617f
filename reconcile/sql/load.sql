-- From the lines of the request logs to one row a request: which line stands, and what a stream adds up to.
-- Grain: source.origin one row a place that lines come from (log, model, workspace, key, tier, geo, speed, labels);
--   standing one row a request whose id stands on several lines. What happens once needs nothing and stays in event.
-- Reads: event, origin, log_setting, model_name (temporary), source.workspace, workspace_alias, api_key, key_alias.
-- Writes: source.origin, key_named, log_hour; grain, place, repeated, repeated_line, tied (temporary).

-- What every line of an origin has in common, in the words of the reports. Where a log does not say, the defaults.
-- origin is numbered in an order that no file name or line order changes, so that it can break ties.
create or replace table source.origin as
select
    row_number() over (
        order by origin.log, model_logged, workspace_logged, key_logged, tier_logged, geo_logged, speed_logged,
            origin.labels::varchar, origin.origin
    )::uinteger as origin,
    origin.origin as hash,
    origin.log,
    name.model,
    name.biller,
    coalesce(alias.workspace_id, origin.workspace_logged, key.workspace_id, setting.workspace_id) as workspace_id,
    coalesce(key_alias.api_key_id, origin.key_logged) as api_key_id,
    coalesce(origin.tier_logged, 'standard') as service_tier,
    coalesce(origin.geo_logged, if(name.has_geo, coalesce(place.default_inference_geo, 'global'), 'not_available'))
        as inference_geo,
    coalesce(origin.speed_logged, 'standard') as speed,
    origin.labels,
    list_filter([
        if(origin.tier_logged is null, 'service_tier', null),
        if(origin.geo_logged is null, 'inference_geo', null),
        if(origin.speed_logged is null, 'speed', null),
        if(origin.workspace_logged is null, 'workspace_id', null),
    ], lambda field: field is not null) as defaulted,
from origin
join model_name as name on name.logged = origin.model_logged
left join source.workspace_alias as alias on alias.logged = origin.workspace_logged
left join source.key_alias as key_alias on key_alias.logged = origin.key_logged
left join source.api_key as key on key.api_key_id = coalesce(key_alias.api_key_id, origin.key_logged)
left join log_setting as setting on setting.log = origin.log
left join source.workspace as place
    on place.workspace_id = coalesce(alias.workspace_id, origin.workspace_logged, key.workspace_id, setting.workspace_id);

-- What prices hang on: an origin has one such grain for prompts up to 200,000 tokens, and one above.
create or replace temp table grain as
select row_number() over (order by model, service_tier, context_window, inference_geo, speed) as grain, * from (
    select distinct model, service_tier, context_window, inference_geo, speed
    from source.origin
    cross join (values ('0-200k'), ('200k-1M')) as context (context_window)
);

create or replace temp table place as
select named.*, low.grain, high.grain as long_grain,
from source.origin as named
join grain as low
    on low.model = named.model and low.service_tier = named.service_tier and low.inference_geo = named.inference_geo
    and low.speed = named.speed and low.context_window = '0-200k'
join grain as high
    on high.model = named.model and high.service_tier = named.service_tier and high.inference_geo = named.inference_geo
    and high.speed = named.speed and high.context_window = '200k-1M';

create or replace table source.key_named as
select distinct log, api_key_id from source.origin where api_key_id is not null order by all;

create or replace table source.log_hour as
select log_name.log, date_trunc('hour', event.logged_at)::timestamp as hour, count(*) as lines
from event
join log_name on log_name.position = event.log
group by all
order by all;

-- Ids that stand on more than one line, over all logs. A null id is never one of them.
create or replace temp table repeated as
select key, bool_or(kind = 'final') as finished
from event
where key is not null
group by key
having count(*) > 1;

create or replace temp table repeated_line as
select
    event.rowid as line, event.* exclude (request_id), place.origin as ordinal, repeated.finished,
    epoch_us(event.logged_at)::hugeint * 4294967296 as instant,
from event
join repeated on repeated.key = event.key
join place on place.hash = event.origin;

-- Lines that only their text can rank: finished, of one id, equal in time and output, different in anything else.
create or replace temp macro content(e) as
    hash(e.log, e.origin, e.logged_at, e.kind, e.cut, e.input_tokens, e.cache_write_total, e.cache_write_5m,
        e.cache_write_1h, e.cache_read_input_tokens, e.output_tokens, e.web_search_requests, e.cost_usd, e.status,
        e.iterations);

create or replace temp table tied as
with first_line as (
    select line, key, log, file, content(repeated_line) as content
    from repeated_line
    where finished and kind = 'final'
    qualify rank() over (partition by key order by cut, logged_at, output_tokens desc nulls last) = 1
)
select first_line.line, first_line.key, first_line.log, first_line.file, first_line.content, null::varchar as line_text
from first_line
semi join (
    select key from first_line group by key having count(distinct content) > 1
) as several on several.key = first_line.key;
