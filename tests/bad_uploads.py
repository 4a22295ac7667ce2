"""Files that somebody may send to the page of demo.py by mistake or on purpose."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"


def write_bad_uploads(folder: Path) -> list[Path]:
    """All of them, written to a folder; none is larger than a megabyte."""
    contents = {**documents(), **damaged(), **bombs(), **shapes()}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    for name, write in (RASTERS | HUGE_RASTERS).items():
        write(folder / name)
    return sorted(folder.iterdir())


def documents() -> dict[str, bytes]:
    """Not images, or images of other formats, under names that lie."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("../../evil.png", b"")
    vrt = '<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1">'
    vrt += "<SimpleSource><SourceFilename>/etc/passwd</SourceFilename></SimpleSource>"
    return {
        "empty.png": b"",
        "notes.txt": b"roads\n",
        "script.html.jpg": b"<script>alert(1)</script>",
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///x"/></svg>',
        "document.pdf": b"%PDF-1.7\n%%EOF\n",
        "archive.tif": archive.getvalue(),
        "program.png": b"\x7fELF" + bytes(60),
        "virtual.tif": vrt.encode(),
        "animation.gif": encoded("GIF"),
        "bitmap.png": encoded("BMP"),
        "photo.jpg": encoded("WEBP"),
        "<b>bold & 'quoted'.png": b"no image",
    }


def damaged() -> dict[str, bytes]:
    noise = np.random.default_rng(0).integers(0, 256, 3000, np.uint8).tobytes()
    png, jpeg, tiff = encoded("PNG"), encoded("JPEG"), encoded("TIFF")
    broken_crc = bytearray(png)
    broken_crc[29] ^= 255
    broken_data = bytearray(png)
    broken_data[len(png) // 2] ^= 255
    return {
        "noise.jpg": noise,
        "signature.jpg": b"\xff\xd8\xff",
        "signature.png": PNG,
        "signature.tif": b"II*\0",
        "cut.jpg": jpeg[: len(jpeg) // 3],
        "cut.png": png[: len(png) // 2],
        "cut.tif": tiff[: len(tiff) // 2],
        "header_sum.png": bytes(broken_crc),
        "pixel_sum.png": bytes(broken_data),
        "noise_after_signature.png": PNG + noise,
        "noise_after_signature.tif": b"MM\0*\0\0\0\x08" + noise,
        "directory_loop.tif": b"II*\0\x08\0\0\0" + b"\0\0" + b"\x08\0\0\0",
    }


def bombs() -> dict[str, bytes]:
    """Small files that say that they are huge, or are when decoded."""
    jpeg = bytearray(encoded("JPEG"))
    size_at = jpeg.index(b"\xff\xc0") + 5
    jpeg[size_at : size_at + 4] = struct.pack(">HH", 65_500, 65_500)
    return {
        "says_huge.png": png_of(60_000, 60_000, zlib.compress(b"")),
        "is_huge.png": png_of(8_000, 8_000, zlib.compress(bytes(1_001 * 8_000))),
        "says_huge.jpg": bytes(jpeg),
    }


def shapes() -> dict[str, bytes]:
    return {
        "tiny.png": encoded("PNG", (4, 3)),
        "thread.png": encoded("PNG", (5_000, 1)),
        "ribbon.png": encoded("PNG", (40_000, 16)),
    }


def encoded(kind: str, size: tuple[int, int] = (64, 48)) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind)
    return data.getvalue()


def png_of(width: int, height: int, compressed: bytes) -> bytes:
    """A PNG of one bit a pixel with this content."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", compressed), (b"IEND", b""))
    return PNG + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def raster(values: np.ndarray) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        count, height, width = values.shape
        profile = {"count": count, "height": height, "width": width, "dtype": values.dtype}
        with rasterio.open(path, "w", driver="GTiff", **profile) as target:
            target.write(values)

    return write


def sparse(side: int, **profile: object) -> Callable[[Path], None]:
    """A TIFF of which no pixel is stored."""

    def write(path: Path) -> None:
        size = {"count": 1, "height": side, "width": side, "dtype": "uint8", "sparse_ok": True}
        rasterio.open(path, "w", driver="GTiff", **(size | profile)).close()

    return write


RASTERS = {
    "complex.tif": raster(np.ones((1, 32, 32), np.complex64)),
    "floats.tif": raster(np.linspace(-5, 300, 1024, dtype=np.float32).reshape(1, 32, 32)),
    "negative.tif": raster(np.full((1, 32, 32), -7, np.int16)),
    "wide_numbers.tif": raster(np.full((1, 32, 32), 10**6, np.int32)),
    "bands.tif": raster(np.ones((32, 20, 20), np.uint8)),
}
HUGE_RASTERS = {
    "huge.tif": sparse(30_000),
    "huge_blocks.tif": sparse(64, tiled=True, blockxsize=16_384, blockysize=16_384),
}
