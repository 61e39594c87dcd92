from .families import FAMILIES, Family, TaskHead, load_families
from .pretrained import Pretrained, resolve
from .sites import SITES, Place, SpacePair

__all__ = ["FAMILIES", "SITES", "Family", "Place", "Pretrained", "SpacePair", "TaskHead", "load_families", "resolve"]
