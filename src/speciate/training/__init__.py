"""Plans, trainings by every method (recipes/, networks/, language/), the search of `specialize` (cascade/), merging."""
