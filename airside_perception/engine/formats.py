"""How inputs and outputs of an engine lie in memory where nobody says otherwise."""

from __future__ import annotations

from airside_perception.card import LidarCard, ModelCard


def fast_formats(card: ModelCard | None, precision: str, device: str) -> dict[str, str]:
    """{input or output: layout} that the detector's kernels and the network both take fastest.

    In fp16 on the GPU, TensorRT's convolutions want eight channels of a place side by side. A
    pillar is written and an anchor or centre read in that order just as well, so nothing has to be
    turned round between them. Images have three channels, and the rows that a camera network puts
    out have no channels: these stay linear, as all does on a DLA.

    Args:
        card: of the network; None: not known, so all is linear.
        precision, device: as in `BuildSettings`.
    """
    if not isinstance(card, LidarCard) or precision != 'fp16' or device != 'gpu':
        return {}
    return dict.fromkeys((card.input_name, *card.outputs), 'hwc8')
