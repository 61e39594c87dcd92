"""Directories of AdapterHub's ``adapters`` library (1.3.0), converted to PEFT's modules and back; pure, no files."""
