"""What an experiment found out, on the wire: mixed into the type Experiment, which adds nothing to it."""

from __future__ import annotations

import strawberry


@strawberry.type
class ResultsOfExperiment:
    """The base of the GraphQL type Experiment that brings its results."""
