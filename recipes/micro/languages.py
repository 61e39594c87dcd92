"""The languages of the micro world. A new language is a new record, in a module of its own."""

from collections.abc import Mapping

from .english import ENGLISH
from .french import FRENCH
from .german import GERMAN
from .language import Language
from .spanish import SPANISH

LANGUAGES: Mapping[str, Language] = {"en": ENGLISH, "de": GERMAN, "es": SPANISH, "fr": FRENCH}
