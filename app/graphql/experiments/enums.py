"""The enums of experiments on the wire: named here once, before whoever uses them."""

from __future__ import annotations

import strawberry

from app.experiments.types import ExperimentSource, ExperimentStatus, MetricAggregation, MetricDirection, MetricKind

__all__ = ["ExperimentSource", "ExperimentStatus", "MetricAggregation", "MetricDirection", "MetricKind"]

strawberry.enum(ExperimentSource, name="ExperimentSource")
strawberry.enum(ExperimentStatus, name="ExperimentStatus")
strawberry.enum(MetricKind, name="MetricKind")
strawberry.enum(MetricDirection, name="MetricDirection")
strawberry.enum(
    MetricAggregation,
    name="MetricAggregation",
    description="How the outcomes of one unit become one number. PROPORTION is ANY. Units without an outcome count 0 under ANY and "
    "SUM, and are left out under MEAN and LAST.",
)
