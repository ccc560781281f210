"""The card of a network: beside it, or beside the ONNX that an engine was built from."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from airside_perception.card.cards import ModelCard
from airside_perception.card.load import load_card
from airside_perception.errors import CardError

ENGINES = ('.engine', '.plan')
BUILT = re.compile(r'\.(fp32|fp16|int8)\.(gpu|dla\d)$')
"""What the builder adds to the name of a network, before the ending."""


def find_card(network: str | Path, card_path: str = '') -> ModelCard:
    """The card of a network: `card_path` if given, else the .yaml beside it; its hash is checked.

    An engine has the card of the ONNX that its manifest names, wherever that lies, or one of its
    own name beside it, with or without `.PRECISION.DEVICE`. The hash in a card is the ONNX's.

    Raises:
        CardError: as `load_card`, or the network is not the one that the card was written for.
    """
    network = Path(network)
    digest = _source(network)[1] if network.suffix in ENGINES else ''
    if card_path:
        card = load_card(card_path)
    else:
        card = load_card(card_file(network))
    if card.sha256 and (digest or network.suffix == '.onnx'):
        _check_hash(card, network, digest or _hash(network))
    return card


def card_file(network: str | Path) -> Path:
    """The card that belongs to a network by its place; where there is none, where it is missed."""
    network = Path(network)
    source, _ = _source(network) if network.suffix in ENGINES else (network, '')
    plain = onnx_beside(network).with_suffix('.yaml')
    places = (network.with_suffix('.yaml'), source.with_suffix('.yaml'), plain)
    return next((path for path in places if path.is_file()), plain)


def onnx_beside(engine: str | Path) -> Path:
    """`apron.onnx` for both `apron.engine` and `apron.fp16.gpu.engine`."""
    engine = Path(engine)
    return engine.with_name(f'{BUILT.sub("", engine.stem)}.onnx')


def _source(engine: Path) -> tuple[Path, str]:
    """The ONNX of an engine and its hash, from the manifest; the engine and '' without one.

    A manifest that cannot be read is none here: it keeps the engine from being opened.
    """
    try:
        text = json.loads(engine.with_name(f'{engine.name}.json').read_text(encoding='utf-8'))
        return engine.parent / str(text['onnx']), str(text['onnx_sha256'])
    except (OSError, ValueError, KeyError, TypeError):
        return engine, ''


def _hash(network: Path) -> str:
    try:
        return hashlib.sha256(network.read_bytes()).hexdigest()
    except OSError as error:
        raise CardError(f'{network}: not readable: {error.strerror}') from error


def _check_hash(card: ModelCard, network: Path, found: str) -> None:
    if found != card.sha256:
        of = f'{network} was built from an ONNX whose' if network.suffix in ENGINES else network
        raise CardError(
            f'{of}{":" if of is network else ""} SHA-256 is {found[:12]}..., but {card.path} '
            f'describes {card.sha256[:12]}...'
        )
