"""How long to stay away, as exchanges spell it."""

import pytest

from ingest.retry_after import retry_after
from pipeline.timeframes import HOUR, MINUTE, SECOND

NOW = 784_111_777 * SECOND
"""Sun, 06 Nov 1994 08:49:37 GMT, the example of the RFC."""


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "0"}, 0),
        ({"retry-after": " 7 "}, 7 * SECOND),
        ({"RETRY-AFTER": "259200"}, 72 * HOUR),
        ({"Retry-After": "Sun, 06 Nov 1994 09:49:37 GMT"}, HOUR),
        ({"Retry-After": "Sun, 06 Nov 1994 07:49:37 GMT"}, 0),
        # Our clock is an hour behind the exchange's.
        ({"Retry-After": "Sun, 06 Nov 1994 10:49:37 GMT", "Date": "Sun, 06 Nov 1994 09:49:37 GMT"}, HOUR),
        ({"Retry-After": "Sun, 06 Nov 1994 09:49:37 GMT", "Date": "today"}, HOUR),
        ({"Retry-After": "soon"}, MINUTE),
        ({"Retry-After": "-1"}, MINUTE),
        ({"Retry-After": "1.5"}, MINUTE),
        ({"Retry-After": "\u0667"}, MINUTE),
    ],
)
def test_the_pause_is_what_was_asked_for(headers: dict[str, str], pause: int | None) -> None:
    assert retry_after(429, headers, NOW) == pause


def test_an_outage_is_looked_at_again_within_a_minute() -> None:
    assert retry_after(503, {"Retry-After": "7"}, NOW) == 7 * SECOND
    assert retry_after(503, {"Retry-After": "7200"}, NOW) == MINUTE
    assert retry_after(503, {}, NOW) is None
