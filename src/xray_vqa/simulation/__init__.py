"""Dual-energy X-ray baggage simulator: scenes with exact boxes and masks, looks of several scanners.

    spec = sample_scene(seed=7)                        # packing: what lies in the bag, plain data
    scan = simulate(spec, "sixray-white-like")         # simulate: picture, boxes, masks, factors
    for scan in ScanStream(seed=(0, worker)): ...      # simulate: endless and fast, for training

From the bag to the picture: shapes/ and primitives (objects), packing and scene (what lies where), view and raster
(lengths along the rays), materials and detector (physics tables, made by bake; spectrum is what they stand for),
sensor, palette and profile (from line integrals to colours). writer puts scans on disk. Nothing is imported here: numba
takes a second to load.
"""
