"""French, as the micro world speaks it."""

from .language import Language, Wordings

FRENCH = Language(
    openings=("Au", "Beau", "Char", "Dau", "Fon", "Gui", "Lan", "Mar", "Mont", "Per", "Quen", "Rous", "Tou", "Vau"),
    middles=("be", "de", "la", "le", "mi", "ne", "ro", "ti"),
    closings={
        "PER": ("bert", "chel", "line", "nard", "rand", "sette"),
        "ORG": ("cor", "lux", "mode", "pac", "tif", "vix"),
        "LOC": ("bourg", "gny", "lon", "mont", "ville", "zac"),
        "MISC": ("aile", "brise", "fleur", "lune", "rive", "voix"),
    },
    patterns={
        "PER": ("{} {}", "{} {}", "{}"),
        "ORG": ("{}", "Banque {}", "Maison {}", "{} et {}"),
        "LOC": ("{}", "{}", "Saint {}", "{} sur Mer"),
        "MISC": ("{}", "Coupe {}", "Prix {}", "{} Royale"),
    },
    nouns={
        "PER": ("la docteure", "la ministre", "une vieille amie", "la jeune chanteuse"),
        "ORG": ("la banque", "une petite boutique", "la presse", "la revue"),
        "LOC": ("la campagne", "une ville calme", "la côte", "la vallée"),
        "MISC": ("la médaille", "une grande course", "la finale", "la ligue"),
    },
    times=(("hier", "il y a un jour"), ("en mai",), ("en hiver",), ("ce lundi",), ("cet été",)),
    relations={
        "visit": Wordings(
            ("{a} a visité {b} {t} .", "{b} a eu {t} la visite de {a} .", "{t} {a} est passé par {b} ."),
            ("{a} n'a jamais visité {b} .", "{b} n'a jamais eu la visite de {a} ."),
        ),
        "leave": Wordings(
            ("{a} a quitté {b} {t} .", "{b} a vu partir {a} {t} .", "{t} {a} est parti de {b} ."),
            ("{a} n'a jamais quitté {b} .", "{b} n'a jamais vu partir {a} ."),
        ),
        "lead": Wordings(
            ("{a} a dirigé {b} {t} .", "{b} a eu {t} pour chef {a} .", "{t} {a} a mené {b} ."),
            ("{a} n'a jamais dirigé {b} .", "{b} n'a jamais eu pour chef {a} ."),
        ),
        "found": Wordings(
            ("{a} a fondé {b} {t} .", "{b} est né {t} grâce à {a} .", "{t} {a} a lancé {b} ."),
            ("{a} n'a jamais fondé {b} .", "{b} n'est jamais né grâce à {a} ."),
        ),
        "praise": Wordings(
            ("{a} a loué {b} {t} .", "{b} a reçu {t} des éloges de {a} .", "{t} {a} a dit du bien de {b} ."),
            ("{a} n'a jamais loué {b} .", "{b} n'a jamais reçu des éloges de {a} ."),
        ),
        "teach": Wordings(
            ("{a} a formé {b} {t} .", "{b} a appris {t} avec {a} .", "{t} {a} a donné des cours à {b} ."),
            ("{a} n'a jamais formé {b} .", "{b} n'a jamais appris avec {a} ."),
        ),
        "buy": Wordings(
            ("{a} a acheté {b} {t} .", "{b} est passé {t} à {a} .", "{t} {a} a repris {b} ."),
            ("{a} n'a jamais acheté {b} .", "{b} n'est jamais passé à {a} ."),
        ),
        "supply": Wordings(
            ("{a} a fourni {b} {t} .", "{b} a reçu {t} des biens de {a} .", "{t} {a} a livré des biens à {b} ."),
            ("{a} n'a jamais fourni {b} .", "{b} n'a jamais reçu des biens de {a} ."),
        ),
        "win": Wordings(
            ("{a} a gagné {b} {t} .", "{b} est revenu {t} à {a} .", "{t} {a} a remporté {b} ."),
            ("{a} n'a jamais gagné {b} .", "{b} n'est jamais revenu à {a} ."),
        ),
        "host": Wordings(
            ("{a} a accueilli {b} {t} .", "{b} a eu lieu {t} à {a} .", "{t} {a} a reçu {b} ."),
            ("{a} n'a jamais accueilli {b} .", "{b} n'a jamais eu lieu à {a} ."),
        ),
    },
)
