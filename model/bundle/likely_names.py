"""What was likely meant by the name of a column that is not read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

_SYNONYMS = {
    "item_id": "sku asin parentasin article articleid articlenumber articleno product productid productcode "
    "productnumber itemnumber itemno movieid bookid isbn ean gtin variantid goodsid id item",
    "user_id": "user customer customerid client clientid buyer buyerid member memberid visitor visitorid account "
    "accountid reviewerid uid shopper shopperid email",
    "timestamp": "ts time date datetime tdat orderdate ordered orderedat orderat createdat created purchasedate "
    "purchasedat eventtime eventtimestamp unixreviewtime reviewtime unixtime day invoicedate",
    "rating": "stars star starrating score overall",
    "star_rating": "stars star rating score overall",
    "title": "name productname itemname prodname producttitle itemtitle articlename label",
    "image": "picture photo img imgurl imageurl imageurlhighres images picturepath pictureurl photourl thumbnail",
    "category": "group productgroup productgroupname department categoryname type producttype maincategory section",
    "categories": "categorypath path breadcrumbs taxonomy",
    "brand": "manufacturer vendor maker brandname",
    "price": "cost amount unitprice listprice retailprice saleprice msrp",
    "name": "username fullname customername firstname displayname",
    "index": "idx number internalid",
    "user": "userid customerid reviewerid uid",
    "item": "itemid sku asin productid articleid parentasin",
    "asin": "itemid sku productid articleid parentasin item",
    "reviewerID": "userid user customerid",
    "unixReviewTime": "timestamp time ts date reviewtime",
    "overall": "rating stars starrating score",
    "summary": "headline title",
    "explanation": "text review reviewtext",
    "headline": "summary title",
}
_SIMILARITY = 0.75


def normal_form(name: str) -> str:
    """`Item ID`, `item-id` and `ITEM_ID` are one name."""
    return re.sub(r"[\W_]+", "", name).casefold()


def likely_name(name: str, free: Sequence[str]) -> str | None:
    """The one of the free names that this one was likely meant for, by synonyms and by spelling."""
    form = normal_form(name)
    for known in free:
        if form == normal_form(known) or form in _SYNONYMS.get(known, "").split():
            return known
    by_form = {normal_form(known): known for known in free}
    close = difflib.get_close_matches(form, list(by_form), 1, _SIMILARITY)
    return by_form[close[0]] if close else None


def hint(names: Iterable[str], free: Sequence[str]) -> str:
    """`'sku' may be meant for 'item_id': rename …`, of all names that are likely meant for a free one, else empty."""
    return hint_of({name: likely for name in names if (likely := likely_name(name, free)) is not None})


def hint_of(meant: dict[str, str]) -> str:
    """The same of known pairs of a name and what was meant."""
    pairs = [f"{name!r} may be meant for {likely!r}" for name, likely in meant.items()]
    return f"{', '.join(pairs)}: rename the columns that are to be read" if pairs else ""
