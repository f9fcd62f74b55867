"""Links between the service's operations: which answer brings what another request needs.

The service's document has none; they are added to a copy. schemathesis infers some more from names.
"""

from __future__ import annotations

from typing import Any

DOMAIN = {"name": "$response.body#/domain"}
NAME = {"name": "$response.body#/name"}
PATH = {"name": "$request.path.name"}
USER = {"name": "$request.body#/domain", "user_id": "$request.body#/user_id"}
WHOSE = {"domain": "$request.body#/domain", "user_id": "$request.body#/user_id"}
LAST_VERSION = "$response.body#/versions/*/version"

LINKS: tuple[tuple[str, str, dict[str, str], dict[str, Any]], ...] = (
    # Questions
    ("recommend_sequential", "explain", {}, {"domain": DOMAIN["name"], "item_id": "$response.body#/items/*/item_id"}),
    ("recommend_sequential", "recommend_direct", {}, {"candidates": ["$response.body#/items/*/item_id"]}),
    ("recommend_sequential", "recommend_sequential", {}, {"history": ["$response.body#/items/*/item_id"]}),
    ("recommend_sequential", "change_catalog", DOMAIN, {"deactivate": ["$response.body#/items/*/item_id"]}),
    ("recommend_direct", "explain", {}, {"domain": DOMAIN["name"], "item_id": "$response.body#/items/*/item_id"}),
    ("explain", "recommend_sequential", {}, {"history": ["$request.body#/item_id"]}),
    # Stock and embeddings
    ("list_items", "change_catalog", PATH, {"deactivate": ["$response.body#/items/*/item_id"]}),
    ("list_items", "recommend_sequential", {}, {"history": ["$response.body#/items/*/item_id"]}),
    ("list_users", "recommend_sequential", {}, {"user_id": "$response.body#/users/*/user_id"}),
    ("change_catalog", "recommend_sequential", {}, {"domain": DOMAIN["name"]}),
    ("change_catalog", "recommend_direct", {}, {"domain": DOMAIN["name"]}),
    ("change_catalog", "list_items", DOMAIN, {}),
    ("change_catalog", "show_domain", DOMAIN, {}),
    ("change_catalog", "change_catalog", DOMAIN, {"expected_revision": "$response.body#/catalog_revision"}),
    ("change_catalog", "put_features", DOMAIN, {"expected_revision": "$response.body#/catalog_revision"}),
    ("put_features", "explain", {}, {"domain": DOMAIN["name"]}),
    ("put_features", "recommend_sequential", {}, {"domain": DOMAIN["name"]}),
    ("put_features", "change_catalog", DOMAIN, {"expected_revision": "$response.body#/catalog_revision"}),
    # Histories
    ("post_events", "show_history", USER, {}),
    ("post_events", "recommend_sequential", {}, WHOSE),
    ("post_events", "post_events", {}, WHOSE),
    ("recommend_sequential", "post_events", {}, WHOSE | {"item_id": "$response.body#/items/*/item_id"}),
    ("show_history", "erase_history", PATH | {"user_id": "$request.path.user_id"}, {}),
    ("show_history", "recommend_sequential", {}, {"user_id": "$request.path.user_id"}),
    ("erase_history", "recommend_sequential", {}, {"user_id": "$request.path.user_id"}),
    ("erase_history", "show_history", PATH | {"user_id": "$request.path.user_id"}, {}),
    # Boosts
    ("put_boosts", "show_boosts", DOMAIN, {}),
    ("put_boosts", "recommend_sequential", {}, {"domain": DOMAIN["name"]}),
    ("put_boosts", "recommend_direct_batch", {}, {}),
    ("put_boosts", "delete_boosts", DOMAIN, {}),
    ("put_boosts", "put_boosts", DOMAIN, {"expected_revision": "$response.body#/catalog_revision"}),
    ("delete_boosts", "recommend_direct", {}, {"domain": DOMAIN["name"]}),
    # Pictures and columns
    ("list_items", "show_item", PATH | {"item_id": "$response.body#/items/*/item_id"}, {}),
    ("list_items", "show_image", PATH | {"item_id": "$response.body#/items/*/item_id"}, {}),
    ("show_item", "show_image", PATH | {"item_id": "$response.body#/item_id"}, {}),
    ("list_columns", "list_items", PATH, {}),
    ("change_catalog", "recommend_sequential_batch", {}, {}),
    # Versions
    *(
        (source, target, NAME, body)
        for source in ("show_versions", "load_version", "swap_versions", "set_canary", "set_shadow", "roll_back")
        for target, body in (
            ("swap_versions", {"version": LAST_VERSION}),
            ("set_canary", {"version": LAST_VERSION}),
            ("set_shadow", {"version": LAST_VERSION}),
            ("recommend_sequential", {"domain": NAME["name"]}),
            ("explain", {"domain": NAME["name"]}),
            ("change_catalog", {}),
            ("put_features", {}),
        )
    ),
    ("load_version", "discard_version", NAME, {}),
    ("load_version", "load_version", NAME, {}),
    ("discard_version", "load_version", NAME, {}),
    ("set_canary", "promote_canary", NAME, {}),
    ("set_canary", "end_canary", NAME, {}),
    ("promote_canary", "roll_back", NAME, {}),
    ("set_shadow", "end_shadow", NAME, {}),
    ("end_shadow", "load_version", NAME, {}),
    ("end_canary", "load_version", NAME, {}),
    ("swap_versions", "roll_back", NAME, {}),
    ("roll_back", "unload_domain", NAME, {}),
    ("show_versions", "load_version", NAME, {}),
    ("list_versions", "show_versions", {"name": "$response.body#/domains/*/name"}, {}),
    ("list_domains", "show_domain", {"name": "$response.body#/domains/*/name"}, {}),
    ("list_domains", "list_items", {"name": "$response.body#/domains/*/name"}, {}),
    ("list_domains", "list_users", {"name": "$response.body#/domains/*/name"}, {}),
    ("list_domains", "load_version", {"name": "$response.body#/domains/*/name"}, {}),
    ("show_domain", "recommend_sequential", {}, {"domain": NAME["name"]}),
)
"""Source, target, parameters of the path, and fields of the body."""


def add_links(document: dict[str, Any]) -> None:
    """Add the links to the answers with status 200 in an OpenAPI document."""
    operations = {
        operation["operationId"]: operation
        for path in document["paths"].values()
        for operation in path.values()
        if isinstance(operation, dict) and "operationId" in operation
    }
    for source, target, parameters, body in LINKS:
        link: dict[str, Any] = {"operationId": target}
        if parameters:
            link["parameters"] = {f"path.{name}": value for name, value in parameters.items()}
        if body:
            link["requestBody"] = body
        operations[source]["responses"]["200"].setdefault("links", {})[target] = link
