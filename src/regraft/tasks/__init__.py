"""Tasks: where their data are, what their labels are called and how they are scored."""
