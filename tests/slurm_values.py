"""Values of sbatch that more than one test looks at."""

from __future__ import annotations

import math

TIMES = {
    "60": 3600,
    "1": 60,
    "05:30": 360,
    "90:00": 5400,
    "00:30": 60,
    "01:30:00": 5400,
    "100:00:00": 360000,
    "1-00": 86400,
    "1-12:30": 131400,
    "2-00:00:01": 172860,
    "0": math.inf,
    "UNLIMITED": math.inf,
    "infinite": math.inf,
    "-1": math.inf,
}

BEGINS = [
    *(
        "now",
        "now+1hour",
        "now+60",
        "now+2days",
        "NOW+1week",
        "today",
        "tomorrow",
        "midnight",
        "noon",
        "fika",
    ),
    *(
        "teatime",
        "16:00",
        "4:00PM",
        "16:00:30",
        "2030-01-31",
        "2030-01-31T12:00",
        "2030-01-31T12:00:30",
        "01/31",
    ),
    *(
        "01/31/30",
        "0131",
        "013130",
        "01.31.30",
        "tomorrow 16:00",
        "16:00 tomorrow",
        "uts1900000000",
        "01/31-12:00",
    ),
]
NO_BEGINS = [
    *(
        "soon",
        "1hour",
        "now+",
        "now+1h",
        "now+1hr",
        "25:00",
        "16:60",
        "2030-13-01",
        "2030-01-32",
        "13/01",
        "12:00:61",
    ),
    *("now+1.5hours", "2030/01/31", "13:00PM", "2030-01-31T", "16", "tomorow"),
]
