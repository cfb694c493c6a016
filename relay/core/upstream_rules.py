"""What the upstream would refuse, so that it can be refused before a job is accepted.

Alone knows the upstream's rules about countries (docs/upstream.md, "Submit"). Scrapers not named here have none.
"""

from collections.abc import Mapping

import iso3166


def _is_user_assigned(code: str) -> bool:
    # ISO 3166-1 leaves these to its users; data sets list some of them (XK) beside the assigned ones.
    return code in ("AA", "ZZ") or code.startswith("X") or "QM" <= code <= "QZ"


#: The assigned ISO 3166-1 alpha-2 codes, in upper case.
COUNTRIES: frozenset[str] = frozenset(c for c in iso3166.countries_by_alpha2 if not _is_user_assigned(c))

_WITHOUT_EAST_ASIA = frozenset({"JP", "TW"})

REFUSED_COUNTRIES: Mapping[str, frozenset[str]] = {
    "gemini": _WITHOUT_EAST_ASIA,
    "google_ai_mode": _WITHOUT_EAST_ASIA,
    "grok": _WITHOUT_EAST_ASIA,
}


def refuses_country(scraper: str, country: str) -> bool:
    """Whether the upstream would refuse this scraper for this country."""
    return country in REFUSED_COUNTRIES.get(scraper, frozenset())
