"""The story of ``show.py`` on each backend, in CI."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.programs import programs
from support.weed import S3Server

from integration.show import Bucket, Directory, MemoryStory, Story

pytestmark = pytest.mark.integration
TEMPLATES = Path(__file__).parents[2] / "shared" / "db" / "templates"


def test_on_s3(tmp_path: Path, weed: S3Server) -> None:
    with programs(tmp_path) as started:
        Story(started, Bucket(weed, "delta-show"), TEMPLATES, documents=10_000, say=print).run()


def test_on_a_directory(tmp_path: Path) -> None:
    with programs(tmp_path) as started:
        Story(started, Directory(tmp_path / "db"), TEMPLATES, documents=10_000, say=print).run()


def test_in_memory(tmp_path: Path) -> None:
    with programs(tmp_path) as started:
        MemoryStory(started, Directory(tmp_path / "db"), TEMPLATES, documents=10_000, say=print).run()
