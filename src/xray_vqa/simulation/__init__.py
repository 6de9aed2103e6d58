"""Dual-energy X-ray baggage simulator: scenes with exact boxes and masks, looks of several scanners.

    from xray_vqa.simulation.simulate import ScanStream, sample_scene, simulate spec = sample_scene(seed=7)
    # what lies in the bag, plain data scan = simulate(spec, "sixray-white-like")       # picture, boxes, masks,
    factors for scan in ScanStream(seed=(0, worker)): ...    # endless and fast, for training

materials, detector: physics tables. primitives, shapes/: objects. scene: what lies where. view, raster: chord lengths.
    sensor, palette,
profile: from line integrals to colours. simulate: the front door. writer: scans on disk. bake: makes the tables, by
    hand.
Nothing is imported here: numba takes a second to load.
"""
