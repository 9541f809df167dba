"""What is moved."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
BLOCK: Final = MIB


@dataclass(frozen=True, slots=True)
class Workload:
    """Files in a directory named like the workload."""

    name: str
    title: str
    sizes: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """All of them together."""
        return sum(self.sizes)

    @property
    def small(self) -> bool:
        """Whether files per second say more than bytes per second."""
        return self.bytes < len(self.sizes) * MIB

    @property
    def paths(self) -> list[str]:
        """Relative to the root of wherever they lie."""
        return [f"{self.name}/{number:05}.bin" for number in range(len(self.sizes))]

    def write(self, directory: Path) -> None:
        """Makes the files, of random bytes."""
        (directory / self.name).mkdir(parents=True, exist_ok=True)
        for path, size in zip(self.paths, self.sizes, strict=True):
            with (directory / path).open("wb") as file:
                for block in _random(size):
                    file.write(block)


def _random(size: int) -> Iterator[bytes]:
    for start in range(0, size, BLOCK):
        yield os.urandom(min(BLOCK, size - start))


ONE: Final = Workload("one", "1 × 1 GiB", (GIB,))
QUARTER: Final = Workload("quarter", "1 × 256 MiB", (256 * MIB,))
EIGHT: Final = Workload("eight", "8 × 256 MiB", (256 * MIB,) * 8)
SMALL: Final = Workload("small", "2,000 × 10 KiB", (10 * KIB,) * 2000)
HUNDREDS: Final = Workload("hundreds", "500 × 10 KiB", (10 * KIB,) * 500)
FEW: Final = Workload("few", "48 × 10 KiB", (10 * KIB,) * 48)
WARM: Final = Workload("warm", "16 × 10 KiB", (10 * KIB,) * 16)
MIXED: Final = Workload(
    "mixed", "mixed: 500 × 10 KiB, 50 × 1 MiB, 4 × 64 MiB, 1 × 256 MiB", (10 * KIB,) * 500 + (MIB,) * 50 + (64 * MIB,) * 4 + (256 * MIB,)
)
