"""A small world of made-up sentences, and small models that were pretrained on them."""
