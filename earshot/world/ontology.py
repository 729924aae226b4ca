"""The kinds of the sample world as a hierarchy, in the format of AudioSet's ontology.json."""

import json
from pathlib import Path

from earshot.core.files import write_atomically
from earshot.world.sources import KINDS

# Classes with their descriptions and children. The leaves are KINDS, at two depths, so that distances differ.
HIERARCHY = {
    "natural sounds": ("What sounds without anybody's doing.", ("water", "flames and leaves")),
    "living things": ("Animals and people.", ("bird", "crowd")),
    "things": ("What people have made.", ("machines", "bell")),
    "water": ("Water that falls or breaks.", ("surf", "rain")),
    "flames and leaves": ("Many small noises of dry matter.", ("fire", "grass")),
    "machines": ("Things that run by themselves.", ("car", "gears", "rotor")),
}


def class_id(name: str) -> str:
    """The id of a class, such as /earshot/flames_and_leaves."""
    return f"/earshot/{name.replace(' ', '_')}"


def write_ontology(folder: Path) -> None:
    """Write ontology.json: every class with its id, its name and the ids of its children."""
    entries = [_entry(name, *described) for name, described in HIERARCHY.items()]
    entries += [_entry(kind, f"A kind of the sample world: {kind}.", ()) for kind in KINDS]
    with write_atomically(folder / "ontology.json") as temporary:
        temporary.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def _entry(name: str, description: str, children: tuple[str, ...]) -> dict[str, object]:
    return {
        "id": class_id(name),
        "name": name,
        "description": description,
        "citation_uri": "",
        "positive_examples": [],
        "child_ids": [class_id(child) for child in children],
        "restrictions": ["abstract"] if children else [],
    }
