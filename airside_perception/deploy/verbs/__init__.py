"""The verbs of `engine`: thin modules, each options and an answer; the work is in `deploy`."""

from __future__ import annotations

VERBS = {
    'export': 'a PyTorch network as ONNX, compared with torch',
    'sanitize': 'constants folded, dead nodes and stray weights removed; outputs stay equal',
    'inspect': 'what is in a network, engine or manifest, and whether it fits',
    'lint': 'every node against what DLA or GPU of a JetPack can do, with limit, fix and source',
    'rewrite': 'exact rewrites that make a network legal for the DLA, each proven',
    'resize': 'another input size for a fully convolutional network',
    'encoder': 'weights of a pillar feature net, for a model card',
    'calibrate': 'scales for INT8 from real inputs, as JSON, Q/DQ network or calibration cache',
    'build': 'a TensorRT engine for this machine from a network',
    'bench': 'how fast networks and engines are: latency, throughput, power',
    'profile': 'how long each layer takes, and what moves data only',
    'compare': 'two networks, engines or precisions on the same inputs; the accuracy gate',
    'search-precision': 'which nodes may be INT8 within an accuracy budget',
    'refit': 'new weights in an engine that was built for that, checked',
    'doctor': 'what went wrong, by its log, and what is wrong with this machine',
    'triton': 'a model repository for the Triton inference server',
    'checklist': 'what is done and proven before engines go on a vehicle',
}
"""{verb: what it does}, in the order of the road from checkpoint to vehicle. The module has the
name of the verb, with `_` for `-`."""
