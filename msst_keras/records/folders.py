"""Several record folders as one set: each whole, none holding another's frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msst_keras.data.layouts import NAMED_DATASETS
from msst_keras.records.manifest import read_manifest
from msst_keras.records.shard_files import check_framing, read_record


def read_manifests(folders: Sequence[str]) -> dict[str, dict]:
    """The manifests of record folders to learn from, by folder.

    The same sequence may be in two folders when other frames are labelled in each, fine labels here, coarse ones there,
    or when its flow was made in other ways.

    Raises:
      FileNotFoundError: as `manifest.read_manifest`.
      ValueError: likewise; a shard whose records do not lie where its manifest says; a labelled frame in two folders.
    """
    manifests: dict[str, dict] = {}
    for folder in folders:
        manifest = read_manifest(folder)
        if "://" not in folder:  # on a distant file system a look at each record would take hours
            check_shards(folder, manifest)
        for name, other, _ in _find_shared(manifests, {folder: manifest}):
            if manifests[other].get("motion") != manifest.get("motion"):
                continue  # other flow of it: a frame seen in two ways, which `index_clips` may allow
            labelled = [source["sequences"][name]["labelled"] for source in (manifests[other], manifest)]
            if twice := sorted(labelled[0].keys() & labelled[1].keys(), key=int):
                raise ValueError(
                    f"frame {twice[0]} of the sequence '{name}' is labelled in both {other} and {folder}, and would "
                    "count twice; leave out one folder, or convert it with other --sequences"
                )
        manifests[folder] = manifest
    return manifests


def check_shards(folder: str, manifest: dict) -> None:
    """Checks that the records of a folder's shards begin and end where its manifest says.

    Raises:
      ValueError: names the shard and the byte.
    """
    offsets: list[set[int]] = [set() for _ in manifest["shards"]]
    for entry in manifest["sequences"].values():
        offsets[entry["shard"]].update(entry["offsets"])
    for shard, expected in zip(manifest["shards"], offsets, strict=True):
        check_framing(f"{folder}/{shard['name']}", expected)


def check_disjoint(folders: Sequence[str], val_folders: Sequence[str]) -> None:
    """Checks that no sequence is in both the training and the validation records.

    Raises:
      FileNotFoundError: as `manifest.read_manifest`.
      ValueError: likewise; a sequence is in both (names it and the folders).
    """
    train, val = ({folder: read_manifest(folder) for folder in each} for each in (folders, val_folders))
    for name, folder, val_folder in _find_shared(train, val):
        raise ValueError(
            f"the sequence '{name}' is in {folder} to train on and in {val_folder} to validate on, which would measure "
            "what was learnt by heart; convert them with other --split or --sequences"
        )


def _find_shared(manifests: dict[str, dict], others: dict[str, dict]) -> Iterator[tuple[str, str, str]]:
    """Yields (sequence, folder, other folder) of each sequence that is in both.

    Names alone do not tell: every dataset may have its "dog". Two sequences of one name are the same one if both come
    from the same dataset whose names are its own (DAVIS, FBMS, SegTrackV2), or if their first frames are the same
    bytes. A copy under another name, or in another encoding and of another dataset, is not found.
    """
    for folder, manifest in manifests.items():
        for other_folder, other in others.items():
            same_dataset = manifest.get("dataset") in NAMED_DATASETS and manifest["dataset"] == other.get("dataset")
            for name in sorted(manifest["sequences"].keys() & other["sequences"].keys()):
                if same_dataset or _first_frame(folder, manifest, name) == _first_frame(other_folder, other, name):
                    yield name, folder, other_folder


def _first_frame(folder: str, manifest: dict, sequence: str) -> bytes:
    entry = manifest["sequences"][sequence]
    return read_record(f"{folder}/{manifest['shards'][entry['shard']]['name']}", entry["offsets"][0]).frame
