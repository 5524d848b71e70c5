"""Families of features, one behaviour a file; each file's `features` declares them for the configured windows."""

from features.families import carts, channels, exit, habits, loyalty, promotion, region, sources, stage, timing, trend

FAMILIES = {
    "stage": stage,
    "channels": channels,
    "habits": habits,
    "carts": carts,
    "timing": timing,
    "loyalty": loyalty,
    "promotion": promotion,
    "exit": exit,
    "trend": trend,
    "sources": sources,
    "region": region,
}

# Windows that families look through whatever the config says.
FIXED_WINDOWS = (*timing.FIXED, *promotion.FIXED)
