"""How many inputs a property is tried on: a few hundred always, many more under the marker ``nightly``."""

import pytest
from hypothesis import settings

# The few inputs are the same in each run; the many are others each night, and a failure prints the line that repeats
# it. Hypothesis's own deadline is of the clock, and broken by a busy machine: `helpers.within` measures the processor.
settings.register_profile("few", max_examples=300, deadline=None, derandomize=True, database=None)
settings.register_profile("many", max_examples=10_000, deadline=None, database=None, print_blob=True)


@pytest.fixture(params=["few", pytest.param("many", marks=pytest.mark.nightly)])
def tried(request):
    """Decorator: try the property, a function under ``@given``, on this many inputs, here and now."""
    return lambda holds: settings.get_profile(request.param)(holds)()
