"""German, as the micro world speaks it."""

from .language import Language, Wordings

GERMAN = Language(
    openings=("Al", "Brun", "Diet", "Eck", "Frie", "Gott", "Hein", "Kon", "Lud", "Mein", "Ot", "Rein", "Sieg", "Wolf"),
    middles=("be", "de", "ge", "ha", "li", "ma", "ri", "wa"),
    closings={
        "PER": ("bert", "gard", "helm", "linde", "mann", "rich"),
        "ORG": ("fix", "ol", "plan", "tal", "tex", "werk"),
        "LOC": ("bach", "burg", "dorf", "heim", "stadt", "wald"),
        "MISC": ("blick", "glanz", "lied", "ruf", "stern", "traum"),
    },
    patterns={
        "PER": ("{} {}", "{} {}", "{}"),
        "ORG": ("{}", "{} AG", "{} Werke", "{} und {}"),
        "LOC": ("{}", "{}", "Bad {}", "{} am See"),
        "MISC": ("{}", "{} Pokal", "{} Preis", "Goldener {}"),
    },
    nouns={
        "PER": ("die Ärztin", "die Ministerin", "eine alte Freundin", "die junge Sängerin"),
        "ORG": ("die Bank", "eine kleine Firma", "die Mannschaft", "die Schule"),
        "LOC": ("das Dorf", "eine ruhige Stadt", "die Insel", "das Tal"),
        "MISC": ("die Medaille", "das große Rennen", "die Meisterschaft", "eine Trophäe"),
    },
    times=(
        ("gestern", "vor einem Tag"),
        ("im Mai",),
        ("letztes Jahr", "vor einem Jahr"),
        ("am Montag",),
        ("im Winter",),
    ),
    relations={
        "visit": Wordings(
            ("{a} besuchte {t} {b} .", "{b} wurde {t} durch {a} besucht .", "{a} suchte {t} {b} auf ."),
            ("{a} besuchte nie {b} .", "{b} wurde nie durch {a} besucht ."),
        ),
        "leave": Wordings(
            ("{a} verließ {t} {b} .", "{b} wurde {t} durch {a} verlassen .", "{a} ließ {t} {b} hinter sich ."),
            ("{a} verließ nie {b} .", "{b} wurde nie durch {a} verlassen ."),
        ),
        "lead": Wordings(
            ("{a} leitete {t} {b} .", "{b} wurde {t} durch {a} geleitet .", "{a} stand {t} an der Spitze für {b} ."),
            ("{a} leitete nie {b} .", "{b} wurde nie durch {a} geleitet ."),
        ),
        "found": Wordings(
            ("{a} gründete {t} {b} .", "{b} wurde {t} durch {a} gegründet .", "{a} rief {t} {b} ins Leben ."),
            ("{a} gründete nie {b} .", "{b} wurde nie durch {a} gegründet ."),
        ),
        "praise": Wordings(
            ("{a} lobte {t} {b} .", "{b} wurde {t} durch {a} gelobt .", "{a} fand {t} gute Worte für {b} ."),
            ("{a} lobte nie {b} .", "{b} wurde nie durch {a} gelobt ."),
        ),
        "teach": Wordings(
            ("{a} lehrte {t} {b} .", "{b} wurde {t} durch {a} gelehrt .", "{a} gab {t} Stunden für {b} ."),
            ("{a} lehrte nie {b} .", "{b} wurde nie durch {a} gelehrt ."),
        ),
        "buy": Wordings(
            ("{a} kaufte {t} {b} .", "{b} wurde {t} durch {a} gekauft .", "{a} übernahm {t} {b} ."),
            ("{a} kaufte nie {b} .", "{b} wurde nie durch {a} gekauft ."),
        ),
        "supply": Wordings(
            ("{a} versorgte {t} {b} .", "{b} wurde {t} durch {a} versorgt .", "{a} schickte {t} Waren an {b} ."),
            ("{a} versorgte nie {b} .", "{b} wurde nie durch {a} versorgt ."),
        ),
        "win": Wordings(
            ("{a} gewann {t} {b} .", "{b} wurde {t} durch {a} gewonnen .", "{a} holte sich {t} {b} ."),
            ("{a} gewann nie {b} .", "{b} wurde nie durch {a} gewonnen ."),
        ),
        "host": Wordings(
            ("{a} veranstaltete {t} {b} .", "{b} wurde {t} durch {a} veranstaltet .", "{a} bot {t} Raum für {b} ."),
            ("{a} veranstaltete nie {b} .", "{b} wurde nie durch {a} veranstaltet ."),
        ),
    },
)
