"""Fashion-MNIST (Xiao et al., 2017): 70,000 grey images of 28 x 28, from files or from TFDS."""

import gzip
import hashlib
from pathlib import Path

import numpy as np

from jax_kdpr.core.errors import InputError

# Files of 60,000 and of 10,000 images, with the MD5 from the README of the data set. Labels are
# never read.
FILES = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
}
SIDE = 28  # pixels


def read_folder(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads the published IDX files.

    Returns:
        (60,000 training images, 10,000 test images), uint8 [n 28 28].

    Raises:
        InputError: If a file is missing, truncated, or not the published bytes.
    """
    train, test = (_read_images(folder / name, md5) for name, md5 in FILES.items())
    return train, test


def in_byte_order(images: np.ndarray) -> np.ndarray:
    """Sorts images [n h w] by their bytes, since files and TFDS hold them in different orders."""
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    return images[np.argsort(rows.view(f"V{rows.shape[1]}").ravel())]


def _read_images(path: Path, md5: str) -> np.ndarray:
    if not path.is_file():
        raise InputError(
            f"data.dir: {path.name} is missing in {str(path.parent)!r}; copy the four original "
            "Fashion-MNIST files there"
        )
    packed = path.read_bytes()
    found = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    if found != md5:
        raise InputError(
            f"{path}: expected MD5 {md5}, got {found} ({len(packed):,} bytes); the file is damaged "
            "or cut short, download it again"
        )
    # Skips the header of 16 bytes, which the MD5 has verified.
    return np.frombuffer(gzip.decompress(packed), np.uint8, offset=16).reshape(-1, SIDE, SIDE)


def read_tfds(manual_dir: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Prepares (once) and reads the TensorFlow Datasets copy; needs the extra `tfds`.

    Args:
        manual_dir: Folder with the four IDX files, to prepare offline; None downloads.

    Returns:
        The same as `read_folder`.

    Raises:
        InputError: If the extra is not installed or the data set cannot be prepared.
    """
    try:
        import tensorflow_datasets as tfds  # pyright: ignore[reportMissingImports]
    except ImportError as missing:
        raise InputError(
            "data.source fashion_mnist: no files given and TensorFlow Datasets is not installed; "
            "set data.dir or KDPR_DATA_DIR to the folder with the four IDX files, "
            "or install the extra: pip install -e '.[tfds]'"
        ) from missing
    try:
        builder = tfds.builder("fashion_mnist", file_format="array_record")
        settings = tfds.download.DownloadConfig(manual_dir=manual_dir and str(manual_dir))
        builder.download_and_prepare(download_config=settings)
    except Exception as failure:  # downloads fail in many ways; no partial data are used
        raise InputError(
            f"data.source fashion_mnist: TensorFlow Datasets could not prepare it ({failure}); "
            "set data.dir or KDPR_DATA_DIR to the folder with the four IDX files"
        ) from failure

    def read(split: str) -> np.ndarray:
        source = builder.as_data_source(split=split)
        return np.stack([example["image"][..., 0] for example in source])

    return read("train"), read("test")
