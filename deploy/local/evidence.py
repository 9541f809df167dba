"""What stands at a destination, compared with what should: by SHA-256, name by name, once each.

Counted, never assumed: a delivery to S3 that happened twice has left a second version of its object in the versioned
bucket; on an SFTP server a second one has a second receipt for its name, or has left a file that nobody expects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.local.customer import JsonObject
from deploy.local.samples import Sample, Samples, digest, digest_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(slots=True)
class Findings:
    """Names of what was looked at, by what was found."""

    good: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Expected, and not there."""
    damaged: list[str] = field(default_factory=list)
    """There, with other bytes than the source."""
    duplicates: list[str] = field(default_factory=list)
    """Delivered more than once."""
    strangers: list[str] = field(default_factory=list)
    """There, and expected by nobody: temporary files left over, for example."""
    unfinished: list[str] = field(default_factory=list)
    """Uploads to S3 that were begun and neither completed nor aborted."""

    @property
    def clean(self) -> bool:
        """Whether every file is there once, whole, and nothing else is."""
        return not (self.lost or self.damaged or self.duplicates or self.strangers or self.unfinished)

    def __str__(self) -> str:
        """Names what is wrong, a few of each kind."""
        kinds = {
            "lost": self.lost,
            "damaged": self.damaged,
            "delivered twice": self.duplicates,
            "unexpected": self.strangers,
            "uploads left": self.unfinished,
        }
        return "; ".join(f"{len(names)} {kind}: {', '.join(sorted(names)[:5])}" for kind, names in kinds.items() if names) or "all well"


def in_bucket(s3: S3Client, bucket: str, expected: Samples, *, transfers: Iterable[JsonObject]) -> Findings:
    """Returns what a versioned bucket holds; each version of an object beyond the first counts as a duplicate."""
    versions: Counter[str] = Counter()
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        versions.update(version["Key"] for version in page.get("Versions", []))
        versions.update(marker["Key"] for marker in page.get("DeleteMarkers", []))

    def held(name: str) -> Sample:
        return digest(s3.get_object(Bucket=bucket, Key=name)["Body"].iter_chunks(1 << 20))

    found = Findings()
    found.unfinished += [
        upload["Key"] for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket) for upload in page.get("Uploads", [])
    ]
    _compare(found, {name: held(name) for name in versions}, expected, transfers)
    found.duplicates += [name for name, times in versions.items() for _ in range(times - 1)]
    return found


def in_directory(directory: Path, expected: Samples, *, transfers: Iterable[JsonObject]) -> Findings:
    """Returns what a directory of an SFTP server holds; a second receipt for a name counts as a duplicate."""
    found = Findings()
    held = {str(path.relative_to(directory)): digest_of(path) for path in directory.rglob("*") if path.is_file()}
    _compare(found, held, expected, transfers)
    return found


def _compare(found: Findings, held: Mapping[str, Sample], expected: Samples, transfers: Iterable[JsonObject]) -> None:
    for name, sample in expected.items():
        if name not in held:
            found.lost.append(name)
        elif held[name] != sample:
            found.damaged.append(name)
        else:
            found.good.append(name)
    # An empty file says nothing about where it comes from.
    originals = {sample.sha256 for sample in expected.values() if sample.size}
    for name in held.keys() - expected.keys():
        (found.duplicates if held[name].sha256 in originals else found.strangers).append(name)
    receipts = Counter(one["receipt"]["path"] for one in transfers if one["receipt"])
    found.duplicates += [name for name, times in receipts.items() for _ in range(times - 1)]
    found.lost += [f"{name} (no receipt)" for name in expected if not receipts[name]]


def retries(transfers: Iterable[JsonObject]) -> int:
    """Returns how many tries failed and were followed by another: what a timeline tells of them."""
    resting = {"held", "dead", "cancelled", "settled"}
    return sum(event["error"] is not None and event["state"] not in resting for transfer in transfers for event in transfer["timeline"])
