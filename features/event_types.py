"""The event types that features know. Targets, segments and custom features may name any other."""

from collections.abc import Collection

from features.contract import PURCHASE as PURCHASE

VIEW = "view"
CART = "cart"
CHECKOUT = "checkout"
RETURN = "return"
COUPON = "coupon_redeemed"
CAMPAIGN = "campaign_received"
OPENED = "campaign_opened"
CLICKED = "campaign_clicked"
UNSUBSCRIBE = "unsubscribe"
SUPPORT = "support"

KNOWN = (PURCHASE, VIEW, CART, CHECKOUT, RETURN, COUPON, CAMPAIGN, OPENED, CLICKED, UNSUBSCRIBE, SUPPORT)

# What the company did to the user. The rest is what the user did.
CONTACTS = (CAMPAIGN,)
# What a visit may lead to: something is put into a cart, or bought, or asked for.
ACTIONS = (CART, CHECKOUT, PURCHASE, RETURN, SUPPORT)

# Derived from other events, see `features.derived`; each happens at the instant from which it can be known.
VISIT = "visit begun"
VISIT_ACTED = "visit led to an action"
# Of a day ago, whether bought since or not.
CART_SETTLED = "cart settled"
CART_ABANDONED = "cart abandoned"
CHECKOUT_ABANDONED = "checkout not finished"
ANSWERED = "campaign answered"
RETURN_ORDER = "return order begun"
NEW_ITEM = "item first bought"

# Types that features read together: each group is a base table of its own (see `features.snapshot`).
TOGETHER: dict[str, tuple[str, ...]] = {
    "purchases": (PURCHASE,),
    "browsing": (VIEW, VISIT, VISIT_ACTED),
    "carts": (CART, CART_SETTLED, CART_ABANDONED, CHECKOUT, CHECKOUT_ABANDONED),
    "contacts": (CAMPAIGN, OPENED, CLICKED, COUPON, UNSUBSCRIBE, ANSWERED),
    "service": (RETURN, RETURN_ORDER, SUPPORT),
    "items": (NEW_ITEM,),
}

# What each is derived from; visits are of other types as well (see `derivable`).
DERIVED_FROM = {
    VISIT: {VIEW},
    VISIT_ACTED: {VIEW, PURCHASE},
    CART_SETTLED: {CART},
    CART_ABANDONED: {CART, PURCHASE},
    CHECKOUT_ABANDONED: {CHECKOUT, PURCHASE},
    ANSWERED: {CAMPAIGN},
    RETURN_ORDER: {RETURN},
    NEW_ITEM: {PURCHASE},
}


def derivable(types: Collection[str]) -> set[str]:
    """Give the derived event types that those of a log allow.

    A visit is a session of whatever users do there: of visits in which nobody can do more than look, that they led to nothing is
    not told.
    """
    looked = set(types).difference(CONTACTS, ACTIONS)
    visits = {VISIT: bool(looked), VISIT_ACTED: bool(looked and set(types).intersection(ACTIONS))}
    return {name for name, sources in DERIVED_FROM.items() if visits.get(name, sources <= set(types))}
