"""Each stage with its transaction, its gate and its row in `runs`: what the DAGs and the command line call.

Nothing here is specific to Airflow. The functions take the run's clock (`now`, aware UTC), its id and its origin, use the
database of the settings, and return a flat dict of counts (never a person's data).
"""

from postlude.pipeline.campaigns import (
    ONE_OFF,
    assess,
    calendar,
    campaign_files,
    check_feeds,
    decide,
    enrol,
    history_before,
    in_force,
    one_off_campaigns,
    rehearse_campaign,
    release,
    request,
    run_campaign,
    schedule,
    tell_staff,
    watch,
)
from postlude.pipeline.customers import (
    derive_features,
    happen,
    keep_loyalty,
    note_happenings,
    overtaken,
    recommend,
    update_segments,
)
from postlude.pipeline.delivery import apply_events, collect, deliver, recover, sorted_faults, sound_campaigns
from postlude.pipeline.files import advice, validate
from postlude.pipeline.gates import check
from postlude.pipeline.orders import TAKEN_OVER, arrival, extract, list_sources, load, replay
from postlude.pipeline.runs import Counts, Progress, recorded
from postlude.pipeline.upkeep import maintain, watch_coupons, write_report
from postlude.pipeline.ways import CHANNELS, routes

__all__ = [
    "CHANNELS",
    "ONE_OFF",
    "TAKEN_OVER",
    "Counts",
    "Progress",
    "advice",
    "apply_events",
    "arrival",
    "assess",
    "calendar",
    "campaign_files",
    "check",
    "check_feeds",
    "collect",
    "decide",
    "deliver",
    "derive_features",
    "enrol",
    "extract",
    "happen",
    "history_before",
    "in_force",
    "keep_loyalty",
    "list_sources",
    "load",
    "maintain",
    "note_happenings",
    "one_off_campaigns",
    "overtaken",
    "recommend",
    "recorded",
    "recover",
    "rehearse_campaign",
    "release",
    "replay",
    "request",
    "routes",
    "run_campaign",
    "schedule",
    "sorted_faults",
    "sound_campaigns",
    "tell_staff",
    "update_segments",
    "validate",
    "watch",
    "watch_coupons",
    "write_report",
]
