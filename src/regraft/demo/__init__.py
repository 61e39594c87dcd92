"""Micro models, pretrained on made-up sentences, and data of such sentences: what `regraft demo` runs on."""
