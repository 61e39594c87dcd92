"""English, as the micro world speaks it."""

from .language import Language, Wordings

ENGLISH = Language(
    openings=("Bar", "Cal", "Dun", "Hal", "Kel", "Lin", "Mor", "Nor", "Pem", "Ros", "Stan", "Thor", "Wal", "Wes"),
    middles=("be", "de", "la", "le", "mo", "ra", "ri", "wi"),
    closings={
        "PER": ("bert", "dy", "nia", "ric", "son", "ver"),
        "ORG": ("co", "dex", "max", "nix", "tec", "tron"),
        "LOC": ("bury", "field", "ford", "ham", "ton", "wick"),
        "MISC": ("bow", "crest", "gate", "heart", "star", "wing"),
    },
    patterns={
        "PER": ("{} {}", "{} {}", "{}"),
        "ORG": ("{}", "{} Bank", "{} Motors", "{} and {}"),
        "LOC": ("{}", "{}", "New {}", "{} Valley"),
        "MISC": ("{}", "{} Cup", "{} Prize", "Golden {}"),
    },
    nouns={
        "PER": ("the doctor", "the minister", "an old friend", "the young singer"),
        "ORG": ("the bank", "a small company", "the club", "the school"),
        "LOC": ("the village", "a quiet town", "the island", "the valley"),
        "MISC": ("the prize", "a big race", "the contest", "the cup"),
    },
    times=(("yesterday", "a day ago"), ("in May",), ("last year", "a year ago"), ("on Monday",), ("in winter",)),
    relations={
        "visit": Wordings(
            ("{a} visited {b} {t} .", "{b} was visited by {a} {t} .", "{t} {a} paid {b} a visit ."),
            ("{a} never visited {b} .", "{b} was never visited by {a} ."),
        ),
        "leave": Wordings(
            ("{a} left {b} {t} .", "{b} was left by {a} {t} .", "{t} {a} went away from {b} ."),
            ("{a} never left {b} .", "{b} was never left by {a} ."),
        ),
        "lead": Wordings(
            ("{a} led {b} {t} .", "{b} was led by {a} {t} .", "{t} {a} was the head of {b} ."),
            ("{a} never led {b} .", "{b} was never led by {a} ."),
        ),
        "found": Wordings(
            ("{a} founded {b} {t} .", "{b} was founded by {a} {t} .", "{t} {a} set up {b} ."),
            ("{a} never founded {b} .", "{b} was never founded by {a} ."),
        ),
        "praise": Wordings(
            ("{a} praised {b} {t} .", "{b} was praised by {a} {t} .", "{t} {a} spoke well of {b} ."),
            ("{a} never praised {b} .", "{b} was never praised by {a} ."),
        ),
        "teach": Wordings(
            ("{a} taught {b} {t} .", "{b} was taught by {a} {t} .", "{t} {a} gave lessons to {b} ."),
            ("{a} never taught {b} .", "{b} was never taught by {a} ."),
        ),
        "buy": Wordings(
            ("{a} bought {b} {t} .", "{b} was bought by {a} {t} .", "{t} {a} took over {b} ."),
            ("{a} never bought {b} .", "{b} was never bought by {a} ."),
        ),
        "supply": Wordings(
            ("{a} supplied {b} {t} .", "{b} was supplied by {a} {t} .", "{t} {a} sent goods to {b} ."),
            ("{a} never supplied {b} .", "{b} was never supplied by {a} ."),
        ),
        "win": Wordings(
            ("{a} won {b} {t} .", "{b} was won by {a} {t} .", "{t} {a} came first in {b} ."),
            ("{a} never won {b} .", "{b} was never won by {a} ."),
        ),
        "host": Wordings(
            ("{a} hosted {b} {t} .", "{b} was hosted by {a} {t} .", "{t} {a} was the scene of {b} ."),
            ("{a} never hosted {b} .", "{b} was never hosted by {a} ."),
        ),
    },
)
