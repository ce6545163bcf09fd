"""Facts about model families and engines, as data, each with its reason and source."""
