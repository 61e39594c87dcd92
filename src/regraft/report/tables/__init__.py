"""Tables of a report, each made of groups of results."""
