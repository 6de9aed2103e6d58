"""Hard negatives: harmless things that have the outline, the filling or the company of a threat."""

# ruff: noqa: RUF005  (an array plus a tuple is addition)

from __future__ import annotations

import numpy as np

from xray_vqa.simulation.primitives import Builder, Texture, rotation_y, rotation_z, rounded_rectangle, smooth
from xray_vqa.simulation.shapes.parts import add_board, add_cable, add_cell, turned_2d, wandering_path
from xray_vqa.simulation.shapes.registry import benign


@benign("drill", weight=0.3, declared_as="household appliance", resembles=("Gun", "3D Gun"))
def drill(b: Builder) -> None:
    """A cordless drill: motor, gears, chuck, a grip and a battery for its foot."""
    k = b.between(0.85, 1.1)
    b.tube((0, 0, 0), "x", 3.0 * k, 7.5 * k, 0.3, "abs")
    b.cylinder((-3 * k, 0, 0), "x", 2.0 * k, 3.2 * k, "steel", density=0.35)
    b.cylinder((-3 * k, 0, 0), "x", 1.5 * k, 2.6 * k, "copper", density=0.2)
    b.cylinder((4 * k, 0, 0), "x", 1.8 * k, 2.0 * k, "steel", density=0.4)
    b.cone((9.4 * k, 0, 0), "x", 1.9 * k, 1.1 * k, 2.2 * k, "steel", density=0.5)
    grip = np.array([(-2, -2), (-5.5, -2), (-7, -12), (-3.4, -12)]) * k
    b.prism(grip, -1.7 * k, 1.7 * k, "abs", density=0.35, rounding=0.6)
    b.box((-2.6 * k, -4 * k, 0), (0.8, 1.3, 0.6), "steel", density=0.25)
    b.hollow_prism(rounded_rectangle(10 * k, 5 * k, 0.8) - (5 * k, 14 * k), -3 * k, 3 * k, 0.25, "abs")
    for x in (-8, -6, -4, -2):
        add_cell(b, "18650", (x * k, -14 * k, 0), axis="z")


@benign("glue gun", weight=0.25, resembles=("Gun", "3D Gun"))
def glue_gun(b: Builder) -> None:
    """A hot-glue gun with its stick, heater and cord."""
    k, plastic = b.between(0.8, 1.1), b.pick(("abs", "nylon"))
    body = [(-7, 0.2), (-7, 3), (6, 3), (7, 2.2), (7, 0.6), (0, 0), (-1.4, -1), (-3, -8), (-6.4, -8), (-5, -0.6)]
    b.prism(np.array(body) * k, -1.4 * k, 1.4 * k, plastic, density=0.4)
    b.cylinder((-4 * k, 1.7 * k, 0), "x", 0.55 * k, 7 * k, "polypropylene")
    b.cylinder((4.6 * k, 1.7 * k, 0), "x", 0.9 * k, 2.4 * k, "aluminium", density=0.8)
    b.cone((8.2 * k, 1.7 * k, 0), "x", 0.8 * k, 0.25 * k, 1.2 * k, "brass", density=0.5)
    b.prism(np.array([(-1, -0.4), (0.8, -0.2), (-0.4, -4.4), (-1.6, -4.2)]) * k, -0.6, 0.6, plastic)
    b.wire(np.array([(-2, -2), (-4, -7)]) * k, 0.13, "steel")
    add_cable(b, wandering_path(b, (-5 * k, -8 * k, 0), b.count(4, 7), heading=-1.6), 0.22)


@benign("water pistol", weight=0.25, declared_as="toys", resembles=("3D Gun", "Gun"))
def water_pistol(b: Builder) -> None:
    """A toy pistol of thin plastic, empty or part full."""
    k = b.between(0.7, 1.1)
    body = [
        (-7, 0.4),
        (-7.4, 3),
        (-6, 4),
        (6, 3.4),
        (8, 2.6),
        (8, 1.6),
        (2, 0.6),
        (1, -0.6),
        (-2.4, -1),
        (-4, -8),
        (-8, -7.6),
    ]
    outline = smooth(np.array(body) * k, 2, closed=True)
    b.prism(outline, -1.5 * k, 1.5 * k, "abs", density=0.25, rounding=0.8)
    if b.chance(0.6):
        tank = rounded_rectangle(9 * k, 1.8 * k, 0.6) + np.array([-1.5, 2.2]) * k
        b.prism(tank, -1.2 * k, 1.2 * k, "water", density=b.between(0.3, 1.0), rounding=0.5)
    b.wire(np.array([(-7, 2.4), (7.6, 2.2)]) * k, 0.25, "polypropylene")
    b.tube((-2 * k, 1.6 * k, 0), "x", 0.6 * k, 1.6 * k, 0.15, "polypropylene")
    b.wire(smooth(np.array([(1.4, 0.4), (1.6, -2), (-0.4, -2.8), (-2.8, -2.2)]) * k, 3), 0.35 * k, "abs")
    b.wire(np.array([(-0.2, -0.4), (-0.6, -2.2)]) * k, 0.3, "abs")


@benign("ruler", weight=0.35, declared_as="stationery", resembles=("Knife", "Blade"))
def ruler(b: Builder) -> None:
    """A ruler or a set square of steel, wood or plastic."""
    material, half = b.pick((("steel", 0.05), ("aluminium", 0.09), ("pet", 0.13), ("wood", 0.2)))
    length, width = b.between(15, 31), b.between(2.0, 3.4)
    if b.chance(0.75):
        b.prism(rounded_rectangle(length, width, 0.2), -half, half, material)
        b.cylinder((length / 2 - 0.8, 0, 0), "z", 0.25, half, material, density=-1)
    else:
        square = np.array([(0, 0), (length * 0.7, 0), (0, length * 0.5)])
        middle = square.mean(0)
        b.prism(square, -half, half, material)
        b.prism(middle + (square - middle) * 0.5, -half, half, material, density=-1)


@benign("spatula", weight=0.35, declared_as="kitchenware", resembles=("Knife",))
def spatula(b: Builder) -> None:
    """A turner, palette knife or cake slice: blunt all round."""
    length, width = b.between(8, 16), b.between(2, 8)
    material, half = b.pick((("stainless", 0.06), ("stainless", 0.09), ("nylon", 0.2)))
    outline = rounded_rectangle(length, width, width * 0.3) + (length / 2, 0)
    b.prism(outline, -half, half, material)
    if width > 5:
        for y in (-0.25, 0, 0.25):
            b.box((length / 2, y * width, 0), (length * 0.3, 0.25, half), material, density=-1)
    b.wire([(0, 0, 0), (-3, 0, 0.5), (-6, 0, 0.6)], 0.3, "stainless", density=0.8)
    b.prism(rounded_rectangle(b.between(9, 13), 1.9, 0.8) - (11, 0), -0.1, 1.3, b.pick(("wood", "nylon")), rounding=0.6)


@benign("bookmark", weight=0.25, resembles=("Blade", "Knife"))
def bookmark(b: Builder) -> None:
    """A flat metal bookmark or nail file with a tassel."""
    length, width = b.between(9, 16), b.between(0.9, 2.2)
    end = b.between(0.3, 1.0) * width
    outline = [
        (-length / 2, width / 2),
        (length / 2 - 1, end / 2),
        (length / 2, 0),
        (length / 2 - 1, -end / 2),
        (-length / 2, -width / 2),
    ]
    b.prism(outline, -0.05, 0.05, b.pick(("brass", "stainless", "steel")), density=b.between(0.4, 1.0))
    if b.chance(0.5):
        tail = wandering_path(b, (-length / 2, 0, 0), 3, step=1.2, heading=3.1)
        b.wire(tail[::2], 0.2, "cotton", density=1.5)
    else:
        b.prism(rounded_rectangle(5, width * 1.1, 0.3) - (length / 2, 0), -0.25, 0.25, "abs")


@benign("charging kit", weight=0.35, declared_as="charger", resembles=("Explosive", "Powerbank"))
def charging_kit(b: Builder) -> None:
    """A cell holder and a charger tied to a notepad by their own cable: cells, wires and a mass, all harmless."""
    b.prism(rounded_rectangle(b.between(9, 14), b.between(6, 9), 0.4), -0.8, 0.8, "paper", density=b.between(0.8, 1.2))
    for i in range(b.count(1, 3)):
        add_cell(b, "AA", (0, 1.6 * i - 1.6, 1.8))
    b.hollow_prism(rounded_rectangle(6, 5.4, 0.4), 1.0, 2.7, 0.12, "abs")
    add_board(b, (4.6, b.between(-1, 1), 1.4), 3, 3, b.count(6, 12))
    add_cable(b, wandering_path(b, (5, 0, 1.6), b.count(4, 7)), 0.16)


@benign("soap bar", weight=0.4, declared_as="toiletries", resembles=("Explosive",))
def soap_bar(b: Builder) -> None:
    """One to three bars of soap, boxed or bare."""
    for i in range(b.count(1, 3)):
        outline = rounded_rectangle(b.between(6.5, 9.5), b.between(4.5, 6), b.between(0.5, 2)) + (0, 6.6 * i)
        half = b.between(0.9, 1.7)
        b.prism(outline, -half, half, "soap", density=b.between(0.95, 1.2), rounding=0.7)
        if b.chance(0.4):
            b.hollow_prism(outline * (1.06, 1.0), -half - 0.15, half + 0.15, 0.06, "paper")


@benign("modelling clay", weight=0.3, declared_as="toys", resembles=("Explosive",))
def modelling_clay(b: Builder) -> None:
    """Sticks or a block of modelling clay in film."""
    grain = Texture(b.between(0.02, 0.08), 1, 0.8, b.count(0, 255))
    if b.chance(0.6):
        for i in range(b.count(4, 10)):
            b.cylinder(
                (b.between(-0.2, 0.2), 1.5 * i, 0), "x", 0.72, b.between(4, 5.5), "soap", density=1.5, texture=grain
            )
    else:
        block = rounded_rectangle(b.between(9, 15), b.between(5, 8), 0.5)
        b.prism(block, -1.6, 1.6, "soap", density=b.between(1.3, 1.6), rounding=0.4, texture=grain)


@benign("candles", weight=0.3, declared_as="gifts", resembles=("Explosive",))
def candles(b: Builder) -> None:
    """A bundle of candles with their wicks, or one thick one."""
    if b.chance(0.7):
        radius, half = b.between(0.9, 1.4), b.between(7, 12)
        for i in range(b.count(2, 6)):
            b.cylinder((0, 2.1 * radius * i, 0), "x", radius, half, "polyethylene", density=0.95)
            b.wire([(-half, 2.1 * radius * i, 0), (half + 1, 2.1 * radius * i, 0)], 0.1, "cotton", density=1.5)
    else:
        radius, half = b.between(2.8, 4), b.between(3.5, 7)
        b.cylinder((0, 0, 0), "x", radius, half, "polyethylene", density=0.95)
        b.tube((0, 0, 0), "x", radius + 0.3, half + 0.3, 0.25, "glass", density=b.pick((0.01, 1.0)))


@benign("lipsticks", weight=0.35, declared_as="cosmetics", resembles=("Bullet",))
def lipsticks(b: Builder) -> None:
    """A row of lipsticks or lip balms: metal sleeves with rounded contents."""
    metal = b.pick(("aluminium", "brass", "polypropylene"))
    for i in range(b.count(2, 6)):
        radius, half = b.between(0.75, 0.95), b.between(1.5, 2.2)
        y = 2.1 * i
        b.tube((b.between(-0.3, 0.3), y, 0), "x", radius, half, 0.06, metal, cap=0.06)
        b.cylinder((0, y, 0), "x", radius * 0.6, half, "soap", density=0.95)
        b.cone((half + 0.5, y, 0), "x", radius * 0.6, radius * 0.25, 0.5, "soap")


@benign("hex keys", weight=0.3, resembles=("Screwdriver", "Wrench"))
def hex_keys(b: Builder) -> None:
    """A set of hexagon keys, small to large."""
    growth = b.between(0.9, 1.4)
    for i in range(b.count(3, 7)):
        reach, gauge = 4.5 + growth * i, 0.1 + 0.05 * i
        b.wire(
            [(-reach / 2, 0.9 * i, 0), (reach / 2, 0.9 * i, 0), (reach / 2 + 0.2, 0.9 * i + 1.6, 0.3)], gauge, "steel"
        )


@benign("tyre lever", weight=0.2, resembles=("Wrench", "Screwdriver"))
def tyre_lever(b: Builder) -> None:
    """Two or three levers for bicycle tyres, steel or plastic."""
    material, density = b.pick((("steel", 0.8), ("nylon", 1.2), ("aluminium", 1.0)))
    for i in range(b.count(2, 3)):
        length = b.between(10, 13)
        outline = smooth(
            [
                (-length / 2, 0.5),
                (0, 0.8),
                (length / 2, 0.6),
                (length / 2 + 0.8, 0),
                (length / 2, -0.7),
                (-length / 2, -0.5),
            ],
            2,
        )
        b.prism(outline + (b.between(-0.5, 0.5), 2 * i), -0.25, 0.25, material, density)
        b.wire([(-length / 2, 2 * i, 0), (-length / 2 - 0.8, 2 * i, 0.5)], 0.35, material, density)


@benign("bottle opener", weight=0.25, resembles=("Wrench", "Handcuffs"))
def bottle_opener(b: Builder) -> None:
    """A flat bottle opener, its ring open like a jaw."""
    length, width = b.between(8, 13), b.between(2.8, 4.2)
    metal = b.pick(("stainless", "steel", "zinc"))
    b.prism(rounded_rectangle(length, width * 0.5, 0.4), -0.12, 0.12, metal)
    head = rounded_rectangle(width * 1.1, width, width * 0.3) + (length / 2 + width * 0.4, 0)
    b.prism(head, -0.12, 0.12, metal)
    b.prism(head * (1, 0.6), -0.12, 0.12, metal, density=-1)
    b.cylinder((-length * 0.42, 0, 0), "z", 0.3, 0.12, metal, density=-1)


@benign("bracelets", weight=0.3, declared_as="jewellery", resembles=("Handcuffs",))
def bracelets(b: Builder) -> None:
    """Two to four bangles, some linked, as wide as a wrist."""
    metal = b.pick(("brass", "steel", "nickel", "polypropylene"))
    for i in range(b.count(2, 4)):
        turn = rotation_z(b.between(0, 3)) @ rotation_y(b.between(-0.4, 0.4))
        centre = (b.between(-2.5, 2.5) + 4 * (i % 2), b.between(-2, 2), 0.3 * i)
        b.ring(centre, b.between(2.8, 3.4), b.between(0.12, 0.32), metal, density=b.between(0.4, 1.0),
               radius_2=b.between(2.6, 3.2), turn=turn, num_pieces=14)  # fmt: skip


@benign("hard disk", weight=0.35, declared_as="hard disk", resembles=("Powerbank",))
def hard_disk(b: Builder) -> None:
    """A portable hard disk: platter, motor and arm in a slim case."""
    b.hollow_prism(
        rounded_rectangle(b.between(11, 13), b.between(7.6, 8.6), 0.8), -0.8, 0.8, 0.12, b.pick(("abs", "aluminium"))
    )
    b.prism(rounded_rectangle(10, 7, 0.3), -0.45, 0.45, "aluminium", density=0.5)
    b.cylinder((1.2, 0, 0), "z", 3.2, 0.1, "glass")
    b.cylinder((1.2, 0, 0), "z", 1.1, 0.4, "steel", density=0.6)
    b.wire([(-3.6, -2.4, 0), (-0.4, 0.6, 0)], 0.3, "aluminium")
    b.box((-3.6, -2.4, 0), (1.1, 0.9, 0.35), "ferrite", density=0.7)
    add_board(b, (-2.5, 1.8, -0.4), 4, 3, b.count(8, 14))


@benign("e-reader", weight=0.3, large=True, declared_as="tablet computer", resembles=("Powerbank",))
def e_reader(b: Builder) -> None:
    """A reader of electronic books: a thin slab with one flat cell."""
    width, height = b.between(15, 18), b.between(11, 12.5)
    b.hollow_prism(rounded_rectangle(width, height, 0.8), -0.4, 0.4, 0.12, "abs")
    b.box((0.8, 0, 0.2), (width / 2 - 2, height / 2 - 0.8, 0.05), "glass")
    b.box((-1, -height * 0.12, -0.1), (width * 0.26, height * 0.24, 0.17), "lithium_cell")
    add_board(b, (width * 0.2, height * 0.28, -0.1), width * 0.5, height * 0.2, b.count(12, 20))


@benign("marker pens", weight=0.4, declared_as="stationery", resembles=("Injection",))
def marker_pens(b: Builder) -> None:
    """Two to six felt pens: a tube with a soaked core and a nib."""
    for i in range(b.count(2, 6)):
        radius, half, y = b.between(0.5, 0.8), b.between(5.5, 7), 1.7 * i
        x = b.between(-0.8, 0.8)
        b.tube((x, y, 0), "x", radius, half, 0.1, "polypropylene", cap=0.1)
        b.cylinder((x - half * 0.2, y, 0), "x", radius * 0.65, half * 0.7, b.pick(("ethanol", "water")), density=0.6)
        b.cone((x + half + 0.5, y, 0), "x", radius * 0.6, 0.15, 0.6, "nylon")


@benign("tweezers", weight=0.3, declared_as="toiletries", resembles=("Nail Cutter", "Scissors"))
def tweezers(b: Builder) -> None:
    """Tweezers or an eyelash curler."""
    k = b.between(0.85, 1.2)
    for side in (1, -1):
        arm = [(-4.5, 0.05), (-2, 0.35), (2, 0.75), (4.2, 0.55), (4.6, 0.25)]
        b.wire(smooth(np.array(arm) * (k, side * k), 3), 0.13, "stainless")
        if k > 1.05:  # the curler's finger loops and its curved jaw
            b.ring((-5.6 * k, side * 1.4 * k, 0), 1.1, 0.14, "stainless", num_pieces=10)
    if k > 1.05:
        b.wire([(5 * k, -1.6, 0), (5.6 * k, 0, 0), (5 * k, 1.6, 0)], 0.16, "stainless")
        b.cylinder((-1 * k, 0, 0), "z", 0.25, 0.3, "steel")


@benign("tent pegs", weight=0.25, declared_as="camping gear", resembles=("Other Sharp Item",))
def tent_pegs(b: Builder) -> None:
    """A handful of tent pegs, round with a hook or of angled sheet."""
    round_ones, metal = b.chance(0.6), b.pick(("steel", "aluminium"))
    for i in range(b.count(3, 8)):
        turn, y = b.between(-0.15, 0.15), 0.9 * i
        half = b.between(8, 10)
        path = turned_2d([(half, 0), (-half, 0), (-half - 0.3, 1.0), (-half + 0.9, 1.2)], turn) + (0, y)
        if round_ones:
            b.wire(path, b.between(0.16, 0.26), metal)
        else:
            b.prism(turned_2d([(half + 1, 0), (-half, 0.6), (-half, -0.6)], turn) + (0, y), -0.12, 0.12, metal)


@benign("perfume spray", weight=0.35, declared_as="cosmetics", resembles=("Lighter",))
def perfume_spray(b: Builder) -> None:
    """One or two pocket atomisers: a small vessel of spirit with a metal pump."""
    for i in range(b.count(1, 2)):
        half, radius, y = b.between(2.2, 3.4), b.between(0.7, 1.1), 3.0 * i
        b.tube((0, y, 0), "x", radius, half, 0.12, b.pick(("glass", "aluminium")), cap=0.15)
        b.cylinder((-half * 0.2, y, 0), "x", radius - 0.14, half * 0.7, "ethanol")
        b.tube((half + 0.7, y, 0), "x", radius * 0.8, 0.7, 0.1, "aluminium", cap=0.1)
        b.wire([(half + 0.5, y, 0), (-half * 0.8, y, 0)], 0.12, "polypropylene")
        b.cylinder((half + 0.3, y, 0), "x", 0.25, 0.3, "steel", density=0.7)


@benign("make-up pens", weight=0.35, declared_as="cosmetics", resembles=("Injection", "Lighter"))
def makeup_pens(b: Builder) -> None:
    """Mascara and eye-liner: a tube with a stem in it."""
    for i in range(b.count(1, 4)):
        half, radius, y = b.between(4.5, 6.5), b.between(0.45, 0.85), 2.0 * i
        b.tube((0, y, 0), "x", radius, half, 0.1, b.pick(("abs", "aluminium", "polypropylene")), cap=0.1)
        b.cylinder((half * 0.35, y, 0), "x", radius - 0.15, half * 0.6, "soap", density=0.7)
        b.wire([(-half * 0.6, y, 0), (half * 0.8, y, 0)], 0.14, b.pick(("nylon", "steel")))


@benign("shower head", weight=0.2, resembles=("Hammer",))
def shower_head(b: Builder) -> None:
    """A hand shower or a massage tool: a stem with a heavy head across it."""
    radius = b.between(2.6, 4.2)
    b.tube((0, 0, 0), "y", b.between(1.4, 2.2), radius, 0.25, b.pick(("abs", "zinc")), cap=0.3, density=0.8)
    b.cylinder((0, radius * 0.4, 0), "y", 1.2, 0.4, "rubber")
    b.tube((-9, 0, 0), "x", 1.2, 8, 0.22, "abs")
    b.tube((-16.4, 0, 0), "x", 1.15, 0.9, 0.3, "brass", density=0.7)


@benign("hair straightener", weight=0.25, declared_as="household appliance", resembles=("Pliers",))
def hair_straightener(b: Builder) -> None:
    """Two hinged arms with heated plates, and a cord."""
    opening = b.between(0.0, 0.2)
    for side in (1, -1):
        turn = rotation_z(side * opening)
        b.prism(rounded_rectangle(24, 1.8, 0.8) + (12, side * 1.2), -1.4, 1.4, "abs", density=0.35, turn=turn)
        b.box(turn @ (19, side * 0.5, 0), (4.5, 0.15, 1.1), "aluminium", turn=turn)
        b.box(turn @ (19, side * 0.8, 0), (4, 0.1, 0.8), "aluminium", density=1.4, turn=turn)
    add_board(b, (7, 1.3, 0), 6, 1.4, b.count(6, 12))
    b.cylinder((0.5, 0, 0), "z", 0.5, 1.6, "steel", density=0.6)
    add_cable(b, wandering_path(b, (-1, 0, 0), b.count(5, 8), heading=3.1), 0.22)
