"""Grids of trainings: one file, a plan of cells, a store of results, and who carries them out."""
