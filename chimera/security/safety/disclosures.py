"""The words by which a machine says that it is one, by language. A public channel has one of these, and no others.

The list is fixed on purpose: words of one's own could say anything, or nothing ("Enjoy.").
"""

from __future__ import annotations

from typing import Final

BY_LANGUAGE: Final[dict[str, tuple[str, ...]]] = {
    "cs": ("Vytvořeno umělou inteligencí.",),
    "de": ("KI-generiert.", "Von einer KI erstellt.", "KI-generierter Inhalt."),
    "en": ("AI-generated.", "AI-generated content.", "Automated account. AI-generated."),
    "es": ("Generado por IA.", "Contenido generado por IA."),
    "fr": ("Généré par IA.", "Contenu généré par IA."),
    "it": ("Generato dall'IA.", "Contenuto generato dall'IA."),
    "ja": ("AIによる生成。",),
    "nl": ("Door AI gemaakt.",),
    "pl": ("Wygenerowane przez AI.",),
    "pt": ("Gerado por IA.", "Conteúdo gerado por IA."),
    "sv": ("AI-genererat.",),
    "uk": ("Створено ШІ.",),
}

DISCLOSURES: Final[frozenset[str]] = frozenset(words for some in BY_LANGUAGE.values() for words in some)
