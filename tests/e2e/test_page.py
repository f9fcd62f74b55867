"""The page at / in a real browser: each of its parts, by mouse and keyboard, in the light, in the dark, on a phone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.http.api_keys import new_key
from tests.e2e.browser import SERIOUS, Browser, Visit, chromium, visiting
from tests.e2e.processes import serving
from tests.summer import DEMONSTRATION, add_summer

TOKEN = "open-sesame-open-sesame"
HISTORY = ("toy-0152", "toy-0098", "toy-0025")
SHOWN = "?domain=toys&user=user-30001&" + "&".join(f"history={item_id}" for item_id in HISTORY)
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def url(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The demonstration with a canary of toys for nobody in particular."""
    root = tmp_path_factory.mktemp("page")
    add_summer(root)
    env = {"VIP5_ADMIN_TOKEN": TOKEN, "VIP5_BUNDLES_ROOT": str(root), "VIP5_JOURNAL": str(root / "journal")}
    with serving(DEMONSTRATION, env) as server:
        versions = _administrate(server.url, "POST", "load", {"bundle": "summer"})["versions"]
        (loaded,) = [each["version"] for each in versions if each["roles"] == ["loaded"]]
        _administrate(server.url, "POST", "canary", {"version": loaded, "share": 0.0001})
        yield server.url


def _administrate(url: str, method: str, path: str, body: object) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    response = httpx.request(
        method, f"{url}/admin/domains/toys/{path}".rstrip("/"), json=body, headers=headers, timeout=60
    )
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


@pytest.fixture
def visit(browser: Browser, url: str) -> Iterator[Visit]:
    with visiting(browser, url) as visit:
        yield visit


def test_a_first_visitor_sees_what_a_customer_is_recommended_and_why(visit: Visit) -> None:
    visit.open()

    assert len(visit.recommended) == 10
    visit.wait(".reason")
    assert "history=" in visit.page.url
    assert visit.page.locator(".picture img.missing").count() == 0
    assert visit.page.evaluate("document.querySelector('.picture img').naturalWidth") > 0


def test_a_word_that_two_columns_have_is_shown_once(visit: Visit) -> None:
    visit.open("?domain=garments")

    assert len(visit.recommended) == 10
    tags = visit.page.evaluate(
        "[...document.querySelectorAll('.tags')].map((p) => [...p.children].map((e) => e.innerText))"
    )
    assert any("summer" in each for each in tags)
    assert [each for each in tags if len(set(each)) < len(each)] == []


def test_what_the_address_stands_for_is_asked_and_shown_before_the_rest_is_loaded(visit: Visit) -> None:
    visit.open(SHOWN)
    _ = visit.recommended
    visit.wait("#browse .tile")
    asked, pictured, shop = (
        next(place for place, path in enumerate(visit.paths) if path.endswith(end))
        for end in ("/recommend/sequential", "/image", "/shop.js")
    )

    assert asked < pictured < shop
    assert [path for path in visit.paths[:asked] if path.startswith("/domains")] == []
    assert len([body for body in visit.bodies if "attribution" not in body]) == 1


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("?domain=toys&history=toy-0152&k=101", "less than or equal to 100"),
        ("?domain=toys&history=toy-0152&template=Z-9", "Z-9"),
    ],
)
def test_an_address_that_cannot_be_answered_is_told_why(browser: Browser, url: str, address: str, words: str) -> None:
    with visiting(browser, url) as visit:
        visit.open(address)
        visit.wait("#browse .tile")
        visit.wait(f"#answers:has-text('{words}')")
        assert len({json.dumps(body) for body in visit.bodies}) == len(visit.bodies)
        visit.faults.clear()  # the browser notes every answer that refuses


def test_an_unknown_domain_gives_way_to_one_that_is_served(browser: Browser, url: str) -> None:
    with visiting(browser, url) as visit:
        visit.open("?domain=nowhere&history=toy-0152")
        visit.wait("#browse .tile")
        visit.until("!location.search.includes('nowhere')")
        assert {body["domain"] for body in visit.bodies} - {"nowhere"}
        visit.wait(".card, .problem")
        visit.faults.clear()  # the browser notes the first refusal


@pytest.mark.parametrize("name", ["__proto__", "constructor", "toString"])
def test_a_filter_of_an_address_by_what_every_object_has_is_told_why(browser: Browser, url: str, name: str) -> None:
    with visiting(browser, url) as visit:
        visit.open(f"?domain=toys&history=toy-0152&where.{name}=x")
        visit.wait("#answers:has-text('no column')")
        visit.wait("#browse input")
        visit.faults.clear()  # the browser notes every answer that refuses


def test_the_domain_that_was_chosen_last_is_shown_whatever_comes_first(visit: Visit) -> None:
    visit.open("?domain=garments&history=garment-0168")
    visit.wait(".card")
    visit.wait("#browse .tile")
    held: list[Any] = []
    visit.page.route("**/domains/toys/columns", lambda route: held.append(route))  # noqa: PLW0108  # playwright looks into its functions
    visit.page.click("[data-key=domain-toys]")
    visit.until("location.search.includes('toys')")
    visit.page.click("[data-key=domain-garments]")
    visit.wait("[data-id^=garment]")
    visit.wait("#browse .tile")
    with visit.page.expect_response("**/domains/toys/columns"):
        held[0].continue_()
    visit.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert "dress" in visit.texts("select[name=filter-kind]")[0]
    assert all(item_id.startswith("garment") for item_id in visit.recommended)


def test_more_items_that_do_not_come_are_said_to_be_missing(visit: Visit) -> None:
    visit.open(SHOWN)
    visit.wait("#browse .tile")
    visit.page.route("**/domains/toys/items?*offset=24*", lambda route: route.abort())
    visit.page.click("text=Show more")
    visit.wait("#browse [role=status]:has-text('could not be loaded')")
    visit.faults = [fault for fault in visit.faults if "ERR_FAILED" not in fault]


def test_a_history_is_built_by_clicking_pictures(visit: Visit) -> None:
    visit.open("?domain=toys&history=toy-0152")
    before = visit.recommended
    visit.page.fill("input[type=search]", "boat")
    visit.wait("#browse [role=status]:has-text('27 items')")
    visit.page.locator("details:has(.filters)").evaluate("details => (details.open = true)")
    visit.page.locator("[name=filter-colour]").select_option("pink")
    visit.until("document.querySelectorAll('#browse .grid li').length < 10")
    visit.page.locator("#browse .tile").first.click()
    visit.until("document.querySelectorAll('#basket .tile').length === 2")
    after = visit.recommended

    assert before != after
    assert visit.bodies[-1]["where"] == {"colour": ["pink"]}
    assert "q=boat" in visit.page.url
    assert "where.colour=pink" in visit.page.url
    visit.page.go_back()
    visit.until("document.querySelectorAll('#basket .tile').length === 1")
    visit.page.locator("#basket .tile").first.click()
    assert "decides what is recommended" in visit.wait("#answers .empty").inner_text()


def test_a_customer_s_purchases_can_be_taken(visit: Visit) -> None:
    visit.open("?domain=garments&history=garment-0001")
    _ = visit.recommended
    visit.page.locator("[name=customer]").select_option(index=3)
    visit.until("document.querySelectorAll('#basket .tile').length === 3")
    _ = visit.recommended

    assert visit.bodies[-1]["user_id"].startswith("user-30")


def test_options_reach_the_model_and_certainty_is_said_in_words(visit: Visit) -> None:
    visit.open(SHOWN + "&k=7&beams=7&template=A-4&name=Ada&certified=1")
    assert len(visit.recommended) == 7
    body = visit.bodies[0]

    assert {name: body[name] for name in ("k", "num_beams", "template", "user_name", "exactness")} == {
        "k": 7,
        "num_beams": 7,
        "template": "A-4",
        "user_name": "Ada",
        "exactness": "certified",
    }
    assert visit.wait(".proven").inner_text().endswith("All 7 are proven to be the true top.")
    visit.page.locator("#more summary").click()
    visit.page.get_by_label("certified").uncheck()
    visit.until("!location.search.includes('certified')")
    visit.page.get_by_label("How many").fill("3")
    visit.page.get_by_label("How many").press("Enter")
    visit.until("document.querySelectorAll('.card').length === 3")


def test_what_is_not_proven_or_degraded_is_said(visit: Visit) -> None:
    visit.open("?domain=toys&history=toy-0152&history=nothing&user=nobody&k=20&beams=20")
    _ = visit.recommended
    proven = visit.page.locator(".card.is-proven").count()
    notices = " ".join(visit.texts(".notice"))

    assert "not in the catalog" in notices
    assert "treats them as a stranger" in notices
    words = visit.wait(".proven").inner_text()
    assert (f"first {proven} are proven" in words) == (1 < proven < 20)


def test_pointing_at_a_reason_shows_the_list_without_it(visit: Visit) -> None:
    visit.open(SHOWN)
    shown = visit.recommended
    visit.wait(".reason.by-picture").hover()
    visit.wait(".preview li")
    lacking = visit.bodies[-1]
    marks = [text for text in visit.texts(".change") if text]

    assert len(lacking["mask_images"]) == 1
    assert visit.wait(".preview p").inner_text().startswith("Without the picture of ")
    assert marks
    visit.page.mouse.move(5, 5)
    visit.until("!document.querySelector('.preview li')")
    assert visit.recommended == shown


def test_an_explanation_is_written_as_it_comes(visit: Visit) -> None:
    visit.open(SHOWN)
    _ = visit.recommended
    card = visit.page.locator(".card").first
    card.get_by_text("Explain", exact=True).click()
    card.locator(".sentence q").wait_for()
    card.get_by_label("About").fill("pattern")
    card.get_by_label("Stars").select_option("5")
    with visit.page.expect_request("**/explain") as asked:
        card.get_by_text("Explain again").click()
    body = asked.value.post_data_json

    assert (body["feature"], body["star_rating"], body["stream"]) == ("pattern", 5, True)
    visit.until("document.querySelector('.sentence q')?.textContent.length > 12")


def test_lists_with_and_without_pictures_stand_side_by_side(visit: Visit) -> None:
    visit.open(SHOWN)
    _ = visit.recommended
    visit.page.get_by_label("Compare with").select_option("pictures")
    visit.page.wait_for_selector(".pair .list >> nth=1")

    assert visit.texts(".pair h3") == ["With pictures", "Without pictures"]
    assert visit.bodies[-1].get("mask_images", list(HISTORY)) == list(HISTORY)
    assert "are in both lists" in visit.wait(".summary").inner_text()
    assert "only here" in visit.texts(".mark")


def test_two_histories_stand_side_by_side(visit: Visit) -> None:
    visit.open(SHOWN)
    _ = visit.recommended
    visit.page.get_by_label("Compare with").select_option("history")
    visit.wait(".pair")
    assert visit.wait(".summary").inner_text() == "Both lists are the same."
    visit.page.locator("#browse .tile").nth(2).click()
    visit.until("document.querySelectorAll('#basket .history:nth-child(2) .tile').length === 4")
    visit.until("document.querySelector('.summary')?.textContent.includes('are in both')")

    assert visit.page.url.count("history=") == 3
    assert visit.page.url.count("other=") == 4


def test_stable_and_canary_stand_side_by_side(visit: Visit) -> None:
    visit.open(SHOWN + "&compare=canary")
    visit.wait(".pair")

    assert visit.texts(".pair h3") == ["Stable", "Canary"]
    assert {body.get("role") for body in visit.bodies} == {"stable", "canary"}


def test_the_time_is_shown_and_the_command_can_be_copied(browser: Browser, url: str) -> None:
    with visiting(browser, url, permissions=["clipboard-read", "clipboard-write"]) as visit:
        visit.open(SHOWN)
        shown = visit.recommended
        shares = visit.page.evaluate(
            "[...document.querySelectorAll('.stage')].map(each => Number(each.style.getPropertyValue('--share')))"
        )
        visit.page.locator(".curl summary").click()
        visit.page.get_by_text("Copy", exact=True).click()
        visit.wait("button:has-text('Copied')")
        command = visit.page.evaluate("navigator.clipboard.readText()")

    assert sum(shares) == pytest.approx(1, abs=0.01)
    answer = json.loads(subprocess.run(["sh", "-c", command], capture_output=True, check=True, timeout=60).stdout)
    assert [item["item_id"] for item in answer["items"]] == shown


def test_an_address_shows_the_same_to_somebody_else(browser: Browser, url: str) -> None:
    with visiting(browser, url) as visit:
        visit.open(SHOWN + "&k=5&where.colour=green")
        shown, address = visit.recommended, visit.page.url
    with visiting(browser, url) as other:
        other.page.goto(address)
        assert other.recommended == shown
        assert other.page.url == address


def test_the_keyboard_is_enough(visit: Visit) -> None:
    visit.open(SHOWN)
    _ = visit.recommended
    visit.wait("#browse .tile")
    seen: set[str] = set()
    for _ in range(40):
        visit.page.keyboard.press("Tab")
        seen.add(visit.page.evaluate("document.activeElement.className + ' ' + document.activeElement.tagName"))
        if visit.page.evaluate("document.activeElement.matches('#browse .tile')"):
            break
    assert visit.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    visit.page.keyboard.press("Enter")
    visit.until("document.querySelectorAll('#basket .tile').length === 4")

    assert {"skip A", " INPUT", " SELECT"} <= seen


@pytest.mark.parametrize("path", ["", "?domain=toys&history=toy-0152&compare=pictures", "status"])
@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, PHONE], ids=["light", "dark", "phone"])
def test_axe_finds_nothing_serious(browser: Browser, url: str, path: str, options: dict[str, Any]) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed; install the extra dev"
    )
    with visiting(browser, url, **options) as visit:
        visit.open(path)
        if path == "status":
            visit.wait("table")
        else:
            _ = visit.recommended
            visit.wait(".because:not(:empty)")
        found = axe.Axe().run(visit.page).response["violations"]
        width, shown = visit.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")

    assert [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in SERIOUS] == []
    assert width <= shown


def test_markup_in_a_catalog_stays_text(visit: Visit) -> None:
    before = {"title": "Pemas rocket", "kind": "rocket"}
    _administrate(visit.url, "PATCH", "catalog", {"set": {"toy-0004": {"title": HOSTILE, "kind": HOSTILE}}})
    try:
        visit.open(SHOWN)
        _ = visit.recommended
        visit.wait(".reason")
        assert HOSTILE in " ".join(visit.texts(".card[data-id=toy-0004]"))
        assert visit.page.locator("img[src=x]").count() == 0
    finally:
        _administrate(visit.url, "PATCH", "catalog", {"set": {"toy-0004": before}})


def test_a_page_that_needs_a_key_asks_for_it(browser: Browser, tmp_path: Path) -> None:
    key = new_key("someone", routes=("recommend", "explain", "browse", "users"))
    (tmp_path / "keys").write_text(key.line)
    env = {"VIP5_API_KEYS_FILE": str(tmp_path / "keys"), "VIP5_PAGE": "true"}
    with serving(DEMONSTRATION, env) as server, visiting(browser, server.url) as visit:
        visit.open()
        visit.wait("#key-value").fill("vip5_…")
        visit.page.keyboard.press("Enter")
        visit.wait("#alert:has-text('no API key')")
        visit.wait("#key-value").fill(key.key)
        visit.page.keyboard.press("Enter")
        assert len(visit.recommended) == 10
        visit.until("document.querySelector('.picture img').naturalWidth > 0")
        assert key.key not in visit.page.url
        visit.open("status")
        assert visit.wait(".state").inner_text() == "ready"


def test_the_status_refreshes_itself(visit: Visit) -> None:
    visit.open("status")
    visit.wait("table:has-text('summer'), table:has-text('canary')")
    with visit.page.expect_response("**/status") as asked:
        pass

    assert asked.value.status == 200


def test_the_documentation_loads_from_the_service_alone(visit: Visit) -> None:
    visit.open("docs")

    visit.wait(".opblock")
    assert visit.page.locator(".opblock").count() > 5
