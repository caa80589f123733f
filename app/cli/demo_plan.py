"""What the demo consists of: plain data, cheap to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DemoVersion:
    """One model version. `key` names its trainer and, as a tag, finds it again."""

    key: str
    description: str


@dataclass(frozen=True, slots=True)
class DemoModel:
    """`versions[0]` is what production serves first."""

    tenant: str
    name: str
    task: str
    versions: tuple[DemoVersion, ...]


TENANTS = {"clinic": "Demo clinic", "shop": "Demo shop"}
MODELS = (
    DemoModel(
        "clinic",
        "tumour",
        "CLASSIFICATION",
        (
            DemoVersion("tumour-logistic", "Breast cancer (Wisconsin): scaled logistic regression"),
            DemoVersion("tumour-boosting", "Breast cancer (Wisconsin): gradient boosted trees"),
        ),
    ),
    DemoModel(
        "shop",
        "diabetes-progression",
        "REGRESSION",
        (DemoVersion("diabetes-boosting", "Disease progression a year after baseline: gradient boosted trees"),),
    ),
    DemoModel(
        "shop",
        "wine-cultivar",
        "CLASSIFICATION",
        (DemoVersion("wine-logistic", "Which of three cultivars a wine comes from: scaled logistic regression"),),
    ),
)
EXAMPLE = MODELS[0]
EXAMPLE_KEY = EXAMPLE.versions[0].key
