"""The closed list of reasons, in the words that the pages, `reconcile explain` and docs/reasons.md share."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """One code of the list. ``leads_to`` is the total that its step of the bridge leads to.

    ``meaning`` says what is true, ``to_do`` what to do about it, each in a sentence or two; ``confirm`` how a skeptic
    sees it for himself. docs/reasons.md has a section for each code, named like it.
    """

    code: str
    leads_to: str
    title: str
    meaning: str
    to_do: str
    confirm: str


BEFORE_BILLED = (
    Reason(
        "duplicate",
        "recorded",
        "Requests logged more than once",
        "The same request id stands on more than one line. One line was kept; these are the others.",
        "Write one line for each request id, and keep the request in one log only.",
        "Search the logs for one of the ids: it stands there more than once, with the same usage.",
    ),
    Reason(
        "stream_sum",
        "recorded",
        "Stream usage counted once per event",
        "A stream tells its usage so far with every event. The log holds each event as a line of its own; only the "
        "last figure counts.",
        "Log a stream once, at its end, with the last usage; or mark each line's event, and never add them up.",
        "Take one id and its lines in order: output_tokens only grows, and the last one is what was reported.",
    ),
    Reason(
        "app_price",
        "recorded",
        "The application's own prices",
        "The application's own cost differs from the price book for the same quantities. The bill does not depend on "
        "it; the application's cost figures do.",
        "Correct the application's price table, or stop logging a cost and let the price book value it.",
        "Take one request and multiply its counters by the prices that were used (price_used.csv): the result is the "
        "book's, not the logged cost.",
    ),
    Reason(
        "time_zone",
        "reported",
        "Log clock off by whole or half hours",
        "The log's hours lie a constant distance from the provider's, so what was used near midnight falls on another "
        "day.",
        "Write timestamps in UTC with their offset, or set this log's time_zone in the config.",
        "Compare a timestamp of this log with the Date header of the same answer: they differ by the shift.",
    ),
    Reason(
        "cutoff",
        "reported",
        "Counted on an adjacent day",
        "The log writes these requests on one day and the provider counts them on the day beside it: long requests and "
        "batches over midnight.",
        "Stamp a request when its answer is complete. What crosses the month's edge stands in the other month; nothing "
        "is lost.",
        "Add the two days: recorded and reported agree over both, and on neither alone.",
    ),
    Reason(
        "cache_inclusive",
        "reported",
        "Cached tokens counted in the input too",
        "The log's input counter also holds tokens that were read from or written to the cache, and that are billed "
        "at the cache's rates.",
        "Log usage.input_tokens as the API gives it, or take cache reads and writes off the input before logging.",
        "Take one request with a cache hit: the logged input is at least as large as its cache reads, and the input in "
        "the API's answer is smaller by them.",
    ),
    Reason(
        "cache_ttl",
        "reported",
        "5-minute and 1-hour cache writes confused",
        "Cache writes stand under the wrong lifetime, or the log does not tell the two apart. An hour costs 1.6 times "
        "five minutes.",
        "Log usage.cache_creation with both of its counters, from message_start where the request is a stream.",
        "Take one hour: what is too much in one lifetime is, to the token, what is missing in the other.",
    ),
    Reason(
        "model",
        "reported",
        "Recorded under another model",
        "The same quantity stands under one model in the logs and under another in the usage report.",
        "Log the answer's model, not the requested one.",
        "Take one of the requests: the answer's model field is the one that the usage report names.",
    ),
    Reason(
        "service_tier",
        "reported",
        "Recorded under another service tier",
        "The same quantity stands under one service tier in the logs and under another in the usage report.",
        "Log usage.service_tier of the answer; give batch results the tier batch.",
        "Take one of the requests: usage.service_tier of the answer is the tier that the usage report names.",
    ),
    Reason(
        "context_window",
        "reported",
        "Recorded under another context window",
        "The same quantity stands on different sides of 200,000 prompt tokens in the logs and in the usage report.",
        "Log all parts of the prompt: input, cache reads and cache writes. The window follows from their sum.",
        "Add the three input counters of one of the requests, and compare them with the API's answer.",
    ),
    Reason(
        "inference_geo",
        "reported",
        "Recorded under another inference geography",
        "The same quantity stands under one geography in the logs and under another in the usage report. Inference in "
        "the US costs 1.1 times as much.",
        "Log usage.inference_geo of the answer, and price by it.",
        "Look at the workspace's default geography, and at usage.inference_geo of one answer.",
    ),
    Reason(
        "speed",
        "reported",
        "Recorded under another speed",
        "The same quantity stands under one speed in the logs and under another in the usage report. Fast mode has "
        "prices of its own.",
        "Log usage.speed of the answer, and price by it.",
        "Take one of the requests: usage.speed of the answer is the one that the usage report names.",
    ),
    Reason(
        "workspace",
        "reported",
        "Recorded under another workspace",
        "The same quantity stands under one workspace in the logs and under another in the usage report. Even where "
        "the dollars net, another team gets the bill.",
        "Log the workspace of the key that was used (the answer's anthropic-workspace-id header), not the "
        "application's setting.",
        "Look up in the Console to which workspace the application's key belongs.",
    ),
    Reason(
        "unlogged_key",
        "reported",
        "Keys that no log names",
        "This API key was used, and no line of any log names it, in a workspace whose logs name their keys.",
        "Find the key's owner: connect its log, or revoke the key.",
        "Look the key up in the Console by its name or hint, then search the logs for its id: there is none.",
    ),
    Reason(
        "no_key",
        "reported",
        "Use without an API key",
        "Use by people and service accounts, not by an application with a key: the Console, Claude Code sign-ins, "
        "federated service accounts. No request log holds it.",
        "Give this workspace's use a receiver of its own in the allocation, or accept it; a log will not come.",
        "Look at the Claude Code and Playground use of the same days in the Console.",
    ),
    Reason(
        "iterations",
        "reported",
        "Iterations outside the top-level counters",
        "Compaction and advisor calls inside a request are billed, and the top-level counters leave them out.",
        "Count every entry of usage.iterations, each at its own model, when you measure what a request costs.",
        "Take one of the requests: the entries of usage.iterations other than message are what is missing.",
    ),
    Reason(
        "cut_stream",
        "reported",
        "Streams cut before their last usage",
        "The client left before the last usage event. What was generated was billed; the log holds the placeholder of "
        "the stream's first event.",
        "Read a stream to its end, also when the user has left; or log a cut stream as cut, with an estimate.",
        "Take one of the streams: the log has message_start and no message_delta, with 1 to 3 output tokens.",
    ),
    Reason(
        "log_gap",
        "reported",
        "Hours in which a log is silent",
        "A log that otherwise writes has no line at all in these hours, and the provider counted usage of its keys.",
        "Find out what stood still (a collector, a disk, a deployment) and replay what it missed; then close again.",
        "Open the log around the hours named: the lines stop and begin again, and other days have lines there.",
    ),
    Reason(
        "unlogged",
        "reported",
        "Reported, not logged",
        "The provider counted this usage, the logs do not hold it, and nothing tells why. Located, not explained.",
        "Ask the owners of this workspace and model what else uses their keys: retries, scripts, a second service.",
        "Compare the hours: evenly missing use points to a service without a log, single hours to an incident.",
    ),
    Reason(
        "unreported",
        "reported",
        "Logged, not reported",
        "The logs hold requests that the provider did not count: refused, never sent, or billed by someone else. "
        "Located, not explained, unless the evidence names another biller or an error.",
        "Log only what this provider answered with usage: no errors, no hits of a proxy's own cache, no other cloud.",
        "Search the provider's request-id of some of these lines: a line without one was never answered by it.",
    ),
    Reason(
        "discount",
        "billed",
        "Discount that the config does not know",
        "This model was billed at a constant fraction of list.",
        "If it is contracted, enter it under prices.contract; if nobody knows of it, ask the provider before it ends.",
        "Divide billed by list for any day and meter of this model: the fraction is the same.",
    ),
    Reason(
        "price_book",
        "billed",
        "Billed at another rate than the price book",
        "Billed divided by quantity gives a rate that the price book does not have.",
        "Compare both rates with the provider's price page: correct the price book, or dispute the charge.",
        "Divide the billed amount of one day by its tokens, and compare with the price page of that day.",
    ),
    Reason(
        "price_interval",
        "billed",
        "Price step that the report cannot show",
        "The price depends on a prompt length that the usage report does not show; this much of the bill lies inside "
        "the possible interval.",
        "Log the missing requests of this model: where every prompt's length is known, the interval is a point.",
        "Value the quantity at the lower and at the upper price: billed lies between the two.",
    ),
    Reason(
        "uncharged",
        "billed",
        "Used, not charged",
        "Quantities without a cost line: paid by a Priority Tier commitment, or refused before any output.",
        "For Priority Tier, book the commitment itself as a cost from outside; for refusals, nothing.",
        "Compare the usage report with the cost report for the day and tier: the first has a row, the second none.",
    ),
    Reason(
        "unpriced",
        "billed",
        "No known price",
        "No price book has a price for this. Its quantity is known, and what was billed for it stands here in full.",
        "Add the price with its source and dates to the price book, then close again.",
        "Divide billed by quantity: the result is the rate to look for on the price page.",
    ),
    Reason(
        "code_execution",
        "billed",
        "Code execution",
        "Billed by container time, which no request log can hold.",
        "Nothing to reconcile. Allocate it by workspace.",
        "Look at code execution in the Console's cost page for the same workspace and days.",
    ),
    Reason(
        "session_usage",
        "billed",
        "Managed agent sessions",
        "Billed by session time, which no request log can hold.",
        "Nothing to reconcile. Allocate it by workspace.",
        "Look at session usage in the Console's cost page for the same workspace and days.",
    ),
    Reason(
        "rounding",
        "billed",
        "Rounding",
        "Fractions below the precision of the amounts.",
        "Nothing: its size is bounded by the number of amounts that were rounded.",
        "Count the cells: each can be off by at most 0.000000000001 USD and as much for each of its lines.",
    ),
    Reason(
        "residual",
        "billed",
        "Nothing explains it",
        "No known cause fits what is left here.",
        "Look at the cells named, and ask the provider with day, workspace, model and amount.",
        "Compare usage and cost report of the day by hand: one of them holds what the other does not.",
    ),
)
"""Between logged and billed, in the bridge's order."""

AFTER_BILLED = (
    Reason(
        "contract_discount",
        "invoiced",
        "The contract's discount",
        "The cost report is at list, and the invoice takes the contract's discount off.",
        "Nothing, while it equals the contract's percentage of the list amounts.",
        "Multiply the list amounts of the models under contract by the percentage in prices.contract.",
    ),
    Reason(
        "credit",
        "invoiced",
        "Credits",
        "A credit that the invoice sets against the usage.",
        "Check its date and its remaining balance.",
        "It stands on the invoice under this name; the config repeats the line.",
    ),
    Reason(
        "commitment",
        "invoiced",
        "Commitment",
        "A committed spend that the invoice adds, or draws the usage from.",
        "Compare it with the order form.",
        "It stands on the invoice under this name; the config repeats the line.",
    ),
    Reason(
        "tax",
        "invoiced",
        "Tax",
        "Tax that the invoice adds. The cost report is without it.",
        "Book it to the tax account; it is not part of any cost center's use.",
        "It stands on the invoice under this name; the config repeats the line.",
    ),
    Reason(
        "earlier_period",
        "invoiced",
        "Corrections of earlier periods",
        "What this invoice corrects of a month that was closed before.",
        "Book it to the month that it corrects, or as the invoice has it, by your rules.",
        "Compare the invoice's line with the restatement of that month.",
    ),
    Reason(
        "invoice_rounding",
        "invoiced",
        "Rounding of the invoice",
        "The invoice is in cents; what is billed has more digits.",
        "Nothing, while it is below a cent for each line of the invoice.",
        "Subtract the billed total from the invoice's lines.",
    ),
)
"""Between billed and invoiced: from the invoice's lines in the config, from the contract, or from a restatement."""

ALL = BEFORE_BILLED + AFTER_BILLED
