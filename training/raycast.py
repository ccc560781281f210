"""Casts the beams of many spinning lidars against their scenes at once.

All beams of one scan start at the sensor, which is the origin of its triangles. That makes the
test of Moeller and Trumbore ("Fast, minimum storage ray/triangle intersection", 1997) three dot
products of the beam with vectors that belong to the triangle alone. Triangles are listed by
azimuth sector, so that a beam meets only those that lie in its direction. One Triton program takes
128 beams of one sector; without CUDA the same lists run through torch, the kernel's specification.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # torch for CPUs comes without it
    triton = None

SECTORS = 180
BLOCK = 128
FAR = 1.0e9
EDGE = 1.0e-6
"""Slack of the barycentric test: no beam slips between two triangles that share an edge."""


@dataclass(frozen=True)
class Beams:
    """Unit directions of the beams of S scans, sorted by (scan, sector).

    Attributes:
        directions: float32 [R, 3] in the frame of the sensor.
        scan: int64 [R], 0..S-1, ascending.
        azimuth, row: int64 [R], firing and ring of every beam.
        starts: int64 [S * SECTORS + 1], first beam of every (scan, sector).
    """

    directions: Tensor
    scan: Tensor
    azimuth: Tensor
    row: Tensor
    starts: Tensor


def spin(elevations: Tensor, rings: Tensor, firings: Tensor, offsets: Tensor) -> Beams:
    """Beams of one revolution of every scan.

    Args:
        elevations: float [S, most rings] in radians; beyond a scan's number of rings unused.
        rings: int64 [S], rings of every scan.
        firings: int64 [S], azimuth steps of the revolution.
        offsets: float [S], azimuth of the first firing in steps, 0..1.
    """
    device = elevations.device
    size = rings * firings
    scan = torch.repeat_interleave(torch.arange(len(size), device=device), size)
    place = torch.arange(len(scan), device=device) - (size.cumsum(0) - size)[scan]
    azimuth, row = place // rings[scan], place % rings[scan]
    turn = (azimuth + offsets[scan]) / firings[scan]
    angle, elevation = turn * (2 * math.pi), elevations[scan, row]
    flat = torch.cos(elevation)
    directions = torch.stack(
        [torch.cos(angle) * flat, torch.sin(angle) * flat, torch.sin(elevation)], dim=1
    )
    group = scan * SECTORS + (turn * SECTORS).long().clamp(max=SECTORS - 1)
    starts = _starts(torch.bincount(group, minlength=len(size) * SECTORS))
    return Beams(directions.float(), scan, azimuth, row, starts)


def cast(triangles: Tensor, scan: Tensor, beams: Beams, reach: float) -> tuple[Tensor, Tensor]:
    """First hit of every beam.

    Args:
        triangles: float32 [T, 3, 3], each in the frame of the sensor of its scan.
        scan: int64 [T], which scan a triangle belongs to.
        beams: of those scans.
        reach: longest distance that the sensors measure, metres.

    Returns:
        Distance float32 [R] in metres, inf where nothing is hit, and triangle int64 [R], -1 there.
    """
    near = triangles.square().sum(-1).sqrt().amin(-1)
    size = (triangles[:, 1:] - triangles[:, :1]).square().sum(-1).sqrt().amax(-1)
    keep = torch.nonzero(near - size < reach).flatten()
    groups = len(beams.starts) - 1
    entry, starts = _by_sector(triangles[keep], scan[keep], groups)
    forms = _forms(triangles[keep])[entry].contiguous()
    best = torch.full((len(beams.directions),), FAR, device=triangles.device)
    which = torch.full((len(beams.directions),), -1, dtype=torch.int32, device=triangles.device)
    if triangles.is_cuda:
        _cast_kernel(forms, starts, beams, best, which)
    else:
        _cast_reference(forms, starts, beams, best, which)
    hit = (which >= 0) & (best <= reach)
    index = keep[entry[which.clamp(min=0).long()]] if len(entry) else which.long()
    return torch.where(hit, best, math.inf), torch.where(hit, index, -1)


def _starts(size: Tensor) -> Tensor:
    return torch.cat([size.new_zeros(1), size.cumsum(0)])


def _forms(triangles: Tensor) -> Tensor:
    """Per triangle n, m, q, k, float32 [T, 10]: a = d.n, u = d.m / a, v = d.q / a, t = k / a."""
    corner = triangles[:, 0]
    first, second = triangles[:, 1] - corner, triangles[:, 2] - corner
    q = torch.linalg.cross(-corner, first)
    return torch.cat(
        [
            torch.linalg.cross(second, first),
            torch.linalg.cross(second, -corner),
            q,
            (second * q).sum(-1, keepdim=True),
        ],
        dim=1,
    )


def _by_sector(triangles: Tensor, scan: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Triangles of every (scan, sector): indices int64 [E] and starts int64 [groups + 1]."""
    angle = torch.atan2(triangles[..., 1], triangles[..., 0])
    delta = torch.remainder(angle[:, 1:] - angle[:, :1] + math.pi, 2 * math.pi) - math.pi
    low, high = delta.amin(1).clamp(max=0), delta.amax(1).clamp(min=0)
    # Seen from the sensor a triangle spans less than a half turn, unless it is above or below it.
    around = high - low > math.pi - 1e-4
    width = 2 * math.pi / SECTORS
    first = torch.floor((angle[:, 0] + low - 1e-5) / width).long()
    last = torch.floor((angle[:, 0] + high + 1e-5) / width).long()
    count = torch.where(around, SECTORS, (last - first + 1).clamp(max=SECTORS))
    entry = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    step = torch.arange(len(entry), device=count.device) - (count.cumsum(0) - count)[entry]
    group = scan[entry] * SECTORS + torch.remainder(first[entry] + step, SECTORS)
    group, order = torch.sort(group, stable=True)
    return entry[order], _starts(torch.bincount(group, minlength=groups))


def _cast_reference(
    forms: Tensor, starts: Tensor, beams: Beams, best: Tensor, which: Tensor
) -> None:
    """What the kernel does, group by group."""
    ray_starts, entry_starts = beams.starts.tolist(), starts.tolist()
    for group in range(len(entry_starts) - 1):
        rays = slice(ray_starts[group], ray_starts[group + 1])
        low, high = entry_starts[group], entry_starts[group + 1]
        if rays.start == rays.stop or low == high:
            continue
        part, d = forms[low:high], beams.directions[rays]
        inverse = 1.0 / (d @ part[:, 0:3].T)
        u, v = (d @ part[:, 3:6].T) * inverse, (d @ part[:, 6:9].T) * inverse
        t = part[:, 9] * inverse
        inside = (u >= -EDGE) & (v >= -EDGE) & (u + v <= 1 + EDGE) & (t > 0)
        nearest, index = torch.where(inside, t, FAR).min(dim=1)
        best[rays] = nearest
        which[rays] = torch.where(nearest < FAR, index + low, -1).int()


def _cast_kernel(forms: Tensor, starts: Tensor, beams: Beams, best: Tensor, which: Tensor) -> None:
    size = beams.starts[1:] - beams.starts[:-1]
    blocks = (size + BLOCK - 1) // BLOCK
    group = torch.repeat_interleave(torch.arange(len(size), device=size.device), blocks)
    offset = torch.arange(len(group), device=size.device) - (blocks.cumsum(0) - blocks)[group]
    first = beams.starts[group] + offset * BLOCK
    table = (
        torch.stack([first, beams.starts[group + 1], starts[group], starts[group + 1]], 1)
        .int()
        .contiguous()
    )
    _first_hit[(len(group),)](
        forms, table, beams.directions.contiguous(), best, which, EDGE, FAR, BLOCK
    )


if triton is not None:

    @triton.jit
    def _first_hit(forms, table, directions, best, which, edge, far, block: tl.constexpr) -> None:  # type: ignore[no-untyped-def]  # Triton reads its own types
        program = tl.program_id(0)
        first = tl.load(table + program * 4)
        last = tl.load(table + program * 4 + 1)
        low = tl.load(table + program * 4 + 2)
        high = tl.load(table + program * 4 + 3)
        ray = first + tl.arange(0, block)
        mask = ray < last
        dx = tl.load(directions + ray * 3, mask=mask, other=0.0)
        dy = tl.load(directions + ray * 3 + 1, mask=mask, other=0.0)
        dz = tl.load(directions + ray * 3 + 2, mask=mask, other=0.0)
        nearest = tl.full((block,), far, tl.float32)
        index = tl.full((block,), -1, tl.int32)
        for entry in range(low, high):
            form = forms + entry * 10
            a = dx * tl.load(form) + dy * tl.load(form + 1) + dz * tl.load(form + 2)
            u = dx * tl.load(form + 3) + dy * tl.load(form + 4) + dz * tl.load(form + 5)
            v = dx * tl.load(form + 6) + dy * tl.load(form + 7) + dz * tl.load(form + 8)
            inverse = 1.0 / a
            u = u * inverse
            v = v * inverse
            t = tl.load(form + 9) * inverse
            closer = (
                (u >= -edge) & (v >= -edge) & (u + v <= 1.0 + edge) & (t > 0.0) & (t < nearest)
            )
            nearest = tl.where(closer, t, nearest)
            index = tl.where(closer, entry, index)
        tl.store(best + ray, nearest, mask=mask)
        tl.store(which + ray, index, mask=mask)
