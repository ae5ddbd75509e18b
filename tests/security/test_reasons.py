"""Why a handshake has failed, in one word of few: what a metric may have as a label."""

import ssl

import pytest

from dk_trio.rpc.handshake import _reason


def of_a_certificate(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError("certificate verify failed")
    error.verify_code = code
    return error


@pytest.mark.parametrize(
    ("code", "reason"), [(9, "not_yet_valid"), (10, "expired"), (20, "wrong_ca"), (62, "bad_certificate")]
)
def test_what_is_wrong_with_a_certificate(code: int, reason: str) -> None:
    assert _reason(of_a_certificate(code)) == reason


@pytest.mark.parametrize("cause", [None, ConnectionResetError("gone"), ssl.SSLEOFError("gone")])
def test_who_leaves_is_told_from_who_is_refused(cause: Exception | None) -> None:
    assert _reason(cause) == "closed"
