"""Everything that is read is checked, everything that is written appears whole."""
