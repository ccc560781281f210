"""Pictures made on the accelerator: what `airside_perception.sim.camera` draws, many at a time.

A picture's rays start at its camera, so the ray-caster of the lidars answers them. For shadows it
is asked again from a lamp far up the sun's direction. Lines stay lines under a linear map, so the
space around the lamp is stretched across its axis until the scene fills the ray-caster's sectors.
Colours are blue, green, red; base_link's origin lies on the ground below the camera.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from training.raycast import SECTORS, Beams, cast
from training.scans import World
from training.views import Views

REACH = 2000.0
GROUND = 1.0e4
"""A triangle larger than this, square metres, is the ground."""
LAMP, STRETCH = 600.0, 5.0
"""Distance of the lamp, metres, and how far the space around it is stretched."""
SHADOWS, ROUGH = 200.0, 60.0
"""Distances beyond which nothing has a shadow and the ground is smooth, metres."""
TEXTURE, GRAIN = 512, 0.04
NEAR = 0.3
"""Nearest distance at which a corner has a place in the picture, metres."""


@dataclass(frozen=True)
class Pictures:
    """V pictures and what is visible in them.

    Attributes:
        images: uint8 [V, 3, H, W].
        owner: int64 [V, H, W], row of the boxes below, -1: none.
        boxes: float32 [G, 4], x1, y1, x2, y2 around the visible pixels of each object.
        pixels: int64 [G], how many those are.
        share: float32 [G], area of that box over that of the whole object's, in the picture.
        label: int64 [G]; view: int64 [G].
    """

    images: Tensor
    owner: Tensor
    boxes: Tensor
    pixels: Tensor
    share: Tensor
    label: Tensor
    view: Tensor


def render(
    worlds: Sequence[World], views: Views, generator: torch.Generator, width: int, height: int
) -> Pictures:
    """One picture of every world."""
    device, count = views.yaw.device, len(worlds)
    of_triangle = _index([len(world.triangles) for world in worlds], device)
    of_box = _index([len(world.boxes) for world in worlds], device)
    first = np.cumsum([0] + [len(world.boxes) for world in worlds])[:-1]
    owner = torch.cat(
        [
            torch.where(w.owner >= 0, w.owner + int(n), -1)
            for w, n in zip(worlds, first, strict=True)
        ]
    ).long()
    material = torch.cat([world.material for world in worlds]).long()
    triangles = torch.cat([world.triangles for world in worlds])
    mount = torch.cat([views.spot, views.height[:, None]], 1)
    turn = _about_z(-views.yaw)
    triangles = (triangles - mount[of_triangle][:, None]) @ turn.transpose(1, 2)[of_triangle]
    normal, area = _normals(triangles)
    ground = area > GROUND
    flat = torch.cos(views.elevation)
    angle = views.azimuth - views.yaw
    sun = torch.stack(
        [flat * torch.cos(angle), flat * torch.sin(angle), torch.sin(views.elevation)], 1
    )

    rays = _rays(views, width, height)
    distance, which = _cast(triangles, of_triangle, rays, REACH)
    seen = which >= 0
    row = which.clamp(min=0)
    points = rays * torch.where(seen, distance, 0.0)[..., None]
    near = seen & (distance < SHADOWS)
    dark = _shadowed(triangles, of_triangle, ~ground, sun, points, near, views)

    drawn = torch.randn(len(of_box), 3, device=device, generator=generator)
    tint = torch.exp(drawn * views.paint[of_box][:, None])
    colour = views.colours[of_triangle, material]
    colour = torch.where(owner[:, None] >= 0, colour * tint[owner.clamp(min=0)], colour)
    plate = torch.randn(len(owner), 1, device=device, generator=generator)
    colour = colour * torch.exp(0.4 * plate * views.paint[of_triangle][:, None])
    facing = (normal * sun[of_triangle]).sum(1).clamp(min=0)
    base = colour * (views.sky[of_triangle] * (0.75 + 0.25 * normal[:, 2]))[:, None]
    lit = colour * (views.sun[of_triangle] * facing)[:, None]
    value = base[row] + lit[row] * (1 - dark)[..., None]
    rough = seen & ground[row] & (distance < ROUGH)
    grain = _grain(points, distance, views)
    value = value * torch.where(rough, grain, 1.0)[..., None]
    clear = torch.exp(-torch.where(seen, distance, 0.0) / views.visibility[:, None])
    sky, haze = _sky(rays, views), _sky(torch.zeros_like(rays[:, :1]), views)
    value = value * clear[..., None] + haze * (1 - clear[..., None])
    value = torch.where(seen[..., None], value, sky)
    images = _expose(value.view(count, height, width, 3).permute(0, 3, 1, 2), views, generator)

    who = torch.where(seen, owner[row], -1).view(count, height, width)
    boxes, pixels = _around(who, len(of_box))
    whole = _whole(triangles, owner, len(of_box), views, of_triangle, width, height)
    share = (_area(boxes) / _area(whole).clamp(min=1e-3)).clamp(max=1.0)
    labels = torch.cat([world.label for world in worlds])
    return Pictures(images, who, boxes, pixels, share, labels, of_box)


def _index(sizes: Sequence[int], device: torch.device) -> Tensor:
    counts = torch.tensor(sizes, device=device)
    return torch.repeat_interleave(torch.arange(len(sizes), device=device), counts)


def _about_z(angle: Tensor) -> Tensor:
    """Rotations [V, 3, 3] about z."""
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([c, -s, zero, s, c, zero, zero, zero, one], 1).view(-1, 3, 3)


def _tilt(views: Views) -> Tensor:
    """Rotations [V, 3, 3] of the camera's body: about y by pitch (down) after about x by roll."""
    roll, pitch = views.roll, views.pitch
    zero, one = torch.zeros_like(roll), torch.ones_like(roll)
    x = torch.stack(
        [one, zero, zero, zero, roll.cos(), -roll.sin(), zero, roll.sin(), roll.cos()], 1
    )
    y = torch.stack(
        [pitch.cos(), zero, pitch.sin(), zero, one, zero, -pitch.sin(), zero, pitch.cos()], 1
    )
    return y.view(-1, 3, 3) @ x.view(-1, 3, 3)


def _normals(triangles: Tensor) -> tuple[Tensor, Tensor]:
    """Unit normals [T, 3] and areas [T]."""
    across = torch.linalg.cross(
        triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    )
    length = across.norm(dim=1)
    return across / length.clamp(min=1e-12)[:, None], length / 2


def _rays(views: Views, width: int, height: int) -> Tensor:
    """Unit directions [V, H * W, 3] of the pixels, row by row, before the camera was turned."""
    device = views.yaw.device
    v, u = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing='ij'
    )
    place = torch.stack([u, v], 2).view(1, -1, 2).float()
    bent = (place - views.centre[:, None]) / views.focal[:, None, None]
    straight = bent
    for _ in range(6):  # the fixed point of bent = straight (1 + k1 r^2 + k2 r^4)
        square = straight.square().sum(2, keepdim=True).clamp(max=4.0)
        gain = 1 + views.k1[:, None, None] * square + views.k2[:, None, None] * square.square()
        straight = bent / gain.clamp(min=0.3)
    body = torch.stack(
        [torch.ones_like(straight[..., 0]), -straight[..., 0], -straight[..., 1]], 2
    )
    return nnf.normalize(body @ _tilt(views).transpose(1, 2), dim=2)


def _cast(triangles: Tensor, view: Tensor, rays: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """First hits of unit rays [V, R, 3] from the origin: distance and triangle, [V, R] each."""
    views, size = rays.shape[:2]
    angle = torch.atan2(rays[..., 1], rays[..., 0])
    sector = torch.remainder(torch.floor(angle * (SECTORS / (2 * math.pi))).int(), SECTORS)
    group = sector + SECTORS * torch.arange(views, device=rays.device, dtype=torch.int32)[:, None]
    group, order = torch.sort(group.flatten(), stable=True)
    counts = torch.bincount(group, minlength=views * SECTORS)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    unused = counts.new_empty(0)
    beams = Beams(rays.reshape(-1, 3)[order], unused, unused, unused, starts)
    distance, which = cast(triangles, view, beams, reach)
    back_distance, back_which = torch.empty_like(distance), torch.empty_like(which)
    back_distance[order], back_which[order] = distance, which
    return back_distance.view(views, size), back_which.view(views, size)


def _shadowed(
    triangles: Tensor,
    view: Tensor,
    solid: Tensor,
    sun: Tensor,
    points: Tensor,
    asked: Tensor,
    views: Views,
) -> Tensor:
    """1.0 where those of `points` [V, R, 3] that are `asked` for are in shadow, else 0.0."""
    asked = asked & (views.shadows > 0)[:, None]
    side = nnf.normalize(
        torch.stack([-sun[:, 1], sun[:, 0], torch.zeros_like(sun[:, 0])], 1), dim=1
    )
    axes = torch.stack([-sun, STRETCH * side, STRETCH * torch.linalg.cross(sun, side)], 1)
    lamp = LAMP * sun
    keep = torch.nonzero(solid & (views.shadows > 0)[view]).flatten()
    of_kept = view[keep]
    seen_by_lamp = (triangles[keep] - lamp[of_kept][:, None]) @ axes.transpose(1, 2)[of_kept]
    there = (points - lamp[:, None]) @ axes.transpose(1, 2)
    length = there.norm(dim=2)
    first, _ = _cast(seen_by_lamp, of_kept, there / length[..., None], 10 * LAMP)
    return (asked & (first < length * (1 - 1.5e-4))).float()


def _grain(points: Tensor, distance: Tensor, views: Views) -> Tensor:
    """Gain [V, R] of the ground's brightness at points, fixed to the world."""
    turn = _about_z(views.yaw)[:, :2, :2]
    world = points[..., :2] @ turn.transpose(1, 2) + views.spot[:, None]
    table = torch.as_tensor(_texture(), device=points.device)
    fine = (world / GRAIN).int() & (TEXTURE - 1)
    coarse = (world / (23 * GRAIN)).int() & (TEXTURE - 1)
    near = table[(fine[..., 0] * TEXTURE + fine[..., 1]).long()]
    far = table[(coarse[..., 0] * TEXTURE + coarse[..., 1]).long()]
    depth = 0.22 * torch.exp(-distance / 12)
    return 1 + views.grain[:, None] * (depth * near + 0.07 * far)


@lru_cache(maxsize=1)
def _texture() -> np.ndarray:
    """The simulator's noise [TEXTURE * TEXTURE] around 0."""
    return np.random.default_rng(7).uniform(-1, 1, TEXTURE * TEXTURE).astype(np.float32)


def _sky(rays: Tensor, views: Views) -> Tensor:
    """The sky in directions [V, R, 3]."""
    height = (rays[..., 2:] * 2.5).clamp(0, 1)
    horizon = torch.tensor([0.92, 0.88, 0.84], device=rays.device)
    zenith = torch.tensor([0.85, 0.62, 0.42], device=rays.device)
    bright = (views.sky + 0.6 * views.sun).clamp(max=1.0)[:, None, None]
    plane = rays[..., :2] / (rays[..., 2:].abs() + 0.15)
    phase = views.azimuth[:, None]
    waves = torch.sin(1.7 * plane[..., 0] + phase) * torch.sin(
        2.3 * plane[..., 1] + 2 * phase
    ) + 0.5 * torch.sin(5.1 * plane[..., 0] + 3.7 * plane[..., 1] + 3 * phase)
    clouds = 1 + views.clouds[:, None] * waves * height[..., 0]
    return (horizon + (zenith - horizon) * height) * bright * clouds[..., None]


def _expose(picture: Tensor, views: Views, generator: torch.Generator) -> Tensor:
    """Gain, gamma of 2, lens blur, sensor noise and 8 bits of pictures [V, 3, H, W]."""
    count, _, height, width = picture.shape
    gain = views.exposure[:, None] * views.cast
    levels = torch.sqrt((picture * gain[:, :, None, None]).clamp(0, 1))
    offset = torch.arange(-2, 3, device=picture.device)
    taps = torch.exp(-0.5 * (offset / views.blur.clamp(min=0.2)[:, None]).square())
    taps = (taps / taps.sum(1, keepdim=True)).repeat_interleave(3, 0)
    flat = nnf.pad(levels.reshape(1, count * 3, height, width), (2, 2, 2, 2), mode='reflect')
    flat = nnf.conv2d(flat, taps[:, None, :, None], groups=count * 3)
    flat = nnf.conv2d(flat, taps[:, None, None, :], groups=count * 3)
    levels = 255 * flat.view(count, 3, height, width)
    noise = torch.randn(levels.shape, device=levels.device, generator=generator)
    levels = levels + noise * views.noise[:, None, None, None] + 0.5
    return levels.clamp(0, 255).to(torch.uint8)


def _around(owner: Tensor, objects: int) -> tuple[Tensor, Tensor]:
    """Boxes [G, 4] around the pixels of every object, and their number; 0 where there are none."""
    view, v, u = torch.nonzero(owner >= 0, as_tuple=True)
    who = owner[view, v, u]
    low = torch.full((objects, 2), 1 << 20, device=owner.device)
    high = torch.zeros((objects, 2), dtype=torch.long, device=owner.device)
    place = torch.stack([u, v], 1)
    index = who[:, None].expand(-1, 2)
    low.scatter_reduce_(0, index, place, 'amin')
    high.scatter_reduce_(0, index, place + 1, 'amax')
    pixels = torch.bincount(who, minlength=objects)
    boxes = torch.cat([low, high], 1).float()
    return torch.where((pixels > 0)[:, None], boxes, 0.0), pixels


def _whole(
    triangles: Tensor,
    owner: Tensor,
    objects: int,
    views: Views,
    view: Tensor,
    width: int,
    height: int,
) -> Tensor:
    """Boxes [G, 4] that the objects would have with nothing in front of them, within the picture.

    Corners behind the camera are left out, so an object that it stands beside seems smaller.
    """
    mine = torch.nonzero(owner >= 0).flatten()
    of = view[mine]
    body = triangles[mine] @ _tilt(views)[of]
    depth = body[..., 0]
    straight = -body[..., 1:] / depth.clamp(min=NEAR)[..., None]
    square = straight.square().sum(2, keepdim=True).clamp(max=2.0)
    k1, k2 = views.k1[of][:, None, None], views.k2[of][:, None, None]
    bent = straight * (1 + k1 * square + k2 * square.square())
    place = bent * views.focal[of][:, None, None] + views.centre[of][:, None] + 0.5
    limit = torch.tensor([width, height], device=place.device, dtype=place.dtype)
    place = torch.minimum(place.clamp(min=0), limit)
    place = place[depth > NEAR]
    index = owner[mine][:, None].expand(-1, 3)[depth > NEAR][:, None].expand(-1, 2)
    low = torch.full((objects, 2), 1e6, device=place.device)
    high = torch.full((objects, 2), -1e6, device=place.device)
    low.scatter_reduce_(0, index, place, 'amin')
    high.scatter_reduce_(0, index, place, 'amax')
    return torch.cat([low, high], 1)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
