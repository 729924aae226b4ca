"""Draw the README's figure: frames of the rendered corpus above the sound around them, in columns by label.

    python -m docs.labels_figure            # after `make repro`; writes docs/labels.png

It shows the three moments nearest to the centroid of the eight most frequent labels. A cochleagram has 32 channels,
low at the bottom, over 3.75 s.
"""

import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from earshot.explanation.tables import read_table

EXHIBIT = Path("data/explain/clusters")
COLUMNS, ROWS = 8, 3
FRAME, SOUND = (150, 112), (150, 44)  # px of a frame and of the cochleagram below it
GAP, TITLE = 6, 22  # px between moments, and above them


def main() -> None:
    """Read the exhibit of the run in this folder and write the figure."""
    clusters = sorted(read_table(EXHIBIT, "clusters"), key=lambda row: -row["moments"])[:COLUMNS]
    columns = {row["cluster"]: column for column, row in enumerate(clusters)}
    width, height = FRAME[0] + GAP, FRAME[1] + SOUND[1] + 2 * GAP  # of a moment
    sheet = Image.new("RGB", (COLUMNS * width + GAP, ROWS * height + TITLE), "white")
    pen = ImageDraw.Draw(sheet)
    for row in read_table(EXHIBIT, "cluster_moments"):
        if row["cluster"] in columns and row["rank"] <= ROWS:
            left, top = GAP + columns[row["cluster"]] * width, TITLE + (row["rank"] - 1) * height
            pen.text((left, GAP), f"label {columns[row['cluster']] + 1}", fill="black")
            sheet.paste(ImageOps.fit(_image(row["frame"]), FRAME), (left, top))
            cochleagram = _image(row["cochleagram"]).resize(SOUND, Image.Resampling.BOX)
            sheet.paste(cochleagram, (left, top + FRAME[1] + GAP // 2))
    sheet.quantize(128).save("docs/labels.png", optimize=True)


def _image(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


if __name__ == "__main__":
    main()
