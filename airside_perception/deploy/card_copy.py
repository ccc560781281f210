"""The card of a network goes with it when the network is written anew."""

from __future__ import annotations

import hashlib
from pathlib import Path

from airside_perception.card import find_card
from airside_perception.card.find import card_file
from airside_perception.errors import CardError
from airside_perception.files import write_whole


def card_text(network: str | Path) -> tuple[str, str]:
    """(text of the card beside a network, why it cannot go along); both empty without a card.

    Called before the network is written: it may be written to its own place.
    """
    path = card_file(network)
    if not path.is_file():
        return '', ''
    try:
        card = find_card(network, str(path))
        text = path.read_text(encoding='utf-8')
    except (CardError, OSError, UnicodeDecodeError) as error:
        return '', f'its card stays behind: {error}'
    return text.replace(card.sha256, '{sha256}') if card.sha256 else text, ''


def write_card(text: str, network: str | Path) -> Path:
    """Writes what `card_text` gave beside `network`, with the hash that it has now; the card.

    Raises:
        CardError: it cannot be written, or the network not be read.
    """
    network = Path(network)
    try:
        digest = hashlib.sha256(network.read_bytes()).hexdigest()
    except OSError as error:
        raise CardError(f'{network}: not readable: {error.strerror}') from error
    return write_whole(network.with_suffix('.yaml'), text.replace('{sha256}', digest), CardError)
