"""Late fusion in bird's-eye view: align, associate, fuse; and which messages make one set."""

from airside_perception.fusion.align import Aligned, CameraView, align, align_set
from airside_perception.fusion.collect import Collector, Gathered
from airside_perception.fusion.fusion import Fusion, FusionResult

__all__ = [
    'Aligned',
    'CameraView',
    'Collector',
    'Fusion',
    'FusionResult',
    'Gathered',
    'align',
    'align_set',
]
