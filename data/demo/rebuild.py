"""Rebuild the demo data from three Debian packages.

The result is shipped, so nobody needs this script to run the demo. It is here so that anyone can
check where each file comes from and make it again. It needs Pillow and pyarrow, plus the packages
`tuxpaint-stamps-default`, `openclipart-png` and `openclipart-svg`:

    apt-get download tuxpaint-stamps-default openclipart-png openclipart-svg
    python rebuild.py --debs .

The same packages and the same library versions give the same bytes on each run.
"""

import argparse
import re
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

HERE = Path(__file__).resolve().parent
STAMPS = "usr/share/tuxpaint/stamps"
CLIPART_PNG = "usr/share/openclipart/png"
CLIPART_SVG = "usr/share/openclipart/svg"
LEGAL_FILES = (
    "queries/LICENSE-GPL-2.0.txt",
    "queries/NOTICE.md",
    "memory/LICENSE.md",
)

DEMO_SERVER = "http://127.0.0.1:8711/"  # `xmore demo` and `xmore up` serve memory/ there
SHORT_SIDE = 224
QUALITY = 85
# The largest source image has 10562 x 16000 pixels: above the size at which Pillow warns of a
# decompression bomb. The packages are trusted, so this script, and only it, allows that much.
MAX_PIXELS = 170_000_000
MAX_RDF_BYTES = 1 << 20

# Stamp folder -> class. Only a folder's own images count, never those of its sub-folders: these
# hold the cartoons, toys and plastic flowers.
CLASSES = {
    "animals/birds": "bird",
    "animals/fish": "fish",
    "animals/insects": "insect",
    "animals/mammals/apes": "ape",
    "animals/mammals/aquatic": "marine mammal",
    "animals/mammals/bears": "bear",
    "animals/mammals/bovines": "cow",
    "animals/mammals/cats": "cat",
    "animals/mammals/deer": "deer",
    "animals/mammals/dogs": "dog",
    "animals/mammals/equines": "horse",
    "animals/mammals/rodents": "rodent",
    "clothes": "clothing",
    "clothes/hats": "hat",
    "food/fruit": "fruit",
    "food/nuts": "nut",
    "food/vegetables": "vegetable",
    "hobbies/music/brass": "musical instrument",
    "hobbies/music/percussion": "musical instrument",
    "hobbies/music/string": "musical instrument",
    "hobbies/music/wind": "musical instrument",
    "household/dishes": "dishes",
    "household/tools": "tool",
    "plants/flowers": "flower",
    "plants/mushrooms": "mushroom",
    "plants/trees": "tree",
    "sports": "sports equipment",
    "vehicles/auto": "car",
}

# Left out by hand after a look at every image: the class would be plainly wrong. Relatives that the
# group's name covers stay (lion and tiger as cat, zebra as horse, fox as dog, bison as cow).
DROP = (
    # A monkey, not an ape.
    "animals/mammals/apes/tamarin_emperor.png",
    # Sheep, goats and antelopes, not cattle.
    "animals/mammals/bovines/gnu-baby-stand.png",
    "animals/mammals/bovines/gnu-baby.png",
    "animals/mammals/bovines/gnu-sitting.png",
    "animals/mammals/bovines/gnu-stand.png",
    "animals/mammals/bovines/goat.png",
    "animals/mammals/bovines/indian_blackbuck.png",
    "animals/mammals/bovines/mountaingoat.png",
    "animals/mammals/bovines/ram.png",
    "animals/mammals/bovines/sheep.png",
    "animals/mammals/bovines/sheep_lamb.png",
    # Rabbits are no rodents.
    "animals/mammals/rodents/rabbit-2.png",
    "animals/mammals/rodents/rabbit.png",
    # Crustaceans, not fish.
    "animals/fish/lobster.png",
    "animals/fish/shrimp.png",
    # A mollusc and a crustacean, not insects; and a black-and-white drawing among photos.
    "animals/insects/Brown_slug.png",
    "animals/insects/Woodlouse.png",
    "animals/insects/bee.png",
    # A button and two clothespins are not clothing; the cap belongs to the class "hat".
    "clothes/button.png",
    "clothes/clothespin_new.png",
    "clothes/clothespin_old.png",
    "clothes/t_baseballcap.png",
    # "mushroom" is a class of its own.
    "food/vegetables/mushroom.png",
    # The photo of measuring_tape.png, mirrored: it would count twice.
    "household/tools/measuring_tape_mirror.png",
    # Leaves, a cone, and fruits put together as an "alien tree": no tree is seen.
    "plants/trees/holly_leaves.png",
    "plants/trees/pinecone.png",
    "plants/trees/rambutan.png",
    # A prize, not equipment.
    "sports/trophy_cup.png",
)

# Clip art folders of the memory, and the parts of them that show symbols rather than things.
MEMORY_FOLDERS = (
    "animals",
    "buildings",
    "computer/hardware",
    "education",
    "electronics",
    "food",
    "office",
    "people",
    "plants",
    "recreation",
    "science",
    "tools",
    "transportation",
)
MEMORY_WITHOUT = (
    "people/smilies",
    "people/stickmen",
    "recreation/games/cards",
    "transportation/aiga-symbols",
    "transportation/roadsigns",
)
# The package is public domain as a whole, but a few files name another licence in their own
# metadata. Those are left out rather than argued about.
COPYLEFT = re.compile(r"\b(?:l?gpl|gnu|copyleft|art libre)\b", re.IGNORECASE)

DC = "{http://purl.org/dc/elements/1.1/}"
CC = "{http://web.resource.org/cc/}"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
RDF_BLOCK = re.compile(rb"<rdf:RDF\b.*?</rdf:RDF>", re.DOTALL)

HASH = re.compile(r"HASH\(0x[0-9a-f]+\)", re.IGNORECASE)
EMAIL = re.compile(
    r"(?:\b(?:e-?mail|contact)\s*:\s*)?"  # a label before the address
    r"[<(\[]?[^\s<>()\[\],;:]+@[^\s<>()\[\],;:]+[>)\]]?",
    re.IGNORECASE,
)
STRAY_MARKS = re.compile(r"(?<=\s)[.,;:]+(?=\s|$)")
# Keywords that say nothing on the picture: what is left of "HASH(...)", and a filing tag.
EMPTY_KEYWORDS = {"hash", "unsorted"}


class Metadata(NamedTuple):
    """What an SVG's RDF block says about the drawing."""

    title: str
    description: str
    keywords: list[str]
    author: str
    licence: str


def unpack(debs: Path, scratch: Path) -> Path:
    """Return the folder with the packages' files; unpack the .deb files first if need be."""
    if (debs / STAMPS).is_dir():
        return debs
    for package in ("tuxpaint-stamps-default", "openclipart-png", "openclipart-svg"):
        found = sorted(debs.glob(f"{package}_*.deb"))
        if len(found) != 1:
            raise SystemExit(f"want one {package}_*.deb in {debs}, found {len(found)}")
        subprocess.run(["dpkg-deb", "-x", found[0], scratch], check=True)
    return scratch


def save_jpeg(source: Path, target: Path) -> None:
    """Put an image on white, shrink its short side to SHORT_SIDE (never enlarge), save as JPEG."""
    with Image.open(source) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:  # known from the header, before anything is decoded
            raise ValueError(f"{source}: {width} x {height} pixels are too many")
        rgba = image.convert("RGBA")
    factor = min(rgba.size) // (4 * SHORT_SIDE)
    if factor > 1:  # huge sources: a cheap first step, so that the copies below stay small
        rgba = rgba.reduce(factor)
    flat = Image.new("RGBA", rgba.size, "white")
    flat.alpha_composite(rgba)
    rgb = flat.convert("RGB")
    scale = SHORT_SIDE / min(rgb.size)
    if scale < 1:
        size = (max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale)))
        rgb = rgb.resize(size, Image.Resampling.LANCZOS)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        raise ValueError(f"{target}: two sources want this name")
    rgb.save(target, "JPEG", quality=QUALITY, optimize=True)


def build_queries(root: Path, out: Path) -> Counter[str]:
    """Write queries/<class>/<name>.jpg and return the number of images in each class."""
    counts: Counter[str] = Counter()
    unused = set(DROP)
    for folder, label in CLASSES.items():
        class_folder = label.replace(" ", "_")
        for source in sorted((root / STAMPS / folder).glob("*.png")):
            name = f"{folder}/{source.name}"
            if name in DROP:
                unused.remove(name)
                continue
            save_jpeg(source, out / "queries" / class_folder / f"{source.stem}.jpg")
            counts[label] += 1
    if unused:
        raise ValueError(f"DROP names files that are not there: {sorted(unused)}")
    return counts


def text_of(element: ET.Element | None) -> str:
    """All text in an element, white space collapsed; empty if there is no such element."""
    return "" if element is None else " ".join("".join(element.itertext()).split())


def read_metadata(svg: Path) -> Metadata:
    """Read the first description of the work in an SVG file.

    Many of these files have a DOCTYPE and some declare entities. Only the RDF block is handed to
    the XML parser, and a declaration in there is refused, so that no entity is ever expanded and
    nothing is fetched.
    """
    match = RDF_BLOCK.search(svg.read_bytes())
    if match is None:
        return Metadata("", "", [], "", "")
    block = match.group()
    if len(block) > MAX_RDF_BYTES or b"<!DOCTYPE" in block or b"<!ENTITY" in block:
        raise ValueError(f"{svg}: unexpected RDF block")
    work = ET.fromstring(block.decode("utf-8")).find(f"{CC}Work")
    if work is None:
        return Metadata("", "", [], "", "")
    licence = work.find(f"{CC}license")
    resource = "" if licence is None else licence.get(f"{RDF}resource", "")
    return Metadata(
        title=text_of(work.find(f"{DC}title")),
        description=text_of(work.find(f"{DC}description")),
        keywords=[text_of(item) for item in work.iter(f"{RDF}li")],
        author=text_of(work.find(f"{DC}creator")),
        licence=f"{resource} {text_of(work.find(f'{DC}rights'))}",
    )


def clean(text: str, author: str) -> str:
    """Take HASH(...) junk, e-mail addresses and the author's name ("Clipart by NAME -") out."""
    text = EMAIL.sub("", HASH.sub("", text))
    name = " ".join(EMAIL.sub("", author).split())
    if name:
        credit = r"(?:\b(?:(?:clip ?art|created|derivative)\s+)?(?:by|from|of)\s+)?"
        text = re.sub(rf"{credit}(?<!\w){re.escape(name)}(?!\w)", "", text, flags=re.IGNORECASE)
    text = " ".join(STRAY_MARKS.sub("", text).split()).strip(" ,;:-")
    return text if re.search(r"\w", text) else ""


def caption_of(metadata: Metadata) -> tuple[str, str]:
    """Return the clean title and the caption: "title, description, keywords", repeats left out."""
    title, description, *keywords = (
        clean(text, metadata.author)
        for text in (metadata.title, metadata.description, *metadata.keywords)
    )
    keywords = [keyword for keyword in keywords if keyword.lower() not in EMPTY_KEYWORDS]
    parts: dict[str, str] = {}
    for part in (title, description, *keywords):
        if part:
            parts.setdefault(part.lower().rstrip("."), part)
    return title, ", ".join(parts.values())


def clipart(root: Path) -> Iterator[str]:
    """Yield the memory's images, as sorted paths below the package's png folder.

    The package files some drawings under several folders through symbolic links. These stay: a
    crawl of the web has such repeats too.
    """
    base = root / CLIPART_PNG
    for folder in MEMORY_FOLDERS:
        for source in sorted((base / folder).rglob("*.png")):
            if not source.resolve().is_relative_to(base.resolve()):
                raise ValueError(f"{source}: points out of the package")
            name = source.relative_to(base).as_posix()
            if not name.startswith(tuple(f"{part}/" for part in MEMORY_WITHOUT)):
                yield name


def build_memory(root: Path, out: Path) -> list[dict[str, str]]:
    """Write memory/images and memory/captions.parquet; return the table's rows."""
    rows: list[dict[str, str]] = []
    for name in clipart(root):
        metadata = read_metadata((root / CLIPART_SVG / name).with_suffix(".svg"))
        if COPYLEFT.search(metadata.licence):
            print(f"left out, metadata names another licence: {name}: {metadata.licence}")
            continue
        title, caption = caption_of(metadata)
        slug = re.sub(r"[^A-Za-z0-9._-]", "_", name.removesuffix(".png").replace("/", "--"))
        save_jpeg(root / CLIPART_PNG / name, out / "memory/images" / f"{slug}.jpg")
        rows.append(
            {
                "path": f"{slug}.jpg",
                "caption": caption,
                "title": title,
                "licence": "CC0-1.0/public domain",
                "source": f"{CLIPART_PNG}/{name}",
            }
        )
    schema = pa.schema([(column, pa.string()) for column in rows[0]])
    pq.write_table(pa.Table.from_pylist(rows, schema), out / "memory/captions.parquet")
    return rows


def build_urls(rows: list[dict[str, str]], out: Path) -> None:
    """Write memory/urls.parquet, a URL list in LAION-400M's columns, and what its bad rows name."""
    images, bad = out / "memory/images", out / "memory/bad"
    shutil.rmtree(bad, ignore_errors=True)
    bad.mkdir()
    (bad / "page.jpg").write_text("<!doctype html><title>This picture has moved</title>\n")
    whole = (images / rows[0]["path"]).read_bytes()
    (bad / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    Image.new("1", (20_000, 20_000)).save(bad / "bomb.png", optimize=True)
    listed = [(f"images/{row['path']}", row["caption"]) for row in rows]
    listed += [
        ("images/gone-1.jpg", "a picture that is gone"),
        ("images/gone-2.jpg", "another picture that is gone"),
        ("images/gone-3.jpg", "one more picture that is gone"),
        ("bad/page.jpg", "a picture that is a web page"),
        ("bad/truncated.jpg", "half a picture"),
        ("bad/bomb.png", "400 million black pixels in 50 kilobytes"),
        (f"images/{rows[0]['path']}", ""),
    ]
    urls = [DEMO_SERVER + quote(path) for path, _ in listed]
    texts = [text for _, text in listed]
    urls.append("file:///etc/hostname")
    texts.append("a file of whoever downloads")
    sizes = [_size(out / "memory" / path) for path, _ in listed] + [(None, None)]
    columns = {
        "SAMPLE_ID": pa.array(range(len(urls)), pa.int64()),
        "URL": pa.array(urls, pa.string()),
        "TEXT": pa.array(texts, pa.string()),
        "LICENSE": pa.array(
            ["CC0-1.0/public domain"] * len(rows) + ["?"] * (len(urls) - len(rows))
        ),
        "NSFW": pa.array(["UNSURE"] * len(urls), pa.string()),
        "similarity": pa.nulls(len(urls), pa.float64()),  # nobody has measured it
        "WIDTH": pa.array([width for width, _ in sizes], pa.int32()),
        "HEIGHT": pa.array([height for _, height in sizes], pa.int32()),
    }
    pq.write_table(pa.table(columns), out / "memory/urls.parquet", compression="zstd")


def _size(path: Path) -> tuple[int | None, int | None]:
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, Image.DecompressionBombError):
        return None, None


def main() -> None:
    """Make the images and captions anew and print the counts."""
    parser = argparse.ArgumentParser(description="Rebuild the demo data from Debian packages.")
    parser.add_argument(
        "--debs", type=Path, required=True, help="folder with the .deb files, or with usr/ unpacked"
    )
    parser.add_argument("--out", type=Path, default=HERE, help="default: this script's folder")
    args = parser.parse_args()
    out = args.out.resolve()

    Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # save_jpeg refuses what is larger
    for label in CLASSES.values():
        shutil.rmtree(out / "queries" / label.replace(" ", "_"), ignore_errors=True)
    shutil.rmtree(out / "memory/images", ignore_errors=True)

    with tempfile.TemporaryDirectory() as scratch:
        root = unpack(args.debs, Path(scratch))
        counts = build_queries(root, out)
        rows = build_memory(root, out)
    build_urls(rows, out)
    if out != HERE:  # the licences travel with the data
        for name in LEGAL_FILES:
            shutil.copyfile(HERE / name, out / name)

    captions = [row["caption"] for row in rows if row["caption"]]
    print(f"queries: {counts.total()} images in {len(counts)} classes")
    for label, count in sorted(counts.items()):
        print(f"  {label}: {count}")
    print(
        f"memory: {len(rows)} images, {len(captions)} with a caption, {len(set(captions))} distinct"
    )


if __name__ == "__main__":
    main()
