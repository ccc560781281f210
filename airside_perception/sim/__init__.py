"""A simulated world: scenes of an apron or a street, and the sensors that see them.

A lidar scan in five lines; `caster` may be any ray-caster over the scene's triangles:

    scene = apron(seed).at(0.5)                       # or street(seed)
    spec, directions = PRESETS['roof64'], rays(PRESETS['roof64'])
    hits = Hits(*caster.cast(lidar2base[:3, 3], directions @ lidar2base[:3, :3].T))
    scan = finish(spec, scene, lidar2base, directions, hits, np.random.default_rng(seed))
    boxes, visible = scene.objects.boxes, scan.counts(len(scene.objects))
"""
