"""Many simulated scans in one picture, with their boxes: for looking, which no statistic replaces."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from xray_vqa.simulation.simulate import SimulatedScan

GAP = 4
BOX_COLOUR = (214, 30, 30)
TEXT_COLOUR = (90, 90, 90)


def contact_sheet(scans: Sequence[SimulatedScan], columns: int = 4) -> Image.Image:
    """Return the scans side by side, all of one size, each with its boxes, look, bag and factors."""
    height, width = scans[0].image.shape[:2]
    rows = -(-len(scans) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP), rows * (height + GAP)), (60, 60, 60))
    for index, scan in enumerate(scans):
        tile = Image.fromarray(scan.image)
        draw = ImageDraw.Draw(tile)
        spec = scan.spec
        told = f"{scan.profile_name}  {spec.bag.label}  clutter {spec.clutter_level}  hidden {spec.concealment}"
        draw.text((4, height - 14), told, fill=TEXT_COLOUR)
        for annotation, visible in zip(scan.annotations, scan.visible, strict=True):
            left, top, right, bottom = annotation.box.as_xyxy()
            draw.rectangle((left - 2, top - 2, right + 1, bottom + 1), outline=BOX_COLOUR)
            draw.text((left, max(0, top - 13)), f"{annotation.category} {visible:.0%}", fill=BOX_COLOUR)
        sheet.paste(tile, ((index % columns) * (width + GAP), (index // columns) * (height + GAP)))
    return sheet
