"""Task-agnostic distillation: a shallower student of a model, the paper's first step."""
