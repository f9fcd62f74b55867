"""Embeddings that the network cannot take change no recommendation, wherever they come from."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest

from tests.service.live import Shop, bundle_of, live_settings, shop_of

GOOD = [1.0] * 8
FAULT = "1 embeddings that the journal has for the domain toys are damaged or of another width"


def encoded(*row: float) -> str:
    return base64.b64encode(np.array(row, dtype="<f4").tobytes()).decode()


@pytest.mark.parametrize(
    "row",
    [
        *(encoded(*row) for row in ([np.nan] * 8, [*GOOD[1:], np.inf], [1.0] * 3, [1.0] * 9)),
        *("", "A", "AAAAAAA=", "!!!!", "é"),
    ],
)
async def test_an_entry_of_the_journal_that_is_no_embedding_is_left_out_and_reported(tmp_path: Path, row: str) -> None:
    """Who writes to the journal without a signature could leave a domain without items, or keep it from starting."""
    bundle_of(tmp_path / "first", 1)
    settings = live_settings(tmp_path)
    path = settings.journal_options.path
    assert path is not None
    async with shop_of(settings) as shop:
        await _put(shop, {"item-1": GOOD, "item-2": GOOD})
        await shop.patch(deactivate=["item-5"])
        expected = (await shop.ask(history=["item-2"]))["items"]
    content = path.read_text(encoding="utf-8")
    path.write_text(content.replace(f'"item-1":"{encoded(*GOOD)}"', f'"item-1":"{row}"'), encoding="utf-8")
    assert path.read_text(encoding="utf-8") != content

    async with shop_of(settings) as shop:
        assert (await shop.ask(history=["item-2"]))["items"] == expected
        assert len((await shop.ask(history=["item-1"]))["items"]) == len(expected)
        told = {"domain": "toys", "item_id": "item-1", "temperature": 1.0, "max_new_tokens": 3}
        assert (await shop.client.post("/explain", json=told)).status_code == 200
        assert any(FAULT in each for each in await _degraded(shop))
        await _put(shop, {"item-1": GOOD})
        assert not any(FAULT in each for each in await _degraded(shop))


async def _put(shop: Shop, features: dict[str, list[float]]) -> None:
    await shop.admin("PUT", "/domains/toys/features", json={"features": features})


async def _degraded(shop: Shop) -> list[str]:
    found: list[str] = (await shop.client.get("/health/ready")).json()["degraded"]
    return found
