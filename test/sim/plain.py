"""The specification of a picture's shading: plain NumPy, three colours a pixel, every pixel.

What the simulator does in rows of four, for pixels that need it, over bands that move.
"""

from __future__ import annotations

import cv2
import numpy as np

from airside_perception.sim import film, weather
from airside_perception.sim.camera import _flow
from airside_perception.sim.lamplight import CELL, LIT
from airside_perception.sim.lidar import GROUND, Hits, with_ground
from airside_perception.sim.lighting import albedo
from airside_perception.sim.pixels import SMALLEST, first_hits, shadowed
from airside_perception.sim.shade import GRAIN, TEXTURE, _texture

TAPS = 5


def picture(lens, scene, caster, lighting, rng, rays, sticky):
    """The image uint8 [H, W, 3] that `camera.take` makes."""
    sky, shape = lighting.conditions, (lens.model.height, lens.model.width)
    hits = first_hits(scene, caster, lens.camera2base[:3, 3], rays, shape)
    colour = surfaces(scene, caster, lighting, lens.camera2base[:3, 3], rays, hits, shape)
    light = hazy(colour, hits.distance, rays, lighting.light).reshape(*shape, 3)
    light = np.ascontiguousarray(light, np.float32)
    ground = (hits.triangle == GROUND).reshape(shape)
    weather.glare(light, ground, lens.model, lens.camera2base, scene, caster, sky)
    exposure = film.metered(light)
    light = smeared(light, _flow(lens, scene, rays, hits), exposure.shutter)
    if sky.rain:
        speed = lens.camera2base[:2, [0, 2]].T @ np.array([scene.twist[0], 0.0])
        focal = float(lens.model.matrix[0, 0])
        light = streaks(light, focal, sky.rain, exposure.shutter, speed, rng)
    noise = lens.noise * float(np.sqrt(exposure.amplified))
    image = developed(light, exposure.gain * lens.exposure, noise, rng)
    if sky.rain:
        weather.drops(image, sky.rain, sticky)
    return image


def surfaces(scene, caster, lighting, origin, rays, hits, shape):
    """Linear colours [H * W, 3], the sky's 0."""
    light, lamps, count = lighting.light, lighting.lamps, len(scene.triangles)
    sky, ground = hits.triangle == -1, hits.triangle == GROUND
    row = np.where(hits.triangle >= 0, hits.triangle, count)
    reach = np.where(sky, 0, hits.distance * np.float32(0.9995))
    points = (rays * reach[:, None] + origin.astype(np.float32)).astype(np.float32)
    lifted = points + np.array([0, 0, 0.01], np.float32)
    dark = np.zeros(len(rays), bool)
    if light.shadows:
        towards = light.direction(scene.base2world).astype(np.float32)
        asked = (hits.distance < 200) & ~sky & lighting.facing[row]
        dark = shadowed(caster, lifted.__getitem__, lambda _: towards, asked, hits, shape)
    colour = lighting.table[row + dark * (count + 1), :3]
    own = albedo(scene, lighting.conditions.wetness)
    if lamps:
        glow = at(lamps.pools, lifted)
        if min(shape) >= SMALLEST:  # of the pixel above or left of it
            y, x = np.mgrid[: shape[0], : shape[1]]
            glow = glow[(y // 2 * 2 * shape[1] + x // 2 * 2).ravel()]
        asked = (hits.distance < 45) & (glow[:, 1] > 3e-3)

        def towards_lamp(places):
            return at(lamps.nearest, places, cv2.INTER_NEAREST) - places

        hidden = shadowed(caster, lifted.__getitem__, towards_lamp, asked, hits, shape, 0.96)
        colour = colour + glow * (lamps.turned[row] * (1 - 0.7 * hidden))[:, None] * own[row]
    rough = ground & (hits.distance < 60)
    gain = np.where(rough, grain(scene, points, np.minimum(hits.distance, 1e4)), 1)
    colour = colour * gain[:, None]
    if lighting.conditions.wetness > 0.15:
        colour = wet(scene, caster, lighting, own, points, rays, hits, shape, colour)
    colour[sky] = 0
    return colour


def at(table, points, how=cv2.INTER_LINEAR):
    """Values [R, 3] of a map of lamp light at points [R, 3]."""
    place = (points[:, :2] + np.float32(LIT)) * np.float32(1 / CELL) - np.float32(0.5)
    found = [np.empty((0, 3), np.float32)]
    for first in range(0, len(place), 30_000):  # cv2 counts rows and columns in 16 bits
        x, y = np.ascontiguousarray(place[first : first + 30_000].T[:, None])
        found.append(cv2.remap(table, x, y, how, borderMode=cv2.BORDER_CONSTANT)[0, :, :3])
    return np.concatenate(found)


def world(scene, points):
    """World x and y [R] of points in base_link."""
    pose = scene.base2world[:2].astype(np.float32)
    return (points @ pose[:, :3].T + pose[:, 3]).T


def grain(scene, points, distance):
    """Gain [R] of the ground."""
    x, y = world(scene, points)
    layers = []
    for size in (GRAIN, 23 * GRAIN):
        u, v = ((c * np.float32(1 / size)).astype(np.int32) & (TEXTURE - 1) for c in (x, y))
        layers.append(_texture()[u * TEXTURE + v])
    return 1 + 0.22 * np.exp(-distance / 12) * layers[0] + 0.07 * layers[1]


def wet(scene, caster, lighting, own, points, rays, hits, shape, colour):
    """`colour` with what wet ground mirrors, from every fourth pixel."""
    step = 4 if min(shape) >= SMALLEST else 1
    wet = ((hits.triangle == GROUND) & (hits.distance < 60)).reshape(shape)
    some = np.zeros(shape, bool)
    some[::step, ::step] = wet[::step, ::step]
    some = some.ravel()
    up = scene.up
    facing = -(rays[some] @ up)
    way = rays[some] + 2 * facing[:, None] * up
    start = points[some] + np.array([0, 0, 0.02], np.float32)
    met = with_ground(Hits(*caster.cast(start, way)), start, way, scene.slope, 500.0)
    seen, triangle = met.triangle >= 0, met.triangle[met.triangle >= 0]
    found = sky(way[:, 2:], lighting.light)
    found[seen] = lighting.table[triangle, :3]
    if lighting.lamps:
        glow = at(lighting.lamps.pools, points[some][seen] + way[seen] * met.distance[seen, None])
        found[seen] += glow * lighting.lamps.turned[triangle, None] * own[triangle]
    x, y = world(scene, points[some])
    wave = np.sin(x * 0.9 + np.sin(y * 0.43) * 2) + np.sin(y * 0.71 + np.sin(x * 0.29) * 2)
    share = 0.03 + 0.97 * (1 - np.clip(facing, 0, 1)) ** 5
    share = share * 0.75 * lighting.conditions.wetness * np.clip(0.65 + 0.3 * wave, 0.35, 1)
    image = np.zeros((*shape, 4), np.float32)
    image.reshape(-1, 4)[some] = np.column_stack([found * share[:, None], share])
    soft = cv2.GaussianBlur(
        np.ascontiguousarray(image[::step, ::step]), (0, 0), sigmaX=1.6 / step, sigmaY=6 / step
    )
    image = cv2.resize(soft, shape[::-1]) * wet[..., None]
    image = image.reshape(-1, 4)
    return colour * (1 - image[:, 3:]) + image[:, :3]


def sky(up, light):
    """Colours [R, 3] of the sky in directions of z `up` [R, 1]."""
    horizon, zenith = np.array(light.horizon), np.array(light.zenith)
    bright = light.above or min(1.0, light.sky + 0.6 * light.sun)
    return (horizon + (zenith - horizon) * np.clip(up * 2.5, 0, 1)) * bright


def hazy(colour, distance, rays, light):
    """The sky behind, the haze in front."""
    clear = np.exp(-distance / light.visibility)[:, None]
    haze = sky(np.zeros((1, 1)), light)
    return np.where(np.isinf(distance)[:, None], sky(rays[:, 2:], light),
                    haze + (colour - haze) * clear)  # fmt: skip


def smeared(light, flow, shutter):
    """Blurred along the motion by the mean of samples."""
    height, width = light.shape[:2]
    way = flow * np.float32(shutter)
    length = np.linalg.norm(way, axis=2)
    if np.percentile(length, 99) < film.BLUR:
        return light
    way = way * np.minimum(1, film.SMEAR / np.maximum(length, 1e-6))[..., None]
    way = cv2.resize(cv2.blur(way.astype(np.float32), (3, 3)), (width, height))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    samples = [
        cv2.remap(
            light, x + way[..., 0] * np.float32(s), y + way[..., 1] * np.float32(s),
            cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
        )
        for s in np.linspace(-0.5, 0.5, TAPS)
    ]  # fmt: skip
    return np.mean(samples, axis=0, dtype=np.float32)


def streaks(light, focal, rate, shutter, speed, rng):
    """A veil of the sky's colour along the way of falling drops."""
    height, width = light.shape[:2]
    count = int(min(2200, 22 * rate**0.8 * (height * width) / (384 * 640)))
    depth = rng.uniform(0.5, 1.0, count) ** 2 * 9.0 + 0.8
    start = rng.uniform(-0.05, 1.05, (count, 2)) * [width, height]
    spread = (start - [width / 2, height / 2]) / depth[:, None] * speed[1]
    fall = focal * weather.FALL / depth
    motion = np.column_stack([-focal * speed[0] / depth + 0.06 * fall, fall]) + spread
    end = start + motion * max(shutter, 0.004)
    veil = np.zeros((height, width), np.float32)
    for (x0, y0), (x1, y1), away in zip(start, end, depth, strict=True):
        ends = (int(x0 * 8), int(y0 * 8)), (int(x1 * 8), int(y1 * 8))
        cv2.line(veil, *ends, min(0.8, 0.8 / away), 2 if away < 1.8 else 1, cv2.LINE_8, 3)
    veil = 0.6 * cv2.GaussianBlur(veil, (3, 3), 0.7)[..., None]
    sky = np.percentile(light[::8, ::8].reshape(-1, 3), 80, axis=0)
    return (light + veil * (sky - light)).astype(np.float32)


def developed(light, gain, noise, rng):
    """Gamma of 2, lens blur, noise, 8 bits."""
    levels = cv2.GaussianBlur(np.sqrt(np.clip(light, 0, 1 / gain)), (3, 3), 0.55)
    start = int(rng.integers(film.NOISE))
    stored = np.take(film._noise(), np.arange(start, start + light.size), mode='wrap')
    levels = levels * (255 * np.sqrt(gain)) + stored.reshape(light.shape) * noise
    return np.clip(levels + 0.5, 0, 255).astype(np.uint8)
