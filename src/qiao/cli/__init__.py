"""Arguments and rendering; no decisions."""
