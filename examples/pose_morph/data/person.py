"""Who is in a picture, as its name tells."""

import re

from examples.pose_morph.errors import UserError

BEFORE_LAST_UNDERSCORE = r"^(.+)_[^/]*$"
"""One person in one outfit under PATN's names: ``fashionWOMENDressesid0000262902`` of ``…02_3back.jpg``."""

DEEPFASHION = r"^(.+)_\d+_?(?:front|side|back|full|flat|additional)\.\w+$"
"""The same, only of names as DeepFashion gives them: with the picture's number and the view."""


def person_of(name: str, pattern: str) -> str | None:
    """Return what the pattern's first group (or all of it) matches in a name, or None.

    >>> person_of("fashionWOMENDressesid0000262902_3back.jpg", BEFORE_LAST_UNDERSCORE)
    'fashionWOMENDressesid0000262902'
    >>> person_of("fashionWOMENDressesid0000262902_3back.jpg", r"id[0-9]{8}")
    'id00002629'
    >>> person_of("alice/0001.png", r"^([^/]+)/")
    'alice'
    """
    found = re.search(pattern, name)
    if found is None:
        return None
    return found.group(1) if found.re.groups else found.group()


def by_person(names: list[str], pattern: str) -> dict[str, list[str]]:
    """Group names by person, both in order.

    Raises:
        UserError: the pattern is no regular expression, or a name does not match.
    """
    groups: dict[str, list[str]] = {}
    lost = []
    try:
        for name in sorted(names):
            person = person_of(name, pattern)
            lost.append(name) if person is None else groups.setdefault(person, []).append(name)
    except re.error as error:
        raise UserError(f"--person: {pattern!r} is no regular expression ({error})") from error
    if lost:
        raise UserError(
            f"--person: {pattern!r} finds no person in {lost[0]} ({len(lost)} of {len(names)} names); "
            "give a pattern whose first group is the person, such as '^([^/]+)/' for a folder per person"
        )
    return groups
