import pytest

from dnnlib.text import format_bytes, format_duration, parse_int_list, parse_number_list


def test_parse_int_list() -> None:
    assert parse_int_list("0-3,20") == [0, 1, 2, 3, 20]
    assert parse_int_list(" 7 , 5 - 6 ") == [7, 5, 6]


UNCLEAR = ["", "1,", "a", "3-1", "-1", "1-2-3", "1.5"]
TOO_LONG = ["0-10000000", "0-4294967295", "0-99999999999", "7,0-5999999,0-5999999"]


@pytest.mark.parametrize("text", UNCLEAR + TOO_LONG)
def test_parse_int_list_refuses(text: str) -> None:
    message = f"^'{text}' has more than 10,000,000 numbers" if text in TOO_LONG else "[wW]rite"
    with pytest.raises(ValueError, match=message):
        parse_int_list(text)


@pytest.mark.parametrize(
    ("sec", "text"),
    [(0, "0s"), (17.2, "17s"), (59.6, "1m 00s"), (245, "4m 05s"), (3723, "1h 02m 03s"), (93784, "1d 02h 03m")],
)
def test_format_duration(sec: float, text: str) -> None:
    assert format_duration(sec) == text


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**20 - 1, "1.0 MiB"), (5 * 2**40, "5.0 TiB")]
)
def test_format_bytes(n: int, text: str) -> None:
    assert format_bytes(n) == text


def test_number_list() -> None:
    assert parse_number_list("-1,-0.5, 0,1e-1") == [-1.0, -0.5, 0.0, 0.1]
    for text in ("", "1,", "a", "0-1", "nan", "inf,1"):
        with pytest.raises(ValueError, match=r"is not a list of numbers; write for example -1,0,0\.5"):
            parse_number_list(text)
