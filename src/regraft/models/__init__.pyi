from .families import FAMILIES, Family, TaskHead, load_families
from .pretrained import BaseModel, resolve
from .sites import SITES, Place, Space

__all__ = ["FAMILIES", "SITES", "BaseModel", "Family", "Place", "Space", "TaskHead", "load_families", "resolve"]
