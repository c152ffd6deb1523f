import pytest

from decone.document import figures

LUMINANCE = (0.2126, 0.7152, 0.0722)


def luminance(colour: str) -> float:
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels]
    return sum(weight * channel for weight, channel in zip(LUMINANCE, linear, strict=True))


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    ("light", "dark"), [pair for pair in figures.dark_colours().items() if pair[0].startswith("#")]
)
def test_colours_can_be_seen_on_their_ground(light: str, dark: str) -> None:
    assert contrast(light, figures.GROUND["light"]) >= 3
    assert contrast(dark, figures.GROUND["dark"]) >= 3


def test_faint_colours_have_counterparts_too() -> None:
    assert figures.dark_colours()[figures.faint(figures.LIGHT[0])] == figures.faint(figures.DARK[0])


def test_methods_stay_apart_when_colours_come_round_again() -> None:
    marks = [(figures.colour(index), figures.dash(index), figures.mark(index)) for index in range(12)]
    assert len(set(marks)) == 12


def test_bars_leave_out_what_is_no_number() -> None:
    series = {"<b>": {"1": 0.5, "2": float("nan"), "4": 3.0}, "human": {"1": 0.25}}
    plot = figures.bars(["1", "2"], series, {"human": figures.LIGHT[0]}, "n", percent=True)
    assert [trace.name for trace in plot.data] == ["&lt;b&gt;", "human"]
    assert [list(trace.x) for trace in plot.data] == [["1"], ["1"]]
    assert [list(trace.text) for trace in plot.data] == [["50.0 %"], ["25.0 %"]]
