"""A small world of made-up sentences, in several languages, and the data of its tasks."""
