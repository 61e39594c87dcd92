from .families import FAMILIES, Family, Stack, TaskHead, load_families, register_family
from .pretrained import Pretrained, resolve
from .relation import Relation, relate
from .sites import SITES, Place, SpacePair

__all__ = [
    "FAMILIES",
    "SITES",
    "Family",
    "Place",
    "Pretrained",
    "Relation",
    "SpacePair",
    "Stack",
    "TaskHead",
    "load_families",
    "register_family",
    "relate",
    "resolve",
]
