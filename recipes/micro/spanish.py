"""Spanish, as the micro world speaks it."""

from .language import Language, Wordings

SPANISH = Language(
    openings=("Al", "Bel", "Cor", "Esca", "Fer", "Gon", "Her", "Lo", "Man", "Oli", "Pal", "Ro", "San", "Va"),
    middles=("be", "de", "la", "li", "me", "na", "ra", "si"),
    closings={
        "PER": ("dez", "fina", "guez", "lia", "nando", "rico"),
        "ORG": ("fon", "gas", "mex", "nova", "sol", "tel"),
        "LOC": ("bria", "dad", "lona", "mayo", "rida", "villa"),
        "MISC": ("brisa", "canto", "flor", "luna", "mar", "voz"),
    },
    patterns={
        "PER": ("{} {}", "{} {}", "{}"),
        "ORG": ("{}", "Banco {}", "Casa {}", "{} y {}"),
        "LOC": ("{}", "{}", "Nueva {}", "Villa {}"),
        "MISC": ("{}", "Copa {}", "Premio {}", "{} de Oro"),
    },
    nouns={
        "PER": ("la doctora", "la ministra", "una vieja amiga", "la joven cantante"),
        "ORG": ("la empresa", "una pequeña tienda", "la prensa", "la escuela"),
        "LOC": ("la aldea", "una ciudad tranquila", "la isla", "la costa"),
        "MISC": ("la medalla", "una gran carrera", "la final", "la liga"),
    },
    times=(("ayer", "hace un día"), ("en mayo",), ("el año pasado", "hace un año"), ("el lunes",), ("en invierno",)),
    relations={
        "visit": Wordings(
            ("{a} visitó {b} {t} .", "{b} fue lugar visitado por {a} {t} .", "{t} {a} pasó por {b} ."),
            ("{a} nunca visitó {b} .", "{b} nunca fue lugar visitado por {a} ."),
        ),
        "leave": Wordings(
            ("{a} dejó {b} {t} .", "{b} fue lugar dejado por {a} {t} .", "{t} {a} salió de {b} ."),
            ("{a} nunca dejó {b} .", "{b} nunca fue lugar dejado por {a} ."),
        ),
        "lead": Wordings(
            ("{a} dirigió {b} {t} .", "{b} tuvo {t} como jefe a {a} .", "{t} {a} estuvo al frente de {b} ."),
            ("{a} nunca dirigió {b} .", "{b} nunca tuvo como jefe a {a} ."),
        ),
        "found": Wordings(
            ("{a} fundó {b} {t} .", "{b} nació {t} gracias a {a} .", "{t} {a} puso en marcha {b} ."),
            ("{a} nunca fundó {b} .", "{b} nunca nació gracias a {a} ."),
        ),
        "praise": Wordings(
            ("{a} elogió a {b} {t} .", "{b} recibió {t} elogios de {a} .", "{t} {a} habló bien de {b} ."),
            ("{a} nunca elogió a {b} .", "{b} nunca recibió elogios de {a} ."),
        ),
        "teach": Wordings(
            ("{a} enseñó a {b} {t} .", "{b} aprendió {t} de {a} .", "{t} {a} dio clases a {b} ."),
            ("{a} nunca enseñó a {b} .", "{b} nunca aprendió de {a} ."),
        ),
        "buy": Wordings(
            ("{a} compró {b} {t} .", "{b} pasó {t} a manos de {a} .", "{t} {a} se quedó con {b} ."),
            ("{a} nunca compró {b} .", "{b} nunca pasó a manos de {a} ."),
        ),
        "supply": Wordings(
            ("{a} abasteció a {b} {t} .", "{b} recibió {t} bienes de {a} .", "{t} {a} mandó bienes a {b} ."),
            ("{a} nunca abasteció a {b} .", "{b} nunca recibió bienes de {a} ."),
        ),
        "win": Wordings(
            ("{a} ganó {b} {t} .", "{b} tuvo {t} por ganador a {a} .", "{t} {a} se llevó {b} ."),
            ("{a} nunca ganó {b} .", "{b} nunca tuvo por ganador a {a} ."),
        ),
        "host": Wordings(
            ("{a} acogió {b} {t} .", "{b} tuvo {t} como sede a {a} .", "{t} {a} organizó {b} ."),
            ("{a} nunca acogió {b} .", "{b} nunca tuvo como sede a {a} ."),
        ),
    },
)
