"""A simulated world: scenes of an apron or a street, and the sensors that see them.

A drive in a few lines; the same seeds give the same bytes:

    world = apron(seed)                               # or apron(seed, 'held_out'), street(seed)
    sky = conditions(seed)                            # or conditions(seed, 'night', 'rain')
    for frame in drive(world, load_rig(path), seconds=5.0, seed=seed, conditions=sky):
        frame.cloud, frame.images['front'], frame.objects, frame.sight.visibility
    write_drive(world, load_rig(path), 5.0, seed, folder, conditions=sky)      # as a bag
    for truth in read_truth(folder):                  # its ground truth, for an evaluation
        truth.stamp_ns, truth.objects, truth.labels

A lidar scan alone; `caster` may be any ray-caster over the scene's triangles:

    scene = apron(seed).at(0.5)                       # or street(seed)
    spec, directions = PRESETS['roof64'], rays(PRESETS['roof64'])
    hits = Hits(*caster.cast(lidar2base[:3, 3], directions @ lidar2base[:3, :3].T))
    scan = finish(spec, scene, lidar2base, directions, hits, np.random.default_rng(seed))
    boxes, visible = scene.objects.boxes, scan.counts(len(scene.objects))
"""
