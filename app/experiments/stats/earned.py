"""When looks fall due: apart from what they say, since each fold asks this and few ever need the statistics."""


def looks_due(units: int, planned_units: int, planned_looks: int) -> int:
    """How many looks a number of units of all arms together has earned: look k at k/planned_looks of the planned units."""
    return min(units * planned_looks // planned_units, planned_looks)
