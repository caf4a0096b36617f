"""FOCUS Cost and Usage rows of a period, releases 1.2 and 1.4; what they hold stands in sql/export_focus.sql."""

from dataclasses import dataclass
from pathlib import Path

import duckdb

from reconcile import ledger
from reconcile.errors import InvariantError
from reconcile.export.files import whole
from reconcile.export.views import view_columns

VERSIONS = ("1.2", "1.4")
"""The releases that can be written."""

_BOTH = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceId",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
)
_SINCE = {
    "1.2": ("ProviderName", "PublisherName"),
    "1.4": (
        "AllocatedMethodDetails",
        "AllocatedMethodId",
        "AllocatedResourceId",
        "AllocatedResourceName",
        "AllocatedTags",
        "HostProviderName",
        "ServiceProviderName",
    ),
}
_OURS = (
    "x_CostCenterId",
    "x_CostCenterName",
    "x_AllocationBasis",
    "x_AllocationRule",
    "x_AllocationDriver",
    "x_Model",
    "x_TokenType",
    "x_ServiceTier",
    "x_ContextWindow",
    "x_InferenceGeo",
    "x_Speed",
    "x_Status",
    "x_PeriodOfCharge",
    "x_InvoiceReason",
    "x_Revision",
    "x_SplitOriginId",
    "x_SplitOriginCost",
)

_RESTATED = {
    "period_of_charge": "varchar",
    "day": "date",
    "workspace_id": "varchar",
    "model": "varchar",
    "service_tier": "varchar",
    "context_window": "varchar",
    "inference_geo": "varchar",
    "speed": "varchar",
    "meter": "varchar",
    "cost_center": "varchar",
    "amount_usd": "decimal(38, 12)",
}


@dataclass(frozen=True)
class FocusOptions:
    """What may be chosen: the release, the 1.5 draft's names of token properties, Parquet in place of CSV."""

    version: str = "1.4"
    draft: bool = False
    parquet: bool = False


def columns(version: str) -> tuple[str, ...]:
    """The columns of a release that are written, in order: FOCUS's by name, then ours, whose names begin with x_."""
    return (*sorted((*_BOTH, *_SINCE[version])), *_OURS)


def write_focus(
    connection: duckdb.DuckDBPyConnection, target: Path, options: FocusOptions, invoice_id: str | None
) -> None:
    """Write every billed charge of the period, every correction of an earlier one and what the invoice adds.

    Raises ``InvariantError`` where the rows do not add up to what is billed, in total and by cost center, and to what
    is invoiced.
    """
    build(connection, options, invoice_id)
    selected = ", ".join(f'"{name}"' for name in columns(options.version))
    copy = ledger.copy_parquet if options.parquet else ledger.copy_csv
    with whole(target) as aside:
        copy(connection, f"select {selected} from focus_row order by row", aside)


def build(connection: duckdb.DuckDBPyConnection, options: FocusOptions, invoice_id: str | None) -> None:
    """Make the temp table ``focus_row``, and look at its controls."""
    setting = {"invoice_id": "varchar", "draft": "boolean"}
    ledger.insert(connection, "temp.focus_setting", setting, [(invoice_id, options.draft)])
    _take_restated(connection)
    ledger.run_sql(connection, "export_focus")
    if violations := ledger.rows(connection, "select * from focus_violation limit 3"):
        shown = "; ".join(
            f"{row['what']} {row['cost_center'] or ''}: {row['found_usd']} USD, expected {row['expected_usd']}"
            for row in violations
        )
        raise InvariantError("export focus", f"the rows do not add up ({shown})", "Nothing was written; report it")


def _take_restated(connection: duckdb.DuckDBPyConnection) -> None:
    """Corrections of earlier months, a row a moved cell and cost center; none in a ledger without the view."""
    ledger.insert(connection, "temp.focus_restated", _RESTATED, [])
    if view_columns(connection, "restatement_part"):
        moved = f"select {', '.join(_RESTATED)} from report.restatement_part where amount_usd <> 0"
        connection.execute(f"insert into focus_restated by name {moved}")
