"""Charts of a report, in pixels and ready to be drawn."""
