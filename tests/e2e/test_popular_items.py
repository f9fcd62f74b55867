"""Popular items from the purchases that a domain was trained on, through every command, until events change them."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.processes import run_vip5, serving
from tests.tiny import tiny_tokenizer
from tests.unit.training.tiny_data import FROM_SCRATCH

ITEMS = [f"toy-{number}" for number in range(1, 7)]
BOUGHT = {"toy-4": 6, "toy-2": 4, "toy-6": 2, "toy-1": 1}
HELD_OUT = ("toy-3", "toy-5")
"""What everybody bought last; training does not see it."""


def bought() -> list[list[str]]:
    """Purchases of users, oldest first."""
    users = range(max(BOUGHT.values()))
    return [[*(item_id for item_id, number in BOUGHT.items() if user < number), *HELD_OUT] for user in users]


def command(*arguments: str | Path) -> None:
    done = run_vip5(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def trained(folder: Path) -> Path:
    """A bundle with a domain that was tuned on these purchases."""
    lines = (f"u{number} {' '.join(items)}\n" for number, items in enumerate(bought()))
    (folder / "purchases.txt").write_text("".join(lines))
    (folder / "items.jsonl").write_text("".join(f'{{"item_id": "{each}", "title": "{each}"}}\n' for each in ITEMS))
    given = ("--sequences", folder / "purchases.txt", "--items", folder / "items.jsonl")
    command("data", "prepare", "lines", *given, "--out", folder / "data")
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    text, _, rest = FROM_SCRATCH.partition("[images]\ntokens = 2\n")
    (folder / "run.toml").write_text(text + rest.replace("num_candidates = 10", "num_candidates = 3"))
    command("train", "--config", folder / "run.toml", "--num-threads", "1")
    return folder / "bundle"


def test_popular_items_are_those_of_training_until_events_say_otherwise(tmp_path: Path) -> None:
    bundle = trained(tmp_path)
    env = {"VIP5_HISTORY_STORE": "embedded", "VIP5_HISTORY_FILE": str(tmp_path / "histories.jsonl")}
    with serving(bundle, env) as server, server.client() as client:

        def popular() -> list[str]:
            body = {"domain": "toys", "user_id": "new", "k": 6, "fallback": "popular"}
            answer = client.post("/recommend/sequential", json=body).json()
            assert "history_missing" in {each["kind"] for each in answer["degraded"]}
            assert not any("training_interactions" in item["attributes"] for item in answer["items"])
            return [item["item_id"] for item in answer["items"]]

        assert popular() == [*BOUGHT, *HELD_OUT]
        for number in range(40):  # the 13 purchases of training count like 100 events, so toy-4's like 46
            client.post("/events", json={"domain": "toys", "user_id": f"x{number}", "item_id": "toy-6"})
        assert popular() == ["toy-6", "toy-4", "toy-2", "toy-1", *HELD_OUT]
